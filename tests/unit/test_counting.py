"""Counts: who asks together shares a read that began after each of them, and a count is what the inbox lists."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from hub.adapters.sql_store import SqlStore, memory_store
from hub.counting import COUNT_CAP, PAGE, Counting, Counts
from hub.errors import Refused, StoreUnavailable
from hub.model.events import BroadcastAudience
from hub.model.notifications import Broadcast
from hub.model.users import Muted, Preferences, Profile, User
from hub.model.visibility import Visibility, visible
from hub.model.vocabulary import Channel
from hub.ports import Unread, UserMerge
from tests.conformance.test_store_statements import watched
from tests.support.clock import FakeClock
from tests.support.house import House, open_house
from tests.support.live_wires import FakeWire
from tests.support.stores import NOW_US, Partition


class CountingStore:
    """Answers with what stands in `unread`; `gate` holds reads up that have begun."""

    def __init__(self) -> None:
        self.reads: list[list[str]] = []
        self.unread_of: dict[str, int] = {}
        self.gate: asyncio.Event | None = None
        self.failure: Exception | None = None
        self.fails_for = ""

    async def unread(self, ids: list[str], _cap: int, _limit: int, _now_us: int) -> dict[str, Unread]:
        self.reads.append(ids)
        found = {one: Unread(User(Profile(one)), self.unread_of.get(one, 0), 0) for one in ids}
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None and (not self.fails_for or self.fails_for in ids):
            raise self.failure
        return found


def counting(store: Any) -> Counting:
    return Counting(store, FakeClock(), "UTC")


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.req("I4")
async def test_a_count_is_of_a_read_that_began_after_the_question() -> None:
    store = CountingStore()
    store.gate = asyncio.Event()
    counts = counting(store)
    early = asyncio.create_task(counts.of("alice"))
    await turns()
    store.unread_of["alice"] = 1
    late = [asyncio.create_task(counts.of(one)) for one in ("alice", "bob", "alice")]
    await turns()
    store.gate.set()
    assert await early == Counts(0, 0)
    assert await asyncio.gather(*late) == [Counts(1, 0), Counts(0, 0), Counts(1, 0)]
    assert store.reads == [["alice"], ["alice", "bob"]]


@pytest.mark.req("R25")
async def test_a_wave_shares_a_few_reads() -> None:
    store = CountingStore()
    counts = counting(store)
    found = await asyncio.gather(*(counts.of(f"user-{number}") for number in range(500)))
    assert found == [Counts(0, 0)] * 500
    assert [len(read) for read in store.reads] == [200, 200, 100]


async def test_one_whom_the_store_refuses_spoils_it_for_nobody_else() -> None:
    store = CountingStore()
    store.failure, store.fails_for = Refused(422, "invalid_value", "No."), "bad"
    counts = counting(store)
    found = await asyncio.gather(*(counts.of(one) for one in ("a", "bad", "b")), return_exceptions=True)
    assert [type(one) for one in found] == [Counts, Refused, Counts]


async def test_with_the_store_away_all_who_wait_hear_of_it_and_later_ones_are_counted() -> None:
    store = CountingStore()
    store.failure = StoreUnavailable("Away.")
    counts = counting(store)
    found = await asyncio.gather(counts.of("a"), counts.of("b"), return_exceptions=True)
    assert [type(one) for one in found] == [StoreUnavailable, StoreUnavailable]
    assert len(store.reads) == 1
    store.failure = None
    assert await counts.of("a") == Counts(0, 0)


async def test_who_gives_up_takes_nobody_along() -> None:
    store = CountingStore()
    store.gate = asyncio.Event()
    counts = counting(store)
    first, second = (asyncio.create_task(counts.of("alice")) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    store.gate.set()
    assert await second == Counts(0, 0)


@pytest.fixture
async def store() -> AsyncIterator[SqlStore]:
    opened = await memory_store()
    yield opened
    await opened.close()


async def test_what_stands_behind_the_first_page_counts_as_well(store: SqlStore) -> None:
    lane = await Partition.take(store, "lane")
    await store.change_topic("rare", ["alice"], [])
    batch = lane.batch()
    for number in range(3):
        lane.add_broadcast(batch, f"evt_old_{number}", "rare")
    for number in range(PAGE + 5):
        lane.add_broadcast(batch, f"evt_{number}")
    await lane.commit(batch)
    top = await store.top_broadcast_seq()
    rows = await store.broadcasts_after(0, top)
    await store.mark_ids("alice", "read", [], rows[3:], NOW_US)
    await store.mark_ids("alice", "seen", [], rows[:1], NOW_US)
    counts = Counting(store, FakeClock(), "UTC")
    assert await counts.of("alice") == Counts(3, 2)
    assert await counts.of("bob") == Counts(COUNT_CAP, COUNT_CAP)
    await store.mark_all("bob", "read", None, top, NOW_US)
    assert await counts.of("bob") == Counts(0, 0)


@pytest.fixture
async def lane(store: SqlStore) -> Partition:
    return await Partition.take(store, "lane")


@pytest.mark.req("I5")
async def test_in_a_wave_each_user_is_counted_by_their_own_rules(store: SqlStore, lane: Partition) -> None:
    deaf = Preferences(channels={Channel.IN_APP: False})
    muting = Preferences(muted=Muted(topics=["news"]))
    await store.merge_users([UserMerge("seoul", {"timezone": "Asia/Seoul"}), UserMerge("known", {})])
    await store.merge_users([UserMerge("deaf", {}, deaf), UserMerge("muting", {}, muting)])
    await store.change_topic("news", ["subscriber", "muting"], [])
    everyone = BroadcastAudience(everyone=True)
    rows = [
        await lane.broadcast(f"evt_{number}", audience=audience)
        for number, audience in enumerate(
            (
                everyone,
                replace(everyone, exclude=("left-out",)),
                replace(everyone, timezones=("UTC",)),
                replace(everyone, timezones=("Asia/Seoul",)),
                BroadcastAudience(topics=("news",)),
            )
        )
    ]
    await store.mark_ids("reader", "read", [], rows[:2], NOW_US)
    await store.mark_ids("looker", "seen", [], rows[:1], NOW_US)
    partition = await Partition.take(store)
    await partition.publish("evt_own", ["owner"])
    expected = {
        "stranger": Counts(3, 3),
        "known": Counts(3, 3),
        "left-out": Counts(2, 2),
        "seoul": Counts(3, 3),
        "deaf": Counts(0, 0),
        "muting": Counts(3, 3),
        "subscriber": Counts(4, 4),
        "reader": Counts(1, 1),
        "looker": Counts(3, 2),
        "owner": Counts(4, 4),
    }
    counts = Counting(store, FakeClock(), "UTC")
    for users in (list(expected), list(expected)[::-1]):
        found = await asyncio.gather(*(counts.of(user_id) for user_id in users))
        assert dict(zip(users, found, strict=True)) == expected
    assert {user_id: await counts.of(user_id) for user_id in expected} == expected


@pytest.mark.req("R25")
async def test_a_wave_of_users_without_rules_is_decided_once(
    store: SqlStore, lane: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await lane.broadcast(f"evt_{number}")
    decided: list[str] = []

    def noted(broadcast: Broadcast, user: User, default_timezone: str) -> Visibility:
        decided.append(user.profile.id)
        return visible(broadcast, user, default_timezone)

    monkeypatch.setattr("hub.counting.visible", noted)
    counts = Counting(store, FakeClock(), "UTC")
    found = await asyncio.gather(*(counts.of(f"user-{number}") for number in range(150)))
    assert found == [Counts(5, 5)] * 150
    assert len(decided) == 5


@pytest.mark.req("R25")
async def test_streams_that_begin_together_share_their_statements() -> None:
    many = 60

    async def begin(house: House, user_id: str) -> dict[str, Any]:
        wire = FakeWire(user_id)
        await house.hub.node.join(wire, {})
        counts: dict[str, Any] = json.loads(await house.hub.node.rpc(wire, "unread_count", None))
        house.hub.node.leave(wire)
        return counts

    async with open_house(FakeClock()) as house:
        await house.say(to={"everyone": True}, title="News")
        await house.say(to="user-1", title="Paid")
        store = house.core.store
        assert isinstance(store, SqlStore)
        with watched(store) as statements:
            found = await asyncio.gather(*(begin(house, f"user-{number}") for number in range(many)))
        reads = [one for one in statements if "FROM notifications" in one or "FROM users" in one]
    assert [counts["unread"] for counts in found] == [1, 2, *[1] * (many - 2)]
    # One read of rows and one of counts, and another of each for those who came while it was under way.
    assert 0 < len(reads) <= 8
