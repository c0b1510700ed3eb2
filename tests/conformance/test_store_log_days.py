"""PostgreSQL's days of the log: one that begins while others write must not cost them their transaction."""

import asyncio

import pytest
from sqlalchemy import text

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.operations import _create_day
from hub.ports import LogEntry, LogQuery
from tests.support.stores import NOW_US

DAY_US = 86_400_000_000


@pytest.mark.req("R20", "R22")
async def test_a_day_that_begins_while_the_log_is_written_costs_nobody_anything(
    migrated_postgresql_url: str,
) -> None:
    store = SqlStore(migrated_postgresql_url)
    try:
        async with store._db._writer.begin() as connection:
            await _create_day(connection, NOW_US // DAY_US)
            # Not committed yet: the row still goes to the default partition, and waits for its lock.
            writing = asyncio.create_task(store.write_log([LogEntry(NOW_US, "seen", "evt_1", "alice")]))
            # Not pg_stat_activity: a transaction sees that view as it was at its first look.
            waiting = text(
                "SELECT count(*) FROM pg_locks WHERE NOT granted "
                "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            async with asyncio.timeout(10):
                while not await connection.scalar(waiting):
                    await asyncio.sleep(0.01)
        await writing
        assert [entry.state for entry in await store.log(LogQuery(limit=10))] == ["seen"]
    finally:
        await store.close()
