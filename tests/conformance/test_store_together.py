"""Batches that wait for SQLite's one writer: one transaction, and each as whole and as fenced as alone."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from msgspec.structs import replace as replace_struct
from sqlalchemy import event

from hub.adapters.sql_store import SqlStore, engine, together
from hub.errors import LeaseLost, Refused, StoreUnavailable
from hub.ports import Committed
from tests.support.stores import Partition


@pytest.fixture(params=["memory", "sqlite"])
def store_url(request: pytest.FixtureRequest) -> str:
    """PostgreSQL has many writers; nobody waits there."""
    url: str = "sqlite://" if request.param == "memory" else request.getfixturevalue("migrated_sqlite_url")
    return url


@pytest.fixture
async def partitions(store: SqlStore) -> list[Partition]:
    return [await Partition.take(store, str(number)) for number in range(4)]


@pytest.fixture
def transactions(store: SqlStore) -> list[Any]:
    """One entry for each transaction that was committed."""
    seen: list[Any] = []
    for one in store._db.engines:
        event.listen(one, "commit", seen.append)
    return seen


async def commit_all(partitions: list[Partition], *, spoil: int | None = None) -> list[Any]:
    """Commit a batch of each at the same time; one of them may hold what cannot be stored."""
    batches = []
    for number, partition in enumerate(partitions):
        batch = partition.batch()
        [row] = partition.add(batch, f"evt_{number}", [f"user-{number}"])
        if number == spoil:
            batch.notifications = [replace_struct(row, expires_at_us=2**64)]
        batches.append(batch)
    commits = (partition.commit(batch) for partition, batch in zip(partitions, batches, strict=True))
    return await asyncio.gather(*commits, return_exceptions=True)


async def stored(store: SqlStore, count: int) -> list[bool]:
    return [await store.event(f"evt_{number}") is not None for number in range(count)]


@pytest.mark.req("R25")
async def test_those_that_wait_share_a_transaction(
    store: SqlStore, partitions: list[Partition], transactions: list[Any]
) -> None:
    outcomes = await commit_all(partitions)
    assert all(isinstance(outcome, Committed) for outcome in outcomes)
    assert len(transactions) == 1
    assert await stored(store, 4) == [True] * 4
    assert await store.ledger() == []


@pytest.mark.req("R25")
async def test_they_are_no_more_than_the_loop_may_be_held_for(
    store: SqlStore, partitions: list[Partition], transactions: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "ROWS", 2)
    await commit_all(partitions)
    assert len(transactions) == 2
    assert await stored(store, 4) == [True] * 4


@pytest.mark.req("R27", "I3")
async def test_one_that_lost_its_lease_writes_nothing_and_spoils_nothing(
    store: SqlStore, partitions: list[Partition], transactions: list[Any]
) -> None:
    partitions[2].lease = replace(partitions[2].lease, fence=partitions[2].lease.fence - 1)
    outcomes = await commit_all(partitions)
    assert [type(outcome) for outcome in outcomes] == [Committed, Committed, LeaseLost, Committed]
    assert len(transactions) == 1
    assert await stored(store, 4) == [True, True, False, True]
    assert await store.ledger() == []


@pytest.mark.req("I3", "I10")
async def test_one_that_cannot_be_stored_fails_alone(store: SqlStore, partitions: list[Partition]) -> None:
    outcomes = await commit_all(partitions, spoil=1)
    assert [type(outcome) for outcome in outcomes] == [Committed, Refused, Committed, Committed]
    assert await stored(store, 4) == [True, False, True, True]
    assert await store.ledger() == []


@pytest.mark.req("I3")
async def test_who_stops_waiting_takes_nobody_along(store: SqlStore, partitions: list[Partition]) -> None:
    batches = []
    for number, partition in enumerate(partitions):
        batches.append(partition.batch())
        partition.add(batches[-1], f"evt_{number}", [f"user-{number}"])
    commits = [
        asyncio.ensure_future(partition.commit(batch))
        for partition, batch in zip(partitions, batches, strict=True)
    ]
    await asyncio.sleep(0)  # they wait now
    commits[0].cancel()
    outcomes = await asyncio.gather(*commits, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[1:]] == [Committed] * 3
    assert (await stored(store, 4))[1:] == [True] * 3
    assert await store.ledger() == []


@pytest.mark.req("R22")
@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_without_the_lock_all_who_wait_are_told_at_once(
    store: SqlStore, partitions: list[Partition], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "LOCK_WAIT_SECONDS", 0.05)
    monkeypatch.setattr(together, "ROWS", 1)
    async with store._db._file_lock():  # by another descriptor, as another process would
        outcomes = await commit_all(partitions)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 4
    assert await stored(store, 4) == [False] * 4
    assert all(isinstance(outcome, Committed) for outcome in await commit_all(partitions))
