"""The live bus: kept histories of live channels, and their fan-out to nodes as a hint that may be lost."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from msgspec import Struct

from hub.ports.queue import Position


class Publication(Struct, frozen=True):
    """One live message for one live channel.

    `payload` is ready-made (the JSON of the live message; for `broadcasts` see hub.live.broadcasts). `header` is a
    short ASCII text for nodes (flags), without newline. With a `position` the append is refused when the channel
    already holds one not smaller: a repeat changes nothing.
    """

    channel: str
    payload: bytes
    position: Position | None = None
    header: str = ""


class Published(Struct, frozen=True):
    """What became of a publication: its offset (0: refused as a repeat) and how many nodes listened."""

    offset: int
    listeners: int


class Message(Struct, frozen=True, gc=False):
    """A publication as nodes get it, live or from history."""

    channel: str
    epoch: str
    offset: int
    header: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class History:
    """A channel's state: its top, and the held messages after the asked offset, ascending.

    `complete` is False when some after the asked offset are not held any more (or the epoch is another).
    """

    epoch: str
    top: int
    messages: list[Message] = field(default_factory=list)
    complete: bool = True


class BusReceiver(Protocol):
    """A hub node, as the bus sees it. Called on the event loop; must not block."""

    def receive_message(self, message: Message) -> None:
        """A live message of a subscribed channel. May be lost, never reordered on one link; a hint."""
        ...

    def receive_control(self, body: bytes) -> None:
        """A control message (`send_control`) from any process."""
        ...

    def bus_lost(self) -> None:
        """The link is down (or silent for 2 s). Messages are being missed from now on."""
        ...

    def bus_restored(self) -> None:
        """The link is up again and every subscription is confirmed: compare offsets and repair now."""
        ...


class LiveBus(Protocol):
    """Histories of live channels (kept, ordered by offset) and their fan-out to nodes (a hint that may be lost).

    Append, offset and fan-out are one atomic step per publication. The epoch names one life of a channel's history;
    it begins with the generation, which is raised when a failover is seen.
    """

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        """Append and fan out, in order, in one round trip. Raises `BusUnavailable`; repeat with the same positions."""
        ...

    async def history(self, channel: str, after: int, epoch: str | None, limit: int = 300) -> History:
        """What is held after an offset. `epoch` None or "": any. A channel never used gets its epoch here."""
        ...

    async def tops(self, channels: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Epoch and top offset of channels, in few round trips."""
        ...

    async def start(self, receiver: BusReceiver) -> None:
        """Begin to listen. The link repairs itself for ever; the receiver hears of it."""
        ...

    async def subscribe(self, channel: str) -> None:
        """Returns when the subscription is confirmed: what is published from now on arrives. Counted: pairs with unsubscribe."""
        ...

    async def unsubscribe(self, channel: str) -> None:
        """Give one subscription back; the last one ends it."""
        ...

    async def send_control(self, body: bytes) -> None:
        """Tell every process that listens something short (a user changed, a token was revoked). A hint."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
