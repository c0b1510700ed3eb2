"""Publishing over HTTP: one, many, again, scheduled, retracted; and what becomes of it."""

import json
from typing import Any

import pytest

from hub.errors import QueueUnavailable
from tests.support.api import Api

ON = ("memory", "servers")

Event = dict[str, Any]
pytestmark = pytest.mark.req("R5")


async def publish(api: Api, event: Any, **headers: str) -> Any:
    return await api.call("POST", "/v1/events", key="first", json=event, headers=headers)


async def test_an_event_is_accepted_then_generated_and_found_in_the_inbox(api: Api) -> None:
    answer = await publish(api, {"to": ["alice", "bob"], "title": "Hello", "data": {"n": 1}})
    assert answer.status_code == 202
    assert answer.json()["status"] == "accepted"
    event = answer.json()["id"]
    waiting = await api.call("GET", f"/v1/events/{event}", key="first")
    assert waiting.json()["status"] == "accepted"
    await api.settle()
    done = (await api.call("GET", f"/v1/events/{event}", key="first")).json()
    assert (done["status"], done["recipients"], done["in_app"]) == ("generated", 2, 2)
    inbox = (await api.call("GET", "/v1/me/notifications", token="alice")).json()
    assert [one["title"] for one in inbox["notifications"]] == ["Hello"]
    assert (inbox["unread"], inbox["unseen"], inbox["capped"]) == (1, 1, False)
    rows = (await api.call("GET", f"/v1/events/{event}/notifications?limit=1", key="first")).json()
    assert [row["user"] for row in rows["notifications"]] == ["alice"]
    more = await api.call(
        "GET", f"/v1/events/{event}/notifications?limit=1&cursor={rows['next']}", key="first"
    )
    assert [row["user"] for row in more.json()["notifications"]] == ["bob"]
    none = await api.call("GET", f"/v1/events/{event}/deliveries?state=held", key="first")
    assert none.json() == {"deliveries": [], "next": None}


@pytest.mark.req("I2")
async def test_the_same_key_and_body_is_one_event_and_another_body_is_refused(api: Api) -> None:
    event = {"to": "alice", "title": "Once", "data": {"a": 1, "b": 2}}
    same = {"data": {"b": 2, "a": 1}, "title": "Once", "to": "alice", "priority": "normal"}
    first = await publish(api, event, **{"Idempotency-Key": "order/1"})
    second = await publish(api, same, **{"Idempotency-Key": '"order/1"'})
    assert first.json() == second.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    third = await publish(api, {**event, "title": "Twice"}, **{"Idempotency-Key": "order/1"})
    assert (third.status_code, third.json()["code"]) == (422, "idempotency_key_reused")
    found = await api.call("GET", "/v1/events/key:order%2F1", key="first")
    assert found.json()["id"] == first.json()["id"]
    other = await api.key("publish", "read")
    assert (await api.call("GET", "/v1/events/key:order%2F1", key=other)).status_code == 404
    assert (
        await api.call("POST", "/v1/events", key=other, json=event, headers={"Idempotency-Key": "order/1"})
    ).json()["id"] != first.json()["id"]
    await api.settle()
    assert (await api.call("GET", "/v1/me/notifications", token="alice")).json()["unread"] == 2


@pytest.mark.req("I2")
async def test_a_refused_body_does_not_use_its_key_up(api: Api) -> None:
    bad = await publish(api, {"to": "alice", "type": "unknown"}, **{"Idempotency-Key": "k"})
    assert (bad.status_code, bad.json()["code"]) == (422, "unknown_type")
    good = await publish(api, {"to": "alice", "title": "Hi"}, **{"Idempotency-Key": "k"})
    assert good.status_code == 202


@pytest.mark.req("I1")
async def test_without_the_queue_there_is_no_202(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any) -> None:
        raise QueueUnavailable("the queue is away")

    monkeypatch.setattr(api.hub.queue, "append", fail)
    for path, body in (("/v1/events", {"to": "alice"}), ("/v1/events/batch", [{"to": "alice"}])):
        answer = await api.call("POST", path, key="first", json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.req("R31")
async def test_beyond_the_limit_publishing_is_refused_for_a_while(api: Api) -> None:
    api.hub.intake._queue_limit = 1
    assert (await publish(api, {"to": "alice"})).status_code == 202
    await api.hub.intake.watch_queue()
    answer = await publish(api, {"to": "alice"})
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert answer.headers["retry-after"]


async def test_a_batch_answers_item_by_item_and_bad_items_block_no_other(api: Api) -> None:
    items: list[Any] = [
        {"to": "alice", "title": "1", "idempotency_key": "one"},
        {"to": {"id": 5}},
        "nonsense",
        {"to": "bob", "type": "unknown"},
        {"to": "alice", "title": "2"},
    ]
    ndjson = b"\n".join(json.dumps(item).encode() for item in items) + b"\n\n"
    for content, media in (
        (json.dumps(items).encode(), "application/json"),
        (ndjson, "application/x-ndjson"),
    ):
        answer = await api.call(
            "POST", "/v1/events/batch", key="first", content=content, headers={"content-type": media}
        )
        assert answer.status_code == 202
        body = answer.json()
        assert (body["accepted"], body["rejected"]) == (2, 3)
        assert ["error" in one for one in body["results"]] == [False, True, True, True, False]
        assert body["results"][1]["error"]["errors"][0]["pointer"] == "/to/id"
        assert body["results"][3]["error"]["code"] == "unknown_type"
    await api.settle()
    # Item "one" was sent twice with its key; "2" has none, so it came twice.
    assert (await api.call("GET", "/v1/me/notifications", token="alice")).json()["unread"] == 3


async def test_a_batch_without_a_good_item_is_a_422_that_says_why(api: Api) -> None:
    answer = await api.call("POST", "/v1/events/batch", key="first", json=[{"to": {}}])
    assert answer.status_code == 422
    assert answer.json()["rejected"] == 1
    for content, code in ((b"[]", "empty_batch"), (b"[1,", "malformed_json"), (b"", "malformed_json")):
        refused = await api.call(
            "POST",
            "/v1/events/batch",
            key="first",
            content=content,
            headers={"content-type": "application/json"},
        )
        assert refused.json()["code"] == code
    many = await api.call("POST", "/v1/events/batch", key="first", json=[{"to": "a"}] * 1001)
    assert (many.status_code, many.json()["code"]) == (413, "batch_too_large")


async def test_a_retracted_event_leaves_inboxes_queued_or_shown(api: Api) -> None:
    shown = (await publish(api, {"to": "alice", "title": "shown"})).json()["id"]
    await api.settle()
    queued = (await publish(api, {"to": "alice", "title": "queued"})).json()["id"]
    for event in (shown, queued, queued):
        answer = await api.call("DELETE", f"/v1/events/{event}", key="first")
        assert answer.json() == {"id": event, "status": "retracted"}
    await api.settle()
    assert (await api.call("GET", "/v1/me/notifications", token="alice")).json()["notifications"] == []
    for event in (shown, queued):
        assert (await api.call("GET", f"/v1/events/{event}", key="first")).json()["status"] == "retracted"


async def test_a_scheduled_event_says_so(api: Api) -> None:
    event = (await publish(api, {"to": "alice", "title": "later", "send_at": "2026-01-06T09:00:00Z"})).json()
    await api.settle()
    status = (await api.call("GET", f"/v1/events/{event['id']}", key="first")).json()
    assert status["status"] == "scheduled"
    assert (await api.call("GET", "/v1/me/notifications", token="alice")).json()["unread"] == 0


@pytest.mark.parametrize(
    "event", ["evt_made-up", "key:never", "evt_", "x" * 290, "key:" + "x" * 280, "a/b/c", "%00"]
)
async def test_events_that_never_were_are_not_found(api: Api, event: str) -> None:
    for path in (
        f"/v1/events/{event}",
        f"/v1/events/{event}/notifications",
        f"/v1/events/{event}/deliveries",
    ):
        assert (await api.call("GET", path, key="first")).status_code == 404
    assert (await api.call("DELETE", f"/v1/events/{event}", key="first")).status_code == 404
