"""The store as a thing that is operated: counters, retention, the log's days, a ping."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.ledger import RETAINED
from hub.adapters.sql_store.rows import MINUTE_US
from hub.adapters.sql_store.tables import (
    attempts,
    broadcast_marks,
    broadcast_reached,
    broadcast_targets,
    broadcasts,
    deliveries,
    expansions,
    leases,
    log,
    log_counters,
    login_links,
    notifications,
    payloads,
    retractions,
    scheduled,
    settings,
    slices,
    subscriptions,
    watermarks,
)
from hub.model.vocabulary import LANE

DAY_US: Final = 86_400_000_000
DAYS_AHEAD: Final = 3
PORTION: Final = 1000  # rows that one transaction of retention removes, roughly
_DAYS_LOCK: Final = 0x636C617269_6461  # "clari" "da"


class Operations(Part):
    """`hub.ports.OperationStore` on SQL, without schema and ledger."""

    async def ping(self) -> None:
        """Raises `StoreUnavailable` when the database does not answer."""
        async with self._db.read() as connection:
            await connection.execute(select(1))

    async def close(self) -> None:
        """Let go of connections."""
        await self._db.close()

    async def counters(self, since_us: int) -> list[tuple[int, str, str, str, str, int]]:
        """(minute, type, channel, state, provider, count). Minutes are counted from 1970; what is unset is ""."""
        keys = [log_counters.c[name] for name in ("minute", "type", "channel", "state", "provider")]
        page = (
            select(*keys, func.sum(log_counters.c.count))
            .where(log_counters.c.minute >= since_us // MINUTE_US)
            .group_by(*keys)
            .order_by(*keys)
        )
        async with self._db.read() as connection:
            rows = await connection.execute(page)
        return [(row[0], row[1], row[2], row[3], row[4], int(row[5])) for row in rows]

    # ------------------------------------------------------------ retention

    async def drop_older(self, before_us: int) -> int:
        """Retention: remove inbox and log rows older than this, in bounded portions; returns how many.

        An event goes as a whole, with all that came of it, once its youngest part is old enough.
        """
        await self._db.write(self._retain_from, before_us)
        removed = await self._drop_log_days(before_us)
        for portion in (self._drop_events, self._drop_log):
            while count := await self._db.write(portion, before_us):
                removed += count
                await asyncio.sleep(0)  # others have work too
        await self._db.write(self._drop_rest, before_us)
        return removed

    async def _retain_from(self, connection: AsyncConnection, before_us: int) -> None:
        found = await connection.scalar(select(settings.c.value).where(settings.c.name == RETAINED))
        value = str(max(int(found or 0), before_us))
        insert = self._db.insert(settings).values(name=RETAINED, value=value)
        await connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"value": value}))

    async def _drop_events(self, connection: AsyncConnection, before_us: int) -> int:
        younger = slices.alias()
        living = select(younger.c.event_id).where(
            younger.c.event_id == slices.c.event_id, younger.c.planned_at_us >= before_us
        )
        waiting = select(scheduled.c.event_id).where(
            scheduled.c.event_id == slices.c.event_id, scheduled.c.queued_at_us.is_(None)
        )
        old = await connection.execute(
            select(slices.c.event_id, slices.c.recipients)
            .where(slices.c.planned_at_us < before_us, ~living.exists(), ~waiting.exists())
            .order_by(slices.c.planned_at_us)
            .limit(PORTION)
        )
        ids: set[str] = set()
        rows = 0
        for row in old:
            if rows > PORTION:
                break
            ids.add(row.event_id)
            rows += row.recipients
        if not ids:
            return 0
        over = await connection.scalars(
            select(broadcasts.c.seq).where(self._db.among(broadcasts.c.event_id, ids))
        )
        if seqs := list(over.all()):
            for table in (broadcast_marks, broadcast_reached, broadcast_targets):
                await connection.execute(delete(table).where(self._db.among(table.c.seq, seqs)))
        removed = 0
        whole = (
            *(notifications, broadcasts, deliveries, attempts, payloads),
            *(expansions, scheduled, retractions, slices),
        )
        for table in whole:
            gone = await connection.execute(delete(table).where(self._db.among(table.c.event_id, ids)))
            removed += gone.rowcount
        return removed

    async def _drop_log(self, connection: AsyncConnection, before_us: int) -> int:
        oldest = select(log.c.id).where(log.c.at_us < before_us).order_by(log.c.id).limit(PORTION)
        gone = await connection.execute(delete(log).where(log.c.at_us < before_us, log.c.id.in_(oldest)))
        return gone.rowcount

    async def _drop_rest(self, connection: AsyncConnection, before_us: int) -> None:
        await connection.execute(delete(log_counters).where(log_counters.c.minute < before_us // MINUTE_US))
        await connection.execute(delete(retractions).where(retractions.c.at_us < before_us, ~_has_slices()))
        await connection.execute(delete(login_links).where(login_links.c.expires_at_us < before_us))
        # Marks and closed memberships only matter for broadcasts that are still there.
        given = await connection.scalar(select(leases.c.broadcast_seq).where(leases.c.name == LANE)) or 0
        first = await connection.scalar(select(func.min(broadcasts.c.seq))) or given + 1
        await connection.execute(delete(watermarks).where(watermarks.c.through_seq < first))
        await connection.execute(delete(subscriptions).where(subscriptions.c.until_seq <= first))

    # ------------------------------------------------------------ the log's days (PostgreSQL)

    async def prepare_log_days(self, now_us: int) -> None:
        """PostgreSQL: create the log's day partitions ahead. SQLite: nothing."""
        if self._db.sqlite:
            return
        today = now_us // DAY_US
        for day in range(today, today + DAYS_AHEAD + 1):
            await self._db.write(_create_day, day)

    async def _drop_log_days(self, before_us: int) -> int:
        if self._db.sqlite:
            return 0
        days = text(
            "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
            "WHERE i.inhparent = 'log'::regclass AND c.relname ~ '^log_part_[0-9]{8}$' ORDER BY c.relname"
        )
        async with self._db.read() as connection:
            names = list((await connection.scalars(days)).all())
        removed = 0
        for name in names:
            ends = datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)
            if int(ends.timestamp()) * 1_000_000 <= before_us:
                removed += await self._db.write(_drop_day, name)
        return removed


def _has_slices() -> Any:
    return select(slices.c.event_id).where(slices.c.event_id == retractions.c.event_id).exists()


async def _create_day(connection: AsyncConnection, day: int) -> None:
    """One day's partition. Rows of that day which fell into the default one move along."""
    name = f"log_part_{datetime.fromtimestamp(day * 86_400, UTC):%Y%m%d}"
    await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _DAYS_LOCK})
    if await connection.scalar(text("SELECT to_regclass(:name)"), {"name": name}) is not None:
        return
    first, last = day * DAY_US, (day + 1) * DAY_US
    await connection.execute(text("LOCK TABLE log_part_default IN ACCESS EXCLUSIVE MODE"))
    await connection.execute(text(f"CREATE TABLE {name} (LIKE log INCLUDING ALL)"))
    await connection.execute(
        text(
            "WITH moved AS (DELETE FROM log_part_default WHERE at_us >= :first AND at_us < :last RETURNING *) "  # noqa: S608
            f"INSERT INTO {name} SELECT * FROM moved"
        ),
        {"first": first, "last": last},
    )
    await connection.execute(
        text(f"ALTER TABLE log ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({last})")
    )


async def _drop_day(connection: AsyncConnection, name: str) -> int:
    rows = await connection.scalar(text(f"SELECT count(*) FROM {name}"))  # noqa: S608  (a name of ours)
    await connection.execute(text(f"DROP TABLE {name}"))
    return int(rows or 0)
