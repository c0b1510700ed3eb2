"""Expansions: pages of a broadcast's audience on an addressed channel, each written once: `hub.ports.ExpansionStore`.

What is read for a page may be older than its writing by a moment. Stopping is seen then (the step is conditional on
the row as it was read), and so are erasure and reports of reach (they wait for a page, or the page sees them). All
else is asked again when a delivery is sent.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, case, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.audience import (
    Walk,
    place_of,
    reached_by,
    seen_by,
    stranger,
    with_addresses,
    with_topics,
)
from hub.adapters.sql_store.bulk import insert_rows
from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.journal import WAITING, append_log, cancel_deliveries
from hub.adapters.sql_store.people_rows import erased_since
from hub.adapters.sql_store.rows import (
    broadcast_of,
    delivery_values,
    document,
    expansion_of,
    expansion_values,
)
from hub.adapters.sql_store.tables import broadcast_reached, broadcasts, deliveries, expansions, leases
from hub.adapters.sql_store.users import Users
from hub.model.deliveries import Delivery
from hub.model.expansion import Expansion
from hub.model.vocabulary import EXPANSION
from hub.ports import AudiencePage, Batch, DueExpansion, LogEntry

_FRESH: Final = {
    "owner": "",
    "fence": 0,
    "expires_at_us": 0,
    "position": "",
    "clock_us": 0,
    "broadcast_seq": 0,
}


class Expansions(Users):
    """`hub.ports.ExpansionStore` on SQL."""

    async def due_expansions(self, now_us: int, limit: int) -> list[DueExpansion]:
        """Expansions that are due and not done, the one that waits longest first."""
        due = (
            select(expansions)
            .where(expansions.c.done_at_us.is_(None), expansions.c.due_at_us <= now_us)
            .order_by(expansions.c.due_at_us, expansions.c.broadcast_id, expansions.c.channel)
            .limit(limit)
        )
        async with self._db.read() as connection:
            rows = [expansion_of(row) for row in await connection.execute(due)]
            if not rows:
                return []
            found = await connection.execute(
                select(broadcasts).where(self._db.among(broadcasts.c.id, {row.broadcast_id for row in rows}))
            )
            shared = {row.id: broadcast_of(row) for row in found}
        return [DueExpansion(row, shared[row.broadcast_id]) for row in rows if row.broadcast_id in shared]

    async def audience_page(self, due: DueExpansion, limit: int, default_timezone: str) -> AudiencePage:
        """The next users, of one moment. Topics are as they were at the broadcast's seq, all else is as of now."""
        return await self._db.read_apart(self._audience_page, due, limit, default_timezone)

    async def _audience_page(
        self, connection: AsyncConnection, due: DueExpansion, limit: int, default_timezone: str
    ) -> AudiencePage:
        expansion, broadcast = due
        walk = Walk(self._db, broadcast, expansion.channel, default_timezone)
        place = place_of(expansion.cursor)
        ids = await walk.ids(connection, place, limit)
        known = await self._load_users(connection, ids, False) if ids else {}
        found = [known.get(user_id) or stranger(user_id) for user_id in ids]
        found = await with_topics(self._db, connection, broadcast.audience, found)
        found = [user for user in found if walk.is_new(user, place)]
        found = await with_addresses(self._db, connection, expansion.channel, found)
        seen = reached = frozenset[str]()
        who = [user.profile.id for user in found]
        if expansion.condition != "always":
            seen = await seen_by(self._db, connection, broadcast, who)
        if expansion.condition == "offline":
            reached = await reached_by(self._db, connection, broadcast.seq, who)
        following = walk.following(place, ids, limit)
        if following is not None:
            return AudiencePage(tuple(found), seen, following.encode(), reached=reached)
        count = await walk.count(connection)
        return AudiencePage(tuple(found), seen, expansion.cursor, count, reached)

    async def save_page(
        self,
        expansion: Expansion,
        page: AudiencePage,
        made: Sequence[Delivery],
        counts: Mapping[str, int],
        now_us: int,
    ) -> LogEntry | None:
        """Write what became of a page, and move on, in one transaction. With the last page it is done: returns its line."""
        return await self._db.write(self._save_page, expansion, page, made, counts, now_us)

    async def _save_page(
        self,
        connection: AsyncConnection,
        expansion: Expansion,
        page: AudiencePage,
        made: Sequence[Delivery],
        counts: Mapping[str, int],
        now_us: int,
    ) -> LogEntry | None:
        await _hold_erasure(self._db, connection)
        if not await self._is_as_read(connection, expansion):
            return None
        since_us = min((row.created_at_us for row in made), default=now_us)
        erased = await erased_since(self._db, connection, {row.user_id for row in made}, since_us)
        left = [row for row in made if row.user_id not in erased]
        wanted = await self._unreached(connection, expansion, left)
        rows = [
            delivery_values(row, expansion.slice_key, row.state)
            for row in sorted(wanted, key=lambda row: (row.user_id, row.id))
        ]
        inserted = await insert_rows(self._db, connection, deliveries, rows)
        more = {
            "erased": len(made) - len(left),
            "reached": len(left) - len(wanted),
            "fallback": len(wanted) - inserted,
        }
        totals = _sum(expansion.counts, counts, more)
        values: dict[str, Any] = {"cursor": page.cursor, "deliveries": expansion.deliveries + inserted}
        entry = None
        if page.audience is not None:
            looked_at = values["deliveries"] + sum(totals.values())
            totals = _sum(totals, {"no_address": max(page.audience - looked_at, 0)})
            values |= {"audience": values["deliveries"] + sum(totals.values()), "done_at_us": now_us}
            entry = await self._log_done(connection, expansion, values, totals, now_us)
        await connection.execute(
            update(expansions).where(*_is(expansion)).values(**values, counts=document(totals))
        )
        await _forget_reached(connection, expansion)
        return entry

    async def _unreached(
        self, connection: AsyncConnection, expansion: Expansion, made: Sequence[Delivery]
    ) -> Sequence[Delivery]:
        """Without those whose users were reached since the page was read."""
        if expansion.condition != "offline":
            return made
        reached = await reached_by(self._db, connection, expansion.seq, {row.user_id for row in made})
        return [row for row in made if row.user_id not in reached]

    async def _is_as_read(self, connection: AsyncConnection, expansion: Expansion) -> bool:
        """Whether an expansion stands where it stood when it was read; it stays so until this transaction ends."""
        stopped = expansions.c.stopped
        row = select(expansions.c.seq).where(
            *_is(expansion),
            expansions.c.cursor == expansion.cursor,
            expansions.c.done_at_us.is_(None),
            stopped.is_(None) if expansion.stopped is None else stopped == expansion.stopped,
        )
        return await connection.scalar(row.with_for_update()) is not None

    async def _log_done(
        self,
        connection: AsyncConnection,
        expansion: Expansion,
        values: Mapping[str, Any],
        counts: Mapping[str, int],
        now_us: int,
    ) -> LogEntry:
        named = await connection.execute(
            select(broadcasts.c.type, broadcasts.c.category).where(broadcasts.c.id == expansion.broadcast_id)
        )
        row = named.one_or_none()
        detail = {"audience": values["audience"], "deliveries": values["deliveries"], **counts}
        entry = LogEntry(
            now_us,
            "expanded",
            expansion.event_id,
            notification_id=expansion.broadcast_id,
            channel=expansion.channel.value,
            type=row.type if row else None,
            category=row.category if row else None,
            reason=expansion.stopped,
            detail=document(detail),
        )
        await append_log(self._db, connection, [entry])
        return entry

    # ------------------------------------------------------------ stopped

    async def clear_stopped(
        self, due: DueExpansion, limit: int, default_timezone: str, now_us: int
    ) -> list[LogEntry]:
        """Cancel the next deliveries of a stopped one that still wait; at their end it is done. Returns the lines."""
        return await self._db.write(self._clear_stopped, due, limit, default_timezone, now_us)

    async def _clear_stopped(
        self,
        connection: AsyncConnection,
        due: DueExpansion,
        limit: int,
        default_timezone: str,
        now_us: int,
    ) -> list[LogEntry]:
        expansion, broadcast = due
        if expansion.stopped is None or not await self._is_as_read(connection, expansion):
            return []
        page = (
            select(deliveries.c.id)
            .where(
                deliveries.c.event_id == expansion.event_id,
                deliveries.c.id > expansion.cursor,
                deliveries.c.notification_id == expansion.broadcast_id,
                deliveries.c.state.in_(WAITING),
            )
            .order_by(deliveries.c.id)
            .limit(limit)
        )
        waiting = (await connection.scalars(page)).all()
        entries: list[LogEntry] = []
        if waiting:
            entries = await cancel_deliveries(
                connection,
                expansion.stopped,
                now_us,
                deliveries.c.event_id
                == expansion.event_id,  # by this index; users and ids would be each with each
                self._db.among(deliveries.c.id, waiting),
            )
            await append_log(self._db, connection, entries)
        values: dict[str, Any] = {"cursor": waiting[-1] if waiting else expansion.cursor}
        if len(waiting) < limit:
            totals, audience = expansion.counts, expansion.audience
            if audience is None:  # stopped before everybody was looked at
                walk = Walk(self._db, broadcast, expansion.channel, default_timezone)
                left = await walk.count(connection) - expansion.looked_at
                totals = _sum(totals, {expansion.stopped: max(left, 0)})
                audience = expansion.deliveries + sum(totals.values())
            values |= {"audience": audience, "counts": document(totals), "done_at_us": now_us}
            numbers = {"audience": audience, "deliveries": expansion.deliveries}
            entries.append(await self._log_done(connection, expansion, numbers, totals, now_us))
        await connection.execute(update(expansions).where(*_is(expansion)).values(**values))
        await _forget_reached(connection, expansion)
        return entries

    async def event_expansions(self, event_id: str) -> list[Expansion]:
        """The expansions of an event's broadcasts."""
        page = (
            select(expansions)
            .where(expansions.c.event_id == event_id)
            .order_by(expansions.c.seq, expansions.c.channel)
        )
        async with self._db.read() as connection:
            return [expansion_of(row) for row in await connection.execute(page)]


async def insert_expansions(
    db: Database, connection: AsyncConnection, batch: Batch, stopped: Mapping[str, str]
) -> None:
    """The expansions of a batch's broadcasts. `stopped`: by broadcast, why it is over before it began."""
    rows = [expansion_values(row, stopped.get(row.broadcast_id)) for row in batch.expansions]
    await insert_rows(db, connection, expansions, rows)


async def stop_expansions(
    connection: AsyncConnection, reason: str, now_us: int, *which: ColumnElement[bool]
) -> None:
    """Stop these at once, done or not: from now on no page is written, and what still waits is cancelled page by page."""
    own = expansions.c
    due = case((own.due_at_us < now_us, own.due_at_us), else_=now_us)
    values = {"stopped": reason, "cursor": "", "done_at_us": None, "due_at_us": due}
    await connection.execute(update(expansions).where(expansions.c.stopped.is_(None), *which).values(values))


async def _hold_erasure(db: Database, connection: AsyncConnection) -> None:
    """Keep erasures out until this transaction ends: whoever erases takes the rows of all leases (`locks.hold_commits`)."""
    if db.sqlite:
        return
    row = select(leases.c.name).where(leases.c.name == EXPANSION).with_for_update()
    if await connection.scalar(row) is None:
        await connection.execute(
            db.insert(leases).values(name=EXPANSION, **_FRESH).on_conflict_do_nothing(index_elements=["name"])
        )
        await connection.scalar(row)


async def _forget_reached(connection: AsyncConnection, expansion: Expansion) -> None:
    """Drop who was reached, once no expansion of the broadcast asks any more."""
    if expansion.condition != "offline":
        return
    asking = select(expansions.c.seq).where(
        expansions.c.broadcast_id == expansion.broadcast_id,
        expansions.c.condition == "offline",
        expansions.c.done_at_us.is_(None),
    )
    await connection.execute(
        delete(broadcast_reached).where(broadcast_reached.c.seq == expansion.seq, ~asking.exists())
    )


def _is(expansion: Expansion) -> Collection[ColumnElement[bool]]:
    return (
        expansions.c.broadcast_id == expansion.broadcast_id,
        expansions.c.channel == expansion.channel.value,
    )


def _sum(*counts: Mapping[str, int]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for some in counts:
        for rule, count in some.items():
            if count:
                totals[rule] = totals.get(rule, 0) + count
    return dict(sorted(totals.items()))
