"""Steady traffic to users of every partition and to everyone, and what must be true of it afterwards."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count, pairwise

from hub.model.vocabulary import partition_of
from tests.support.cluster import Cluster
from tests.support.listener import Listener
from tests.support.processes import eventually

PARTITIONS = 8  # the default


def user_of_each_partition() -> list[str]:
    """One user for every partition, in the order of partitions."""
    found: dict[int, str] = {}
    for number in count():
        found.setdefault(partition_of(f"user{number}", PARTITIONS), f"user{number}")
        if len(found) == PARTITIONS:
            return [found[partition] for partition in sorted(found)]
    raise AssertionError


USERS = user_of_each_partition()


class Traffic:
    """Ticks: one event for each user and one for everyone, accepted together, in order."""

    def __init__(self, cluster: Cluster, pause_seconds: float = 0.1) -> None:
        self.ticks = 0
        self._cluster = cluster
        self._pause_seconds = pause_seconds
        self._over = asyncio.Event()

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Publish during the block; what was begun is finished."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._over.set()
            await task

    async def _run(self) -> None:
        while not self._over.is_set():
            number = self.ticks
            events = [{"to": user, "title": f"{user} {number}"} for user in USERS]
            events.append({"to": {"everyone": True}, "title": f"* {number}"})
            headers = {"Idempotency-Key": f"tick {number}"}
            # Another node each time: one order holds for both.
            await self._cluster.call_surely("POST", "/v1/events/batch", number, json=events, headers=headers)
            self.ticks += 1
            await asyncio.sleep(self._pause_seconds)

    def expected(self, name: str) -> list[str]:
        """The titles for one user, or for everyone ("*")."""
        return [f"{name} {number}" for number in range(self.ticks)]

    async def check(self, listeners: Mapping[str, Listener]) -> None:
        """Inboxes, the live streams and the ledger hold every tick once and in order."""
        await self._cluster.drained()
        for number, user in enumerate(USERS):
            titles = await self._cluster.titles(user, number % len(self._cluster.nodes))
            for name in (user, "*"):
                assert of(name, titles) == self.expected(name)
        for listener in listeners.values():
            for name in (listener.user, "*"):
                await eventually(
                    lambda name=name, heard=listener: len(of(name, heard.titles)) >= self.ticks, 15
                )
                assert of(name, listener.titles) == self.expected(name)
            assert listener.gaps == 0
        assert await self._cluster.ledger() == []


def of(name: str, titles: list[str]) -> list[str]:
    """The titles that begin with a name."""
    return [title for title in titles if title.split()[0] == name]


def longest_silence(listener: Listener, name: str, since: float) -> float:
    """The longest time between two notifications of one kind that came after a moment, in seconds."""
    came = [since] + [
        one.at
        for one in listener.of_kind("notification")
        if one.at > since and one.data["notification"]["title"].split()[0] == name
    ]
    return max((second - first for first, second in pairwise(came)), default=float("inf"))
