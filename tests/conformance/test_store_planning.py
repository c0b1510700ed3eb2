"""Batches: everything or nothing, a slice once, and sums that add up whatever is retracted or erased meanwhile."""

import asyncio

import pytest
from msgspec.structs import replace as replace_struct

from hub.adapters.sql_store import SqlStore
from hub.model.events import BroadcastAudience, NamedUser
from hub.model.vocabulary import Channel
from hub.ports import EventRecord, InboxQuery, LogQuery, PlannedSlice, ScheduledPart
from tests.support.stores import NOW_US, Partition, log_of, record_of

pytestmark = pytest.mark.req("R15", "I3")


async def shown(store: SqlStore, user_id: str) -> list[str]:
    return [row.event_id for row in await store.inbox_page(user_id, InboxQuery(50), NOW_US)]


async def test_a_batch_is_there_as_it_was_planned(store: SqlStore, partition: Partition) -> None:
    rows = await partition.publish(
        "evt_1", ["alice", "bob"], channels=[Channel.EMAIL], collapse_key="k", expires_at_us=NOW_US + 9
    )
    stored = await store.planned("0", ["evt_1", "evt_2"])
    assert list(stored) == ["evt_1"]
    assert stored["evt_1"].notifications == rows
    assert stored["evt_1"].broadcast is None
    assert await store.event("evt_1") == record_of("evt_1")
    deliveries = await store.event_deliveries("evt_1", None, None, 10)
    found = {(d.user_id, d.channel, d.state, d.condition, d.fallback) for d in deliveries}
    assert found == {(user, "email", "held", "offline", ("sms",)) for user in ("alice", "bob")}
    assert set(await store.load_users(["alice", "bob"])) == {"alice", "bob"}
    assert await store.ledger() == []


async def test_what_was_planned_comes_back_in_the_order_of_the_commit(
    store: SqlStore, partition: Partition
) -> None:
    users = [f"user-{(n * 37) % 50:02d}" for n in range(50)]
    rows = await partition.publish("evt_1", users)
    stored = await store.planned("0", ["evt_1"])
    assert [row.user_id for row in stored["evt_1"].notifications] == users
    moments = [row.created_at_us for row in rows]
    assert moments == sorted(set(moments))


async def test_slices_of_one_partition_are_told_apart_by_their_key(
    store: SqlStore, partition: Partition
) -> None:
    batch = partition.batch()
    partition.add(batch, "evt_1", ["alice"], key="0@Europe/Berlin", slices=2)
    partition.add(batch, "evt_1", ["bob"], key="0@Asia/Seoul", slices=2)
    await partition.commit(batch)
    assert await store.planned("0", ["evt_1"]) == {}
    stored = await store.planned("0@Asia/Seoul", ["evt_1"])
    assert [row.user_id for row in stored["evt_1"].notifications] == ["bob"]
    assert await store.ledger() == []


async def test_a_slice_that_is_planned_again_changes_nothing(store: SqlStore, partition: Partition) -> None:
    batch = partition.batch()
    partition.add(batch, "evt_1", ["alice"], channels=[Channel.EMAIL])
    await partition.commit(batch)
    before = (await store.log(LogQuery(100)), await store.counters(0), await store.planned("0", ["evt_1"]))
    again = partition.batch()
    partition.add(again, "evt_1", ["alice"], channels=[Channel.EMAIL])
    partition.add(again, "evt_2", ["alice"])
    await partition.commit(again)
    log, counters, planned = before
    assert [entry for entry in await store.log(LogQuery(100)) if entry.event_id == "evt_1"] == log
    assert await store.planned("0", ["evt_1"]) == planned
    assert sum(row[-1] for row in await store.counters(0)) == sum(row[-1] for row in counters) + 1
    assert await shown(store, "alice") == ["evt_2", "evt_1"]
    assert await store.ledger() == []


async def test_a_batch_that_fails_leaves_nothing(store: SqlStore, partition: Partition) -> None:
    batch = partition.batch()
    partition.add(batch, "evt_1", ["alice"])
    batch.notifications[0] = replace_struct(
        batch.notifications[0], category=None
    )  # a column that must be there
    with pytest.raises(Exception, match=r"(?i)not.null"):
        await partition.commit(batch)
    assert await store.event("evt_1") is None
    assert await store.load_users(["alice"]) == {}
    assert await store.log(LogQuery(10)) == []
    await partition.publish("evt_2", ["alice"])
    assert await store.ledger() == []


async def test_named_users_are_created_and_their_given_fields_merged(
    store: SqlStore, partition: Partition
) -> None:
    batch = partition.batch()
    batch.users = [NamedUser("alice", email="a@example.com", name="Alice"), NamedUser("bob")]
    await partition.commit(batch)
    users = await store.load_users(["alice", "bob"])
    assert users["alice"].profile.email == "a@example.com"
    assert (users["alice"].version, users["bob"].version) == (1, 1)
    batch = partition.batch()
    batch.users = [
        NamedUser("alice", phone="+4930123456"),
        NamedUser("alice", email="a@example.com"),
        NamedUser("bob"),
    ]
    await partition.commit(batch)
    users = await store.load_users(["alice", "bob"])
    alice = users["alice"].profile
    assert (alice.name, alice.email, alice.phone) == ("Alice", "a@example.com", "+4930123456")
    assert (users["alice"].version, users["bob"].version) == (2, 1)  # what did not change keeps its version


async def test_an_event_is_generated_when_all_its_slices_are_planned(
    store: SqlStore, partition: Partition
) -> None:
    other = await Partition.take(store, "1")
    await partition.publish("evt_1", ["alice"], slices=2)
    found = await store.event("evt_1")
    assert found is not None
    assert found.state == "accepted"
    assert "evt_1: 1 of 2 slices are planned" in (await store.ledger())[0]
    await other.publish("evt_1", ["bob"], slices=2)
    found = await store.event("evt_1")
    assert found is not None
    assert found.state == "generated"
    assert (await store.event_sums("evt_1"))["recipients"] == 2
    assert await store.ledger() == []


async def test_an_event_that_waits_for_its_time_is_scheduled_until_all_parts_are_queued(
    store: SqlStore, partition: Partition
) -> None:
    batch = partition.batch()
    batch.events.append(record_of("evt_1", 3, send_at_us=NOW_US + 10))
    batch.slices.append(PlannedSlice("evt_1", "0@schedule", 0, 0, 0))
    parts = [
        ScheduledPart("evt_1", "Asia/Seoul", NOW_US + 10, b"one"),
        ScheduledPart("evt_1", "UTC", NOW_US + 20, b"two"),
    ]
    batch.scheduled += parts
    await partition.commit(batch)

    assert await store.due_scheduled(NOW_US + 9, 10) == []
    assert await store.due_scheduled(NOW_US + 10, 10) == parts[:1]
    found = await store.event("evt_1")
    assert found is not None
    assert (found.state, found.send_at_us) == ("scheduled", NOW_US + 10)
    assert await store.ledger() == []

    await store.mark_scheduled_queued(parts[:1])
    assert await store.due_scheduled(NOW_US + 99, 10) == parts[1:]
    await partition.publish("evt_1", ["alice"], key="0@Asia/Seoul", slices=3)
    await store.mark_scheduled_queued(parts[1:])
    await partition.publish("evt_1", ["bob"], key="0@UTC", slices=3)
    found = await store.event("evt_1")
    assert found is not None
    assert (found.state, found.send_at_us) == ("generated", NOW_US + 10)
    assert await store.ledger() == []


async def test_a_rejected_slice_is_kept_whole(store: SqlStore, partition: Partition) -> None:
    other = await Partition.take(store, "1")
    await other.publish("evt_1", ["bob"], slices=2)
    batch = partition.batch()
    batch.events.append(record_of("evt_1", 2, state="rejected", error="it broke", raw=b"\x00\x01"))
    batch.slices.append(PlannedSlice("evt_1", "0", 3, 0, 0, rejected=3))
    await partition.commit(batch)
    found = await store.event("evt_1")
    assert found is not None
    assert (found.state, found.error, found.raw) == ("rejected", "it broke", b"\x00\x01")
    assert (await store.event_sums("evt_1"))["rejected"] == 3
    assert await store.ledger() == []


async def test_what_could_not_even_be_read_is_kept_under_an_id_of_its_own(
    store: SqlStore, partition: Partition
) -> None:
    batch = partition.batch()
    record = EventRecord(
        "evt_unreadable_7", "unreadable", "", "queue", None, NOW_US, 0, "rejected", "not a slice", b"?"
    )
    batch.events.append(record)
    await partition.commit(batch)
    assert await store.event("evt_unreadable_7") == record
    assert await store.ledger() == []


# ---------------------------------------------------------------- collapse keys


async def test_a_collapse_key_takes_the_older_ones_place(store: SqlStore, partition: Partition) -> None:
    [older] = await partition.publish("evt_1", ["alice"], collapse_key="k", channels=[Channel.EMAIL])
    await partition.publish("evt_2", ["alice"], collapse_key="other")
    batch = partition.batch()
    partition.add(batch, "evt_3", ["alice", "bob"], collapse_key="k")
    committed = await partition.commit(batch)
    assert committed.collapsed == {"alice": [older.id]}
    assert committed.left_out == frozenset()
    assert await shown(store, "alice") == ["evt_3", "evt_2"]
    assert [d.state for d in await store.event_deliveries("evt_1", None, None, 9)] == ["cancelled"]
    assert (await store.planned("0", ["evt_1"]))["evt_1"].notifications == []  # not announced again
    states = [entry.state for entry in await store.log(LogQuery(9, event_id="evt_1"))]
    assert sorted(states) == ["cancelled", "collapsed", "generated"]
    assert await store.ledger() == []


async def test_a_collapse_key_takes_the_places_of_many(store: SqlStore, partition: Partition) -> None:
    users = [f"user-{n:03d}" for n in range(130)]
    older = await partition.publish("evt_1", users, collapse_key="k", channels=[Channel.EMAIL])
    batch = partition.batch()
    partition.add(batch, "evt_2", users, collapse_key="k")
    committed = await partition.commit(batch)
    assert committed.collapsed == {row.user_id: [row.id] for row in older}
    assert {d.state for d in await store.event_deliveries("evt_1", None, None, 200)} == {"cancelled"}
    assert {tuple(await shown(store, user)) for user in users} == {("evt_2",)}
    assert await store.ledger() == []


async def test_within_a_batch_the_last_of_a_collapse_key_stands(
    store: SqlStore, partition: Partition
) -> None:
    batch = partition.batch()
    [first] = partition.add(batch, "evt_1", ["alice"], collapse_key="k", channels=[Channel.EMAIL])
    [second] = partition.add(batch, "evt_2", ["alice"], collapse_key="k")
    partition.add(batch, "evt_3", ["alice"], collapse_key="k", channels=[Channel.EMAIL])
    committed = await partition.commit(batch)
    assert committed.collapsed == {"alice": [first.id, second.id]}
    assert committed.left_out == {first.id, second.id}
    assert await shown(store, "alice") == ["evt_3"]
    assert [d.state for d in await store.event_deliveries("evt_1", None, None, 9)] == ["cancelled"]
    assert [d.state for d in await store.event_deliveries("evt_3", None, None, 9)] == ["held"]
    assert await store.ledger() == []


async def test_what_was_refused_everywhere_replaces_nothing(store: SqlStore, partition: Partition) -> None:
    await partition.publish("evt_1", ["alice"], collapse_key="k")
    batch = partition.batch()
    partition.add(batch, "evt_2", ["alice"], collapse_key="k", in_app=False)
    assert (await partition.commit(batch)).collapsed == {}
    assert await shown(store, "alice") == ["evt_1"]
    assert await store.ledger() == []


async def test_a_broadcast_replaces_older_ones_with_its_key_and_audience(
    store: SqlStore, lane: Partition
) -> None:
    older = await lane.broadcast("evt_1", "news", "sport", collapse_key="k")
    await lane.broadcast("evt_2", "news", collapse_key="k")
    batch = lane.batch()
    audience = BroadcastAudience(
        topics=("sport", "news"), exclude=("carol",)
    )  # who is left out does not count
    within = lane.add_broadcast(batch, "evt_3", collapse_key="k", audience=audience)
    last = lane.add_broadcast(batch, "evt_4", collapse_key="k", audience=audience)
    committed = await lane.commit(batch)
    assert committed.collapsed == {"": [older.id, within.id]}
    assert committed.left_out == {within.id}
    page = await store.broadcast_page("alice", ["news", "sport"], InboxQuery(9), NOW_US)
    assert [row.broadcast.event_id for row in page] == ["evt_4", "evt_2"]
    _, found = await store.find_notifications("", [older.id])
    assert found[0].broadcast == older  # still there, so that its end can be announced
    assert (await store.planned("lane", ["evt_4"]))["evt_4"].broadcast == last
    assert await store.ledger() == []


# ---------------------------------------------------------------- what happens meanwhile


async def test_an_event_retracted_after_it_was_planned_but_before_the_commit_is_not_shown(
    store: SqlStore, partition: Partition
) -> None:
    batch = partition.batch()
    [row] = partition.add(batch, "evt_1", ["alice"], channels=[Channel.EMAIL])
    assert await store.retracted(["evt_1", "evt_2"]) == set()
    assert await store.retract("evt_1", NOW_US) == ({}, [])
    assert await store.retracted(["evt_1", "evt_2"]) == {"evt_1"}
    committed = await partition.commit(batch)
    assert committed.left_out == {row.id}
    assert await shown(store, "alice") == []
    assert [d.state for d in await store.event_deliveries("evt_1", None, None, 9)] == ["cancelled"]
    assert await store.ledger() == []


@pytest.mark.req("R10")
async def test_a_user_erased_after_the_event_was_planned_gets_no_row(
    store: SqlStore, partition: Partition
) -> None:
    await partition.publish("evt_1", ["alice", "bob"])
    batch = partition.batch()
    alice, bob = partition.add(batch, "evt_2", ["alice", "bob"], channels=[Channel.EMAIL])
    batch.users = [NamedUser("alice", email="a@example.com"), NamedUser("bob")]
    batch.log = [replace_struct(log_of(row, "generated"), detail="about them") for row in (alice, bob)]
    assert await store.erase_user("alice", NOW_US + 1)
    committed = await partition.commit(batch)
    assert committed.left_out == {alice.id}
    erased = (await store.load_users(["alice"]))["alice"]
    assert (erased.version, erased.profile.email, erased.erased_at_us) == (0, None, NOW_US + 1)
    assert await store.export_user("alice") is None
    assert [d.user_id for d in await store.event_deliveries("evt_2", None, None, 9)] == ["bob"]
    lines = await store.log(LogQuery(9, event_id="evt_2"))
    assert len(lines) == 2
    assert not any("alice" in repr(line) or alice.id in repr(line) for line in lines)
    assert await store.ledger() == []

    await partition.publish("evt_3", ["alice"], accepted_at_us=NOW_US + 2)  # a later event names them anew
    assert (await store.load_users(["alice"]))["alice"].version == 1
    assert await shown(store, "alice") == ["evt_3"]
    assert await store.ledger() == []


async def test_partitions_commit_beside_each_other(store: SqlStore) -> None:
    partitions = [await Partition.take(store, str(number)) for number in range(4)]

    async def work(partition: Partition) -> None:
        for number in range(5):
            users = [f"u{partition.lease.name}-{n}" for n in range(20)]
            await partition.publish(f"evt_{number}", users, slices=4)

    async def retract() -> None:
        await store.retract("evt_3", NOW_US)
        await store.erase_user("u2-7", NOW_US + 1)

    await asyncio.gather(*(work(partition) for partition in partitions), retract())
    found = await store.event("evt_1")
    assert found is not None
    assert found.state == "generated"
    assert await shown(store, "u1-3") == ["evt_4", "evt_2", "evt_1", "evt_0"]
    assert await store.ledger() == []
