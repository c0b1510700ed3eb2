"""The two-user matrix: every route of the table, tried by everyone who may not."""

from typing import Any

import pytest

from hub.api.app import TABLE
from hub.api.live import live_routes
from hub.api.routing import Route
from hub.keys import SCOPES
from tests.support.api import Api

pytestmark = [pytest.mark.req("I16"), pytest.mark.req("R34")]

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/events"): {"to": "bob", "title": "x"},
    ("POST", "/v1/events/batch"): [{"to": "bob", "title": "x"}],
    ("POST", "/v1/users/batch"): {"id": "bob", "name": "Mallory"},
    ("PUT", "/v1/users/{id}"): {"name": "Mallory"},
    ("PATCH", "/v1/users/{id}"): {"name": "Mallory"},
    ("POST", "/v1/topics/{topic}/users"): {"add": ["mallory"], "remove": ["bob"]},
    ("PUT", "/v1/types/{type}"): {"category": "mallory"},
    ("PUT", "/v1/categories/{category}"): {"title": "Mallory"},
    ("POST", "/v1/keys"): {"name": "mallory", "scopes": ["admin"]},
    ("PATCH", "/v1/me"): {"locale": "xx"},
    ("POST", "/v1/bounces"): {"address": "bob@example.com", "kind": "hard"},
    ("POST", "/v1/me/notifications/marks"): {"mark": "read", "all": True},
}
QUERIES = {
    "/v1/explain": "?user=bob&type=message",
    "/v1/suppressions": "?channel=email&address=bob@example.com",
}
GUARDED = [route for route in TABLE if route.access != ("open",)]


def address(route: Route, event: str) -> str:
    values = {
        "id": "bob",
        "topic": "news",
        "type": "bobs",
        "category": "bobs",
        "event": event,
        "key_id": "key_x",
    }
    return route.path.format(**values) + QUERIES.get(route.path, "")


def body(route: Route) -> dict[str, Any]:
    return {"json": BODIES.get((route.method, route.path), {})} if route.body_kind != "none" else {}


async def furnish(api: Api) -> str:
    """Something of everything, and an event of bob's."""
    await api.call("PUT", "/v1/users/bob", key="first", json={"name": "Bob", "email": "bob@example.com"})
    await api.call("PUT", "/v1/topics/news/users/bob", key="first")
    await api.call("PUT", "/v1/types/bobs", key="first", json={"category": "bobs", "title": "t"})
    await api.call("PUT", "/v1/categories/bobs", key="first", json={"title": "Bobs"})
    await api.call("PUT", "/v1/users/bob/preferences", key="first", json={"channels": {"sms": False}})
    event = (await api.call("POST", "/v1/events", key="first", json={"to": "bob", "title": "For Bob"})).json()
    await api.settle()
    return str(event["id"])


async def snapshot(api: Api) -> list[Any]:
    """What anybody could have changed."""
    paths = (
        "/v1/users",
        "/v1/users/bob/preferences",
        "/v1/users/bob/notifications?archived=include",
        "/v1/users/bob/topics",
        "/v1/topics",
        "/v1/types",
        "/v1/categories",
        "/v1/suppressions",
        "/v1/keys",
    )
    return [(await api.call("GET", path, key="first")).json() for path in paths] + [
        await api.hub.queue.waiting()
    ]


async def test_without_the_right_credentials_nothing_is_read_or_changed(api: Api) -> None:
    event = await furnish(api)
    before = await snapshot(api)
    session = await api.session("mallory")
    attempts: list[tuple[str, dict[str, str], set[int]]] = [
        ("nobody", {}, {401}),
        ("a wrong key", {"authorization": "Bearer clk_" + "A" * 43}, {401}),
        ("an empty bearer", {"authorization": "Bearer "}, {401}),
        ("basic", {"authorization": "Basic Ym9iOmJvYg=="}, {401}),
        ("a wrong cookie", {"cookie": "clarion_session=abc", "origin": "http://hub.test"}, {401}),
        (
            "a foreign page",
            {"cookie": f"clarion_session={session}", "origin": "http://evil.test"},
            {401, 403},
        ),
    ]
    for route in GUARDED:
        for who, headers, statuses in attempts:
            answer = await api.call(route.method, address(route, event), headers=headers, **body(route))
            assert answer.status_code in statuses, (who, route.method, route.path, answer.text)
            assert "bob" not in answer.text.lower().replace(route.path.lower(), ""), (who, route.path)
    assert await snapshot(api) == before


async def test_a_key_without_the_scope_may_not(api: Api) -> None:
    event = await furnish(api)
    keys = {scope: await api.key(*set(SCOPES) - {scope}) for scope in SCOPES}
    before = await snapshot(api)
    for route in GUARDED:
        if route.access == ("user",):
            continue
        for scope in route.access:
            lacking = (
                await api.key(*set(SCOPES) - set(route.access)) if len(route.access) > 1 else keys[scope]
            )
            answer = await api.call(route.method, address(route, event), key=lacking, **body(route))
            assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope"), route.path
    after = await snapshot(api)
    assert after[:-2] == before[:-2]  # but for the keys that were made here
    assert after[-1] == before[-1]


async def test_each_scope_opens_what_the_table_says(api: Api) -> None:
    event = await furnish(api)
    keys = {scope: await api.key(scope) for scope in SCOPES}
    for route in GUARDED:
        for scope in route.access:
            if scope == "user" or route.method == "DELETE":
                continue
            answer = await api.call(route.method, address(route, event), key=keys[scope], **body(route))
            assert answer.status_code not in (401, 403), (route.path, scope, answer.text)


async def test_a_user_is_no_backend_and_a_backend_is_no_user(api: Api) -> None:
    event = await furnish(api)
    before = await snapshot(api)
    for route in GUARDED:
        if route.access == ("user",):
            answer = await api.call(route.method, address(route, event), key="first", **body(route))
        else:
            own = {"origin": "http://hub.test"}
            cookie = await api.call(
                route.method, address(route, event), session="bob", headers=own, **body(route)
            )
            assert cookie.status_code == 401, route.path
            answer = await api.call(route.method, address(route, event), token="bob", **body(route))
        assert answer.status_code == 401, (route.method, route.path)
    assert await snapshot(api) == before


async def test_a_user_reaches_nothing_of_another_user(api: Api) -> None:
    await furnish(api)
    before = await snapshot(api)
    [theirs] = (await api.call("GET", "/v1/me/notifications", token="bob")).json()["notifications"]
    await api.call("POST", "/v1/events/batch", key="first", json=[{"to": "bob"}, {"to": "bob"}])
    await api.settle()
    cursor = (await api.call("GET", "/v1/me/notifications?limit=1", token="bob")).json()["next"]
    seen = (await api.call("GET", f"/v1/me/notifications?cursor={cursor}", token="mallory")).json()
    assert seen["notifications"] == []
    unread = (await api.call("GET", "/v1/me/notifications", token="bob")).json()["unread"]
    for mark in ("read", "archive", "seen"):
        marked = await api.call(
            "POST", "/v1/me/notifications/marks", token="mallory", json={"mark": mark, "ids": [theirs["id"]]}
        )
        assert marked.json()["ids"] == []
    everything = {"mark": "read", "all": True}
    await api.call("POST", "/v1/me/notifications/marks", token="mallory", json=everything)
    await api.call("PUT", "/v1/me/preferences", token="mallory", json={"channels": {"in_app": False}})
    await api.call("PATCH", "/v1/me", token="mallory", json={"locale": "de"})
    assert (await api.call("GET", "/v1/me/notifications", token="bob")).json()["unread"] == unread
    after = await snapshot(api)
    assert after[1] == before[1]
    assert (await api.call("GET", "/v1/users/bob", key="first")).json()["locale"] is None


async def test_an_operator_may_all_but_keys_and_only_from_our_own_pages(api: Api) -> None:
    event = await furnish(api)
    link = await api.hub.sessions.create_link("ops")
    session, _ = api.hub.sessions.open(await api.hub.sessions.redeem_link(link))
    own = {"cookie": f"clarion_session={session}", "origin": "http://hub.test"}
    for route in GUARDED:
        if route.access == ("user",) or route.method == "DELETE":
            continue
        where = address(route, event)
        foreign = await api.call(
            route.method, where, headers={**own, "origin": "http://evil.test"}, **body(route)
        )
        assert foreign.status_code == 403, route.path
        answer = await api.call(route.method, where, headers=own, **body(route))
        if route.access == ("admin",):
            assert answer.status_code == 403, route.path
        else:
            assert answer.status_code not in (401, 403), (route.path, answer.text)


async def test_the_live_routes_refuse_the_same_people(api: Api) -> None:
    live = Api(api.hub, api.core, api.clock, live_routes(api.hub.edge))
    session = await api.session("mallory")
    foreign = {"cookie": f"clarion_session={session}", "origin": "http://evil.test"}
    for method, path, more in (
        ("GET", "/v1/me/stream", {}),
        ("POST", "/v1/me/presence", {"json": {"connection": "x", "visible": False}}),
    ):
        assert (await live.call(method, path, **more)).status_code == 401
        assert (await live.call(method, path, key="first", **more)).status_code == 401
        assert (await live.call(method, f"{path}?token=nonsense", **more)).status_code == 401
        assert (await live.call(method, path, headers=foreign, **more)).status_code == 403
        assert (await live.call("DELETE", path, token="mallory")).status_code == 405
    await live.client.aclose()
