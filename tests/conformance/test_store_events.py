"""Events after planning: lists, the log, retraction at any stage. Definitions, keys and settings of a deployment."""

import asyncio

import pytest

from hub.adapters.sql_store import SqlStore
from hub.errors import Refused
from hub.model.types import CategoryDefinition, ChannelRule, Texts, TypeDefinition, TypeVersion
from hub.model.vocabulary import Channel
from hub.ports import ApiKey, InboxQuery, LogEntry, LogQuery, PlannedSlice, ScheduledPart
from tests.support.stores import NOW_US, Partition, counted, record_of

LATER = NOW_US + 1_000_000


@pytest.mark.req("R17", "R20")
async def test_an_events_rows_are_listed_page_by_page(store: SqlStore, partition: Partition) -> None:
    users = [f"u{number}" for number in range(7)]
    await partition.publish("evt_1", users[::-1], channels=[Channel.EMAIL, Channel.SMS])
    pages = [await store.event_notifications("evt_1", after, 3) for after in (None, "u2", "u5")]
    assert [row.user_id for page in pages for row in page] == users
    all_of_them = await store.event_deliveries("evt_1", None, None, 99)
    assert len(all_of_them) == 14
    assert await store.event_deliveries("evt_1", "held", all_of_them[9].id, 99) == all_of_them[10:]
    assert await store.event_deliveries("evt_1", "sent", None, 99) == []
    assert await store.event_sums("evt_1") == {
        "recipients": 7,
        "in_app": 7,
        "suppressed": 0,
        "rejected": 0,
        "deliveries": 14,
        "seen": 0,
        "read": 0,
    }
    plan = await store.explain("u3", "evt_1")
    assert plan is not None
    assert plan.user_id == "u3"
    assert await store.explain("u9", "evt_1") is None


async def test_an_unknown_event_is_unknown(store: SqlStore) -> None:
    assert await store.event("evt_1") is None
    assert (await store.event_sums("evt_1"))["recipients"] == 0
    assert await store.event_broadcasts("evt_1") == []


@pytest.mark.req("R35")
@pytest.mark.parametrize("text", ["a\0b", "\ud800", "' OR 1=1 --", "%", "x" * 100_000, ""])
async def test_strange_texts_find_nothing_and_break_nothing(
    store: SqlStore, partition: Partition, text: str
) -> None:
    await partition.publish("evt_1", ["alice"])
    searches = (
        lambda: store.event(text),
        lambda: store.find_notifications("alice", [text]),
        lambda: store.inbox_page("alice", InboxQuery(9, category=text), NOW_US),
        lambda: store.inbox_page(text, InboxQuery(9, (1 << 70, text)), NOW_US),
        lambda: store.log(LogQuery(9, user_id=text, state=text)),
        lambda: store.log(LogQuery(9, before=1 << 70, user_id=text)),
        lambda: store.event_deliveries("evt_1", text, text, 9),
        lambda: store.mark_ids("alice", "read", [text], [], NOW_US),
        lambda: store.load_users([text]),
        lambda: store.find_key(text),
    )
    for search in searches:
        try:
            found = await search()
        except Refused as refused:
            found = [] if (refused.status, refused.code) == (422, "invalid_value") else refused
        assert found in (None, [], {}, ([], []))
    assert await counted(store, "alice", 9, NOW_US) == (1, 1)


# ---------------------------------------------------------------- retraction


async def test_retracting_takes_rows_out_of_inboxes_and_cancels_what_waits(
    store: SqlStore, partition: Partition, lane: Partition
) -> None:
    alice, bob = await partition.publish("evt_1", ["alice", "bob"], channels=[Channel.EMAIL], slices=2)
    shared = await lane.broadcast("evt_1", "news")
    await partition.publish("evt_2", ["alice"])
    taken_back = ({"alice": [alice.id], "bob": [bob.id]}, [shared])
    assert await store.retract("evt_1", LATER) == taken_back
    assert await store.retract("evt_1", LATER) == taken_back  # to be told again
    assert [entry.state for entry in await store.log(LogQuery(9, state="retracted"))] == ["retracted"]
    assert [row.event_id for row in await store.inbox_page("alice", InboxQuery(9), NOW_US)] == ["evt_2"]
    assert await store.broadcast_page("alice", ["news"], InboxQuery(9), NOW_US) == []
    assert {d.state for d in await store.event_deliveries("evt_1", None, None, 9)} == {"cancelled"}
    found = await store.event("evt_1")
    assert found is not None
    assert found.state == "retracted"
    assert await store.planned("0", ["evt_1"]) != {}
    lines = await store.log(LogQuery(99, event_id="evt_1"))
    assert [line.state for line in lines][:3] == ["retracted", "cancelled", "cancelled"]
    assert lines[0].type == "order.paid"
    assert await store.ledger() == []


async def test_retracting_ends_what_is_scheduled(store: SqlStore, partition: Partition) -> None:
    batch = partition.batch()
    batch.events.append(record_of("evt_1", 2))
    batch.slices.append(PlannedSlice("evt_1", "0@schedule", 0, 0, 0))
    batch.scheduled.append(ScheduledPart("evt_1", "", NOW_US, b"with addresses"))
    await partition.commit(batch)
    await store.retract("evt_1", LATER)
    assert await store.due_scheduled(LATER, 9) == []
    found = await store.event("evt_1")
    assert found is not None
    assert found.state == "retracted"
    assert await store.ledger() == []


async def test_an_event_that_still_waits_in_the_queue_can_be_retracted(
    store: SqlStore, partition: Partition
) -> None:
    await store.retract("evt_1", LATER)
    found = await store.event("evt_1")
    assert found is not None
    assert (found.state, found.type, found.accepted_at_us) == ("retracted", "", 0)
    batch = partition.batch()  # what the generator writes then: sums, no rows
    batch.events.append(record_of("evt_1"))
    batch.slices.append(PlannedSlice("evt_1", "0", 3, 0, 3))
    await partition.commit(batch)
    found = await store.event("evt_1")
    assert found is not None
    assert (found.state, found.type) == ("retracted", "order.paid")
    assert await store.ledger() == []


# ---------------------------------------------------------------- the log


@pytest.mark.req("R20")
async def test_the_log_is_searched_newest_first(store: SqlStore) -> None:
    entries = [
        LogEntry(
            NOW_US + n, "sent" if n % 2 else "failed", f"evt_{n % 3}", f"u{n % 2}", channel="email", type="t"
        )
        for n in range(12)
    ]
    await store.write_log(entries[:7])
    await store.write_log(entries[7:])
    await store.write_log([])
    found = await store.log(LogQuery(99))
    assert [line.at_us for line in found] == [NOW_US + n for n in reversed(range(12))]
    assert sorted({line.id for line in found}, reverse=True) == [line.id for line in found]
    assert await store.log(LogQuery(5, before=found[4].id)) == found[5:10]
    assert await store.log(LogQuery(99, user_id="u1", event_id="evt_0")) == [
        line for line in found if line.user_id == "u1" and line.event_id == "evt_0"
    ]
    assert len(await store.log(LogQuery(99, channel="email", state="sent"))) == 6
    assert len(await store.log(LogQuery(99, since_us=NOW_US + 9))) == 3
    assert await store.log(LogQuery(99, channel="sms")) == []


@pytest.mark.req("R20")
async def test_counters_are_the_log_by_minute(store: SqlStore) -> None:
    minute = NOW_US // 60_000_000
    later = NOW_US + 60_000_000
    entries = [
        LogEntry(NOW_US, "sent", "evt_1", channel="email", type="t", provider="smtp1"),
        LogEntry(NOW_US + 1, "sent", "evt_2", channel="email", type="t", provider="smtp1"),
        LogEntry(later, "sent", "evt_3", channel="email", type="t", provider="smtp1"),
        LogEntry(later, "retracted", "evt_3"),
    ]
    await asyncio.gather(*(store.write_log(entries) for _ in range(5)))
    assert await store.counters(later) == [
        (minute + 1, "", "", "retracted", "", 5),
        (minute + 1, "t", "email", "sent", "smtp1", 5),
    ]
    assert (minute, "t", "email", "sent", "smtp1", 10) in await store.counters(NOW_US)
    assert await store.ledger() == []


# ---------------------------------------------------------------- definitions

PAID = TypeDefinition(
    category="orders",
    title="Paid {{ data.n }}",
    schema={"type": "object", "properties": {"n": {"type": "integer"}}},
    channels={Channel.EMAIL: ChannelRule(when="unseen", after_seconds=60, fallback=[Channel.SMS])},
    locales={"ko": Texts(title="결제")},
)


@pytest.mark.req("R16", "R25")
async def test_a_type_has_versions_and_the_catalog_one_too(store: SqlStore) -> None:
    first = await store.catalog_version()
    assert await store.types() == {}
    assert await store.save_type("order.paid", PAID, None) == TypeVersion("order.paid", 1, PAID)
    assert await store.save_type("order.paid", PAID, 1) == TypeVersion("order.paid", 1, PAID)
    assert await store.catalog_version() == first + 1  # unchanged is no change
    critical = TypeDefinition(category="orders", critical=True)
    assert (await store.save_type("order.paid", critical, 1)).version == 2
    assert await store.types() == {"order.paid": TypeVersion("order.paid", 2, critical)}
    assert [one.version for one, _ in await store.type_versions("order.paid")] == [2, 1]
    with pytest.raises(Refused) as refused:
        await store.save_type("order.paid", PAID, 1)
    assert refused.value.status == 412
    assert await store.catalog_version() == first + 2
    assert await store.delete_type("order.paid")
    assert not await store.delete_type("order.paid")
    assert await store.types() == {}
    assert await store.catalog_version() == first + 3
    assert (await store.save_type("order.paid", PAID, 0)).version == 4  # never a version twice


async def test_a_category_has_a_version(store: SqlStore) -> None:
    first = await store.catalog_version()
    orders = CategoryDefinition(title="Orders", defaults={Channel.SMS: False})
    assert await store.save_category("orders", orders, 0) == 1
    assert await store.save_category("orders", orders, None) == 1
    assert await store.save_category("orders", CategoryDefinition(hidden=True), 1) == 2
    assert await store.categories() == {"orders": (2, CategoryDefinition(hidden=True))}
    with pytest.raises(Refused) as refused:
        await store.save_category("orders", orders, 1)
    assert refused.value.status == 412
    assert await store.delete_category("orders")
    assert not await store.delete_category("orders")
    assert await store.categories() == {}
    assert await store.save_category("orders", orders, 0) == 4
    assert await store.catalog_version() == first + 4


async def test_racing_changes_of_a_type_get_versions_of_their_own(store: SqlStore) -> None:
    definitions = [TypeDefinition(category="c", title=f"title {number}") for number in range(8)]
    saved = await asyncio.gather(*(store.save_type("t", definition, None) for definition in definitions))
    assert sorted(one.version for one in saved) == list(range(1, 9))


# ---------------------------------------------------------------- keys and settings


@pytest.mark.req("R34")
async def test_keys_are_found_by_the_hash_of_their_secret(store: SqlStore) -> None:
    key = ApiKey("key_1", "shop", frozenset({"publish", "read"}), NOW_US)
    await store.add_key(key, "hash-1")
    await store.add_key(ApiKey("key_2", "other", frozenset(), NOW_US + 1, expires_at_us=LATER), "hash-2")
    assert await store.find_key("hash-1") == key
    assert await store.find_key("hash-3") is None
    assert [one.id for one in await store.list_keys()] == ["key_1", "key_2"]
    assert await store.revoke_key("key_1", LATER)
    assert not await store.revoke_key("key_1", LATER + 1)
    assert not await store.revoke_key("key_9", LATER)
    assert await store.expire_key("key_2", LATER + 5)
    assert not await store.expire_key("key_9", LATER)
    assert [(one.revoked_at_us, one.expires_at_us) for one in await store.list_keys()] == [
        (LATER, None),
        (None, LATER + 5),
    ]


@pytest.mark.req("R34")
async def test_a_dashboard_link_works_once_and_in_time(store: SqlStore) -> None:
    await store.add_login_link("hash-1", "admin", LATER)
    await store.add_login_link("hash-2", "admin", LATER)
    redeemed = await asyncio.gather(*(store.redeem_login_link("hash-1", LATER - 1) for _ in range(5)))
    assert sorted(redeemed, key=str) == [None, None, None, None, "admin"]
    assert await store.redeem_login_link("hash-2", LATER) is None
    assert await store.redeem_login_link("hash-3", NOW_US) is None


async def test_the_first_writer_of_a_setting_wins(store: SqlStore) -> None:
    values = await asyncio.gather(*(store.setting("partitions", str(number)) for number in range(1, 9)))
    assert len(set(values)) == 1
    assert await store.setting("partitions", "99") == values[0]


@pytest.mark.req("I5")
async def test_a_generation_is_raised_by_one_of_those_who_try(store: SqlStore) -> None:
    assert await store.setting("generation", "1") == "1"
    changed = await asyncio.gather(*(store.change_setting("generation", "1", "2") for _ in range(6)))
    assert sorted(changed) == [False] * 5 + [True]
    assert await store.setting("generation", "1") == "2"
