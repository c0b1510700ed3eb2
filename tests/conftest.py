"""What every test may use: real servers, one of each for the whole run, and a clean corner of them for each test.

valkey            the running server (`.url`); `redis_url` is its address
redis_prefix      a key prefix of this test alone; keys under it that stay for ever fail the test
own_valkey        a server of this test alone, to be killed, frozen or wiped
postgres_url      a fresh, empty PostgreSQL database; `migrated_postgresql_url` has the tables already
sqlite_url        a fresh SQLite file
database_url      both of them, one after the other
clock             a clock that the test moves
free_port         a TCP port on the loopback
chromium          the path of a Chromium, for Playwright's `executable_path`
firefox           the path of a Firefox
node              the path of Node; the SDK under test is installed in tests/e2e/js
"""

import asyncio
import compileall
import inspect
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest
from redis.asyncio import Redis

from hub import supervisor
from hub.adapters.embedded_valkey import EmbeddedValkey
from hub.adapters.sql_store import migrate
from tests.support.browser import find_chromium, find_firefox
from tests.support.clock import FakeClock
from tests.support.postgres import PostgresServer
from tests.support.redis_keys import stray_keys

ROOT = Path(__file__).parents[1]
JS_FOLDER = ROOT / "tests" / "e2e" / "js"
TASK_GRACE_SECONDS = 1.0
_numbers = count(1)


def pytest_sessionstart() -> None:
    """Compile our own packages: where Python is told to keep no bytecode, each process of a test would do it again.

    And hear Ctrl-C.
    """
    for package in ("hub", "workers", "web"):
        compileall.compile_dir(ROOT / package, quiet=2)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Begun in the background of a script: commands under test would inherit that, and never hear Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def free_port() -> int:
    """A TCP port on the loopback that nobody used a moment ago."""
    return supervisor.free_port()


# ---------------------------------------------------------------- Valkey


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(server.start())
        yield server
        runner.run(server.stop())


@pytest.fixture
def redis_url(valkey: EmbeddedValkey) -> str:
    return valkey.url


@pytest.fixture
async def redis_prefix(valkey: EmbeddedValkey) -> AsyncIterator[str]:
    prefix = f"test{os.getpid()}-{next(_numbers)}"
    yield prefix
    async with Redis.from_url(valkey.url) as client:
        stray = await stray_keys(client, prefix)
        if keys := [key async for key in client.scan_iter(match=f"{prefix}:*", count=1_000)]:
            await client.unlink(*keys)
    assert not stray, f"keys that never expire and are not listed in tests/support/redis_keys.py: {stray}"


@pytest.fixture
async def own_valkey(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    """Killed or stopped by the test or not, it is gone afterwards."""
    server = EmbeddedValkey(tmp_path / "own-valkey")
    await server.start()
    yield server
    await server.stop()


# ---------------------------------------------------------------- databases


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """A migrated database to copy: migrating one for each test would take most of the time."""
    name = postgres_server.create_database()
    asyncio.run(migrate(postgres_server.url(name)))
    return name


@pytest.fixture
def migrated_postgresql_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    name = postgres_server.create_database(postgres_template)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'clarion.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The test runs twice: on SQLite and on PostgreSQL."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


# ---------------------------------------------------------------- browsers and Node


@pytest.fixture(scope="session")
def chromium() -> str:
    return find_chromium() or pytest.skip("no Chromium; set CLARION_TEST_CHROMIUM or install one")


@pytest.fixture(scope="session")
def firefox() -> str:
    return find_firefox() or pytest.skip("no Firefox; set CLARION_TEST_FIREFOX or install one")


@pytest.fixture(scope="session")
def node() -> str:
    """Node with `tests/e2e/js/node_modules` installed by `make test`; run programs with that folder as `cwd`."""
    path = shutil.which("node", path=f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}")
    if path is None or not (JS_FOLDER / "node_modules" / "centrifuge").is_dir():
        pytest.skip("no Node, or its packages are missing; run make test")
    return path


# ---------------------------------------------------------------- guards


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Fails a test that leaves tasks running behind it; each async test uses it."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=TASK_GRACE_SECONDS)
    assert not (running := [task for task in left if not task.done()]), f"tasks still run: {running}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(inspect.unwrap(item.function)):
            item.fixturenames.insert(0, "no_task_left")  # first in, last out


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Under CI=true nothing is skipped: a skip would hide that a promise was not tested."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped under CI=true: {report.longrepr}"
