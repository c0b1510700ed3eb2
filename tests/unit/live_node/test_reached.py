"""Reports of what was reached: written to a visible wire, whose peer proved afterwards that it reads."""

import pytest
from msgspec.structs import replace

from hub.live.node import LiveNode
from hub.live.reached import UNPROVEN
from hub.live.seam import StreamPosition
from hub.model.users import User
from hub.model.vocabulary import Channel
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


async def publish(bus: LossyBus, *ids: str) -> None:
    await bus.publish([personal_publication("alice", one, f"kind=notification;reach={one}") for one in ids])
    await settle()


def pong(live: LiveNode, wire: FakeWire, clock: FakeClock) -> None:
    live.proven_alive(wire, clock.advance(1))


async def stored(live: LiveNode, store: LiveStore) -> list[tuple[str, str]]:
    await live._reached.flush()
    return [(user_id, notification_id) for user_id, notification_id, _ in store.reports]


async def test_a_pong_after_it_reports_what_was_written(
    live: LiveNode, bus: LossyBus, store: LiveStore, clock: FakeClock
) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    written_us = clock.now_us()
    await publish(bus, "ntf_1")
    await bus.publish([personal_publication("alice", "unflagged")])
    await settle()
    assert await stored(live, store) == []
    pong(live, wire, clock)
    assert await stored(live, store) == [("alice", "ntf_1")]
    assert store.reports[0][2] == written_us
    pong(live, wire, clock)
    assert len(await stored(live, store)) == 1


async def test_a_hidden_wire_reports_nothing(
    live: LiveNode, bus: LossyBus, store: LiveStore, clock: FakeClock
) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    await live.rpc(wire, "presence.set", {"visible": False})
    await publish(bus, "ntf_1")
    pong(live, wire, clock)
    assert await stored(live, store) == []
    await live.rpc(wire, "presence.set", b'{"visible":true}')
    await publish(bus, "ntf_2")
    pong(live, wire, clock)
    assert await stored(live, store) == [("alice", "ntf_2")]


async def test_a_proof_from_before_it_proves_nothing(
    live: LiveNode, bus: LossyBus, store: LiveStore, clock: FakeClock
) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    before_us = clock.now_us()
    clock.advance(1)
    await publish(bus, "ntf_1")
    live.proven_alive(wire, before_us)
    assert await stored(live, store) == []
    pong(live, wire, clock)
    assert await stored(live, store) == [("alice", "ntf_1")]


async def test_a_proof_is_asked_for_when_it_is_needed_and_again_for_what_came_meanwhile(
    live: LiveNode, bus: LossyBus, store: LiveStore, clock: FakeClock
) -> None:
    wire, hidden = FakeWire("alice"), FakeWire("alice")
    for one in (wire, hidden):
        await connect(live, one)
    await live.rpc(hidden, "presence.set", {"visible": False})
    await bus.publish([personal_publication("alice", "unflagged")])
    await settle()
    assert wire.asked == 0
    await publish(bus, "ntf_1")
    assert (wire.asked, hidden.asked) == (1, 0)
    asked_us = clock.now_us()
    clock.advance(1)
    await publish(bus, "ntf_2")
    asked = wire.asked
    live.proven_alive(wire, asked_us)
    assert await stored(live, store) == [("alice", "ntf_1")]
    assert wire.asked == asked + 1
    pong(live, wire, clock)
    assert await stored(live, store) == [("alice", "ntf_1"), ("alice", "ntf_2")]
    assert wire.asked == asked + 1


async def test_what_came_with_the_reply_counts_and_two_wires_report_once(
    live: LiveNode, bus: LossyBus, store: LiveStore, clock: FakeClock
) -> None:
    await publish(bus, "ntf_1")
    wires = [FakeWire("alice"), FakeWire("alice")]
    for wire in wires:
        joined, _ = await connect(live, wire, {"#alice": StreamPosition("", 0)})
        assert len(joined.missed) == 1
        assert wire.asked == 1
    for wire in wires:
        pong(live, wire, clock)
        assert await stored(live, store) == [("alice", "ntf_1")]


def with_browser(user_id: str) -> User:
    """Somebody whom push could reach, were the app not open."""
    return replace(make_user(user_id), reachable=frozenset({Channel.WEB_PUSH}))


async def test_a_flagged_broadcast_is_reported_for_each_user(
    live: LiveNode, bus: LossyBus, store: LiveStore, clock: FakeClock
) -> None:
    store.users |= {user_id: with_browser(user_id) for user_id in ("alice", "bob")}
    wires = [FakeWire("alice"), FakeWire("bob")]
    for wire in wires:
        await connect(live, wire)
    await bus.publish([broadcast_publication(make_broadcast(1), "reach=ntf_1")])
    await settle()
    for wire in wires:
        pong(live, wire, clock)
    assert await stored(live, store) == [("alice", "ntf_1"), ("bob", "ntf_1")]


@pytest.mark.req("R37")
async def test_a_flagged_broadcast_asks_only_who_sees_it_and_an_unflagged_one_nobody(
    live: LiveNode, bus: LossyBus, store: LiveStore, clock: FakeClock
) -> None:
    store.users |= {user_id: with_browser(user_id) for user_id in ("alice", "bob", "carol")}
    wire, hidden, excluded = FakeWire("alice"), FakeWire("bob"), FakeWire("carol")
    nowhere_else = FakeWire("dora")  # nothing but the app could reach her: her ping would be for nothing
    for one in (wire, hidden, excluded, nowhere_else):
        await connect(live, one)
    await live.rpc(hidden, "presence.set", {"visible": False})
    await bus.publish([broadcast_publication(make_broadcast(1))])
    await settle()
    assert (wire.asked, hidden.asked, excluded.asked) == (0, 0, 0)
    await bus.publish([broadcast_publication(make_broadcast(2, exclude=["carol"]), "reach=ntf_2")])
    await settle()
    assert (len(wire.frames), len(hidden.frames), len(excluded.frames)) == (2, 2, 1)
    assert (wire.asked, hidden.asked, excluded.asked) == (1, 0, 0)
    assert (len(nowhere_else.frames), nowhere_else.asked) == (2, 0)
    assert await stored(live, store) == []
    for one in (wire, hidden, excluded):
        pong(live, one, clock)
    assert await stored(live, store) == [("alice", "ntf_2")]


async def test_reports_wait_for_the_store(
    live: LiveNode, bus: LossyBus, store: LiveStore, clock: FakeClock
) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    store.away = True
    await publish(bus, "ntf_1")
    pong(live, wire, clock)
    assert await stored(live, store) == []
    store.away = False
    assert await stored(live, store) == [("alice", "ntf_1")]


async def test_reports_that_wait_are_stored_at_the_end(
    live: LiveNode, bus: LossyBus, store: LiveStore, clock: FakeClock
) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    await publish(bus, "ntf_1")
    pong(live, wire, clock)
    await live.close()
    assert [one[:2] for one in store.reports] == [("alice", "ntf_1")]


@pytest.mark.req("I14")
async def test_a_peer_that_never_answers_costs_bounded_memory(
    live: LiveNode, bus: LossyBus, store: LiveStore, clock: FakeClock
) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    for start in range(0, 200, 50):
        await publish(bus, *(f"ntf_{number}" for number in range(start, start + 50)))
    pong(live, wire, clock)
    # The newest are reported; for the others backfill goes out.
    assert await stored(live, store) == [("alice", f"ntf_{number}") for number in range(200 - UNPROVEN, 200)]
