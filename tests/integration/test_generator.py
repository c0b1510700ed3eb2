"""The generator at work on the in-memory adapters: what breaks is set aside or repeated, and nothing is lost or said twice."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from hub import announcements, batches, leases
from hub.adapters.memory_queue import MemoryQueue
from hub.config import load_settings
from hub.errors import BusUnavailable, LeaseLost, StoreUnavailable
from hub.generator import TRIES, Generator
from hub.intake import BatchResult
from hub.model.deliveries import Delivery
from hub.model.events import decode_slice
from hub.model.types import ChannelRule, TypeDefinition
from hub.model.vocabulary import Channel
from hub.ports import Append, Batch, Committed, LogQuery, Publication, Published, UserMerge
from hub.wiring import Core, generator_of, memory_core, open_hub
from tests.support.clock import FakeClock
from tests.support.live_wires import FakeWire, connect

PATIENCE_SECONDS = 10.0
MAIL = Channel.EMAIL
T = TypeVar("T")


class Workshop:
    """A core, and a generator that a test starts, stops and starts again."""

    def __init__(self, core: Core, clock: FakeClock) -> None:
        self.core = core
        self.clock = clock
        self.store = core.store
        self.intake = core.intake()
        self.commits: list[Batch] = []
        self._commit = core.store.commit
        core.store.commit = self._note_commit  # type: ignore[method-assign]

    async def _note_commit(self, batch: Batch) -> Committed:
        committed = await self._commit(batch)
        self.commits.append(batch)
        return committed

    async def publish(self, **event: Any) -> str:
        accepted = await self.intake.publish(json.dumps(event).encode(), "http:test", "key_test", None)
        return accepted.id

    async def publish_many(self, *events: dict[str, Any]) -> BatchResult:
        """In one entry of the queue."""
        return await self.intake.publish_batch(json.dumps(events).encode(), False, "test", "key_test", None)

    @asynccontextmanager
    async def generating(self) -> AsyncIterator[Generator]:
        generator = generator_of(self.core)
        running = asyncio.create_task(generator.run())
        try:
            yield generator
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def drained(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while sum((await self.core.queue.waiting()).values()):
                await asyncio.sleep(0.005)

    async def generate(self) -> None:
        """Let a generator work off what waits."""
        async with self.generating():
            await self.drained()

    async def live(self, channel: str) -> list[dict[str, Any]]:
        history = await self.core.bus.history(channel, 0, None)
        return [json.loads(message.payload) for message in history.messages]

    async def titles(self, user: str) -> list[str]:
        """What was shown live, in order."""
        found = await self.live(f"#{user}")
        return [one["notification"]["title"] for one in found if one["kind"] == "notification"]

    async def log_states(self, **query: Any) -> list[tuple[str, str | None]]:
        """State and reason of the delivery log's lines, oldest first."""
        lines = await self.store.log(LogQuery(100, **query))
        return [(line.state, line.reason) for line in lines][::-1]

    async def deliveries(self, event_id: str) -> list[Delivery]:
        return await self.store.event_deliveries(event_id, None, None, 100)


@pytest.fixture
async def shop(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Workshop]:
    monkeypatch.setattr(leases, "ROUND_SECONDS", 0.05)
    settings = load_settings(
        api_key="test-key-0123456789abcdef",
        token_secret="s" * 32,
        partitions=1,
        email_providers="smtp://127.0.0.1:1",  # nobody asks it anything
        email_from="hub@example.com",
    )
    core = await memory_core(settings, clock)
    yield Workshop(core, clock)
    await core.queue.close()
    await core.bus.close()
    await core.store.close()


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Events with this title make planning raise; the list collects the titles of all that were planned."""
    planned: list[str] = []

    def wrap(real: Any) -> Any:
        def plan(event: Any, *args: Any) -> Any:
            planned.append(event.title)
            if event.title == "poison":
                raise ZeroDivisionError("a bug in planning")
            return real(event, *args)

        return plan

    monkeypatch.setattr(batches, "plan", wrap(batches.plan))
    monkeypatch.setattr(batches, "plan_broadcast", wrap(batches.plan_broadcast))
    return planned


# ---------------------------------------------------------------- poison


@pytest.mark.req("I3", "I10")
async def test_an_event_that_cannot_be_planned_is_set_aside_whole(shop: Workshop, poison: list[str]) -> None:
    before = [await shop.publish(to="alice", title=f"before {n}") for n in range(3)]
    culprit = await shop.publish(to=["alice", "bob"], title="poison", data={"order": 7})
    after = [await shop.publish(to="alice", title=f"after {n}") for n in range(3)]
    await shop.generate()

    assert await shop.titles("alice") == [f"{when} {n}" for when in ("before", "after") for n in range(3)]
    assert await shop.titles("bob") == []
    for event_id in before + after:
        record = await shop.store.event(event_id)
        assert record is not None
        assert record.state == "generated"
    record = await shop.store.event(culprit)
    assert record is not None
    assert record.state == "rejected"
    assert record.error
    assert record.raw is not None
    kept = decode_slice(record.raw)
    assert (kept.event.title, kept.event.data, [user.id for user in kept.users]) == (
        "poison",
        {"order": 7},
        ["alice", "bob"],
    )
    sums = await shop.store.event_sums(culprit)
    assert (sums["recipients"], sums["in_app"], sums["suppressed"], sums["rejected"]) == (2, 0, 0, 2)
    assert await shop.log_states(event_id=culprit) == [("accepted", None), ("rejected", "planning_error")]
    assert await shop.store.ledger() == []


async def test_a_broadcast_that_cannot_be_planned_is_set_aside_too(shop: Workshop, poison: list[str]) -> None:
    first = await shop.publish(to={"everyone": True}, title="first")
    culprit = await shop.publish(to={"topic": "news"}, title="poison")
    last = await shop.publish(to={"everyone": True}, title="last")
    await shop.generate()

    states = [await shop.store.event(event_id) for event_id in (first, culprit, last)]
    assert [one and one.state for one in states] == ["generated", "rejected", "generated"]
    rows = await shop.store.broadcasts_after(0, 10)
    assert [(row.seq, row.contents[""].title) for row in rows] == [(1, "first"), (2, "last")]
    assert await shop.store.ledger() == []


@pytest.mark.req("I10")
async def test_several_culprits_cost_their_neighbours_little(
    shop: Workshop, poison: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "perf_counter", lambda: 0.0)  # a busy machine cuts no batch
    events = [{"to": "alice", "title": "poison" if n in (3, 40, 41) else str(n)} for n in range(60)]
    await shop.publish_many(*events)
    await shop.generate()

    good = [event["title"] for event in events if event["title"] != "poison"]
    assert await shop.titles("alice") == good
    assert await shop.store.ledger() == []
    assert poison.count("poison") <= 3 * 2 * TRIES  # each in its batch, and alone
    assert max(poison.count(title) for title in good) <= 3 * TRIES + 1


async def test_a_batch_that_fails_only_together_is_planned_one_by_one(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = shop.store.commit

    async def fussy(batch: Batch) -> Committed:
        if len(batch.slices) > 1:
            raise ValueError("too many at once")
        return await commit(batch)

    monkeypatch.setattr(shop.store, "commit", fussy)
    await shop.publish_many(*({"to": "alice", "title": str(n)} for n in range(5)))
    await shop.generate()
    assert await shop.titles("alice") == [str(n) for n in range(5)]
    assert [state for state, _ in await shop.log_states(state="rejected")] == []


@pytest.mark.parametrize("junk", [b"", b"\xff\x00 junk", b"\x93\x01\x02\x03", b'{"event": 1}'])
async def test_bytes_that_are_no_event_are_kept_and_hold_up_nobody(shop: Workshop, junk: bytes) -> None:
    await shop.publish(to="alice", title="before")
    await shop.core.queue.append([Append("evt_whoever", {"0": junk})])
    await shop.publish(to="alice", title="after")
    await shop.generate()

    assert await shop.titles("alice") == ["before", "after"]
    [line] = await shop.store.log(LogQuery(10, state="rejected"))
    assert line.reason == "planning_error"
    assert line.event_id is not None
    record = await shop.store.event(line.event_id)
    assert record is not None
    assert (record.state, record.raw) == ("rejected", junk)
    assert await shop.store.ledger() == []


# ---------------------------------------------------------------- parts that are away


@pytest.mark.req("R27")
async def test_while_the_store_is_away_events_wait(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, failures = shop.store.commit, 4

    async def away(batch: Batch) -> Committed:
        nonlocal failures
        if failures:
            failures -= 1
            raise StoreUnavailable("The database cannot be reached.")
        return await commit(batch)

    monkeypatch.setattr(shop.store, "commit", away)
    await shop.publish_many(*({"to": "alice", "title": str(n)} for n in range(5)))
    await shop.generate()
    assert failures == 0
    assert await shop.titles("alice") == [str(n) for n in range(5)]
    assert await shop.log_states(state="rejected") == []  # an outage is nobody's fault
    assert await shop.store.ledger() == []


@pytest.mark.req("R27")
async def test_a_bus_that_is_away_after_the_commit_gets_everything_once(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, failures = shop.core.bus.publish, 3

    async def away(publications: Sequence[Publication]) -> list[Published]:
        nonlocal failures
        if failures:
            failures -= 1
            raise BusUnavailable("Redis is away.")
        return await publish(publications)

    monkeypatch.setattr(shop.core.bus, "publish", away)
    await shop.publish_many({"to": "alice", "title": "one"}, {"to": "alice", "title": "two"})
    await shop.generate()
    assert failures == 0
    assert await shop.titles("alice") == ["one", "two"]
    assert len(shop.commits) == 1


@pytest.mark.req("R27", "I4")
@pytest.mark.parametrize("published", [False, True], ids=["before publishing", "before trimming"])
async def test_a_crash_after_the_commit_announces_again_at_the_old_place(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch, published: bool
) -> None:
    publish, died = shop.core.bus.publish, asyncio.Event()

    async def die(publications: Sequence[Publication]) -> list[Published]:
        if published:
            await publish(publications)
        died.set()
        return await asyncio.Event().wait()  # type: ignore[return-value]  # never

    await shop.publish_many({"to": ["alice", "bob"], "title": "one"}, {"to": "alice", "title": "two"})
    await shop.publish(to={"everyone": True}, title="all")
    with monkeypatch.context() as context:
        context.setattr(leases, "GRACE_SECONDS", 0.05)
        context.setattr(shop.core.bus, "publish", die)
        async with shop.generating(), asyncio.timeout(PATIENCE_SECONDS):
            await died.wait()
            while len(shop.commits) < 2:
                await asyncio.sleep(0.005)
    assert await shop.titles("alice") == (["one", "two"] if published else [])

    await shop.publish(to="alice", title="three")
    await shop.generate()
    assert await shop.titles("alice") == ["one", "two", "three"]
    assert await shop.titles("bob") == ["one"]
    assert (await shop.core.bus.history("broadcasts", 0, None)).top == 1
    rows = await shop.store.log(LogQuery(100, state="generated"))
    assert len(rows) == 5  # three for alice, one for bob, one broadcast
    assert await shop.store.ledger() == []


@pytest.mark.req("I10", "R27")
async def test_a_late_owner_writes_and_announces_nothing(shop: Workshop) -> None:
    event_id = await shop.publish(to="alice", title="Hello")
    late = await shop.store.take_lease("0", "one", -1)
    assert late is not None
    assert await shop.store.take_lease("0", "two", 60) is not None
    with pytest.raises(LeaseLost):
        await generator_of(shop.core).work(late, asyncio.Event())
    assert shop.commits == []
    assert await shop.store.event(event_id) is None
    assert await shop.live("#alice") == await shop.live("log") == []
    assert (await shop.core.queue.waiting())["0"] == 1


# ---------------------------------------------------------------- batches


@pytest.mark.req("R23")
async def test_a_batch_closes_when_ten_milliseconds_were_planned(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = 0.0

    def perf_counter() -> float:  # looked at once before and once after each event
        nonlocal moment
        moment += 0.004
        return moment

    monkeypatch.setattr(batches, "perf_counter", perf_counter)
    await shop.publish_many(*({"to": "alice", "title": str(n)} for n in range(8)))
    await shop.generate()
    assert [len(batch.slices) for batch in shop.commits] == [3, 3, 2]
    assert await shop.titles("alice") == [str(n) for n in range(8)]
    assert await shop.store.ledger() == []


@pytest.mark.req("R23", "R25")
async def test_with_a_backlog_batches_are_large(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits behind a full batch is served soonest by few transactions."""
    moment = step = 0.0

    def perf_counter() -> float:
        nonlocal moment
        moment += step
        return moment

    monkeypatch.setattr(batches, "perf_counter", perf_counter)
    many = batches.BATCH_SLICES + 20
    await shop.publish_many(*({"to": "alice", "title": str(n)} for n in range(many)))
    await shop.generate()
    assert [len(batch.slices) for batch in shop.commits] == [
        many
    ]  # the few beyond a batch are none of their own
    shop.commits.clear()
    step = 0.004
    await shop.publish_many(*({"to": "alice", "title": str(n)} for n in range(many)))
    await shop.generate()
    assert len(shop.commits[0].slices) == 13  # 50 ms at 4 ms for each
    assert sum(len(batch.slices) for batch in shop.commits) == many


@pytest.mark.req("R25")
async def test_only_news_about_users_are_written(shop: Workshop) -> None:
    await shop.publish(to={"id": "alice", "email": "a@example.com"}, title="1")
    await shop.generate()
    await shop.publish(to={"id": "alice", "email": "a@example.com"}, title="2")
    await shop.publish(to="alice", title="3")
    await shop.publish(to={"id": "alice", "email": "b@example.com"}, title="4")
    await shop.generate()
    written = [named.email for batch in shop.commits for named in batch.users]
    assert written == ["a@example.com", "b@example.com"]
    assert (await shop.store.load_users(["alice"]))["alice"].profile.email == "b@example.com"


async def test_moments_increase_although_the_clock_stands_still_or_goes_back(shop: Workshop) -> None:
    await shop.publish_many(*({"to": "alice", "title": str(n)} for n in range(3)))
    await shop.generate()
    shop.clock.advance(-3600)
    await shop.publish(to="alice", title="3")
    await shop.generate()
    rows = [row for batch in shop.commits for row in batch.notifications]
    moments = [row.created_at_us for row in rows]
    assert moments == sorted(set(moments))
    assert [row.content.title for row in rows] == ["0", "1", "2", "3"]


@pytest.mark.req("R27")
async def test_a_repeated_append_is_planned_once(shop: Workshop) -> None:
    await shop.publish(to="alice", title="once")
    queue = shop.core.queue
    assert isinstance(queue, MemoryQueue)
    [slice_] = await queue.read("0", None, 10, 0)
    await queue.append([Append("evt_again", {"0": slice_.raw}), Append("evt_again", {"0": slice_.raw})])
    await shop.generate()
    await queue.append([Append("evt_again", {"0": slice_.raw})])
    await shop.generate()
    assert await shop.titles("alice") == ["once"]
    assert await shop.store.ledger() == []


@pytest.mark.req("R27", "I4")
async def test_a_repeated_append_that_waits_behind_a_crash_is_announced_once(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.publish(to="alice", title="once")
    queue = shop.core.queue
    [slice_] = await queue.read("0", None, 10, 0)
    await shop.publish(to="alice", title="between")
    await queue.append([Append("evt_again", {"0": slice_.raw})])
    moment = 0.0

    def one_by_one() -> float:
        nonlocal moment
        moment += 0.02
        return moment

    monkeypatch.setattr(batches, "perf_counter", one_by_one)
    trim, died = queue.trim, asyncio.Event()

    async def die(*_: Any) -> None:
        died.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as context:
        context.setattr(leases, "GRACE_SECONDS", 0.05)
        context.setattr(queue, "trim", die)
        async with shop.generating(), asyncio.timeout(PATIENCE_SECONDS):
            await died.wait()
    assert len(shop.commits) == 3
    shop.core.bus.wipe()  # type: ignore[attr-defined]  # nothing there refuses a repeat any more
    assert queue.trim == trim
    await shop.generate()
    assert await shop.titles("alice") == ["once", "between"]


@pytest.mark.req("I10")
async def test_a_row_that_cannot_be_announced_holds_up_no_other(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = announcements.wire_addressed

    def fussy(row: Any) -> Any:
        if row.content.title == "poison":
            raise ValueError("a bug in encoding")
        return wire(row)

    monkeypatch.setattr(announcements, "wire_addressed", fussy)
    await shop.publish_many(*({"to": "alice", "title": title} for title in ("one", "poison", "two")))
    await shop.generate()
    assert await shop.titles("alice") == ["one", "two"]
    assert await shop.store.ledger() == []


# ---------------------------------------------------------------- what changed while it waited


@pytest.mark.req("R20", "I3")
async def test_an_event_retracted_in_the_queue_reaches_nobody_and_is_accounted_for(shop: Workshop) -> None:
    event_id = await shop.publish(to=["alice", "bob"], title="Oops")
    everyone = await shop.publish(to={"everyone": True}, title="Oops")
    for one in (event_id, everyone):
        await shop.store.retract(one, shop.clock.now_us())
    await shop.publish(to="alice", title="Hello")
    await shop.generate()

    assert await shop.titles("alice") == ["Hello"]
    assert await shop.live("#bob") == []
    assert await shop.store.broadcasts_after(0, 10) == []
    sums = await shop.store.event_sums(event_id)
    assert (sums["recipients"], sums["in_app"], sums["suppressed"]) == (2, 0, 2)
    assert await shop.log_states(event_id=event_id) == [
        ("retracted", None),  # by the moment of writing: nothing was planned yet
        ("accepted", None),
        ("suppressed", "retracted"),
    ]
    for one in (event_id, everyone):
        record = await shop.store.event(one)
        assert record is not None
        assert record.state == "retracted"
    assert await shop.store.ledger() == []


async def test_an_event_outlives_its_type(shop: Workshop) -> None:
    definition = TypeDefinition(
        category="orders", title="Order {{ data.number }}", channels={Channel.IN_APP: ChannelRule()}
    )
    await shop.core.definitions.put_type("order.paid", definition)
    own = await shop.publish(to="alice", type="order.paid", title="Paid", data={"number": 7})
    bare = await shop.publish(to="alice", type="order.paid", data={"number": 8})
    await shop.core.definitions.delete_type("order.paid")
    await shop.generate()

    first, second = [one["notification"] for one in await shop.live("#alice")]
    assert (first["title"], first["type"], first["event"]) == ("Paid", "order.paid", own)
    assert second["title"]  # something to click on
    assert second["event"] == bare
    assert await shop.store.ledger() == []


@pytest.mark.req("R16")
async def test_a_type_that_changed_counts_at_the_next_batch(shop: Workshop) -> None:
    async with shop.generating():
        for words in ("Order", "Bestellung"):
            definition = TypeDefinition(
                category="orders",
                title=words + " {{ data.number }}",
                channels={Channel.IN_APP: ChannelRule()},
            )
            await shop.core.definitions.put_type("order.paid", definition)
            await shop.publish(to="alice", type="order.paid", data={"number": 7})
            await shop.drained()
    assert await shop.titles("alice") == ["Order 7", "Bestellung 7"]


# ---------------------------------------------------------------- what takes the place of what


@pytest.mark.req("R20")
async def test_what_is_replaced_is_taken_back_live_with_the_new_counts(shop: Workshop) -> None:
    async with open_hub(shop.core) as hub:
        await shop.publish(to="alice", title="Hello")
        await shop.publish(to=["alice", "bob"], title="10 %", collapse_key="upload")
        await shop.generate()
        await shop.publish_many(
            {"to": "alice", "title": "50 %", "collapse_key": "upload"},
            {"to": "alice", "title": "90 %", "collapse_key": "upload"},
            {"to": "alice", "title": "Bye"},
        )
        await shop.generate()
        counts = await hub.inbox.counts("alice")

    hello, ten, ninety, bye, retracted = await shop.live("#alice")
    assert [one["notification"]["title"] for one in (hello, ten, ninety, bye)] == [
        "Hello",
        "10 %",
        "90 %",
        "Bye",
    ]
    # What was replaced before anybody saw it is no news.
    assert retracted == {"kind": "retracted", "ids": [ten["notification"]["id"]], "unread": 3, "unseen": 3}
    assert (counts.unread, counts.unseen) == (3, 3)
    assert [one["kind"] for one in await shop.live("#bob")] == ["notification"]


async def test_counts_that_cannot_be_had_do_not_hold_the_message_up(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> Any:
        raise StoreUnavailable("The database cannot be reached.")

    await shop.publish(to="alice", title="10 %", collapse_key="upload")
    await shop.generate()
    await shop.publish(to="alice", title="90 %", collapse_key="upload")
    monkeypatch.setattr(shop.store, "unread", away)
    await shop.generate()
    retracted = (await shop.live("#alice"))[-1]
    assert (retracted["kind"], retracted["unread"], retracted["unseen"]) == ("retracted", None, None)


# ---------------------------------------------------------------- deliveries


@pytest.fixture
async def mailing(shop: Workshop) -> Workshop:
    """Types that use e-mail in each way."""
    for when in ("always", "offline", "unseen"):
        rule = ChannelRule(when=when, after_seconds=600, fallback=[Channel.SMS])  # type: ignore[arg-type]
        channels = {Channel.IN_APP: ChannelRule(), MAIL: rule, Channel.SMS: ChannelRule(when="never")}
        await shop.core.definitions.put_type(
            f"mail.{when}", TypeDefinition(category="orders", title=when, channels=channels)
        )
    return shop


ALICE = {"id": "alice", "email": "alice@example.com"}


@pytest.mark.req("R17", "R20")
async def test_deliveries_are_planned_with_their_reasons(mailing: Workshop) -> None:
    events = {
        when: await mailing.publish(to=[ALICE, "bob"], type=f"mail.{when}")
        for when in ("always", "offline", "unseen")
    }
    await mailing.generate()

    now_us = mailing.clock.now_us()
    found = {}
    for when, event_id in events.items():
        [delivery] = await mailing.deliveries(event_id)
        wait = round((delivery.due_at_us - now_us) / 1e6)
        found[when] = (delivery.user_id, delivery.state, delivery.condition, wait, delivery.fallback)
        sums = await mailing.store.event_sums(event_id)
        assert (sums["recipients"], sums["in_app"], sums["deliveries"]) == (2, 2, 1)
    assert found == {
        "always": ("alice", "queued", "always", 0, (Channel.SMS,)),
        "offline": ("alice", "held", "offline", 0, (Channel.SMS,)),  # nobody is connected, so no grace
        "unseen": ("alice", "held", "unseen", 600, (Channel.SMS,)),
    }
    planned = await mailing.store.explain("alice", events["offline"])
    refused = await mailing.store.explain("bob", events["offline"])
    assert planned is not None
    assert refused is not None
    assert [(r.channel, r.verdict, r.rule) for r in planned.reasons if r.channel == MAIL] == [
        (MAIL, "hold", "offline")
    ]
    assert [(r.channel, r.verdict, r.rule) for r in refused.reasons if r.channel == MAIL] == [
        (MAIL, "refuse", "no_address")
    ]
    assert await mailing.store.ledger() == []


@pytest.mark.req("R17")
async def test_without_a_provider_the_plan_says_so(shop: Workshop) -> None:
    channels = {Channel.IN_APP: ChannelRule(), Channel.SMS: ChannelRule()}
    await shop.core.definitions.put_type(
        "sms.always", TypeDefinition(category="orders", title="x", channels=channels)
    )
    event_id = await shop.publish(to=ALICE | {"phone": "+491701234567"}, type="sms.always")
    await shop.generate()
    planned = await shop.store.explain("alice", event_id)
    assert planned is not None
    assert [(r.verdict, r.rule) for r in planned.reasons if r.channel == Channel.SMS] == [
        ("refuse", "no_provider")
    ]
    assert await shop.deliveries(event_id) == []


@pytest.mark.req("R20")
@pytest.mark.parametrize("again", [False, True], ids=["announced once", "announced again after a crash"])
async def test_what_reached_its_user_is_not_mailed(
    mailing: Workshop, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    if again:
        await _publish_and_crash(mailing, monkeypatch)
    async with open_hub(mailing.core) as hub:
        wire = FakeWire("alice")
        await connect(hub.node, wire)
        if not again:
            await _publish_one_of_each(mailing)
        await mailing.generate()
        await wire.until(lambda: len(wire.frames) == 3)
        hub.node.proven_alive(wire, mailing.clock.advance(1))
        await hub.node._reached.flush()
        hub.node.leave(wire)
    lines = await mailing.store.log(LogQuery(100, channel="email"))
    assert [(line.state, line.reason, line.type) for line in lines] == [
        ("cancelled", "reached", "mail.offline")
    ]
    assert ("reached", None) in await mailing.log_states(user_id="alice")
    assert await mailing.store.ledger() == []


@pytest.mark.req("R37")
@pytest.mark.parametrize("again", [False, True], ids=["announced once", "announced again after a crash"])
async def test_a_broadcast_that_reached_a_user_is_reported_if_a_channel_waits_for_that(
    mailing: Workshop, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    async def publish() -> list[str]:
        return [
            await mailing.publish(to={"everyone": True}, type=f"mail.{when}")
            for when in ("always", "offline", "unseen")
        ]

    await mailing.store.merge_users([UserMerge("alice", {"email": "alice@example.com"})])
    events = await _crash_after(mailing, monkeypatch, publish) if again else []
    async with open_hub(mailing.core) as hub:
        wire = FakeWire("alice")
        await connect(hub.node, wire)
        if not again:
            events = await publish()
        await mailing.generate()
        await wire.until(lambda: len(wire.frames) == 3)
        [flagged] = [frame.report_id for frame in wire.frames if frame.report_id]
        assert wire.asked == 1
        hub.node.proven_alive(wire, mailing.clock.advance(1))
        await hub.node._reached.flush()
        hub.node.leave(wire)
    mailing.clock.advance(5)
    due = await mailing.store.due_expansions(mailing.clock.now_us(), 9)
    [offline] = [one for one in due if one.expansion.event_id == events[1]]
    assert (offline.broadcast.id, offline.expansion.condition) == (flagged, "offline")
    page = await mailing.store.audience_page(offline, 9, "UTC")
    assert page.reached == {"alice"}


async def _publish_one_of_each(mailing: Workshop) -> None:
    for when in ("always", "offline", "unseen"):
        await mailing.publish(to=ALICE, type=f"mail.{when}")


async def _publish_and_crash(mailing: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    await _crash_after(mailing, monkeypatch, lambda: _publish_one_of_each(mailing))


async def _crash_after(
    mailing: Workshop, monkeypatch: pytest.MonkeyPatch, publish: Callable[[], Awaitable[T]]
) -> T:
    """Publish, and crash between the commit and the announcement."""
    published = await publish()

    async def hang(_: Sequence[Publication]) -> list[Published]:
        return await asyncio.Event().wait()  # type: ignore[return-value]  # never

    with monkeypatch.context() as context:
        context.setattr(leases, "GRACE_SECONDS", 0.05)
        context.setattr(mailing.core.bus, "publish", hang)
        async with mailing.generating(), asyncio.timeout(PATIENCE_SECONDS):
            while not mailing.commits:
                await asyncio.sleep(0.005)
    mailing.commits.clear()
    return published


@pytest.mark.req("R20")
async def test_what_was_seen_is_not_mailed_later(mailing: Workshop) -> None:
    await _publish_one_of_each(mailing)
    await mailing.generate()
    async with open_hub(mailing.core) as hub:
        from hub.inbox import MarkRequest

        await hub.inbox.mark("alice", MarkRequest("seen", all=True))
    lines = await mailing.store.log(LogQuery(100, channel="email"))
    assert sorted((line.state, line.reason, line.type) for line in lines) == [
        ("cancelled", "seen", "mail.offline"),
        ("cancelled", "seen", "mail.unseen"),
    ]
    assert await mailing.store.ledger() == []
