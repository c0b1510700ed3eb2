"""Browsers register, are listed, tried, renewed and forgotten; their service workers report, and only for their own."""

from typing import Any, NoReturn

import pytest
from httpx2 import Response
from sqlalchemy import update

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import deliveries
from hub.errors import Refused
from hub.links import SignedLinks
from hub.push import RENEWAL_SECONDS
from tests.support.api import Api
from tests.support.push_service import Browser, unb64

pytestmark = pytest.mark.req("R7")
ON = ("memory", "servers")
PATH = "/v1/me/push-subscriptions"


def browser(number: int = 1) -> dict[str, Any]:
    return Browser(f"https://fcm.googleapis.com/fcm/send/{number}").subscription


async def register(api: Api, subscription: dict[str, Any], user: str = "alice") -> dict[str, Any]:
    answer = await api.call("POST", PATH, token=user, json=subscription)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def listed(api: Api, user: str = "alice") -> list[str]:
    found = (await api.call("GET", PATH, token=user)).json()["push_subscriptions"]
    return [one["id"] for one in found]


async def test_the_key_is_open_to_every_page(api: Api) -> None:
    answer = await api.call("GET", "/v1/push/public-key")
    point = unb64(answer.json()["public_key"])
    assert (len(point), point[0]) == (65, 4)
    foreign = await api.call("GET", "/v1/push/public-key", headers={"origin": "http://evil.test"})
    assert "access-control-allow-origin" not in foreign.headers
    own = await api.call("GET", "/v1/push/public-key", headers={"origin": "http://hub.test"})
    assert own.headers["access-control-allow-origin"] == "http://hub.test"


async def test_a_browser_is_registered_as_it_describes_itself_and_listed_without_secrets(api: Api) -> None:
    subscription = browser() | {"expirationTime": 12.5, "options": {"x": 1}}
    first = await register(api, subscription)
    assert (await register(api, subscription))["id"] == first["id"]
    answer = await api.call("GET", PATH, token="alice")
    [shown] = answer.json()["push_subscriptions"]
    assert shown["service"] == "fcm.googleapis.com"
    assert shown["created_at"] == "2026-01-05T12:00:00.000Z"
    for secret in (subscription["endpoint"], *subscription["keys"].values()):
        assert secret not in answer.text
    [kept] = (await api.hub.store.subscriptions_of(["alice"]))["alice"]
    assert (kept.endpoint, kept.p256dh, kept.auth) == (
        subscription["endpoint"],
        *subscription["keys"].values(),
    )


async def test_an_endpoint_belongs_to_whoever_used_it_last(api: Api) -> None:
    subscription = browser()
    await register(api, subscription)
    await register(api, subscription, "bob")
    assert (await listed(api), len(await listed(api, "bob"))) == ([], 1)
    await api.call("DELETE", PATH, token="alice", json={"endpoint": subscription["endpoint"]})
    assert len(await listed(api, "bob")) == 1, "nobody forgets somebody else's"


async def test_a_browser_is_forgotten_by_endpoint_or_id(api: Api) -> None:
    one, two = browser(1), browser(2)
    first, second = await register(api, one), await register(api, two)
    assert set(await listed(api)) == {first["id"], second["id"]}
    for body in ({"endpoint": one["endpoint"]}, {"id": second["id"]}, {"id": second["id"]}, {"id": "psb_x"}):
        assert (await api.call("DELETE", PATH, token="alice", json=body)).status_code == 204
    assert await listed(api) == []
    for body in ({}, {"id": "x", "endpoint": "y"}, {"id": 1}, {"more": "x"}, []):
        assert (await api.call("DELETE", PATH, token="alice", json=body)).status_code == 422


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"endpoint": "https://10.0.0.1/x"}, "/endpoint"),
        ({"endpoint": "http://127.0.0.1:8000/v1/events"}, "/endpoint"),
        ({"endpoint": "https://fcm.googleapis.com@169.254.169.254/latest"}, "/endpoint"),
        ({"endpoint": "https://push.example.com/x"}, "/endpoint"),
        ({"endpoint": ""}, "/endpoint"),
        ({"endpoint": "x" * 5_000}, "/endpoint"),
        ({"endpoint": None}, "/endpoint"),
        ({"keys": {}}, "/keys"),
        ({"keys": {"p256dh": "A" * 87, "auth": "A" * 22}}, "/keys/p256dh"),
        ({"keys": {"p256dh": "BAAA", "auth": "A" * 22}}, "/keys/p256dh"),
        ({"keys": {"p256dh": browser()["keys"]["p256dh"], "auth": "AAAA"}}, "/keys/auth"),
        ({"keys": {"p256dh": browser()["keys"]["p256dh"], "auth": "!" * 22}}, "/keys/auth"),
        ({"keys": {"p256dh": browser()["keys"]["p256dh"], "auth": "é" * 22}}, "/keys/auth"),
        ({"keys": None}, "/keys"),
    ],
)
async def test_what_cannot_be_sent_to_is_refused_with_its_place(
    api: Api, change: dict[str, Any], pointer: str
) -> None:
    answer = await api.call("POST", PATH, token="alice", json=browser() | change)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith(pointer), answer.text
    assert await listed(api) == []


async def test_of_more_than_twenty_the_oldest_goes(api: Api) -> None:
    made = []
    for number in range(22):
        made.append((await register(api, browser(number)))["id"])
        api.clock.advance(1)
    assert await listed(api) == made[:1:-1]


@pytest.mark.req("R17")
async def test_a_registered_browser_makes_its_user_reachable(api: Api) -> None:
    async def reason() -> str:
        event = {"to": "alice", "title": "t", "channels": ["web_push"]}
        accepted = (await api.call("POST", "/v1/events", key="first", json=event)).json()
        await api.settle()
        page = await api.call("GET", f"/v1/events/{accepted['id']}/notifications", key="first")
        return str(page.json()["notifications"][0]["reasons"][-1]["rule"])

    assert await reason() == "no_address"
    subscription = browser()
    await register(api, subscription)
    assert await reason() == "always"
    await api.call("DELETE", PATH, token="alice", json={"endpoint": subscription["endpoint"]})
    assert await reason() == "no_address"


async def test_a_test_goes_to_the_browsers_alone_and_at_once(api: Api) -> None:
    nobody = await api.call("POST", f"{PATH}/test", token="alice")
    assert (nobody.status_code, nobody.json()["code"]) == (409, "conflict")
    await register(api, browser())
    accepted = await api.call("POST", f"{PATH}/test", token="alice")
    assert accepted.status_code == 202
    await api.settle()
    event = accepted.json()["id"]
    [delivery] = (await api.call("GET", f"/v1/events/{event}/deliveries", key="first")).json()["deliveries"]
    assert (delivery["user"], delivery["channel"], delivery["state"]) == ("alice", "web_push", "queued")
    assert (await api.call("GET", "/v1/me/notifications", token="alice")).json()["notifications"] == []


@pytest.mark.req("R10")
async def test_erasure_takes_them_along_and_export_shows_them(api: Api) -> None:
    await register(api, browser())
    exported = (await api.call("GET", "/v1/users/alice/export", key="first")).json()
    assert len(exported["push_subscriptions"]) == 1
    await api.call("DELETE", "/v1/users/alice", key="first")
    assert await api.hub.store.subscriptions_of(["alice"]) == {}


# ---------------------------------------------------------------- renewal


async def renew(api: Api, renewal: str, subscription: dict[str, Any]) -> Response:
    body = {"renewal": renewal, "subscription": subscription}
    return await api.call("POST", "/v1/push/renewals", json=body)


async def test_a_service_worker_renews_its_subscription_without_its_user(api: Api) -> None:
    old = await register(api, browser(1))
    new = await renew(api, old["renewal"], browser(2))
    assert new.status_code == 200
    assert await listed(api) == [new.json()["id"]]
    again = await renew(api, new.json()["renewal"], browser(3))
    assert await listed(api) == [again.json()["id"]]
    await api.hub.store.remove_subscription(
        again.json()["id"]
    )  # the push service said 410 before the browser knew
    assert (await renew(api, again.json()["renewal"], browser(4))).status_code == 200
    assert len(await listed(api)) == 1
    inside = await renew(api, again.json()["renewal"], browser() | {"endpoint": "https://10.0.0.1/x"})
    assert (inside.status_code, inside.json()["code"]) == (422, "invalid_subscription")


@pytest.mark.req("R34", "I16")
async def test_a_renewal_ends_with_its_users_tokens_and_with_time(api: Api) -> None:
    async def refused(renewal: str) -> None:
        answer = await renew(api, renewal, browser(9))
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")

    good = (await register(api, browser(1)))["renewal"]
    for forged in ("", "x", good[:-2] + "AA", api.token("alice")):
        await refused(forged)
    receipts = SignedLinks(api.hub.settings.token_secrets, "receipt")
    await refused(receipts.sign({"user": "alice", "at_us": api.clock.now_us()}))
    api.clock.advance(1)
    await api.call("POST", "/v1/users/alice/revoke-tokens", key="first")
    await refused(good)
    api.clock.advance(1)
    other = (await register(api, browser(2), "bob"))["renewal"]
    api.clock.advance(1)
    await api.call("DELETE", "/v1/users/bob", key="first")
    await refused(other)
    old = (await register(api, browser(3), "carol"))["renewal"]
    api.clock.advance(RENEWAL_SECONDS + 1)
    await refused(old)
    assert await listed(api, "bob") == []


# ---------------------------------------------------------------- receipts


async def sent(api: Api, user: str = "alice", state: str = "sent") -> tuple[str, dict[str, str]]:
    """A push that a sender has sent: its receipt's address, and what it says."""
    await register(api, browser(), user)
    event = {"to": user, "title": "t", "channels": ["in_app", "web_push"]}
    accepted = (await api.call("POST", "/v1/events", key="first", json=event)).json()
    await api.settle()
    store = api.hub.store
    assert isinstance(store, SqlStore)
    [delivery] = await store.event_deliveries(accepted["id"], None, None, 10)

    async def work(connection: Any) -> None:
        await connection.execute(update(deliveries).where(deliveries.c.id == delivery.id).values(state=state))

    await store._db.write(work)
    says = {"delivery": delivery.id, "user": user, "notification": delivery.notification_id}
    token = SignedLinks(api.hub.settings.token_secrets, "receipt").sign(says)
    return f"/v1/push/receipts/{token}", says


async def state_of(api: Api, says: dict[str, str]) -> str:
    event = (await api.hub.store.find_notifications(says["user"], [says["notification"]]))[0][0].event_id
    return (await api.hub.store.event_deliveries(event, None, None, 10))[0].state


@pytest.mark.req("R20")
async def test_what_a_service_worker_reports_is_logged_and_moves_the_delivery(api: Api) -> None:
    address, says = await sent(api)
    assert (await api.call("POST", address, json={"event": "shown"})).status_code == 204
    assert await state_of(api, says) == "delivered"
    assert (await api.call("POST", address, json={"event": "closed", "more": 1})).status_code == 204
    lines = (await api.call("GET", "/v1/log?user=alice&channel=web_push", key="first")).json()["entries"]
    assert [line["state"] for line in reversed(lines)] == ["delivered", "shown", "closed"]
    inbox = (await api.call("GET", "/v1/me/notifications", token="alice")).json()
    assert inbox["unread"] == 1, "shown by the system is not read"
    live = await api.hub.bus.history("log", 0, None)
    assert any(b'"shown"' in message.payload for message in live.messages)


@pytest.mark.req("R20")
async def test_what_was_clicked_was_read(api: Api) -> None:
    address, says = await sent(api)
    for _ in range(2):
        assert (await api.call("POST", address, json={"event": "clicked"})).status_code == 204
    assert await state_of(api, says) == "delivered"
    [row] = (await api.call("GET", "/v1/me/notifications", token="alice")).json()["notifications"]
    assert row["read_at"] is not None
    assert row["seen_at"] is not None


async def test_a_service_worker_may_say_it_as_plain_text_from_any_page(api: Api) -> None:
    """Without a preflight: what a service worker's fetch sends when it is given a text."""
    address, says = await sent(api)
    headers = {"content-type": "text/plain;charset=UTF-8", "origin": "https://shop.example"}
    answer = await api.call("POST", address, content=b'{"event":"shown"}', headers=headers)
    assert answer.status_code == 204
    assert await state_of(api, says) == "delivered"


@pytest.mark.req("R35", "I16")
async def test_a_receipt_that_was_not_signed_here_is_none(api: Api) -> None:
    address, says = await sent(api)
    secrets = api.hub.settings.token_secrets
    forged = [
        "x",
        "x" * 2_000,
        address.rpartition("/")[2][:-3] + "AAA",
        api.token("alice"),
        SignedLinks(secrets, "unsubscribe").sign(says),
        SignedLinks((b"another secret of at least 32 bytes",), "receipt").sign(says),
        SignedLinks(secrets, "receipt").sign({"user": "alice"}),
    ]
    for token in forged:
        answer = await api.call("POST", f"/v1/push/receipts/{token}", json={"event": "clicked"})
        assert answer.status_code == 404, token
    assert await state_of(api, says) == "sent"
    for body in ({}, {"event": "liked"}, [], {"event": 1}):
        assert (await api.call("POST", address, json=body)).status_code == 422
    assert (await api.call("GET", address)).status_code == 405


@pytest.mark.req("R10")
async def test_receipts_of_an_erased_user_name_nobody(api: Api) -> None:
    address, _ = await sent(api)
    await api.call("DELETE", "/v1/users/alice", key="first")
    assert (await api.call("POST", address, json={"event": "clicked"})).status_code == 204
    assert (await api.call("GET", "/v1/log?user=alice", key="first")).json()["entries"] == []
    assert (await api.call("GET", "/v1/users/alice", key="first")).status_code == 404


def call_for_ever(api: Api) -> NoReturn:
    while True:
        api.hub.limiter.check("alice")


@pytest.mark.req("R31")
async def test_receipts_count_as_their_users_calls(api: Api) -> None:
    address, _ = await sent(api)
    with pytest.raises(Refused):
        call_for_ever(api)
    answer = await api.call("POST", address, json={"event": "shown"})
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
