"""Leases: one owner at a time, and a fence that stops a late one."""

import asyncio

import pytest

from hub.adapters.sql_store import SqlStore
from hub.errors import LeaseLost
from hub.ports import Lease
from tests.support.stores import Partition


async def test_a_lease_has_one_owner_until_it_is_given_back(store: SqlStore) -> None:
    lease = await store.take_lease("3", "one", 60)
    assert lease == Lease("3", "one", 1)
    assert await store.take_lease("3", "two", 60) is None
    assert await store.free_leases(["3", "4"]) == ["4"]
    await store.release_lease(lease)
    assert await store.free_leases(["3", "4"]) == ["3", "4"]
    assert await store.take_lease("3", "two", 60) == Lease("3", "two", 2)


@pytest.mark.req("R27")
async def test_a_lapsed_lease_belongs_to_whoever_takes_it_first(store: SqlStore) -> None:
    lease = await store.take_lease("3", "one", -1)
    assert lease is not None
    assert await store.free_leases(["3"]) == ["3"]
    taken = await store.take_lease("3", "two", 60)
    assert taken is not None
    assert taken.fence == lease.fence + 1
    assert await store.renew_leases([lease], 60) == []
    assert await store.renew_leases([taken], 60) == ["3"]


async def test_a_lapsed_lease_that_nobody_took_can_be_renewed(store: SqlStore) -> None:
    lease = await store.take_lease("3", "one", -1)
    assert lease is not None
    assert await store.renew_leases([lease], 60) == ["3"]
    assert await store.take_lease("3", "two", 60) is None


async def test_an_owner_that_forgot_its_lease_gets_it_again_with_a_higher_fence(store: SqlStore) -> None:
    first = await store.take_lease("3", "one", 60)
    second = await store.take_lease("3", "one", 60)
    assert first is not None
    assert second is not None
    assert second.fence == first.fence + 1
    assert await store.renew_leases([first], 60) == []


async def test_giving_back_a_lost_lease_changes_nothing(store: SqlStore) -> None:
    lost = await store.take_lease("3", "one", -1)
    held = await store.take_lease("3", "two", 60)
    assert lost is not None
    assert held is not None
    await store.release_lease(lost)
    assert await store.renew_leases([held], 60) == ["3"]


@pytest.mark.req("R27")
async def test_racing_for_a_lease_has_one_winner(store: SqlStore) -> None:
    taken = await asyncio.gather(*(store.take_lease("3", f"owner-{n}", 60) for n in range(12)))
    assert len([lease for lease in taken if lease is not None]) == 1


@pytest.mark.req("R15")
async def test_the_next_owner_goes_on_where_the_last_batch_ended(store: SqlStore) -> None:
    partition = await Partition.take(store, "lane", "one")
    await partition.broadcast("evt_1")
    await store.release_lease(partition.lease)
    taken = await store.take_lease("lane", "two", 60)
    assert taken is not None
    left = partition.lease
    assert (taken.position, taken.clock_us, taken.broadcast_seq) == (left.position, left.clock_us, 1)


@pytest.mark.req("I3", "R27")
async def test_a_fenced_owner_writes_nothing(store: SqlStore) -> None:
    late = await Partition.take(store, "0", "one")
    await store.release_lease(late.lease)
    owner = await Partition.take(store, "0", "two")
    await owner.publish("evt_1", ["alice"])
    before = await store.counters(0)
    with pytest.raises(LeaseLost):
        await late.publish("evt_2", ["alice", "bob"])
    assert await store.event("evt_2") is None
    assert await store.counters(0) == before
    assert set(await store.load_users(["alice", "bob"])) == {"alice"}
    assert await store.ledger() == []


async def test_heartbeats_count_the_living_of_a_role(store: SqlStore) -> None:
    assert await store.heartbeat("one", "generator", 60) == 1
    assert await store.heartbeat("two", "generator", 60) == 2
    assert await store.heartbeat("three", "node", 60) == 1
    assert await store.heartbeat("one", "generator", -1) == 1  # lapsed at once
    assert await store.heartbeat("two", "generator", 60) == 1
