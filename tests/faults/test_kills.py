"""`kill -9` of everything at random moments: what got a 202 is one notification for each recipient, in order."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, Listener, running_cluster
from tests.support.processes import eventually

USERS = [f"user{number}" for number in range(6)]
ROUNDS = int(os.environ.get("KILL_ROUNDS", "2"))  # `make faults` asks for more
KILLS = 8
EVENTS = 40


async def _publish_all(cluster: Cluster, sent: dict[str, list[str]]) -> None:
    """Each user has a publisher of their own, so that the order of 202s is the order of events."""

    async def addressed(user: str) -> None:
        for number in range(EVENTS):
            title = f"{user} {number}"
            await cluster.publish_surely(title, {"to": [user, "everybody"], "title": title})
            sent[user].append(title)

    async def broadcasts() -> None:
        for number in range(EVENTS):
            title = f"all {number}"
            await cluster.publish_surely(title, {"to": {"everyone": True}, "title": title})
            sent["*"].append(title)

    await asyncio.gather(*(addressed(user) for user in USERS), broadcasts())


async def _kill_at_random(cluster: Cluster, chance: random.Random) -> list[str]:
    killed = []
    for _ in range(KILLS):
        await asyncio.sleep(chance.uniform(0.05, 0.6))
        victim = chance.choice(["node", "generate", "valkey"])
        killed.append(victim)
        if victim == "valkey":
            await cluster.valkey.kill()
            await asyncio.sleep(chance.uniform(0, 0.3))
            await cluster.valkey.start()
        else:
            member = cluster.nodes[0] if victim == "node" else cluster.generators[0]
            await member.kill()
            await member.start()
    return killed


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.req("R27", "I1", "I3", "I4", "I5")
@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_kills_at_random_lose_and_repeat_nothing(tmp_path: Path, database_url: str, seed: int) -> None:
    sent: dict[str, list[str]] = {user: [] for user in [*USERS, "*"]}
    async with running_cluster(tmp_path / "data", database_url) as cluster:
        listeners = {user: Listener(cluster, user) for user in USERS}
        try:
            for listener in listeners.values():
                await asyncio.wait_for(listener.connected.wait(), 20)
            killing = asyncio.create_task(_kill_at_random(cluster, random.Random(seed)))
            await _publish_all(cluster, sent)
            print("killed:", await killing)
            await cluster.drained()

            for user in USERS:
                await _check_inbox(cluster, user, sent)
            everybody = [row["title"] for row in await cluster.inbox("everybody") if row["title"][0] == "u"]
            assert sorted(everybody) == sorted(title for user in USERS for title in sent[user])
            for user in USERS:
                assert [title for title in everybody if title.startswith(f"{user} ")] == sent[user]
            assert await cluster.ledger() == []
            for user, listener in listeners.items():
                await _check_live(user, listener, sent)
        finally:
            for listener in listeners.values():
                await listener.close()


async def _check_inbox(cluster: Cluster, user: str, sent: dict[str, list[str]]) -> None:
    rows = await cluster.inbox(user)
    assert [row["title"] for row in rows if row["title"].startswith(user)] == sent[user]
    assert [row["title"] for row in rows if row["title"].startswith("all")] == sent["*"]
    for row in rows[:: max(1, len(rows) // 5)]:
        report = await cluster.call("GET", f"/v1/events/{row['event']}")
        assert report["status"] == "generated"
        assert report["recipients"] == report["in_app"] + report["suppressed"] + report["rejected"]
        page = await cluster.call("GET", "/v1/log", params={"event": row["event"], "state": "generated"})
        assert len(page["entries"]) == report["recipients"]


async def _check_live(user: str, listener: Listener, sent: dict[str, list[str]]) -> None:
    """Everything came live, in order and once, unless the client was told to fetch the inbox again."""
    for prefix, titles in ((user, sent[user]), ("all", sent["*"])):

        def got(prefix: str = prefix) -> list[str]:
            return [title for title in listener.titles if title.startswith(prefix)]

        if listener.gaps:
            assert sorted(set(got()), key=titles.index) == list(dict.fromkeys(got()))
        else:
            await eventually(
                lambda got=got, titles=titles: got() == titles, 15, f"{user} got {prefix}: {got()}"
            )
