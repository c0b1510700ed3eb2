"""The tour of the product: one idea a test. Read from top to bottom."""

from collections.abc import AsyncIterator

import pytest

from hub.errors import Refused
from hub.model.users import Muted, Only, OnlyRule, Preferences
from hub.model.vocabulary import Channel
from tests.support.clock import FakeClock
from tests.support.house import House, open_house


@pytest.fixture
async def house(clock: FakeClock) -> AsyncIterator[House]:
    async with open_house(clock) as opened:
        yield opened


@pytest.mark.req("R14", "R19")
async def test_an_event_for_a_user_becomes_a_notification_in_their_inbox(house: House) -> None:
    """No registration, no type, no template: the built-in `message` shows title and body."""
    event_id = await house.say(to="alice", title="Hello", body="It works.")

    [row] = await house.inbox("alice")
    assert (row["title"], row["body"], row["event"]) == ("Hello", "It works.", event_id)
    assert await house.inbox("bob") == []


@pytest.mark.req("R1")
async def test_it_is_published_live_on_the_users_own_channel(house: House) -> None:
    """The live message carries the same JSON as the inbox."""
    await house.say(to="alice", title="Hello")

    [message] = await house.live("#alice")
    listed = (await house.inbox("alice"))[0]
    assert message["kind"] == "notification"
    assert message["notification"] == listed


@pytest.mark.req("R19")
async def test_a_broadcast_is_one_notification_that_many_read(house: House) -> None:
    """Everyone sees it; whoever leaves it unread has it unread."""
    await house.say(to={"everyone": True}, title="Maintenance at noon")

    assert await house.titles("alice") == await house.titles("bob") == ["Maintenance at noon"]
    await house.mark("alice", "read")
    assert (await house.hub.inbox.counts("alice")).unread == 0
    assert (await house.hub.inbox.counts("bob")).unread == 1


@pytest.mark.req("R19")
async def test_a_topic_reaches_those_who_subscribed_before(house: House) -> None:
    """Who joins does not get what came before; who leaves keeps what they had."""
    await house.hub.people.change_topic("repo:clarion", add=["alice"], remove=[])
    await house.say(to={"topic": "repo:clarion"}, title="first")
    await house.hub.people.change_topic("repo:clarion", add=["bob"], remove=["alice"])
    await house.say(to={"topic": "repo:clarion"}, title="second")

    assert await house.titles("alice") == ["first"]
    assert await house.titles("bob") == ["second"]


@pytest.mark.req("R12")
async def test_a_broadcast_leaves_out_its_actor(house: House) -> None:
    """Unless the event says otherwise."""
    await house.say(to={"everyone": True}, title="bob joined", actor="bob")
    await house.say(to={"everyone": True}, title="bob left", actor="bob", include_actor=True)

    assert await house.titles("alice") == ["bob left", "bob joined"]
    assert await house.titles("bob") == ["bob left"]


@pytest.mark.req("R11")
async def test_a_user_switches_a_category_off_and_the_next_event_obeys(house: House) -> None:
    """The refusal is a stored reason, not a lost event."""
    await house.hub.store.save_preferences("alice", Preferences(categories={"messages": False}), None)
    event_id = await house.say(to="alice", title="Hello")

    assert await house.inbox("alice") == []
    explained = await house.hub.explain.explain("alice", "message", event_id)
    assert next((r.channel, r.verdict) for r in explained["event"]["reasons"]) == (Channel.IN_APP, "refuse")


@pytest.mark.req("R12")
async def test_a_user_follows_one_person_only(house: House) -> None:
    """`only` narrows a category to the actors that a user chose."""
    carol = Preferences(only=Only({"messages": OnlyRule(actors=["carol"])}))
    await house.hub.store.save_preferences("alice", carol, None)
    await house.say(to={"everyone": True}, title="by bob", actor="bob")
    await house.say(to={"everyone": True}, title="by carol", actor="carol")
    await house.say(to="alice", title="dave wrote to you", actor="dave")

    assert await house.titles("alice") == ["by carol"]


@pytest.mark.req("R12")
async def test_a_muted_actor_is_not_heard(house: House) -> None:
    """Neither in broadcasts nor addressed."""
    await house.hub.store.save_preferences("alice", Preferences(muted=Muted(actors=["bob"])), None)
    await house.say(to=["alice", "carol"], title="from bob", actor="bob")

    assert await house.titles("alice") == []
    assert await house.titles("carol") == ["from bob"]


@pytest.mark.req("I2")
async def test_the_same_key_is_the_same_event(house: House) -> None:
    """A repeat gets the first answer; another body under the key is refused."""
    first = await house.publish(key="order-1", to="alice", title="Paid")
    again = await house.publish(key="order-1", to="alice", title="Paid")
    assert first == again
    with pytest.raises(Refused, match="another body"):
        await house.publish(key="order-1", to="alice", title="Refunded")
    await house.settle()
    assert await house.titles("alice") == ["Paid"]


async def test_a_collapse_key_replaces_the_older_notification(house: House) -> None:
    """For a progress that only its last state matters."""
    await house.say(to="alice", title="10 %", collapse_key="upload")
    await house.say(to="alice", title="90 %", collapse_key="upload")

    assert await house.titles("alice") == ["90 %"]


async def test_an_event_is_retracted_at_any_stage(house: House) -> None:
    """It leaves inboxes, and the event says so."""
    event_id = await house.say(to=["alice", "bob"], title="Oops")
    await house.hub.events.retract(event_id, "key_test")

    assert await house.inbox("alice") == await house.inbox("bob") == []
    assert (await house.hub.events.status(event_id, "key_test"))["status"] == "retracted"
    assert (await house.live("#alice"))[-1]["kind"] == "retracted"


@pytest.mark.req("R20", "I3")
async def test_the_ledger_balances(house: House) -> None:
    """Recipients are in the app, suppressed or rejected, and the sums are kept."""
    await house.hub.store.save_preferences("bob", Preferences(channels={Channel.IN_APP: False}), None)
    event_id = await house.say(to=["alice", "bob"], title="Hello")

    status = await house.hub.events.status(event_id, "key_test")
    assert (status["status"], status["recipients"], status["in_app"], status["suppressed"]) == (
        "generated",
        2,
        1,
        1,
    )
    assert await house.hub.store.ledger() == []


async def test_an_id_we_gave_is_never_unknown(house: House) -> None:
    """Also before the generator saw the event; a made-up one is."""
    event_id = await house.publish(to="alice", title="Hello")
    assert (await house.hub.events.status(event_id, "key_test"))["status"] in ("accepted", "generated")
    with pytest.raises(Refused, match="There is no event"):
        await house.hub.events.status("evt_made_up", "key_test")


@pytest.mark.req("R20", "R21")
async def test_operators_see_it_as_it_happens(house: House) -> None:
    """The live log tells what became of events and what users did with them."""
    await house.say(to="alice", title="Hello")
    await house.mark("alice", "read", (await house.inbox("alice"))[0]["id"])

    told = [line["state"] for message in await house.live("log") for line in message["entries"]]
    assert told == ["accepted", "generated", "read"]
