"""The schema's version: migrating to it, and refusing to work with one that does not fit.

A schema of version N serves programs of version N and N-1: migrate first, then replace programs one by one. Migrations
run one at a time between processes (the write lock on SQLite, an advisory lock on PostgreSQL); repeating one is free.
"""

from pathlib import Path
from typing import Final

from sqlalchemy import Connection, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.tables import settings
from hub.errors import SchemaMismatch

SCHEMA_VERSION: Final = 2
MIGRATIONS: Final = Path(__file__).parent / "migrations"
_LOCK: Final = 0x636C6172696F6E  # "clarion"


class Schema(Part):
    """Checks and brings about the schema."""

    async def check_schema(self) -> None:
        """Raises `SchemaMismatch` with a sentence (N and N-1 are served), `StoreUnavailable` when it is away."""
        async with self._db.read() as connection:
            found = await _version(connection)
        if found < SCHEMA_VERSION:
            state = f"has schema version {found}" if found else "has no tables yet"
            raise SchemaMismatch(
                f"The database {state}, this program needs {SCHEMA_VERSION}: run `clarion migrate`."
            )
        if found > SCHEMA_VERSION + 1:
            raise SchemaMismatch(
                f"The database has schema version {found}, this program knows {SCHEMA_VERSION} and serves one newer: "
                "install a newer Clarion."
            )

    async def migrate(self) -> None:
        """Bring the schema to this program's version. A newer one stays as it is."""
        await self._db.write(self._migrate)

    async def _migrate(self, connection: AsyncConnection) -> None:
        if not self._db.sqlite:
            await connection.execute(
                text("SET LOCAL lock_timeout = 0")
            )  # another one's migration may take long
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if await _version(connection) < SCHEMA_VERSION:
            await connection.run_sync(_upgrade)


async def _version(connection: AsyncConnection) -> int:
    if not await connection.run_sync(lambda sync: inspect(sync).has_table("settings")):
        return 0
    found = await connection.scalar(select(settings.c.value).where(settings.c.name == "schema"))
    return int(found or 0)


def _upgrade(connection: Connection) -> None:
    from alembic import command  # a quarter of a second that only this needs
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
