"""When deliveries are due, as the store keeps it: digests, throttles, what is brought forward, what marks cancel, and
the events that are kept for what is rendered when it is sent."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select, text

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import attempts, payloads
from hub.model.deliveries import Delivery
from hub.model.digests import DigestId, OpenDigest
from hub.model.notifications import Notification
from hub.model.vocabulary import Channel
from hub.ports import Batch, DigestMove, LogQuery, Payload, Timing
from tests.support.stores import NOW_US, Partition

pytestmark = pytest.mark.req("R18")

SECOND = 1_000_000
GRACE_US = 5 * SECOND
DAY_US = 86_400 * SECOND
EMAIL, SMS, PUSH = Channel.EMAIL, Channel.SMS, Channel.WEB_PUSH


def add(
    partition: Partition,
    batch: Batch,
    event_id: str,
    user_id: str = "alice",
    channel: Channel = EMAIL,
    *,
    condition: str = "always",
    more: dict[str, Any] | None = None,
    **fields: Any,
) -> Notification:
    """One notification with one delivery, which has these fields."""
    [row] = partition.add(batch, event_id, [user_id], channels=[channel], condition=condition, **(more or {}))
    batch.deliveries[-1] = replace(batch.deliveries[-1], **fields)
    return row


async def waits(store: SqlStore, *event_ids: str) -> dict[str, tuple[str, int]]:
    """State and due time, from now on, of the deliveries of some events, one each."""
    found = {}
    for event_id in event_ids:
        [delivery] = await store.event_deliveries(event_id, None, None, 9)
        found[event_id] = (delivery.state, delivery.due_at_us - NOW_US)
    return found


async def deliveries_of(store: SqlStore, event_id: str) -> list[Delivery]:
    return await store.event_deliveries(event_id, None, None, 99)


# ---------------------------------------------------------------- digests


def digest_id(user_id: str = "alice", channel: Channel = EMAIL, key: str = "k") -> DigestId:
    return DigestId(user_id, channel, key)


async def test_open_digests_are_told_with_their_count_opening_and_due_time(
    store: SqlStore, partition: Partition
) -> None:
    batch = partition.batch()
    first = add(partition, batch, "evt_1", digest_key="k", due_at_us=NOW_US + 60)
    add(partition, batch, "evt_2", digest_key="k", due_at_us=NOW_US + 70)
    add(partition, batch, "evt_3", digest_key="k", channel=SMS, due_at_us=NOW_US + 80)
    add(partition, batch, "evt_4", "bob", digest_key="k", due_at_us=NOW_US + 90)
    add(partition, batch, "evt_5", digest_key="other", state="sent", due_at_us=NOW_US + 5)
    add(partition, batch, "evt_6", due_at_us=NOW_US + 1)
    await partition.commit(batch)
    found = await store.timing(["alice"], NOW_US, [], {})
    assert found.digests == {
        digest_id(): OpenDigest(2, first.created_at_us, NOW_US + 60),
        digest_id(channel=SMS): OpenDigest(1, first.created_at_us + 2, NOW_US + 80),
        digest_id(key="other"): OpenDigest(sent_at_us=NOW_US + 5),
    }
    assert found.recent == {}
    unasked = await store.timing(["alice"], None, [], {})
    assert digest_id(key="other") not in unasked.digests
    assert (await store.timing(["alice"], NOW_US + 5, [], {})).digests.keys() == unasked.digests.keys()
    assert (await store.timing(["bob"], None, [], {})).digests.keys() == {digest_id("bob")}


async def test_what_was_cancelled_neither_waits_nor_went_out(store: SqlStore, partition: Partition) -> None:
    batch = partition.batch()
    add(partition, batch, "evt_1", digest_key="k", condition="unseen")
    row = add(partition, batch, "evt_2", digest_key="k", condition="unseen", due_at_us=NOW_US + 60)
    await partition.commit(batch)
    [seen] = await store.event_notifications("evt_1", None, 1)
    await store.mark_ids("alice", "seen", [seen.id], [], NOW_US)
    assert (await store.timing(["alice"], 0, [], {})).digests == {
        digest_id(): OpenDigest(1, row.created_at_us, NOW_US + 60)
    }
    await store.mark_ids("alice", "seen", [row.id], [], NOW_US)
    assert (await store.timing(["alice"], 0, [], {})) == Timing()


async def test_a_commit_moves_what_waits_in_a_digest_and_nothing_else(
    store: SqlStore, partition: Partition
) -> None:
    batch = partition.batch()
    add(partition, batch, "evt_1", digest_key="k", due_at_us=NOW_US + 60)
    add(partition, batch, "evt_2", digest_key="k", state="sent", due_at_us=NOW_US + 60)
    add(partition, batch, "evt_3", digest_key="k", channel=SMS, due_at_us=NOW_US + 60)
    add(partition, batch, "evt_4", digest_key="other", due_at_us=NOW_US + 60)
    add(partition, batch, "evt_5", "bob", digest_key="k", due_at_us=NOW_US + 60)
    add(partition, batch, "evt_6", due_at_us=NOW_US + 60)
    add(partition, batch, "evt_7", digest_key="k", due_at_us=NOW_US + 60, expires_at_us=NOW_US + 90)
    await partition.commit(batch)
    batch = partition.batch()
    add(partition, batch, "evt_8", digest_key="k", due_at_us=NOW_US + 777)
    batch.digests = [DigestMove(digest_id(), NOW_US + 90), DigestMove(digest_id("bob", SMS), NOW_US + 5)]
    await partition.commit(batch)
    assert await waits(store, *(f"evt_{n}" for n in range(1, 9))) == {
        "evt_1": ("held", 90),
        "evt_2": ("sent", 60),
        "evt_3": ("held", 60),
        "evt_4": ("held", 60),
        "evt_5": ("held", 60),
        "evt_6": ("held", 60),
        "evt_7": ("held", 60),  # it would expire at the new moment: the digest is due with it
        "evt_8": ("held", 777),  # the batch's own are settled already
    }
    assert await store.ledger() == []


async def test_a_collapsed_item_leaves_its_digest(store: SqlStore, partition: Partition) -> None:
    batch = partition.batch()
    for number, fields in enumerate(
        ({"state": "held", "digest_key": "k"}, {"state": "queued"}, {"state": "failed"}, {"state": "sending"})
    ):
        more = {"collapse_key": f"c{number}"}
        add(partition, batch, f"evt_{number}", more=more, due_at_us=NOW_US + 60, **fields)
    kept = add(partition, batch, "evt_9", digest_key="k", due_at_us=NOW_US + 60)
    await partition.commit(batch)
    batch = partition.batch()
    for number in range(4):
        partition.add(batch, f"evt_new{number}", ["alice"], collapse_key=f"c{number}")
    await partition.commit(batch)
    assert {
        event: state for event, (state, _) in (await waits(store, *(f"evt_{n}" for n in range(4)))).items()
    } == {
        "evt_0": "cancelled",
        "evt_1": "cancelled",
        "evt_2": "cancelled",
        "evt_3": "sending",  # it cannot be called back any more
    }
    assert (await store.timing(["alice"], None, [], {})).digests == {
        digest_id(): OpenDigest(1, kept.created_at_us, NOW_US + 60)
    }
    assert await store.ledger() == []


# ---------------------------------------------------------------- throttles


async def test_what_a_throttle_let_through_is_counted_per_user_type_and_notification(
    store: SqlStore, partition: Partition
) -> None:
    batch = partition.batch()
    first = partition.add(batch, "evt_1", ["alice", "bob"], channels=[EMAIL, SMS])[0]
    partition.add(batch, "evt_2", ["alice"], channels=[EMAIL])
    partition.add(batch, "evt_3", ["alice"], channels=[EMAIL], type="other")
    batch.deliveries[:] = [replace(one, throttled=True) for one in batch.deliveries]
    partition.add(batch, "evt_4", ["alice"], channels=[EMAIL])  # not let through
    await partition.commit(batch)
    asked = {"order.paid": first.created_at_us - 1, "other": NOW_US - 1, "nosuch": 0}
    found = await store.timing([], None, ["alice", "bob", "carol"], asked)
    assert found == Timing(
        recent={("alice", "order.paid"): 2, ("alice", "other"): 1, ("bob", "order.paid"): 1}
    )
    later = {"order.paid": first.created_at_us}
    assert (await store.timing([], None, ["alice"], later)).recent == {("alice", "order.paid"): 1}
    assert await store.timing([], None, ["alice"], {}) == Timing()
    assert await store.timing([], None, [], asked) == Timing()


# ---------------------------------------------------------------- nobody is there


@pytest.mark.req("R2")
async def test_only_what_waits_for_its_user_alone_is_brought_forward(
    store: SqlStore, partition: Partition
) -> None:
    batch = partition.batch()
    offline = {"condition": "offline"}
    rows = [
        add(partition, batch, "evt_grace", **offline, due_at_us=NOW_US + GRACE_US),
        add(partition, batch, "evt_quiet", **offline, due_at_us=NOW_US + 60 * SECOND),
        add(partition, batch, "evt_digest", **offline, due_at_us=NOW_US + 3, digest_key="k"),
        add(partition, batch, "evt_unseen", condition="unseen", due_at_us=NOW_US + 3),
        add(partition, batch, "evt_always", due_at_us=NOW_US + 3),
        add(partition, batch, "evt_queued", **offline, due_at_us=NOW_US + 3, state="queued"),
        add(partition, batch, "evt_due", **offline, due_at_us=NOW_US - 3),
    ]
    add(partition, batch, "evt_other", **offline, due_at_us=NOW_US + 3)
    add(partition, batch, "evt_bob", "bob", **offline, due_at_us=NOW_US + 3)
    await partition.commit(batch)
    given = [(row.user_id, row.id) for row in rows]
    await store.bring_forward([], GRACE_US, NOW_US)
    await store.bring_forward([*given, ("bob", rows[0].id), ("carol", "ntf_x")], GRACE_US, NOW_US + 1)
    names = [row.event_id for row in rows]
    assert {name: due for name, (_, due) in (await waits(store, *names, "evt_other", "evt_bob")).items()} == {
        "evt_grace": 1,
        "evt_quiet": 60 * SECOND,
        "evt_digest": 3,
        "evt_unseen": 3,
        "evt_always": 3,
        "evt_queued": 3,
        "evt_due": -3,
        "evt_other": 3,
        "evt_bob": 3,
    }
    before = await waits(store, *names)
    await store.bring_forward(given, GRACE_US, NOW_US + 2)
    assert await waits(store, *names) == before


# ---------------------------------------------------------------- marks


@pytest.mark.req("R20")
@pytest.mark.parametrize("how", ["seen", "read", "all seen", "reached"])
async def test_marks_cancel_whatever_waits_for_them(store: SqlStore, partition: Partition, how: str) -> None:
    batch = partition.batch()
    states = ("held", "queued", "failed", "sending", "sent", "unknown", "dead")
    conditions = ("always", "offline", "unseen")
    rows = [
        add(partition, batch, f"evt_{condition}_{state}", condition=condition, state=state)
        for condition in conditions
        for state in states
    ]
    await partition.commit(batch)
    ids = [row.id for row in rows]
    if how == "reached":
        await store.report_reached([("alice", id_, NOW_US) for id_ in ids])
    elif how == "all seen":
        await store.mark_all("alice", "seen", None, 0, NOW_US)
    else:
        await store.mark_ids("alice", how, ids, [], NOW_US)  # type: ignore[arg-type]
    cancelled = set()
    for row in rows:
        [delivery] = await deliveries_of(store, row.event_id)
        if delivery.state == "cancelled":
            cancelled.add(row.event_id)
    over = ("offline",) if how == "reached" else ("offline", "unseen")
    assert cancelled == {f"evt_{c}_{s}" for c in over for s in ("held", "queued", "failed")}
    lines = await store.log(LogQuery(99, state="cancelled"))
    assert {line.reason for line in lines} == {"reached" if how == "reached" else "seen"}
    assert await store.ledger() == []


# ---------------------------------------------------------------- payloads and attempts


async def kept(store: SqlStore) -> set[tuple[str, str, bytes]]:
    async with store._db.read() as connection:
        return {tuple(row) for row in await connection.execute(select(payloads))}


async def tried(store: SqlStore, deliveries: Sequence[Delivery]) -> None:
    """Attempts of these deliveries, as senders record them."""

    async def work(connection: Any) -> None:
        for delivery in deliveries:
            await connection.execute(
                attempts.insert().values(
                    user_id=delivery.user_id,
                    delivery_id=delivery.id,
                    number=1,
                    provider="smtp",
                    event_id=delivery.event_id,
                    channel=delivery.channel,
                    outcome="retry",
                    code="451",
                    detail=f"try again, {delivery.user_id}",
                    started_at_us=NOW_US,
                    duration_us=5,
                    is_repeat=False,
                )
            )
            await connection.execute(
                text("UPDATE deliveries SET reference = :who, served = :served WHERE id = :id"),
                {
                    "who": f"<{delivery.user_id}@mail>",
                    "served": f'["{delivery.user_id}@e.com"]',
                    "id": delivery.id,
                },
            )

    await store._db.write(work)


async def recorded(store: SqlStore) -> list[Any]:
    async with store._db.read() as connection:
        return list((await connection.execute(select(attempts).order_by(attempts.c.delivery_id))).all())


def add_kept(partition: Partition, batch: Batch, event_id: str, users: Sequence[str], **more: Any) -> None:
    partition.add(batch, event_id, users, channels=[EMAIL], **more)
    batch.payloads.append(Payload(event_id, more.get("key") or partition.lease.name, event_id.encode()))


async def test_the_event_is_kept_once_for_each_slice(store: SqlStore, partition: Partition) -> None:
    batch = partition.batch()
    add_kept(partition, batch, "evt_1", ["alice", "bob"])
    add_kept(partition, batch, "evt_2", ["alice"], key="0@Asia/Seoul")
    await partition.commit(batch)
    await partition.commit(batch)  # the same again: everything in it is there
    assert await kept(store) == {("evt_1", "0", b"evt_1"), ("evt_2", "0@Asia/Seoul", b"evt_2")}


async def test_nothing_is_kept_of_what_will_not_be_sent(store: SqlStore, partition: Partition) -> None:
    await store.retract("evt_1", NOW_US)
    await store.erase_user("alice", NOW_US + 1)
    batch = partition.batch()
    add_kept(partition, batch, "evt_1", ["bob"])
    add_kept(partition, batch, "evt_2", ["alice"])
    add_kept(partition, batch, "evt_3", ["alice", "bob"])
    await partition.commit(batch)
    assert await kept(store) == {("evt_3", "0", b"evt_3")}
    assert await store.ledger() == []


async def test_a_retraction_takes_what_was_kept(store: SqlStore, partition: Partition) -> None:
    batch = partition.batch()
    add_kept(partition, batch, "evt_1", ["alice"])
    add_kept(partition, batch, "evt_2", ["alice"])
    await partition.commit(batch)
    await store.retract("evt_1", NOW_US)
    assert {event_id for event_id, _, _ in await kept(store)} == {"evt_2"}


@pytest.mark.req("R10")
async def test_erasure_takes_what_was_kept_for_one_user_and_renames_attempts(
    store: SqlStore, partition: Partition
) -> None:
    batch = partition.batch()
    add_kept(partition, batch, "evt_1", ["alice"])
    add_kept(partition, batch, "evt_2", ["alice", "bob"])
    add_kept(partition, batch, "evt_3", ["bob"])
    await partition.commit(batch)
    both = await deliveries_of(store, "evt_2")
    await tried(store, [*await deliveries_of(store, "evt_1"), *both])
    exported = await store.export_user("alice")
    assert exported is not None
    assert {row["event_id"] for row in exported["attempts"]} == {"evt_1", "evt_2"}  # type: ignore[attr-defined]
    await store.erase_user("alice", NOW_US)
    assert {event_id for event_id, _, _ in await kept(store)} == {"evt_2", "evt_3"}
    rows = await recorded(store)
    assert [(row.event_id, row.detail) for row in rows if row.user_id == "bob"] == [
        ("evt_2", "try again, bob")
    ]
    others = [row for row in rows if row.user_id != "bob"]
    assert [(row.event_id, row.code, row.detail) for row in others] == [
        ("evt_1", "451", None),
        ("evt_2", "451", None),
    ]
    assert "alice" not in repr(others)
    renamed = [*await deliveries_of(store, "evt_1"), *await deliveries_of(store, "evt_2")]
    assert {row.delivery_id for row in rows} == {delivery.id for delivery in renamed}
    assert {delivery.served for delivery in renamed} == {(), ("bob@e.com",)}
    async with store._db.read() as connection:
        references = await connection.execute(
            text("SELECT reference FROM deliveries WHERE reference IS NOT NULL")
        )
        assert [row[0] for row in references] == ["<bob@mail>"]
    assert await store.ledger() == []


async def test_retention_takes_events_and_attempts_along(store: SqlStore, partition: Partition) -> None:
    batch = partition.batch()
    add_kept(partition, batch, "evt_1", ["alice"])
    await partition.commit(batch)
    await tried(store, await deliveries_of(store, "evt_1"))
    await store.drop_older(NOW_US)
    assert (len(await kept(store)), len(await recorded(store))) == (1, 1)
    await store.drop_older(NOW_US + DAY_US)
    assert (await kept(store), await recorded(store)) == (set(), [])
