"""What a user does: inbox, marks, preferences, profile, session."""

from typing import Any

import pytest

from tests.support.api import ORIGIN, Api

ON = ("memory", "servers")


async def fill(api: Api, count: int, user: str = "alice") -> None:
    for number in range(count):
        await api.call("POST", "/v1/events", key="first", json={"to": user, "title": f"n{number}"})
    await api.settle()


async def inbox(api: Api, query: str = "", user: str = "alice") -> Any:
    return (await api.call("GET", f"/v1/me/notifications{query}", token=user)).json()


async def test_pages_follow_each_other_newest_first(api: Api) -> None:
    await fill(api, 5)
    first = await inbox(api, "?limit=2")
    second = await inbox(api, f"?limit=2&cursor={first['next']}")
    third = await inbox(api, f"?limit=2&cursor={second['next']}")
    titles = [one["title"] for page in (first, second, third) for one in page["notifications"]]
    assert titles == ["n4", "n3", "n2", "n1", "n0"]
    assert third["next"] is None
    for cursor in ("x", "%20", "AAAA", first["next"][:-2] + "!!", "x" * 500):
        wrong = await api.call("GET", f"/v1/me/notifications?cursor={cursor}", token="alice")
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid_cursor")


async def test_marks_change_counts_and_answer_what_changed(api: Api) -> None:
    await fill(api, 3)
    ids = [one["id"] for one in (await inbox(api))["notifications"]]
    path = "/v1/me/notifications/marks"
    read = await api.call("POST", path, token="alice", json={"mark": "read", "ids": [ids[0], "ntf_unknown"]})
    assert read.json() == {"unread": 2, "unseen": 2, "capped": False, "ids": [ids[0]]}
    await api.call("POST", path, token="alice", json={"mark": "archive", "ids": [ids[1]]})
    assert [one["id"] for one in (await inbox(api))["notifications"]] == [ids[0], ids[2]]
    assert [one["id"] for one in (await inbox(api, "?archived=only"))["notifications"]] == [ids[1]]
    assert len((await inbox(api, "?archived=include"))["notifications"]) == 3
    everything = await api.call("POST", path, token="alice", json={"mark": "read", "all": True})
    assert (everything.json()["unread"], everything.json()["unseen"]) == (0, 0)
    assert (await inbox(api, "?unread=true"))["notifications"] == []
    for wrong in (
        {"mark": "read"},
        {"mark": "read", "ids": ids, "all": True},
        {"mark": "archive", "all": True},
        {"mark": "liked", "ids": ids},
        {"mark": "read", "ids": []},
        {"mark": "read", "ids": ["x"] * 101},
        {"mark": "read", "ids": ids, "more": 1},
    ):
        assert (await api.call("POST", path, token="alice", json=wrong)).status_code == 422


@pytest.mark.req("R11")
async def test_preferences_are_replaced_and_patched_under_their_etag(api: Api) -> None:
    path = "/v1/me/preferences"
    start = await api.call("GET", path, token="alice")
    assert [row["category"] for row in start.json()["grid"]] == ["messages"]
    whole = {"channels": {"email": False}, "categories": {"messages": {"in_app": False}}}
    put = await api.call("PUT", path, token="alice", json=whole, headers={"If-Match": start.headers["etag"]})
    assert put.status_code == 200
    assert put.json()["grid"][0]["channels"]["in_app"]["allowed"] is False
    stale = await api.call("PUT", path, token="alice", json={}, headers={"If-Match": start.headers["etag"]})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
    patch = await api.call(
        "PATCH",
        path,
        token="alice",
        json={"channels": {"email": None, "sms": False}, "quiet_hours": {"start": "22:00", "end": "07:00"}},
        headers={"content-type": "application/merge-patch+json", "If-Match": put.headers["etag"]},
    )
    body = patch.json()
    assert body["channels"] == {"sms": False}
    assert body["categories"] == {"messages": {"in_app": False}}
    assert body["quiet_hours"] == {"start": "22:00", "end": "07:00"}
    back = await api.call("PUT", path, token="alice", json=body)  # what was read can be sent back
    assert back.json()["channels"] == {"sms": False}
    await fill(api, 1)
    assert (await inbox(api))["notifications"] == []
    await api.call("PATCH", path, token="alice", json={"categories": {"messages": None}})
    await fill(api, 1)
    assert len((await inbox(api))["notifications"]) == 1
    backend = await api.call("GET", "/v1/users/alice/preferences", key="first")
    assert backend.json()["channels"] == {"sms": False}


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"channels": {"fax": True}}, "/channels"),
        ({"channels": {"email": "yes"}}, "/channels"),
        ({"quiet_hours": {"start": "25:00", "end": "07:00"}}, "/quiet_hours/start"),
        ({"surprise": 1}, "/surprise"),
        ({"muted": {"actors": ["a b"]}}, "/muted/actors/0"),
        ([], ""),
    ],
)
async def test_preferences_that_are_none_are_refused_with_their_place(
    api: Api, wrong: Any, pointer: str
) -> None:
    for method in ("PUT", "PATCH"):
        answer = await api.call(method, "/v1/me/preferences", token="alice", json=wrong)
        assert answer.status_code == 422
        found = answer.json()["errors"][0]["pointer"]
        assert found.startswith(pointer), (method, answer.json())


async def test_a_user_changes_locale_and_time_zone_and_nothing_else(api: Api) -> None:
    fresh = await api.call("GET", "/v1/me", token="alice")
    assert fresh.json() == {"id": "alice", "name": None, "avatar": None, "locale": None, "timezone": None}
    assert (
        await api.call("GET", "/v1/users/alice", key="first")
    ).status_code == 404  # looking stores nothing
    patched = await api.call(
        "PATCH", "/v1/me", token="alice", json={"locale": "ko-KR", "timezone": "Asia/Seoul"}
    )
    assert (patched.json()["locale"], patched.json()["timezone"]) == ("ko-KR", "Asia/Seoul")
    cleared = await api.call("PATCH", "/v1/me", token="alice", json={"locale": None})
    assert (cleared.json()["locale"], cleared.json()["timezone"]) == (None, "Asia/Seoul")
    for wrong in ({"email": "a@b.c"}, {"timezone": "Mars/Base"}, {"locale": "!"}, {"locale": 5}):
        assert (await api.call("PATCH", "/v1/me", token="alice", json=wrong)).status_code == 422


@pytest.mark.req("R34")
async def test_a_token_becomes_a_cookie_that_counts_on_our_own_pages_only(api: Api) -> None:
    opened = await api.call("POST", "/v1/me/session", token="alice")
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    value = {"cookie": cookie.partition(";")[0]}
    own = {**value, "origin": ORIGIN}
    assert (await api.call("GET", "/v1/me", headers=value)).json()["id"] == "alice"
    assert (await api.call("PATCH", "/v1/me", headers=own, json={"locale": "en"})).status_code == 200
    fetch = {**value, "sec-fetch-site": "same-origin"}
    assert (await api.call("PATCH", "/v1/me", headers=fetch, json={"locale": "en"})).status_code == 200
    for foreign in (
        {**value, "origin": "http://evil.test"},
        {**value, "origin": "null"},
        {**value, "sec-fetch-site": "cross-site"},
        {**value, "sec-fetch-site": "same-site"},
        value,
    ):
        answer = await api.call("PATCH", "/v1/me", headers=foreign, json={"locale": "de"})
        assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin")
    form = {**own, "content-type": "text/plain"}
    typed = await api.call("PATCH", "/v1/me", headers=form, content=b'{"locale": "de"}')
    assert typed.status_code == 400
    assert (await api.call("POST", "/v1/me/session", headers=own)).status_code == 401
    ended = await api.call("DELETE", "/v1/me/session", headers=own)
    assert "Max-Age=0" in ended.headers["set-cookie"]


async def test_other_origins_may_call_with_a_token_when_they_are_allowed(api: Api) -> None:
    allowed = {"origin": "http://localhost:5173", "access-control-request-method": "PATCH"}
    preflight = await api.call("OPTIONS", "/v1/me", headers=allowed)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers
    answer = await api.call("GET", "/v1/me", token="alice", headers={"origin": "http://localhost:5173"})
    assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "origin" in answer.headers["vary"].lower()
    evil = {"origin": "http://evil.test", "access-control-request-method": "PATCH"}
    for refused in (
        await api.call("OPTIONS", "/v1/me", headers=evil),
        await api.call("GET", "/v1/me", token="alice", headers={"origin": "http://evil.test"}),
        await api.call("GET", "/v1/users", key="first", headers={"origin": "http://localhost:5173"}),
    ):
        assert "access-control-allow-origin" not in refused.headers
