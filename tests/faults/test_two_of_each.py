"""Two nodes and two generators on one Redis: users on either node get everything, whatever becomes of a generator."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Member, running_cluster
from tests.support.listener import listening
from tests.support.processes import eventually
from tests.support.traffic import USERS, Traffic, longest_silence

TAKEOVER_SECONDS = 10.0


async def _thaw_after_takeover(cluster: Cluster, frozen: Member, other: Member) -> None:
    """Freeze a generator until the other owns everything."""
    frozen.signal(signal.SIGSTOP)
    await cluster.wait_for_owners(other)
    await asyncio.sleep(1.0)  # the other works on them
    frozen.signal(signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.req("R3", "R15", "R22", "R27", "I3", "I4")
async def test_partitions_are_shared_and_move_when_a_generator_freezes_or_dies(
    tmp_path: Path, database_url: str
) -> None:
    async with (
        running_cluster(tmp_path / "data", database_url, nodes=2, generators=2) as cluster,
        listening(cluster, *USERS) as listeners,
    ):
        first, second = cluster.generators
        await cluster.wait_for_owners(first, second)
        traffic = Traffic(cluster)
        async with traffic.flowing():
            await _thaw_after_takeover(cluster, first, second)
            await eventually(lambda: "was lost to another process" in first.log.read_text(), 15)
            await cluster.wait_for_owners(first, second)

            began = time.monotonic()
            await second.kill()
            await cluster.wait_for_owners(first)
            await asyncio.sleep(2.0)
        await traffic.check(listeners)
        silences = {
            (user, name): longest_silence(listener, name, began)
            for user, listener in listeners.items()
            for name in (user, "*")
        }
        print("longest silence after the kill:", max(silences.values()))
        assert max(silences.values()) < TAKEOVER_SECONDS


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.req("R22")
async def test_a_generator_that_comes_gets_its_share_at_work(tmp_path: Path, sqlite_url: str) -> None:
    """Handing over a partition in the middle of the traffic repeats and loses nothing."""
    async with (
        running_cluster(tmp_path / "data", sqlite_url, nodes=2, generators=2, asleep=True) as cluster,
        listening(cluster, *USERS) as listeners,
    ):
        first, second = cluster.generators
        await first.start()
        await cluster.wait_for_owners(first)
        traffic = Traffic(cluster, pause_seconds=0.02)
        async with traffic.flowing():
            await second.start()
            await cluster.wait_for_owners(first, second)
            await asyncio.sleep(0.5)
            assert await second.terminate() == 0
            # It gave them back itself: nobody waited for its leases to lapse.
            await cluster.wait_for_owners(first, timeout_seconds=4.0)
        await traffic.check(listeners)
