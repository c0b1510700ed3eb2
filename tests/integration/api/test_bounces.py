"""Bounces come in as JSON and as reports, addresses go out and come back, and forged reports harm nobody."""

from typing import Any

import pytest

from hub.model.deliveries import Delivery
from hub.model.vocabulary import Channel
from tests.support.api import Api
from tests.support.bounce_mail import complaint, notification
from tests.support.stores import NOW_US, Partition

pytestmark = [pytest.mark.req("I8")]
ON = ("memory", "servers")
REPORT = {"content-type": "message/rfc822"}


async def bounce(api: Api, body: Any, status: int = 200) -> Any:
    answer = await api.call("POST", "/v1/bounces", key="first", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def report(api: Api, raw: bytes, headers: dict[str, str] | None = None) -> list[dict[str, Any]]:
    answer = await api.call("POST", "/v1/bounces", key="first", content=raw, headers=headers or REPORT)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


async def suppressions(api: Api, query: str = "") -> list[tuple[str, str, str]]:
    found = (await api.call("GET", f"/v1/suppressions{query}", key="first")).json()["suppressions"]
    return [(one["channel"], one["address"], one["reason"]) for one in found]


async def lines(api: Api) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.call("GET", "/v1/log?state=bounced", key="first")).json()[
        "entries"
    ]
    return found


async def deliver(api: Api, user: str = "bob", address: str = "bob@example.com") -> Delivery:
    """A user with an e-mail on its way."""
    await api.call("PUT", f"/v1/users/{user}", key="first", json={"email": address})
    event = (await api.call("POST", "/v1/events", key="first", json={"to": user, "title": "x"})).json()["id"]
    partition = await Partition.take(api.hub.store, "test")  # type: ignore[arg-type]
    await partition.publish(event, [user], channels=[Channel.EMAIL])
    await api.hub.store.release_lease(partition.lease)
    [delivery] = await api.hub.store.event_deliveries(event, None, None, 10)
    return delivery


async def test_hard_bounces_and_complaints_take_an_address_out(api: Api) -> None:
    body = [
        {"address": "gone@Example.com", "kind": "hard", "detail": "5.1.1 gone@Example.com?", "at": "2026-01-05T11:00:00Z"},
        {"address": "full@example.com", "kind": "soft", "detail": "4.2.2 full"},
        {"address": "angry@example.com", "kind": "complaint"},
    ]  # fmt: skip
    assert [one["status"] for one in (await bounce(api, body))["results"]] == [
        "suppressed",
        "logged",
        "suppressed",
    ]
    assert [one["status"] for one in (await bounce(api, body))["results"]] == ["known", "logged", "known"]
    assert await suppressions(api) == [
        ("email", "angry@example.com", "complaint"),
        ("email", "gone@example.com", "bounce"),
    ]
    [first] = (await api.call("GET", "/v1/suppressions?limit=1", key="first")).json()["suppressions"]
    assert first["at"] == "2026-01-05T12:00:00.000Z"
    found = await lines(api)
    assert sorted(one["reason"] for one in found) == ["complaint"] * 2 + ["hard"] * 2 + ["soft"] * 2
    assert "gone@" not in str(found), "a line that names nobody outlives nobody's erasure"
    one = await bounce(api, {"address": "more@example.com", "kind": "hard", "at": "2030-01-01T00:00:00Z"})
    assert one == {"results": [{"address": "more@example.com", "status": "suppressed"}]}


async def test_the_list_is_paged_filtered_and_emptied(api: Api) -> None:
    await bounce(api, [{"address": f"u{n}@example.com", "kind": "hard"} for n in range(5)])
    await api.hub.store.suppress(Channel.SMS, "+4930123456", "stop", "STOP", NOW_US)
    found, cursor = [], ""
    while True:
        page = (await api.call("GET", f"/v1/suppressions?limit=2{cursor}", key="first")).json()
        found += [one["address"] for one in page["suppressions"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == [f"u{n}@example.com" for n in range(5)] + ["+4930123456"]
    assert await suppressions(api, "?channel=sms") == [("sms", "+4930123456", "stop")]
    out = {"channel": "email", "address": "u1@EXAMPLE.com"}
    assert (await api.call("DELETE", "/v1/suppressions", key="first", params=out)).status_code == 204
    assert (await api.call("DELETE", "/v1/suppressions", key="first", params=out)).status_code == 404
    assert "u1@example.com" not in str(await suppressions(api))
    phone = {"channel": "sms", "address": "+4930123456"}
    assert (await api.call("DELETE", "/v1/suppressions", key="first", params=phone)).status_code == 204
    for wrong in (
        "",
        "?channel=email",
        "?channel=fax&address=x",
        "?channel=in_app&address=x",
        "?channel=email&address=",
    ):
        assert (await api.call("DELETE", f"/v1/suppressions{wrong}", key="first")).status_code == 422
    for wrong in ("?cursor=abc", "?limit=0", "?channel=fax", "?cursor=ZmF4Cng"):
        assert (await api.call("GET", f"/v1/suppressions{wrong}", key="first")).status_code == 422


@pytest.mark.req("R17")
async def test_an_address_that_is_out_is_said_where_decisions_are_explained(api: Api) -> None:
    await api.call("PUT", "/v1/users/bob", key="first", json={"email": "bob@Example.com"})
    await bounce(api, {"address": "bob@example.com", "kind": "hard"})
    assert Channel.EMAIL in (await api.hub.store.load_users(["bob"]))["bob"].suppressed
    exported = (await api.call("GET", "/v1/users/bob/export", key="first")).json()
    assert exported["suppressions"][0]["reason"] == "bounce"


async def test_a_report_counts_for_the_delivery_that_it_gives_back(api: Api) -> None:
    delivery = await deliver(api)
    raw = notification("bob@EXAMPLE.com", delivery=delivery.id)
    assert await report(api, raw) == [{"address": "bob@example.com", "status": "suppressed"}]
    assert await suppressions(api) == [("email", "bob@example.com", "bounce")]
    [line] = await lines(api)
    assert (line["user"], line["event"], line["notification"]) == (
        "bob",
        delivery.event_id,
        delivery.notification_id,
    )
    assert (line["reason"], line["channel"], line["type"]) == ("hard", "email", "order.paid")
    assert line["detail"].startswith("5.1.1 smtp; 550 5.1.1")


@pytest.mark.parametrize("back", ["headers", "id"])
async def test_headers_alone_name_the_delivery(api: Api, back: str) -> None:
    delivery = await deliver(api)
    assert (await report(api, notification("bob@example.com", delivery=delivery.id, back=back)))[0]["address"]


async def test_a_multipart_body_has_its_head_in_the_request(api: Api) -> None:
    delivery = await deliver(api)
    raw = notification("bob@example.com", delivery=delivery.id)
    body = raw.partition(b"\r\n\r\n")[2]
    headers = {"content-type": 'multipart/report; report-type=delivery-status; boundary="b"'}
    assert (await report(api, body, headers))[0]["status"] == "suppressed"
    for unsaid in ({"content-type": "application/octet-stream"}, {"content-type": "multipart/report"}, {}):
        assert (await report(api, raw, unsaid))[0]["status"] == "known"


async def test_a_complaint_and_a_full_mailbox(api: Api) -> None:
    delivery = await deliver(api)
    full = notification("bob@example.com", "failed", "5.2.2", "smtp; 552 5.2.2 full", delivery=delivery.id)
    assert (await report(api, full))[0]["status"] == "logged"
    assert await suppressions(api) == []
    assert (await report(api, complaint("bob@example.com", delivery=delivery.id)))[0][
        "status"
    ] == "suppressed"
    assert await suppressions(api) == [("email", "bob@example.com", "complaint")]
    good = notification("bob@example.com", "delivered", "2.1.5", "smtp; 250 ok", delivery=delivery.id)
    assert await report(api, good) == []


@pytest.mark.req("R35", "I16")
async def test_a_made_up_report_harms_nobody(api: Api) -> None:
    delivery = await deliver(api)
    await api.call("PUT", "/v1/users/alice", key="first", json={"email": "alice@example.com"})
    forged = [
        notification("alice@example.com", delivery=delivery.id),  # bob's delivery, alice's address
        notification("alice@example.com"),  # of nobody's
        notification("alice@example.com", back="nothing"),
        notification("alice@example.com", delivery=delivery.id.replace("_email", "_sms")),
        complaint("alice@example.com", delivery=delivery.id[:-1]),
    ]
    for raw in forged:
        assert await report(api, raw) == [{"address": None, "status": "ignored"}]
    await api.call("DELETE", "/v1/users/bob", key="first")
    assert await report(api, notification("bob@example.com", delivery=delivery.id)) == [
        {"address": None, "status": "ignored"}
    ]
    assert await suppressions(api) == []
    assert await lines(api) == []


@pytest.mark.req("R35")
async def test_what_cannot_be_taken_is_refused_whole(api: Api) -> None:
    good = {"address": "a@example.com", "kind": "hard"}
    for wrong, pointer in (
        ([good, {"address": "nonsense", "kind": "hard"}], "/1/address"),
        ([good, {**good, "kind": "odd"}], "/1/kind"),
        ([good, {**good, "at": "yesterday"}], "/1/at"),
        ({**good, "address": "a@x.example\r\nBcc: y"}, "/address"),
        ({**good, "more": 1}, "/more"),
        ({"kind": "hard"}, "/address"),
        ([], ""),
    ):
        refused = await bounce(api, wrong, 422)
        assert [one["pointer"] for one in refused["errors"]] == [pointer]
    await bounce(api, [good] * 1_001, 413)
    for raw in (b"Subject: hi\r\n\r\nI am away", b"", b"\xff\x00" * 50):
        answer = await api.call("POST", "/v1/bounces", key="first", content=raw, headers=REPORT)
        assert answer.status_code == 422
    for body, kind, status in (
        (b"{", "application/json", 400),
        (b"x", "image/png", 400),
        (b"x" * 2**21 + b"x", "message/rfc822", 413),
    ):
        answer = await api.call(
            "POST", "/v1/bounces", key="first", content=body, headers={"content-type": kind}
        )
        assert answer.status_code == status
    assert await suppressions(api) == []
