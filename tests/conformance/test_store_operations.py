"""The store as a thing that is operated: the ledger finds what is wrong, retention takes whole events, indexes serve."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from hub.adapters.sql_store import SqlStore
from hub.errors import StoreUnavailable
from hub.model.vocabulary import Channel
from hub.ports import InboxQuery, LogEntry, LogQuery, PlannedSlice, ScheduledPart
from tests.support.stores import NOW_US, Partition, record_of

DAY_US = 86_400_000_000


async def change(store: SqlStore, statement: str) -> None:
    """Do behind the store's back what no code of ours does."""

    async def work(connection: Any) -> None:
        await connection.execute(text(statement))

    await store._db.write(work)


# ---------------------------------------------------------------- the ledger


@pytest.mark.req("I3")
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            "UPDATE slices SET suppressed = suppressed + 1",
            "slice 0: 2 recipients, but 2 in the app, 1 suppressed",
        ),
        ("DELETE FROM notifications WHERE user_id = 'alice'", "slice 0: planned 2 notifications in the app"),
        ("UPDATE notifications SET in_app = (1 = 0) WHERE user_id = 'bob'", "stored 1 and 1"),
        (
            "UPDATE notifications SET slice_key = '9'",
            "slice 9: 2 notifications, but the slice was never planned",
        ),
        ("DELETE FROM deliveries WHERE user_id = 'alice'", "planned 2 deliveries, stored 1"),
        ("UPDATE deliveries SET slice_key = '9'", "slice 9: 2 deliveries, but the slice was never planned"),
        (
            "UPDATE deliveries SET state = 'lost' WHERE user_id = 'bob'",
            "1 deliveries are in the unknown state 'lost'",
        ),
        (
            "UPDATE slices SET total = 3",
            "1 of 3 slices are planned; the others wait in the queue or are lost",
        ),
        ("UPDATE slices SET total = 0", "1 of 0 slices are planned; some were planned twice"),
        ("DELETE FROM log WHERE user_id = 'alice'", "the counter of state 'generated', type 'order.paid'"),
        ("DELETE FROM log_counters", "below the log"),
        ("UPDATE notifications SET created_at_us = 5", "Partition 0: 2 notifications share the moment 5"),
        (
            "DELETE FROM broadcasts",
            "slice lane: planned 1 notifications in the app and 0 suppressed, stored 0 and 0",
        ),
        ("UPDATE broadcasts SET seq = 7", "Broadcast 7 is stored, but the lane has given only 1"),
    ],
)
async def test_the_ledger_names_what_does_not_add_up(
    store: SqlStore, partition: Partition, lane: Partition, damage: str, sentence: str
) -> None:
    await partition.publish("evt_1", ["alice", "bob"], channels=[Channel.EMAIL])
    await lane.broadcast("evt_2", "news")
    assert await store.ledger() == []
    await change(store, damage)
    assert sentence in "\n".join(await store.ledger())


# ---------------------------------------------------------------- retention


async def test_retention_takes_old_events_whole_and_leaves_the_others(
    store: SqlStore, partition: Partition, lane: Partition
) -> None:
    await store.change_topic("news", ["alice", "bob"], [])
    await partition.publish("evt_1", ["alice", "bob"], channels=[Channel.EMAIL], slices=2)
    old = await lane.broadcast("evt_2", "news")
    await store.mark_ids("alice", "read", [], [old], NOW_US)
    await store.mark_all("alice", "seen", None, 1, NOW_US)
    await store.change_topic("news", [], ["bob"])
    await store.retract("evt_queued", NOW_US)
    await store.add_login_link("hash", "admin", NOW_US)
    batch = partition.batch()
    batch.events.append(record_of("evt_later", 2, send_at_us=NOW_US + 90 * DAY_US))
    batch.slices.append(PlannedSlice("evt_later", "0@schedule", 0, 0, 0))
    batch.scheduled.append(ScheduledPart("evt_later", "", NOW_US + 90 * DAY_US, b"waits"))
    await partition.commit(batch)
    cut = NOW_US + DAY_US
    other = await Partition.take(store, "1")
    for one in (partition, lane, other):
        one.lease = replace(one.lease, clock_us=cut)
    await other.publish("evt_1", ["carol"], slices=2)  # the other slice of an old event: it stays whole
    await partition.publish("evt_3", ["alice"])
    new = await lane.broadcast("evt_4", "news")

    assert await store.drop_older(cut) > 0
    assert await store.event("evt_2") is None
    assert (await store.event_sums("evt_1"))["recipients"] == 3
    assert [row.event_id for row in await store.inbox_page("alice", InboxQuery(9), cut)] == ["evt_3", "evt_1"]
    assert [row.broadcast for row in await store.broadcast_page("alice", ["news"], InboxQuery(9), cut)] == [
        new
    ]
    assert {line.event_id for line in await store.log(LogQuery(99))} == {"evt_1", "evt_3", "evt_4"}
    assert len(await store.due_scheduled(NOW_US + 99 * DAY_US, 9)) == 1
    assert await store.retracted(["evt_queued"]) == set()
    assert [s.topic for s in await store.user_topics("alice")] == ["news"]
    assert await store.user_topics("bob") == []
    assert all(minute >= cut // 60_000_000 for minute, *_ in await store.counters(0))
    assert await store.ledger() == []
    assert await store.drop_older(cut) == 0


async def test_retention_works_in_portions(store: SqlStore, partition: Partition) -> None:
    batch = partition.batch()
    for number in range(30):
        partition.add(batch, f"evt_{number}", [f"u{number}-{n}" for n in range(100)])
    await partition.commit(batch)
    transactions = []
    event.listen(store._db.engines[0], "commit", transactions.append)
    removed = await store.drop_older(NOW_US + DAY_US)
    assert removed >= 3000 + 30 + 3000
    assert len(transactions) >= 6
    assert await store.ledger() == []
    assert await store.log(LogQuery(9)) == []


async def test_the_logs_days_are_made_ahead_and_dropped_whole(store: SqlStore) -> None:
    await store.write_log([LogEntry(NOW_US + n * DAY_US, "sent", f"evt_{n}", type="t") for n in range(9)])
    await store.prepare_log_days(NOW_US)  # rows that came before their day was made move into it
    await store.prepare_log_days(NOW_US)
    await store.write_log([LogEntry(NOW_US + n * DAY_US, "sent", f"evt_{n}", type="t") for n in range(9)])
    assert len(await store.log(LogQuery(99))) == 18
    assert await store.ledger() == []
    removed = await store.drop_older((NOW_US // DAY_US + 2) * DAY_US)
    assert removed == 4
    assert {line.event_id for line in await store.log(LogQuery(99))} == {f"evt_{n}" for n in range(2, 9)}
    assert await store.ledger() == []


# ---------------------------------------------------------------- indexes


BIG = (
    "notifications",
    "deliveries",
    "broadcasts",
    "broadcast_targets",
    "broadcast_marks",
    "log",
    "slices",
    "users",
)


@pytest.mark.req("R25")
async def test_no_query_of_the_hot_paths_reads_a_whole_table(
    store: SqlStore, partition: Partition, lane: Partition
) -> None:
    """Every statement that the store sends while it works is explained afterwards; a scan of a big table is named."""
    rows = await partition.publish("evt_1", ["alice"], channels=[Channel.EMAIL], collapse_key="k")
    shared = await lane.broadcast("evt_2", "news", collapse_key="k")
    sent: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        verb = statement.split(maxsplit=1)[0]
        if verb in ("SELECT", "UPDATE", "DELETE"):
            sent.append((statement, parameters[0] if isinstance(parameters, list) else parameters))

    for engine in store._db.engines:
        event.listen(engine, "before_cursor_execute", note)
    await partition.publish("evt_3", ["alice"], collapse_key="k")
    await lane.broadcast("evt_4", "news", collapse_key="k")
    await store.situation({"0": ["evt_1"]}, ["alice"])
    await store.load_users(["alice"], with_subscriptions=True)
    query = InboxQuery(9, (NOW_US + 99, "z"), category="orders")
    for unread in (False, True):
        await store.inbox_page("alice", InboxQuery(9, query.before, unread), NOW_US)
        await store.broadcast_page("alice", ["news"], InboxQuery(9, query.before, unread), NOW_US)
    await store.unread(["alice"], 100, 200, NOW_US)
    await store.find_notifications("alice", [rows[0].id, shared.id])
    await store.mark_ids("alice", "read", [rows[0].id], [shared], NOW_US)
    await store.mark_all("alice", "read", None, 2, NOW_US)
    await store.report_reached([("alice", rows[0].id, NOW_US)])
    await store.event("evt_1")
    await store.event_sums("evt_1")
    await store.event_notifications("evt_1", "a", 9)
    await store.event_deliveries("evt_1", None, "d", 9)
    await store.due_scheduled(NOW_US, 9)
    for log_query in (LogQuery(9), LogQuery(9, 5, user_id="alice"), LogQuery(9, 5, event_id="evt_1")):
        await store.log(log_query)
    await store.topic_users("news", "a", 9)
    await store.retract("evt_1", NOW_US)
    for engine in store._db.engines:
        event.remove(engine, "before_cursor_execute", note)

    assert len(sent) > 30
    scans = [
        f"{line}\n{statement}"
        for statement, parameters in sent
        for line in await _scans(store, statement, parameters)
    ]
    assert scans == []


async def _scans(store: SqlStore, statement: str, parameters: Any) -> list[str]:
    async with store._db.read() as connection:
        if store._db.sqlite:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            lines = [row.detail for row in plan]
            scans = [line for line in lines if line.startswith(tuple(f"SCAN {name}" for name in BIG))]
            # Reading a table or index in its own order, to stop after some rows, is no scan of the whole.
            in_order = "LIMIT" in statement and not any("TEMP B-TREE" in line for line in lines)
            return [line for line in scans if not in_order]
        await connection.exec_driver_sql("SET enable_seqscan = off")
        plan = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
        found = plan.scalar_one()
        await connection.exec_driver_sql("RESET enable_seqscan")
    nodes = [json.loads(found)[0]["Plan"] if isinstance(found, str) else found[0]["Plan"]]
    scans = []
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if node["Node Type"] == "Seq Scan" and node["Relation Name"].split("_part_")[0] in BIG:
            scans.append(f"Seq Scan on {node['Relation Name']}")
    return scans


async def test_ping_tells_whether_the_database_answers(store: SqlStore) -> None:
    await store.ping()


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    away = SqlStore("postgresql://nobody@127.0.0.1:1/none")
    for call in (away.ping, away.check_schema, away.migrate):
        with pytest.raises(StoreUnavailable):
            await call()
    await away.close()


async def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "clarion.db"
    path.write_text("this is a letter, not a database " * 99)
    store = SqlStore(f"sqlite:///{path}")
    for call in (store.ping, store.check_schema, store.migrate):
        with pytest.raises(StoreUnavailable, match="not a database"):
            await call()
    await store.close()
