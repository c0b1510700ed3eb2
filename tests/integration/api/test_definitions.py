"""Types and categories: defined, checked, versioned, previewed, applied from a folder."""

from typing import Any

import pytest

from hub.definitions import Definitions
from hub.errors import Refused
from tests.support.api import Api

ON = ("memory", "servers")

PAID = {
    "category": "orders",
    "title": "Order {{ data.number }} is paid",
    "body": "Thank you, {{ recipient.name or 'friend' }}.",
    "url": "/orders/{{ data.number }}",
    "schema": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
    "expose": ["number"],
    "channels": {"in_app": {"when": "always"}, "email": {"when": "unseen", "subject": "Paid"}},
    "locales": {"ko": {"title": "주문 {{ data.number }} 결제 완료"}},
}


@pytest.mark.req("R16")
async def test_a_type_is_used_from_the_moment_it_is_defined(api: Api) -> None:
    unknown = {"type": "order.paid", "to": "alice", "data": {"number": 7}}
    refused = await api.call("POST", "/v1/events", key="first", json=unknown)
    assert refused.json()["code"] == "unknown_type"
    put = await api.call("PUT", "/v1/types/order.paid", key="first", json=PAID)
    assert (put.status_code, put.json()["version"], put.headers["etag"]) == (200, 1, '"1"')
    await api.call("PUT", "/v1/users/alice", key="first", json={"locale": "ko-KR"})
    bad = await api.call("POST", "/v1/events", key="first", json={**unknown, "data": {"number": "7"}})
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid_data")
    assert bad.json()["errors"][0]["pointer"] == "/data/number"
    both = {**unknown, "to": ["alice", "bob"], "data": {"number": 7, "secret": "x"}}
    assert (await api.call("POST", "/v1/events", key="first", json=both)).status_code == 202
    await api.settle()
    for user, title in (("alice", "주문 7 결제 완료"), ("bob", "Order 7 is paid")):
        [shown] = (await api.call("GET", "/v1/me/notifications", token=user)).json()["notifications"]
        assert (shown["title"], shown["category"], shown["data"]) == (title, "orders", {"number": 7})


async def test_versions_count_changes_and_a_stale_if_match_changes_nothing(api: Api) -> None:
    path = "/v1/types/order.paid"
    await api.call("PUT", path, key="first", json=PAID)
    same = await api.call("PUT", path, key="first", json=PAID)
    assert same.json()["version"] == 1
    read = await api.call("GET", path, key="first")
    assert (read.json()["name"], read.json()["version"]) == ("order.paid", 1)
    assert all(read.json()[part] == PAID[part] for part in ("category", "title", "schema", "locales"))
    again = await api.call(
        "PUT", path, key="first", json=read.json(), headers={"If-Match": read.headers["etag"]}
    )
    assert again.json() == read.json()
    renamed = await api.call("PUT", path, key="first", json={**PAID, "name": "order.unpaid"})
    assert (renamed.status_code, renamed.json()["errors"][0]["pointer"]) == (422, "/name")
    changed = {**PAID, "title": "Paid"}
    second = await api.call("PUT", path, key="first", json=changed, headers={"If-Match": '"1"'})
    assert second.json()["version"] == 2
    for tag in ('"1"', 'W/"2"', '"x"'):
        stale = await api.call("PUT", path, key="first", json=PAID, headers={"If-Match": tag})
        assert (stale.status_code, stale.json()["code"]) == (412, "stale_version")
    versions = (await api.call("GET", f"{path}/versions", key="first")).json()["versions"]
    assert [one["version"] for one in versions] == [2, 1]
    assert versions[0]["title"] == "Paid"
    listed = (await api.call("GET", "/v1/types?limit=1", key="first")).json()
    assert [one["name"] for one in listed["types"]] == ["message"]
    more = (await api.call("GET", f"/v1/types?cursor={listed['next']}", key="first")).json()
    assert ([one["name"] for one in more["types"]], more["next"]) == (["order.paid"], None)
    assert (await api.call("DELETE", path, key="first", headers={"If-Match": '"1"'})).status_code == 412
    assert (await api.call("DELETE", path, key="first")).status_code == 204
    assert (await api.call("GET", path, key="first")).status_code == 404
    assert (await api.call("DELETE", path, key="first")).status_code == 404
    assert (await api.call("DELETE", "/v1/types/message", key="first")).status_code == 409


async def test_a_dry_run_checks_and_stores_nothing(api: Api) -> None:
    dry = await api.call("PUT", "/v1/types/order.paid?dry_run=true", key="first", json=PAID)
    assert dry.status_code == 200
    assert (await api.call("GET", "/v1/types/order.paid", key="first")).status_code == 404
    bad = await api.call(
        "PUT", "/v1/types/order.paid?dry_run=true", key="first", json={**PAID, "title": "{{ oops"}
    )
    assert bad.status_code == 422
    assert (await api.call("PUT", "/v1/categories/orders?dry_run=1", key="first", json={})).status_code == 200
    assert (await api.call("GET", "/v1/categories/orders", key="first")).status_code == 404


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"title": "{{ data.number"}, "/title"),
        ({"title": "{{ nothing.here }}"}, "/title"),
        ({"locales": {"ko": {"body": "{% for x in %}"}}}, "/locales/ko/body"),
        ({"locales": {"ko": {"body": 5}}}, "/locales/ko/body"),
        ({"schema": {"type": "nonsense"}}, "/schema"),
        ({"schema": {"$ref": "http://127.0.0.1:9/x"}}, "/schema"),
        ({"channels": {"fax": {}}}, "/channels"),
        ({"channels": {"email": {"when": "sometimes"}}}, "/channels/email/when"),
        ({"category": "a b"}, "/category"),
        ({"colour": "red"}, "/colour"),
        ({"title": "\0"}, "/title"),
    ],
)
async def test_a_type_that_cannot_work_is_refused_with_its_place(api: Api, change: Any, pointer: str) -> None:
    answer = await api.call("PUT", "/v1/types/order.paid", key="first", json={**PAID, **change})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith(pointer), answer.json()
    preview = await api.call(
        "POST", "/v1/types/order.paid/preview", key="first", json={"definition": {**PAID, **change}}
    )
    assert preview.status_code == 422
    assert preview.json()["errors"][0]["pointer"].startswith(f"/definition{pointer}"), preview.json()


async def test_a_preview_renders_stored_types_and_drafts(api: Api) -> None:
    path = "/v1/types/order.paid/preview"
    assert (await api.call("POST", path, key="first", json={})).status_code == 404
    await api.call("PUT", "/v1/users/alice", key="first", json={"name": "Alice", "locale": "ko"})
    draft = {"definition": PAID, "data": {"number": 7}}
    shown = (await api.call("POST", path, key="first", json={**draft, "user": "alice"})).json()
    assert (shown["locale"], shown["problems"]) == ("ko", [])
    assert shown["content"]["title"] == "주문 7 결제 완료"
    assert shown["content"]["body"] == "Thank you, Alice."
    await api.call("PUT", "/v1/types/order.paid", key="first", json=PAID)
    stored = (
        await api.call("POST", path, key="first", json={"data": {"number": "x"}, "locale": "en"})
    ).json()
    assert stored["content"]["title"] == "Order x is paid"
    assert any("/data/number" in problem for problem in stored["problems"])
    assert (await api.call("GET", "/v1/types/order.paid", key="first")).json()["version"] == 1


@pytest.mark.req("R11")
async def test_categories_are_defined_shown_and_forgotten(api: Api) -> None:
    path = "/v1/categories/orders"
    body = {
        "title": "Orders",
        "locales": {"ko": {"title": "주문"}},
        "defaults": {"sms": False},
    }
    await api.call("PUT", "/v1/types/order.paid", key="first", json=PAID)
    put = await api.call("PUT", path, key="first", json=body)
    assert (put.json()["version"], put.headers["etag"]) == (1, '"1"')
    await api.call("PATCH", "/v1/me", token="alice", json={"locale": "ko-KR"})
    grid = (await api.call("GET", "/v1/me/preferences", token="alice")).json()["grid"]
    [row] = [row for row in grid if row["category"] == "orders"]
    assert row["title"] == "주문"
    assert row["channels"]["sms"]["default"] is False
    await api.call("PUT", path, key="first", json={**body, "hidden": True}, headers={"If-Match": '"1"'})
    grid = (await api.call("GET", "/v1/me/preferences", token="alice")).json()["grid"]
    assert [row["category"] for row in grid] == ["messages"]
    assert (
        await api.call("PUT", path, key="first", json=body, headers={"If-Match": '"1"'})
    ).status_code == 412
    names = [
        one["name"] for one in (await api.call("GET", "/v1/categories", key="first")).json()["categories"]
    ]
    assert names == ["messages", "orders"]
    assert (await api.call("DELETE", path, key="first")).status_code == 204
    assert (await api.call("GET", path, key="first")).status_code == 404
    assert (await api.call("DELETE", "/v1/categories/messages", key="first")).status_code == 409
    wrong = await api.call("PUT", path, key="first", json={"defaults": {"fax": True}})
    assert wrong.json()["errors"][0]["pointer"].startswith("/defaults")


async def test_a_folder_is_applied_whole_or_not_at_all(api: Api) -> None:
    good = Definitions({"order.paid": PAID}, {"orders": {"title": "Orders"}})
    catalog = api.hub.definitions
    applied = await catalog.apply(good, dry_run=True)
    assert (applied.types, applied.categories) == ({"order.paid": True}, {"orders": True})
    assert "order.paid" not in (await catalog.current()).types
    await catalog.apply(good)
    again = await catalog.apply(good)
    assert (again.types, again.categories) == ({"order.paid": False}, {"orders": False})
    with pytest.raises(Refused) as refused:
        await catalog.apply(Definitions({"a": {**PAID, "title": "{{"}, "b": PAID}, {}))
    assert refused.value.errors[0].pointer == "/types/a/title"
    assert "b" not in (await catalog.current()).types
    exported = await catalog.export()
    assert exported.types["order.paid"]["title"] == PAID["title"]
    assert exported.categories == {"orders": {"title": "Orders"}}


@pytest.mark.req("R25")
async def test_a_change_by_another_process_is_seen_within_the_bound(api: Api) -> None:
    catalog = api.hub.definitions
    assert await catalog.type("order.paid") is None
    other = api.hub.people  # keeps mypy honest about the fixture
    assert other
    from hub.catalog import Catalog

    elsewhere = Catalog(api.hub.store, api.clock)
    await catalog.recent()
    await elsewhere.apply(Definitions({"order.paid": PAID}, {}))
    found = await catalog.type("order.paid")  # unknown: asked again at once
    assert found is not None
    await elsewhere.apply(Definitions({"order.paid": {**PAID, "title": "New"}}, {}))
    api.clock.advance(1.0)
    fresh = await catalog.type("order.paid")
    assert fresh is not None
    assert fresh.definition.title == "New"
