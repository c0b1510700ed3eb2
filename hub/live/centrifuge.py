"""The Centrifuge client protocol in JSON, server side, bidirectional: text in, effects and encoded lines out.

Sans-I/O: no clock (moments are given), no socket. `Session.receive` takes the text of one frame, `next_effect` says
what to do, one thing at a time and in order; after an `Ask` nothing follows until `finish` (or `connected`, `refuse`)
is called. Nothing a client sends raises; what breaks the protocol becomes a `Disconnect`.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw, Struct

from hub.errors import Refused
from hub.model.vocabulary import BROADCASTS, personal_channel

# ---------------------------------------------------------------- codes (protocol document §10)

INTERNAL, PERMISSION, NO_METHOD, ALREADY_SUBSCRIBED, BAD_REQUEST = 100, 103, 104, 105, 107
NOT_AVAILABLE, TOKEN_EXPIRED, TOO_MANY, UNRECOVERABLE = 108, 109, 111, 112
_ERRORS: Final = {
    INTERNAL: ("internal server error", True),
    PERMISSION: ("permission denied", False),
    NO_METHOD: ("method not found", False),
    ALREADY_SUBSCRIBED: ("already subscribed", False),
    BAD_REQUEST: ("bad request", False),
    NOT_AVAILABLE: ("not available", False),
    TOKEN_EXPIRED: ("token expired", False),
    TOO_MANY: ("too many requests", True),
    UNRECOVERABLE: ("unrecoverable position", False),
}
_OF_STATUS: Final = {
    400: BAD_REQUEST,
    401: PERMISSION,
    403: PERMISSION,
    404: NO_METHOD,
    422: BAD_REQUEST,
    429: TOO_MANY,
}

MAX_CHANNEL_LENGTH: Final = 255
HISTORY_LIMIT: Final = 300
MAX_PENDING: Final = 128
BURST: Final = 200  # commands at once …
PER_SECOND: Final = 50  # … and then at this rate; beyond it error 111, far beyond it 3013


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection with this code and reason."""

    code: int
    reason: str


SHUTDOWN: Final = Disconnect(3001, "shutdown")
SERVER_ERROR: Final = Disconnect(3004, "internal server error")
EXPIRED: Final = Disconnect(3005, "connection expired")
SLOW: Final = Disconnect(3008, "slow")
GAP: Final = Disconnect(3010, "insufficient state")
NO_PONG: Final = Disconnect(3012, "no pong")
FLOOD: Final = Disconnect(3013, "too many requests")
INVALID_TOKEN: Final = Disconnect(3500, "invalid token")
BAD: Final = Disconnect(3501, "bad request")
STALE: Final = Disconnect(3502, "stale")
LIMIT: Final = Disconnect(3504, "connection limit")
UNAVAILABLE: Final = Disconnect(3508, "not available")

# ---------------------------------------------------------------- commands as they arrive

_NULL: Final = Raw(b"null")
_Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class _Position(Struct):
    recover: bool = False
    offset: _Offset = 0
    epoch: str = ""


class _Connect(Struct):
    token: str | None = None
    subs: dict[str, _Position] | None = None


class _Subscribe(Struct):
    channel: str = ""
    recover: bool = False
    offset: _Offset = 0
    epoch: str = ""
    flag: int = 0
    type: int = 0
    tf: Raw = _NULL


class _Channel(Struct):
    channel: str = ""


class _History(Struct):
    channel: str = ""
    limit: int = 0
    since: _Position | None = None
    reverse: bool = False


class _Rpc(Struct):
    method: str = ""
    data: Raw = _NULL


class _Refresh(Struct):
    token: str = ""


class _Ignored(Struct):
    pass


class _Command(Struct):
    id: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    connect: _Connect | None = None
    subscribe: _Subscribe | None = None
    unsubscribe: _Channel | None = None
    publish: _Channel | None = None
    presence: _Channel | None = None
    presence_stats: _Channel | None = None
    history: _History | None = None
    rpc: _Rpc | None = None
    send: _Ignored | None = None
    refresh: _Refresh | None = None
    sub_refresh: _Channel | None = None


_decode_command = msgspec.json.Decoder(_Command).decode
_decode_any = msgspec.json.Decoder(Any).decode
_encode = msgspec.json.Encoder().encode


# ---------------------------------------------------------------- effects


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


class _State(Enum):
    NEW = 1  # nothing but connect is taken
    CONNECTING = 2
    CONNECTED = 3
    REFUSED = 4  # an error reply to connect: all later lines are ignored
    CLOSED = 5


class Session:
    """One client's side of the conversation."""

    __slots__ = (
        "_allowance",
        "_busy",
        "_channels",
        "_moment",
        "_pending",
        "_state",
        "awaits_pong",
        "user_id",
    )

    def __init__(self) -> None:
        self._state = _State.NEW
        self._pending: deque[_Command | Disconnect] | None = None
        self._busy = False
        self._channels: frozenset[str] = frozenset()  # client-side subscriptions
        self._allowance = float(BURST)
        self._moment = 0.0
        self.awaits_pong = False
        self.user_id = ""

    @property
    def is_new(self) -> bool:
        """Whether the client has not even asked to connect."""
        return self._state is _State.NEW

    @property
    def is_connected(self) -> bool:
        """Whether `connect` succeeded and nothing ended it since."""
        return self._state is _State.CONNECTED

    # ------------------------------------------------------------ what comes in

    def receive(self, text: str, now: float) -> bool:
        """Take the text of one frame; `now` in seconds. Returns whether it held the pong that was due."""
        if self._state in (_State.REFUSED, _State.CLOSED):
            return False
        lines = text.split("\n")
        if len(lines) > 1 and not lines[-1]:
            lines.pop()
        ponged = False
        for line in lines:
            command = self._read(line, now)
            if command is None:
                ponged = True
                continue
            if self._pending is None:
                self._pending = deque()
            self._pending.append(command)
            if isinstance(command, Disconnect):
                break
        return ponged

    def spend(self, now: float) -> bool:
        """Count one command or control frame against the rate. False: far beyond it."""
        refill = (now - self._moment) * PER_SECOND if self._moment else 0.0
        self._moment = now
        self._allowance = min(self._allowance + refill, float(BURST)) - 1
        return self._allowance >= -BURST

    def _read(self, line: str, now: float) -> _Command | Disconnect | None:
        """One line; None is the awaited pong."""
        if not self.spend(now):
            return FLOOD
        if line == "{}" and self.awaits_pong:
            self.awaits_pong = False
            return None
        try:
            command = _decode_command(line)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return BAD
        if command.id == 0 and command.send is None:
            # Without an id it is a pong, and one that nobody asked for is an error (§5).
            if not self.awaits_pong:
                return BAD
            self.awaits_pong = False
            return None
        return command

    # ------------------------------------------------------------ what is to be done

    def next_effect(self) -> Effect | None:
        """The next thing to do; None while an ask is open or nothing waits."""
        if not self._pending or self._busy:
            return None
        command = self._pending.popleft()
        try:
            effect = command if isinstance(command, Disconnect) else self._take(command)
        except RecursionError:  # nested data that passed as raw JSON just so
            effect = BAD
        if not self._pending:
            self._pending = None
        if isinstance(effect, Disconnect):
            self.close()
        self._busy = isinstance(effect, Ask)
        return effect

    def finish(self) -> None:
        """The open ask was answered."""
        self._busy = False

    def connected(self, user_id: str) -> None:
        """The reply to connect is written."""
        if self._state is _State.CONNECTING:
            self._state = _State.CONNECTED
        self.user_id = user_id
        self._busy = False

    def refuse(self) -> None:
        """An error was replied to connect: what the client sends from now on is ignored."""
        self._state = _State.REFUSED
        self._pending = None
        self._busy = False

    def subscribed(self, channel: str) -> None:
        """A client-side subscription began."""
        self._channels |= {channel}

    def unsubscribed(self, channel: str) -> None:
        """A client-side subscription ended."""
        self._channels -= {channel}

    def close(self) -> None:
        """The connection is over; nothing more comes out."""
        self._state = _State.CLOSED
        self._pending = None

    def _take(self, command: _Command) -> Effect:
        number = command.id
        if command.connect is not None:
            return self._connect(number, command.connect)
        if self._state is not _State.CONNECTED:
            return BAD
        if self._allowance < 0 or (self._pending and len(self._pending) > MAX_PENDING):
            return Reply(error_line(number, TOO_MANY)) if number else FLOOD
        # One payload a command; of several the first in the protocol's order counts (§3).
        if command.subscribe is not None:
            return self._subscribe(number, command.subscribe)
        if command.unsubscribe is not None:
            return self._unsubscribe(number, command.unsubscribe.channel)
        if command.publish is not None:
            return _named(command.publish, number, PERMISSION)
        if command.presence is not None:
            return _named(command.presence, number, NOT_AVAILABLE)
        if command.presence_stats is not None:
            return _named(command.presence_stats, number, NOT_AVAILABLE)
        if command.history is not None:
            return _history(number, command.history)
        if command.rpc is not None:
            return Rpc(number, command.rpc.method, _decode_any(command.rpc.data))
        if command.send is not None:
            return UNAVAILABLE
        if command.refresh is not None:
            return Refresh(number, command.refresh.token) if command.refresh.token else BAD
        if command.sub_refresh is not None:
            return _named(command.sub_refresh, number, NOT_AVAILABLE)
        return BAD

    def _connect(self, number: int, request: _Connect) -> Effect:
        if self._state is not _State.NEW:
            return BAD
        self._state = _State.CONNECTING
        positions = {
            channel: Position(asked.epoch, asked.offset)
            for channel, asked in (request.subs or {}).items()
            if asked.recover
        }
        return Connect(number, request.token or "", positions)

    def _subscribe(self, number: int, request: _Subscribe) -> Effect:
        channel = request.channel
        if not channel:
            return BAD
        if len(channel) > MAX_CHANNEL_LENGTH or request.tf != _NULL:
            return Reply(error_line(number, BAD_REQUEST))
        if request.type:
            return Reply(error_line(number, NOT_AVAILABLE))
        if channel in self._channels or channel in (BROADCASTS, personal_channel(self.user_id)):
            return Reply(error_line(number, ALREADY_SUBSCRIBED))
        position = Position(request.epoch, request.offset) if request.recover else None
        return Subscribe(number, channel, position, bool(request.flag & 2))

    def _unsubscribe(self, number: int, channel: str) -> Effect:
        if not channel:
            return BAD
        line = _encode({"id": number, "unsubscribe": {}})
        if channel not in self._channels:  # never an error: it would make SDKs reconnect (§4)
            return Reply(line)
        self.unsubscribed(channel)
        return Unsubscribe(channel, line)


def _named(request: _Channel, number: int, code: int) -> Effect:
    return Reply(error_line(number, code)) if request.channel else BAD


def _history(number: int, request: _History) -> Effect:
    if not request.channel:
        return BAD
    since = request.since
    if len(request.channel) > MAX_CHANNEL_LENGTH or (
        request.reverse and since is not None and not since.offset
    ):
        return Reply(error_line(number, BAD_REQUEST))
    limit = HISTORY_LIMIT if request.limit < 0 else min(request.limit, HISTORY_LIMIT)
    position = None if since is None else Position(since.epoch, since.offset)
    return History(number, request.channel, limit, position, request.reverse)


# ---------------------------------------------------------------- lines that go out


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription as a client is told about it; `publications` are (offset, JSON) ascending."""

    channel: str
    epoch: str
    offset: int
    was_recovering: bool = False
    recovered: bool = False
    publications: Sequence[tuple[int, bytes]] = ()

    def result(self) -> dict[str, Any]:
        """The subscribe result. Zero values stay away, as the protocol wants it (§3)."""
        result: dict[str, Any] = {"recoverable": True, "positioned": True, "epoch": self.epoch}
        if self.offset:
            result["offset"] = self.offset
        if self.was_recovering:
            result["was_recovering"] = True
        if self.recovered:
            result["recovered"] = True
        if self.publications:
            result["publications"] = _publications(self.publications)
        return result


def _embed(payload: bytes) -> Raw:
    # JSON has no line breaks inside strings, so blanks change nothing; a line must stay one line (§3).
    return Raw(
        payload.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in payload or b"\r" in payload else payload
    )


def _publications(publications: Sequence[tuple[int, bytes]]) -> list[dict[str, Any]]:
    return [
        {"data": _embed(payload), "offset": offset} if offset else {"data": _embed(payload)}
        for offset, payload in publications
    ]


def connect_line(
    number: int,
    client: str,
    version: str,
    *,
    ping_seconds: int,
    ttl_seconds: int | None,
    subs: Sequence[Subscription],
) -> bytes:
    """The reply to connect. `ping_seconds` 0: no pings in the protocol; `ttl_seconds` None: it does not expire."""
    result: dict[str, Any] = {"client": client, "version": version}
    if ttl_seconds is not None:
        result |= {"expires": True, "ttl": max(1, ttl_seconds)}
    if ping_seconds:
        result |= {"ping": ping_seconds, "pong": True}
    result["subs"] = {one.channel: one.result() for one in subs}
    return _encode({"id": number, "connect": result})


def refresh_line(number: int, client: str, version: str, ttl_seconds: int | None) -> bytes:
    """The reply to refresh."""
    result: dict[str, Any] = {"client": client, "version": version}
    if ttl_seconds is not None:
        result |= {"expires": True, "ttl": max(1, ttl_seconds)}
    return _encode({"id": number, "refresh": result})


def subscribe_line(number: int, subscription: Subscription) -> bytes:
    """The reply to subscribe."""
    return _encode({"id": number, "subscribe": subscription.result()})


def history_line(number: int, epoch: str, top: int, publications: Sequence[tuple[int, bytes]]) -> bytes:
    """The reply to history; these three are always there (§3)."""
    result = {"publications": _publications(publications), "epoch": epoch, "offset": top}
    return _encode({"id": number, "history": result})


def rpc_line(number: int, data: bytes) -> bytes:
    """The reply to rpc."""
    return _encode({"id": number, "rpc": {"data": _embed(data or b"null")}})


def error_line(number: int, code: int) -> bytes:
    """An error reply."""
    message, temporary = _ERRORS[code]
    error: dict[str, Any] = {"code": code, "message": message}
    if temporary:
        error["temporary"] = True
    return _encode({"id": number, "error": error})


def error_code(refused: Refused) -> int:
    """The protocol's code for a refusal of the use cases."""
    return _OF_STATUS.get(refused.status, INTERNAL)


def subscribed_push(channel: str, epoch: str, offset: int) -> bytes:
    """A server-side subscription began."""
    begun: dict[str, Any] = {"recoverable": True, "positioned": True, "epoch": epoch}
    if offset:
        begun["offset"] = offset
    return _encode({"push": {"channel": channel, "subscribe": begun}})


def unsubscribed_push(channel: str, code: int, reason: str) -> bytes:
    """A subscription ended; code and reason are always there (§9)."""
    return _encode({"push": {"channel": channel, "unsubscribe": {"code": code, "reason": reason}}})


PING_LINE: Final = b"{}"
