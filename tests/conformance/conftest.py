"""The stores that the port's suite runs against: in memory, on a SQLite file, on PostgreSQL."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.adapters.sql_store import SqlStore, migrate
from tests.support.stores import Partition


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "clarion.db"
    asyncio.run(migrate(f"sqlite:///{path}"))
    return path


@pytest.fixture
def migrated_sqlite_url(sqlite_url: str, sqlite_template: Path) -> str:
    shutil.copy(sqlite_template, sqlite_url.removeprefix("sqlite:///"))
    return sqlite_url


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The test runs on each kind; in files and on PostgreSQL the tables are there already."""
    if request.param == "memory":
        return "sqlite://"
    url: str = request.getfixturevalue(f"migrated_{request.param}_url")
    return url


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[SqlStore]:
    """An empty store."""
    opened = SqlStore(store_url)
    if store_url == "sqlite://":
        await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
async def partition(store: SqlStore) -> Partition:
    return await Partition.take(store)


@pytest.fixture
async def lane(store: SqlStore) -> Partition:
    return await Partition.take(store, "lane")
