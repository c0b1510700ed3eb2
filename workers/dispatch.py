"""The dispatcher: finds deliveries that are due, stuck or abandoned, and hands them out in chunks.

One process dispatches at a time (the lease `dispatch`). It never hands out more than senders can hold, so a backlog of
any size stays in SQL, memory stays flat, and what is urgent on one channel never waits for another channel's backlog.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from hub.errors import ClarionError
from hub.model.vocabulary import Channel
from hub.ports import Clock, Due, Lease, LogEntry, SendingStore
from workers.jobs import CHUNKS, KICK_SECONDS, Deliveries
from workers.recorder import Teller

ROUND_SECONDS: Final = 0.1
RECOVER_SECONDS: Final = 1.0
CHUNK: Final = 200
CAREFUL: Final = (CHUNK, 10, 1)  # how many go together, by how often a process died that had them

_log = logging.getLogger(__name__)


class JobQueue(Protocol):
    """Where chunks go."""

    async def kick(self, channel: Channel, deliveries: Deliveries, name: str) -> None: ...
    async def outstanding(self) -> "dict[Channel, int]": ...


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
        count = 0
        for channel in ready:
            room = CHUNKS * max(self._members(), 1) - outstanding.get(channel, 0)
            if room > 0:
                found = await self._store.queue_due(channel, room * CHUNK, KICK_SECONDS)
                for chunk in _chunks(found):
                    await self._jobs.kick(
                        channel, [(one.user_id, one.id) for one in chunk], secrets.token_hex(8)
                    )
                count += len(found)
        return count

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


def _chunks(found: Sequence[Due]) -> Iterator[list[Due]]:
    """Chunks of what goes together: careful ones apart, a digest never split."""
    by_care: dict[int, list[list[Due]]] = {}
    digests: dict[tuple[str, str], list[Due]] = {}
    for one in found:
        group = [one]
        if one.digest_key is not None:
            group = digests.setdefault((one.user_id, one.digest_key), [])
            group.append(one)
            if len(group) > 1:
                continue
        by_care.setdefault(min(one.lapses, len(CAREFUL) - 1), []).append(group)
    for care, groups in by_care.items():
        chunk: list[Due] = []
        for group in groups:
            if chunk and len(chunk) + len(group) > CAREFUL[care]:
                yield chunk
                chunk = []
            chunk = [*chunk, *group]
        if chunk:
            yield chunk
