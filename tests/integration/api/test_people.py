"""Users and topics, for backends."""

import json
from typing import Any

import pytest

from tests.support.api import Api

ON = ("memory", "servers")

ALICE = {
    "name": "Alice",
    "avatar": "https://img.test/a.png",
    "email": "alice@example.com",
    "phone": "+821012345678",
    "locale": "ko-KR",
    "timezone": "Asia/Seoul",
    "attributes": {"plan": "gold", "tags": ["a"]},
}


@pytest.mark.req("R10")
async def test_a_profile_is_put_read_patched_and_erased(api: Api) -> None:
    created = await api.call("PUT", "/v1/users/alice", key="first", json=ALICE)
    assert (created.status_code, created.json()) == (201, {"id": "alice", **ALICE})
    replaced = await api.call("PUT", "/v1/users/alice", key="first", json={"name": "A"})
    assert replaced.status_code == 200
    assert replaced.json()["email"] is None
    back = await api.call("PUT", "/v1/users/alice", key="first", json=created.json())
    assert back.json() == created.json()  # what was read can be sent back
    patch = {"name": None, "attributes": {"plan": "silver", "tags": None, "seats": 3}}
    patched = await api.call("PATCH", "/v1/users/alice", key="first", json=patch)
    assert patched.json()["name"] is None
    assert patched.json()["attributes"] == {"plan": "silver", "seats": 3}
    assert (await api.call("GET", "/v1/users/alice", key="first")).json() == patched.json()
    assert (await api.call("DELETE", "/v1/users/alice", key="first")).status_code == 204
    assert (await api.call("GET", "/v1/users/alice", key="first")).status_code == 404
    assert (await api.call("PATCH", "/v1/users/alice", key="first", json={"name": "x"})).status_code == 404
    assert (await api.call("GET", "/v1/users/alice/export", key="first")).status_code == 404


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"email": "no"}, "/email"),
        ({"phone": "0123"}, "/phone"),
        ({"timezone": "Mars/Base"}, "/timezone"),
        ({"locale": "??"}, "/locale"),
        ({"avatar": "javascript:alert(1)"}, "/avatar"),
        ({"name": 5}, "/name"),
        ({"nickname": "x"}, "/nickname"),
        ({"attributes": []}, "/attributes"),
        ({"attributes": {"x": "\0"}}, "/attributes/x"),
        ({"attributes": {"x": "y" * 20_000}}, "/attributes"),
        ({"attributes": json.loads('{"a":' * 40 + "1" + "}" * 40)}, "/attributes/a"),
        ({"id": "bob"}, "/id"),
    ],
)
@pytest.mark.req("R35")
async def test_a_profile_that_cannot_be_stored_is_refused_with_its_place(
    api: Api, fields: dict[str, Any], pointer: str
) -> None:
    await api.call("PUT", "/v1/users/alice", key="first", json={"name": "A"})
    line = json.dumps({"id": "alice", **fields}).encode()
    for answer in (
        await api.call("PUT", "/v1/users/alice", key="first", json=fields),
        await api.call("PATCH", "/v1/users/alice", key="first", json=fields),
    ):
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"].startswith(pointer)
    if "id" not in fields:
        batch = await api.call("POST", "/v1/users/batch", key="first", content=line)
        assert (batch.status_code, batch.json()["rejected"]) == (422, 1)
    assert (await api.call("GET", "/v1/users/alice", key="first")).json()["name"] == "A"


async def test_users_are_listed_by_id_in_pages(api: Api) -> None:
    for user in ("dave", "alice", "carol", "bob", "batch"):
        await api.call("PUT", f"/v1/users/{user}", key="first", json={})
    found, cursor = [], ""
    while True:
        page = (await api.call("GET", f"/v1/users?limit=2{cursor}", key="first")).json()
        found += [user["id"] for user in page["users"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == ["alice", "batch", "bob", "carol", "dave"]
    # A user may be called as a call is.
    assert (await api.call("GET", "/v1/users/batch", key="first")).json()["id"] == "batch"
    assert (await api.call("DELETE", "/v1/users/batch", key="first")).status_code == 204


@pytest.mark.req("R10")
async def test_a_batch_merges_users_with_preferences_and_topics(api: Api) -> None:
    await api.call("PUT", "/v1/users/alice", key="first", json=ALICE)
    lines: list[Any] = [
        {"id": "alice", "name": "Al", "phone": None},
        {"id": "bob", "topics": ["news"], "preferences": {"channels": {"email": False}}},
        {"id": "a b"},
        {"name": "nobody"},
        "nonsense",
        {"id": "carol", "topics": [f"t{number}" for number in range(501)]},
        {"id": "dave"},
    ]
    content = b"\n".join(json.dumps(line).encode() for line in lines)
    answer = await api.call("POST", "/v1/users/batch", key="first", content=content)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert ["error" in one for one in results] == [False, False, True, True, True, True, False]
    assert results[5]["error"]["code"] == "too_many_topics"
    alice = (await api.call("GET", "/v1/users/alice", key="first")).json()
    assert (alice["name"], alice["phone"], alice["email"]) == ("Al", None, ALICE["email"])
    assert (await api.call("GET", "/v1/users/bob/topics", key="first")).json()["topics"] == ["news"]
    preferences = await api.call("GET", "/v1/users/bob/preferences", key="first")
    assert preferences.json()["channels"] == {"email": False}
    many = b"\n".join([b'{"id":"x"}'] * 1001)
    refused = await api.call("POST", "/v1/users/batch", key="first", content=many)
    assert (refused.status_code, refused.json()["code"]) == (413, "batch_too_large")
    assert (await api.call("POST", "/v1/users/batch", key="first", content=b"\n")).status_code == 422


@pytest.mark.req("R10")
async def test_an_export_holds_what_is_kept(api: Api) -> None:
    await api.call("PUT", "/v1/users/alice", key="first", json=ALICE)
    await api.call("POST", "/v1/events", key="first", json={"to": "alice", "title": "Kept"})
    await api.settle()
    exported = await api.call("GET", "/v1/users/alice/export", key="first")
    assert exported.status_code == 200
    assert "alice@example.com" in exported.text
    assert "Kept" in exported.text


@pytest.mark.req("I16")
async def test_erased_and_revoked_users_lose_their_tokens_but_not_for_ever(api: Api) -> None:
    for method, path in (("POST", "/v1/users/alice/revoke-tokens"), ("DELETE", "/v1/users/alice")):
        token = {"authorization": f"Bearer {api.token('alice')}"}
        cookie = {"cookie": f"clarion_session={await api.session('alice')}"}
        assert (await api.call("GET", "/v1/me", headers=token)).status_code == 200
        api.clock.advance(1)
        assert (await api.call(method, path, key="first")).status_code == 204
        assert (await api.call("GET", "/v1/me", headers=token)).status_code == 401
        assert (await api.call("GET", "/v1/me", headers=cookie)).status_code == 401
        api.clock.advance(1)
        assert (await api.call("GET", "/v1/me", token="alice")).status_code == 200


@pytest.mark.req("R12")
async def test_topics_are_followed_and_left(api: Api) -> None:
    path = "/v1/topics/news/users"
    assert (await api.call("PUT", f"{path}/alice", key="first")).status_code == 204
    assert (await api.call("POST", path, key="first", json={"add": ["bob", "carol"]})).status_code == 204
    assert (await api.call("POST", path, key="first", json={"remove": ["carol", "ghost"]})).status_code == 204
    await api.call("PUT", "/v1/topics/art/users/alice", key="first")
    topics = (await api.call("GET", "/v1/topics?limit=1", key="first")).json()
    assert topics["topics"] == [{"topic": "art", "users": 1}]
    more = (await api.call("GET", f"/v1/topics?limit=1&cursor={topics['next']}", key="first")).json()
    assert (more["topics"], more["next"]) == ([{"topic": "news", "users": 2}], None)
    assert (await api.call("GET", path, key="first")).json() == {"users": ["alice", "bob"], "next": None}
    assert (await api.call("GET", "/v1/users/alice/topics", key="first")).json()["topics"] == ["art", "news"]
    await api.call("POST", "/v1/events", key="first", json={"to": {"topic": "news"}, "title": "To the topic"})
    await api.settle()
    for user, count in (("alice", 1), ("bob", 1), ("carol", 0), ("ghost", 0)):
        page = (await api.call("GET", f"/v1/users/{user}/notifications", key="first")).json()
        assert len(page["notifications"]) == count, user
    assert (await api.call("DELETE", f"{path}/alice", key="first")).status_code == 204
    assert (await api.call("DELETE", "/v1/topics/news", key="first")).status_code == 204
    assert (await api.call("DELETE", "/v1/topics/news", key="first")).status_code == 404
    both = await api.call("POST", path, key="first", json={"add": ["x"], "remove": ["x"]})
    assert both.status_code == 422


async def test_a_user_follows_at_most_500_topics(api: Api) -> None:
    topics = [f"t{number}" for number in range(500)]
    line = json.dumps({"id": "alice", "topics": topics}).encode()
    assert (await api.call("POST", "/v1/users/batch", key="first", content=line)).status_code == 200
    answer = await api.call("PUT", "/v1/topics/one-more/users/alice", key="first")
    assert (answer.status_code, answer.json()["code"]) == (422, "too_many_topics")
