"""The schema: the migrations are its only source, it fits the tables, and a wrong one is refused with a sentence."""

import asyncio
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from hub.adapters.sql_store import SqlStore, migrate
from hub.adapters.sql_store.schema import MIGRATIONS, SCHEMA_VERSION
from hub.adapters.sql_store.tables import METADATA
from hub.errors import SchemaMismatch

pytestmark = pytest.mark.req("R33")


def _differences(connection: Connection) -> list[Any]:
    def ours(_object: object, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:
        return kind != "table" or (name != "alembic_version" and "_part_" not in (name or ""))

    context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": ours})
    return list(compare_metadata(context, METADATA))


def _keys_and_conditions(connection: Connection) -> set[tuple[str, ...]]:
    """What the comparison does not see: primary keys and the conditions of partial indexes."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(
            text("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'alembic_version'")
        )
        return {tuple(row.sql.replace('"', "").split()) for row in rows}
    rows = connection.execute(
        text(
            "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' "
            "AND tablename NOT LIKE '%\\_part\\_%' AND tablename != 'alembic_version'"
        )
    )
    return {tuple(row.indexdef.split()) for row in rows}


async def test_the_migrated_tables_are_the_ones_that_the_code_knows(store: SqlStore) -> None:
    async with store._db.read() as connection:
        assert await connection.run_sync(_differences) == []


async def test_keys_and_partial_indexes_are_the_ones_that_the_code_knows(database_url: str) -> None:
    migrated = SqlStore(database_url)
    await migrated.migrate()
    async with migrated._db.read() as connection:
        found = await connection.run_sync(_keys_and_conditions)

    async def create_anew(connection: Any) -> set[tuple[str, ...]]:
        for table in reversed(METADATA.sorted_tables):
            await connection.execute(
                text(
                    f"DROP TABLE {table.name} CASCADE"
                    if not migrated._db.sqlite
                    else f"DROP TABLE {table.name}"
                )
            )
        await connection.run_sync(METADATA.create_all)
        return await connection.run_sync(_keys_and_conditions)

    assert found == await migrated._db.write(create_anew)
    assert len(found) > 20
    await migrated.close()


async def test_an_empty_database_is_refused_until_it_is_migrated(database_url: str) -> None:
    store = SqlStore(database_url)
    with pytest.raises(SchemaMismatch, match=r"has no tables yet.*run `clarion migrate`"):
        await store.check_schema()
    await store.migrate()
    await store.check_schema()
    await store.close()


async def test_a_schema_serves_this_program_and_the_one_before(store: SqlStore) -> None:
    async def pretend(connection: Any, version: int) -> None:
        await connection.execute(text(f"UPDATE settings SET value = '{version}' WHERE name = 'schema'"))

    await store._db.write(pretend, SCHEMA_VERSION + 1)
    await store.check_schema()
    await store.migrate()  # a newer schema stays as it is
    await store._db.write(pretend, SCHEMA_VERSION + 2)
    with pytest.raises(SchemaMismatch, match="install a newer Clarion"):
        await store.check_schema()
    await store._db.write(pretend, SCHEMA_VERSION - 1)
    with pytest.raises(SchemaMismatch, match="run `clarion migrate`"):
        await store.check_schema()


async def test_several_migrate_at_once_and_one_does_it(database_url: str) -> None:
    await asyncio.gather(*(migrate(database_url) for _ in range(4)))
    store = SqlStore(database_url)
    await store.check_schema()
    assert await store.setting("schema", "?") == str(SCHEMA_VERSION)
    await store.close()


async def test_big_tables_are_partitioned_on_postgresql(postgres_url: str) -> None:
    await migrate(postgres_url)
    store = SqlStore(postgres_url)
    await store.prepare_log_days(0)
    async with store._db.read() as connection:
        rows = await connection.execute(
            text("SELECT inhparent::regclass::text AS parent, count(*) AS parts FROM pg_inherits i "
                 "JOIN pg_class c ON c.oid = i.inhparent WHERE c.relkind = 'p' GROUP BY 1")
        )  # fmt: skip
        assert {row.parent: row.parts for row in rows} == {"notifications": 8, "deliveries": 8, "log": 5}
    await store.close()


def test_migrations_lie_inside_the_package() -> None:
    assert (MIGRATIONS / "env.py").is_file()
    assert (MIGRATIONS / "script.py.mako").is_file()
    found = sorted(path.name for path in (MIGRATIONS / "versions").glob("*.py"))
    assert found == ["0001_first.py", "0002_backfill.py"]
