"""The test bench itself: guards that can fail, servers that are real."""

import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis

from hub.adapters.embedded_valkey import EmbeddedValkey
from tests.support.clock import FakeClock
from tests.support.redis_keys import stray_keys

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLE = """
import asyncio
import pytest
async def test_leaves_a_task():
    global task
    task = asyncio.create_task(asyncio.sleep(60))
async def test_is_tidy():
    task = asyncio.create_task(asyncio.sleep(60))
    task.cancel()
def test_skips():
    pytest.skip("no browser here")
@pytest.mark.req("R1")
@pytest.mark.xfail(reason="known", strict=True)
def test_is_known_to_fail():
    assert False
"""


@pytest.mark.parametrize(
    ("ci", "wanted"),
    [("true", "1 failed, 2 passed, 1 xfailed, 1 error"), ("", "2 passed, 1 skipped, 1 xfailed, 1 error")],
)
def test_guards(tmp_path: Path, ci: str, wanted: str) -> None:
    sample = tmp_path / "test_sample.py"
    sample.write_text(SAMPLE)
    arguments = ["-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, "-p", "tests.conftest", "-p", "no:hypothesispytest", str(sample)],
        env={"PATH": "/usr/bin:/bin", "CI": ci, "PYTHONPATH": str(ROOT)}, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert wanted in done.stdout, done.stdout + done.stderr
    assert "tasks still run" in done.stdout


async def test_stray_keys_are_found(valkey: EmbeddedValkey) -> None:
    async with Redis.from_url(valkey.url) as client:
        for key in ("ingest", "{3}:queue", "{lane}:queue:total", "forgotten"):
            await client.set(f"strays:{key}", "x")
        await client.set("strays:short-lived", "x", ex=100)
        assert await stray_keys(client, "strays") == ["strays:forgotten"]
        await client.flushdb()


async def test_postgres_is_real_and_fresh(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SHOW server_version_num") >= "130000"
    assert await connection.fetchval("SHOW server_encoding") == "UTF8"
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.execute("CREATE TABLE here (id int)")
    await connection.close()


async def test_postgres_is_fresh_again(postgres_url: str) -> None:
    await test_postgres_is_real_and_fresh(postgres_url)


def test_both_databases(database_url: str) -> None:
    assert database_url.startswith(("sqlite:///", "postgresql://"))


def test_the_clock_stands_still(clock: FakeClock) -> None:
    assert clock.now_us() == clock.now_us()
    assert clock.advance(1.5) - 1_767_614_400_000_000 == 1_500_000
