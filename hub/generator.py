"""The generator: takes partitions by lease, turns their events into notifications, announces them live.

Per batch: plan, commit (fenced, planned once), publish; trimming comes beside the next ones. A crash between any two of
these repeats the rest: stored slices are published again and the bus refuses what it has. A batch that fails three times
is run event by event, and the one that fails alone is set aside as `rejected(planning_error)`; the others lose nothing but
a moment.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from hub.announcements import Announcement, Retractions, publications
from hub.batches import BATCH_SLICES, CatalogSource, Planner, PlanningRules, Prepared
from hub.errors import BusUnavailable, LeaseLost, QueueUnavailable, StoreUnavailable
from hub.inbox import Inbox
from hub.leases import LeaseKeeper, unless_stopped
from hub.livelog import log_publication
from hub.model.vocabulary import LANE
from hub.ports import Clock, Committed, EventQueue, Lease, LiveBus, Position, QueuedSlice, Store

WAIT_SECONDS: Final = 1.0
TRIM_SECONDS: Final = 0.1
TRIES: Final = 3

P = ParamSpec("P")
T = TypeVar("T")
_log = logging.getLogger(__name__)


class GeneratorMetrics(Protocol):
    """What the generator counts."""

    def generated(self, partition: str, notifications: int, seconds_behind: float) -> None: ...
    def published(self, partition: str, publications: int) -> None: ...
    def rejected(self, partition: str) -> None: ...


class Generator:
    """Works on the partitions that its leases give it."""

    def __init__(
        self,
        store: Store,
        queue: EventQueue,
        bus: LiveBus,
        catalog: CatalogSource,
        clock: Clock,
        rules: PlanningRules,
        *,
        owner: str,
        metrics: GeneratorMetrics,
    ) -> None:
        self._store = store
        self._queue = queue
        self._bus = bus
        self._catalog = catalog
        self._clock = clock
        self._rules = rules
        self._metrics = metrics
        counts = Inbox(store, bus, clock, rules.default_timezone).counts
        self._retractions = Retractions(store, counts)
        names = [*(str(number) for number in range(rules.partitions)), LANE]
        self.keeper = LeaseKeeper(store, owner, "generator", names, self.work)

    async def run(self) -> None:
        """Until cancelled: hold a fair share of the partitions and work on them."""
        await self.keeper.run()

    async def work(self, lease: Lease, stop: asyncio.Event) -> None:
        """Work on one partition, from the start of its stream, until stopped or the lease is lost."""
        after: Position | None = None
        planner = Planner(self._store, self._catalog, self._rules, lease)
        trimmer = Trimmer(self._queue, lease.name, self._tell_retracted)
        try:
            while not stop.is_set():
                reading = _persist(self._queue.read, lease.name, after, BATCH_SLICES, WAIT_SECONDS)
                slices = await unless_stopped(stop, reading)
                if not slices:
                    continue
                rest: Sequence[QueuedSlice] = slices
                while rest:
                    lease, taken = await self._run_batch(planner, trimmer, lease, rest)
                    rest = rest[taken:]
                after = slices[-1].position  # the end of an entry: only whole ones can be trimmed
                trimmer.done_through(after)
            await trimmer.finish()
        finally:
            trimmer.cancel()

    async def _run_batch(
        self, planner: Planner, trimmer: "Trimmer", lease: Lease, slices: Sequence[QueuedSlice]
    ) -> tuple[Lease, int]:
        """Plan, commit and publish the first of some slices; returns the lease with its new marks and how many.

        Raises `LeaseLost` or `StoreUnavailable`.
        """
        lease, taken = await self._try_batch(planner, trimmer, lease, slices)
        if taken:
            return lease, taken
        for number, one in enumerate(slices, 1):
            if len(slices) > 1:
                lease, taken = await self._try_batch(planner, trimmer, lease, [one])
            if not taken:
                self._metrics.rejected(lease.name)
                reason = "Planning failed three times; the server's log has the cause."
                prepared = planner.reject(lease, one, reason, self._clock.now_us())
                await self._announce(prepared, await self._store.commit(prepared.batch))
                return prepared.batch.lease, number
        return lease, len(slices)  # each alone works: what failed was nobody's fault

    async def _try_batch(
        self, planner: Planner, trimmer: "Trimmer", lease: Lease, slices: Sequence[QueuedSlice]
    ) -> tuple[Lease, int]:
        """`_run_batch` without the search for a culprit: 0 slices when it failed `TRIES` times."""
        for attempt in range(1, TRIES + 1):
            try:
                prepared = await planner.prepare(lease, slices, self._clock.now_us())
                committed = await self._store.commit(prepared.batch)
                lease = prepared.batch.lease  # should the rest fail, these slices are announced again
                await self._announce(prepared, committed)
                trimmer.announced(prepared.announcements)
                return lease, prepared.taken
            except (LeaseLost, StoreUnavailable):
                raise
            except Exception:  # noqa: BLE001 - whatever an event makes planning raise, the others go on
                _log.exception(
                    "%d events on partition %s failed (%d/%d)", len(slices), lease.name, attempt, TRIES
                )
        return lease, 0

    async def _announce(self, prepared: Prepared, committed: Committed) -> None:
        batch = prepared.batch
        announced = publications(prepared.announcements, committed)
        if batch.log:
            announced.append(log_publication(batch.log))
        if announced:
            await _persist(self._bus.publish, announced)
        if committed.collapsed and (taken_back := await self._retractions.publications(committed)):
            await _persist(self._bus.publish, taken_back)
        self._count(prepared, len(announced))

    async def _tell_retracted(self, announcements: Sequence[Announcement]) -> None:
        """Tell again what was retracted after its commit and told before its announcement."""
        if late := await self._retractions.of_retracted(announcements):
            await self._bus.publish(late)

    def _count(self, prepared: Prepared, announced: int) -> None:
        name = prepared.batch.lease.name
        accepted = [event.accepted_at_us for event in prepared.batch.events]
        behind = (self._clock.now_us() - min(accepted)) / 1e6 if accepted else 0.0
        self._metrics.generated(
            name, len(prepared.batch.notifications) + len(prepared.batch.broadcasts), behind
        )
        self._metrics.published(name, announced)


class Trimmer:
    """Ends one partition's batches beside the work: tells what was retracted meanwhile, then trims the stream.

    Both are round trips, one with an fsync, and no batch shall wait for them. What is not trimmed yet when a process dies
    is read again, found planned and announced again, and this comes after it again.
    """

    def __init__(
        self,
        queue: EventQueue,
        partition: str,
        tell_retracted: Callable[[Sequence[Announcement]], Coroutine[Any, Any, None]],
    ) -> None:
        self._queue = queue
        self._partition = partition
        self._tell_retracted = tell_retracted
        self._announced: list[Announcement] = []
        self._through: Position | None = None
        self._task: asyncio.Task[None] | None = None

    def announced(self, announcements: Sequence[Announcement]) -> None:
        """These went out: whether one of them was retracted before is to be looked at."""
        self._announced += announcements

    def done_through(self, position: Position) -> None:
        """Everything up to here was announced: it is trimmed within `TRIM_SECONDS`, if Redis is there."""
        self._through = position
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=f"trim-{self._partition}")

    async def _run(self) -> None:
        trimmed: Position | None = None
        while self._through is not None and self._through != trimmed:
            await asyncio.sleep(TRIM_SECONDS)
            try:
                trimmed = await _persist(self._end_batches, self._through)
            except StoreUnavailable as error:
                _log.warning("partition %s is trimmed later: %s", self._partition, error)
                await asyncio.sleep(WAIT_SECONDS)
        self._through = None

    async def _end_batches(self, through: Position) -> Position:
        count = len(self._announced)
        await self._tell_retracted(self._announced[:count])
        del self._announced[:count]
        await self._queue.trim(self._partition, through)
        return through

    async def finish(self) -> None:
        """Do at once what is left, if Redis and the store are there: the next owner need not."""
        self.cancel()
        if self._through is not None:
            with suppress(QueueUnavailable, BusUnavailable, StoreUnavailable):
                await self._end_batches(self._through)

    def cancel(self) -> None:
        """Trim no more."""
        if self._task is not None:
            self._task.cancel()


async def _persist(call: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **options: P.kwargs) -> T:
    """Repeat a call while Redis is away: what is committed must be announced, what waits must be read."""
    delay_seconds = 0.1
    while True:
        try:
            return await call(*args, **options)
        except (QueueUnavailable, BusUnavailable) as error:
            _log.warning("Redis is away, trying again in %.1f s: %s", delay_seconds, error)
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(delay_seconds * 2, 2.0)
