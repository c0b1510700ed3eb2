"""SIGTERM drains: what was accepted is kept, and clients are told to come back, spread out."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.support.cluster import running_cluster
from tests.support.listener import listening
from tests.support.processes import eventually
from tests.support.traffic import USERS, Traffic


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.req("I15", "R22")
async def test_a_rolling_restart_under_load_loses_nothing(tmp_path: Path, database_url: str) -> None:
    async with (
        running_cluster(tmp_path / "data", database_url, nodes=2, generators=2) as cluster,
        listening(cluster, *USERS) as listeners,
    ):
        traffic = Traffic(cluster, pause_seconds=0.03)
        async with traffic.flowing():
            for member in cluster.members:
                await asyncio.sleep(0.5)
                began = time.monotonic()
                assert await member.terminate() == 0, cluster.logs()
                print(f"{member.log.stem} ended after {time.monotonic() - began:.2f} s")
                await member.start()
        await traffic.check(listeners)
        for listener in listeners.values():
            told = [one.data["reason"] for one in listener.of_kind("reconnect")]
            assert told == ["shutdown"]
            assert listener.connects == 2


@pytest.mark.req("I15")
async def test_a_second_signal_or_a_stuck_client_does_not_hold_up_the_end(
    tmp_path: Path, sqlite_url: str
) -> None:
    async with running_cluster(tmp_path / "data", sqlite_url) as cluster:
        node = cluster.nodes[0]
        # A client that takes the head of a stream and then never reads again.
        assert node.port
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port, limit=1024)
        head = f"GET /v1/me/stream?token={cluster.token('alice')} HTTP/1.1\r\nHost: hub\r\n\r\n"
        writer.write(head.encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await cluster.publish_many([{"to": "alice", "title": "x" * 900} for _ in range(200)])
        await cluster.drained()
        began = time.monotonic()
        node.signal(signal.SIGTERM)
        await asyncio.sleep(0.05)
        assert await node.terminate() == 0
        assert time.monotonic() - began < 30  # it would be held up for ever
        await eventually(lambda: node.process and node.process.returncode == 0)
        writer.transport.abort()
