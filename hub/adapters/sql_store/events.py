"""Events after planning, the delivery log, and retraction.

An event's state is computed from its slices, its scheduled parts and its retraction; it is stored nowhere twice.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, desc, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.expansions import stop_expansions
from hub.adapters.sql_store.journal import append_log, cancel_deliveries
from hub.adapters.sql_store.locks import hold_commits
from hub.adapters.sql_store.rows import broadcast_of, delivery_of, log_entry_of, notification_of
from hub.adapters.sql_store.tables import (
    broadcast_marks,
    broadcasts,
    deliveries,
    expansions,
    log,
    notifications,
    payloads,
    retractions,
    scheduled,
    slices,
)
from hub.model.deliveries import Delivery
from hub.model.notifications import Broadcast, Notification
from hub.ports import EventRecord, LogEntry, LogQuery


class EventRows(Part):
    """`hub.ports.EventStore` on SQL."""

    async def event(self, event_id: str) -> EventRecord | None:
        """What SQL knows of an event; `state` is computed from its slices, schedule and retraction.

        One that was retracted while all of it still waits in the queue has no type, and `accepted_at_us` 0.
        """
        waiting = select(func.count()).where(
            scheduled.c.event_id == event_id, scheduled.c.queued_at_us.is_(None)
        )
        async with self._db.read(snapshot=True) as connection:
            found = await connection.execute(
                select(slices).where(slices.c.event_id == event_id).order_by(slices.c.planned_at_us)
            )
            rows = found.all()
            parts = await connection.scalar(waiting)
            retracted = await connection.scalar(
                select(retractions.c.at_us).where(retractions.c.event_id == event_id)
            )
        if not rows:
            return None if retracted is None else _retracted_unseen(event_id)
        rejected = next((row for row in rows if row.error is not None), None)
        if retracted is not None:
            state = "retracted"
        elif rejected is not None:
            state = "rejected"
        elif parts:
            state = "scheduled"
        else:
            state = "generated" if len(rows) >= max(row.total for row in rows) else "accepted"
        row = rejected or rows[-1]
        return EventRecord(
            id=event_id,
            type=row.type,
            category=row.category,
            source=row.source,
            actor=row.actor,
            accepted_at_us=row.accepted_at_us,
            slices=max(row.total for row in rows),
            state=state,
            error=row.error,
            raw=row.raw,
            send_at_us=next((row.send_at_us for row in rows if row.send_at_us is not None), None),
        )

    async def event_sums(self, event_id: str) -> dict[str, int]:
        """recipients, in_app, suppressed, rejected, deliveries, seen, read.

        `deliveries`: with those that expansions of broadcasts have made so far. For broadcasts `seen` and `read` count
        who marked it by itself; "all read" leaves no trace per reader.
        """
        names = ("recipients", "in_app", "suppressed", "rejected", "deliveries")
        expanded = select(func.coalesce(func.sum(expansions.c.deliveries), 0)).where(
            expansions.c.event_id == event_id
        )
        planned = select(*(func.coalesce(func.sum(slices.c[name]), 0).label(name) for name in names))
        personal = select(
            func.count(notifications.c.seen_at_us), func.count(notifications.c.read_at_us)
        ).where(notifications.c.event_id == event_id)
        shared = select(
            func.count(broadcast_marks.c.seen_at_us), func.count(broadcast_marks.c.read_at_us)
        ).where(broadcast_marks.c.seq.in_(select(broadcasts.c.seq).where(broadcasts.c.event_id == event_id)))
        async with self._db.read(snapshot=True) as connection:
            sums = (await connection.execute(planned.where(slices.c.event_id == event_id))).mappings().one()
            own = (await connection.execute(personal)).one()
            others = (await connection.execute(shared)).one()
            more = int(await connection.scalar(expanded) or 0)
        counted = {name: int(sums[name]) for name in names}
        counted["deliveries"] += more
        return {**counted, "seen": own[0] + others[0], "read": own[1] + others[1]}

    async def event_notifications(self, event_id: str, after: str | None, limit: int) -> list[Notification]:
        """Rows of an event by user id."""
        page = select(notifications).where(notifications.c.event_id == event_id)
        if after is not None:
            page = page.where(notifications.c.user_id > after)
        async with self._db.read() as connection:
            rows = await connection.execute(page.order_by(notifications.c.user_id).limit(limit))
            return [notification_of(row) for row in rows]

    async def event_broadcasts(self, event_id: str) -> list[Broadcast]:
        """The broadcast rows of an event."""
        page = select(broadcasts).where(broadcasts.c.event_id == event_id).order_by(broadcasts.c.seq)
        async with self._db.read() as connection:
            return [broadcast_of(row) for row in await connection.execute(page)]

    async def event_deliveries(
        self, event_id: str, state: str | None, after: str | None, limit: int
    ) -> list[Delivery]:
        """Deliveries of an event by id."""
        page = select(deliveries).where(deliveries.c.event_id == event_id)
        if state is not None:
            page = page.where(deliveries.c.state == state)
        if after is not None:
            page = page.where(deliveries.c.id > after)
        async with self._db.read() as connection:
            return [
                delivery_of(row)
                for row in await connection.execute(page.order_by(deliveries.c.id).limit(limit))
            ]

    async def explain(self, user_id: str, event_id: str) -> Notification | None:
        """The stored plan of one user's notification."""
        page = select(notifications).where(
            notifications.c.event_id == event_id, notifications.c.user_id == user_id
        )
        async with self._db.read() as connection:
            row = (await connection.execute(page.limit(1))).one_or_none()
        return None if row is None else notification_of(row)

    # ------------------------------------------------------------ retraction

    async def retract(self, event_id: str, now_us: int) -> tuple[dict[str, list[str]], list[Broadcast]]:
        """Record the retraction (for what is still queued too), take rows out of inboxes, cancel waiting deliveries.

        Returns what it took back: notification ids per user, and broadcasts. Repeating it returns the same again.
        """
        return await self._db.write(self._retract, event_id, now_us)

    async def _retract(
        self, connection: AsyncConnection, event_id: str, now_us: int
    ) -> tuple[dict[str, list[str]], list[Broadcast]]:
        await hold_commits(self._db, connection)
        first = await connection.execute(
            self._db.insert(retractions)
            .values(event_id=event_id, at_us=now_us)
            .on_conflict_do_nothing()
            .returning(retractions.c.event_id)
        )
        if first.one_or_none() is None:
            return await self._taken_back(connection, event_id)
        await connection.execute(
            update(scheduled)
            .where(scheduled.c.event_id == event_id, scheduled.c.queued_at_us.is_(None))
            .values(queued_at_us=now_us, raw=b"")
        )
        hidden = await connection.execute(
            update(notifications)
            .where(notifications.c.event_id == event_id, notifications.c.shown)
            .values(shown=False, hidden="retracted")
            .returning(notifications.c.user_id, notifications.c.id)
        )
        personal: dict[str, list[str]] = {}
        for row in hidden:
            personal.setdefault(row.user_id, []).append(row.id)
        over = await connection.execute(
            update(broadcasts)
            .where(broadcasts.c.event_id == event_id, broadcasts.c.shown)
            .values(shown=False, hidden="retracted")
            .returning(broadcasts)
        )
        shared = [broadcast_of(row) for row in over]
        # A broadcast's deliveries may be millions: they are cancelled page by page, beside what else there is to do.
        await stop_expansions(connection, "retracted", now_us, expansions.c.event_id == event_id)
        addressed = deliveries.c.notification_id.not_in(
            select(expansions.c.broadcast_id).where(expansions.c.event_id == event_id)
        )
        entries = await cancel_deliveries(
            connection, "retracted", now_us, deliveries.c.event_id == event_id, addressed
        )
        # Nothing is sent any more.
        await connection.execute(delete(payloads).where(payloads.c.event_id == event_id))
        named = await connection.execute(
            select(slices.c.type, slices.c.category).where(slices.c.event_id == event_id).limit(1)
        )
        known = named.one_or_none()
        entries.append(
            LogEntry(
                now_us,
                "retracted",
                event_id,
                type=known.type if known else None,
                category=known.category if known else None,
            )
        )
        await append_log(self._db, connection, entries)
        return personal, shared

    async def _taken_back(
        self, connection: AsyncConnection, event_id: str
    ) -> tuple[dict[str, list[str]], list[Broadcast]]:
        rows = await connection.execute(
            select(notifications.c.user_id, notifications.c.id).where(
                notifications.c.event_id == event_id, notifications.c.hidden == "retracted"
            )
        )
        personal: dict[str, list[str]] = {}
        for row in rows:
            personal.setdefault(row.user_id, []).append(row.id)
        shared = await connection.execute(
            select(broadcasts).where(broadcasts.c.event_id == event_id, broadcasts.c.hidden == "retracted")
        )
        return personal, [broadcast_of(row) for row in shared]

    # ------------------------------------------------------------ the log

    async def log(self, query: LogQuery) -> list[LogEntry]:
        """The delivery log, newest first."""
        which: list[Any] = []
        for column, wanted in (
            (log.c.user_id, query.user_id),
            (log.c.event_id, query.event_id),
            (log.c.channel, query.channel),
            (log.c.state, query.state),
        ):
            if wanted is not None:
                which.append(column == wanted)
        if query.before is not None:
            which.append(log.c.id < query.before)
        if query.since_us is not None:
            which.append(log.c.at_us >= query.since_us)
        page = select(log).where(*which).order_by(desc(log.c.id)).limit(query.limit)
        async with self._db.read() as connection:
            return [log_entry_of(row) for row in await connection.execute(page)]

    async def write_log(self, entries: Sequence[LogEntry]) -> None:
        """Append log rows (and their minute counters) outside a batch."""

        async def work(connection: AsyncConnection) -> None:
            await append_log(self._db, connection, entries)

        if entries:
            await self._db.write(work)


def _retracted_unseen(event_id: str) -> EventRecord:
    return EventRecord(event_id, "", "", "", None, accepted_at_us=0, slices=0, state="retracted")
