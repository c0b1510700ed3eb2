"""Hostile and clumsy requests: each gets a problem document that says what is wrong, and nothing else happens."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from hub.api.app import TABLE
from hub.api.routing import Route
from hub.ratelimit import RateLimit
from tests.support.api import Api
from tests.support.clock import FakeClock

pytestmark = pytest.mark.req("R35")

TAKING_BODIES = [route for route in TABLE if route.body_kind != "none"]
TAKING_JSON = [route for route in TAKING_BODIES if route.body_kind != "form"]
FORM = "application/x-www-form-urlencoded"
NAMING = [route for route in TABLE if route.parameters]


def address(route: Route, value: str = "x") -> str:
    return route.path.format(**dict.fromkeys(route.parameters, value))


async def send(api: Api, route: Route, where: str, content: bytes, media: str = "application/json") -> Any:
    who: dict[str, str] = {"token": "alice"} if route.access == ("user",) else {"key": "first"}
    return await api.call(route.method, where, content=content, headers={"content-type": media}, **who)


@pytest.mark.parametrize(
    ("content", "statuses"),
    [
        (b"", {400, 422}),
        (b"   ", {400, 422}),
        (b"{", {400, 422}),
        (b'{"a": 1}}', {400, 422}),
        (b"nul", {400, 422}),
        (b"{'a': 1}", {400, 422}),
        (b"\xff\xfe\x00", {400, 422}),
        (b'{"name": "\xff"}', {400, 422}),
        (b'{"name": "\x01"}', {400, 422}),
        (b'{"name": "\\ud800"}', {400, 422}),
        (b'{"\\udfff": 1}', {400, 422}),
        (b"\xef\xbb\xbf{}", {400, 422}),
        (b"NaN", {400, 422}),
        (b"[" * 100_000, {400, 413, 422}),
        (b'{"a":' * 20_000, {400, 413, 422}),
        (b'{"data":' + b"[" * 5_000 + b"]" * 5_000 + b"}", {400, 422}),
        (b'"text"', {422}),
        (b"[]", {422}),
        (b"17", {422}),
        (b"null", {422}),
        (b'{"surprise": 1}', {200, 422}),
        (b'{"name": 1e999}', {400, 422}),
        (b'{"to": 1e400}', {400, 422}),
        (b'{"name": ' + b"9" * 5_000 + b"}", {400, 422}),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
async def test_bodies_that_are_wrong(api: Api, content: bytes, statuses: set[int]) -> None:
    for route in TAKING_JSON:
        answer = await send(api, route, address(route), content)
        assert answer.status_code in statuses | {404}, (route.method, route.path, answer.text)


async def test_bodies_of_the_wrong_kind(api: Api) -> None:
    for route in TAKING_BODIES:
        for media in (
            "application/xml",
            "text/html",
            "multipart/form-data; boundary=x",
            "nonsense",
            "image/png",
        ):
            answer = await send(api, route, address(route), b"{}", media)
            assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request"), route.path


async def test_bodies_that_are_too_large_are_not_read(api: Api) -> None:
    for route in TAKING_BODIES:
        taken = 0

        async def flood() -> Any:
            nonlocal taken
            for _ in range(200):
                taken += 64 * 1024
                yield b" " * 64 * 1024

        who: dict[str, str] = {"token": "alice"} if route.access == ("user",) else {"key": "first"}
        for content in (b" " * (route.body_limit + 1), flood()):  # announced, and not
            answer = await api.call(
                route.method,
                address(route),
                content=content,
                headers={"content-type": FORM if route.body_kind == "form" else "application/json"},
                **who,
            )
            assert answer.status_code == 413, (route.path, answer.text)
            assert answer.headers["connection"] == "close"
    event = await send(api, TABLE[0], "/v1/events", b'{"to":"a","body":"' + b"x" * 65_536 + b'"}')
    assert (event.status_code, event.json()["code"]) == (413, "event_too_large")


@pytest.mark.parametrize(
    "value",
    [
        "%2F",
        "a%2Fb",
        "%2e%2e%2f",
        "%00",
        "a%00",
        "%0A",
        "alice%0A",
        "%FF",
        "%ED%A0%80",
        "x" * 129,
        "x" * 10_240,
        "%20",
        "é",
        "a%3Cb",
        "%25",
    ],
)
async def test_absurd_ids(api: Api, value: str) -> None:
    for route in NAMING:
        more: dict[str, Any] = {"json": {}} if route.body_kind != "none" else {}
        answer = await api.call(route.method, address(route, value), key="first", **more)
        assert answer.status_code in (404, 405, 422), (route.method, route.path, answer.status_code)
    assert (await api.call("GET", "/v1/users", key="first")).json()["users"] == []
    assert (await api.call("GET", "/v1/topics", key="first")).json()["topics"] == []


@pytest.mark.parametrize(
    "query",
    ["limit=abc", "limit=0", "limit=99999999999999999999", "cursor=%00", "limit=%ff", "cursor=" + "x" * 5000],
)
async def test_queries_that_are_wrong(api: Api, query: str) -> None:
    for route in TABLE:
        if "limit" not in getattr(route.query, "__struct_fields__", ()):
            continue
        who: dict[str, str] = {"token": "alice"} if route.access == ("user",) else {"key": "first"}
        answer = await api.call("GET", f"{address(route)}?{query}", **who)
        assert answer.status_code in (400, 404, 422), (route.path, answer.text)


@pytest.mark.parametrize(
    ("event", "pointer"),
    [
        ({"to": 5}, "/to"),
        ({"to": []}, "/to"),
        ({"to": "a b"}, "/to"),
        ({"to": {}}, "/to"),
        ({"to": {"id": "a", "topic": "t"}}, "/to"),
        ({"to": ["a", {"everyone": False}]}, "/to/1/everyone"),
        ({"to": "a", "send_at": "2026-12-01T09:00:00"}, "/send_at"),
        ({"to": "a", "send_at": {"local": "9:00"}}, "/send_at/local"),
        ({"to": "a", "send_at": "2400-01-01T00:00:00Z"}, "/send_at"),
        ({"to": "a", "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
        ({"to": {"id": "a", "timezone": "Mars/Base"}}, "/to/timezone"),
        ({"to": "a", "url": "javascript:alert(1)"}, "/url"),
        ({"to": "a", "channels": ["fax"]}, "/channels/0"),
        ({"to": "a", "priority": "urgent"}, "/priority"),
        ({"to": "a", "data": {"x": "\0"}}, "/data/x"),
        ({"to": "a", "title": "\0"}, "/title"),
        ({"to": "a", "titel": "x"}, "/titel"),
        ({"title": "x"}, "/to"),
        ({"to": ["a"] * 1001}, "/to"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_events_that_are_wrong_are_refused_with_their_place(api: Api, event: Any, pointer: str) -> None:
    answer = await api.call("POST", "/v1/events", key="first", json=event)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer, answer.json()
    assert sum((await api.hub.queue.waiting()).values()) == 0


async def test_addresses_and_methods_that_do_not_exist(api: Api) -> None:
    for path in ("/", "/v1", "/v1/", "/v2/events", "/v1/events/", "/v1/users/", "/V1/events", "//v1/events"):
        answer = await api.call("GET", path, key="first")
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
    wrong = await api.call("PATCH", "/v1/events", key="first", json={})
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "OPTIONS, POST"
    users = await api.call("OPTIONS", "/v1/users/alice")
    assert (users.status_code, users.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH, PUT")
    assert (await api.call("BREW", "/v1/events", key="first")).status_code == 405


async def test_head_is_get_without_the_body(api: Api) -> None:
    get = await api.call("GET", "/v1/users", key="first")
    head = await api.call("HEAD", "/v1/users", key="first")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    missing = await api.call("HEAD", "/v1/users/nobody", key="first")
    assert (missing.status_code, missing.content) == (404, b"")


async def test_an_unexpected_failure_is_logged_once_and_tells_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a secret of the inside")

    monkeypatch.setattr(api.hub.people, "list", fail)
    with capture_logs() as logs:
        answer = await api.call("GET", "/v1/users", key="first", headers={"x-request-id": "my-id-1"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret of the inside" not in answer.text
    assert answer.json()["request_id"] == "my-id-1"
    assert len([one for one in logs if one["log_level"] == "error"]) == 1


async def test_every_answer_carries_its_security_headers_and_a_request_id(api: Api) -> None:
    for path in ("/healthz", "/docs", "/openapi.json", "/v1/users", "/nowhere", "/metrics"):
        answer = await api.call("GET", path)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["x-request-id"].startswith("req_")
    forged = await api.call("GET", "/healthz", headers={"x-request-id": "a b\tc"})
    assert forged.headers["x-request-id"].startswith("req_")


async def test_a_401_is_the_same_for_every_wrong_credential(api: Api) -> None:
    expired = api.hub.access.tokens.issue("alice", 1)
    _, revoked = await api.hub.keys.create("x", ["users"])
    [key] = [one for one in await api.hub.keys.list() if one.name == "x"]
    await api.hub.keys.revoke(key.id)
    bodies = set()
    for credential in ("clk_" + "A" * 43, revoked, "x", api.token("alice"), "a.b.c"):
        answer = await api.call("GET", "/v1/users", headers={"authorization": f"Bearer {credential}"})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        body = answer.json()
        bodies.add((body["code"], body["detail"], body["title"]))
    assert len(bodies) == 1
    api.clock.advance(120)
    late = await api.call("GET", "/v1/me", headers={"authorization": f"Bearer {expired}"})
    assert (late.status_code, late.json()["code"]) == (401, "token_expired")


@pytest.mark.req("R31")
async def test_a_user_who_calls_too_often_waits_and_backends_do_not(api: Api, clock: FakeClock) -> None:
    api.hub.limiter._limit = RateLimit(10, 60)
    last = None
    for _ in range(11):
        last = await api.client.get("/v1/me", headers={"authorization": f"Bearer {api.token('alice')}"})
    assert last is not None
    assert (last.status_code, last.json()["code"]) == (429, "rate_limited")
    wait = int(last.headers["retry-after"])
    assert (await api.call("GET", "/v1/me", token="bob")).status_code == 200
    assert (await api.call("GET", "/v1/users", key="first")).status_code == 200
    clock.advance(wait)
    assert (await api.call("GET", "/v1/me", token="alice")).status_code == 200
