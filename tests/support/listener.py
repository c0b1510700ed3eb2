"""An EventSource that reconnects for ever and keeps what it heard, with the moment of each event."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx2

from tests.support.cluster import READY_SECONDS, Cluster

QUIET_SECONDS = 40.0  # heartbeats come every 15 s


class Heard(NamedTuple):
    """One server-sent event: when it came (monotonic seconds), its name and its data."""

    at: float
    kind: str
    data: dict[str, Any]


class Listener:
    """An EventSource: reconnects with its last id for ever and keeps what it hears."""

    def __init__(self, cluster: Cluster, user: str, node: int = 0) -> None:
        self.user = user
        self.heard: list[Heard] = []
        self.connects = 0
        self.connected = asyncio.Event()
        self.paused = False  # stay away after the next loss
        self.cursor: str | None = None
        self._cluster = cluster
        self._node = node
        self._task = asyncio.create_task(self._run())

    @property
    def titles(self) -> list[str]:
        """The titles of the notifications that came, in order."""
        return [one.data["notification"]["title"] for one in self.heard if one.kind == "notification"]

    def of_kind(self, kind: str) -> list[Heard]:
        """What came under one name."""
        return [one for one in self.heard if one.kind == kind]

    @property
    def gaps(self) -> int:
        """How often it was told to fetch the inbox."""
        return len(self.of_kind("gap"))

    async def _run(self) -> None:
        while True:
            if not self.paused:
                try:
                    await self._once()
                except httpx2.HTTPError:
                    pass
                self.connected.clear()
            await asyncio.sleep(0.1)

    async def _once(self) -> None:
        headers = self._cluster.as_user(self.user)
        if self.cursor:
            headers["Last-Event-ID"] = self.cursor
        url = self._cluster.nodes[self._node].url + "/v1/me/stream"
        patience = httpx2.Timeout(10.0, read=QUIET_SECONDS)
        async with self._cluster.client.stream("GET", url, headers=headers, timeout=patience) as response:
            if response.status_code != 200:
                return
            self.connects += 1
            fields: dict[str, str] = {}
            async for line in response.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                    continue
                # Only a whole event counts, its id too: what was cut off comes again after the reconnect.
                self.cursor = fields.get("id", self.cursor)
                if "data" in fields:
                    self._take(fields["event"], json.loads(fields["data"]))
                fields = {}

    def _take(self, kind: str, data: dict[str, Any]) -> None:
        self.heard.append(Heard(time.monotonic(), kind, data))
        if kind == "ready":
            self.connected.set()

    async def close(self) -> None:
        """Go away."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def listening(
    cluster: Cluster, *users: str, node: int | None = None
) -> AsyncIterator[dict[str, Listener]]:
    """A connected EventSource for each user, spread over the nodes unless one is given."""
    listeners = {
        user: Listener(cluster, user, number % len(cluster.nodes) if node is None else node)
        for number, user in enumerate(users)
    }
    try:
        for listener in listeners.values():
            await asyncio.wait_for(listener.connected.wait(), READY_SECONDS)
        yield listeners
    finally:
        for listener in listeners.values():
            await listener.close()
