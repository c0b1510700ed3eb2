"""The index that serves each question of expansions and dead letters, in the database's own plan over many rows."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import insert, text

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.audience import Place, Walk
from hub.adapters.sql_store.tables import (
    deliveries,
    devices,
    expansions,
    push_subscriptions,
    slices,
    subscriptions,
    users,
)
from hub.model.events import BroadcastAudience
from hub.model.notifications import Broadcast, Content
from hub.model.vocabulary import Channel
from hub.ports import DeadQuery
from tests.conformance.test_store_indexes import _plan, _sent
from tests.support.stores import NOW_US

USERS = 6_000
MIDDLE = "u03000"


def walk(channel: Channel, *topics: str) -> Callable[[SqlStore], Awaitable[Any]]:
    """Ask for a page in the middle of an audience."""

    async def ask(store: SqlStore) -> Any:
        audience = BroadcastAudience(topics, everyone=not topics)
        contents = {"": Content()}
        row = Broadcast("ntf_1_b", 50, "evt_1", "news", "news", contents, NOW_US, audience)
        async with store._db.read() as connection:
            found = await Walk(store._db, row, channel, "UTC").ids(connection, Place(0, MIDDLE), 20)
        assert len(found) == 20
        return found

    return ask


QUESTIONS: dict[str, tuple[Callable[[SqlStore], Awaitable[Any]], str, tuple[str, ...]]] = {
    "everyone with an e-mail address": (walk(Channel.EMAIL), "users", ("users_email",)),
    "everyone with a phone": (walk(Channel.SMS), "users", ("users_phone",)),
    "everyone with a browser": (
        walk(Channel.WEB_PUSH), "push_subscriptions", ("push_subscriptions_user",)
    ),
    "everyone with a device": (walk(Channel.MOBILE_PUSH), "devices", ("devices_user",)),
    "subscribers with an e-mail address": (
        walk(Channel.EMAIL, "t"), "subscriptions", ("subscriptions_topic", "subscriptions_left")
    ),
    "subscribers with a browser": (
        walk(Channel.WEB_PUSH, "t"), "subscriptions", ("subscriptions_topic", "subscriptions_left")
    ),
    "expansions that are due": (
        lambda store: store.due_expansions(NOW_US + 10, 20), "expansions", ("expansions_due",)
    ),
    "an event's expansions": (
        lambda store: store.event_expansions("evt_7"), "expansions", ("expansions_event",)
    ),
    "dead deliveries": (
        lambda store: store.dead_deliveries(DeadQuery(50, (NOW_US + 90, "z"), channel="email")),
        "deliveries", ("deliveries_dead",),
    ),
    "rejected events": (
        lambda store: store.dead_slices((NOW_US + 90, "z", "z"), None, 50), "slices", ("slices_rejected",)
    ),
}  # fmt: skip


@pytest.mark.req("R25")
async def test_each_question_has_its_index(store: SqlStore) -> None:
    await store._db.write(_fill)
    async with store._db.read() as connection:
        await connection.execute(text("ANALYZE"))
    for name, (question, table, indexes) in QUESTIONS.items():
        statement, parameters = await _sent(store, question, table)
        used, whole = await _plan(store, statement, parameters, table)
        for index in indexes:
            assert index in used, f"{name}: {used}\n{statement}"
        assert not whole, f"{name}: {whole}\n{statement}"


async def _fill(connection: Any) -> None:
    """Many users, of whom few can be reached in each way; many members of topics; many rows that nobody asks for."""
    ids = [f"u{number:05d}" for number in range(USERS)]
    plain = {
        "attributes": "{}", "preferences": "{}", "version": 1, "tokens_valid_from_us": 0, "created_at_us": 0,
    }  # fmt: skip
    some = [
        {
            "id": id_,
            "email": f"{id_}@example.com" if number % 5 == 0 else None,
            "phone": "+4930123456" if number % 7 == 0 else None,
            **plain,
        }
        for number, id_ in enumerate(ids)
    ]
    await connection.execute(insert(users), some)
    members = []
    for number, id_ in enumerate(ids):
        topics = ("o1", "o2", "o3", *(["t"] if number % 40 == 0 else []))
        members += [{"user_id": id_, "topic": topic, "from_seq": 1, "until_seq": None} for topic in topics]
        members.append({"user_id": id_, "topic": "gone", "from_seq": 1, "until_seq": number + 2})
        if number % 40 == 1:
            members.append({"user_id": id_, "topic": "t", "from_seq": 1, "until_seq": 60})
    await connection.execute(insert(subscriptions), members)
    at = {"created_at_us": 1, "used_at_us": 1}
    browsers = [
        {"id": f"p-{id_}", "user_id": id_, "endpoint": "https://p", "p256dh": "k", "auth": "a", **at}
        for id_ in ids[::4]
    ]
    await connection.execute(insert(push_subscriptions), browsers)
    phones = [{"id": f"d-{id_}", "user_id": id_, "token": "t", "platform": "fcm", **at} for id_ in ids[::4]]
    await connection.execute(insert(devices), phones)
    await connection.execute(insert(expansions), [_expansion(number) for number in range(3_000)])
    await connection.execute(insert(slices), [_slice(number) for number in range(3_000)])
    await connection.execute(insert(deliveries), [_delivery(number) for number in range(6_000)])


def _expansion(number: int) -> dict[str, Any]:
    return {
        "broadcast_id": f"ntf_{number}", "channel": "email", "seq": number, "event_id": f"evt_{number}",
        "slice_key": "lane", "condition": "always", "fallback": "[]", "due_at_us": NOW_US + number, "cursor": "",
        "audience": None, "deliveries": 0, "counts": "{}", "stopped": None,
        "done_at_us": None if number % 50 == 0 else NOW_US,
    }  # fmt: skip


def _slice(number: int) -> dict[str, Any]:
    counts = ("total", "recipients", "in_app", "suppressed", "rejected", "deliveries")
    erased = ("erased_in_app", "erased_suppressed", "erased_deliveries")
    return {
        "event_id": f"evt_{number}", "slice_key": "0", "type": "t", "category": "c", "source": "s",
        "accepted_at_us": NOW_US, "planned_at_us": NOW_US + number, "error": "no" if number % 50 == 0 else None,
        **dict.fromkeys((*counts, *erased), 0),
    }  # fmt: skip


def _delivery(number: int) -> dict[str, Any]:
    return {
        "user_id": f"u{number % 60}", "id": f"dlv_{number}", "notification_id": f"ntf_{number}",
        "event_id": f"evt_{number}", "slice_key": "0", "type": "t", "category": "c", "channel": "email",
        "state": "dead" if number % 50 == 0 else "sent", "condition": "always", "created_at_us": NOW_US + number,
        "due_at_us": NOW_US, "fallback": "[]",
    }  # fmt: skip
