"""Broadcasts on addressed channels: pages of their audience, each written once, whatever crashes, races or is taken back."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import insert, select

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import attempts, deliveries, devices, push_subscriptions, suppressions
from hub.catalog import Catalog
from hub.model.deliveries import Delivery
from hub.model.events import BroadcastAudience
from hub.model.expansion import Expansion
from hub.model.notifications import Broadcast
from hub.model.users import Preferences, QuietHours
from hub.model.vocabulary import Channel
from hub.ports import Lease, LogQuery, UserMerge
from tests.conformance.test_store_statements import watched
from tests.support.clock import FakeClock
from tests.support.stores import NOW_US, Partition
from workers.expansion import Expansions

pytestmark = [pytest.mark.req("R2"), pytest.mark.req("R24"), pytest.mark.req("I3")]

MAIL, SMS, WEB, MOBILE = Channel.EMAIL, Channel.SMS, Channel.WEB_PUSH, Channel.MOBILE_PUSH
HOUR_US = 3_600_000_000


@pytest.fixture
def workers(store: SqlStore, clock: FakeClock) -> Expansions:
    return expanding(store, clock)


def expanding(store: SqlStore, clock: FakeClock, page_users: int = 3) -> Expansions:
    return Expansions(
        store,
        Catalog(store, clock),
        clock,
        available=frozenset(Channel),
        default_timezone="UTC",
        page_users=page_users,
    )


async def people(store: SqlStore, *ids: str, **fields: Any) -> list[str]:
    """Users with an e-mail address each, unless a field says otherwise."""
    merges = [UserMerge(id_, {"email": f"{id_}@example.com", **fields}) for id_ in ids]
    await store.merge_users(merges)
    return list(ids)


async def broadcast(
    lane: Partition,
    event_id: str,
    *topics: str,
    channels: Sequence[Channel] = (MAIL,),
    condition: str = "always",
    due_at_us: int = NOW_US,
    fallback: tuple[Channel, ...] = (),
    **more: Any,
) -> Broadcast:
    """Commit a broadcast with an expansion on each of these channels."""
    batch = lane.batch()
    row = lane.add_broadcast(batch, event_id, *topics, **more)
    for channel in channels:
        batch.expansions.append(
            Expansion(row.id, channel, row.seq, event_id, "lane", condition, due_at_us, fallback)
        )
    await lane.commit(batch)
    return row


async def finish(workers: Expansions) -> int:
    """Work until nothing is due; returns how many pages it took."""
    pages = 0
    while count := await workers.round():
        pages += count
    return pages


async def reached(store: SqlStore, event_id: str) -> list[str]:
    """Who has a delivery, by user."""
    rows = await store.event_deliveries(event_id, None, None, 10_000)
    return sorted(row.user_id for row in rows)


async def only(store: SqlStore, event_id: str) -> Expansion:
    [expansion] = await store.event_expansions(event_id)
    return expansion


# ---------------------------------------------------------------- pages


async def test_everyone_with_an_address_gets_a_delivery_and_the_others_are_counted(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    with_mail = await people(store, *(f"u{number}" for number in range(7)))
    await people(store, "silent-1", "silent-2", email=None)
    await store.save_preferences("u1", Preferences(channels={MAIL: False}), None)
    row = await broadcast(lane, "evt_1", audience=BroadcastAudience(everyone=True, exclude=("u2",)))
    waiting = await only(store, "evt_1")
    assert (waiting.state, waiting.audience, waiting.looked_at) == ("waiting", None, 0)
    assert await workers.round() == 1
    running = await only(store, "evt_1")
    assert (running.state, running.looked_at, running.deliveries) == ("running", 3, 1)
    assert await store.ledger() == []  # also while it is on its way
    assert await finish(workers) == 2

    done = await only(store, "evt_1")
    assert (done.state, done.audience, done.deliveries) == ("done", 9, 5)
    assert done.counts == {"channel": 1, "excluded": 1, "no_address": 2}
    assert await reached(store, "evt_1") == sorted(set(with_mail) - {"u1", "u2"})
    made = await store.event_deliveries("evt_1", "queued", None, 1)
    assert (made[0].notification_id, made[0].slice_key) == (row.id, "lane")
    assert (await store.event_sums("evt_1"))["deliveries"] == 5
    assert await store.ledger() == []
    [line] = await store.log(LogQuery(9, state="expanded"))
    assert (line.event_id, line.channel, line.type) == ("evt_1", "email", "news")
    assert line.detail == '{"audience":9,"deliveries":5,"channel":1,"excluded":1,"no_address":2}'


async def test_an_audience_without_anybody_is_done_at_once(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    await broadcast(lane, "evt_1", "nobody")
    await broadcast(lane, "evt_2")
    assert await finish(workers) == 2
    for event_id in ("evt_1", "evt_2"):
        done = await only(store, event_id)
        assert (done.state, done.audience, done.deliveries, done.counts) == ("done", 0, 0, {})
    assert await store.ledger() == []


async def test_pages_that_end_exactly_at_the_last_user_are_whole_too(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    ids = await people(store, "a", "b", "c", "d", "e", "f")
    await broadcast(lane, "evt_1")
    await finish(workers)
    assert await reached(store, "evt_1") == ids
    assert (await only(store, "evt_1")).audience == 6


@pytest.mark.req("R19")
async def test_subscribers_of_several_topics_count_once_as_they_were_at_the_broadcast(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    ids = await people(store, *(f"u{number}" for number in range(8)))
    await people(store, "mute", email=None)
    await store.change_topic("t", ids[:5], [])
    await store.change_topic("u", [*ids[3:7], "mute"], [])
    await lane.broadcast("evt_0")  # a seq between joining and leaving
    await store.change_topic("t", [], ["u0"])  # left before
    row = await broadcast(lane, "evt_1", "t", "u")
    await store.change_topic("t", ["u7"], ["u1"])  # joined and left after
    await store.change_topic("t", ["u1"], ["u4"])
    await finish(workers)
    assert await reached(store, "evt_1") == ids[1:7]
    done = await only(store, "evt_1")
    assert (done.audience, done.deliveries, done.counts) == (7, 6, {"no_address": 1})
    assert row.seq == done.seq
    assert await store.ledger() == []


@pytest.mark.req("R19")
@pytest.mark.parametrize("seed", range(3))
async def test_whoever_comes_and_goes_gets_what_was_broadcast_in_between(
    store: SqlStore, lane: Partition, clock: FakeClock, seed: int
) -> None:
    chance = random.Random(seed)
    ids = await people(store, *(f"u{number}" for number in range(6)))
    await people(store, "u2", email=None)
    members: dict[str, set[str]] = {"t": set(), "u": set(), "v": set()}
    expected: dict[str, set[str]] = {}
    for number in range(12):
        for topic, before in members.items():
            joining = set(chance.sample(ids, chance.randrange(3)))
            leaving = set(chance.sample(ids, chance.randrange(3))) - joining
            await store.change_topic(topic, sorted(joining), sorted(leaving))
            members[topic] = (before | joining) - leaving
        topics = chance.sample(sorted(members), chance.randrange(1, 4))
        await broadcast(lane, f"evt_{number}", *topics)
        expected[f"evt_{number}"] = set().union(*(members[topic] for topic in topics))
    await finish(expanding(store, clock, 2))
    for event_id, audience in expected.items():
        assert await reached(store, event_id) == sorted(audience - {"u2"})
        assert (await only(store, event_id)).audience == len(audience)
    assert await store.ledger() == []


@pytest.mark.parametrize("topics", [(), ("t",)])
async def test_a_part_for_some_time_zones_looks_at_nobody_else(
    store: SqlStore, lane: Partition, workers: Expansions, topics: tuple[str, ...]
) -> None:
    seoul = await people(store, "s1", "s2", timezone="Asia/Seoul")
    berlin = await people(store, "b1", "b2", timezone="Europe/Berlin")
    nowhere = await people(store, "n1")
    if topics:
        await store.change_topic("t", [*seoul, *berlin, *nowhere], [])
    only_seoul = BroadcastAudience(topics, not topics, timezones=("Asia/Seoul",))
    rest = BroadcastAudience(topics, not topics, timezones=("UTC",), other_than=("Asia/Seoul",))
    await broadcast(lane, "evt_1", audience=only_seoul)
    await broadcast(lane, "evt_2", audience=rest, channels=(MAIL, WEB))

    async def subscribe(connection: Any) -> None:
        await connection.execute(insert(push_subscriptions), [push("p1", "b1"), push("p2", "s1")])

    await store._db.write(subscribe)
    await finish(workers)
    assert await reached(store, "evt_1") == seoul
    assert (await only(store, "evt_1")).audience == 2
    assert Counter(await reached(store, "evt_2")) == Counter([*berlin, *nowhere, "b1"])
    assert await store.ledger() == []


def push(id_: str, user_id: str) -> dict[str, Any]:
    return {
        "id": id_, "user_id": user_id, "endpoint": f"https://push.test/{id_}", "p256dh": "k", "auth": "a",
        "created_at_us": 1, "used_at_us": 1,
    }  # fmt: skip


@pytest.mark.req("R7")
@pytest.mark.parametrize("topics", [(), ("t",)])
async def test_push_and_sms_find_their_users_by_what_they_have(
    store: SqlStore, lane: Partition, workers: Expansions, topics: tuple[str, ...]
) -> None:
    ids = await people(store, *(f"u{number}" for number in range(5)))
    await people(store, "phone-1", "phone-2", email=None, phone="+4930123456")
    await store.change_topic("t", [*ids, "phone-1", "phone-2"], [])

    async def work(connection: Any) -> None:
        await connection.execute(
            insert(push_subscriptions), [push(f"p{number}", f"u{number % 4}") for number in range(9)]
        )
        device = {"user_id": "u4", "token": "t", "platform": "fcm", "created_at_us": 1, "used_at_us": 1}
        await connection.execute(insert(devices), [{"id": "d1", **device}, {"id": "d2", **device}])
        await connection.execute(
            insert(suppressions),
            [
                {"channel": "email", "address": "u1@example.com", "reason": "bounce", "at_us": 1},
                {"channel": "sms", "address": "u2@example.com", "reason": "stop", "at_us": 1},
            ],
        )

    await store._db.write(work)
    await people(store, "u2", email="u2@EXAMPLE.com")
    await people(store, "u1", email="u1@EXAMPLE.com")
    await broadcast(lane, "evt_1", *topics, channels=(MAIL, SMS, WEB, MOBILE))
    await finish(workers)
    rows = await store.event_deliveries("evt_1", None, None, 99)
    got = {
        channel: sorted(r.user_id for r in rows if r.channel is channel)
        for channel in (MAIL, SMS, WEB, MOBILE)
    }
    assert got == {
        MAIL: ["u0", "u2", "u3", "u4"],
        SMS: ["phone-1", "phone-2"],
        WEB: ["u0", "u1", "u2", "u3"],
        MOBILE: ["u4"],
    }
    counts = {one.channel: one.counts for one in await store.event_expansions("evt_1")}
    assert counts[MAIL] == {"no_address": 2, "suppressed_address": 1}
    assert counts[MOBILE] == {"no_address": 6}
    assert await store.ledger() == []


async def test_it_begins_when_it_is_due(
    store: SqlStore, lane: Partition, workers: Expansions, clock: FakeClock
) -> None:
    await people(store, "a")
    await broadcast(lane, "evt_1", condition="unseen", due_at_us=NOW_US + HOUR_US)
    assert await workers.round() == 0
    clock.advance(3600)
    assert await finish(workers) == 1
    [made] = await store.event_deliveries("evt_1", None, None, 9)
    assert (made.condition, made.due_at_us) == ("unseen", NOW_US + HOUR_US)


async def test_large_and_small_ones_go_on_side_by_side(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    ids = await people(store, *(f"u{number:02d}" for number in range(20)))
    await store.change_topic("t", ids[:1], [])
    await broadcast(lane, "evt_large")
    await broadcast(lane, "evt_small", "t")
    assert await workers.round() == 2
    assert (await only(store, "evt_small")).state == "done"
    assert (await only(store, "evt_large")).state == "running"


@pytest.mark.req("R25")
async def test_a_page_costs_the_same_statements_whatever_its_size(
    store: SqlStore, lane: Partition, clock: FakeClock
) -> None:
    await people(store, *(f"u{number:03d}" for number in range(300)))
    costs = []
    for size in (3, 200):
        await broadcast(lane, f"evt_{size}", condition="unseen")
        worker = expanding(store, clock, size)
        await worker.round()  # the catalog is read now
        with watched(store) as statements:
            await worker.round()
        costs.append(len(statements))
        await finish(expanding(store, clock, 1000))
    assert costs[0] <= 20
    # The last page counts the audience and writes a line of the log.
    assert costs[1] <= costs[0] + 8


# ---------------------------------------------------------------- crashes and races


@pytest.mark.req("I10", "R27")
async def test_a_page_that_is_written_twice_changes_nothing(
    store: SqlStore, lane: Partition, workers: Expansions, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await people(store, *(f"u{number}" for number in range(5)))
    await broadcast(lane, "evt_1")
    real = store.save_page
    calls: list[Any] = []

    async def twice(*args: Any) -> Any:
        calls.append(args)
        first = await real(*args)
        assert await real(*args) is None
        return first

    monkeypatch.setattr(store, "save_page", twice)
    await finish(workers)
    assert await reached(store, "evt_1") == ids
    assert (await only(store, "evt_1")).deliveries == 5
    for args in calls:  # and a late one, long after
        assert await real(*args) is None
    assert len(await store.log(LogQuery(9, state="expanded"))) == 1
    assert await store.ledger() == []


@pytest.mark.req("I10")
async def test_a_crash_within_a_page_leaves_nothing_of_it(
    store: SqlStore, lane: Partition, workers: Expansions, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await people(store, *(f"u{number}" for number in range(5)))
    await broadcast(lane, "evt_1")
    await workers.round()

    def crash(*_: Any) -> Any:
        raise RuntimeError("the process dies here")

    with monkeypatch.context() as patch:  # after the deliveries, before the cursor
        patch.setattr("hub.adapters.sql_store.expansions._sum", crash)
        with pytest.raises(RuntimeError):
            await workers.round()
    assert len(await reached(store, "evt_1")) == 3
    assert await store.ledger() == []
    await finish(workers)
    assert await reached(store, "evt_1") == ids
    assert await store.ledger() == []


async def test_two_workers_share_nobody(store_url: str, store: SqlStore, clock: FakeClock) -> None:
    lane = await Partition.take(store, "lane")
    ids = await people(store, *(f"u{number:02d}" for number in range(40)))
    await store.change_topic("t", ids[::2], [])
    await broadcast(lane, "evt_1", channels=(MAIL, SMS))
    await broadcast(lane, "evt_2", "t")
    other = store if store_url == "sqlite://" else SqlStore(store_url)
    both = [expanding(store, clock), expanding(other, clock)]
    await asyncio.gather(*(finish(worker) for worker in both))
    await finish(both[0])
    assert await reached(store, "evt_1") == ids
    assert await reached(store, "evt_2") == ids[::2]
    assert {one.audience for one in await store.event_expansions("evt_1")} == {40}
    assert await store.ledger() == []
    if other is not store:
        await other.close()


async def test_who_has_a_fallback_on_the_channel_already_gets_no_second_one(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    await people(store, "a", "b", phone="+4930123456")
    row = await broadcast(lane, "evt_1", channels=(MAIL, SMS), fallback=(SMS,))
    [mail, sms] = await store.event_expansions("evt_1")

    async def fall_back(connection: Any) -> None:
        """What a sender does when an e-mail is dead: another delivery, and the ledger knows of it."""
        found = (await connection.execute(select(deliveries).where(deliveries.c.user_id == "a"))).mappings()
        values = {**next(found), "channel": "sms"}
        values["id"] = values["id"].removesuffix("email") + "sms"
        await connection.execute(insert(deliveries), values)
        await connection.exec_driver_sql("UPDATE slices SET deliveries = deliveries + 1")

    due = {one.expansion.channel: one for one in await store.due_expansions(NOW_US, 9)}
    await finish(expanding_one(store, mail))
    await store._db.write(fall_back)
    await finish(workers)
    [_, sms] = await store.event_expansions("evt_1")
    assert (sms.deliveries, sms.counts, sms.audience) == (1, {"fallback": 1}, 2)
    assert due[SMS].broadcast.id == row.id
    assert await store.ledger() == []


def expanding_one(store: SqlStore, which: Expansion) -> Expansions:
    """A worker that sees one expansion only."""

    class Narrow:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def due_expansions(self, now_us: int, limit: int) -> Any:
            found = await store.due_expansions(now_us, limit)
            return [due for due in found if due.expansion.channel is which.channel]

    clock = FakeClock(NOW_US)
    return expanding(Narrow(), clock)  # type: ignore[arg-type]


async def test_the_work_of_the_lease_goes_on_until_it_is_stopped(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    ids = await people(store, *(f"u{number}" for number in range(7)))
    await broadcast(lane, "evt_1")
    stop = asyncio.Event()
    running = asyncio.create_task(workers.work(Lease("expansion", "me", 1), stop))
    async with asyncio.timeout(20):
        while (await only(store, "evt_1")).state != "done":
            await asyncio.sleep(0.01)
    stop.set()
    await running
    assert await reached(store, "evt_1") == ids


# ---------------------------------------------------------------- taken back


async def states(store: SqlStore, event_id: str) -> dict[tuple[str, str | None], int]:
    rows: list[Delivery] = await store.event_deliveries(event_id, None, None, 10_000)
    return dict(Counter((row.state, row.reason) for row in rows))


async def test_a_retraction_in_between_stops_it_and_cancels_what_waits(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    await people(store, *(f"u{number:02d}" for number in range(10)))
    await people(store, "silent", email=None)
    await broadcast(lane, "evt_1")
    [due] = await store.due_expansions(NOW_US, 9)
    page = await store.audience_page(due, 3, "UTC")
    await workers.round()
    await workers.round()

    async def send(connection: Any) -> None:
        await connection.exec_driver_sql("UPDATE deliveries SET state = 'sent' WHERE user_id = 'u01'")

    await store._db.write(send)
    _, taken_back = await store.retract("evt_1", NOW_US + 5)
    assert [row.event_id for row in taken_back] == ["evt_1"]
    stopping = await only(store, "evt_1")
    assert (stopping.state, stopping.stopped, stopping.deliveries) == ("stopping", "retracted", 6)
    assert await store.save_page(due.expansion, page, (), {"channel": 3}, NOW_US) is None
    await finish(workers)
    done = await only(store, "evt_1")
    assert (done.state, done.audience, done.deliveries) == ("done", 11, 6)
    assert done.counts == {"retracted": 5}
    assert await states(store, "evt_1") == {("sent", None): 1, ("cancelled", "retracted"): 5}
    lines = await store.log(LogQuery(99, event_id="evt_1", state="cancelled"))
    assert len(lines) == 5
    assert await store.ledger() == []
    await store.retract("evt_1", NOW_US + 9)
    assert await finish(workers) == 0


async def test_what_was_expanded_long_ago_is_cancelled_too(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    ids = await people(store, *(f"u{number}" for number in range(7)), timezone="UTC")
    for user_id in ids:
        await store.save_preferences(user_id, Preferences(quiet_hours=QuietHours("11:00", "13:00")), None)
    await broadcast(lane, "evt_1")
    await finish(workers)
    assert await states(store, "evt_1") == {("held", None): 7}
    before = await only(store, "evt_1")
    await store.retract("evt_1", NOW_US)
    await finish(workers)
    after = await only(store, "evt_1")
    assert await states(store, "evt_1") == {("cancelled", "retracted"): 7}
    assert (after.audience, after.counts, after.state) == (before.audience, before.counts, "done")
    assert await store.ledger() == []


async def test_an_event_that_was_retracted_before_its_commit_is_expanded_to_nobody(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    await people(store, "a", "b")
    await store.retract("evt_1", NOW_US)
    await broadcast(lane, "evt_1")
    await finish(workers)
    done = await only(store, "evt_1")
    assert (done.state, done.deliveries, done.counts) == ("done", 0, {"retracted": 2})
    assert await store.ledger() == []


@pytest.mark.parametrize("in_app", [True, False])
@pytest.mark.parametrize("together", [True, False])
async def test_a_newer_one_with_the_same_collapse_key_stops_it(
    store: SqlStore, lane: Partition, workers: Expansions, in_app: bool, together: bool
) -> None:
    await people(store, *(f"u{number}" for number in range(5)))
    more = {"collapse_key": "k", "in_app": in_app}
    if together:
        batch = lane.batch()
        for event_id in ("evt_1", "evt_2"):
            row = lane.add_broadcast(batch, event_id, **more)
            batch.expansions.append(Expansion(row.id, MAIL, row.seq, event_id, "lane", "always", NOW_US))
        await lane.commit(batch)
    else:
        await broadcast(lane, "evt_1", **more)
        await workers.round()
        await broadcast(lane, "evt_2", **more)
    await broadcast(lane, "evt_3", "other", **more)  # the same key for another audience is another thing
    await finish(workers)
    old, new = await only(store, "evt_1"), await only(store, "evt_2")
    assert (old.stopped, new.stopped, new.deliveries) == ("collapsed", None, 5)
    made = 0 if together else 3
    assert (old.deliveries, old.counts) == (made, {"collapsed": 5 - made})
    assert await states(store, "evt_1") == ({} if together else {("cancelled", "collapsed"): 3})
    assert (await only(store, "evt_3")).stopped is None
    assert await store.ledger() == []


async def test_a_newer_one_that_the_app_does_not_show_leaves_the_app_alone(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    await people(store, "a")
    shown = await broadcast(lane, "evt_1", collapse_key="k")
    await broadcast(lane, "evt_2", collapse_key="k", in_app=False)
    await finish(workers)
    assert (await only(store, "evt_1")).stopped == "collapsed"
    [row] = await store.mark_ids("a", "seen", [], [shown], NOW_US)
    assert row == shown.id


# ---------------------------------------------------------------- people who act meanwhile


@pytest.mark.req("R10")
async def test_who_is_erased_between_reading_and_writing_gets_nothing(
    store: SqlStore, lane: Partition, workers: Expansions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await people(store, "a", "b", "c", "d")
    await broadcast(lane, "evt_1")
    real = store.audience_page

    async def read_then_erase(*args: Any) -> Any:
        page = await real(*args)
        await store.erase_user("b", NOW_US + 1)
        return page

    monkeypatch.setattr(store, "audience_page", read_then_erase)
    await finish(workers)
    done = await only(store, "evt_1")
    assert await reached(store, "evt_1") == ["a", "c", "d"]
    assert (done.audience, done.deliveries, done.counts) == (4, 3, {"erased": 1})
    assert await store.ledger() == []


@pytest.mark.req("R10")
async def test_erasing_a_user_keeps_the_sums_and_no_name(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    await people(store, "alice", "bob")
    await broadcast(lane, "evt_1")
    await finish(workers)
    await store.erase_user("alice", NOW_US + 1)
    assert [name for name in await reached(store, "evt_1") if not name.startswith("erased-")] == ["bob"]
    assert (await only(store, "evt_1")).deliveries == 2
    assert await store.ledger() == []
    rows = await store.event_deliveries("evt_1", "cancelled", None, 9)
    assert [row.reason for row in rows] == ["erased"]
    await people(store, "alice")  # somebody new
    lane.lease = replace(lane.lease, clock_us=NOW_US + 10)
    await broadcast(lane, "evt_2")
    await finish(workers)
    assert "alice" in await reached(store, "evt_2")


@pytest.mark.parametrize("condition", ["offline", "unseen"])
async def test_who_saw_it_before_it_is_due_gets_nothing(
    store: SqlStore, lane: Partition, workers: Expansions, clock: FakeClock, condition: str
) -> None:
    await people(store, "by-mark", "by-all", "by-category", "in-other", "before", "unread", "nobody")
    await store.mark_all("before", "seen", None, 0, NOW_US)
    row = await broadcast(lane, "evt_1", condition=condition, due_at_us=NOW_US + 5)
    await store.mark_ids("by-mark", "read", [], [row], NOW_US)
    await store.mark_ids("unread", "seen", [], [row], NOW_US)
    await store.mark_ids("unread", "unread", [], [row], NOW_US)
    await store.mark_all("by-all", "seen", None, row.seq, NOW_US)
    await store.mark_all("by-category", "read", row.category, row.seq, NOW_US)
    await store.mark_all("in-other", "read", "other", row.seq, NOW_US)
    clock.advance(1)
    await finish(workers)
    assert await reached(store, "evt_1") == ["before", "in-other", "nobody"]
    assert (await only(store, "evt_1")).counts == {"seen": 4}
    assert await store.ledger() == []


async def test_marks_and_watermarks_cancel_what_waits_of_it(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    names = await people(store, "by-mark", "by-all", "by-category", "in-other", "before")
    for name in names:
        await store.save_preferences(name, Preferences(quiet_hours=QuietHours("11:00", "13:00")), None)
    unseen = await broadcast(lane, "evt_1", condition="unseen")
    always = await broadcast(lane, "evt_2")
    await finish(workers)
    await store.mark_ids("by-mark", "seen", [], [unseen, always], NOW_US)
    await store.mark_all("by-all", "read", None, always.seq, NOW_US)
    await store.mark_all("by-category", "seen", unseen.category, always.seq, NOW_US)
    await store.mark_all("in-other", "seen", "other", always.seq, NOW_US)
    await store.mark_all("before", "seen", None, unseen.seq - 1, NOW_US)
    rows = await store.event_deliveries("evt_1", "cancelled", None, 9)
    assert sorted((row.user_id, row.reason) for row in rows) == [
        ("by-all", "seen"), ("by-category", "seen"), ("by-mark", "seen"),
    ]  # fmt: skip
    assert await states(store, "evt_2") == {("held", None): 5}
    assert await store.ledger() == []


# ---------------------------------------------------------------- the end


async def test_retention_takes_expansions_with_their_event(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    await people(store, "a")
    await broadcast(lane, "evt_1")
    await finish(workers)
    lane.lease = replace(lane.lease, clock_us=NOW_US + HOUR_US)
    await broadcast(lane, "evt_2", due_at_us=NOW_US + HOUR_US)
    await store.drop_older(NOW_US + HOUR_US)
    assert await store.event_expansions("evt_1") == []
    assert len(await store.event_expansions("evt_2")) == 1
    assert await store.ledger() == []


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ("UPDATE expansions SET audience = 9", "done with an audience of 9, of whom 3 are accounted for"),
        ("UPDATE expansions SET audience = NULL", "done with an audience of None"),
        ("UPDATE expansions SET counts = '{\"channel\":5}'", "of 3, of whom 7 are accounted for"),
        ("DELETE FROM deliveries WHERE user_id = 'a'", "planned 2 deliveries, stored 1"),
        ("DELETE FROM expansions", "planned 0 deliveries, stored 2"),
        ("UPDATE expansions SET broadcast_id = 'ntf_other'", "the email expansion has no broadcast"),
    ],
)
async def test_the_ledger_names_what_does_not_add_up(
    store: SqlStore, lane: Partition, workers: Expansions, damage: str, sentence: str
) -> None:
    await people(store, "a", "b")
    await people(store, "c", email=None)
    await broadcast(lane, "evt_1")
    await finish(workers)
    assert await store.ledger() == []

    async def break_it(connection: Any) -> None:
        await connection.exec_driver_sql(damage)

    await store._db.write(break_it)
    assert sentence in "\n".join(await store.ledger())


async def test_attempts_are_listed_with_their_delivery(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    await people(store, "a", "b")
    await broadcast(lane, "evt_1")
    await finish(workers)
    rows = await store.event_deliveries("evt_1", None, None, 9)
    assert await store.attempts_of(rows) == {}
    first = {
        "user_id": rows[0].user_id, "delivery_id": rows[0].id, "number": 1, "provider": "smtp-1",
        "event_id": "evt_1", "channel": "email", "outcome": "retry", "code": "451", "detail": "later",
        "started_at_us": 5, "duration_us": 7, "is_repeat": False,
    }  # fmt: skip

    async def work(connection: Any) -> None:
        await connection.execute(insert(attempts), [{**first, "number": 2, "started_at_us": 9}, first])

    await store._db.write(work)
    found = await store.attempts_of(rows)
    assert list(found) == [(rows[0].user_id, rows[0].id)]
    assert [(one.number, one.provider, one.code) for one in found[rows[0].user_id, rows[0].id]] == [
        (1, "smtp-1", "451"), (2, "smtp-1", "451"),
    ]  # fmt: skip
