"""The seam between wires (one per connected client, a protocol and a transport) and the node (channels, fan-out).

A wire authenticates, speaks its protocol and owns its socket; the node decides what goes to whom and in which order.
All of it runs on one event loop; nothing here blocks. The node calls `push` from its sweeps; a wire that cannot take
more closes itself as slow and tells the node with `leave`.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

from hub.live import sse
from hub.live.rfc6455 import text_frame
from hub.origins import OriginPolicy


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is connected: from a verified token or session. `operator` may subscribe to `log`."""

    user_id: str
    expires_at_us: int | None
    issued_at_us: int
    operator: bool = False


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """Where a client says it is on a channel. An empty epoch means any."""

    epoch: str
    offset: int


class Frame:
    """One publication, encoded once per wire form and shared by every connection that gets it.

    `payload` is the ready-made JSON of the live message. `kind` is its kind (SSE `event:`).
    """

    __slots__ = ("_place", "_sse", "_websocket", "channel", "epoch", "kind", "offset", "payload", "report_id")

    def __init__(
        self, channel: str, epoch: str, offset: int, kind: str, payload: bytes, report_id: str = ""
    ) -> None:
        self.channel = channel
        self.epoch = epoch
        self.offset = offset  # 0: no position
        self.kind = kind
        self.payload = payload
        self.report_id = report_id  # notification id to report as reached, or ""
        self._websocket: bytes | None = None
        self._sse: bytes | None = None
        self._place: bytes | None = None

    def websocket_frame(self) -> bytes:
        """The complete RFC 6455 text frame that holds one Centrifuge push."""
        if self._websocket is None:
            offset = b',"offset":%d' % self.offset if self.offset else b""
            # JSON has no line breaks inside strings; between its tokens a blank does as well, and a push is one line.
            payload = self.payload.replace(b"\n", b" ").replace(b"\r", b" ")
            self._websocket = text_frame(
                b'{"push":{"channel":"%s","pub":{"data":%s%s}}}' % (self.channel.encode(), payload, offset)
            )
        return self._websocket

    def sse(self) -> bytes:
        """The event without its `id:` line (the cursor differs per connection)."""
        if self._sse is None:
            self._sse = sse.event(self.kind, self.payload)
        return self._sse

    def place(self) -> bytes:
        """Its half of an SSE cursor."""
        if self._place is None:
            self._place = sse.place_text(self.epoch, self.offset)
        return self._place


class Parcel:
    """Publications of `broadcasts` in order, joined once per wire form and shared by every connection that gets all of them."""

    __slots__ = ("_sse", "frames", "joined", "report_ids")

    def __init__(self, frames: list[Frame]) -> None:
        self.frames = frames
        self.report_ids = [frame.report_id for frame in frames if frame.report_id]
        self.joined = b""  # what `websocket` made
        self._sse: dict[int, list[bytes]] = {}

    def websocket(self) -> bytes:
        """Their RFC 6455 frames, one after the other."""
        if not self.joined:
            frames = [frame.websocket_frame() for frame in self.frames]
            self.joined = frames[0] if len(frames) == 1 else b"".join(frames)
        return self.joined

    def sse_chunk(self, personal: bytes) -> bytes:
        """Their events as one HTTP chunk for a client whose place on its personal channel is `personal`."""
        parts = self._sse.get(len(personal))
        if parts is None:
            parts = self._sse[len(personal)] = sse.chunk_around_place(
                [(frame.place(), frame.sse()) for frame in self.frames], len(personal)
            )
        return personal.join(parts)


class Wire(Protocol):
    """One connected client, as the node sees it. Slotted; no task, no queue of its own beyond the bounded buffer."""

    connection_id: str
    identity: Identity
    visible: bool

    @property
    def transport(self) -> str:
        """`websocket` or `sse`, for counting."""
        ...

    def push(self, frame: Frame) -> None:
        """Send one publication (joined with others of this sweep). Never raises, never blocks."""
        ...

    def push_parcel(self, parcel: Parcel) -> None:
        """Send publications that many wires get alike. Never raises, never blocks."""
        ...

    def gap(self, channel: str) -> None:
        """Something was missed that history does not hold: WebSocket closes 3010 (the client recovers); SSE sends `gap`."""
        ...

    def close(self, code: int, reason: str) -> None:
        """End the connection with a Centrifuge disconnect code (SSE: `reconnect` with the reason, then the end)."""
        ...

    def ask_proof(self) -> None:
        """Find out soon whether the peer read what was written until now; the answer is `Node.proven_alive`.

        While one proof runs no other begins: who has written more since then asks again after it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Joined:
    """The answer to a join, one per channel: a position, and what was missed (ascending) if it could be recovered."""

    channel: str
    epoch: str
    offset: int  # the stream's top; on recovery the position that was asked for
    was_recovering: bool = False
    recovered: bool = False
    missed: list[Frame] = field(default_factory=list)


class Node(Protocol):
    """The hub node, as wires see it."""

    async def join(self, wire: Wire, positions: dict[str, StreamPosition]) -> list[Joined]:
        """Register for live delivery (held back), read histories, merge by offset. The channels are always the
        personal one and `broadcasts`; positions of others are ignored. Raises `Refused(403|429|503)` for limits, a
        revoked token or a bus that is away. After the reply is written the wire calls `release`."""
        ...

    def release(self, wire: Wire) -> None:
        """The reply is out: flush what was held back, deliver live from now on."""
        ...

    def leave(self, wire: Wire) -> None:
        """The connection is over. Repeating it changes nothing."""
        ...

    async def subscribe(self, wire: Wire, channel: str, position: StreamPosition | None) -> Joined:
        """A client-side subscription: only `log`, only for operators. Raises `Refused(403)` otherwise. Then `release`."""
        ...

    def unsubscribe(self, wire: Wire, channel: str) -> None:
        """End a client-side subscription; unknown ones change nothing."""
        ...

    async def history(
        self, wire: Wire, channel: str, limit: int, since: StreamPosition | None, reverse: bool
    ) -> Joined:
        """A page of a channel that the wire is subscribed to; for `broadcasts` only what it may see."""
        ...

    async def rpc(self, wire: Wire, method: str, data: Any) -> bytes:
        """Call a method; returns its JSON. Raises `Refused` (404: no such method; 422: bad data; 429; 503)."""
        ...

    def set_visible(self, wire: Wire, visible: bool) -> None:
        """The page came to the front or went to the back."""
        ...

    def proven_alive(self, wire: Wire, until_us: int) -> None:
        """The peer read everything that was written to it until this moment (a ping's, whose pong came; for SSE see there)."""
        ...


class Gate(Protocol):
    """Who may connect."""

    @property
    def origins(self) -> OriginPolicy:
        """Which pages are our own: only theirs may use a session's cookie."""
        ...

    async def authenticate(self, token: str) -> Identity:
        """Verify a user token. Raises `TokenExpired`, `TokenError`, `StoreUnavailable`."""
        ...

    async def authenticate_session(self, session: str) -> Identity:
        """Verify the value of a session's cookie. Raises the same."""
        ...

    def origin_allowed(self, origin: str | None, host: str) -> bool:
        """Whether a browser page of this origin may connect (None: not a browser page, allowed)."""
        ...
