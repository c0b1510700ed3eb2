"""`kill -9` of everything at random moments: what got a 202 is one notification for each recipient, in order."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster import Cluster, Member, running_cluster
from tests.support.listener import Listener, listening
from tests.support.processes import eventually

USERS = [f"user{number}" for number in range(6)]
ROUNDS = int(os.environ.get("KILL_ROUNDS", "1"))  # `make faults` asks for more
KILLS = int(os.environ.get("KILL_COUNT", "5"))
PAUSE_SECONDS = (
    0.08  # between two events of a publisher: slow enough that no history overflows while a node is down
)


class Backend:
    """Publishes until it is told to stop, one publisher a user, so that the order of 202s is the order of events."""

    def __init__(self, cluster: Cluster) -> None:
        self.sent: dict[str, list[str]] = {user: [] for user in [*USERS, "*"]}
        self.retracted: dict[str, str] = {}  # event ids by title
        self.read: dict[str, set[str]] = {user: set() for user in USERS}
        self._cluster = cluster
        self._over = asyncio.Event()

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publish during the block; what was begun is finished."""
        async with asyncio.TaskGroup() as tasks:
            for number, user in enumerate(USERS):
                tasks.create_task(self._say(user, [user, "everybody"], number))
            tasks.create_task(self._say("*", {"everyone": True}, 0))
            tasks.create_task(self._regret())
            tasks.create_task(self._mark(USERS[0]))
            try:
                yield
            finally:
                self._over.set()

    async def _say(self, name: str, to: Any, node: int) -> None:
        while not self._over.is_set():
            title = f"{name} {len(self.sent[name])}"
            await self._cluster.publish_surely(title, {"to": to, "title": title}, node)
            self.sent[name].append(title)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _regret(self) -> None:
        """Events that are taken back at once, while they wait or when they are out."""
        while not self._over.is_set():
            title = f"gone {len(self.retracted)}"
            event_id = await self._cluster.publish_surely(title, {"to": USERS, "title": title})
            await asyncio.sleep(random.uniform(0, 0.4))
            await self._cluster.call_surely("DELETE", f"/v1/events/{event_id}")
            self.retracted[title] = event_id

    async def _mark(self, user: str) -> None:
        """A user who reads now and then."""
        headers = self._cluster.as_user(user)
        while not self._over.is_set():
            page = await self._cluster.call_surely("GET", "/v1/me/notifications?limit=3", headers=headers)
            ids = [row["id"] for row in page["notifications"] if not row["title"].startswith("gone")]
            if ids:
                body = {"mark": "read", "ids": ids}
                await self._cluster.call_surely(
                    "POST", "/v1/me/notifications/marks", json=body, headers=headers
                )
                self.read[user].update(ids)
            await asyncio.sleep(0.3)


async def _kill_at_random(cluster: Cluster, chance: random.Random) -> None:
    """Everything falls at least once, in some order; each comes back after a moment, and others may fall meanwhile."""
    everyone: list[Member | None] = [*cluster.members, None]  # None: Valkey
    victims = [*everyone, *chance.choices(everyone, k=max(0, KILLS - len(everyone)))]
    chance.shuffle(victims)
    killed = []
    async with asyncio.TaskGroup() as tasks:
        away: dict[Member | None, asyncio.Task[None]] = {}
        for victim in victims:
            await asyncio.sleep(chance.uniform(0.1, 1.5))
            if victim in away:
                await away[victim]
            killed.append(victim.log.stem if victim else "valkey")
            away[victim] = tasks.create_task(_fall(cluster, victim, chance.uniform(0, 0.4)))
    print("killed:", killed)


async def _fall(cluster: Cluster, victim: Member | None, seconds: float) -> None:
    await (victim or cluster.valkey).kill()
    await asyncio.sleep(seconds)
    await (victim or cluster.valkey).start()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.req("R27", "I1", "I3", "I4", "I5")
@pytest.mark.parametrize("pairs", [1, 2], ids=["one of each", "two of each"])
@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_kills_at_random_lose_and_repeat_nothing(
    tmp_path: Path, database_url: str, seed: int, pairs: int
) -> None:
    async with (
        running_cluster(tmp_path / "data", database_url, nodes=pairs, generators=pairs) as cluster,
        listening(cluster, *USERS) as listeners,
    ):
        backend = Backend(cluster)
        async with backend.publishing():
            await _kill_at_random(cluster, random.Random(seed))
        await cluster.drained()
        print("events:", {name: len(titles) for name, titles in backend.sent.items()})

        for user in USERS:
            await _check_inbox(cluster, user, backend)
        await _check_everybody(cluster, backend.sent)
        for event_id in backend.retracted.values():
            assert (await cluster.call("GET", f"/v1/events/{event_id}"))["status"] == "retracted"
        assert await cluster.ledger() == []
        for listener in listeners.values():
            await _check_live(listener, backend.sent)
            await _check_taken_back(listener)


async def _check_inbox(cluster: Cluster, user: str, backend: Backend) -> None:
    rows = await cluster.inbox(user)
    titles = [row["title"] for row in rows]
    assert [title for title in titles if title.startswith(user)] == backend.sent[user]
    assert [title for title in titles if title.startswith("*")] == backend.sent["*"]
    assert not set(titles) & backend.retracted.keys()
    assert backend.read[user] <= {row["id"] for row in rows if row["read_at"] is not None}
    for row in rows[:: max(1, len(rows) // 5)]:
        report = await cluster.call("GET", f"/v1/events/{row['event']}")
        assert report["status"] == "generated"
        assert report["recipients"] == report["in_app"] + report["suppressed"] + report["rejected"]
        page = await cluster.call("GET", "/v1/log", params={"event": row["event"], "state": "generated"})
        assert len(page["entries"]) == report["recipients"]


async def _check_everybody(cluster: Cluster, sent: dict[str, list[str]]) -> None:
    """One user whom all publishers address."""
    titles = await cluster.titles("everybody")
    assert sorted(titles) == sorted(title for name in sent for title in sent[name])
    for name, told in sent.items():
        assert [title for title in titles if title.split()[0] == name] == told


async def _check_live(listener: Listener, sent: dict[str, list[str]]) -> None:
    """Everything came live, in order and once. Only who was away for more than history holds missed some, and was told."""
    for name in (listener.user, "*"):

        def got(name: str = name) -> list[str]:
            return [title for title in listener.titles if title.split()[0] == name]

        await eventually(
            lambda got=got, name=name: got()[-1:] == sent[name][-1:], 15, f"{listener.user} got {got()}"
        )
        if listener.gaps:
            print(f"{listener.user} was told of a gap: {len(got())} of {len(sent[name])}")
            assert got() == [title for title in sent[name] if title in set(got())]
        else:
            assert got() == sent[name]


async def _check_taken_back(listener: Listener) -> None:
    """What a page was shown and is retracted, it was told to take away."""

    def still_shown() -> set[str]:
        shown: set[str] = set()
        for one in listener.heard:
            if one.kind == "notification" and one.data["notification"]["title"].startswith("gone"):
                shown.add(one.data["notification"]["id"])
            elif one.kind == "retracted":
                shown -= set(one.data["ids"])
        return shown

    if not listener.gaps:
        await eventually(lambda: not still_shown(), 10, f"{listener.user} still sees {still_shown()}")
