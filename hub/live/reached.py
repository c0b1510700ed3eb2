"""Reports of what was reached: written to a visible connection whose peer proved afterwards that it read it.

The proof is asked for at once, because backfill waits a few seconds only. A report cancels it, so it must be true;
losing one only means that a mail goes out as well. Memory is bounded, and what does not fit is dropped and counted.
"""

import asyncio
import logging
from typing import Final

from hub.errors import StoreUnavailable
from hub.live.metrics import LiveMetrics
from hub.live.registry import Seat
from hub.livelog import LiveLog
from hub.ports import Clock, InboxStore

FLUSH_SECONDS: Final = 0.2
UNPROVEN: Final = 64  # per wire, the newest
WAITING: Final = 20_000  # per node
_BATCH: Final = 500
_RETRY_SECONDS: Final = 1.0

logger = logging.getLogger(__name__)


class Reached:
    """Collects reports and stores them in batches."""

    def __init__(self, store: InboxStore, clock: Clock, metrics: LiveMetrics, livelog: LiveLog) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._livelog = livelog
        self._reports: dict[tuple[str, str], int] = {}  # (user, notification) -> written_at_us
        self._stored: dict[tuple[str, str], None] = {}  # lately, so that a second tab reports nothing
        self._task: asyncio.Task[None] | None = None

    def written(self, seat: Seat, notification_id: str) -> None:
        """A notification that is to be reported was written to this wire; if it is visible, it is asked for a proof."""
        if not seat.wire.visible:
            return
        if seat.unproven is None:
            seat.unproven = []
        elif len(seat.unproven) >= UNPROVEN:
            del seat.unproven[0]
            self._metrics.reports_dropped(1)
        seat.unproven.append((notification_id, self._clock.now_us()))
        seat.wire.ask_proof()

    def hidden(self, seat: Seat) -> None:
        """The page went to the back: what was not proven until now was not reached."""
        seat.unproven = None

    def proven(self, seat: Seat, until_us: int) -> None:
        """The peer read all until this moment; what was written since then needs another proof."""
        if not seat.unproven:
            return
        user_id = seat.member.user_id
        left = []
        for notification_id, written_at_us in seat.unproven:
            if written_at_us <= until_us:
                self._report(user_id, notification_id, written_at_us)
            else:
                left.append((notification_id, written_at_us))
        seat.unproven = left or None
        if left:
            seat.wire.ask_proof()

    def _report(self, user_id: str, notification_id: str, written_at_us: int) -> None:
        key = (user_id, notification_id)
        if key in self._stored or key in self._reports:
            return
        if len(self._reports) >= WAITING:
            del self._reports[next(iter(self._reports))]
            self._metrics.reports_dropped(1)
        self._reports[key] = written_at_us
        if self._task is None:
            self._task = asyncio.create_task(self._flush_soon())

    async def _flush_soon(self) -> None:
        try:
            await asyncio.sleep(FLUSH_SECONDS)
            while self._reports:
                if not await self.flush():
                    await asyncio.sleep(_RETRY_SECONDS)
        finally:
            self._task = None

    async def flush(self) -> bool:
        """Store one batch now; False when the store is away (nothing is lost by that)."""
        batch = dict(list(self._reports.items())[:_BATCH])
        if not batch:
            return True
        try:
            entries = await self._store.report_reached([(*key, at_us) for key, at_us in batch.items()])
        except StoreUnavailable as error:
            logger.warning("reports of what was reached wait: %s", error)
            return False
        for key in batch:
            self._reports.pop(key, None)
            self._stored[key] = None
        while len(self._stored) > WAITING:
            del self._stored[next(iter(self._stored))]
        self._metrics.reached(len(batch))
        await self._livelog.tell(entries)
        return True

    async def close(self) -> None:
        """Store what waits, once, and stop."""
        if self._task is not None:
            self._task.cancel()
        while self._reports and await self.flush():
            pass
