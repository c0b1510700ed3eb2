"""Limits, calls, operators, revocation, draining, and what is counted."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest

from hub.errors import Refused, StoreUnavailable
from hub.live.eventstream import EventStreamConnection
from hub.live.limits import Limits
from hub.live.node import LiveNode
from hub.live.seam import Identity, StreamPosition
from hub.live.websocket import WebSocketConnection
from hub.model.users import Profile, User
from hub.model.vocabulary import BROADCASTS, LOG
from hub.ports import Publication, Store
from hub.ratelimit import RateLimit, RateLimiter
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


class Counts:
    """Live metrics as a counter."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()

    def connections(self, transport: str, change: int) -> None:
        self.of[f"connections {transport}"] += change

    def refused(self, code: str) -> None:
        self.of[f"refused {code}"] += 1

    def received(self, kind: str, publications: int) -> None:
        self.of[f"received {kind}"] += publications

    def delivered(self, kind: str, frames: int) -> None:
        self.of[f"delivered {kind}"] += frames

    def latency(self, kind: str, microseconds: int) -> None:
        self.of[f"latency {kind}"] = microseconds

    def repaired(self, kind: str, publications: int) -> None:
        self.of[f"repaired {kind}"] += publications

    def gapped(self, kind: str, wires: int) -> None:
        self.of[f"gapped {kind}"] += wires

    def reached(self, reports: int) -> None:
        self.of["reached"] += reports

    def reports_dropped(self, reports: int) -> None:
        self.of["dropped"] += reports


async def echo(identity: Identity, data: Any) -> Any:
    return {"user": identity.user_id, "data": data}


async def raw(identity: Identity, data: Any) -> bytes:
    return b'{"ready":"made"}'


async def away(identity: Identity, data: Any) -> Any:
    raise StoreUnavailable("away")


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
async def live(store: LiveStore, bus: LossyBus, clock: FakeClock, counts: Counts) -> AsyncIterator[LiveNode]:
    node = LiveNode(
        cast("Store", store),
        bus,
        clock,
        limits=Limits(connections=5, connections_per_user=2),
        methods={"echo": echo, "raw": raw, "away": away},
        calls_per_user=RateLimiter(RateLimit(6, 60), clock),
        calls_per_connection=RateLimiter(RateLimit(4, 60), clock),
        metrics=counts,
    )
    await node.start()
    yield node
    await node.close()
    await bus.close()


# ---------------------------------------------------------------- connections


@pytest.mark.req("I14")
async def test_connections_are_limited_per_user_and_per_node(live: LiveNode, counts: Counts) -> None:
    wires = [FakeWire(user_id) for user_id in ("a", "a", "b", "b", "c")]
    for wire in wires[:2]:
        await connect(live, wire)
    with pytest.raises(Refused) as refused:
        await live.join(FakeWire("a"), {})
    assert (refused.value.status, refused.value.code) == (429, "too_many_connections")
    for wire in wires[2:]:
        await connect(live, wire)
    with pytest.raises(Refused) as refused:
        await live.join(FakeWire("d"), {})
    assert (refused.value.status, refused.value.code) == (503, "too_many_connections")
    live.leave(wires[0])
    await connect(live, FakeWire("a"))
    assert counts.of["connections websocket"] == 5
    assert counts.of["refused too_many_connections"] == 2


async def test_draining_sends_everyone_away_and_takes_no_more(live: LiveNode) -> None:
    wires = [FakeWire(user_id) for user_id in "abcde"]
    for wire in wires:
        await connect(live, wire)
    await live.drain(seconds=0.01)
    assert {wire.closed for wire in wires} == {(3001, "shutdown")}
    with pytest.raises(Refused) as refused:
        await live.join(FakeWire("f"), {})
    assert (refused.value.status, refused.value.code) == (503, "shutdown")


# ---------------------------------------------------------------- calls


async def test_calls_go_to_the_table(live: LiveNode) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    assert msgspec.json.decode(await live.rpc(wire, "echo", {"n": 1})) == {"user": "alice", "data": {"n": 1}}
    assert msgspec.json.decode(await live.rpc(wire, "echo", msgspec.Raw(b"[2]")))["data"] == [2]
    assert await live.rpc(wire, "raw", None) == b'{"ready":"made"}'
    with pytest.raises(Refused) as refused:
        await live.rpc(wire, "nope", None)
    assert refused.value.status == 404


async def test_a_call_without_the_store_is_told_to_come_back(live: LiveNode) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    with pytest.raises(Refused) as refused:
        await live.rpc(wire, "away", None)
    assert (refused.value.status, refused.value.retry_after_seconds) == (503, 1)


@pytest.mark.parametrize("data", [None, {}, {"visible": "yes"}, {"visible": True, "x": 1}, b"{", b"", [True]])
async def test_presence_wants_a_boolean(live: LiveNode, data: Any) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    with pytest.raises(Refused) as refused:
        await live.rpc(wire, "presence.set", data)
    assert refused.value.status == 422
    assert wire.visible


@pytest.mark.req("I14")
async def test_calls_are_limited_per_connection_and_per_user(live: LiveNode, clock: FakeClock) -> None:
    wires = [FakeWire("alice"), FakeWire("alice"), FakeWire("bob")]
    for wire in wires:
        await connect(live, wire)

    async def accepted(wire: FakeWire) -> int:
        for number in range(20):
            try:
                await live.rpc(wire, "raw", None)
            except Refused as refused:
                return number if refused.status == 429 and refused.retry_after_seconds else -1
        return 20

    assert [await accepted(wire) for wire in wires] == [4, 2, 4]
    clock.advance(15)
    assert await accepted(wires[0]) == 1


# ---------------------------------------------------------------- operators


@pytest.mark.req("R21")
async def test_operators_get_the_log_in_order(live: LiveNode, bus: LossyBus) -> None:
    operator = FakeWire("root", operator=True)
    await connect(live, operator)
    await bus.publish([Publication(LOG, b"1", header="kind=log")])
    joined = await live.subscribe(operator, LOG, StreamPosition("", 0))
    assert [frame.payload for frame in joined.missed] == [b"1"]
    await bus.publish([Publication(LOG, b"2", header="kind=log")])
    await bus.publish([personal_publication("root", "mine")])
    await settle()
    assert operator.payloads() == [b'{"n":"mine"}']  # only the log is held back
    live.release(operator)
    await bus.publish([Publication(LOG, b"3", header="kind=log")])
    await settle()
    assert operator.payloads(LOG) == [b"2", b"3"]
    assert operator.frames[-1].kind == "log"
    with pytest.raises(Refused) as refused:
        await live.subscribe(operator, LOG, None)
    assert refused.value.status == 409
    live.unsubscribe(operator, LOG)
    live.unsubscribe(operator, LOG)
    await bus.publish([Publication(LOG, b"4", header="kind=log")])
    await settle()
    assert operator.payloads(LOG) == [b"2", b"3"]


@pytest.mark.req("I16")
@pytest.mark.parametrize("channel", [LOG, "#alice", "#bob", BROADCASTS, "", "anything"])
async def test_users_subscribe_to_nothing(live: LiveNode, channel: str) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    with pytest.raises(Refused) as refused:
        await live.subscribe(wire, channel, None)
    assert refused.value.status == 403
    live.unsubscribe(wire, channel)


@pytest.mark.req("I16")
async def test_operators_read_nobody_elses_channel(live: LiveNode) -> None:
    wire = FakeWire("root", operator=True)
    await connect(live, wire)
    with pytest.raises(Refused) as refused:
        await live.subscribe(wire, "#alice", None)
    assert refused.value.status == 403


# ---------------------------------------------------------------- history


async def test_pages_of_ones_own_history(live: LiveNode, bus: LossyBus, clock: FakeClock) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    await bus.publish([personal_publication("alice", str(number)) for number in range(1, 11)])
    await settle()
    epoch = wire.got[0][1]

    async def page(limit: int, since: int | None = None, reverse: bool = False) -> list[int]:
        clock.advance(60)
        position = None if since is None else StreamPosition(epoch, since)
        joined = await live.history(wire, "#alice", limit, position, reverse)
        assert (joined.epoch, joined.offset) == (epoch, 10)
        return [frame.offset for frame in joined.missed]

    assert await page(0) == []
    assert await page(-1) == list(range(1, 11))
    assert await page(3) == [1, 2, 3]
    assert await page(3, since=4) == [5, 6, 7]
    assert await page(3, reverse=True) == [10, 9, 8]
    assert await page(3, since=4, reverse=True) == [3, 2, 1]
    assert await page(3, since=10) == []
    other = await live.history(wire, "#alice", 5, StreamPosition("another", 0), False)
    assert (other.epoch, other.missed) == (epoch, [])
    with pytest.raises(Refused) as refused:
        await live.history(wire, "#alice", 5, StreamPosition(epoch, 0), True)
    assert refused.value.status == 400


@pytest.mark.req("I16")
async def test_history_shows_only_what_one_may_see(live: LiveNode, bus: LossyBus, store: LiveStore) -> None:
    store.users["alice"] = make_user("alice", topics=["news"])
    wire = FakeWire("alice")
    await bus.publish(
        [
            broadcast_publication(make_broadcast(seq, topic))
            for seq, topic in enumerate(["news", "sport", "news"], 1)
        ]
    )
    await connect(live, wire)
    joined = await live.history(wire, BROADCASTS, -1, None, False)
    assert [frame.offset for frame in joined.missed] == [1, 3]
    newest = await live.history(wire, BROADCASTS, 1, None, True)
    assert [frame.offset for frame in newest.missed] == [3]
    for channel in ("#bob", LOG, "nothing"):
        with pytest.raises(Refused) as refused:
            await live.history(wire, channel, -1, None, False)
        assert refused.value.status in (403, 429)


# ---------------------------------------------------------------- revocation


@pytest.mark.req("R34")
async def test_a_revocation_closes_older_connections(live: LiveNode, bus: LossyBus) -> None:
    old, new, other = FakeWire("alice", issued_at_us=10), FakeWire("alice", issued_at_us=30), FakeWire("bob")
    for wire in (old, new, other):
        await connect(live, wire)
    await bus.send_control(msgspec.json.encode({"kind": "revoked", "id": "alice", "before_us": 20}))
    await settle()
    assert [wire.closed for wire in (old, new, other)] == [(3500, "invalid token"), None, None]


@pytest.mark.req("R34")
async def test_a_revocation_whose_message_was_lost_is_found_in_the_row(
    live: LiveNode, store: LiveStore, clock: FakeClock
) -> None:
    wire = FakeWire("alice", issued_at_us=10)
    await connect(live, wire)
    store.users["alice"] = User(Profile("alice"), version=2, tokens_valid_from_us=20)
    clock.advance(61)
    await live.tick()
    await settle()
    assert wire.closed == (3500, "invalid token")
    with pytest.raises(Refused) as refused:
        await live.join(FakeWire("alice", issued_at_us=10), {})
    assert (refused.value.status, refused.value.code) == (403, "token_revoked")


@pytest.mark.req("R34")
async def test_a_revocation_during_a_join_refuses_it(live: LiveNode, bus: LossyBus, store: LiveStore) -> None:
    store.gate = asyncio.Event()
    wire = FakeWire("alice", issued_at_us=10)
    join = asyncio.create_task(live.join(wire, {}))
    await settle()
    await bus.send_control(msgspec.json.encode({"kind": "revoked", "id": "alice", "before_us": 20}))
    await settle()
    store.gate.set()
    with pytest.raises(Refused) as refused:
        await join
    assert (refused.value.status, refused.value.code) == (403, "token_revoked")
    assert wire.closed is None  # the refusal is the answer


async def test_presence_may_come_from_another_node(live: LiveNode, bus: LossyBus) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    message = {"kind": "presence", "id": "alice", "connection": wire.connection_id, "visible": False}
    await bus.send_control(msgspec.json.encode({**message, "id": "bob"}))
    await settle()
    assert wire.visible
    await bus.send_control(msgspec.json.encode(message))
    await settle()
    assert not wire.visible
    assert live.set_presence("alice", wire.connection_id, True)
    assert wire.visible
    assert not live.set_presence("alice", "unknown", True)


async def test_controls_that_nobody_understands_change_nothing(live: LiveNode, bus: LossyBus) -> None:
    for body in (
        b"",
        b"{",
        b"[]",
        b'{"kind": 5}',
        b'{"kind": "catalog"}',
        b'{"kind": "user", "id": "nobody"}',
    ):
        await bus.send_control(body)
    await settle()
    await connect(live, FakeWire("alice"))


# ---------------------------------------------------------------- counts


async def test_what_happens_is_counted(
    live: LiveNode, bus: LossyBus, counts: Counts, clock: FakeClock
) -> None:
    wire = FakeWire("alice", transport="sse")
    await connect(live, wire)
    at = clock.now_us()
    clock.advance(0.25)
    await bus.publish([personal_publication("alice", "1", f"kind=notification;at={at}")])
    await bus.publish([broadcast_publication(make_broadcast(1), f"at={at}")])
    await settle()
    bus.lose = 1
    await bus.publish([personal_publication("alice", text) for text in "23"])
    await settle()
    bus.wipe()
    await bus.publish([personal_publication("alice", "4")])
    await settle()
    live.leave(wire)
    live.leave(wire)
    assert counts.of == {
        "connections sse": 0,
        "received personal": 3,
        "received broadcasts": 1,
        "delivered personal": 3,
        "delivered broadcasts": 1,
        "latency personal": 250_000,
        "latency broadcasts": 250_000,
        "repaired personal": 2,
        "gapped personal": 1,
    }


def test_connections_name_their_transport() -> None:
    assert (WebSocketConnection.transport, EventStreamConnection.transport) == ("websocket", "sse")
