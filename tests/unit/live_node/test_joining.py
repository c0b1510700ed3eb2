"""Joining: what was missed comes with the reply or is said to be lost; what comes meanwhile is held back."""

import asyncio

import pytest

from hub.errors import Refused
from hub.live.node import LiveNode
from hub.live.seam import StreamPosition
from hub.model.vocabulary import BROADCASTS
from tests.support.clock import FakeClock
from tests.support.live_wires import (
    FakeWire,
    LiveStore,
    LossyBus,
    broadcast_publication,
    connect,
    make_broadcast,
    make_user,
    personal_publication,
    settle,
)

ALICE = "#alice"


async def publish(bus: LossyBus, *texts: str, user_id: str = "alice") -> None:
    await bus.publish([personal_publication(user_id, text) for text in texts])
    await settle()


@pytest.mark.req("R3")
@pytest.mark.req("R23")
async def test_a_joined_wire_gets_what_is_published_then(live: LiveNode, bus: LossyBus) -> None:
    wire = FakeWire("alice")
    personal, broadcasts = await connect(live, wire)
    assert (personal.channel, personal.offset, personal.was_recovering) == (ALICE, 0, False)
    assert personal.epoch
    assert (broadcasts.channel, broadcasts.offset) == (BROADCASTS, 0)
    await publish(bus, "one", "two")
    assert wire.payloads() == [b'{"n":"one"}', b'{"n":"two"}']
    assert wire.offsets(ALICE) == [1, 2]


@pytest.mark.req("I16")
async def test_nobody_gets_what_is_addressed_to_another(live: LiveNode, bus: LossyBus) -> None:
    alice, bob = FakeWire("alice"), FakeWire("bob")
    await connect(live, alice)
    # A position of a foreign channel gives no access to it.
    joined = await connect(live, bob, {ALICE: StreamPosition("", 0), "#eve": StreamPosition("", 0)})
    assert [one.channel for one in joined] == ["#bob", BROADCASTS]
    await publish(bus, "secret")
    assert alice.payloads() == [b'{"n":"secret"}']
    assert bob.got == []


@pytest.mark.req("I5")
async def test_a_wire_that_comes_back_gets_what_it_missed(live: LiveNode, bus: LossyBus) -> None:
    wire = FakeWire("alice")
    personal, _ = await connect(live, wire)
    await publish(bus, "one")
    live.leave(wire)
    await publish(bus, "two", "three")
    back = FakeWire("alice")
    again, _ = await connect(live, back, {ALICE: StreamPosition(personal.epoch, 1)})
    assert (again.was_recovering, again.recovered, again.offset) == (True, True, 1)
    assert [(frame.offset, frame.payload) for frame in again.missed] == [
        (2, b'{"n":"two"}'),
        (3, b'{"n":"three"}'),
    ]
    assert back.got == []


async def test_an_offset_at_the_top_misses_nothing(live: LiveNode, bus: LossyBus) -> None:
    await publish(bus, "one")
    wire = FakeWire("alice")
    joined, _ = await connect(live, wire, {ALICE: StreamPosition("", 1)})
    assert (joined.recovered, joined.offset, joined.missed) == (True, 1, [])


@pytest.mark.req("I5")
@pytest.mark.parametrize(
    ("epoch", "offset"),
    [("another", 3), ("", 9), ("another", 9), ("_", 0)],
    ids=["epoch", "beyond", "both", "invalidated"],
)
async def test_a_foreign_position_is_not_recovered(
    live: LiveNode, bus: LossyBus, epoch: str, offset: int
) -> None:
    await connect(live, FakeWire("alice"))
    await publish(bus, "one", "two", "three")
    joined, _ = await connect(live, FakeWire("alice"), {ALICE: StreamPosition(epoch, offset)})
    assert (joined.was_recovering, joined.recovered, joined.offset, joined.missed) == (True, False, 3, [])
    assert joined.epoch.startswith("0.")


@pytest.mark.req("I5")
async def test_what_history_has_trimmed_is_not_recovered(live: LiveNode, bus: LossyBus) -> None:
    await connect(live, FakeWire("bob"))
    await publish(bus, *map(str, range(10)))
    bus.trim(ALICE, 5)
    known, _ = await connect(live, FakeWire("alice"), {ALICE: StreamPosition("", 5)})
    assert [frame.offset for frame in known.missed] == [6, 7, 8, 9, 10]
    lost, _ = await connect(live, FakeWire("alice"), {ALICE: StreamPosition("", 4)})
    assert (lost.recovered, lost.offset, lost.missed) == (False, 10, [])


async def test_more_missed_than_the_cap_is_not_recovered(live: LiveNode, bus: LossyBus) -> None:
    await connect(live, FakeWire("alice"))
    for start in range(0, 301, 50):
        await publish(bus, *map(str, range(start, start + 50)))
    joined, _ = await connect(live, FakeWire("alice"), {ALICE: StreamPosition("", 10)})
    assert not joined.recovered


@pytest.mark.req("I4")
async def test_what_comes_during_the_join_is_held_back_until_the_release(
    live: LiveNode, bus: LossyBus
) -> None:
    await publish(bus, "one")
    wire = FakeWire("alice")
    joined, _ = await live.join(wire, {ALICE: StreamPosition("", 0)})
    await publish(bus, "two", "three")
    await bus.publish([broadcast_publication(make_broadcast(1))])
    await settle()
    assert [frame.offset for frame in joined.missed] == [1]
    assert wire.got == []
    live.release(wire)
    assert wire.offsets(ALICE) == [2, 3]
    assert wire.offsets(BROADCASTS) == [1]
    await publish(bus, "four")
    assert wire.offsets(ALICE) == [2, 3, 4]


@pytest.mark.req("I4")
async def test_what_comes_while_history_is_read_comes_once(live: LiveNode, bus: LossyBus) -> None:
    await publish(bus, "one", "two")
    bus.gate = asyncio.Event()
    wire = FakeWire("alice")
    join = asyncio.create_task(live.join(wire, {ALICE: StreamPosition("", 0)}))
    await settle()
    await publish(bus, "three")  # after the history was read, before its answer came
    bus.gate.set()
    joined, _ = await join
    live.release(wire)
    await publish(bus, "four")
    assert [frame.offset for frame in joined.missed] + wire.offsets(ALICE) == [1, 2, 3, 4]


async def test_a_second_wire_of_a_user_reads_no_history(live: LiveNode, bus: LossyBus) -> None:
    first = FakeWire("alice")
    await connect(live, first)
    await publish(bus, "one", "two")
    bus.histories.clear()
    joined, _ = await connect(live, FakeWire("alice"), {ALICE: StreamPosition("", 1)})
    assert [frame.offset for frame in joined.missed] == [2]
    assert bus.histories == []


async def test_thousands_who_come_back_share_one_read_of_the_broadcasts(
    live: LiveNode, bus: LossyBus, store: LiveStore
) -> None:
    for seq in range(1, 41):
        await bus.publish([broadcast_publication(make_broadcast(seq))])
    await live.close()
    node = LiveNode(live._reached._store, bus, live._clock)  # type: ignore[arg-type]
    await node.start()
    bus.histories.clear()
    store.queries.clear()
    position = {BROADCASTS: StreamPosition("", 10), "#u0": StreamPosition("", 0)}
    joined = await asyncio.gather(
        *(connect(node, FakeWire(f"u{number}"), position) for number in range(1_000))
    )
    assert all([f.offset for f in broadcasts.missed] == list(range(11, 41)) for _, broadcasts in joined)
    assert bus.histories.count(BROADCASTS) == 1
    assert [len(ids) for ids in store.queries] == [500, 500]
    # The same bytes for all of them.
    assert len({id(frame) for _, broadcasts in joined for frame in broadcasts.missed}) == 30
    await node.close()


async def test_of_missed_broadcasts_only_visible_ones_come_back(
    live: LiveNode, bus: LossyBus, store: LiveStore
) -> None:
    store.users["alice"] = make_user("alice", topics=["news"])
    broadcasts = [
        make_broadcast(1, "news"),
        make_broadcast(2, "sport"),
        make_broadcast(3),
        make_broadcast(4, "sport"),
    ]
    await bus.publish([broadcast_publication(one) for one in broadcasts])
    _, joined = await connect(live, FakeWire("alice"), {BROADCASTS: StreamPosition("", 0)})
    assert (joined.recovered, joined.offset) == (True, 0)
    assert [frame.offset for frame in joined.missed] == [1, 3]
    _, none = await connect(live, FakeWire("alice"), {BROADCASTS: StreamPosition("", 3)})
    assert (none.recovered, none.offset, none.missed) == (True, 4, [])


async def test_a_client_that_knows_more_than_the_node_makes_it_look_again(
    live: LiveNode, bus: LossyBus
) -> None:
    first = FakeWire("alice")
    await connect(live, first)
    bus.lose = 2
    await publish(bus, "one", "two")
    joined, _ = await connect(live, FakeWire("alice"), {ALICE: StreamPosition("", 1)})
    assert (joined.recovered, [frame.offset for frame in joined.missed]) == (True, [2])
    assert first.offsets(ALICE) == [1, 2]


async def test_the_channel_stays_open_for_a_while(live: LiveNode, bus: LossyBus, clock: FakeClock) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    live.leave(wire)
    live.leave(wire)
    clock.advance(4)
    await live.tick()
    assert bus.subscribed[ALICE] == 1
    await publish(bus, "one")
    bus.histories.clear()
    back = FakeWire("alice")
    joined, _ = await connect(live, back, {ALICE: StreamPosition("", 0)})
    assert [frame.offset for frame in joined.missed] == [1]
    assert bus.histories == []
    live.leave(back)
    clock.advance(6)
    await live.tick()
    assert bus.subscribed[ALICE] == 0
    await connect(live, FakeWire("alice"))
    assert bus.subscribed[ALICE] == 1


async def test_with_the_bus_away_nobody_joins(live: LiveNode, bus: LossyBus) -> None:
    bus.cut()
    with pytest.raises(Refused) as refused:
        await live.join(FakeWire("alice"), {})
    assert (refused.value.status, refused.value.code, refused.value.retry_after_seconds) == (
        503,
        "unavailable",
        1,
    )
    bus.restore()
    await settle()
    await connect(live, FakeWire("alice"))


async def test_a_failed_join_leaves_nothing_behind(live: LiveNode, bus: LossyBus, clock: FakeClock) -> None:
    bus.fail_histories = 1
    with pytest.raises(Refused):
        await live.join(FakeWire("alice"), {})
    assert live._registry.seats == {}
    assert live._registry.members == {}
    wire = FakeWire("alice")
    await connect(live, wire)
    await publish(bus, "one")
    assert wire.offsets(ALICE) == [1]
    live.leave(wire)
    clock.advance(6)
    await live.tick()
    assert bus.subscribed[ALICE] == 0


async def test_with_the_store_away_nobody_joins(live: LiveNode, store: LiveStore) -> None:
    store.away = True
    with pytest.raises(Refused) as refused:
        await live.join(FakeWire("alice"), {})
    assert refused.value.status == 503
    store.away = False
    await connect(live, FakeWire("alice"))


async def test_a_wire_that_leaves_during_its_join_is_forgotten(live: LiveNode, bus: LossyBus) -> None:
    bus.gate = asyncio.Event()
    wire = FakeWire("alice")
    join = asyncio.create_task(live.join(wire, {}))
    await settle()
    live.leave(wire)
    bus.gate.set()
    with pytest.raises(Refused, match="ended"):
        await join
    assert live._registry.seats == {}
    await publish(bus, "one")
    assert wire.got == []


async def test_a_cancelled_join_is_forgotten(live: LiveNode, bus: LossyBus) -> None:
    bus.gate = asyncio.Event()
    join = asyncio.create_task(live.join(FakeWire("alice"), {}))
    await settle()
    join.cancel()
    bus.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await join
    assert live._registry.seats == {}
