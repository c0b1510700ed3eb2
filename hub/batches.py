"""Batches: slices of one partition in, one `Batch` to commit and what is announced after it out.

Reads what planning needs in few queries (users, retractions, slices planned before), calls the pure `plan`, and keeps
the ledger's sums. An event that cannot be planned raises here; the generator decides when to set it aside.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Final, Protocol

import msgspec

from hub.announcements import Announcement, announced_again, awaits_reach
from hub.looks import Look, Question
from hub.model.events import (
    BroadcastAudience,
    Event,
    NamedUser,
    Schedule,
    Slice,
    decode_slice,
    encode_slice,
)
from hub.model.expansion import expansions_of
from hub.model.planning import Environment, Memo, merged_user, plan, plan_broadcast
from hub.model.schedule import cut_scheduled
from hub.model.types import CategoryDefinition, TypeVersion
from hub.model.users import User
from hub.model.vocabulary import PUSH, Channel
from hub.ports import (
    Batch,
    Lease,
    LogEntry,
    Payload,
    PlannedSlice,
    Position,
    QueuedSlice,
    ScheduledPart,
    Situation,
    Store,
)
from hub.records import in_app_rule, log_acceptance, log_planned, record_of, reject_unreadable
from hub.timing import Pace, is_paced, look_at_timing

BATCH_SLICES: Final = 500
BATCH_NOTIFICATIONS: Final = 2_000  # the lease's row is locked while they are written; a slice is never split
_REST: Final = 100  # a read brings whole entries, so a few more than asked for: no batch of their own
WORK_SECONDS: Final = 0.010  # of planning; what came first shall not wait for what came with it
BACKLOG_SECONDS: Final = (
    0.050  # with a full batch at hand more waits behind it: then the fewest batches are soonest done
)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Types and categories as they stand for one batch."""

    types: Mapping[str, TypeVersion]
    categories: Mapping[str, CategoryDefinition]


class CatalogSource(Protocol):
    """Where types come from."""

    async def current(self) -> Catalog:
        """The catalog of the newest `catalog_version`."""
        ...

    async def at(self, version: int) -> Catalog:
        """The catalog of this `catalog_version`, which was the newest a moment ago, or of a newer one."""
        ...


@dataclass(frozen=True, slots=True)
class PlanningRules:
    """What is the same for every event of a deployment."""

    partitions: int
    available: frozenset[Channel]
    default_timezone: str


@dataclass(slots=True)
class Prepared:
    """A batch ready to commit, and what is announced after it, in the order of the queue."""

    batch: Batch
    taken: int = 1  # how many of the given slices are in it
    announcements: list[Announcement] = field(default_factory=list)


class _Queued(msgspec.Struct, frozen=True):
    position: Position
    part: Slice
    key: str


class Planner:
    """Prepares the batches of one partition."""

    def __init__(
        self, store: Store, look: Look, catalog: CatalogSource, rules: PlanningRules, lease: Lease
    ) -> None:
        self._store = store
        self._look = look
        self._catalog = catalog
        self._rules = rules
        self._partition = lease.name
        self._pace = BATCH_SLICES  # how many slices are looked up at once: about what can be planned in time
        self._again: dict[tuple[str, str], Position] = {}  # where slices stand that are announced again

    async def prepare(self, lease: Lease, slices: Sequence[QueuedSlice], now_us: int) -> Prepared:
        """Plan slices for `WORK_SECONDS` at most (`BACKLOG_SECONDS` of many); `taken` says how many it were, at least one.

        Raises whatever an event makes planning raise, without writing.
        """
        prepared = Prepared(Batch(lease))
        work_seconds = BACKLOG_SECONDS if len(slices) >= BATCH_SLICES else WORK_SECONDS
        if len(slices) > self._pace + _REST:
            slices = slices[: self._pace]
        readable = self._decode(slices)
        situation = await self._look(Question(_by_key(readable.values()), _people(readable.values())))
        known, retracted = situation.planned, situation.retracted
        zones = await self._zones(readable.values())
        catalog = await self._catalog.at(situation.catalog_version)
        parts = (item.part for item in readable.values())
        pace = Pace(await look_at_timing(self._store, parts, catalog.types, now_us))
        work = _Work(self._rules, self._partition, situation, catalog, prepared, now_us, pace)
        seen: set[tuple[str, str]] = set()
        until = perf_counter() + work_seconds
        for taken, one in enumerate(slices, 1):
            item = readable.get(one.position)
            identity = (item.part.event.id, item.key) if item else None
            if item is None or identity is None:
                reject_unreadable(prepared.batch, one, now_us)
            elif identity in seen:
                pass  # the same slice twice in one batch: an append that was repeated
            elif stored := known.get(identity):
                if self._was_planned_here(lease, item):
                    prepared.announcements += announced_again(item.position, stored)
            elif item.part.event.id in retracted:
                work.skip_retracted(item)
            else:
                work.plan(item, zones)
            if identity:
                seen.add(identity)
            prepared.taken = taken
            if perf_counter() > until or len(prepared.batch.notifications) >= BATCH_NOTIFICATIONS:
                break
        pace.settle(prepared.batch)
        last = slices[prepared.taken - 1].position
        prepared.batch.lease = _moved(work.lease(lease), last)
        stopped = prepared.taken < len(slices)  # then the next look need not reach so far
        self._pace = min(2 * prepared.taken, BATCH_SLICES) if stopped else BATCH_SLICES
        return prepared

    def reject(self, lease: Lease, queued: QueuedSlice, error: str, now_us: int) -> Prepared:
        """Set one event aside as `rejected(planning_error)`: stored whole, replayable."""
        batch = Batch(_moved(lease, queued.position))
        try:
            part = decode_slice(queued.raw)
        except msgspec.MsgspecError:
            reject_unreadable(batch, queued, now_us)
        else:
            event = part.event
            recipients = len(part.users) or 1
            batch.events.append(record_of(event, "", state="rejected", error=error, raw=queued.raw))
            batch.slices.append(
                PlannedSlice(event.id, part.key(self._partition), recipients, 0, 0, rejected=recipients)
            )
            batch.log += log_acceptance(part)
            batch.log.append(
                LogEntry(now_us, "rejected", event.id, type=event.type, reason="planning_error", detail=error)
            )
        return Prepared(batch)

    def _was_planned_here(self, lease: Lease, item: _Queued) -> bool:
        """Whether a known slice is read again, or stands a second time in the queue: an append that was repeated.

        The first may not have been announced before a crash. The second was, at its first place, when we come here.
        """
        if item.position.encode() > lease.position:
            return False
        return self._again.setdefault((item.part.event.id, item.key), item.position) == item.position

    def _decode(self, slices: Sequence[QueuedSlice]) -> dict[Position, _Queued]:
        readable = {}
        for one in slices:
            try:
                part = decode_slice(one.raw)
            except msgspec.MsgspecError:
                continue
            readable[one.position] = _Queued(one.position, part, part.key(self._partition))
        return readable

    async def _zones(self, queued: Iterable[_Queued]) -> list[str]:
        """The zones that broadcasts at a local time are cut by; asked only for those."""
        local = any(item.part.schedule is not None and item.part.schedule.local for item in queued)
        return await self._store.timezones() if local else []


def _by_key(queued: Iterable[_Queued]) -> dict[str, list[str]]:
    """The events' ids by the keys of their slices."""
    by_key: dict[str, list[str]] = {}
    for item in queued:
        by_key.setdefault(item.key, []).append(item.part.event.id)
    return by_key


def _people(queued: Iterable[_Queued]) -> list[str]:
    """Who must be known to plan: recipients and actors."""
    ids: set[str] = set()
    for item in queued:
        part = item.part
        ids.update([named.id for named in part.users])
        if part.schedule is not None:
            ids.update([named.id for named in part.schedule.users])
        if part.event.actor is not None:
            ids.add(part.event.actor)
    return sorted(ids)


class _Work:
    """The state of planning one batch: what is given out (moments, broadcast seqs) and what is collected."""

    def __init__(
        self,
        rules: PlanningRules,
        partition: str,
        situation: Situation,
        catalog: Catalog,
        prepared: Prepared,
        now_us: int,
        pace: Pace,
    ) -> None:
        self._rules = rules
        self._partition = partition
        self._users = dict(situation.users)
        self._catalog = catalog
        self._prepared = prepared
        self._now_us = now_us
        self._pace = pace
        self._batch = prepared.batch
        self._clock_us = prepared.batch.lease.clock_us
        self._broadcast_seq = prepared.batch.lease.broadcast_seq
        self._environment = Environment(
            now_us=now_us,
            created_at_us=0,
            available=rules.available,
            default_timezone=rules.default_timezone,
            actors={user_id: user.profile for user_id, user in situation.users.items()},
            recent=pace.recent,
            digests=pace.digests,
            memo=Memo(),
            unused=frozenset() if situation.has_push else PUSH,
        )

    def lease(self, lease: Lease) -> Lease:
        """The lease with the marks that this work left."""
        return replace(lease, clock_us=self._clock_us, broadcast_seq=self._broadcast_seq)

    def plan(self, item: _Queued, zones: Sequence[str]) -> None:
        """Plan one slice, whatever it is."""
        if item.part.schedule is not None:
            self.schedule(item, item.part.schedule, zones)
        elif item.part.broadcast is not None:
            self.broadcast(item, item.part.broadcast)
        else:
            self.addressed(item)

    def addressed(self, item: _Queued) -> None:
        """Plan an addressed slice: one notification for each of its users."""
        event = item.part.event
        self._log_acceptance(item)
        in_app = deliveries = 0
        kind = self._type(event)
        category = self._category(kind)
        paced = is_paced(kind)
        for named in item.part.users:
            user = self._user(event, named)
            planned = plan(event, kind, category, user, named, self._at_next_moment(), item.key)
            notification = planned.notification
            self._batch.notifications.append(notification)
            self._batch.deliveries.extend(planned.deliveries)
            if paced:
                self._pace.note(self._batch, planned)
            self._batch.log.append(log_planned(self._now_us, notification, planned))
            deliveries += len(planned.deliveries)
            if notification.in_app:
                in_app += 1
                reports = awaits_reach(planned.deliveries)
                self._prepared.announcements.append(Announcement(item.position, notification, reports))
        if deliveries:
            self._keep(item)
        recipients = len(item.part.users)
        self._close(
            item, PlannedSlice(event.id, item.key, recipients, in_app, recipients - in_app, 0, deliveries)
        )

    def broadcast(self, item: _Queued, audience: BroadcastAudience) -> None:
        """Plan a broadcast: one row that many read."""
        event = item.part.event
        self._log_acceptance(item)
        seq = self._broadcast_seq = self._broadcast_seq + 1
        kind = self._type(event)
        environment = self._at_next_moment()
        row = plan_broadcast(event, kind, self._category(kind), audience, seq, environment)
        row = msgspec.structs.replace(row, slice_key=item.key)
        self._batch.broadcasts.append(row)
        expansions = expansions_of(row, event, kind, environment)
        self._batch.expansions += expansions
        refused = {f"{r.channel}:{r.rule}": 0 for r in row.reasons if r.verdict == "refuse"}
        self._batch.log.append(
            LogEntry(
                self._now_us,
                "generated" if row.in_app else "suppressed",
                event.id,
                notification_id=row.id,
                channel=Channel.IN_APP,
                type=row.type,
                category=row.category,
                reason=in_app_rule(row.reasons),
            )
        )
        if row.in_app:
            self._prepared.announcements.append(Announcement(item.position, row, awaits_reach(expansions)))
        if any(r.verdict in ("use", "hold") and r.channel is not Channel.IN_APP for r in row.reasons):
            self._keep(item)
        in_app = int(row.in_app)
        self._close(item, PlannedSlice(event.id, item.key, 1, in_app, 1 - in_app, expansion=refused))

    def schedule(self, item: _Queued, schedule: Schedule, zones: Sequence[str]) -> None:
        """Store an event that waits for its time, in as many parts as there are moments."""
        self._log_acceptance(item)
        user_zones = {named.id: self._zone(named) for named in schedule.users}
        rules = self._rules
        cut = cut_scheduled(item.part, zones, user_zones, rules.default_timezone, rules.partitions)
        for name, due_at_us, part in cut:
            self._batch.scheduled.append(ScheduledPart(part.event.id, name, due_at_us, encode_slice(part)))
        event = cut[0][2].event  # with the number of slices that all parts will make
        record = record_of(event, self._type(event).definition.category)
        self._batch.events.append(
            msgspec.structs.replace(record, send_at_us=min(due_at_us for _, due_at_us, _ in cut))
        )
        self._batch.slices.append(PlannedSlice(event.id, item.key, 0, 0, 0))

    def skip_retracted(self, item: _Queued) -> None:
        """An event that was retracted while it was queued: nobody gets it, the ledger knows why."""
        recipients = len(item.part.users) or 1
        self._log_acceptance(item)
        self._batch.log.append(LogEntry(self._now_us, "suppressed", item.part.event.id, reason="retracted"))
        self._close(item, PlannedSlice(item.part.event.id, item.key, recipients, 0, recipients))

    def _close(self, item: _Queued, row: PlannedSlice) -> None:
        event = item.part.event
        self._batch.slices.append(row)
        self._batch.events.append(record_of(event, self._type(event).definition.category))

    def _keep(self, item: _Queued) -> None:
        """Keep the event: addressed channels render it when they send."""
        event = item.part.event
        self._batch.payloads.append(Payload(event.id, item.key, encode_slice(Slice(event=event))))

    def _log_acceptance(self, item: _Queued) -> None:
        self._batch.log += log_acceptance(item.part)

    def _user(self, event: Event, named: NamedUser) -> User | None:
        """A recipient as known so far; what the event says of them is kept.

        It holds for the next events of the same batch, as it would for a later batch, and is stored if it is news.
        """
        known = self._users.get(named.id)
        merged = merged_user(known, named)
        if known is None or known.version == 0 or merged is not known:
            self._batch.users.append(named)
            if known is None or known.erased_at_us is None or known.erased_at_us <= event.accepted_at_us:
                self._users[named.id] = merged
        return known

    def _at_next_moment(self) -> Environment:
        """With the next created_at_us: unique and increasing on this partition, also across owners and slow clocks."""
        self._clock_us = max(self._now_us, self._clock_us + 1)
        return msgspec.structs.replace(self._environment, created_at_us=self._clock_us)

    def _type(self, event: Event) -> TypeVersion:
        # A type that was deleted after the event was accepted: what the event itself says is still shown.
        return self._catalog.types.get(event.type) or self._catalog.types["message"]

    def _category(self, kind: TypeVersion) -> CategoryDefinition | None:
        return self._catalog.categories.get(kind.definition.category)

    def _zone(self, named: NamedUser) -> str | None:
        user = self._users.get(named.id)
        return named.timezone or (user.profile.timezone if user else None)


def _moved(lease: Lease, position: Position) -> Lease:
    """The lease with its mark at a position; what is read again does not move it back."""
    return replace(lease, position=max(lease.position, position.encode()))
