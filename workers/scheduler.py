"""The scheduler: what is due enters the event queue, what is too old leaves the store.

One process works at a time (the lease `scheduler`). A due part is queued first and marked afterwards; a crash between
the two queues it again under the same idempotency key, which changes nothing.
"""

import asyncio
import logging
from typing import Final

from hub.errors import ClarionError
from hub.model.events import decode_slice, encode_slice
from hub.model.schedule import release
from hub.ports import Append, Clock, EventQueue, Idempotency, Lease, ScheduledPart, Store

ROUND_SECONDS: Final = 0.5
HOUSEKEEPING_SECONDS: Final = 600.0
PARTS: Final = 200
DAY_US: Final = 86_400 * 1_000_000
KEEP_SECONDS: Final = 7 * 86_400  # how long a repeated release is recognised

_log = logging.getLogger(__name__)


class Scheduler:
    """Releases scheduled events and keeps retention."""

    def __init__(
        self, store: Store, queue: EventQueue, clock: Clock, *, partitions: int, retention_days: int
    ) -> None:
        self._store = store
        self._queue = queue
        self._clock = clock
        self._partitions = partitions
        self._retention_us = retention_days * DAY_US
        self._housekeeping_due_us = 0

    async def work(self, lease: Lease, stop: asyncio.Event) -> None:
        """The work of the `scheduler` lease, until stopped."""
        del lease  # every step may be repeated, so no fence is needed
        while not stop.is_set():
            try:
                while await self.release_due():
                    pass
                await self._keep_house()
            except ClarionError as error:
                _log.warning("the scheduler tries again: %s", error)
            try:
                await asyncio.wait_for(stop.wait(), ROUND_SECONDS)
            except TimeoutError:
                pass

    async def release_due(self) -> int:
        """Queue one portion of the parts that are due; returns how many."""
        parts = await self._store.due_scheduled(self._clock.now_us(), PARTS)
        if parts:
            await self._queue.append([self._append(part) for part in parts])
            await self._store.mark_scheduled_queued(parts)
        return len(parts)

    def _append(self, part: ScheduledPart) -> Append:
        slices = release(decode_slice(part.raw), self._partitions)
        encoded = {name: encode_slice(one) for name, one in slices.items()}
        key = Idempotency(f"release:{part.event_id}:{part.part}", part.event_id, KEEP_SECONDS)
        return Append(part.event_id, encoded, key)

    async def _keep_house(self) -> None:
        now_us = self._clock.now_us()
        if now_us < self._housekeeping_due_us:
            return
        await self._store.prepare_log_days(now_us)
        dropped = await self._store.drop_older(now_us - self._retention_us)
        if dropped:
            _log.info("retention removed %d rows", dropped)
        self._housekeeping_due_us = now_us + int(HOUSEKEEPING_SECONDS * 1_000_000)
