"""The inbox: pages, counts and marks, of rows that are one's own and of broadcasts that many read."""

import asyncio

import pytest
from msgspec.structs import replace

from hub.adapters.sql_store import SqlStore
from hub.model.deliveries import Delivery
from hub.model.notifications import Broadcast, Marks
from hub.model.vocabulary import Channel
from hub.ports import InboxQuery, LogQuery
from tests.support.stores import NOW_US, Partition, counted

pytestmark = pytest.mark.req("R1")

LATER = NOW_US + 1_000_000


async def inbox(store: SqlStore, user_id: str, **filters: object) -> list[str]:
    query = InboxQuery(**{"limit": 50, **filters})  # type: ignore[arg-type]
    return [row.event_id for row in await store.inbox_page(user_id, query, LATER)]


async def shared(store: SqlStore, user_id: str, *topics: str, **filters: object) -> dict[str, Marks]:
    query = InboxQuery(**{"limit": 50, **filters})  # type: ignore[arg-type]
    page = await store.broadcast_page(user_id, topics, query, LATER)
    return {row.broadcast.event_id: row.marks for row in page}


async def deliveries(store: SqlStore, event_id: str) -> list[Delivery]:
    return await store.event_deliveries(event_id, None, None, 99)


# ---------------------------------------------------------------- addressed


async def test_pages_go_on_where_the_one_before_ended(store: SqlStore, partition: Partition) -> None:
    for number in range(7):
        await partition.publish(f"evt_{number}", ["alice", "bob"])
    seen: list[str] = []
    before = None
    while rows := await store.inbox_page("alice", InboxQuery(3, before), LATER):
        seen += [row.event_id for row in rows]
        before = (rows[-1].created_at_us, rows[-1].id)
    assert seen == [f"evt_{number}" for number in reversed(range(7))]


@pytest.mark.req("I16")
async def test_an_inbox_shows_what_is_in_the_app_and_alive_and_ones_own(
    store: SqlStore, partition: Partition
) -> None:
    await partition.publish("evt_1", ["alice"])
    await partition.publish("evt_2", ["alice"], in_app=False)
    await partition.publish("evt_3", ["alice"], expires_at_us=LATER)
    await partition.publish("evt_4", ["alice"], expires_at_us=LATER + 1)
    await partition.publish("evt_5", ["bob"])
    await partition.publish("evt_6", ["alice"])
    await store.retract("evt_6", LATER)
    assert await inbox(store, "alice") == ["evt_4", "evt_1"]
    assert await counted(store, "alice", 100, LATER) == (2, 2)
    explained = await store.explain("alice", "evt_2")
    assert explained is not None
    assert not explained.in_app


async def test_without_a_moment_the_databases_clock_decides_what_has_expired(
    store: SqlStore, partition: Partition
) -> None:
    await partition.publish("evt_1", ["alice"], expires_at_us=1)
    await partition.publish("evt_2", ["alice"], expires_at_us=4_000_000_000_000_000)
    assert [row.event_id for row in await store.inbox_page("alice", InboxQuery(9))] == ["evt_2"]


async def test_filters_of_the_inbox(store: SqlStore, partition: Partition) -> None:
    [one] = await partition.publish("evt_1", ["alice"], category="orders")
    [two] = await partition.publish("evt_2", ["alice"], category="posts")
    await partition.publish("evt_3", ["alice"], category="posts")
    await store.mark_ids("alice", "read", [one.id], [], LATER)
    await store.mark_ids("alice", "archive", [two.id], [], LATER)
    assert await inbox(store, "alice") == ["evt_3", "evt_1"]
    assert await inbox(store, "alice", unread=True) == ["evt_3"]
    assert await inbox(store, "alice", category="orders") == ["evt_1"]
    assert await inbox(store, "alice", archived="only") == ["evt_2"]
    assert await inbox(store, "alice", archived="include") == ["evt_3", "evt_2", "evt_1"]
    assert await counted(store, "alice", 100, LATER) == (1, 1)


async def test_counts_stop_at_their_cap(store: SqlStore, partition: Partition) -> None:
    rows = [row for n in range(6) for row in await partition.publish(f"evt_{n}", ["alice"])]
    await store.mark_ids("alice", "seen", [row.id for row in rows[:4]], [], LATER)
    assert await counted(store, "alice", 100, LATER) == (6, 2)
    assert await counted(store, "alice", 5, LATER) == (5, 2)


@pytest.mark.req("R20")
async def test_marks_change_once_and_keep_their_moment(store: SqlStore, partition: Partition) -> None:
    [row] = await partition.publish("evt_1", ["alice"])
    ids = [row.id]
    assert await store.mark_ids("alice", "read", ids, [], LATER) == ids
    assert await store.mark_ids("alice", "read", ids, [], LATER + 1) == []
    assert await store.mark_ids("alice", "seen", ids, [], LATER + 2) == []
    [found], _ = await store.find_notifications("alice", ids)
    assert (found.seen_at_us, found.read_at_us) == (LATER, LATER)
    assert await store.mark_ids("alice", "unread", ids, [], LATER + 3) == ids
    assert await store.mark_ids("alice", "read", ids, [], LATER + 4) == ids
    assert await store.mark_ids("alice", "archive", ids, [], LATER + 5) == ids
    assert await store.mark_ids("alice", "unarchive", ids, [], LATER + 6) == ids
    [found], _ = await store.find_notifications("alice", ids)
    assert (found.seen_at_us, found.read_at_us, found.archived_at_us) == (LATER, LATER + 4, None)
    states = [line.state for line in await store.log(LogQuery(99, user_id="alice"))]
    assert states == ["unarchive", "archive", "read", "unread", "read", "seen", "generated"]
    sums = await store.event_sums("evt_1")
    assert (sums["seen"], sums["read"]) == (1, 1)
    assert await store.ledger() == []


@pytest.mark.req("I16")
async def test_nobody_marks_what_is_not_theirs(store: SqlStore, partition: Partition) -> None:
    [row] = await partition.publish("evt_1", ["alice"])
    assert await store.mark_ids("bob", "read", [row.id], [], LATER) == []
    assert await store.find_notifications("bob", [row.id]) == ([], [])
    await store.mark_all("bob", "read", None, 5, LATER)
    assert await counted(store, "alice", 9, LATER) == (1, 1)


async def test_marking_all_takes_what_exists_in_a_category_or_everywhere(
    store: SqlStore, partition: Partition
) -> None:
    await partition.publish("evt_1", ["alice"], category="orders")
    await partition.publish("evt_2", ["alice", "bob"], category="posts")
    await store.mark_all("alice", "read", "orders", 0, LATER)
    assert await counted(store, "alice", 9, LATER) == (1, 1)
    await store.mark_all("alice", "seen", None, 0, LATER)
    assert await counted(store, "alice", 9, LATER) == (1, 0)
    await partition.publish("evt_3", ["alice"])
    assert await counted(store, "alice", 9, LATER) == (2, 1)
    assert await counted(store, "bob", 9, LATER) == (1, 1)
    with pytest.raises(ValueError, match="archive"):
        await store.mark_all("alice", "archive", None, 0, LATER)
    assert await store.ledger() == []


@pytest.mark.req("R23")
async def test_seeing_cancels_what_waits_for_it(store: SqlStore, partition: Partition) -> None:
    unseen = await partition.publish("evt_1", ["alice", "bob"], channels=[Channel.EMAIL], condition="unseen")
    always = await partition.publish("evt_2", ["alice"], channels=[Channel.EMAIL], condition="always")
    await store.mark_ids("alice", "seen", [unseen[0].id, always[0].id], [], LATER)
    assert {d.user_id: d.state for d in await deliveries(store, "evt_1")} == {
        "alice": "cancelled",
        "bob": "held",
    }
    assert [d.state for d in await deliveries(store, "evt_2")] == ["held"]
    await store.mark_all("bob", "read", None, 0, LATER)
    assert {d.state for d in await deliveries(store, "evt_1")} == {"cancelled"}
    lines = await store.log(LogQuery(99, event_id="evt_1", state="cancelled"))
    assert {(line.user_id, line.channel, line.reason) for line in lines} == {
        ("alice", "email", "seen"),
        ("bob", "email", "seen"),
    }
    assert await store.ledger() == []


@pytest.mark.req("R23")
async def test_being_reached_cancels_what_is_for_the_absent_once(
    store: SqlStore, partition: Partition
) -> None:
    [alice, bob] = await partition.publish(
        "evt_1", ["alice", "bob"], channels=[Channel.WEB_PUSH], condition="offline"
    )
    [unseen] = await partition.publish("evt_2", ["alice"], channels=[Channel.EMAIL], condition="unseen")
    reports = [("alice", alice.id, LATER), ("alice", unseen.id, LATER + 1), ("carol", bob.id, LATER)]
    await store.report_reached(reports)
    await store.report_reached(reports)
    assert {d.user_id: d.state for d in await deliveries(store, "evt_1")} == {
        "alice": "cancelled",
        "bob": "held",
    }
    assert [d.state for d in await deliveries(store, "evt_2")] == ["held"]
    reached = await store.log(LogQuery(99, state="reached"))
    assert sorted((line.event_id, line.user_id, line.at_us) for line in reached) == [
        ("evt_1", "alice", LATER),
        ("evt_2", "alice", LATER + 1),
    ]
    assert await store.ledger() == []


async def test_racing_reports_of_two_nodes_are_logged_once(store: SqlStore, partition: Partition) -> None:
    rows = await partition.publish("evt_1", [f"u{n}" for n in range(9)], channels=[Channel.EMAIL])
    reports = [(row.user_id, row.id, LATER) for row in rows]
    await asyncio.gather(*(store.report_reached(reports[::step]) for step in (1, -1, 1, -1)))
    assert len(await store.log(LogQuery(99, state="reached"))) == 9
    assert len(await store.log(LogQuery(99, state="cancelled"))) == 9
    assert await store.ledger() == []


# ---------------------------------------------------------------- broadcasts


@pytest.mark.req("R19")
async def test_candidates_are_those_of_ones_topics_and_for_everyone(store: SqlStore, lane: Partition) -> None:
    await lane.broadcast("evt_1", "news")
    await lane.broadcast("evt_2", "news", "sport")
    await lane.broadcast("evt_3")
    await lane.broadcast("evt_4", "sport")
    await lane.broadcast("evt_5", "news", in_app=False)
    await lane.broadcast("evt_6", "news", expires_at_us=LATER)
    assert list(await shared(store, "alice", "news", "sport")) == ["evt_4", "evt_3", "evt_2", "evt_1"]
    assert list(await shared(store, "alice")) == ["evt_3"]
    assert await store.top_broadcast_seq() == 6
    assert [row.seq for row in await store.broadcasts_after(4, 9)] == [5, 6]


async def test_pages_of_broadcasts_go_on_where_the_one_before_ended(store: SqlStore, lane: Partition) -> None:
    batch = lane.batch()
    rows = [lane.add_broadcast(batch, f"evt_{n:03}", "a" if n % 2 else "b") for n in range(700)]
    await lane.commit(batch)
    await store.mark_ids("alice", "read", [], rows[100:650:3], LATER)
    expected = [row.event_id for n, row in enumerate(rows) if not 100 <= n < 650 or (n - 100) % 3][::-1]
    found: list[str] = []
    before = None
    while page := await store.broadcast_page(
        "alice", ["a", "b"], InboxQuery(150, before, unread=True), LATER
    ):
        found += [row.broadcast.event_id for row in page]
        before = (page[-1].broadcast.created_at_us, page[-1].broadcast.id)
    assert found == expected


async def test_a_mark_on_a_broadcast_is_one_readers(store: SqlStore, lane: Partition) -> None:
    row = await lane.broadcast("evt_1")
    assert await store.mark_ids("alice", "read", [], [row], LATER) == [row.id]
    assert await store.mark_ids("alice", "read", [], [row], LATER + 1) == []
    assert await shared(store, "alice") == {"evt_1": Marks(LATER, LATER)}
    assert await shared(store, "bob") == {"evt_1": Marks()}
    assert list(await shared(store, "alice", unread=True)) == []
    await store.mark_ids("alice", "archive", [], [row], LATER + 2)
    assert await shared(store, "alice") == {}
    assert list(await shared(store, "alice", archived="only")) == ["evt_1"]
    _, [found] = await store.find_notifications("alice", [row.id])
    assert found.marks == Marks(LATER, LATER, LATER + 2)
    sums = await store.event_sums("evt_1")
    assert (sums["seen"], sums["read"]) == (1, 1)
    assert await store.ledger() == []


async def test_all_read_covers_what_existed_and_single_marks_stand_above_it(
    store: SqlStore, lane: Partition
) -> None:
    one = await lane.broadcast("evt_1")
    two = await lane.broadcast("evt_2")
    await store.mark_ids("alice", "seen", [], [one], LATER)
    await store.mark_all("alice", "read", None, 2, LATER + 1)
    three = await lane.broadcast("evt_3")
    assert await shared(store, "alice") == {
        "evt_3": Marks(),
        "evt_2": Marks(LATER + 1, LATER + 1),
        "evt_1": Marks(LATER, LATER + 1),
    }
    assert await store.mark_ids("alice", "unread", [], [two], LATER + 2) == [two.id]
    assert await store.mark_ids("alice", "archive", [], [three], LATER + 3) == [three.id]
    assert list(await shared(store, "alice", unread=True, archived="include")) == ["evt_3", "evt_2"]
    await store.mark_all("alice", "read", None, 3, LATER + 4)
    assert await shared(store, "alice", archived="include") == {
        "evt_3": Marks(LATER + 4, LATER + 4, LATER + 3),
        "evt_2": Marks(LATER + 1, LATER + 4),
        "evt_1": Marks(LATER, LATER + 1),
    }


async def test_all_read_in_a_category_leaves_the_others(store: SqlStore, lane: Partition) -> None:
    await lane.broadcast("evt_1", category="news")
    two = await lane.broadcast("evt_2", category="sport")
    three = await lane.broadcast("evt_3", category="sport")
    await store.mark_ids("alice", "archive", [], [three], LATER)
    await store.mark_all("alice", "seen", "sport", 3, LATER + 1)
    await store.mark_all("alice", "read", "news", 3, LATER + 2)
    await store.mark_all("alice", "read", "sport", two.seq, LATER + 3)
    assert await shared(store, "alice", archived="include") == {
        "evt_3": Marks(LATER + 1, None, LATER),
        "evt_2": Marks(LATER + 1, LATER + 3),
        "evt_1": Marks(LATER + 2, LATER + 2),
    }


async def test_saying_it_again_keeps_the_first_moment(store: SqlStore, lane: Partition) -> None:
    await lane.broadcast("evt_1")
    await store.mark_all("alice", "read", None, 1, LATER)
    await lane.broadcast("evt_2")
    await store.mark_all("alice", "read", None, 2, LATER + 5)
    await store.mark_all("alice", "read", None, 2, LATER + 9)
    assert await shared(store, "alice") == {
        "evt_2": Marks(LATER + 5, LATER + 5),
        "evt_1": Marks(LATER, LATER),
    }


async def test_a_retracted_broadcast_cannot_be_marked(store: SqlStore, lane: Partition) -> None:
    row: Broadcast = await lane.broadcast("evt_1")
    await store.retract("evt_1", LATER)
    assert await store.mark_ids("alice", "read", [], [row, replace(row, seq=99, id="ntf_x")], LATER) == []


async def test_racing_marks_of_one_user_end_as_if_one_came_after_the_other(
    store: SqlStore, lane: Partition
) -> None:
    rows = [await lane.broadcast(f"evt_{n}") for n in range(5)]
    for turn in range(4):
        user = f"user-{turn}"
        await asyncio.gather(
            *(store.mark_ids(user, "seen", [], [row], LATER) for row in rows),
            store.mark_all(user, "read", None, 5, LATER),
        )
        assert all(marks.read_at_us == LATER for marks in (await shared(store, user)).values())
