"""Somebody's open app: one live connection (SSE), and what it shows."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import httpx2

from hub.demo.deployment import Deployment, StoryFailed

OPEN_SECONDS: Final = 20.0


class OpenApp:
    """What an app in front of its user has shown."""

    def __init__(self, hub: Deployment, user: str) -> None:
        self._hub = hub
        self._user = user
        self.shown: list[dict[str, Any]] = []  # notifications, oldest first
        self._ready = asyncio.Event()
        self._more = asyncio.Event()

    async def shows(self, title: str, seconds: float = OPEN_SECONDS) -> bool:
        """Wait until a notification with this in its title is shown; False: it was not within that time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.has(title):
                    self._more.clear()
                    await self._more.wait()
        return self.has(title)

    def has(self, title: str) -> bool:
        """Whether a notification with this in its title was shown."""
        return any(title in one["title"] for one in self.shown)

    async def follow(self) -> None:
        """Read the stream until cancelled."""
        try:
            async with self._hub.stream(self._user) as answer:
                kind = ""
                async for line in answer.aiter_lines():
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data":
                        self._take(kind, json.loads(value))
        except httpx2.HTTPError as error:
            raise StoryFailed(f"the app of {self._user} lost its connection: {error}.") from None

    async def ready(self) -> None:
        """Return when the connection stands."""
        async with asyncio.timeout(OPEN_SECONDS):
            await self._ready.wait()

    def _take(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "ready":
            self._ready.set()
        elif kind == "notification":
            self.shown.append(data["notification"])
            self._more.set()


@asynccontextmanager
async def opened_app(hub: Deployment, user: str) -> AsyncIterator[OpenApp]:
    """An app that is open meanwhile."""
    app = OpenApp(hub, user)
    task = asyncio.create_task(app.follow())
    try:
        await app.ready()
        yield app
    except TimeoutError:
        raise StoryFailed(f"the app of {user} did not connect.") from None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
