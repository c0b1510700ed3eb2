"""Digests, throttles and what nobody heard, through a whole generator: batches, crashes and clocks that are set back."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from hub import leases
from hub.adapters.memory_bus import MemoryBus
from hub.batches import PlanningRules
from hub.config import load_settings
from hub.errors import BusUnavailable
from hub.explain import Explain
from hub.generator import Generator
from hub.model.deliveries import Delivery
from hub.model.events import Slice, decode_slice
from hub.model.preferences import parse_preferences
from hub.model.types import ChannelRule, Digest, Throttle, TypeDefinition
from hub.model.users import Preferences
from hub.model.vocabulary import Channel
from hub.ports import Publication, Published
from hub.wiring import Core, memory_core, open_hub
from tests.support.clock import FakeClock
from tests.support.live_wires import FakeWire, connect

pytestmark = pytest.mark.req("R18")

PATIENCE_SECONDS = 10.0
MAIL, SMS, PUSH = Channel.EMAIL, Channel.SMS, Channel.WEB_PUSH
RULES = PlanningRules(1, frozenset({MAIL, SMS}), "UTC")
ALICE = {"id": "alice", "email": "alice@example.com", "phone": "+821012345678"}
BOB = {"id": "bob", "email": "bob@example.com"}


class Desk:
    """A core with providers for e-mail and SMS, and a generator that a test lets work."""

    def __init__(self, core: Core, clock: FakeClock) -> None:
        self.core = core
        self.clock = clock
        self.intake = core.intake()
        self.number = 0

    async def define(self, name: str = "post", when: str = "always", **fields: Any) -> None:
        rule = ChannelRule(when=when, after_seconds=600)  # type: ignore[arg-type]
        channels = {Channel.IN_APP: ChannelRule(), MAIL: rule}
        definition = TypeDefinition(**{"category": "posts", "title": "x", "channels": channels, **fields})
        await self.core.definitions.put_type(name, definition)

    async def say(self, *events: dict[str, Any], generate: bool = True) -> list[str]:
        """Publish events in one entry of the queue, which is one batch."""
        raw = json.dumps([{"to": ALICE, "type": "post", **event} for event in events]).encode()
        result = await self.intake.publish_batch(raw, False, "test", "key_test", None)
        assert result.rejected == 0, result
        if generate:
            await self.generate()
        return [str(one["id"]) for one in result.results]

    async def generate(self) -> None:
        self.number += 1
        generator = Generator(
            self.core.store,
            self.core.queue,
            self.core.bus,
            self.core.definitions,
            self.clock,
            RULES,
            owner=f"generator {self.number}",
            metrics=self.core.metrics.generator,
        )
        running = asyncio.create_task(generator.run())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while sum((await self.core.queue.waiting()).values()):
                    await asyncio.sleep(0.005)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def deliveries(self, *event_ids: str) -> list[Delivery]:
        found = []
        for event_id in event_ids:
            found += await self.core.store.event_deliveries(event_id, None, None, 99)
        return found

    async def due(self, *event_ids: str, since_us: int | None = None) -> list[tuple[str, float]]:
        """State and seconds until it is due, of each."""
        now_us = self.clock.now_us() if since_us is None else since_us
        return [
            (one.state, round((one.due_at_us - now_us) / 1e6, 3)) for one in await self.deliveries(*event_ids)
        ]

    async def rules(self, *event_ids: str) -> list[str]:
        """What decided about e-mail."""
        found = []
        for event_id in event_ids:
            planned = await self.core.store.explain("alice", event_id)
            assert planned is not None
            found += [reason.rule for reason in planned.reasons if reason.channel == MAIL]
        return found


@pytest.fixture
async def desk(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(leases, "ROUND_SECONDS", 0.05)
    settings = load_settings(api_key="test-key-0123456789abcdef", token_secret="s" * 32, partitions=1)
    core = await memory_core(settings, clock)
    yield Desk(core, clock)
    assert await core.store.ledger() == []
    await core.queue.close()
    await core.bus.close()
    await core.store.close()


# ---------------------------------------------------------------- digests


@pytest.mark.parametrize("batches", [1, 3])
async def test_what_joins_a_digest_is_due_with_its_first(desk: Desk, batches: int) -> None:
    await desk.define(digest=Digest([MAIL], 600))
    begun_us = desk.clock.now_us()
    if batches == 1:
        ids = await desk.say({}, {}, {})
    else:
        ids = []
        for _ in range(batches):
            ids += await desk.say({})
            desk.clock.advance(100)
    assert await desk.due(*ids, since_us=begun_us) == [("held", 600)] * 3
    assert {one.digest_key for one in await desk.deliveries(*ids)} == {"post"}
    assert await desk.rules(*ids) == ["digest"] * 3


async def test_each_user_channel_and_key_has_its_own_digest(desk: Desk) -> None:
    rules = {MAIL: ChannelRule(), SMS: ChannelRule()}
    await desk.define(channels=rules, digest=Digest([MAIL, SMS], 600))
    [first] = await desk.say({})
    desk.clock.advance(100)
    ids = await desk.say({}, {"digest_key": "thread-7"}, {"to": BOB})
    waits = {(d.event_id, d.channel): d.due_at_us for d in await desk.deliveries(first, *ids)}
    now_us = desk.clock.now_us()
    assert {key: round((due_us - now_us) / 1e6) for key, due_us in waits.items()} == {
        (first, MAIL): 500,
        (first, SMS): 500,
        (ids[0], MAIL): 500,
        (ids[0], SMS): 500,
        (ids[1], MAIL): 600,
        (ids[1], SMS): 600,
        (ids[2], MAIL): 600,
    }


async def test_an_extending_digest_moves_as_a_whole_up_to_its_maximum(desk: Desk) -> None:
    await desk.define(digest=Digest([MAIL], 600, extend=True, max_seconds=1000))
    begun_us = desk.clock.now_us()
    ids = await desk.say({}, {})
    desk.clock.advance(300)
    ids += await desk.say({}, {})
    assert await desk.due(*ids, since_us=begun_us) == [("held", 900)] * 4
    desk.clock.advance(300)
    ids += await desk.say({})
    assert await desk.due(*ids, since_us=begun_us) == [("held", 1000)] * 5
    desk.clock.advance(500)  # nobody sent it yet, but it is over
    [late] = await desk.say({})
    assert await desk.due(*ids, since_us=begun_us) == [("held", 1000)] * 5
    assert await desk.due(late) == [("held", 600)]


async def test_a_full_digest_is_due_at_once_and_the_next_one_opens(desk: Desk) -> None:
    await desk.define(digest=Digest([MAIL], 600, max_items=3))
    [first] = await desk.say({})
    desk.clock.advance(10)
    ids = await desk.say({}, {}, {}, {}, {}, {})
    assert await desk.due(first, *ids) == [("held", 0)] * 6 + [("held", 600)]


async def test_the_first_after_a_silence_goes_at_once_and_the_next_are_collected(desk: Desk) -> None:
    await desk.define(digest=Digest([MAIL], 600, first_at_once=True))
    [first, second] = await desk.say({}, {})
    desk.clock.advance(100)
    [third] = await desk.say({})
    assert await desk.due(first, second, third) == [("queued", -100), ("held", 500), ("held", 500)]
    assert await desk.rules(first, second) == ["always", "digest"]

    await sent(desk, second, third)
    desk.clock.advance(600 + 500 - 1)  # a window since that digest is not over
    [fourth] = await desk.say({})
    assert await desk.due(fourth) == [("held", 600)]
    await sent(desk, fourth)
    desk.clock.advance(1201)
    [fifth] = await desk.say({})
    assert await desk.due(fifth) == [("queued", 0)]


async def sent(desk: Desk, *event_ids: str) -> None:
    """As senders leave it."""

    async def work(connection: Any) -> None:
        for event_id in event_ids:
            statement = "UPDATE deliveries SET state = 'sent' WHERE event_id = ?"
            await connection.exec_driver_sql(statement, (event_id,))

    await desk.core.store._db.write(work)


async def test_an_item_that_would_expire_is_not_waited_past(desk: Desk) -> None:
    await desk.define(digest=Digest([MAIL], 600, extend=True, max_seconds=6000))
    begun_us = desk.clock.now_us()
    [first] = await desk.say({"expires_at": "2026-01-05T12:15:00Z"})
    [plain] = await desk.say({})
    desk.clock.advance(500)
    [third] = await desk.say({})
    # It keeps its time, and whoever sends it takes the others along.
    assert await desk.due(first, plain, third, since_us=begun_us) == [
        ("held", 600),
        ("held", 1100),
        ("held", 1100),
    ]
    [refused] = await desk.say({"expires_at": "2026-01-05T12:10:00Z"})
    assert (await desk.due(refused), await desk.rules(refused)) == ([], ["expires_first"])


async def test_quiet_hours_hold_a_whole_digest(desk: Desk) -> None:
    await desk.define(digest=Digest([MAIL], 600))
    await desk.core.store.save_preferences("alice", quiet("12:05", "13:00"), None)
    begun_us = desk.clock.now_us()  # 12:00
    ids = await desk.say({}, {})
    desk.clock.advance(1200)
    ids += await desk.say({})
    assert await desk.due(*ids, since_us=begun_us) == [("held", 3600)] * 3


def quiet(start: str, end: str) -> Preferences:
    return parse_preferences({"quiet_hours": {"start": start, "end": end}})


async def test_critical_types_are_never_collected(desk: Desk) -> None:
    await desk.define(critical=True, digest=Digest([MAIL], 600), throttle=Throttle(1, 60))
    ids = await desk.say({}, {}, {})
    assert await desk.due(*ids) == [("queued", 0)] * 3
    assert not any(one.throttled or one.digest_key for one in await desk.deliveries(*ids))


async def test_a_clock_that_was_set_back_holds_no_digest_longer_than_its_window(desk: Desk) -> None:
    await desk.define(digest=Digest([MAIL], 600))
    desk.clock.advance(86_400)
    ids = await desk.say({})
    desk.clock.advance(-86_400)
    ids += await desk.say({})
    assert await desk.due(*ids) == [("held", 600)] * 2
    desk.clock.advance(100)
    ids += await desk.say({})
    assert await desk.due(*ids) == [("held", 500)] * 3


# ---------------------------------------------------------------- throttles


@pytest.mark.parametrize("batches", [1, 4])
async def test_a_throttle_drops_what_is_too_much(desk: Desk, batches: int) -> None:
    await desk.define(throttle=Throttle(2, 60))
    if batches == 1:
        ids = await desk.say({}, {}, {}, {})
    else:
        ids = [id_ for _ in range(batches) for id_ in await desk.say({})]
    assert await desk.rules(*ids) == ["always", "always", "throttled", "throttled"]
    assert [one.throttled for one in await desk.deliveries(*ids)] == [True, True]
    await desk.define("other")
    [of_another_type] = await desk.say({"type": "other"})
    [of_another_user] = await desk.say({"to": BOB})
    assert len(await desk.deliveries(of_another_type, of_another_user)) == 2
    explain = Explain(desk.core.store, desk.core.definitions, RULES.available, "UTC", desk.clock)
    said = (await explain.explain("alice", "post", None))["rules"]
    assert [(one.rule, one.allows) for one in said if one.channel == MAIL][-1] == ("throttled", False)
    desk.clock.advance(61)
    [later] = await desk.say({})
    assert await desk.rules(later) == ["always"]
    said = (await explain.explain("alice", "post", None))["rules"]
    assert "1 of at most 2" in next(one.detail for one in said if one.rule == "throttled")


async def test_a_throttle_collects_what_is_too_much(desk: Desk) -> None:
    await desk.define(throttle=Throttle(1, 60, "digest"))
    ids = await desk.say({}, {})
    desk.clock.advance(10)
    ids += await desk.say({})
    assert await desk.due(*ids) == [("queued", -10), ("held", 50), ("held", 50)]
    assert await desk.rules(*ids) == ["always", "digest", "digest"]
    assert [one.throttled for one in await desk.deliveries(*ids)] == [True, False, False]


# ---------------------------------------------------------------- payloads


@pytest.mark.req("R16")
async def test_the_whole_event_is_kept_for_what_is_rendered_later(desk: Desk) -> None:
    await desk.define()
    [mailed, shown] = await desk.say(
        {"to": [ALICE, BOB], "data": {"number": 7, "secret": "x"}}, {"to": "carol", "data": {"number": 8}}
    )
    async with desk.core.store._db.read() as connection:
        rows = (await connection.exec_driver_sql("SELECT event_id, slice_key, raw FROM payloads")).all()
    assert [(row[0], row[1]) for row in rows] == [(mailed, "0")]
    kept = decode_slice(rows[0][2])
    assert kept.event.data == {"number": 7, "secret": "x"}
    assert kept == Slice(event=kept.event)
    assert shown != mailed


@pytest.mark.req("R19")
async def test_of_broadcasts_those_are_kept_that_an_addressed_channel_takes(desk: Desk) -> None:
    await desk.define()
    await desk.define("quiet", when="never")
    [kept, _, _] = await desk.say(
        {"to": {"everyone": True}},
        {"to": {"topic": "t"}, "type": "quiet"},
        {"to": {"topic": "t"}, "type": "message"},
    )
    async with desk.core.store._db.read() as connection:
        rows = (await connection.exec_driver_sql("SELECT event_id, slice_key FROM payloads")).all()
    assert [tuple(row) for row in rows] == [(kept, "lane")]


# ---------------------------------------------------------------- nobody is there


@pytest.mark.req("R2")
async def test_what_waits_for_somebody_who_is_nowhere_is_due_at_once(desk: Desk) -> None:
    await desk.define(when="offline")
    await desk.define("unseen", when="unseen")
    async with open_hub(desk.core) as hub:
        wire = FakeWire("alice")
        await connect(hub.node, wire)
        [event] = await desk.say({"to": [ALICE, BOB]})
        [unseen] = await desk.say({"type": "unseen", "to": BOB})
        await wire.until(lambda: wire.asked == 1)
        waits = {one.user_id: one.due_at_us - desk.clock.now_us() for one in await desk.deliveries(event)}
        assert waits == {"alice": 5_000_000, "bob": 0}
        assert await desk.due(unseen) == [("held", 600)]
        hub.node.leave(wire)


@pytest.mark.req("I6")
async def test_while_nodes_come_back_to_the_bus_their_silence_says_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.define(when="offline")
    real = MemoryBus.publish
    failures = [BusUnavailable("Redis is away.")]

    async def publish(self: MemoryBus, publications: Sequence[Publication]) -> list[Published]:
        if failures:
            raise failures.pop()
        return await real(self, publications)

    monkeypatch.setattr(MemoryBus, "publish", publish)
    [event] = await desk.say({})
    assert await desk.due(event) == [("held", 5)]
    [next_event] = await desk.say({})
    assert await desk.due(next_event) == [("held", 0)], "another generator has no such doubt"
