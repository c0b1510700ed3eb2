"""Commands as they arrive (§4), and the effects that a session asks for."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from hub.live.centrifuge.codes import Disconnect

# ---------------------------------------------------------------- what arrives

NULL: Final = Raw(b"null")
_Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class PositionRequest(Struct):
    recover: bool = False
    offset: _Offset = 0
    epoch: str = ""


class ConnectRequest(Struct):
    token: str | None = None
    subs: dict[str, PositionRequest] | None = None


class SubscribeRequest(Struct):
    channel: str = ""
    recover: bool = False
    offset: _Offset = 0
    epoch: str = ""
    flag: int = 0
    type: int = 0
    tf: Raw = NULL


class ChannelRequest(Struct):
    channel: str = ""


class HistoryRequest(Struct):
    channel: str = ""
    limit: int = 0
    since: PositionRequest | None = None
    reverse: bool = False


class RpcRequest(Struct):
    method: str = ""
    data: Raw = NULL


class RefreshRequest(Struct):
    token: str = ""


class IgnoredRequest(Struct):
    pass


class Command(Struct):
    id: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: ChannelRequest | None = None
    publish: ChannelRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    history: HistoryRequest | None = None
    rpc: RpcRequest | None = None
    send: IgnoredRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: ChannelRequest | None = None


decode_command = msgspec.json.Decoder(Command).decode


# ---------------------------------------------------------------- what is to be done


@dataclass(frozen=True, slots=True)
class Position:
    """Where a client says it is on a channel."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Write this line."""

    line: bytes


@dataclass(frozen=True, slots=True)
class Connect:
    """Authenticate and join; answer with `connected` or `refuse`."""

    id: int
    token: str
    positions: dict[str, Position]


@dataclass(frozen=True, slots=True)
class Refresh:
    """Check a new token."""

    id: int
    token: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe on the client's wish; `wants_112`: it takes error 112 instead of a failed recovery."""

    id: int
    channel: str
    position: Position | None
    wants_112: bool


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """End a client-side subscription, then write the line."""

    channel: str
    line: bytes


@dataclass(frozen=True, slots=True)
class History:
    """Read a page of a channel."""

    id: int
    channel: str
    limit: int
    since: Position | None
    reverse: bool


@dataclass(frozen=True, slots=True)
class Rpc:
    """Call a method."""

    id: int
    method: str
    data: Any


Ask = Connect | Refresh | Subscribe | History | Rpc
Effect = Reply | Disconnect | Unsubscribe | Ask
