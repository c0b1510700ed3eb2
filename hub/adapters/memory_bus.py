"""The live bus in memory, for tests and experiments: the same behaviour as on Redis within one process.

Nodes of one process whose buses stand `beside` each other share the channels. `cut` and `restore` play a lost link:
what is published between them is missed, as on a real one.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from hub.adapters.channel_retention import retention_of
from hub.errors import BusUnavailable
from hub.ports import BusReceiver, Clock, History, Message, Position, Publication, Published


@dataclass(slots=True)
class _Channel:
    """One life of a live channel."""

    top_until_us: int
    epoch: str = field(default_factory=lambda: secrets.token_hex(4))
    offset: int = 0
    position: Position | None = None
    held: deque[tuple[int, str, bytes]] = field(default_factory=deque)
    held_until_us: int = 0


class _LiveChannels:
    """What Redis would hold: the channels, and who listens."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._channels: dict[str, _Channel] = {}
        self.buses: list[MemoryBus] = []

    def channel(self, name: str) -> _Channel:
        """The channel as it is now, begun anew when its time is over."""
        now = self._clock.now_us()
        channel = self._channels.get(name)
        if channel is None or channel.top_until_us <= now:
            keep = retention_of(name).top_seconds * 1_000_000
            channel = self._channels[name] = _Channel(now + keep)
        if channel.held_until_us <= now:
            channel.held.clear()
        return channel

    def append(self, publication: Publication) -> tuple[str, int]:
        """The epoch and offset that a publication gets (0: refused)."""
        channel = self.channel(publication.channel)
        if publication.position is not None:
            if channel.position is not None and publication.position <= channel.position:
                return channel.epoch, 0
            channel.position = publication.position
        keep = retention_of(publication.channel)
        now = self._clock.now_us()
        channel.offset += 1
        channel.held.append((channel.offset, publication.header, publication.payload))
        while len(channel.held) > keep.messages:
            channel.held.popleft()
        channel.held_until_us = now + keep.seconds * 1_000_000
        channel.top_until_us = now + keep.top_seconds * 1_000_000
        return channel.epoch, channel.offset

    def forget(self) -> None:
        """Lose everything, as a wiped Redis does."""
        self._channels.clear()


class MemoryBus:
    """`LiveBus` without Redis; each node has its own."""

    def __init__(self, clock: Clock, *, beside: "MemoryBus | None" = None, generation: str = "0") -> None:
        self.generation = generation
        self.channels: _LiveChannels = beside.channels if beside else _LiveChannels(clock)
        self._receiver: BusReceiver | None = None
        self._counts: dict[str, int] = {}
        self._cut = False
        self.channels.buses.append(self)

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        """See `LiveBus.publish`."""
        published = []
        for publication in publications:
            epoch, offset = self.channels.append(publication)
            listeners = 0
            if offset:
                listeners = sum(bus.hear(publication, epoch, offset) for bus in self.channels.buses)
            published.append(Published(offset, listeners))
        return published

    async def history(self, channel: str, after: int, epoch: str | None, limit: int = 300) -> History:
        """See `LiveBus.history`."""
        state = self.channels.channel(channel)
        epoch_now = f"{self.generation}.{state.epoch}"
        if (epoch and epoch != epoch_now) or after > state.offset:
            return History(epoch_now, state.offset, [], complete=False)
        found = [
            Message(channel, epoch_now, offset, header, payload)
            for offset, header, payload in state.held
            if offset > after
        ]
        complete = len(found) == state.offset - after and len(found) <= limit
        return History(epoch_now, state.offset, found[: max(limit, 0)], complete)

    async def tops(self, channels: Sequence[str]) -> dict[str, tuple[str, int]]:
        """See `LiveBus.tops`."""
        states = {name: self.channels.channel(name) for name in channels}
        return {name: (f"{self.generation}.{state.epoch}", state.offset) for name, state in states.items()}

    async def start(self, receiver: BusReceiver) -> None:
        """See `LiveBus.start`."""
        self._receiver = receiver

    async def subscribe(self, channel: str) -> None:
        """See `LiveBus.subscribe`."""
        if self._receiver is None or self._cut:
            raise BusUnavailable("The bus was not started, or is cut off.")
        self._counts[channel] = self._counts.get(channel, 0) + 1

    async def unsubscribe(self, channel: str) -> None:
        """See `LiveBus.unsubscribe`."""
        count = self._counts.get(channel, 0)
        if count > 1:
            self._counts[channel] = count - 1
        else:
            self._counts.pop(channel, None)

    async def send_control(self, body: bytes) -> None:
        """See `LiveBus.send_control`."""
        for bus in self.channels.buses:
            bus.hear_control(body)

    async def close(self) -> None:
        """See `LiveBus.close`."""
        self._receiver = None
        self._counts.clear()
        if self in self.channels.buses:
            self.channels.buses.remove(self)

    def wipe(self) -> None:
        """Lose all histories, as a Redis does that comes back empty."""
        self.channels.forget()

    def cut(self) -> None:
        """Lose the link: from now on this node misses what is published."""
        self._cut = True
        if self._receiver:
            self._receiver.bus_lost()

    def restore(self) -> None:
        """Get the link back."""
        self._cut = False
        if self._receiver:
            self._receiver.bus_restored()

    def hear(self, publication: Publication, epoch: str, offset: int) -> bool:
        """Whether this node listens to a publication; it is handed over soon, in order."""
        channel = publication.channel
        if self._cut or channel not in self._counts:
            return False
        message = Message(
            channel, f"{self.generation}.{epoch}", offset, publication.header, publication.payload
        )
        asyncio.get_running_loop().call_soon(self._hand_over, message)
        return True

    def hear_control(self, body: bytes) -> None:
        """Hand over a control message soon."""
        if not self._cut:
            asyncio.get_running_loop().call_soon(self._hand_over_control, body)

    def _hand_over(self, message: Message) -> None:
        if self._receiver and message.channel in self._counts:
            self._receiver.receive_message(message)

    def _hand_over_control(self, body: bytes) -> None:
        if self._receiver:
            self._receiver.receive_control(body)
