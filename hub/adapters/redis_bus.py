"""The live bus on Redis: a list per channel holds its history, pub/sub carries it to the nodes.

One script appends, numbers and fans out, so that history and fan-out never disagree. A message has the same bytes in
the list and on the wire: an ASCII line `<offset> <epoch> <header>`, then the payload untouched.
"""

import logging
import secrets
from collections.abc import Iterator, Sequence

from hub.adapters.channel_retention import retention_of
from hub.adapters.redis_connection import RedisCommands, load_script
from hub.adapters.redis_keys import RedisKeys
from hub.adapters.redis_line import Command
from hub.adapters.redis_link import LinkTiming, RedisLink
from hub.errors import BusUnavailable
from hub.ports import BusReceiver, History, Message, Publication, Published

_log = logging.getLogger(__name__)
_PUBLISH = load_script("publish.lua")
_HISTORY = load_script("history.lua")
_TOPS = load_script("tops.lua")
# One script call holds up everybody else on that Redis, so it stays short. The next goes out after its answer: were they
# pipelined, one that failed (out of memory) could be overtaken, and its repeat refused as late.
_TRIP_PUBLICATIONS = 250
_TRIP_BYTES = 2 * 1024 * 1024
_SCRIPT_TOPS = 200
_TRIP_SCRIPTS = 50
_MOST_MESSAGES = 5_000  # Lua returns at most about 8,000 values


class RedisBus:
    """`LiveBus` on one Redis. `generation` is set by the wiring and may be raised at any time."""

    def __init__(
        self,
        url: str,
        prefix: str,
        partitions: int,
        *,
        generation: str = "0",
        timeout_seconds: float = 5.0,
        link_timing: LinkTiming | None = None,
    ) -> None:
        self.generation = generation
        self._url = url
        self._keys = RedisKeys(prefix, partitions)
        self._commands = RedisCommands(url, BusUnavailable, timeout_seconds)
        self._link_timing = link_timing or LinkTiming()
        self._link: RedisLink | None = None
        self._receiver: BusReceiver | None = None
        self._control = self._keys.control

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        """See `LiveBus.publish`. Many or large ones take several round trips, in order."""
        published: list[Published] = []
        for trip in _trips(publications):
            reply = await self._commands.call(*self._publish_command(trip))
            published += map(Published, reply[::2], reply[1::2])
        return published

    async def history(self, channel: str, after: int, epoch: str | None, limit: int = 300) -> History:
        """See `LiveBus.history`. Of more than `limit` missing the first ones come; another epoch brings none."""
        known = epoch.removeprefix(f"{self.generation}.") if epoch else ""
        if epoch and known == epoch:
            known = "-"  # of another generation: no channel has this epoch
        keep = retention_of(channel).top_seconds
        keys = self._keys.live_and_top(channel)
        top, complete, *messages = await self._commands.call(
            "EVAL", _HISTORY, 2, *keys, _new_epoch(), keep, after, known, min(limit, _MOST_MESSAGES)
        )
        epoch_now, offset = self._read_top(top)
        held = [message for body in messages if (message := self._message(channel, body))]
        return History(epoch_now, offset, held, complete == 1)

    async def tops(self, channels: Sequence[str]) -> dict[str, tuple[str, int]]:
        """See `LiveBus.tops`. Asked for none, it makes sure that Redis answers."""
        if not channels:
            await self._commands.call("PING")
            return {}
        commands: list[Command] = []
        for start in range(0, len(channels), _SCRIPT_TOPS):
            part = channels[start : start + _SCRIPT_TOPS]
            keys = [self._keys.top(channel) for channel in part]
            keep = [retention_of(channel).top_seconds for channel in part]
            commands.append(("EVAL", _TOPS, len(keys), *keys, _new_epoch(), *keep))
        tops: list[tuple[str, int]] = []
        for start in range(0, len(commands), _TRIP_SCRIPTS):
            for reply in await self._commands.call_all(commands[start : start + _TRIP_SCRIPTS]):
                tops += [self._read_top(top) for top in reply]
        return dict(zip(channels, tops, strict=True))

    async def start(self, receiver: BusReceiver) -> None:
        """See `LiveBus.start`. With Redis away it returns after one attempt, and `bus_lost` was called."""
        self._receiver = receiver
        self._link = RedisLink(self._url, self, self._link_timing)
        await self._link.start([self._keys.control])

    async def subscribe(self, channel: str) -> None:
        """See `LiveBus.subscribe`. Raises `BusUnavailable` when no confirmation comes within the timing's bound."""
        if self._link is None:
            raise BusUnavailable("The bus was not started.")
        await self._link.subscribe(self._keys.live(channel), channel)

    async def unsubscribe(self, channel: str) -> None:
        """See `LiveBus.unsubscribe`."""
        if self._link is not None:
            self._link.unsubscribe(self._keys.live(channel))

    async def send_control(self, body: bytes) -> None:
        """See `LiveBus.send_control`."""
        await self._commands.call("PUBLISH", self._keys.control, body)

    async def close(self) -> None:
        """See `LiveBus.close`."""
        if self._link is not None:
            await self._link.close()
        await self._commands.close()

    # ------------------------------------------------------------ what the link says

    def link_message(self, name: str, body: bytes) -> None:
        """Called by the link: a live message, or a control message."""
        receiver = self._receiver
        assert receiver is not None
        if name == self._control:
            receiver.receive_control(body)
        elif message := self._message(name, body):
            receiver.receive_message(message)

    def link_lost(self) -> None:
        """Called by the link."""
        assert self._receiver is not None
        self._receiver.bus_lost()

    def link_restored(self) -> None:
        """Called by the link."""
        assert self._receiver is not None
        self._receiver.bus_restored()

    # ------------------------------------------------------------ inside

    def _message(self, channel: str, body: bytes) -> Message | None:
        place, _, payload = body.partition(b"\n")
        try:
            offset, epoch, header = place.decode("ascii").split(" ", 2)
            return Message(channel, f"{self.generation}.{epoch}", int(offset), header, payload)
        except ValueError:  # not ours
            _log.warning("Ignored a message on live channel %r that the hub did not write.", channel)
            return None

    def _read_top(self, top: bytes) -> tuple[str, int]:
        offset, epoch, _position = top.decode().split(" ", 2)
        return f"{self.generation}.{epoch}", int(offset)

    def _publish_command(self, publications: Sequence[Publication]) -> Command:
        keys: list[str] = []
        arguments: list[str | bytes | int] = []
        for publication in publications:
            channel = publication.channel
            keep = retention_of(channel)
            position = publication.position.encode() if publication.position else ""
            keys += self._keys.live_and_top(channel)
            arguments += (position, publication.header, publication.payload)
            arguments += (keep.messages, keep.seconds, keep.top_seconds)
        return ("EVAL", _PUBLISH, len(keys), *keys, _new_epoch(), *arguments)


def _new_epoch() -> str:
    """For a channel that has none: names one life of its history."""
    return secrets.token_hex(4)


def _trips(publications: Sequence[Publication]) -> Iterator[Sequence[Publication]]:
    """Cut into round trips, in order."""
    start = size = 0
    for number, publication in enumerate(publications):
        size += len(publication.payload)
        if number > start and (number - start == _TRIP_PUBLICATIONS or size > _TRIP_BYTES):
            yield publications[start:number]
            start, size = number, len(publication.payload)
    if publications:
        yield publications[start:]
