"""The devices of a user: registered, listed without tokens, moved, removed, and nobody else's business."""

import pytest

from tests.support.api import Api

pytestmark = [pytest.mark.req("R7"), pytest.mark.req("I16")]
ON = ("memory", "servers")

TOKEN = "fcm-token:of_the-device"


async def register(api: Api, user: str, token: str = TOKEN, platform: str = "android") -> dict[str, object]:
    answer = await api.call("POST", "/v1/me/devices", token=user, json={"token": token, "platform": platform})
    assert answer.status_code == 200, answer.text
    shown: dict[str, object] = answer.json()
    assert token not in answer.text
    return shown


async def devices(api: Api, user: str) -> list[dict[str, object]]:
    answer = await api.call("GET", "/v1/me/devices", token=user)
    assert answer.status_code == 200
    assert "fcm-token" not in answer.text
    found: list[dict[str, object]] = answer.json()["devices"]
    return found


async def remove(api: Api, user: str, **named: str) -> int:
    return (await api.call("DELETE", "/v1/me/devices", token=user, json=named)).status_code


async def test_registering_is_idempotent_and_listing_shows_no_token(api: Api) -> None:
    first = await register(api, "alice")
    api.clock.advance(60)
    again = await register(api, "alice")
    assert again["id"] == first["id"]
    assert again["created_at"] == first["created_at"]
    assert again["used_at"] > first["used_at"]  # type: ignore[operator]
    api.clock.advance(60)
    await register(api, "alice", "fcm-token-2", "ios")
    assert [one["platform"] for one in await devices(api, "alice")] == ["ios", "android"]


async def test_a_token_moves_with_its_device(api: Api) -> None:
    await register(api, "alice")
    await register(api, "bob")
    assert await devices(api, "alice") == []
    assert len(await devices(api, "bob")) == 1


async def test_only_twenty_are_kept(api: Api) -> None:
    for number in range(22):
        api.clock.advance(1)
        await register(api, "alice", f"fcm-token-{number}")
    kept = [one.token for one in (await api.hub.store.devices_of(["alice"]))["alice"]]
    assert kept == [f"fcm-token-{number}" for number in range(21, 1, -1)]


async def test_removing_by_token_or_id_but_only_ones_own(api: Api) -> None:
    mine = await register(api, "alice")
    assert await remove(api, "mallory", id=str(mine["id"])) == 204
    assert await remove(api, "mallory", token=TOKEN) == 204
    assert len(await devices(api, "alice")) == 1
    assert await remove(api, "alice", token=TOKEN) == 204
    assert await remove(api, "alice", token=TOKEN) == 204
    assert await devices(api, "alice") == []
    again = await register(api, "alice")
    assert await remove(api, "alice", id=str(again["id"])) == 204
    assert await devices(api, "alice") == []


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"token": TOKEN},
        {"platform": "android"},
        {"token": "short", "platform": "android"},
        {"token": "with a space in it", "platform": "android"},
        {"token": "line\r\nbreak-in-token", "platform": "android"},
        {"token": "null\u0000in-the-token", "platform": "android"},
        {"token": "t" * 4097, "platform": "android"},
        {"token": TOKEN, "platform": "windows"},
        {"token": TOKEN, "platform": "android", "user": "bob"},
        [TOKEN],
    ],
)
async def test_what_is_no_device_is_refused(api: Api, body: object) -> None:
    answer = await api.call("POST", "/v1/me/devices", token="alice", json=body)
    assert answer.status_code == 422
    assert await devices(api, "alice") == []


@pytest.mark.parametrize("body", [{}, {"token": TOKEN, "id": "dev_1"}, {"id": 7}, {"x": 1}])
async def test_a_removal_names_one_device(api: Api, body: object) -> None:
    answer = await api.call("DELETE", "/v1/me/devices", token="alice", json=body)
    assert answer.status_code == 422


@pytest.mark.req("R10")
async def test_export_and_erasure(api: Api) -> None:
    await register(api, "alice")
    exported = (await api.call("GET", "/v1/users/alice/export", key="first")).json()
    assert [one["token"] for one in exported["devices"]] == [TOKEN]
    assert (await api.call("DELETE", "/v1/users/alice", key="first")).status_code == 204
    assert await api.hub.store.devices_of(["alice"]) == {}
