"""Rows of users: loads that come together share a query, and the check of a token costs the join no second one."""

import asyncio

import pytest

from hub.errors import StoreUnavailable
from hub.live.node import LiveNode
from hub.live.viewers import UNKNOWN, Viewers
from hub.model.events import BroadcastAudience
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
    settle,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.mark.req("I16")
async def test_a_fresh_row_is_read_by_a_query_that_begins_after_the_call(clock: FakeClock) -> None:
    store = LiveStore()
    store.gate = asyncio.Event()
    viewers = Viewers(store, clock)  # type: ignore[arg-type]
    early = asyncio.create_task(viewers.check_in("alice"))
    await settle()
    store.users["alice"] = make_user("alice", locale="ko")
    late = [asyncio.create_task(viewers.check_in(user_id)) for user_id in ("alice", "alice", "bob")]
    await settle()
    store.gate.set()
    assert (await early).profile.locale is None
    assert [user.profile.locale for user in await asyncio.gather(*late)] == ["ko", "ko", None]
    assert store.queries == [["alice"], ["alice", "bob"]]


async def test_what_the_check_of_a_token_read_is_taken_once_and_only_while_it_is_good(
    clock: FakeClock,
) -> None:
    store = LiveStore()
    viewers = Viewers(store, clock)  # type: ignore[arg-type]
    await viewers.check_in("alice")
    assert viewers.take("alice") is not None
    assert viewers.take("alice") is None
    await viewers.check_in("alice")
    viewers.forget("alice")
    assert viewers.take("alice") is None
    await viewers.check_in("alice")
    clock.advance(61)
    assert viewers.take("alice") is None
    await viewers.load("alice")
    assert viewers.take("alice") is None  # what nobody checks a token with is not kept


async def test_a_row_that_changes_while_it_is_read_for_two_is_read_again_for_both(clock: FakeClock) -> None:
    store = LiveStore()
    store.gate = asyncio.Event()
    viewers = Viewers(store, clock)  # type: ignore[arg-type]
    first = viewers.load("alice")
    await settle()
    second = asyncio.create_task(viewers.check_in("alice"))
    await settle()
    store.users["alice"] = make_user("alice", locale="ko")
    viewers.forget("alice")
    store.gate.set()
    assert (await first).user.profile.locale == "ko"
    assert (await second).profile.locale == "ko"
    assert store.queries == [["alice"], ["alice"]]


async def test_with_the_store_away_everybody_hears_of_it(clock: FakeClock) -> None:
    store = LiveStore()
    store.away = True
    viewers = Viewers(store, clock)  # type: ignore[arg-type]
    outcomes = await asyncio.gather(
        viewers.check_in("alice"), viewers.check_in("bob"), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable, StoreUnavailable]


async def test_all_users_that_the_store_does_not_know_share_one_object(
    live: LiveNode, bus: LossyBus, store: LiveStore
) -> None:
    wires = [FakeWire(f"user-{number}") for number in range(3)]
    for wire in wires:
        await connect(live, wire)
    members = [live._registry.members[wire.identity.user_id] for wire in wires]
    assert {id(member.user) for member in members} == {id(UNKNOWN)}
    assert [member.viewer().profile.id for member in members] == ["user-0", "user-1", "user-2"]
    # And yet rules that need a user see each as itself.
    audience = BroadcastAudience(everyone=True, exclude=("user-1",), timezones=("UTC",))
    await bus.publish([broadcast_publication(make_broadcast(1, audience=audience))])
    await settle()
    assert [wire.offsets(BROADCASTS) for wire in wires] == [[1], [], [1]]
