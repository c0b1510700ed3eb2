"""A whole hub in one process on the in-memory adapters: publish, let the generator work, look."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from hub.config import Settings, load_settings
from hub.inbox import MarkRequest
from hub.ports import Message
from hub.wiring import Core, Hub, generator_of, memory_core, open_hub
from tests.support.clock import FakeClock
from tests.support.push_service import VAPID_KEY

SETTLE_SECONDS = 10.0


class House:
    """Everything together, driven by hand."""

    def __init__(self, core: Core, hub: Hub, clock: FakeClock) -> None:
        self.core = core
        self.hub = hub
        self.clock = clock

    async def publish(self, key: str | None = None, **event: Any) -> str:
        """Publish one event and return its id."""
        accepted = await self.hub.intake.publish(json.dumps(event).encode(), "http:test", "key_test", key)
        return accepted.id

    async def settle(self) -> None:
        """Return when no event waits any more."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while sum((await self.core.queue.waiting()).values()):
                await asyncio.sleep(0.005)

    async def say(self, **event: Any) -> str:
        """Publish and settle."""
        event_id = await self.publish(**event)
        await self.settle()
        return event_id

    async def inbox(self, user: str, **query: Any) -> list[dict[str, Any]]:
        """What a user's inbox lists, as JSON."""
        page = await self.hub.inbox.page(user, **query)
        return [_plain(row) for row in page["notifications"]]

    async def titles(self, user: str, **query: Any) -> list[str]:
        """The titles of a user's inbox, newest first."""
        return [row["title"] for row in await self.inbox(user, **query)]

    async def mark(self, user: str, mark: Any, *ids: str) -> dict[str, Any]:
        """Set a mark on ids, or on all when none are given."""
        request = MarkRequest(mark, ids=list(ids)) if ids else MarkRequest(mark, all=True)
        return await self.hub.inbox.mark(user, request)

    async def live(self, channel: str) -> list[dict[str, Any]]:
        """The payloads of a live channel's history."""
        history = await self.core.bus.history(channel, 0, None)
        return [_payload(message) for message in history.messages]


def _payload(message: Message) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads(message.payload)
    return payload


def _plain(row: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(msgspec.json.encode(row))
    return plain


@asynccontextmanager
async def open_house(clock: FakeClock, **overrides: Any) -> AsyncIterator[House]:
    """A house with its generator at work."""
    settings: Settings = load_settings(
        **{
            "api_key": "test-key-0123456789abcdef",
            "token_secret": "0123456789abcdef0123456789abcdef",
            "vapid_private_key": VAPID_KEY,
            **overrides,
        }
    )
    core = await memory_core(settings, clock)
    work = asyncio.create_task(generator_of(core).run())
    try:
        async with open_hub(core) as hub:
            yield House(core, hub, clock)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await core.queue.close()
        await core.bus.close()
        await core.store.close()
