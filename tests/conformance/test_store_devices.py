"""Devices: a token belongs to whoever used it last, the oldest goes, and the erased leave none."""

import asyncio

import pytest
from sqlalchemy import select

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import devices, settings
from hub.model.devices import Device, device_id
from tests.support.stores import NOW_US

pytestmark = pytest.mark.req("R7")


def device_of(user_id: str, token: str, at_us: int = NOW_US, platform: str = "android") -> Device:
    return Device(device_id(token), user_id, token, platform, at_us, at_us)


async def tokens_of(store: SqlStore, user_id: str) -> list[str]:
    return [one.token for one in (await store.devices_of([user_id])).get(user_id, [])]


async def test_a_device_is_kept_once_however_often_it_registers(store: SqlStore) -> None:
    assert await store.devices_of([]) == {}
    assert await store.devices_of(["alice"]) == {}
    first = device_of("alice", "token-1")
    assert await store.save_device(first, 20) == first
    again = await store.save_device(device_of("alice", "token-1", NOW_US + 5, "ios"), 20)
    assert (again.created_at_us, again.used_at_us, again.platform) == (NOW_US, NOW_US + 5, "ios")
    assert await store.devices_of(["alice", "bob"]) == {"alice": [again]}
    assert "alice" in await store.load_users(["alice"])


async def test_a_token_moves_to_who_used_it_last(store: SqlStore) -> None:
    await store.save_device(device_of("alice", "shared-token"), 20)
    moved = await store.save_device(device_of("bob", "shared-token", NOW_US + 9), 20)
    assert (moved.user_id, moved.created_at_us) == ("bob", NOW_US + 9)
    assert await tokens_of(store, "alice") == []
    assert await tokens_of(store, "bob") == ["shared-token"]


async def test_beyond_the_limit_the_one_that_was_used_longest_ago_goes(store: SqlStore) -> None:
    for number in range(4):
        await store.save_device(device_of("alice", f"token-{number}", NOW_US + number), 3)
    assert await tokens_of(store, "alice") == ["token-3", "token-2", "token-1"]
    await store.save_device(device_of("alice", "token-1", NOW_US + 10), 3)
    await store.save_device(device_of("alice", "late-clock", NOW_US - 10), 3)  # the one that registers stays
    assert await tokens_of(store, "alice") == ["token-1", "token-3", "late-clock"]
    await store.save_device(device_of("bob", "token-of-bob"), 3)
    assert len(await tokens_of(store, "alice")) == 3


async def test_one_registration_from_many_at_once_is_one_device(store: SqlStore) -> None:
    await asyncio.gather(
        *(store.save_device(device_of("alice", "token-1", NOW_US + n), 20) for n in range(8)),
        *(store.save_device(device_of("bob", "token-1", NOW_US + n), 20) for n in range(8)),
    )
    found = await store.devices_of(["alice", "bob"])
    assert sum(map(len, found.values())) == 1


async def test_only_its_user_removes_a_device(store: SqlStore) -> None:
    await store.save_device(device_of("alice", "token-1"), 20)
    assert not await store.remove_device("bob", device_id("token-1"))
    assert await tokens_of(store, "alice") == ["token-1"]
    assert await store.remove_device("alice", device_id("token-1"))
    assert not await store.remove_device("alice", device_id("token-1"))
    assert await tokens_of(store, "alice") == []


async def test_dead_targets_go_whoever_has_them(store: SqlStore) -> None:
    for user_id in ("alice", "bob", "carol"):
        await store.save_device(device_of(user_id, f"token-of-{user_id}"), 20)
    dead = [device_id("token-of-alice"), device_id("token-of-bob"), "dev_unknown"]
    assert await store.remove_targets(dead) == 2
    assert await store.remove_targets(dead) == 0
    assert await store.remove_targets([]) == 0
    assert list(await store.devices_of(["alice", "bob", "carol"])) == ["carol"]


async def test_that_somebody_has_a_device_is_noted(store: SqlStore) -> None:
    async def noted() -> str | None:
        async with store._db.read() as connection:
            found: str | None = await connection.scalar(
                select(settings.c.value).where(settings.c.name == "has_push")
            )
        return found

    assert await noted() is None
    await store.save_device(device_of("alice", "token-1"), 20)
    assert await noted() == "1"


@pytest.mark.req("R10")
async def test_the_erased_leave_no_device_and_the_export_has_them_all(store: SqlStore) -> None:
    await store.save_device(device_of("alice", "token-1", platform="ios"), 20)
    exported = await store.export_user("alice")
    assert exported is not None
    assert exported["devices"] == [
        {
            "token": "token-1",
            "platform": "ios",
            "created_at": "2026-01-05T12:00:00.000Z",
            "used_at": "2026-01-05T12:00:00.000Z",
        }
    ]
    assert await store.erase_user("alice", NOW_US + 1)
    assert await store.devices_of(["alice"]) == {}
    async with store._db.read() as connection:
        assert (await connection.execute(select(devices))).all() == []
    assert await store.export_user("alice") is None or "token-1" not in str(await store.export_user("alice"))


def test_a_device_does_not_show_its_token() -> None:
    assert "token-1" not in repr(device_of("alice", "token-1"))
    assert "token-1" not in device_id("token-1")
