"""Broadcasts: the payload, who gets them live, in which frames, and what waits for whom."""

import asyncio
import json
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.live.broadcasts import BroadcastEntry, decode, encode_broadcast, encode_broadcast_retracted
from hub.live.node import LiveNode
from hub.live.seam import StreamPosition
from hub.model.events import BroadcastAudience
from hub.model.notifications import LiveNotification, encode_live, wire_broadcast
from hub.model.users import Muted, Only, OnlyRule, Preferences, Profile, Subscription, User
from hub.model.visibility import visible
from hub.model.vocabulary import BROADCASTS, Channel
from hub.ports import Message, Publication, Store
from tests.support.clock import FakeClock
from tests.support.live_wires import (
    FakeWire,
    LiveStore,
    LossyBus,
    broadcast_publication,
    connect,
    make_broadcast,
    make_user,
    settle,
)


def entry_of(payload: bytes) -> BroadcastEntry:
    return BroadcastEntry(Message(BROADCASTS, "0.e", 7, "at=5;reach=ntf_1", payload))


# ---------------------------------------------------------------- the payload


def test_a_spliced_frame_is_what_the_inbox_would_say() -> None:
    nasty = 'a "topic":null, and \\"topic\\":null'
    broadcast = make_broadcast(3, "news", event_id="evt_3", actor="carol")
    content = broadcast.contents[""]
    broadcast = msgspec.structs.replace(
        broadcast,
        contents={"": msgspec.structs.replace(content, title=nasty, data={"topic": None}), "ko": content},
    )
    entry = entry_of(encode_broadcast(broadcast))
    for locale, key in ((None, ""), ("en", ""), ("ko-KR", "ko")):
        for topic in ("news", None, 'quote"'):
            said = json.loads(entry.frame_in(locale, topic).payload)
            assert said == json.loads(
                encode_live(LiveNotification(wire_broadcast(broadcast, key, topic, None)))
            )
    assert entry.frame_in("ko", "news") is entry.frame_in("ko-KR", "news")
    frame = entry.frame_in(None, "news")
    assert (frame.channel, frame.epoch, frame.offset, frame.kind, frame.report_id) == (
        BROADCASTS,
        "0.e",
        7,
        "notification",
        "ntf_1",
    )
    assert entry.accepted_at_us == 5


def test_the_payload_carries_no_text_twice() -> None:
    broadcast = decode(encode_broadcast(make_broadcast(1))).broadcast
    assert broadcast.contents == {}
    assert broadcast.id == "ntf_1"


def test_a_retraction_says_the_id_alone() -> None:
    entry = entry_of(encode_broadcast_retracted(make_broadcast(3, "news")))
    frame = entry.frame_in("ko", "news")
    assert frame.kind == "retracted"
    assert json.loads(frame.payload) == {
        "kind": "retracted",
        "ids": ["ntf_3"],
        "unread": None,
        "unseen": None,
    }


async def test_what_nobody_understands_is_for_nobody_and_stops_nothing(live: LiveNode, bus: LossyBus) -> None:
    wire = FakeWire("alice")
    await connect(live, wire)
    await bus.publish(
        [Publication(BROADCASTS, b"\xc1 not msgpack"), broadcast_publication(make_broadcast(1))]
    )
    await settle()
    assert wire.offsets(BROADCASTS) == [2]


# ---------------------------------------------------------------- who gets it


async def ids_of(wires: list[FakeWire]) -> list[str]:
    await settle()
    return sorted(wire.identity.user_id for wire in wires if wire.offsets(BROADCASTS))


@pytest.fixture
async def crowd(live: LiveNode, store: LiveStore) -> list[FakeWire]:
    """Connected users: with and without rows, topics, languages and rules."""
    store.users = {
        "ann": make_user("ann", topics=["news"]),
        "bob": make_user("bob", topics=["news", "sport"], locale="ko"),
        "cat": make_user("cat", topics=["news"], muted=Muted(actors=["zoe"])),
        "dan": make_user("dan", topics=[Subscription("news", 1, 5), Subscription("sport", 3)]),
        "eve": make_user("eve", topics=["news"], channels={Channel.IN_APP: False}),
    }
    wires = [FakeWire(user_id) for user_id in ("ann", "bob", "cat", "dan", "eve", "new")]
    for wire in wires:
        await connect(live, wire)
    return wires


@pytest.mark.req("R19")
@pytest.mark.req("R12")
@pytest.mark.parametrize(
    ("broadcast", "expected"),
    [
        (make_broadcast(9), ["ann", "bob", "cat", "dan", "new"]),
        (make_broadcast(9, exclude=["bob", "new"]), ["ann", "cat", "dan"]),
        (make_broadcast(9, "news"), ["ann", "bob", "cat"]),
        (make_broadcast(4, "news"), ["ann", "bob", "cat", "dan"]),
        (make_broadcast(2, "sport"), ["bob"]),
        (make_broadcast(9, "sport", "news", actor="zoe"), ["ann", "bob", "dan"]),
        (make_broadcast(9, actor="zoe"), ["ann", "bob", "dan", "new"]),
        (make_broadcast(9, actor="zoe", critical=True), ["ann", "bob", "cat", "dan", "eve", "new"]),
        (make_broadcast(9, default_in_app=False), []),
        (make_broadcast(9, default_in_app=False, critical=True), ["ann", "bob", "cat", "dan", "eve", "new"]),
        (make_broadcast(9, in_app=False), []),
        (make_broadcast(9, "unknown"), []),
    ],
)
async def test_a_broadcast_reaches_who_may_see_it(
    live: LiveNode, bus: LossyBus, crowd: list[FakeWire], broadcast: Any, expected: list[str]
) -> None:
    await bus.publish([broadcast_publication(broadcast)])
    assert await ids_of(crowd) == expected


async def test_time_zones_cut_an_audience(live: LiveNode, bus: LossyBus, store: LiveStore) -> None:
    store.users["ann"] = User(Profile("ann", timezone="Asia/Seoul"), version=1)
    wires = [FakeWire("ann"), FakeWire("bob")]
    for wire in wires:
        await connect(live, wire)
    seoul = make_broadcast(1, audience=BroadcastAudience(everyone=True, timezones=("Asia/Seoul",)))
    utc = make_broadcast(2, audience=BroadcastAudience(everyone=True, timezones=("UTC",)))
    await bus.publish([broadcast_publication(seoul), broadcast_publication(utc)])
    await settle()
    assert [wire.offsets(BROADCASTS) for wire in wires] == [[1], [2]]


async def test_what_has_expired_comes_no_more(live: LiveNode, bus: LossyBus, clock: FakeClock) -> None:
    wire = FakeWire("ann")
    await connect(live, wire)
    row = make_broadcast(1, expires_at_us=clock.now_us() + 10_000_000)
    await bus.publish([broadcast_publication(row), broadcast_publication(make_broadcast(2))])
    await settle()
    assert wire.offsets(BROADCASTS) == [1, 2]
    clock.advance(11)
    _, joined = await connect(live, FakeWire("ann"), {BROADCASTS: StreamPosition("", 0)})
    assert (joined.recovered, [frame.offset for frame in joined.missed]) == (True, [2])
    await bus.publish([Publication(BROADCASTS, encode_broadcast_retracted(row))])
    await settle()
    assert wire.offsets(BROADCASTS) == [1, 2, 3]


async def test_frames_are_shared_by_language_and_topic(
    live: LiveNode, bus: LossyBus, crowd: list[FakeWire]
) -> None:
    await bus.publish([broadcast_publication(make_broadcast(9, "sport", "news"))])
    await settle()
    ann, bob, cat, dan = (wire.frames[0] for wire in crowd[:4])
    assert ann is cat
    assert json.loads(ann.payload)["notification"]["topic"] == "news"
    assert json.loads(dan.payload)["notification"]["topic"] == "sport"
    assert json.loads(bob.payload)["notification"]["title"] == "번호 9"
    assert len({id(frame) for frame in (ann, bob, dan)}) == 3


async def test_a_retraction_reaches_who_could_see_it(
    live: LiveNode, bus: LossyBus, crowd: list[FakeWire]
) -> None:
    await bus.publish([Publication(BROADCASTS, encode_broadcast_retracted(make_broadcast(2, "sport")))])
    assert await ids_of(crowd) == ["bob"]


names = st.sampled_from(["ann", "bob", "zoe"])
topic_names = st.sampled_from(["news", "sport", "art"])
intervals = st.builds(
    lambda topic, start, length: Subscription(topic, start, None if length is None else start + length),
    topic_names,
    st.integers(1, 6),
    st.none() | st.integers(0, 4),
)
preferences = st.builds(
    Preferences,
    channels=st.dictionaries(st.just(Channel.IN_APP), st.booleans()),
    categories=st.dictionaries(
        st.sampled_from(["posts", "other"]),
        st.booleans() | st.dictionaries(st.just(Channel.IN_APP), st.booleans()),
    ),
    muted=st.builds(Muted, actors=st.lists(names, max_size=1), topics=st.lists(topic_names, max_size=1)),
    only=st.builds(
        Only,
        categories=st.dictionaries(
            st.just("posts"),
            st.builds(
                OnlyRule,
                actors=st.none() | st.lists(names, max_size=1),
                topics=st.none() | st.lists(topic_names, max_size=2),
            ),
        ),
    ),
)
users = st.builds(
    lambda locale, zone, chosen, subscriptions: User(
        Profile("ann", locale=locale, timezone=zone), chosen, 1, tuple(subscriptions)
    ),
    st.sampled_from([None, "ko", "ko-KR", "en"]),
    st.sampled_from([None, "UTC", "Asia/Seoul"]),
    st.just(Preferences()) | preferences,
    st.lists(intervals, max_size=4),
)
audiences = st.builds(
    BroadcastAudience,
    topics=st.lists(topic_names, max_size=2, unique=True).map(tuple),
    everyone=st.booleans(),
    exclude=st.lists(names, max_size=1).map(tuple),
    timezones=st.none() | st.just(("Asia/Seoul",)),
)
broadcasts = st.builds(
    lambda seq, audience, actor, flags: make_broadcast(
        seq, audience=audience, actor=actor, in_app=flags[0], default_in_app=flags[1], critical=flags[2]
    ),
    st.integers(1, 9),
    audiences,
    st.none() | names,
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)


@pytest.mark.req("R12")
@settings(max_examples=300, deadline=None)
@given(users, st.lists(broadcasts, min_size=1, max_size=4))
def test_live_delivery_agrees_with_visible(user: User, published: list[Any]) -> None:
    """What a user gets live is what `visible` lets them list: same set, same topic, same language."""
    published = [
        msgspec.structs.replace(one, seq=seq + 1) for seq, one in enumerate(published)
    ]  # as the lane gives them

    async def run() -> list[bytes]:
        clock = FakeClock()
        store = LiveStore()
        store.users["ann"] = user
        bus = LossyBus(clock)
        node = LiveNode(cast("Store", store), bus, clock)
        await node.start()
        wire = FakeWire("ann")
        await connect(node, wire)
        await bus.publish([broadcast_publication(one) for one in published])
        await settle()
        await node.close()
        return wire.payloads(BROADCASTS)

    expected = []
    for one in published:
        if verdict := visible(one, user, "UTC"):
            row = wire_broadcast(one, verdict.locale, verdict.topic, None)
            expected.append(json.loads(encode_live(LiveNotification(row))))
    assert [json.loads(payload) for payload in asyncio.run(run())] == expected


# ---------------------------------------------------------------- order and fairness


@pytest.mark.req("R23")
@pytest.mark.req("I4")
async def test_a_sweep_yields_and_what_comes_meanwhile_is_joined(live: LiveNode, bus: LossyBus) -> None:
    wires = [FakeWire(f"u{number}") for number in range(1_000)]
    for wire in wires:
        await connect(live, wire)
    await bus.publish([broadcast_publication(make_broadcast(1))])
    await asyncio.sleep(0)  # handed over
    await asyncio.sleep(0)  # the first slice
    assert sum(bool(wire.got) for wire in wires) == 256
    await bus.publish([broadcast_publication(make_broadcast(2)), broadcast_publication(make_broadcast(3))])
    await settle()
    assert all(wire.offsets(BROADCASTS) == [1, 2, 3] for wire in wires)


@pytest.mark.req("I4")
async def test_who_joins_or_leaves_during_a_sweep_gets_each_once_or_none(
    live: LiveNode, bus: LossyBus
) -> None:
    wires = [FakeWire(f"u{number}") for number in range(600)]
    for wire in wires:
        await connect(live, wire)
    await bus.publish([broadcast_publication(make_broadcast(1))])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    live.leave(wires[-1])
    late = FakeWire("late")
    _, joined = await connect(live, late)
    await bus.publish([broadcast_publication(make_broadcast(2))])
    await settle()
    assert joined.offset == 1
    assert late.offsets(BROADCASTS) == [2]
    assert wires[-1].got == []
    assert all(wire.offsets(BROADCASTS) == [1, 2] for wire in wires[:-1])


@pytest.mark.req("I4")
async def test_a_second_wire_that_joins_before_the_sweep_comes_by_gets_it_once(
    live: LiveNode, bus: LossyBus
) -> None:
    wires = [FakeWire(f"u{number}") for number in range(600)]
    for wire in wires:
        await connect(live, wire)
    await bus.publish([broadcast_publication(make_broadcast(1))])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = FakeWire("u599")
    _, joined = await connect(live, second, {BROADCASTS: StreamPosition("", 0)})
    await settle()
    assert [frame.offset for frame in joined.missed] + second.offsets(BROADCASTS) == [1]
    assert wires[-1].offsets(BROADCASTS) == [1]


@pytest.mark.req("I14")
async def test_a_wire_that_raises_or_leaves_while_it_is_written_to_harms_nobody(
    live: LiveNode, bus: LossyBus
) -> None:
    wires = [FakeWire("alice") for _ in range(3)]
    for wire in wires:
        await connect(live, wire)

    def fail(_: object) -> None:
        raise RuntimeError("a bug in a wire")

    wires[0].on_push = fail
    wires[1].on_push = lambda _: live.leave(wires[1])
    await bus.publish([broadcast_publication(make_broadcast(1)), broadcast_publication(make_broadcast(2))])
    await settle()
    assert wires[2].offsets(BROADCASTS) == [1, 2]
    await bus.publish([broadcast_publication(make_broadcast(3))])
    await settle()
    assert [wire.offsets(BROADCASTS)[-1] for wire in wires] == [3, 2, 3]


# ---------------------------------------------------------------- rows that change


def control(**fields: object) -> bytes:
    return msgspec.json.encode(fields)


@pytest.mark.req("R12")
@pytest.mark.req("R25")
async def test_a_changed_row_counts_from_the_control_message_on(
    live: LiveNode, bus: LossyBus, store: LiveStore
) -> None:
    alice, bob = FakeWire("alice"), FakeWire("bob")
    await connect(live, alice)
    await connect(live, bob)
    store.users["alice"] = make_user("alice", muted=Muted(actors=["zoe"]))
    store.gate = asyncio.Event()
    await bus.send_control(control(kind="user", id="alice"))
    await bus.publish([broadcast_publication(make_broadcast(1, actor="zoe"))])
    await bus.publish([broadcast_publication(make_broadcast(2)), broadcast_publication(make_broadcast(3))])
    await settle()
    assert (alice.offsets(BROADCASTS), bob.offsets(BROADCASTS)) == ([], [1, 2, 3])  # only alice waits
    store.gate.set()
    await settle()
    assert alice.offsets(BROADCASTS) == [2, 3]


async def test_a_change_during_a_load_makes_it_load_again(
    live: LiveNode, bus: LossyBus, store: LiveStore
) -> None:
    alice = FakeWire("alice")
    await connect(live, alice)
    store.gate = asyncio.Event()
    await bus.send_control(control(kind="user", id="alice"))
    await settle()  # the old row is on its way
    store.users["alice"] = make_user("alice", topics=["news"])
    await bus.send_control(control(kind="user", id="alice"))
    await bus.publish([broadcast_publication(make_broadcast(1, "news"))])
    await settle()
    store.gate.set()
    await settle()
    assert alice.offsets(BROADCASTS) == [1]


@pytest.mark.req("R25")
async def test_a_row_is_refreshed_before_it_is_too_old_and_never_used_beyond(
    live: LiveNode, bus: LossyBus, store: LiveStore, clock: FakeClock
) -> None:
    alice = FakeWire("alice")
    await connect(live, alice)
    store.users["alice"] = make_user("alice", topics=["news"])  # and the control message was lost
    clock.advance(41)
    await live.tick()
    await settle()
    await bus.publish([broadcast_publication(make_broadcast(1, "news"))])
    await settle()
    assert alice.offsets(BROADCASTS) == [1]
    store.users["alice"] = make_user("alice", muted=Muted(actors=["zoe"]))
    clock.advance(61)  # no tick came in time
    await bus.publish(
        [broadcast_publication(make_broadcast(2, actor="zoe")), broadcast_publication(make_broadcast(3))]
    )
    await settle()
    assert alice.offsets(BROADCASTS) == [1, 3]


async def test_with_the_store_away_broadcasts_wait_and_come_in_order(
    live: LiveNode, bus: LossyBus, store: LiveStore
) -> None:
    alice = FakeWire("alice")
    await connect(live, alice)
    store.away = True
    await bus.send_control(control(kind="user", id="alice"))
    await bus.publish([broadcast_publication(make_broadcast(seq)) for seq in (1, 2)])
    await settle()
    assert alice.got == []
    store.away = False
    await live.tick()
    await settle()
    assert alice.offsets(BROADCASTS) == [1, 2]


@pytest.mark.req("I14")
async def test_too_many_broadcasts_before_a_sweep_become_a_gap(live: LiveNode, bus: LossyBus) -> None:
    wire = FakeWire("ann")
    await connect(live, wire)
    for seq in range(1, 5_002):
        await bus.publish([broadcast_publication(make_broadcast(seq))])
    await settle()
    await bus.publish([broadcast_publication(make_broadcast(5_002))])
    await settle()
    assert wire.gaps == [BROADCASTS]
    assert wire.offsets(BROADCASTS)[-1] == 5_002
    assert len(wire.got) <= 2


@pytest.mark.req("I14")
async def test_too_many_waiting_broadcasts_become_a_gap(
    live: LiveNode, bus: LossyBus, store: LiveStore
) -> None:
    alice = FakeWire("alice")
    await connect(live, alice)
    store.gate = asyncio.Event()
    await bus.send_control(control(kind="user", id="alice"))
    for seq in range(1, 1_202):
        await bus.publish([broadcast_publication(make_broadcast(seq))])
    await settle(200)
    store.gate.set()
    await settle()
    await bus.publish([broadcast_publication(make_broadcast(1_202))])
    await settle()
    assert alice.gaps == [BROADCASTS]
    assert alice.offsets(BROADCASTS) == [1_202]
