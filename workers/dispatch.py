"""The dispatcher: finds deliveries that are due, stuck or abandoned, and hands them out in chunks.

One process dispatches at a time (the lease `dispatch`). It never hands out more than senders can hold, so a backlog of
any size stays in SQL, memory stays flat, and what is urgent on one channel never waits for another channel's backlog.
What had a process die under it goes out in small chunks, one after the other, so that the next death has one cause.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Final, Protocol

from hub.errors import ClarionError
from hub.model.vocabulary import Channel
from hub.ports import Clock, Due, Lease, LogEntry, SendingStore, Wanted
from workers.jobs import CAREFUL, CHUNKS, KICK_SECONDS, Deliveries, Outstanding
from workers.recorder import Teller

ROUND_SECONDS: Final = 0.1
RECOVER_SECONDS: Final = 1.0
CHUNK: Final = 200  # deliveries at most
SMALLEST: Final = 20  # a chunk is not made smaller than this to give every process a part

_log = logging.getLogger(__name__)


class JobQueue(Protocol):
    """Where chunks go."""

    async def kick(self, channel: Channel, deliveries: Deliveries, name: str) -> None: ...
    async def outstanding(self) -> Outstanding: ...


class Dispatcher:
    """Hands out what is due on some channels. `members`: how many processes send."""

    def __init__(
        self,
        store: SendingStore,
        jobs: JobQueue,
        clock: Clock,
        livelog: Teller,
        *,
        channels: Sequence[Channel],
        repeating: Sequence[Channel],
        members: Callable[[], int],
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._clock = clock
        self._livelog = livelog
        self._channels = list(channels)
        self._repeating = list(repeating)
        self._members = members
        self._recover_at_us = 0

    async def work(self, lease: Lease, stop: asyncio.Event) -> None:
        """The work of the `dispatch` lease, until stopped."""
        del lease  # every step may be repeated, so no fence is needed
        while not stop.is_set():
            handed_out = 0
            try:
                await self.recover()
                handed_out = await self.round()
            except ClarionError as error:
                _log.warning("the dispatcher tries again: %s", error)
                handed_out = 0
            if handed_out:
                continue  # there may be more
            try:
                await asyncio.wait_for(stop.wait(), ROUND_SECONDS)
            except TimeoutError:
                pass

    async def round(self) -> int:
        """Hand out what is due and fits; returns how many deliveries that were."""
        now_us = self._clock.now_us()
        due = await self._store.next_due(self._channels)
        ready = [channel for channel, at_us in due.items() if at_us <= now_us]
        if not ready:
            return 0
        outstanding = await self._jobs.outstanding()
        return sum([await self._hand_out(channel, outstanding) for channel in ready])

    async def _hand_out(self, channel: Channel, outstanding: Outstanding) -> int:
        members = max(self._members(), 1)
        room = CHUNKS * members - outstanding.chunks[channel]
        careful = channel not in outstanding.careful
        if room <= 0 and not careful:
            return 0
        found = await self._store.queue_due(channel, max(room, 0) * CHUNK, KICK_SECONDS, careful=careful)
        size = min(max(-(-len(found) // members), SMALLEST), CHUNK)
        for name, chunk in _chunks(found, size):
            await self._jobs.kick(channel, [Wanted(one.user_id, one.id, one.lapses) for one in chunk], name)
        return len(found)

    async def recover(self) -> Sequence[LogEntry]:
        """Give back what dead or frozen processes had, now and then."""
        now_us = self._clock.now_us()
        if now_us < self._recover_at_us:
            return []
        self._recover_at_us = now_us + int(RECOVER_SECONDS * 1_000_000)
        lines = await self._store.recover(self._repeating)
        for line in lines:
            if line.reason == "kills_senders":
                _log.error(
                    "a delivery is set aside: every process that had it died", extra={"event": line.event_id}
                )
        await self._livelog.tell(lines)
        return lines


def _chunks(found: Sequence[Due], size: int) -> Iterator[tuple[str, list[Due]]]:
    """Chunks with their names; a digest is never split. All careful ones are one chunk: there are no more than fit."""
    digests: dict[tuple[str, str], list[Due]] = {}
    groups: list[list[Due]] = []
    for one in found:
        group = [one]
        if one.digest_key is not None:
            group = digests.setdefault((one.user_id, one.digest_key), [])
            group.append(one)
        if len(group) == 1:
            groups.append(group)
    if careful := list(chain.from_iterable(group for group in groups if _is_careful(group))):
        yield CAREFUL + secrets.token_hex(8), careful
    chunk: list[Due] = []
    for group in groups:
        if _is_careful(group):
            continue
        if chunk and len(chunk) + len(group) > size:
            yield secrets.token_hex(8), chunk
            chunk = []
        chunk = [*chunk, *group]
    if chunk:
        yield secrets.token_hex(8), chunk


def _is_careful(group: Sequence[Due]) -> bool:
    return any(one.lapses for one in group)
