"""Repair: what the bus lost comes from history, in order; what history lost is said to be lost."""

import asyncio

import pytest

from hub.live.node import LiveNode
from hub.live.seam import StreamPosition
from hub.model.vocabulary import BROADCASTS
from hub.ports import Message, Position, Publication
from tests.support.clock import FakeClock
from tests.support.live_wires import (
    FakeWire,
    LiveStore,
    LossyBus,
    broadcast_publication,
    connect,
    make_broadcast,
    personal_publication,
    settle,
)

ALICE = "#alice"


async def publish(bus: LossyBus, *texts: str, user_id: str = "alice") -> None:
    await bus.publish([personal_publication(user_id, text) for text in texts])
    await settle()


@pytest.fixture
async def wire(live: LiveNode) -> FakeWire:
    wire = FakeWire("alice")
    await connect(live, wire)
    return wire


@pytest.mark.req("I4")
async def test_a_lost_message_is_repaired_by_the_next(bus: LossyBus, wire: FakeWire) -> None:
    await publish(bus, "1")
    bus.lose = 2
    await publish(bus, "2", "3")
    assert wire.offsets(ALICE) == [1]
    await publish(bus, "4", "5")
    assert wire.offsets(ALICE) == [1, 2, 3, 4, 5]
    assert wire.gaps == []


@pytest.mark.req("I6")
async def test_a_lost_last_message_is_found_when_the_link_is_back(bus: LossyBus, wire: FakeWire) -> None:
    await publish(bus, "1")
    bus.cut()
    await publish(bus, "2")
    await bus.publish([broadcast_publication(make_broadcast(1))])
    bus.restore()
    await settle()
    assert wire.offsets(ALICE) == [1, 2]
    assert wire.offsets(BROADCASTS) == [1]
    assert wire.gaps == []


@pytest.mark.req("I6")
async def test_a_silently_lost_last_message_is_found_by_comparing(
    live: LiveNode, bus: LossyBus, wire: FakeWire, clock: FakeClock
) -> None:
    others = [FakeWire(f"u{number}") for number in range(50)]
    for other in others:
        await connect(live, other)
    bus.lose = 2
    await publish(bus, "1")
    await bus.publish([broadcast_publication(make_broadcast(1))])
    await settle()
    assert wire.got == []
    await live.tick()
    assert wire.offsets(BROADCASTS) == [1]  # compared every time
    for _ in range(31):
        clock.advance(1)
        await live.tick()
    assert wire.offsets(ALICE) == [1]


@pytest.mark.req("I6")
async def test_a_repair_that_fails_is_tried_again(live: LiveNode, bus: LossyBus, wire: FakeWire) -> None:
    for number in range(90):
        await connect(live, FakeWire(f"u{number}"))  # one comparison sees only a few of so many
    bus.lose = 1
    await publish(bus, "1")
    bus.fail_histories = 1
    await publish(bus, "2")
    assert wire.got == []
    await live.tick()
    assert wire.offsets(ALICE) == [1, 2]


@pytest.mark.req("I6")
async def test_catching_up_that_fails_is_tried_again(live: LiveNode, bus: LossyBus, wire: FakeWire) -> None:
    bus.cut()
    await publish(bus, "1")
    bus.fail_histories = 1
    bus.restore()
    await settle()
    assert wire.got == []
    await live.tick()
    assert wire.offsets(ALICE) == [1]


@pytest.mark.req("I5")
@pytest.mark.parametrize("fault", ["trimmed", "wiped", "lagging"])
async def test_what_history_lost_is_a_gap(live: LiveNode, bus: LossyBus, wire: FakeWire, fault: str) -> None:
    bystander = FakeWire("bob")
    await connect(live, bystander)
    await publish(bus, "1", "2", "3")
    bus.cut()
    match fault:
        case "trimmed":
            await publish(bus, "4", "5", "6")
            bus.trim(ALICE, 2)
        case "wiped":
            bus.wipe()
        case "lagging":
            bus.lag(ALICE, 1)
    bus.restore()
    await settle()
    assert wire.gaps.count(ALICE) == 1
    assert wire.offsets(ALICE) == [1, 2, 3]
    assert ALICE not in bystander.gaps
    # It goes on from the top, and who comes now gets a position that holds.
    late = FakeWire("alice")
    personal, _ = await connect(live, late)
    await publish(bus, "7")
    assert wire.payloads()[-1] == b'{"n":"7"}'
    assert late.offsets(ALICE) == [personal.offset + 1]
    assert wire.gaps.count(ALICE) == 1


@pytest.mark.req("I5")
async def test_another_epoch_is_noticed_by_its_first_message(bus: LossyBus, wire: FakeWire) -> None:
    await publish(bus, "1", "2", "3")
    bus.wipe()
    await publish(bus, "4")
    assert wire.gaps == [ALICE]
    await publish(bus, "5")
    assert wire.payloads()[3:] == [b'{"n":"5"}']
    await bus.publish([broadcast_publication(make_broadcast(1))])
    await settle()
    assert wire.gaps == [ALICE, BROADCASTS]


@pytest.mark.req("I5")
async def test_positions_of_the_new_epoch_recover_what_it_holds(
    live: LiveNode, bus: LossyBus, wire: FakeWire
) -> None:
    await publish(bus, "1", "2", "3")
    bus.wipe()
    await publish(bus, "4")
    await publish(bus, "5", "6")
    epoch = wire.got[-1][1]
    joined, _ = await connect(live, FakeWire("alice"), {ALICE: StreamPosition(epoch, 1)})
    assert [(frame.epoch, frame.payload) for frame in joined.missed] == [
        (epoch, b'{"n":"5"}'),
        (epoch, b'{"n":"6"}'),
    ]


@pytest.mark.req("I5")
async def test_a_raised_generation_ends_every_epoch(live: LiveNode, bus: LossyBus, wire: FakeWire) -> None:
    await publish(bus, "1")
    bus.cut()
    bus.generation = "1"
    bus.restore()
    await settle()
    assert sorted(wire.gaps) == [ALICE, BROADCASTS]
    old = StreamPosition(wire.got[0][1], 1)
    joined, _ = await connect(live, FakeWire("alice"), {ALICE: old})
    assert (joined.was_recovering, joined.recovered) == (True, False)
    assert joined.epoch.startswith("1.")


async def test_a_gap_on_broadcasts_comes_after_what_was_before(
    live: LiveNode, bus: LossyBus, wire: FakeWire
) -> None:
    order: list[str] = []
    wire.on_push = lambda frame: order.append(f"push {frame.offset}")
    wire.gap = lambda channel: order.append(f"gap {channel}")  # type: ignore[method-assign]
    await bus.publish([broadcast_publication(make_broadcast(1))])
    bus.wipe()
    await bus.publish([broadcast_publication(make_broadcast(2)), broadcast_publication(make_broadcast(3))])
    await settle()
    await bus.publish([broadcast_publication(make_broadcast(4))])
    await settle()
    assert order == ["push 1", f"gap {BROADCASTS}", "push 3"]


async def test_a_gap_before_the_release_comes_after_the_reply(live: LiveNode, bus: LossyBus) -> None:
    wire = FakeWire("alice")
    await live.join(wire, {})
    await publish(bus, "1")
    bus.wipe()
    await publish(bus, "2")
    assert (wire.got, wire.gaps) == ([], [])
    live.release(wire)
    assert (wire.offsets(ALICE), wire.gaps) == ([1], [ALICE])


@pytest.mark.req("I5")
async def test_an_epoch_that_ends_during_a_join_is_not_recovered(live: LiveNode, bus: LossyBus) -> None:
    await publish(bus, "1", "2", "3")
    await connect(live, FakeWire("alice"))
    gate = bus.gate = asyncio.Event()
    wire = FakeWire("alice")
    join = asyncio.create_task(live.join(wire, {ALICE: StreamPosition("", 1)}))
    await settle()
    bus.gate = None  # the join's history is on its way; later ones overtake it
    bus.wipe()
    await publish(bus, "4")
    gate.set()
    joined, _ = await join
    live.release(wire)
    await publish(bus, "5")
    assert (joined.was_recovering, joined.recovered, joined.missed) == (True, False, [])
    assert wire.gaps == []
    assert wire.offsets(ALICE) == [joined.offset + 1]


async def test_an_owner_who_repeats_changes_nothing(bus: LossyBus, wire: FakeWire) -> None:
    first = Publication(ALICE, b"1", Position(1, 0, 0))
    second = Publication(ALICE, b"2", Position(1, 0, 1))
    await bus.publish([first, second])
    await bus.publish([first, second, Publication(ALICE, b"3", Position(2, 0, 0))])
    await settle()
    assert wire.payloads(ALICE) == [b"1", b"2", b"3"]


@pytest.mark.req("I4")
async def test_repeated_and_late_messages_are_dropped(live: LiveNode, bus: LossyBus, wire: FakeWire) -> None:
    await publish(bus, "1", "2")
    epoch = wire.got[0][1]
    live.receive_message(Message(ALICE, epoch, 1, "", b"again"))
    live.receive_message(Message(ALICE, "0.old", 2, "", b"late"))  # of a life that is over: history says so
    live.receive_message(Message("#nobody", epoch, 1, "", b"unasked"))
    await settle()
    await publish(bus, "3")
    assert wire.payloads() == [b'{"n":"1"}', b'{"n":"2"}', b'{"n":"3"}']
    assert wire.gaps == []


@pytest.mark.req("I4")
async def test_a_flood_during_a_repair_is_delivered_whole(bus: LossyBus, wire: FakeWire) -> None:
    bus.lose = 1
    await publish(bus, "0")
    bus.gate = asyncio.Event()
    await publish(bus, *map(str, range(1, 40)))  # the repair began and waits
    await publish(bus, *map(str, range(40, 80)))
    assert wire.got == []
    bus.gate.set()
    await settle()
    assert wire.offsets(ALICE) == list(range(1, 81))


async def test_more_buffered_than_fits_is_read_again(live: LiveNode, bus: LossyBus, wire: FakeWire) -> None:
    bus.gate = asyncio.Event()
    bus.lose = 1
    await bus.publish([broadcast_publication(make_broadcast(1))])
    await settle()
    for seq in range(2, 902):
        await bus.publish([broadcast_publication(make_broadcast(seq))])
    await settle()
    for again in range(2_500):  # hints may repeat
        live.receive_message(Message(BROADCASTS, "0.old", again, "", b""))
    bus.gate.set()
    await settle(200)
    assert wire.offsets(BROADCASTS) == list(range(1, 902))


async def test_rows_are_loaded_again_after_a_loss(
    live: LiveNode, bus: LossyBus, wire: FakeWire, store: LiveStore
) -> None:
    store.queries.clear()
    bus.cut()
    bus.restore()
    await settle()
    assert store.queries == [["alice"]]
