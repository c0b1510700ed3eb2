"""What many users have not read: the same as page by page and one by one, in statements that do not grow with them."""

from random import Random

import pytest

from hub.adapters.sql_store import SqlStore
from hub.model.notifications import Broadcast
from hub.model.vocabulary import Mark
from hub.ports import BroadcastRow, InboxQuery, Unread
from tests.conformance.test_store_statements import watched
from tests.support.stores import NOW_US, Partition

LATER = NOW_US + 1_000_000
TOPICS = ("a", "b", "c")
USERS = [f"user-{number}" for number in range(8)]
MARKS: tuple[Mark, ...] = ("seen", "read", "unread", "archive", "unarchive")
ALL_MARKS: tuple[Mark, ...] = ("seen", "read")


def key(row: BroadcastRow) -> tuple[str, object]:
    return row.broadcast.id, row.marks


async def one_by_one(store: SqlStore, user_id: str, topics: list[str]) -> list[tuple[str, object]]:
    query = InboxQuery(1_000, unread=True)
    return [key(row) for row in await store.broadcast_page(user_id, topics, query, LATER)]


async def together(
    store: SqlStore, user_id: str, topics: list[str], found: Unread
) -> list[tuple[str, object]]:
    def is_on(one: Broadcast) -> bool:
        return one.audience.everyone or bool(set(topics) & set(one.audience.topics))

    rows = [key(row) for row in found.broadcasts if is_on(row.broadcast)]
    if found.older is not None:
        query = InboxQuery(1_000, found.older, unread=True)
        rows += [key(row) for row in await store.broadcast_page(user_id, topics, query, LATER)]
    return rows


@pytest.mark.req("R1")
@pytest.mark.parametrize("seed", range(3))
async def test_together_users_get_what_each_would_get_alone(
    store: SqlStore, lane: Partition, partition: Partition, seed: int
) -> None:
    random = Random(seed)
    topics = {user_id: random.sample(TOPICS, random.randrange(4)) for user_id in USERS}
    for topic in TOPICS:
        await store.change_topic(topic, [user_id for user_id in USERS if topic in topics[user_id]], [])
    rows: list[Broadcast] = []
    for number in range(14):
        on = random.sample(TOPICS, random.randrange(3))
        expires = random.choice([None, None, None, LATER, LATER + 1])
        category = random.choice(["news", "sport"])
        rows.append(await lane.broadcast(f"evt_{number}", *on, category=category, expires_at_us=expires))
        user_id = random.choice(USERS[:-1])  # one never marks anything
        if random.random() < 0.4:
            within = random.choice([None, "news"])
            await store.mark_all(user_id, random.choice(ALL_MARKS), within, rows[-1].seq, LATER + number)
        for one in random.sample(rows, min(3, len(rows))):
            user_id = random.choice(USERS[:-1])
            await store.mark_ids(user_id, random.choice(MARKS), [], [one], LATER + number)
    await store.mark_all(USERS[0], "read", None, rows[-2].seq, LATER)
    await store.retract("evt_7", LATER)
    for number, user_id in enumerate(USERS[1:4]):
        for nth in range(number + 1):
            await partition.publish(f"evt_own_{number}_{nth}", [user_id])
    for limit in (1, 4, 13, 200):
        found = await store.unread(USERS, 2, limit, LATER)
        assert list(found) == USERS
        for user_id in USERS:
            own = found[user_id]
            alone = await one_by_one(store, user_id, topics[user_id])
            assert await together(store, user_id, topics[user_id], own) == alone, (limit, user_id)
            assert {one.topic for one in own.user.subscriptions} == set(topics[user_id])
        assert [found[user_id].unread for user_id in USERS] == [0, 1, 2, 2, 0, 0, 0, 0]
        if limit == 200:
            assert {one.older for one in found.values()} == {None}


async def test_who_has_read_all_needs_no_older_page(store: SqlStore, lane: Partition) -> None:
    rows = [await lane.broadcast(f"evt_{number}") for number in range(6)]
    await store.mark_all("alice", "read", None, 6, LATER)
    await store.mark_all("bob", "read", None, 6, LATER)
    await store.mark_ids("bob", "unread", [], [rows[1]], LATER)
    found = await store.unread(["alice", "bob", "carol"], 9, 3, LATER)
    assert found["alice"][1:] == (0, 0, [], None)
    assert found["bob"][3:] == ([], (rows[3].created_at_us, rows[3].id))
    assert [row.broadcast.seq for row in found["carol"].broadcasts] == [6, 5, 4]


@pytest.mark.req("R25")
async def test_the_statements_do_not_grow_with_the_users(
    store: SqlStore, lane: Partition, partition: Partition
) -> None:
    many = [f"user-{number}" for number in range(200)]
    await partition.publish("evt_own", many)
    quiet, loud = set(), set()
    for users in ([], many[:1], many):
        with watched(store) as statements:
            await store.unread(users, 100, 200, LATER)
        quiet.add(len(statements))
    for number in range(3):
        await lane.broadcast(f"evt_{number}", *TOPICS[:number])
    await store.mark_all("user-1", "read", None, 1, LATER)
    for users in (many[:1], many):
        with watched(store) as statements:
            found = await store.unread(users, 100, 200, LATER)
        loud.add(len(statements))
        assert len(found) == len(users)
    assert quiet <= {0, 2, 3}  # PostgreSQL's transaction may be told apart
    assert len(quiet) == 2
    assert len(loud) == 1
    assert loud.pop() <= 9
