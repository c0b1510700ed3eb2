"""Leases shared out among keepers: fairly as they come and go, taken over from who is frozen, given back at the end."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from hub import leases
from hub.adapters.sql_store import SqlStore, memory_store
from hub.errors import StoreUnavailable
from hub.leases import LeaseKeeper
from hub.model.vocabulary import LANE
from hub.ports import Lease

PATIENCE_SECONDS = 10.0


class Keeper(LeaseKeeper):
    """A keeper whose rounds the test makes, and which says what it works on."""

    def __init__(self, store: SqlStore, owner: str) -> None:
        names = [*(str(number) for number in range(8)), LANE]
        super().__init__(store, owner, "generator", names, self._until_stopped)
        self.working: set[str] = set()

    async def _until_stopped(self, lease: Lease, stop: asyncio.Event) -> None:
        self.working.add(lease.name)
        await stop.wait()
        self.working.discard(lease.name)


@pytest.fixture
async def keepers() -> AsyncIterator[list[Keeper]]:
    store = await memory_store()
    made = [Keeper(store, owner) for owner in ("one", "two", "three")]
    yield made
    for keeper in made:
        await keeper._give_back(list(keeper._held))
    await store.close()


async def rounds(keepers: Sequence[Keeper], count: int = 3) -> None:
    for _ in range(count):
        for keeper in keepers:
            await keeper.round()
    await asyncio.sleep(0)


def shares(keepers: Sequence[Keeper]) -> list[int]:
    held = [name for keeper in keepers for name in keeper.held]
    assert len(held) == len(set(held)), "two hold the same"
    assert all(set(keeper.held) == keeper.working for keeper in keepers)
    return [len(keeper.held) for keeper in keepers]


@pytest.mark.req("R22")
async def test_leases_are_shared_fairly_as_processes_come_and_go(keepers: list[Keeper]) -> None:
    one, two, three = keepers
    await rounds([one])
    assert shares([one]) == [9]
    await rounds([one, two])
    assert sorted(shares([one, two])) == [4, 5]
    await rounds(keepers)
    assert shares(keepers) == [3, 3, 3]

    stopping = asyncio.create_task(two.run())  # its end is the end of the process
    await asyncio.sleep(0)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    assert two.held == []
    await rounds([one, three], 1)
    await rounds([one, three], 1)
    assert sorted(shares([one, three])) == [4, 5]


@pytest.mark.req("I10", "R27")
async def test_the_leases_of_a_frozen_process_are_taken_over_and_it_notices(
    keepers: list[Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = keepers
    monkeypatch.setattr(leases, "TTL_SECONDS", 0.05)
    await rounds([one, two])
    frozen = set(one.held)
    assert frozen
    monkeypatch.setattr(leases, "TTL_SECONDS", 60)
    await two.round()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(two.held) < 9:
            await asyncio.sleep(0.02)
            await two.round()
    assert set(one.held) == frozen  # it knows nothing yet; the fence stops what it writes
    await one.round()
    assert not one.working & set(two.held)
    await rounds([two, one])
    assert sorted(shares([one, two])) == [4, 5]


async def test_a_round_that_fails_is_not_the_last(
    keepers: list[Keeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = keepers[0]
    monkeypatch.setattr(leases, "ROUND_SECONDS", 0.01)
    take, failures = one._store.take_lease, 3

    async def away(*args: Any) -> Lease | None:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreUnavailable("The database cannot be reached.")
        return await take(*args)

    monkeypatch.setattr(one._store, "take_lease", away)
    running = asyncio.create_task(one.run())
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(one.working) < 9:
            await asyncio.sleep(0.005)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert failures == 0
    assert one.working == set()
