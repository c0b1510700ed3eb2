"""The generator: takes partitions by lease, turns their events into notifications, announces them live.

Per batch: plan, commit (fenced, planned once), publish; trimming comes beside the next ones. A crash between any two of
these repeats the rest: stored slices are published again and the bus refuses what it has. A batch that fails three times
is run event by event, and the one that fails alone is set aside as `rejected(planning_error)`; the others lose nothing but
a moment.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from hub.announcements import Announcement, Retractions, Said, publications, say_together, unheard
from hub.batches import BATCH_SLICES, CatalogSource, Planner, PlanningRules, Prepared
from hub.errors import BusUnavailable, LeaseLost, QueueUnavailable, StoreUnavailable
from hub.inbox import Inbox
from hub.leases import LeaseKeeper
from hub.looks import Question, look_together
from hub.model.planning import OFFLINE_GRACE_SECONDS
from hub.model.vocabulary import LANE
from hub.ports import (
    Clock,
    Committed,
    EventQueue,
    Lease,
    LiveBus,
    Position,
    Published,
    QueuedSlice,
    Situation,
    Store,
)
from hub.rounds import Joint, Rounds

WAIT_SECONDS: Final = 1.0
TRIM_SECONDS: Final = 0.1
TRIES: Final = 3
DOUBT_US: Final = 10_000_000  # after the bus was away nodes may still be coming back to it

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
        self._rounds = Rounds(self._read)
        self._looks = Joint(self._look, StoreUnavailable)
        self._says = Joint(self._say, BusUnavailable)
        self._trimmer = Trimmer(queue, self._tell_retracted, self._bring_forward)
        self._bus_away_at_us: int | None = None
        names = [*(str(number) for number in range(rules.partitions)), LANE]
        self.keeper = LeaseKeeper(store, owner, "generator", names, self.work)

    async def run(self) -> None:
        """Until cancelled: hold a fair share of the partitions and work on them."""
        await self.keeper.run()

    async def work(self, lease: Lease, stop: asyncio.Event) -> None:
        """Work on one partition, from the start of its stream, until stopped or the lease is lost."""
        name = lease.name
        after: Position | None = None
        planner = Planner(self._store, self._looks.ask, self._catalog, self._rules, lease)
        try:
            async with self._rounds.member(name, stop):
                while not stop.is_set():
                    slices = rest = await self._rounds.read(name, after)
                    while rest:
                        lease, taken = await self._run_batch(planner, lease, rest)
                        rest = rest[taken:]
                    if slices:
                        after = slices[-1].position  # the end of an entry: only whole ones can be trimmed
                        self._trimmer.done_through(name, after)
            await self._trimmer.finish(name)
        finally:
            self._trimmer.forget(name)

    async def _read(
        self, after: Mapping[str, Position | None], wait_seconds: float
    ) -> Mapping[str, Sequence[QueuedSlice]]:
        return await _persist(self._queue.read_many, after, BATCH_SLICES, wait_seconds)

    async def _look(self, questions: Sequence[Question]) -> Sequence[Situation]:
        return await look_together(self._store, questions)

    async def _say(self, said: Sequence[Said]) -> Sequence[Sequence[Published]]:
        try:
            return await say_together(self._bus, said)
        except BusUnavailable:
            self._bus_away_at_us = self._clock.now_us()
            raise

    async def _run_batch(
        self, planner: Planner, lease: Lease, slices: Sequence[QueuedSlice]
    ) -> tuple[Lease, int]:
        """Plan, commit and publish the first of some slices; returns the lease with its new marks and how many.

        Raises `LeaseLost` or `StoreUnavailable`.
        """
        lease, taken = await self._try_batch(planner, lease, slices)
        if taken:
            return lease, taken
        for number, one in enumerate(slices, 1):
            if len(slices) > 1:
                lease, taken = await self._try_batch(planner, lease, [one])
            if not taken:
                self._metrics.rejected(lease.name)
                reason = "Planning failed three times; the server's log has the cause."
                prepared = planner.reject(lease, one, reason, self._clock.now_us())
                await self._announce(prepared, await self._store.commit(prepared.batch))
                return prepared.batch.lease, number
        return lease, len(slices)  # each alone works: what failed was nobody's fault

    async def _try_batch(
        self, planner: Planner, lease: Lease, slices: Sequence[QueuedSlice]
    ) -> tuple[Lease, int]:
        """`_run_batch` without the search for a culprit: 0 slices when it failed `TRIES` times."""
        for attempt in range(1, TRIES + 1):
            try:
                prepared = await planner.prepare(lease, slices, self._clock.now_us())
                committed = await self._store.commit(prepared.batch)
                lease = prepared.batch.lease  # should the rest fail, these slices are announced again
                await self._announce(prepared, committed)
                self._trimmer.announced(lease.name, prepared.announcements)
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
        if announced or batch.log:
            published = await _persist(self._says.ask, Said(announced, batch.log))
            if not self._is_in_doubt():
                alone = unheard(prepared.announcements, committed, published)
                self._trimmer.unheard(batch.lease.name, alone)
        if committed.collapsed and (taken_back := await self._retractions.publications(committed)):
            await _persist(self._bus.publish, taken_back)
        self._count(prepared, len(announced) + bool(batch.log))

    def _is_in_doubt(self) -> bool:
        """Whether nodes may be there that do not listen."""
        away_at_us = self._bus_away_at_us
        return away_at_us is not None and abs(self._clock.now_us() - away_at_us) < DOUBT_US

    async def _bring_forward(self, notifications: Sequence[tuple[str, str]]) -> None:
        """Nobody is connected whom these could reach: what waits for that need not wait."""
        grace_us = OFFLINE_GRACE_SECONDS * 1_000_000
        await self._store.bring_forward(notifications, grace_us, self._clock.now_us())

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


@dataclass(slots=True)
class _End:
    """Where a partition's batches ended, what they announced, and what of it nobody heard (user id, notification id)."""

    announced: list[Announcement] = field(default_factory=list)
    unheard: list[tuple[str, str]] = field(default_factory=list)
    through: Position | None = None


class Trimmer:
    """Ends batches beside the work: brings forward what nobody heard, tells what was retracted meanwhile, then trims the
    streams; for all partitions at once.

    These are round trips, one with an fsync, and no batch shall wait for them. What is not trimmed yet when a process dies
    is read again, found planned and announced again, and this comes after it again.
    """

    def __init__(
        self,
        queue: EventQueue,
        tell_retracted: Callable[[Sequence[Announcement]], Coroutine[Any, Any, None]],
        bring_forward: Callable[[Sequence[tuple[str, str]]], Coroutine[Any, Any, None]],
    ) -> None:
        self._queue = queue
        self._tell_retracted = tell_retracted
        self._bring_forward = bring_forward
        self._ends: dict[str, _End] = {}
        self._task: asyncio.Task[None] | None = None

    def announced(self, partition: str, announcements: Sequence[Announcement]) -> None:
        """These went out: whether one of them was retracted before is to be looked at."""
        self._ends.setdefault(partition, _End()).announced += announcements

    def unheard(self, partition: str, notifications: Sequence[tuple[str, str]]) -> None:
        """Nobody was there for these: deliveries that wait for somebody are brought forward."""
        if notifications:
            self._ends.setdefault(partition, _End()).unheard += notifications

    def done_through(self, partition: str, position: Position) -> None:
        """Everything up to here was announced: it is trimmed within `TRIM_SECONDS`, if Redis is there."""
        self._ends.setdefault(partition, _End()).through = position
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="trim-partitions")

    async def _run(self) -> None:
        while any(end.through is not None for end in self._ends.values()):
            await asyncio.sleep(TRIM_SECONDS)
            try:
                await _persist(self._end_batches, self._ends)
            except StoreUnavailable as error:
                _log.warning("partitions are trimmed later: %s", error)
                await asyncio.sleep(WAIT_SECONDS)

    async def _end_batches(self, ends: Mapping[str, _End]) -> None:
        through = [(name, end, end.through) for name, end in ends.items() if end.through is not None]
        for _, end, _ in through:
            unheard, end.unheard = end.unheard, []  # taken first: a hint that is lost costs a few seconds
            if unheard:
                await self._bring_forward(unheard)
        counts = [len(end.announced) for _, end, _ in through]
        await self._tell_retracted([row for _, end, _ in through for row in end.announced])
        for (_, end, _), count in zip(through, counts, strict=True):
            del end.announced[:count]
        await asyncio.gather(*(self._queue.trim(name, position) for name, _, position in through))
        for _, end, position in through:
            if end.through == position:
                end.through = None

    async def finish(self, partition: str) -> None:
        """Do at once what is left of a partition, if Redis and the store are there: the next owner need not."""
        if end := self.forget(partition):
            with suppress(QueueUnavailable, BusUnavailable, StoreUnavailable):
                await self._end_batches({partition: end})

    def forget(self, partition: str) -> _End | None:
        """Trim it no more."""
        end = self._ends.pop(partition, None)
        if not self._ends and self._task is not None:
            self._task.cancel()
        return end


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
