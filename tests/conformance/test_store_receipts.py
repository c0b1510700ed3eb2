"""Receipts move deliveries along the table of moves, once, with their log lines; nothing else moves."""

import asyncio

import pytest
from sqlalchemy import select, update

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import deliveries
from hub.model.deliveries import MOVES
from hub.model.vocabulary import Channel
from hub.ports import LogQuery
from tests.support.stores import NOW_US, Partition

pytestmark = [pytest.mark.req("R7"), pytest.mark.req("I3")]

GATEWAY = "twilio://sms.example"


async def send_one(
    store: SqlStore, partition: Partition, event_id: str, state: str, reference: str | None
) -> None:
    """A delivery as a sender leaves it."""
    await partition.publish(event_id, ["alice"], channels=[Channel.SMS])
    async with store._db._writer.connect() as connection:
        await connection.execute(
            update(deliveries)
            .where(deliveries.c.event_id == event_id)
            .values(state=state, provider=GATEWAY, reference=reference)
        )
        await connection.commit()


async def state_of(store: SqlStore, event_id: str) -> tuple[str, str | None]:
    async with store._db.read() as connection:
        row = (await connection.execute(select(deliveries).where(deliveries.c.event_id == event_id))).one()
    return row.state, row.reason


async def lines_of(store: SqlStore, event_id: str) -> list[tuple[str, str | None, str | None]]:
    lines = await store.log(LogQuery(50, event_id=event_id))
    return [(line.state, line.provider, line.reason) for line in lines if line.provider == GATEWAY]


@pytest.mark.parametrize("to", ["sent", "delivered", "dead"])
@pytest.mark.parametrize("state", sorted(MOVES))
async def test_what_may_move_does_and_nothing_else(
    store: SqlStore, partition: Partition, state: str, to: str
) -> None:
    await send_one(store, partition, "evt_1", state, "SM1")
    allowed = state in ("sent", "unknown") and to in MOVES[state]
    assert await store.settle(GATEWAY, "SM1", to, "30003", NOW_US + 5) == allowed
    assert (await state_of(store, "evt_1"))[0] == (to if allowed else state)
    assert await lines_of(store, "evt_1") == ([(to, GATEWAY, "30003")] if allowed else [])


async def test_a_repeated_receipt_and_one_that_is_late_change_nothing(
    store: SqlStore, partition: Partition
) -> None:
    await send_one(store, partition, "evt_1", "sent", "SM1")
    assert await store.settle(GATEWAY, "SM1", "delivered", "delivered", NOW_US)
    for late in ("delivered", "sent", "dead"):
        assert not await store.settle(GATEWAY, "SM1", late, "late", NOW_US + 1)
    assert await state_of(store, "evt_1") == ("delivered", "delivered")
    assert await lines_of(store, "evt_1") == [("delivered", GATEWAY, "delivered")]
    counted = [row for row in await store.counters(0) if row[3] == "delivered"]
    assert [row[1:] for row in counted] == [("order.paid", "sms", "delivered", GATEWAY, 1)]
    assert await store.ledger() == []


async def test_the_same_receipt_from_many_at_once_counts_once(store: SqlStore, partition: Partition) -> None:
    await send_one(store, partition, "evt_1", "sent", "SM1")
    moved = await asyncio.gather(
        *(store.settle(GATEWAY, "SM1", state, "x", NOW_US) for state in ("delivered", "dead") * 5)
    )
    assert sum(moved) == 1
    assert len(await lines_of(store, "evt_1")) == 1


async def test_references_are_of_their_provider(store: SqlStore, partition: Partition) -> None:
    await send_one(store, partition, "evt_1", "sent", "SM1")
    assert not await store.settle("twilio://other.example", "SM1", "delivered", "x", NOW_US)
    assert not await store.settle(GATEWAY, "SM2", "delivered", "x", NOW_US)
    assert not await store.has_reference("twilio://other.example", "SM1")
    assert not await store.has_reference(GATEWAY, "SM2")
    assert await store.has_reference(GATEWAY, "SM1")
    assert (await state_of(store, "evt_1"))[0] == "sent"


async def test_all_deliveries_of_one_message_are_settled(store: SqlStore, partition: Partition) -> None:
    for event_id in ("evt_1", "evt_2"):  # of one digest
        await send_one(store, partition, event_id, "sent", "SM1")
    assert await store.settle(GATEWAY, "SM1", "dead", "30005", NOW_US)
    assert [await state_of(store, one) for one in ("evt_1", "evt_2")] == [("dead", "30005")] * 2
