"""Users, topics, erasure: versions rise only with changes, memberships are intervals, and the erased leave no name."""

import asyncio

import msgspec
import pytest

from hub.adapters.sql_store import SqlStore
from hub.errors import Refused
from hub.model.devices import Device
from hub.model.users import Muted, Preferences, Profile, QuietHours, Subscription
from hub.model.vocabulary import Channel
from hub.ports import InboxQuery, LogQuery, PushSubscription, UserMerge
from tests.support.stores import NOW_US, Partition

pytestmark = pytest.mark.req("R10")

ALICE = Profile(
    "alice", name="Alice", avatar="/a.png", email="a@example.com", phone="+4930123456", locale="de", timezone="Europe/Berlin",
    attributes={"plan": "gold", "deep": {"n": [1, 2.5, None, True]}, "text": 'quote " and ünï 👍'},
)  # fmt: skip


async def version_of(store: SqlStore, user_id: str) -> int:
    return (await store.load_users([user_id]))[user_id].version


async def test_a_profile_is_kept_as_it_was_given(store: SqlStore) -> None:
    assert await store.load_users(["alice"]) == {}
    assert await store.save_profile(ALICE)
    assert (await store.load_users(["alice"]))["alice"].profile == ALICE
    assert not await store.save_profile(Profile("alice", name="Al"))
    assert (await store.load_users(["alice"]))["alice"].profile == Profile("alice", name="Al")


async def test_a_version_rises_only_when_something_changed(store: SqlStore) -> None:
    await store.save_profile(ALICE)
    assert await version_of(store, "alice") == 1
    await store.save_profile(ALICE)
    await store.merge_users([UserMerge("alice", {"name": "Alice"}, Preferences())])
    assert await store.save_preferences("alice", Preferences(), None) == 1
    assert await version_of(store, "alice") == 1
    await store.save_profile(msgspec.structs.replace(ALICE, name="Al"))
    assert await version_of(store, "alice") == 2
    assert await store.save_preferences("alice", Preferences(channels={Channel.EMAIL: False}), None) == 3
    assert await version_of(store, "alice") == 3


async def test_a_merge_changes_the_given_fields_alone(store: SqlStore) -> None:
    await store.save_profile(ALICE)
    preferences = Preferences(channels={Channel.SMS: False}, quiet_hours=QuietHours("22:00", "07:00"))
    await store.merge_users(
        [
            UserMerge("alice", {"email": None, "attributes": {"plan": "free"}}),
            UserMerge("bob", {"name": "Bob"}, preferences, ["news"]),
            UserMerge("alice", {"locale": "ko"}),
            UserMerge("carol"),
        ]
    )
    users = await store.load_users(["alice", "bob", "carol"], with_subscriptions=True)
    wanted = msgspec.structs.replace(ALICE, email=None, attributes={"plan": "free"}, locale="ko")
    assert users["alice"].profile == wanted
    assert users["alice"].version == 2
    assert users["bob"].preferences == preferences
    assert users["bob"].subscriptions == (Subscription("news", 1),)
    assert users["carol"].profile == Profile("carol")


async def test_preferences_are_replaced_for_who_saw_the_current_version(store: SqlStore) -> None:
    muted = Preferences(
        muted=Muted(actors=["bob"], topics=["t"]), categories={"orders": {Channel.EMAIL: False}, "x": False}
    )
    assert await store.save_preferences("alice", muted, 0) == 1  # 0: not stored yet
    assert (await store.load_users(["alice"]))["alice"].preferences == muted
    with pytest.raises(Refused) as refused:
        await store.save_preferences("alice", Preferences(), 0)
    assert refused.value.status == 412
    assert await store.save_preferences("alice", Preferences(), 1) == 2


async def test_users_are_listed_by_id_whatever_their_letters(store: SqlStore) -> None:
    ids = ["Zoe", "a.b", "a_b", "alice", "bob", "B@x", "~last", "0"]
    await store.merge_users([UserMerge(user_id) for user_id in ids])
    assert [profile.id for profile in await store.list_users(None, 4)] == sorted(ids)[:4]
    assert [profile.id for profile in await store.list_users(sorted(ids)[3], 99)] == sorted(ids)[4:]


@pytest.mark.req("R18")
async def test_zones_are_known_without_looking_at_every_user(store: SqlStore) -> None:
    zones = ["Asia/Seoul", "Europe/Berlin", "Asia/Seoul", None]
    await store.merge_users([UserMerge(f"u{n}", {"timezone": zone}) for n, zone in enumerate(zones)])
    assert await store.timezones() == ["Asia/Seoul", "Europe/Berlin"]


@pytest.mark.req("R34")
async def test_tokens_are_revoked_for_strangers_too(store: SqlStore) -> None:
    await store.revoke_tokens("alice", NOW_US)
    await store.revoke_tokens("alice", NOW_US - 5)  # an older order cannot take it back
    assert (await store.load_users(["alice"]))["alice"].tokens_valid_from_us == NOW_US


# ---------------------------------------------------------------- topics


@pytest.mark.req("R12", "R19")
async def test_a_membership_is_an_interval_of_broadcasts(store: SqlStore, lane: Partition) -> None:
    await lane.broadcast("evt_1", "news")
    await store.change_topic("news", ["alice", "bob"], [])
    await lane.broadcast("evt_2", "news")
    await store.change_topic("news", ["carol"], ["alice", "stranger"])
    await lane.broadcast("evt_3", "news")
    await store.change_topic("news", ["alice"], [])
    await store.change_topic("news", ["alice"], [])  # again: nothing changes
    assert await store.user_topics("alice") == [Subscription("news", 2, 3), Subscription("news", 4)]
    assert await store.user_topics("bob") == [Subscription("news", 2)]
    assert await store.topic_users("news", None, 2) == ["alice", "bob"]
    assert await store.topic_users("news", "bob", 2) == ["carol"]
    assert await store.load_users(["stranger"]) == {}
    loaded = await store.load_users(["alice"], with_subscriptions=True)
    assert loaded["alice"].subscriptions == (Subscription("news", 2, 3), Subscription("news", 4))
    assert (await store.load_users(["alice"]))["alice"].subscriptions == ()


async def test_joining_and_leaving_between_two_broadcasts_leaves_no_trace(
    store: SqlStore, lane: Partition
) -> None:
    await store.change_topic("news", ["alice"], [])
    await store.change_topic("news", [], ["alice"])
    assert await store.user_topics("alice") == []
    await store.change_topic("news", ["alice"], [])
    await lane.broadcast("evt_1", "news")
    assert await store.user_topics("alice") == [Subscription("news", 1)]


async def test_topics_are_listed_with_their_members_and_ended_at_once(store: SqlStore) -> None:
    await store.change_topic("news", ["alice", "bob"], [])
    await store.change_topic("sport", ["alice"], [])
    assert await store.list_topics(None, 9) == [("news", 2), ("sport", 1)]
    assert await store.list_topics("news", 9) == [("sport", 1)]
    assert await store.delete_topic("news") == 2
    assert await store.delete_topic("news") == 0
    assert await store.list_topics(None, 9) == [("sport", 1)]


async def test_nobody_has_more_than_500_topics(store: SqlStore) -> None:
    topics = [f"t{number}" for number in range(500)]
    await store.merge_users([UserMerge("alice", topics=topics)])
    await store.change_topic("t7", ["alice"], [])  # one of them already
    with pytest.raises(Refused) as refused:
        await store.change_topic("t500", ["bob", "alice"], [])
    assert (refused.value.status, refused.value.code) == (422, "too_many_topics")
    assert "'alice'" in refused.value.detail
    assert await store.user_topics("bob") == []  # all or nothing
    await store.change_topic("t1", [], ["alice"])
    await store.change_topic("t500", ["bob", "alice"], [])
    assert len(await store.user_topics("alice")) == 500


async def test_racing_joins_keep_the_limit(store: SqlStore) -> None:
    await store.merge_users([UserMerge("alice", topics=[f"t{number}" for number in range(496)])])
    joins = (store.change_topic(f"more{number}", ["alice"], []) for number in range(10))
    results = await asyncio.gather(*joins, return_exceptions=True)
    assert len([result for result in results if result is None]) == 4
    assert all(isinstance(result, Refused) for result in results if result is not None)
    assert len(await store.user_topics("alice")) == 500


async def test_who_joins_while_broadcasts_are_committed_gets_each_whole_or_not(
    store: SqlStore, lane: Partition
) -> None:
    """Every broadcast committed after a join has returned has a seq inside the interval, none before it has."""

    async def publish() -> None:
        for number in range(20):
            await lane.broadcast(f"evt_{number}", "news")

    async def join(number: int) -> tuple[int, int]:
        await asyncio.sleep(0.002 * number)
        before = await store.top_broadcast_seq()
        await store.change_topic("news", [f"user-{number}"], [])
        return before, await store.top_broadcast_seq()

    _, *bounds = await asyncio.gather(publish(), *(join(number) for number in range(8)))
    for number, (before, after) in enumerate(bounds):
        [interval] = await store.user_topics(f"user-{number}")
        assert before < interval.from_seq <= after + 1


# ---------------------------------------------------------------- erasure and export


async def live_fully(store: SqlStore, partition: Partition, lane: Partition) -> None:
    """Alice has something in every table that can have something of hers."""
    await store.save_profile(ALICE)
    await store.save_preferences("alice", Preferences(channels={Channel.EMAIL: False}), None)
    await store.change_topic("news", ["alice", "bob"], [])
    [row, _] = await partition.publish("evt_1", ["alice", "bob"], channels=[Channel.SMS], condition="unseen")
    await partition.publish("evt_2", ["alice"], in_app=False)
    shared = await lane.broadcast("evt_3", "news")
    await store.mark_ids("alice", "read", [row.id], [shared], NOW_US + 1)
    await store.mark_all("alice", "seen", None, 1, NOW_US + 2)
    await store.suppress(Channel.EMAIL, "a@example.com", "bounce", "5.1.1 no such user", NOW_US + 3)
    browser = PushSubscription("psb_1", "alice", "https://push.example.com/1", "BA", "aa", NOW_US, NOW_US)
    await store.save_subscription(browser, 20)
    await store.save_device(Device("dev_1", "alice", "token", "android", NOW_US, NOW_US), 20)


async def test_an_export_holds_everything_that_is_kept(
    store: SqlStore, partition: Partition, lane: Partition
) -> None:
    assert await store.export_user("alice") is None
    await live_fully(store, partition, lane)
    exported = await store.export_user("alice")
    assert exported is not None
    text = msgspec.json.encode(exported).decode()
    for part in (
        "a@example.com",
        "gold",
        "evt_1",
        "evt_2",
        "evt_3",
        "sms",
        '"news"',
        '"email":false',
        "cancelled",
    ):
        assert part in text
    assert "bob" not in text.replace('"actor":"bob"', "")
    assert {name for name, value in exported.items() if not value} == {"attempts"}  # nothing was sent yet


async def test_erasing_removes_what_names_the_user_and_keeps_the_sums(
    store: SqlStore, partition: Partition, lane: Partition
) -> None:
    await live_fully(store, partition, lane)
    [waiting] = await partition.publish("evt_4", ["alice"], channels=[Channel.EMAIL])
    sums = [await store.event_sums(event) for event in ("evt_1", "evt_2", "evt_3", "evt_4")]
    lines = len(await store.log(LogQuery(999)))
    assert await store.erase_user("alice", NOW_US + 5)

    assert await store.export_user("alice") is None
    erased = (await store.load_users(["alice"]))["alice"]
    assert (erased.version, erased.erased_at_us, erased.tokens_valid_from_us) == (0, NOW_US + 5, NOW_US + 5)
    assert await store.topic_users("news", None, 9) == ["bob"]
    assert await store.inbox_page("alice", InboxQuery(9), NOW_US) == []
    assert await store.explain("alice", "evt_1") is None
    [delivery] = await store.event_deliveries("evt_4", None, None, 9)
    assert delivery.state == "cancelled"
    suffix = waiting.id.rsplit("_", 1)[1]
    after = await store.log(LogQuery(999))
    for kept in (delivery, *await store.event_deliveries("evt_1", None, None, 9), *after):
        assert "alice" not in repr(kept)
        assert suffix not in repr(kept)
    assert len(after) == lines + 2  # one delivery cancelled, one user erased
    names = {line.user_id for line in after if (line.user_id or "").startswith("erased-")}
    assert len(names) == 1
    now = [await store.event_sums(event) for event in ("evt_1", "evt_2", "evt_3", "evt_4")]
    assert [[s["recipients"], s["in_app"], s["deliveries"]] for s in now] == [
        [s["recipients"], s["in_app"], s["deliveries"]] for s in sums
    ]
    assert (await store.load_users(["bob"]))["bob"].version == 1
    assert await store.ledger() == []


async def test_an_erased_user_who_comes_back_starts_anew(store: SqlStore, partition: Partition) -> None:
    await store.save_profile(ALICE)
    assert await store.erase_user("alice", NOW_US)
    assert not await store.erase_user("alice", NOW_US + 1)  # nothing left, but later tokens go too
    assert await store.save_profile(Profile("alice"))
    back = (await store.load_users(["alice"]))["alice"]
    assert back.profile == Profile("alice")
    assert (back.version, back.erased_at_us, back.tokens_valid_from_us) == (1, NOW_US + 1, NOW_US + 1)


async def test_erasing_a_stranger_still_refuses_their_tokens(store: SqlStore) -> None:
    assert not await store.erase_user("alice", NOW_US)
    assert (await store.load_users(["alice"]))["alice"].tokens_valid_from_us == NOW_US
