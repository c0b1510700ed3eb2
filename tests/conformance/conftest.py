"""The stores that the port's suite runs against: in memory, on a SQLite file, on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from hub.adapters.sql_store import SqlStore, migrate
from tests.support.postgres import PostgresServer
from tests.support.stores import Partition


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """A migrated database to copy: migrating one for each test would take most of the time."""
    name = postgres_server.create_database()
    asyncio.run(migrate(postgres_server.url(name)))
    return name


@pytest.fixture
def migrated_postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    name = postgres_server.create_database(postgres_template)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The test runs on each kind; on PostgreSQL the tables are there already."""
    if request.param == "memory":
        return "sqlite://"
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "migrated_postgres_url")
    return url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[SqlStore]:
    """An empty store."""
    opened = SqlStore(store_url)
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
async def partition(store: SqlStore) -> Partition:
    return await Partition.take(store)


@pytest.fixture
async def lane(store: SqlStore) -> Partition:
    return await Partition.take(store, "lane")
