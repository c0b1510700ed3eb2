"""Whom the app reached with a broadcast: left out of its `offline` channels, whenever the report comes, and forgotten after."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import broadcast_reached
from hub.model.events import BroadcastAudience
from hub.model.notifications import Broadcast
from hub.model.users import Preferences, QuietHours
from hub.model.vocabulary import Channel
from hub.ports import LogQuery
from tests.conformance.test_store_expansions import (
    HOUR_US,
    MAIL,
    SMS,
    broadcast,
    expanding,
    finish,
    only,
    people,
    reached,
    states,
)
from tests.conformance.test_store_statements import watched
from tests.support.clock import FakeClock
from tests.support.stores import NOW_US, Partition
from workers.expansion import Expansions

pytestmark = [pytest.mark.req("R37"), pytest.mark.req("R2"), pytest.mark.req("I3")]


@pytest.fixture
def workers(store: SqlStore, clock: FakeClock) -> Expansions:
    return expanding(store, clock)


async def kept(store: SqlStore) -> list[tuple[int, str, int]]:
    """What is kept of reports: seq, user, moment."""
    own = broadcast_reached.c
    async with store._db.read() as connection:
        rows = await connection.execute(select(broadcast_reached).order_by(own.seq, own.user_id))
        return [(row.seq, row.user_id, row.at_us) for row in rows]


async def report(store: SqlStore, row: Broadcast, *ids: str) -> None:
    await store.report_reached([(user_id, row.id, NOW_US + 1) for user_id in ids])


async def test_a_report_before_the_page_counts_and_one_after_it_cancels(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    ids = await people(store, "a", "b", "c", "d", "e", "f")
    row = await broadcast(lane, "evt_1", condition="offline")
    await report(store, row, "b", "c", "stranger")
    await report(store, row, "b")
    assert await kept(store) == [(row.seq, name, NOW_US + 1) for name in ("b", "c", "stranger")]
    await workers.round()
    await report(store, row, "a", "e")  # one behind the cursor, one before it
    assert await states(store, "evt_1") == {("cancelled", "reached"): 1}
    await finish(workers)
    assert await reached(store, "evt_1") == ["a", "d", "f"]
    done = await only(store, "evt_1")
    assert (done.audience, done.deliveries, done.counts) == (6, 3, {"reached": 3})
    assert await kept(store) == []

    lines = await store.report_reached([(user_id, row.id, NOW_US + 2) for user_id in ids])  # long after
    assert sorted((line.user_id, line.state, line.reason, line.channel) for line in lines) == [
        ("d", "cancelled", "reached", "email"),
        ("f", "cancelled", "reached", "email"),
    ]
    assert await states(store, "evt_1") == {("cancelled", "reached"): 3}
    assert await kept(store) == []
    assert await store.log(LogQuery(9, state="reached")) == []
    assert await store.ledger() == []


async def test_a_report_between_reading_a_page_and_writing_it_counts(
    store: SqlStore, lane: Partition, workers: Expansions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await people(store, "a", "b", "c")
    row = await broadcast(lane, "evt_1", condition="offline")
    real = store.audience_page

    async def read_then_report(*args: Any) -> Any:
        page = await real(*args)
        assert page.reached == frozenset()
        await report(store, row, "b")
        return page

    with monkeypatch.context() as patch:
        patch.setattr(store, "audience_page", read_then_report)
        await workers.round()
    await finish(workers)
    assert await reached(store, "evt_1") == ["a", "c"]
    assert (await only(store, "evt_1")).counts == {"reached": 1}
    assert await store.ledger() == []


async def test_racing_reports_and_pages_send_nobody_what_they_read(
    store: SqlStore, lane: Partition, clock: FakeClock
) -> None:
    ids = await people(store, *(f"u{number:02d}" for number in range(40)))
    row = await broadcast(lane, "evt_1", channels=(MAIL, SMS), condition="offline")
    reports = [ids[:16:2], ids[14::-2], ids[20:30], ids[29:19:-1]]
    await asyncio.gather(finish(expanding(store, clock, 2)), *(report(store, row, *some) for some in reports))
    told = {user_id for some in reports for user_id in some}
    rows = await store.event_deliveries("evt_1", "queued", None, 99)
    assert {made.user_id for made in rows} == set(ids) - told
    assert await kept(store) == []
    assert await store.ledger() == []


async def test_only_the_channel_the_broadcast_and_the_user_that_are_meant_are_left_out(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    names = await people(store, "a", "b")
    for name in names:
        await store.save_preferences(name, Preferences(quiet_hours=QuietHours("11:00", "13:00")), None)
    first = await broadcast(lane, "evt_1", condition="offline")
    second = await broadcast(lane, "evt_2", condition="offline")
    unseen = await broadcast(lane, "evt_3", condition="unseen")
    always = await broadcast(lane, "evt_4")
    reports = [
        ("a", first.id, NOW_US),
        ("b", second.id, NOW_US),
        ("a", unseen.id, NOW_US),
        ("a", always.id, NOW_US),
        ("a", "ntf_nothing", NOW_US),
    ]
    await store.report_reached(reports)
    assert await kept(store) == [(first.seq, "a", NOW_US), (second.seq, "b", NOW_US)]
    await finish(workers)
    await store.report_reached(reports)
    assert await reached(store, "evt_1") == ["b"]
    assert await reached(store, "evt_2") == ["a"]
    for event_id in ("evt_3", "evt_4"):
        assert await states(store, event_id) == {("held", None): 2}
    third = await broadcast(lane, "evt_5", condition="offline")
    fourth = await broadcast(lane, "evt_6", condition="offline")
    await finish(workers)
    await store.report_reached([("a", third.id, NOW_US), ("b", fourth.id, NOW_US)])
    for event_id, name in (("evt_5", "a"), ("evt_6", "b")):
        cancelled = await store.event_deliveries(event_id, "cancelled", None, 9)
        assert [(made.user_id, made.reason) for made in cancelled] == [(name, "reached")]
    assert await store.ledger() == []


async def test_an_addressed_notification_and_a_broadcast_are_reported_together(
    store: SqlStore, partition: Partition, lane: Partition
) -> None:
    [own] = await partition.publish("evt_1", ["a"], channels=[Channel.WEB_PUSH], condition="offline")
    row = await broadcast(lane, "evt_2", condition="offline")
    lines = await store.report_reached([("a", own.id, NOW_US), ("a", row.id, NOW_US)])
    assert [(line.event_id, line.state) for line in lines] == [
        ("evt_1", "reached"),
        ("evt_1", "cancelled"),
    ]
    assert await kept(store) == [(row.seq, "a", NOW_US)]
    assert Counter(line.state for line in await store.log(LogQuery(9, user_id="a"))) >= Counter(
        ["reached", "cancelled"]
    )


@pytest.mark.req("R25")
async def test_many_reports_cost_as_many_statements_as_a_few(
    store: SqlStore, partition: Partition, lane: Partition, clock: FakeClock
) -> None:
    ids = await people(store, *(f"u{number:03d}" for number in range(300)))
    costs = []
    for size in (3, 200):
        rows = await partition.publish(
            f"evt_own_{size}", ids[:size], channels=[Channel.WEB_PUSH], condition="offline"
        )
        shared = [
            await broadcast(lane, f"evt_{size}_{n}", condition="offline", due_at_us=clock.now_us() + n)
            for n in range(2)
        ]
        await expanding(store, clock, 1_000).round()  # the first has deliveries, the second is not begun
        reports = [(user_id, row.id, NOW_US) for user_id in ids[:size] for row in shared]
        reports += [(row.user_id, row.id, NOW_US) for row in rows]
        with watched(store) as statements:
            await store.report_reached(reports)
        costs.append(len(statements))
        clock.advance(1)
        await finish(expanding(store, clock, 1_000))
        assert (await only(store, f"evt_{size}_1")).counts == {"reached": size}
        assert await states(store, f"evt_{size}_0") == {
            ("cancelled", "reached"): size,
            ("queued", None): 300 - size,
        }
    assert costs[1] == costs[0] <= 12
    assert await store.ledger() == []


# ---------------------------------------------------------------- forgotten


async def test_they_are_kept_until_the_last_channel_that_asks_is_done(
    store: SqlStore, lane: Partition, workers: Expansions
) -> None:
    await people(store, "a", "b", phone="+4930123456")
    row = await broadcast(lane, "evt_1", channels=(MAIL, SMS), condition="offline")
    later = await broadcast(lane, "evt_2", condition="offline", due_at_us=NOW_US + HOUR_US)
    await report(store, row, "a")
    await report(store, later, "b")
    [mail, sms] = await store.due_expansions(NOW_US, 9)
    for due, left in ((mail, 2), (sms, 1)):
        page = await store.audience_page(due, 9, "UTC")
        assert page.reached == {"a"}
        await store.save_page(due.expansion, page, (), {"seen": 1, "reached": 1}, NOW_US)
        assert len(await kept(store)) == left
    assert await kept(store) == [(later.seq, "b", NOW_US + 1)]
    assert await store.ledger() == []


@pytest.mark.parametrize("how", ["retracted", "collapsed"])
async def test_what_is_stopped_forgets_them_and_takes_no_more(
    store: SqlStore, lane: Partition, workers: Expansions, how: str
) -> None:
    await people(store, "a", "b", "c", "d")
    row = await broadcast(lane, "evt_1", condition="offline", collapse_key="k")
    await report(store, row, "a")
    await workers.round()
    if how == "retracted":
        await store.retract("evt_1", NOW_US)
    else:
        await broadcast(lane, "evt_2", due_at_us=NOW_US + HOUR_US, collapse_key="k")
    await report(store, row, "b", "d")
    assert await kept(store) == [(row.seq, "a", NOW_US + 1)]
    await finish(workers)
    assert await kept(store) == []
    done = await only(store, "evt_1")
    assert (done.deliveries, done.counts) == (2, {"reached": 1, how: 1})
    assert await states(store, "evt_1") == {("cancelled", how): 2}
    assert await store.ledger() == []


@pytest.mark.req("R10")
async def test_erasing_a_user_forgets_them(store: SqlStore, lane: Partition, workers: Expansions) -> None:
    await people(store, "a", "b")
    row = await broadcast(lane, "evt_1", condition="offline", audience=BroadcastAudience(everyone=True))
    await report(store, row, "a", "b", "unknown")
    assert await store.erase_user("a", NOW_US + 5)
    assert await store.erase_user("unknown", NOW_US + 5)
    assert [name for _, name, _ in await kept(store)] == ["b"]
    await finish(workers)
    assert (await only(store, "evt_1")).counts == {"reached": 1}
    assert await kept(store) == []


async def test_retention_takes_them_with_their_event(store: SqlStore, lane: Partition) -> None:
    old = await broadcast(lane, "evt_1", condition="offline", due_at_us=NOW_US + 9 * HOUR_US)
    lane.lease = replace(lane.lease, clock_us=NOW_US + HOUR_US)
    young = await broadcast(lane, "evt_2", condition="offline", due_at_us=NOW_US + 9 * HOUR_US)
    await report(store, old, "a")
    await report(store, young, "a")
    await store.drop_older(NOW_US + HOUR_US)
    assert await kept(store) == [(young.seq, "a", NOW_US + 1)]
