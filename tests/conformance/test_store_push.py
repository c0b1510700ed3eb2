"""Push subscriptions: one owner for each endpoint, a bounded number, who is reachable at what cost, and receipts."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import deliveries
from hub.model.deliveries import MOVES
from hub.model.devices import Device
from hub.model.vocabulary import Channel
from hub.ports import LogQuery, PushSubscription
from tests.conformance.test_store_statements import watched
from tests.support.stores import NOW_US, Partition

pytestmark = pytest.mark.req("R7")
SECOND_US = 1_000_000


def browser(number: int, user_id: str = "alice", used_at_us: int = NOW_US, **more: str) -> PushSubscription:
    endpoint = f"https://fcm.googleapis.com/fcm/send/{number}"
    fields = {"p256dh": f"B{number}", "auth": f"a{number}", **more}
    return PushSubscription(
        f"psb_{number}", user_id, endpoint, **fields, created_at_us=NOW_US, used_at_us=used_at_us
    )  # type: ignore[arg-type]


async def ids(store: SqlStore, user_id: str = "alice") -> list[str]:
    return [one.id for one in (await store.subscriptions_of([user_id])).get(user_id, [])]


async def test_a_subscription_is_kept_and_its_user_created(store: SqlStore) -> None:
    await store.save_subscription(browser(1), 20)
    await store.save_subscription(browser(2, "bob"), 20)
    found = await store.subscriptions_of(["alice", "bob", "carol"])
    assert found == {"alice": [browser(1)], "bob": [browser(2, "bob")]}
    assert await store.subscriptions_of([]) == {}
    assert set(await store.load_users(["alice", "bob", "carol"])) == {"alice", "bob"}
    assert "fcm" not in repr(found)
    assert "B1" not in repr(found)


async def test_the_same_endpoint_again_changes_its_keys_and_moves_to_the_latest_user(store: SqlStore) -> None:
    await store.save_subscription(browser(1), 20)
    again = replace(browser(1, "bob", NOW_US + SECOND_US, p256dh="Bnew"), created_at_us=NOW_US + SECOND_US)
    await store.save_subscription(again, 20)
    await store.save_subscription(replace(again, created_at_us=NOW_US + 9), 20)
    assert await store.subscriptions_of(["alice", "bob"]) == {"bob": [again]}


async def test_of_too_many_the_one_used_longest_ago_goes(store: SqlStore) -> None:
    for number in (3, 1, 2, 0):
        await store.save_subscription(browser(number, used_at_us=NOW_US + number), 3)
    assert await ids(store) == ["psb_3", "psb_2", "psb_0"], (
        "the one just saved stays, however old it says it is"
    )
    await store.save_subscription(browser(9, "bob"), 3)
    assert await ids(store) == ["psb_3", "psb_2", "psb_0"]


async def test_racing_registrations_of_one_endpoint_leave_one(store: SqlStore) -> None:
    users = [f"user-{n}" for n in range(8)]
    await asyncio.gather(*(store.save_subscription(browser(1, user), 20) for user in users))
    assert len(await store.subscriptions_of(users)) == 1


async def test_only_the_owner_or_the_sender_removes_it(store: SqlStore) -> None:
    await store.save_subscription(browser(1), 20)
    await store.save_subscription(browser(2), 20)
    assert not await store.remove_subscription("psb_1", "bob")
    assert await store.remove_subscription("psb_1", "alice")
    assert not await store.remove_subscription("psb_1", "alice")
    assert await store.remove_subscription("psb_2")
    assert await ids(store) == []


@pytest.mark.req("R10")
async def test_erasure_and_export_know_them(store: SqlStore) -> None:
    await store.save_subscription(browser(1), 20)
    await store.save_subscription(browser(2, "bob"), 20)
    exported = await store.export_user("alice")
    assert exported is not None
    [shown] = exported["push_subscriptions"]  # type: ignore[misc]
    assert (shown["id"], shown["endpoint"]) == ("psb_1", browser(1).endpoint)
    assert "auth" not in shown
    assert await store.erase_user("alice", NOW_US)
    assert await store.subscriptions_of(["alice", "bob"]) == {"bob": [browser(2, "bob")]}
    assert await store.export_user("alice") is None


# ---------------------------------------------------------------- who is reachable


async def reachable(store: SqlStore, *users: str) -> dict[str, frozenset[Channel]]:
    """What both ways of loading users say; they must agree."""
    planned = (await store.situation({"0": ["evt_x"]}, users)).users
    loaded = await store.load_users(users)
    found = {name: user.reachable for name, user in planned.items()}
    assert found == {name: user.reachable for name, user in loaded.items()}
    return found


async def add_device(store: SqlStore, user_id: str) -> None:
    await store.save_device(
        Device(f"dev_{user_id}", user_id, f"token of {user_id}", "ios", NOW_US, NOW_US), 20
    )


@pytest.mark.req("R17")
async def test_users_with_a_browser_or_a_device_are_reachable(store: SqlStore, partition: Partition) -> None:
    await partition.publish("evt_known", ["alice", "bob", "carol", "dave"])
    everybody = ("alice", "bob", "carol", "dave", "nobody")
    assert set((await reachable(store, *everybody)).values()) == {frozenset()}
    await store.save_subscription(browser(1), 20)
    await store.save_subscription(browser(2), 20)
    await add_device(store, "bob")
    await add_device(store, "carol")
    await store.save_subscription(browser(3, "carol"), 20)
    assert await reachable(store, *everybody) == {
        "alice": {Channel.WEB_PUSH},
        "bob": {Channel.MOBILE_PUSH},
        "carol": {Channel.WEB_PUSH, Channel.MOBILE_PUSH},
        "dave": frozenset(),
    }
    await store.remove_subscription("psb_1")
    await store.remove_subscription("psb_2")
    assert (await reachable(store, "alice"))["alice"] == frozenset()
    await store.erase_user("carol", NOW_US)
    assert (await reachable(store, "carol"))["carol"] == frozenset()


@pytest.mark.req("R25")
async def test_it_costs_nothing_before_the_first_one_and_one_statement_after(
    store: SqlStore, partition: Partition
) -> None:
    await partition.publish("evt_known", [f"user-{n}" for n in range(50)])

    async def cost(size: int) -> int:
        with watched(store) as statements:
            await store.situation({"0": ["evt_x"]}, [f"user-{n}" for n in range(size)])
        return len(statements)

    before = {await cost(size) for size in (1, 50)}
    assert len(before) == 1
    for number in range(40):
        await store.save_subscription(browser(number, f"user-{number}"), 20)
    assert {await cost(size) for size in (1, 50)} == {before.pop() + 1}


# ---------------------------------------------------------------- receipts


async def planned(store: SqlStore, partition: Partition, state: str, event_id: str = "evt_1") -> str:
    """A delivery of alice's in a state; its id."""
    await partition.publish(event_id, ["alice"], channels=[Channel.WEB_PUSH])
    [delivery] = await store.event_deliveries(event_id, None, None, 10)

    async def work(connection: Any) -> None:
        changed = deliveries.update().where(deliveries.c.id == delivery.id)
        await connection.execute(changed.values(state=state, provider="web_push"))

    await store._db.write(work)
    return delivery.id


async def state_of(store: SqlStore, event_id: str = "evt_1") -> str:
    [delivery] = await store.event_deliveries(event_id, None, None, 10)
    return delivery.state


@pytest.mark.req("R20")
@pytest.mark.parametrize("state", sorted(set(MOVES) - {"sending"}))
async def test_a_receipt_moves_what_may_move_and_is_logged_once(
    store: SqlStore, partition: Partition, state: str
) -> None:
    delivery = await planned(store, partition, state)
    receipt = await store.note_receipt("alice", delivery, "shown", NOW_US)
    assert receipt is not None
    assert not receipt.is_early
    moved = "delivered" in MOVES[state]
    assert await state_of(store) == ("delivered" if moved else state)
    assert [one.state for one in receipt.entries] == (["delivered", "shown"] if moved else ["shown"])
    again = await store.note_receipt("alice", delivery, "closed", NOW_US)
    assert again is not None
    assert [one.state for one in again.entries] == ["closed"]
    logged = await store.log(LogQuery(50, event_id="evt_1", channel="web_push"))
    assert [one.state for one in reversed(logged)] == [*(["delivered"] if moved else []), "shown", "closed"]
    assert {one.provider for one in logged} == {"web_push"}


@pytest.mark.req("R20")
async def test_a_receipt_of_what_is_still_being_sent_comes_too_early(
    store: SqlStore, partition: Partition
) -> None:
    delivery = await planned(store, partition, "sending")
    receipt = await store.note_receipt("alice", delivery, "shown", NOW_US)
    assert receipt is not None
    assert (receipt.is_early, list(receipt.entries)) == (True, [])
    assert await state_of(store) == "sending"


@pytest.mark.req("I16")
async def test_a_receipt_for_somebody_else_or_after_erasure_changes_nothing(
    store: SqlStore, partition: Partition
) -> None:
    delivery = await planned(store, partition, "sent")
    assert await store.note_receipt("bob", delivery, "shown", NOW_US) is None
    assert await store.note_receipt("alice", "dlv_unknown", "shown", NOW_US) is None
    await store.erase_user("alice", NOW_US)
    assert await store.note_receipt("alice", delivery, "shown", NOW_US) is None
    assert await store.log(LogQuery(50, user_id="alice")) == []
