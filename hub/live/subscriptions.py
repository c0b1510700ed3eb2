"""The channels that this node listens to: opened when the first needs them, kept some seconds after the last left.

Routes messages to channels, and compares positions with the bus: all of them when the link was away, a slice of them
now and then, since messages are hints.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from hub.errors import BusUnavailable
from hub.live.broadcasts import BroadcastEntry
from hub.live.channels import Channel, ChannelKind
from hub.live.frames import PersonalFrame
from hub.model.vocabulary import BROADCASTS, LOG
from hub.ports import Clock, LiveBus, Message

LINGER_SECONDS: Final = 5.0
COMPARE_SECONDS: Final = 30.0  # in which every channel is compared once
_TOPS: Final = 500
_REPAIRS: Final = 16  # at a time


class Subscriptions:
    """All channels of a node by name."""

    def __init__(
        self,
        bus: LiveBus,
        clock: Clock,
        personal: ChannelKind[PersonalFrame],
        log: ChannelKind[PersonalFrame],
        broadcasts: ChannelKind[BroadcastEntry],
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._personal = personal
        self._log = log
        self.broadcasts = Channel(BROADCASTS, broadcasts)
        self._linger_us = int(linger_seconds * 1e6)
        self._channels: dict[str, Channel[PersonalFrame]] = {}
        self._idle: dict[Channel[PersonalFrame], None] = {}  # the longest idle first
        self._behind: dict[Channel[Any], None] = {}
        self._round: list[str] = []  # names that are to be compared in this round
        self._compare_all = False

    def receive(self, message: Message) -> str | None:
        """Hand a message to its channel; returns the kind, or None when nobody listens to it any more."""
        if message.channel == BROADCASTS:
            self.broadcasts.receive(message)
            return BROADCASTS
        channel = self._channels.get(message.channel)
        if channel is None:
            return None
        channel.receive(message)
        return channel.kind.name

    def acquire(self, name: str) -> Channel[PersonalFrame]:
        """The channel of this name, for one more user of it; pairs with `release`."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(name, self._log if name == LOG else self._personal)
        channel.users += 1
        self._idle.pop(channel, None)
        return channel

    def release(self, channel: Channel[PersonalFrame]) -> None:
        """One user less. The last leaves the channel open for a while: most come back."""
        channel.users -= 1
        if channel.users == 0:
            channel.idle_since_us = self._clock.now_us()
            self._idle[channel] = None

    def __len__(self) -> int:
        return len(self._channels)

    async def drop_idle(self) -> None:
        """Close channels that nobody has used for the linger time."""
        until_us = self._clock.now_us() - self._linger_us
        while self._idle:
            channel = next(iter(self._idle))
            if channel.idle_since_us > until_us:
                return
            # Out of sight first: who comes during the wait opens it anew.
            del self._idle[channel]
            del self._channels[channel.name]
            await channel.close()

    async def retry(self) -> None:
        """Repair what could not be repaired before, and finish a comparison that was cut off."""
        if self._compare_all:
            await self.compare_all()
        behind, self._behind = self._behind, {}
        await self._check([channel for channel in behind if not channel.closed])

    def failed(self, channel: Channel[Any]) -> None:
        """A repair of a channel failed; `retry` tries again."""
        self._behind[channel] = None

    async def compare_all(self) -> None:
        """Compare every channel with the bus now, and repair those behind."""
        self._compare_all = True
        await self._compare([self.broadcasts, *self._channels.values()])
        self._compare_all = False

    async def compare_some(self, period_seconds: float) -> None:
        """Compare `broadcasts`, and as many others as make a round of all in `COMPARE_SECONDS`."""
        if not self._round:
            self._round = list(self._channels)
        count = int(len(self._channels) * period_seconds / COMPARE_SECONDS) + 1
        names, self._round = self._round[-count:], self._round[:-count]
        found = (self._channels.get(name) for name in names)
        await self._compare([self.broadcasts, *(channel for channel in found if channel is not None)])

    async def _compare(self, channels: Sequence[Channel[Any]]) -> None:
        opened = [channel for channel in channels if channel.epoch]
        for first in range(0, len(opened), _TOPS):
            part = opened[first : first + _TOPS]
            tops = await self._bus.tops([channel.name for channel in part])
            await self._check([c for c in part if tops.get(c.name) != (c.epoch, c.last)])

    async def _check(self, channels: Sequence[Channel[Any]]) -> None:
        for first in range(0, len(channels), _REPAIRS):
            part = channels[first : first + _REPAIRS]
            outcomes = await asyncio.gather(*(channel.check() for channel in part), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BusUnavailable):
                    raise outcome

    async def close(self) -> None:
        """Stop repairs. The bus forgets the subscriptions when it is closed."""
        channels: list[Channel[Any]] = [self.broadcasts, *self._channels.values()]
        tasks = [task for channel in channels for task in channel.stop()]
        await asyncio.gather(*tasks, return_exceptions=True)
