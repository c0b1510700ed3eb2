"""What must not happen beside a generator's commit waits for it here."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.tables import leases


async def hold_commits(db: Database, connection: AsyncConnection) -> None:
    """Wait for running commits and keep new ones out until this transaction ends.

    A commit holds its lease's row. Whoever retracts or erases takes all of them first, so that a batch planned
    before is either stored already, and seen here, or commits afterwards, and sees what was done here.
    """
    if not db.sqlite:  # SQLite has one writer at a time anyway
        await connection.execute(select(leases.c.name).order_by(leases.c.name).with_for_update())
