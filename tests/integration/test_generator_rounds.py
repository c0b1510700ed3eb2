"""One process with many partitions: what comes together for them is read, looked up, stored and announced once."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import event

from hub import leases
from hub.adapters.sql_store import SqlStore
from hub.config import load_settings
from hub.generator import Generator
from hub.model.vocabulary import partition_of
from hub.ports import Publication, Published, Situation
from hub.wiring import Core, generator_of, memory_core
from tests.support.clock import FakeClock

PARTITIONS = 8
PATIENCE_SECONDS = 10.0


@pytest.fixture
async def core(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Core]:
    monkeypatch.setattr(leases, "ROUND_SECONDS", 0.05)
    settings = load_settings(
        api_key="test-key-0123456789abcdef", token_secret="s" * 32, partitions=PARTITIONS
    )
    opened = await memory_core(settings, clock)
    yield opened
    await opened.queue.close()
    await opened.bus.close()
    await opened.store.close()


@pytest.fixture
async def generator(core: Core) -> AsyncIterator[Generator]:
    """It has all partitions and waits for events."""
    generator = generator_of(core)
    running = asyncio.create_task(generator.run())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(generator._rounds._waiting) < PARTITIONS + 1:
            await asyncio.sleep(0.005)
    yield generator
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def calls(core: Core, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the store and the bus, in order; one "transaction" for each that was committed by a generator."""
    seen: list[str] = []
    situation, publish = core.store.situation, core.bus.publish

    async def look(parts: Mapping[str, Sequence[str]], users: Sequence[str]) -> Situation:
        seen.append("look")
        return await situation(parts, users)

    async def tell(publications: Sequence[Publication]) -> list[Published]:
        seen.append("publish")
        return await publish(publications)

    monkeypatch.setattr(core.store, "situation", look)
    monkeypatch.setattr(core.bus, "publish", tell)
    assert isinstance(core.store, SqlStore)
    inline = core.store._db.engines[-1]

    def note(_: Any) -> None:
        if "publish" not in seen:  # afterwards leases are renewed, and retractions are looked for
            seen.append("transaction")

    event.listen(inline, "commit", note)
    return seen


async def announced(core: Core, user: str) -> list[str]:
    history = await core.bus.history(f"#{user}", 0, None)
    return [json.loads(message.payload)["notification"]["title"] for message in history.messages]


@pytest.mark.req("R23", "R25")
async def test_what_comes_together_for_many_partitions_is_one_round(core: Core, calls: list[str]) -> None:
    users = [f"user-{number}" for number in range(30)]
    assert len({partition_of(user, PARTITIONS) for user in users}) == PARTITIONS
    events = [{"to": user, "title": user} for user in users] + [{"to": {"everyone": True}, "title": "all"}]
    await core.intake().publish_batch(json.dumps(events).encode(), False, "test", "key_test", None)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while sum((await core.queue.waiting()).values()):
            await asyncio.sleep(0.005)
    assert calls == ["look", "transaction", "publish"]
    assert [await announced(core, user) for user in users] == [[user] for user in users]
    assert (await core.bus.history("broadcasts", 0, None)).top == 1
    assert (await core.bus.history("log", 0, None)).top == 1
    assert await core.store.ledger() == []
