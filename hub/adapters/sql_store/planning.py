"""What the generator reads and writes: one fenced transaction per batch; a slice is planned once.

`commit` holds its lease's row from its first statement to its end. Retraction and erasure lock those rows too, so a
batch that was planned before one of them and commits after it sees it, and stores its rows accordingly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from msgspec import structs
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import Row, Statement, insert_rows
from hub.adapters.sql_store.collapse import collapse_broadcasts, collapse_notifications
from hub.adapters.sql_store.expansions import insert_expansions
from hub.adapters.sql_store.journal import WAITING, append_log, cancelled_entry
from hub.adapters.sql_store.leases import advance
from hub.adapters.sql_store.people_rows import erased_since, merge_named, new_pseudonym
from hub.adapters.sql_store.rows import (
    broadcast_values,
    delivery_values,
    document,
    notification_values,
    targets_of,
)
from hub.adapters.sql_store.situation import Situations
from hub.adapters.sql_store.tables import (
    broadcast_targets,
    broadcasts,
    deliveries,
    notifications,
    payloads,
    scheduled,
    slices,
)
from hub.adapters.sql_store.timing import move_digests
from hub.adapters.sql_store.together import Together
from hub.model.deliveries import Delivery
from hub.ports import Batch, Committed, EventRecord, LogEntry, PlannedSlice, ScheduledPart

_SliceKey = tuple[str, str]
_DUE: Final = Statement(
    "SELECT event_id, part, due_at_us, raw FROM scheduled WHERE queued_at_us IS NULL AND due_at_us <= ?"
    " ORDER BY due_at_us, event_id LIMIT ?"
)


@dataclass(slots=True)
class _Erased:
    """What a batch loses because its users were erased meanwhile: counts per slice."""

    in_app: dict[_SliceKey, int] = field(default_factory=dict)
    suppressed: dict[_SliceKey, int] = field(default_factory=dict)
    deliveries: dict[_SliceKey, int] = field(default_factory=dict)
    notification_ids: set[str] = field(default_factory=set)


class Planning(Situations):
    """`hub.ports.PlanStore` on SQL."""

    @cached_property
    def _together(self) -> Together:
        return Together(self._db, self._commit)

    async def commit(self, batch: Batch) -> Committed:
        """Write a batch. Begins with the UPDATE of the lease row on its fence; raises `LeaseLost` without writing."""
        return await (self._together.add(batch) if self._db.sqlite else self._db.write(self._commit, batch))

    async def _commit(self, connection: AsyncConnection, batch: Batch) -> Committed:
        await advance(self._db, connection, batch.lease)
        batch = replace(batch)  # the caller's stays as it is: this may run again
        batch = await self._without_planned(connection, batch)
        gone = await self.retracted_among(connection, [record.id for record in batch.events])
        erased = await self._without_erased(connection, batch)
        await merge_named(self._db, connection, batch.users)
        await insert_rows(self._db, connection, slices, _slice_rows(batch, erased), ignore_known=False)
        replaced = await collapse_notifications(self._db, connection, batch, gone)
        over = await collapse_broadcasts(self._db, connection, batch, gone)
        entries = [*batch.log, *replaced.log, *over.log]
        hidden = {**replaced.hidden, **over.hidden}
        await self._insert_notifications(connection, batch, hidden)
        await self._insert_broadcasts(connection, batch, hidden)
        await move_digests(self._db, connection, batch.digests)
        await insert_expansions(
            self._db, connection, batch, {**dict.fromkeys(over.cancelled, "collapsed"), **over.hidden}
        )
        entries += await self._insert_deliveries(connection, batch, gone, replaced.cancelled)
        await insert_rows(self._db, connection, payloads, _payload_rows(batch, gone))
        if batch.scheduled:
            await connection.execute(
                self._db.insert(scheduled).on_conflict_do_nothing(),
                [_scheduled_row(part) for part in batch.scheduled],
            )
        await append_log(self._db, connection, entries, batch.lease.name)
        collapsed = {**replaced.collapsed, **over.collapsed}
        return Committed(collapsed, frozenset(hidden) | erased.notification_ids)

    async def _without_planned(self, connection: AsyncConnection, batch: Batch) -> Batch:
        """The batch without slices that are stored already. Nobody adds any meanwhile: we hold the lease's row."""
        ids = {row.event_id for row in batch.slices} | {record.id for record in batch.events}
        if not ids:
            return batch
        prefix = batch.lease.name
        found = await self.stored_slices(connection, ids)
        stored = {(id_, key) for id_, key in found if key == prefix or key.startswith(f"{prefix}@")}
        if not stored:
            return batch
        fresh = [row for row in batch.slices if (row.event_id, row.partition) not in stored]
        kept = {row.event_id for row in fresh}
        done = {event_id for event_id, _ in stored} - kept
        return replace(
            batch,
            slices=fresh,
            events=[record for record in batch.events if record.id not in done],
            notifications=[
                n for n in batch.notifications if (n.event_id, n.slice_key or prefix) not in stored
            ],
            broadcasts=[b for b in batch.broadcasts if (b.event_id, b.slice_key or prefix) not in stored],
            deliveries=[d for d in batch.deliveries if d.event_id not in done],
            payloads=[p for p in batch.payloads if (p.event_id, p.slice_key) not in stored],
            expansions=[e for e in batch.expansions if e.event_id not in done],
            scheduled=[part for part in batch.scheduled if part.event_id not in done],
            log=[entry for entry in batch.log if entry.event_id not in done],
        )

    async def _without_erased(self, connection: AsyncConnection, batch: Batch) -> _Erased:
        """Take users out of the batch who were erased after its events were accepted."""
        erased = _Erased()
        accepted = {record.id: record.accepted_at_us for record in batch.events}
        ids = {row.user_id for row in batch.notifications} | {named.id for named in batch.users}
        if not ids or not accepted:
            return erased
        moments = await erased_since(self._db, connection, ids, min(accepted.values()))
        if not moments:
            return erased
        newest = max(accepted.values())

        def is_over(user_id: str | None, event_id: str | None) -> bool:
            return accepted.get(event_id or "", newest) < moments.get(user_id or "", 0)

        still = {row.user_id for row in batch.notifications if not is_over(row.user_id, row.event_id)}
        batch.users = [named for named in batch.users if named.id not in moments or named.id in still]
        slice_keys: dict[str, _SliceKey] = {}
        for row in batch.notifications:
            slice_keys[row.id] = key = (row.event_id, row.slice_key or batch.lease.name)
            if is_over(row.user_id, row.event_id):
                counts = erased.in_app if row.in_app else erased.suppressed
                counts[key] = counts.get(key, 0) + 1
                erased.notification_ids.add(row.id)
        for delivery in batch.deliveries:
            if is_over(delivery.user_id, delivery.event_id):
                key = slice_keys[delivery.notification_id]
                erased.deliveries[key] = erased.deliveries.get(key, 0) + 1
        batch.notifications = [n for n in batch.notifications if n.id not in erased.notification_ids]
        batch.deliveries = [d for d in batch.deliveries if not is_over(d.user_id, d.event_id)]
        empty = {slice_keys[id_] for id_ in erased.notification_ids}
        empty -= {slice_keys[d.notification_id] for d in batch.deliveries if d.notification_id in slice_keys}
        batch.payloads = [p for p in batch.payloads if (p.event_id, p.slice_key) not in empty]
        names = {user_id: new_pseudonym() for user_id in moments}
        batch.log = [
            structs.replace(entry, user_id=names[entry.user_id or ""], notification_id=None, detail=None)
            if is_over(entry.user_id, entry.event_id)
            else entry
            for entry in batch.log
        ]
        return erased

    async def _insert_notifications(
        self, connection: AsyncConnection, batch: Batch, hidden: Mapping[str, str]
    ) -> None:
        name = batch.lease.name
        rows = [
            notification_values(row, row.slice_key or name, hidden.get(row.id)) for row in batch.notifications
        ]
        await insert_rows(self._db, connection, notifications, rows)

    async def _insert_broadcasts(
        self, connection: AsyncConnection, batch: Batch, hidden: Mapping[str, str]
    ) -> None:
        rows: list[Row] = []
        targets: list[Row] = []
        for row in batch.broadcasts:
            values = broadcast_values(row)
            values["slice_key"] = row.slice_key or batch.lease.name
            if reason := hidden.get(row.id):
                values |= {"shown": False, "hidden": reason}
            rows.append(tuple([values[column.name] for column in broadcasts.columns]))
            targets += [(target, row.seq) for target in targets_of(row.audience)]
        await insert_rows(self._db, connection, broadcasts, rows)
        await insert_rows(self._db, connection, broadcast_targets, targets)

    async def _insert_deliveries(
        self, connection: AsyncConnection, batch: Batch, gone: set[str], replaced: set[str]
    ) -> list[LogEntry]:
        if not batch.deliveries:
            return []
        keys = {row.id: row.slice_key or batch.lease.name for row in batch.notifications}
        rows = []
        entries = []
        for row in batch.deliveries:
            reason = _cancelled_at_once(row, gone, replaced)
            if reason:
                entries.append(cancelled_entry(row, reason, max(batch.lease.clock_us, row.created_at_us)))
            key = keys.get(row.notification_id, batch.lease.name)
            rows.append(delivery_values(row, key, "cancelled" if reason else row.state, reason))
        await insert_rows(self._db, connection, deliveries, rows)
        return entries

    async def due_scheduled(self, now_us: int, limit: int) -> list[ScheduledPart]:
        """Parts that are due and not queued yet, oldest first."""
        async with self._db.read_inline() as connection:
            rows = await _DUE.rows(self._db, connection, now_us, limit)
        return [ScheduledPart(*row) for row in rows]

    async def mark_scheduled_queued(self, parts: Sequence[ScheduledPart]) -> None:
        """They are in the queue now."""

        async def work(connection: AsyncConnection) -> None:
            for part in parts:
                await connection.execute(
                    update(scheduled)
                    .where(scheduled.c.event_id == part.event_id, scheduled.c.part == part.part)
                    .values(
                        queued_at_us=self._db.now_us(), raw=b""
                    )  # the queue has it now, with its addresses
                )

        if parts:
            await self._db.write(work)


def _cancelled_at_once(row: Delivery, gone: set[str], replaced: set[str]) -> str | None:
    if row.state not in WAITING:
        return None
    if row.event_id in gone:
        return "retracted"
    return "collapsed" if row.notification_id in replaced else None


def _scheduled_row(part: ScheduledPart) -> dict[str, Any]:
    return {
        "event_id": part.event_id,
        "part": part.part,
        "due_at_us": part.due_at_us,
        "queued_at_us": None,
        "raw": part.raw,
    }


def _payload_rows(batch: Batch, gone: set[str]) -> list[Row]:
    """What may still be sent needs its event; of what was retracted meanwhile nothing will be."""
    return [(p.event_id, p.slice_key, p.raw) for p in batch.payloads if p.event_id not in gone]


def _slice_rows(batch: Batch, erased: _Erased) -> list[Row]:
    records = {record.id: record for record in batch.events}
    planned = list(batch.slices)
    with_slice = {row.event_id for row in planned}
    # A record alone (what could not even be read): it is done with, and kept.
    planned += [PlannedSlice(id_, batch.lease.name, 0, 0, 0) for id_ in records if id_ not in with_slice]
    return [
        _slice_row(row, records.get(row.event_id) or _unnamed(row, batch), batch, erased) for row in planned
    ]


def _unnamed(row: PlannedSlice, batch: Batch) -> EventRecord:
    return EventRecord(row.event_id, "", "", "", None, batch.lease.clock_us, 1)


def _slice_row(row: PlannedSlice, record: EventRecord, batch: Batch, erased: _Erased) -> Row:
    key = (row.event_id, row.partition)
    rejected = record.state == "rejected"
    return (
        row.event_id,
        row.partition,
        record.type,
        record.category,
        record.source,
        record.actor,
        record.accepted_at_us,
        record.send_at_us,
        max(batch.lease.clock_us, record.accepted_at_us, record.send_at_us or 0),  # planned
        record.slices,
        row.recipients,
        row.in_app,
        row.suppressed,
        row.rejected,
        row.deliveries,
        erased.in_app.get(key, 0),
        erased.suppressed.get(key, 0),
        erased.deliveries.get(key, 0),
        document(row.expansion) if row.expansion else None,
        record.error if rejected else None,
        record.raw if rejected else None,
    )
