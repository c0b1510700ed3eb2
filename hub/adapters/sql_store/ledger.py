"""The ledger: every sum that must add up, proven from the tables at one moment (`clarion verify`).

Sentences are for people; an empty list is the proof. While slices wait in the queue, their events show up as not
planned whole: call it when the queue is empty. What retention has dropped is not looked at.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, ColumnElement, Select, case, cast, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.rows import MINUTE_US
from hub.adapters.sql_store.tables import (
    broadcasts,
    deliveries,
    expansions,
    leases,
    log,
    log_counters,
    notifications,
    retractions,
    scheduled,
    settings,
    slices,
)
from hub.model.deliveries import MOVES
from hub.model.vocabulary import LANE

RETAINED: Final = "retained_from_us"
LIMIT: Final = 100  # sentences of one kind; a person needs no more
_Kept = ColumnElement[bool]


class Ledger(Part):
    """Proves that states add up."""

    async def ledger(self) -> list[str]:
        """Sentences about every sum that does not add up; empty: it balances (`clarion verify`)."""
        async with self._db.read(snapshot=True) as connection:
            found = await connection.scalar(select(settings.c.value).where(settings.c.name == RETAINED))
            since_us = int(found or 0)
            kept = slices.c.planned_at_us >= since_us
            return [
                *await _slice_sums(connection, kept),
                *await _rows_of_slices(connection, kept),
                *await _deliveries_of_slices(connection, kept),
                *await self._expansions(connection, since_us),
                *await _strays(connection, since_us),
                *await _whole_events(connection, since_us),
                *await _counters(connection, since_us),
                *await self._order(connection),
                *await _states(connection),
                *await _lane(connection),
            ]

    async def _order(self, connection: AsyncConnection) -> list[str]:
        """created_at_us orders each partition: no two rows may share one."""

        def moments(table: Any) -> Select[Any]:
            key = table.c.slice_key
            if self._db.sqlite:
                partition = func.substr(key, 1, func.instr(key.concat("@"), "@") - 1)
            else:
                partition = func.split_part(key, "@", 1)
            return select(partition.label("partition"), table.c.created_at_us)

        both = union_all(moments(notifications), moments(broadcasts)).subquery()
        twice = (
            select(both.c.partition, both.c.created_at_us, func.count().label("rows"))
            .group_by(both.c.partition, both.c.created_at_us)
            .having(func.count() > 1)
        )
        return [
            f"Partition {row.partition}: {row.rows} notifications share the moment {row.created_at_us}."
            for row in await _rows(connection, twice)
        ]

    async def _expansions(self, connection: AsyncConnection, since_us: int) -> list[str]:
        """Of a broadcast's audience everybody ended in one place. What is not done may still grow."""
        if self._db.sqlite:
            each: Any = func.json_each(expansions.c.counts).table_valued("key", "value")
        else:
            each = func.json_each_text(cast(expansions.c.counts, JSON)).table_valued("key", "value")
        counted = select(func.coalesce(func.sum(cast(each.c.value, BigInteger)), 0)).scalar_subquery()
        total = expansions.c.deliveries + counted
        missing = ~select(broadcasts.c.seq).where(broadcasts.c.id == expansions.c.broadcast_id).exists()
        kept = (expansions.c.due_at_us >= since_us) & (expansions.c.done_at_us.is_not(None) | missing)
        wrong = select(expansions, total.label("total"), missing.label("missing")).where(
            kept, missing | expansions.c.audience.is_(None) | (expansions.c.audience != total)
        )
        return [
            f"{_of(row)}: the {row.channel} expansion "
            + (
                "has no broadcast."
                if row.missing
                else f"is done with an audience of {row.audience}, of whom {row.total} are accounted for."
            )
            for row in await _rows(connection, wrong)
        ]


async def _rows(connection: AsyncConnection, statement: Select[Any]) -> Sequence[Any]:
    found: Sequence[Any] = (await connection.execute(statement.limit(LIMIT))).all()
    return found


def _of(row: Any) -> str:
    return f"Event {row.event_id}, slice {row.slice_key}"


async def _slice_sums(connection: AsyncConnection, kept: _Kept) -> list[str]:
    total = slices.c.in_app + slices.c.suppressed + slices.c.rejected
    wrong = select(slices).where(kept, slices.c.recipients != total)
    return [
        f"{_of(row)}: {row.recipients} recipients, but {row.in_app} in the app, {row.suppressed} suppressed and "
        f"{row.rejected} rejected."
        for row in await _rows(connection, wrong)
    ]


async def _rows_of_slices(connection: AsyncConnection, kept: _Kept) -> list[str]:
    """Rows per slice. Of an event that was retracted before it was planned there are none, only the sum."""

    def counted(table: Any) -> Select[Any]:
        shown = func.sum(case((table.c.in_app, 1), else_=0))
        return select(
            table.c.event_id, table.c.slice_key, func.count().label("rows"), shown.label("shown")
        ).group_by(table.c.event_id, table.c.slice_key)

    both = union_all(counted(notifications), counted(broadcasts)).subquery()
    shown = func.coalesce(both.c.shown, 0)
    quiet = func.coalesce(both.c.rows, 0) - shown
    planned_shown = slices.c.in_app - slices.c.erased_in_app
    planned_quiet = slices.c.suppressed - slices.c.erased_suppressed
    retracted = select(retractions.c.event_id).where(retractions.c.event_id == slices.c.event_id).exists()
    wrong = (
        select(
            slices.c.event_id,
            slices.c.slice_key,
            planned_shown.label("planned_shown"),
            planned_quiet.label("planned_quiet"),
            shown.label("shown"),
            quiet.label("quiet"),
        )
        .outerjoin_from(
            slices, both, (both.c.event_id == slices.c.event_id) & (both.c.slice_key == slices.c.slice_key)
        )
        .where(
            kept,
            (planned_shown != shown) | (planned_quiet < quiet) | ((planned_quiet > quiet) & ~retracted),
        )
    )
    return [
        f"{_of(row)}: planned {row.planned_shown} notifications in the app and {row.planned_quiet} suppressed, "
        f"stored {row.shown} and {row.quiet}."
        for row in await _rows(connection, wrong)
    ]


async def _deliveries_of_slices(connection: AsyncConnection, kept: _Kept) -> list[str]:
    expanded = (
        select(
            expansions.c.event_id,
            expansions.c.slice_key,
            func.sum(expansions.c.deliveries).label("deliveries"),
        )
        .group_by(expansions.c.event_id, expansions.c.slice_key)
        .subquery()
    )
    counted = (
        select(deliveries.c.event_id, deliveries.c.slice_key, func.count().label("rows"))
        .group_by(deliveries.c.event_id, deliveries.c.slice_key)
        .subquery()
    )
    stored = func.coalesce(counted.c.rows, 0)
    planned = slices.c.deliveries - slices.c.erased_deliveries + func.coalesce(expanded.c.deliveries, 0)
    on = (counted.c.event_id == slices.c.event_id) & (counted.c.slice_key == slices.c.slice_key)
    also = (expanded.c.event_id == slices.c.event_id) & (expanded.c.slice_key == slices.c.slice_key)
    wrong = (
        select(slices.c.event_id, slices.c.slice_key, planned.label("planned"), stored.label("stored"))
        .outerjoin_from(slices, counted, on)
        .outerjoin(expanded, also)
        .where(kept, planned != stored)
    )
    return [
        f"{_of(row)}: planned {row.planned} deliveries, stored {row.stored}."
        for row in await _rows(connection, wrong)
    ]


async def _strays(connection: AsyncConnection, since_us: int) -> list[str]:
    sentences = []
    for table, what in (
        (notifications, "notifications"),
        (broadcasts, "broadcasts"),
        (deliveries, "deliveries"),
    ):
        planned = select(literal(1)).where(
            slices.c.event_id == table.c.event_id, slices.c.slice_key == table.c.slice_key
        )
        stray = (
            select(table.c.event_id, table.c.slice_key, func.count().label("rows"))
            .where(table.c.created_at_us >= since_us, ~planned.exists())
            .group_by(table.c.event_id, table.c.slice_key)
        )
        sentences += [
            f"{_of(row)}: {row.rows} {what}, but the slice was never planned."
            for row in await _rows(connection, stray)
        ]
    return sentences


async def _whole_events(connection: AsyncConnection, since_us: int) -> list[str]:
    planned, total = func.count(), func.max(slices.c.total)
    waiting = select(scheduled.c.event_id).where(scheduled.c.queued_at_us.is_(None))
    incomplete = (
        select(slices.c.event_id, planned.label("planned"), total.label("total"))
        .where(slices.c.event_id.not_in(select(retractions.c.event_id)))
        .group_by(slices.c.event_id)
        # What could not even be read says 0 of itself: it was no slice of anything.
        .having(
            func.max(slices.c.planned_at_us) >= since_us,
            ((planned > total) & func.max(slices.c.error).is_(None))
            | ((planned < total) & slices.c.event_id.not_in(waiting)),
        )
    )
    return [
        f"Event {row.event_id}: {row.planned} of {row.total} slices are planned; "
        + (
            "some were planned twice."
            if row.planned > row.total
            else "the others wait in the queue or are lost."
        )
        for row in await _rows(connection, incomplete)
    ]


async def _counters(connection: AsyncConnection, since_us: int) -> list[str]:
    first_minute = since_us // MINUTE_US + 1 if since_us else 0
    counted = select(
        log_counters.c.minute,
        log_counters.c.type,
        log_counters.c.channel,
        log_counters.c.state,
        log_counters.c.provider,
        log_counters.c.count.label("sum"),
    ).where(log_counters.c.minute >= first_minute)
    minute = (log.c.at_us // MINUTE_US).label("minute")
    texts = [
        func.coalesce(log.c[name], "").label(name) if name != "state" else log.c.state
        for name in ("type", "channel", "state", "provider")
    ]
    lines = select(minute, *texts, literal(-1).label("sum")).where(log.c.at_us >= first_minute * MINUTE_US)
    both = union_all(counted, lines).subquery()
    keys = (both.c.minute, both.c.type, both.c.channel, both.c.state, both.c.provider)
    wrong = select(*keys, func.sum(both.c.sum).label("sum")).group_by(*keys).having(func.sum(both.c.sum) != 0)
    return [
        f"Minute {row.minute}: the counter of state {row.state!r}, type {row.type!r}, channel {row.channel!r}, "
        f"provider {row.provider!r} is {abs(row.sum)} {'above' if row.sum > 0 else 'below'} the log."
        for row in await _rows(connection, wrong)
    ]


async def _states(connection: AsyncConnection) -> list[str]:
    unknown = (
        select(deliveries.c.state, func.count().label("rows"))
        .where(deliveries.c.state.not_in(sorted(MOVES)))
        .group_by(deliveries.c.state)
    )
    return [
        f"{row.rows} deliveries are in the unknown state {row.state!r}."
        for row in await _rows(connection, unknown)
    ]


async def _lane(connection: AsyncConnection) -> list[str]:
    given = await connection.scalar(select(leases.c.broadcast_seq).where(leases.c.name == LANE)) or 0
    stored = await connection.scalar(select(func.max(broadcasts.c.seq))) or 0
    return [f"Broadcast {stored} is stored, but the lane has given only {given}."] if stored > given else []
