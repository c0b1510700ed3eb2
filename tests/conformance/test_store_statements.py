"""What a batch costs in statements and transactions: the same, however many events and recipients it has."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import event

from hub.adapters.sql_store import SqlStore
from hub.model.digests import DigestId
from hub.model.events import Event, Slice, encode_slice
from hub.model.retries import Move
from hub.model.vocabulary import Channel
from hub.ports import Attempt, Batch, Begin, DigestMove, End, LogEntry, Payload, Wanted
from tests.support.stores import NOW_US, Partition

SLICE = encode_slice(Slice(event=Event("evt_1", "order.paid", 0, "http:key", 1)))


@contextmanager
def watched(store: SqlStore) -> Iterator[list[str]]:
    """The statements that the engines execute meanwhile."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    for engine in store._db.engines:
        event.listen(engine, "before_cursor_execute", note)
    yield seen
    for engine in store._db.engines:
        event.remove(engine, "before_cursor_execute", note)


def fill(partition: Partition, name: str, events: int, recipients: int, **more: Any) -> Batch:
    batch = partition.batch()
    for number in range(events):
        users = [f"user-{name}-{number * recipients + who}" for who in range(recipients)]
        partition.add(batch, f"evt_{name}_{number}", users, channels=[Channel.EMAIL], **more)
    return batch


@pytest.mark.req("R25")
@pytest.mark.parametrize("more", [{}, {"collapse_key": "k"}], ids=["plain", "collapsing"])
async def test_the_statements_of_a_batch_do_not_grow_with_it(
    store: SqlStore, partition: Partition, more: dict[str, Any]
) -> None:
    sent = []
    for name, events, recipients in (("a", 10, 1), ("b", 500, 1), ("c", 5, 100)):
        batch = fill(partition, name, events, recipients, **more)
        users = sorted({row.user_id for row in batch.notifications})
        with watched(store) as statements:
            await partition.commit(batch)
            await store.situation({partition.lease.name: [one.event_id for one in batch.slices]}, users)
        sent.append([statement.split(" VALUES ")[0][:60] for statement in statements])
    assert len(sent[0]) < 40
    assert sent[0] == sent[1] == sent[2]
    assert await store.ledger() == []


@pytest.mark.req("R25")
async def test_digests_and_throttles_cost_a_few_statements_and_only_where_there_are_any(
    store: SqlStore, partition: Partition
) -> None:
    sent = []
    for size in (1, 300):
        users = [f"user-{size}-{number}" for number in range(size)]
        batch = partition.batch()
        for user_id in users:
            partition.add(batch, f"evt_{user_id}", [user_id], channels=[Channel.EMAIL])
            held = replace(batch.deliveries[-1], digest_key="k", throttled=True)
            batch.deliveries[-1] = held
            batch.payloads.append(Payload(held.event_id, "0", b"-"))
            batch.digests.append(DigestMove(DigestId(user_id, Channel.EMAIL, "k"), NOW_US))
        pairs = [(row.user_id, row.id) for row in batch.notifications]
        with watched(store) as statements:
            await partition.commit(batch)
            await store.timing(users, NOW_US, users, {"order.paid": 0, "other": 1})
            await store.bring_forward(pairs, 5, NOW_US)
        sent.append([statement.split(" VALUES ")[0][:60] for statement in statements])
    assert sent[0] == sent[1]
    with watched(store) as statements:
        await store.timing([], None, [], {})
        await store.bring_forward([], 5, NOW_US)
    assert statements == []
    batch = fill(partition, "plain", 5, 1)
    with watched(store) as statements:
        await partition.commit(batch)
    assert not [one for one in statements if "payloads" in one or "given_rows" in one]


@pytest.mark.req("R9")
async def test_the_statements_of_a_chunk_of_deliveries_do_not_grow_with_it(
    store: SqlStore, partition: Partition
) -> None:
    """Handing out, claiming, beginning, ending and giving back: each the same for one delivery and for many."""
    sent = []
    for size in (2, 200):
        batch = fill(partition, f"chunk{size}", size, 1)
        batch.payloads = [Payload(one.event_id, "0", SLICE) for one in batch.deliveries]
        batch.deliveries = [replace(one, due_at_us=1, condition="always") for one in batch.deliveries]
        await partition.commit(batch)
        claim = f"claim{size}"
        with watched(store) as statements:
            due = await store.queue_due(Channel.EMAIL, size, 60)
            wanted = [Wanted(one.user_id, one.id, one.lapses) for one in due]
            claimed = await store.claim(claim, "owner", wanted, 60)
            begins = [Begin(claim, one.delivery.user_id, one.delivery.id, 5) for one in claimed]
            await store.record(begins[:-1], [])
            ends = [
                End(
                    claim,
                    one.delivery,
                    Move("sent", "sent"),
                    6,
                    attempts=(Attempt(1, "smtp://a", "sent", "250", "", 5, 1),),
                    log=(LogEntry(6, "sent", one.delivery.event_id, one.delivery.user_id),),
                )
                for one in claimed[:-1]
            ]
            await store.record(begins[-1:], ends)
            await store.renew_claims([claim], 60)
            await store.release_claim(claim)
        assert len(claimed) == size
        sent.append([statement.split(" VALUES ")[0][:60] for statement in statements])
        await store.recover([Channel.EMAIL])
        await store.queue_due(Channel.EMAIL, 0, 60)  # the last one, which lapsed
    assert len(sent[0]) < 40
    assert sent[0] == sent[1]


@pytest.mark.req("R25")
async def test_what_is_looked_up_for_a_batch_is_a_handful_of_statements(
    store: SqlStore, partition: Partition
) -> None:
    await partition.publish("evt_known", ["user-1"])
    counts = set()
    for size in (1, 500):
        with watched(store) as statements:
            await store.situation(
                {"0": [f"evt_{n}" for n in range(size)]}, [f"user-{n}" for n in range(size)]
            )
        counts.add(len(statements))
    assert len(counts) == 1
    assert counts.pop() <= 6
    found = await store.situation({"0": ["evt_known", "evt_new"], "0@x": ["evt_known"]}, ["user-1", "user-2"])
    assert set(found.planned) == {("evt_known", "0")}
    assert [row.user_id for row in found.planned["evt_known", "0"].notifications] == ["user-1"]
    assert (found.retracted, set(found.users)) == (frozenset(), {"user-1"})
    assert found.catalog_version == await store.catalog_version()


@pytest.mark.req("R25")
async def test_what_a_generator_does_all_the_time_is_ready_made(
    store: SqlStore, partition: Partition
) -> None:
    built: list[object] = []

    def note(_connection: object, expression: object, *_: object) -> None:
        built.append(expression)

    batch = fill(partition, "new", 3, 2)
    for engine in store._db.engines:
        event.listen(engine, "before_execute", note)
    await store.situation({"0": ["evt_new_0"]}, ["user-new-0"])
    partition.add_broadcast(batch, "evt_all", "topic")
    await partition.commit(batch)
    await store.retracted(["evt_new_0"])
    await store.due_scheduled(1, 10)
    await store.heartbeat("one", "generator", 60)
    await store.renew_leases([partition.lease], 60)
    assert built == []  # no expression was built and compiled: that took longer than the database does
    await store.load_users(["user-new-0"])
    assert built
