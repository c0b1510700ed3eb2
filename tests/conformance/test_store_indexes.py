"""The index that serves each question, by name, in the database's own plan over tables with many rows."""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import event, text

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.timing import move_digests
from hub.model.digests import DigestId
from hub.model.vocabulary import Channel
from hub.ports import DigestMove, InboxQuery, LogQuery, ScheduledPart
from tests.support.stores import NOW_US, Partition

EVENTS, USERS = 6_000, 60
MOVES = [DigestMove(DigestId(f"user-{number}", Channel.EMAIL, "k"), NOW_US) for number in (1, 2)]
OLDER = (NOW_US + EVENTS // 2, "z")


QUESTIONS: dict[str, tuple[Callable[[SqlStore], Awaitable[Any]], str, str]] = {
    "inbox": (
        lambda store: store.inbox_page("user-1", InboxQuery(20, OLDER), NOW_US),
        "notifications",
        "notifications_inbox",
    ),
    "unread": (
        lambda store: store.inbox_page("user-1", InboxQuery(20, OLDER, unread=True), NOW_US),
        "notifications",
        "notifications_unread",
    ),
    "counts": (
        lambda store: store.unread(["user-1", "user-2"], 100, 200, NOW_US),
        "notifications",
        "notifications_unread",
    ),
    "an event's rows": (
        lambda store: store.event_notifications("evt_7", None, 100),
        "notifications",
        "notifications_event",
    ),
    "log": (lambda store: store.log(LogQuery(20)), "log", "log_pkey"),
    "log of a user": (lambda store: store.log(LogQuery(20, user_id="user-1")), "log", "log_user"),
    "log of an event": (lambda store: store.log(LogQuery(20, event_id="evt_7")), "log", "log_event"),
    "scheduled and due": (lambda store: store.due_scheduled(NOW_US + 9, 100), "scheduled", "scheduled_due"),
    "the next delivery due": (
        lambda store: store.next_due([Channel.EMAIL]),
        "deliveries",
        "deliveries_due",
    ),
    "deliveries due": (
        lambda store: store.queue_due(Channel.EMAIL, 100, 60, careful=False),
        "deliveries",
        "deliveries_due",
    ),
    "deliveries due that had a process die under them": (
        lambda store: store.queue_due(Channel.EMAIL, 0, 60),
        "deliveries",
        "deliveries_careful",
    ),
    "open digests": (
        lambda store: store.timing(["user-1", "user-2"], None, [], {}),
        "deliveries",
        "deliveries_digest",
    ),
    "digests that went out": (
        lambda store: store.timing(["user-1", "user-2"], NOW_US, [], {}),
        "deliveries",
        "deliveries_digested",
    ),
    "throttles": (
        lambda store: store.timing([], None, ["user-1", "user-2"], {"order.paid": NOW_US + EVENTS - 100}),
        "deliveries",
        "deliveries_throttle",
    ),
    "a digest that moves": (
        lambda store: store._db.write(lambda connection: move_digests(store._db, connection, MOVES)),
        "deliveries",
        "deliveries_digest",
    ),
    "nobody is there": (
        lambda store: store.bring_forward([("user-1", "ntf_1"), ("user-2", "ntf_2")], 5, NOW_US),
        "deliveries",
        "deliveries_notification",
    ),
}


@pytest.mark.req("R25")
async def test_each_question_has_its_index(store: SqlStore, partition: Partition) -> None:
    await _fill(store, partition)
    for name, (question, table, index) in QUESTIONS.items():
        statement, parameters = await _sent(store, question, table)
        used, whole = await _plan(store, statement, parameters, table)
        assert index in used, f"{name}: {used}\n{statement}"
        assert not whole, f"{name}: {whole}\n{statement}"


async def _fill(store: SqlStore, partition: Partition) -> None:
    """Many rows of few users, most of them read, and the statistics that a database in use has."""
    batch = partition.batch()
    for number in range(EVENTS):
        state = "read_at_us" if number % 9 else "expires_at_us"
        more: dict[str, Any] = {state: NOW_US + 9_000_000_000}
        partition.add(batch, f"evt_{number}", [f"user-{number % USERS}"], channels=[Channel.EMAIL], **more)
        if number % 7 == 0:  # some wait in digests, some went out with one, some count against a throttle
            key, state = f"{'k' * (number % 2)}-{number % 5}", ("held", "sent")[number % 3 == 0]
            own = replace(batch.deliveries[-1], digest_key=key, state=state, throttled=number % 4 > 0)
            batch.deliveries[-1] = own
    batch.scheduled = [
        ScheduledPart(f"evt_{number}", "", NOW_US + number * 1000, b"-") for number in range(EVENTS)
    ]
    await partition.commit(batch)
    async with store._db.read() as connection:
        await connection.execute(text("ANALYZE"))


async def _sent(
    store: SqlStore, question: Callable[[SqlStore], Awaitable[Any]], table: str
) -> tuple[str, Any]:
    """The statement by which the store asks a table, with its parameters."""
    sent: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if re.search(rf"(FROM|JOIN|UPDATE) {table}\b", statement):
            sent.append((statement, parameters[0] if isinstance(parameters, list) else parameters))

    for engine in store._db.engines:
        event.listen(engine, "before_cursor_execute", note)
    await question(store)
    for engine in store._db.engines:
        event.remove(engine, "before_cursor_execute", note)
    asked = [one for one in sent if one[0].startswith("SELECT")] or sent
    assert len(asked) == 1, sent
    return asked[0]


async def _plan(store: SqlStore, statement: str, parameters: Any, table: str) -> tuple[list[str], list[str]]:
    """The indexes that a statement's plan uses, and what of the table it reads as a whole."""
    async with store._db.read() as connection:
        if store._db.sqlite:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            return _of_sqlite([row.detail for row in plan], table)
        plan = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
        found = plan.scalar_one()
        parents = await connection.exec_driver_sql(
            "SELECT part.relname AS part, whole.relname AS whole FROM pg_inherits JOIN pg_class part ON part.oid = inhrelid"
            " JOIN pg_class whole ON whole.oid = inhparent WHERE whole.relkind = 'I'"
        )
        names = {row.part: row.whole for row in parents}
    nodes = [json.loads(found)[0]["Plan"] if isinstance(found, str) else found[0]["Plan"]]
    used, whole = [], []
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if index := node.get("Index Name"):
            used.append(names.get(index, index))
        # A part of no row or of a page or two costs less to read than its index: days of the log that are still to come,
        # a part of the notifications that has few users here.
        if node["Node Type"] == "Seq Scan" and node["Plan Rows"] > 1 and node["Total Cost"] > 20:
            whole.append(node["Relation Name"])
    return used, whole


def _of_sqlite(lines: Sequence[str], table: str) -> tuple[list[str], list[str]]:
    used = [found[1] for line in lines if (found := re.search(r"USING (?:COVERING )?INDEX (\w+)", line))]
    used += [f"{table}_pkey" for line in lines if line == f"SCAN {table}" or "PRIMARY KEY" in line]
    # `SCAN log` without an index: WITHOUT ROWID, so the table is its key's index; it is read from its end.
    whole = [line for line in lines if line == f"SCAN {table}" and table != "log"]
    return used, whole
