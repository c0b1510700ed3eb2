"""A retraction reaches every open page, whatever it meets on its way: an absent Redis, a generator that announces late."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from hub.errors import BusUnavailable
from hub.ports import LogQuery, Publication, Published
from tests.support.clock import FakeClock
from tests.support.house import House, open_house

AUDIENCE = ["alice", {"topic": "t"}]


async def kinds(house: House, channel: str) -> list[str]:
    """What a page that listens hears: the kinds of a channel's messages, in order."""
    if channel != "broadcasts":
        return [message["kind"] for message in await house.live(channel)]
    history = await house.core.bus.history(channel, 0, None)
    return [
        "retracted" if b"retracted" in message.payload[:200] else "notification"
        for message in history.messages
    ]


@pytest.mark.req("I5")
async def test_a_retraction_that_could_not_be_told_is_told_by_its_repeat(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller got a 503 and asks again, as it should."""
    async with open_house(clock) as house:
        event_id = await house.say(to=AUDIENCE, title="Oops")
        publish = house.core.bus.publish

        async def fail(publications: Sequence[Publication]) -> list[Published]:
            raise BusUnavailable("Redis is away.")

        monkeypatch.setattr(house.core.bus, "publish", fail)
        with pytest.raises(BusUnavailable):
            await house.hub.events.retract(event_id, "key_test")
        assert await house.inbox("alice") == []
        monkeypatch.setattr(house.core.bus, "publish", publish)
        for _ in range(2):
            await house.hub.events.retract(event_id, "key_test")
        for channel in ("#alice", "broadcasts"):
            heard = await kinds(house, channel)
            assert heard[0] == "notification"
            assert set(heard[1:]) == {"retracted"}
        log = await house.hub.store.log(LogQuery(limit=100, state="retracted"))
        assert len(log) == 1


@pytest.mark.req("I5")
async def test_what_is_announced_late_is_taken_back_again(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The generator has committed; before it announces, the event is retracted, and that is told first."""
    async with open_house(clock) as house:
        await house.hub.people.change_topic("t", add=["alice"], remove=[])
        publish = house.core.bus.publish
        committed, go_on = asyncio.Event(), asyncio.Event()

        async def late(publications: Sequence[Publication]) -> Any:
            if any(one.position for one in publications):
                committed.set()
                await go_on.wait()
            return await publish(publications)

        monkeypatch.setattr(house.core.bus, "publish", late)
        event_id = await house.publish(to=AUDIENCE, title="Oops")
        await asyncio.wait_for(committed.wait(), 5)
        async with asyncio.timeout(5):
            while (await house.hub.events.status(event_id, "key_test"))["status"] != "generated":
                await asyncio.sleep(0.01)
        await house.hub.events.retract(event_id, "key_test")
        go_on.set()
        await house.settle()
        for channel in ("#alice", "broadcasts"):
            assert (await kinds(house, channel))[-2:] == ["notification", "retracted"], channel
        assert await house.inbox("alice") == []
