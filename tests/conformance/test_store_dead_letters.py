"""Dead letters: listed page by page, tried again once, and left alone where that could not help."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import insert, select

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import attempts, payloads, scheduled
from hub.model.events import Event, NamedUser, Schedule, Slice, decode_slice, encode_slice
from hub.model.schedule import release
from hub.model.vocabulary import Channel
from hub.ports import DeadQuery, LogQuery, PlannedSlice
from tests.support.stores import NOW_US, Partition, record_of

pytestmark = [pytest.mark.req("R8"), pytest.mark.req("I8")]

LATER = NOW_US + 1_000_000
EVENT = Event(id="evt_1", type="order.paid", accepted_at_us=NOW_US, source="http:key", slices=1)


async def change(store: SqlStore, statement: str) -> None:
    async def work(connection: Any) -> None:
        await connection.exec_driver_sql(statement)

    await store._db.write(work)


async def furnish(
    store: SqlStore, partition: Partition, event_id: str, *users: str, state: str = "dead", **more: Any
) -> list[str]:
    """An event whose e-mails ended in a state, with its payload; returns the deliveries' ids by user."""
    await partition.publish(event_id, list(users), channels=[Channel.EMAIL], condition="always", **more)

    async def work(connection: Any) -> None:
        await connection.exec_driver_sql(
            f"UPDATE deliveries SET state = '{state}', reason = 'exhausted', provider = 'smtp-1', attempts = 2, "
            f"lapses = 1, tried_at_us = 5 WHERE event_id = '{event_id}'"
        )
        await connection.execute(
            insert(payloads).values(event_id=event_id, slice_key="0", raw=encode_slice(Slice(EVENT)))
        )

    await store._db.write(work)
    rows = await store.event_deliveries(event_id, None, None, 99)
    return [row.id for row in sorted(rows, key=lambda row: row.user_id)]


# ---------------------------------------------------------------- the list


async def test_they_are_listed_newest_first_by_page_and_filter(store: SqlStore, partition: Partition) -> None:
    ids = [
        *await furnish(store, partition, "evt_1", "a", "b"),
        *await furnish(store, partition, "evt_2", "c", state="unknown"),
        *await furnish(store, partition, "evt_3", "d"),
    ]
    await furnish(store, partition, "evt_4", "e", state="sent")
    await change(store, "UPDATE deliveries SET reason = 'no_address', provider = NULL WHERE user_id = 'd'")
    everything = await store.dead_deliveries(DeadQuery(9))
    assert [row.id for row in everything] == ids[::-1]
    assert (everything[-1].reason, everything[-1].provider, everything[-1].attempts) == (
        "exhausted",
        "smtp-1",
        2,
    )
    before = None
    seen = []
    while page := await store.dead_deliveries(DeadQuery(1, before)):
        seen += page
        before = (page[-1].created_at_us, page[-1].id)
    assert seen == everything

    async def found(**more: Any) -> list[str]:
        return [row.user_id for row in await store.dead_deliveries(DeadQuery(9, **more))]

    assert await found(states=("unknown",)) == ["c"]
    assert await found(provider="smtp-1") == ["c", "b", "a"]
    assert await found(reason="no_address") == ["d"]
    assert await found(channel="sms") == []
    assert await found(since_us=everything[0].created_at_us) == ["d"]


# ---------------------------------------------------------------- deliveries again


async def test_a_dead_delivery_waits_again_with_all_its_attempts_before_it(
    store: SqlStore, partition: Partition
) -> None:
    [one, other] = await furnish(store, partition, "evt_1", "a", "b")
    replay = await store.replay_deliveries([one], LATER, unknown=False)
    assert replay.refused == {}
    assert [(line.state, line.user_id, line.reason, line.provider) for line in replay.log] == [
        ("replayed", "a", "exhausted", "smtp-1")
    ]
    [again] = await store.event_deliveries("evt_1", "queued", None, 9)
    assert (again.id, again.due_at_us, again.attempts, again.lapses) == (one, LATER, 0, 0)
    assert (again.tried_at_us, again.reason) == (None, None)
    [left] = await store.dead_deliveries(DeadQuery(9))
    assert left.id == other
    assert [line.state for line in await store.log(LogQuery(9, user_id="a"))] == ["replayed", "generated"]
    assert await store.ledger() == []
    assert (await store.replay_deliveries([one], LATER, unknown=True)).refused == {one: "not_dead"}


async def test_what_may_have_arrived_is_tried_again_only_when_asked_for(
    store: SqlStore, partition: Partition
) -> None:
    [one] = await furnish(store, partition, "evt_1", "a", state="unknown")
    assert (await store.replay_deliveries([one], LATER, unknown=False)).refused == {one: "unknown"}
    assert len((await store.replay_deliveries([one], LATER, unknown=True)).log) == 1


async def test_of_many_replays_at_once_one_counts(store: SqlStore, partition: Partition) -> None:
    ids = await furnish(store, partition, "evt_1", *(f"u{number}" for number in range(9)))
    replays = await asyncio.gather(
        *(store.replay_deliveries(ids[start:], LATER, unknown=False) for start in (0, 3, 0, 5))
    )
    assert sum(len(replay.log) for replay in replays) == 9
    assert len(await store.log(LogQuery(99, state="replayed"))) == 9
    assert await store.ledger() == []


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("DELETE FROM payloads", "payload_gone"),
        ("UPDATE deliveries SET expires_at_us = 5", "expired"),
        ("UPDATE notifications SET hidden = 'collapsed'", "collapsed"),
        ("UPDATE deliveries SET state = 'sent'", "not_dead"),
        ("UPDATE deliveries SET user_id = 'erased-0123456789abcdef'", "erased"),
        ("INSERT INTO retractions (event_id, at_us) VALUES ('evt_1', 5)", "retracted"),
    ],
)
async def test_what_could_only_fail_again_stays_with_its_reason(
    store: SqlStore, partition: Partition, damage: str, reason: str
) -> None:
    [one] = await furnish(store, partition, "evt_1", "a")
    await change(store, damage)
    before = await store.event_deliveries("evt_1", None, None, 9)
    replay = await store.replay_deliveries([one, "dlv_stranger", "'; --"], LATER, unknown=True)
    assert replay.refused == {one: reason, "dlv_stranger": "not_dead", "'; --": "not_dead"}
    assert replay.log == []
    assert await store.event_deliveries("evt_1", None, None, 9) == before


async def test_a_name_that_looks_erased_but_is_a_users_is_no_obstacle(
    store: SqlStore, partition: Partition
) -> None:
    [one] = await furnish(store, partition, "evt_1", "erased-goods")
    assert (await store.replay_deliveries([one], LATER, unknown=False)).refused == {}


async def test_rounds_are_counted_anew_and_earlier_ones_stay_known(
    store: SqlStore, partition: Partition
) -> None:
    [one, other] = await furnish(store, partition, "evt_1", "a", "b")

    async def try_it(connection: Any, first_at_us: int) -> None:
        for number in (1, 2):
            for user_id, id_ in (("a", one), ("b", other)):
                await connection.execute(
                    insert(attempts).values(
                        user_id=user_id, delivery_id=id_, number=number, provider="smtp-1", event_id="evt_1",
                        channel="email", outcome="retry", code="451", detail=None,
                        started_at_us=first_at_us + number, duration_us=7, is_repeat=False,
                    )
                )  # fmt: skip
        await connection.exec_driver_sql("UPDATE deliveries SET state = 'dead', attempts = 2")

    for turn in range(4):
        await store._db.write(try_it, turn * 10)
        assert len((await store.replay_deliveries([one, other], LATER, unknown=False)).log) == 2
    rows = await store.event_deliveries("evt_1", None, None, 9)
    found = await store.attempts_of(rows)
    assert [(one.number, one.started_at_us) for one in found["a", one]] == [
        (number, turn * 10 + number) for turn in range(4) for number in (1, 2)
    ]
    assert len(found["b", other]) == 8


# ---------------------------------------------------------------- events again


async def reject(partition: Partition, part: Slice | bytes, event_id: str = "evt_1", key: str = "0") -> None:
    """What the generator writes when an event cannot be planned."""
    raw = part if isinstance(part, bytes) else encode_slice(part)
    batch = partition.batch()
    batch.events.append(record_of(event_id, 1, state="rejected", error="Planning failed.", raw=raw))
    batch.slices.append(PlannedSlice(event_id, key, 2, 0, 0, rejected=2))
    await partition.commit(batch)


async def test_a_rejected_event_is_as_if_never_planned_and_waits_to_be_queued(
    store: SqlStore, partition: Partition
) -> None:
    named = (NamedUser("a", email="a@example.com"), NamedUser("b"))
    await reject(partition, Slice(EVENT, users=named, first=True))
    [listed] = await store.dead_slices(None, None, 9)
    assert (listed.event_id, listed.slice_key, listed.error) == ("evt_1", "0", "Planning failed.")
    assert await store.ledger() == []

    replay = await store.replay_events(["evt_1", "evt_2"], LATER)
    assert replay.refused == {"evt_2": "not_dead"}
    assert [line.state for line in replay.log] == ["replayed"]
    assert await store.dead_slices(None, None, 9) == []
    assert await store.event("evt_1") is None  # accepted: the id proves it
    [part] = await store.due_scheduled(LATER, 9)
    again = release(decode_slice(part.raw), 1)
    assert again == {"0": Slice(EVENT, users=named)}
    await store.mark_scheduled_queued([part])
    await partition.publish("evt_1", ["a", "b"])  # and is planned like any other
    record = await store.event("evt_1")
    assert record is not None
    assert record.state == "generated"
    assert await store.ledger() == []
    assert (await store.replay_events(["evt_1"], LATER)).refused == {"evt_1": "not_dead"}


async def test_an_event_that_is_rejected_again_is_replayed_again(
    store: SqlStore, partition: Partition
) -> None:
    for moment in (LATER, LATER + 1):
        await reject(partition, Slice(EVENT, users=(NamedUser("a"),)))
        assert len((await store.replay_events(["evt_1"], moment)).log) == 1
    async with store._db.read() as connection:
        parts = (await connection.scalars(select(scheduled.c.part))).all()
    assert len(set(parts)) == 2  # the queue would take the second for a repeat of the first


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (b"\xc1 no slice", "unreadable"),
        (Slice(EVENT, schedule=Schedule(users=(NamedUser("a"),), local="09:00")), "scheduled"),
        (Slice(EVENT, users=(NamedUser("a"),)), "retracted"),
    ],
)
async def test_what_cannot_be_planned_again_is_left(
    store: SqlStore, partition: Partition, part: Slice | bytes, reason: str
) -> None:
    await reject(partition, part)
    if reason == "retracted":
        await store.retract("evt_1", NOW_US)
    replay = await store.replay_events(["evt_1"], LATER)
    assert (replay.refused, replay.log) == ({"evt_1": reason}, [])
    assert len(await store.dead_slices(None, None, 9)) == 1
    assert await store.due_scheduled(LATER, 9) == []


async def test_rejected_events_are_listed_newest_first_by_page(store: SqlStore, partition: Partition) -> None:
    for number in range(5):
        await reject(partition, Slice(EVENT), f"evt_{number}")
    everything = await store.dead_slices(None, None, 9)
    assert len(everything) == 5
    before = None
    seen = []
    while page := await store.dead_slices(before, None, 2):
        seen += page
        before = (page[-1].at_us, page[-1].event_id, page[-1].slice_key)
    assert seen == everything
    assert await store.dead_slices(None, everything[0].at_us + 1, 9) == []
