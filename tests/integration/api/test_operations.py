"""Keys, log, explanations, health, metrics, and the description of the API itself."""

import re
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route as StarletteRoute

from hub.api.problems import CODES
from hub.errors import QueueUnavailable, StoreUnavailable
from tests.support.api import CONTRACT, FIRST_KEY, Api

ON = ("memory", "servers")


@pytest.mark.req("R34")
async def test_keys_are_made_shown_once_rotated_and_revoked(api: Api) -> None:
    made = await api.call("POST", "/v1/keys", key="first", json={"name": "shop", "scopes": ["publish"]})
    assert made.status_code == 201
    key = made.json()
    listed = (await api.call("GET", "/v1/keys", key="first")).json()["keys"]
    assert [one["name"] for one in listed] == ["CLARION_API_KEY", "shop"]
    assert key["key"] not in str(listed)
    assert FIRST_KEY not in str(listed)
    assert (await api.call("POST", "/v1/events", key=key["key"], json={"to": "alice"})).status_code == 202
    assert (await api.call("GET", "/v1/keys", key=key["key"])).status_code == 403
    rotated = await api.call("POST", f"/v1/keys/{key['id']}/rotate", key="first", json={"overlap_seconds": 0})
    assert rotated.status_code == 201
    api.clock.advance(1)
    assert (await api.call("POST", "/v1/events", key=key["key"], json={"to": "alice"})).status_code == 401
    new = rotated.json()
    assert (await api.call("POST", "/v1/events", key=new["key"], json={"to": "alice"})).status_code == 202
    assert (await api.call("DELETE", f"/v1/keys/{new['id']}", key="first")).status_code == 204
    assert (await api.call("POST", "/v1/events", key=new["key"], json={"to": "alice"})).status_code == 401
    assert (await api.call("DELETE", "/v1/keys/key_first", key="first")).status_code == 409
    assert (await api.call("DELETE", "/v1/keys/key_unknown", key="first")).status_code == 404
    for wrong in (
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["root"]},
        {"name": "", "scopes": ["read"]},
        {"name": "x", "scopes": ["read"], "expires_at": "tomorrow"},
        {"name": "x", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"},
    ):
        assert (await api.call("POST", "/v1/keys", key="first", json=wrong)).status_code == 422


@pytest.mark.req("R20")
async def test_the_log_is_filtered_and_paged(api: Api) -> None:
    for user in ("alice", "bob"):
        event = (await api.call("POST", "/v1/events", key="first", json={"to": user, "title": "x"})).json()[
            "id"
        ]
    await api.settle()
    everything = (await api.call("GET", "/v1/log", key="first")).json()["entries"]
    assert {one["user"] for one in everything if "user" in one} >= {"alice", "bob"}
    assert [one["at"] for one in everything] == sorted((one["at"] for one in everything), reverse=True)
    only = (await api.call("GET", f"/v1/log?user=bob&event={event}", key="first")).json()["entries"]
    assert only
    assert {one["user"] for one in only} == {"bob"}
    found, cursor = 0, ""
    while True:
        page = (await api.call("GET", f"/v1/log?limit=1{cursor}", key="first")).json()
        found += len(page["entries"])
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == len(everything)
    assert (await api.call("GET", "/v1/log?since=2030-01-01T00:00:00Z", key="first")).json()["entries"] == []
    for wrong in ("since=yesterday", "channel=fax", "limit=0", "cursor=abc", "user=a%20b"):
        assert (await api.call("GET", f"/v1/log?{wrong}", key="first")).status_code == 422


@pytest.mark.req("R17")
async def test_an_explanation_names_the_rules(api: Api) -> None:
    await api.call(
        "PUT", "/v1/me/preferences", token="alice", json={"categories": {"messages": {"in_app": False}}}
    )
    event = (await api.call("POST", "/v1/events", key="first", json={"to": "alice", "title": "x"})).json()[
        "id"
    ]
    await api.settle()
    answer = (await api.call("GET", f"/v1/explain?user=alice&type=message&event={event}", key="first")).json()
    assert any(not rule["allows"] and rule["channel"] == "in_app" for rule in answer["rules"])
    assert answer["event"]["in_app"] is False
    assert (await api.call("GET", "/v1/explain?user=alice", key="first")).status_code == 422
    assert (await api.call("GET", "/v1/explain?user=alice&type=unknown", key="first")).status_code == 404


async def test_health_says_what_is_wrong(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await api.call("GET", "/healthz")).json()["status"] == "ok"
    ready = await api.call("GET", "/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "durability": "strong"})

    async def away(*_: Any) -> None:
        raise StoreUnavailable("the password is secret-word")

    async def queue_away(*_: Any) -> None:
        raise QueueUnavailable("redis://user:secret-word@host")

    monkeypatch.setattr(api.hub.store, "ping", away)
    monkeypatch.setattr(api.hub.queue, "waiting", queue_away)
    sick = await api.call("GET", "/readyz")
    assert sick.status_code == 503
    assert sick.json()["problems"] == [
        "The database cannot be reached.",
        "The event queue cannot be reached.",
    ]
    assert (await api.call("GET", "/healthz")).status_code == 200
    assert (await api.call("GET", "/metrics")).status_code == 200


@pytest.mark.req("R20")
async def test_metrics_count_every_stage_without_naming_anybody(api: Api) -> None:
    await api.call("POST", "/v1/events", key="first", json={"to": "alice-the-user", "title": "x"})
    await api.call("POST", "/v1/events", key="first", json={"to": "alice", "type": "unknown"})
    await api.call("GET", "/v1/users/alice-the-user", key="first")
    await api.call("GET", "/no/such/alice-the-user")
    await api.settle()
    text = (await api.call("GET", "/metrics")).text
    assert 'clarion_events_accepted_total{source="http"} 1.0' in text
    assert 'clarion_events_refused_total{code="unknown_type",source="http"} 1.0' in text
    assert 'clarion_http_requests_total{method="GET",route="/v1/users/{id}",status="404"} 1.0' in text
    assert re.search(r'clarion_notifications_generated_total\{partition="\d"\} 1\.0', text)
    assert 'clarion_queue_waiting{partition="lane"}' in text
    assert "clarion_accept_to_socket_seconds" in text
    assert "alice" not in text
    openmetrics = await api.client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert openmetrics.text.endswith("# EOF\n")


# ---------------------------------------------------------------- the description


async def test_the_description_is_valid_openapi_3_1(api: Api) -> None:
    answer = await api.call("GET", "/openapi.json")
    document = answer.json()
    assert document["openapi"].startswith("3.1")
    OpenAPIV31SpecValidator(document).validate()
    ids = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(ids) == len(set(ids))
    assert document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == sorted(CODES)


async def test_every_route_of_the_application_is_described(api: Api) -> None:
    described = {
        (method.upper(), path)
        for path, operations in CONTRACT.document["paths"].items()
        for method in operations
    }
    served = set()
    for route in api.app.routes:
        assert isinstance(route, StarletteRoute)
        endpoint: Any = route.endpoint
        served |= {(one.method, one.path) for one in endpoint._routes.values()}
    by_hand = {
        ("GET", "/v1/me/stream"),
        ("POST", "/v1/me/presence"),
        ("GET", "/connection/websocket"),
    }
    assert served == described - by_hand


async def test_every_code_that_is_raised_is_in_the_closed_list() -> None:
    from pathlib import Path

    import hub

    pattern = re.compile(r"Refused\(\s*(\d{3}),\s*\"([a-z_]+)\"")
    raised = {
        (path.name, code)
        for path in Path(hub.__file__).parent.rglob("*.py")
        for _, code in pattern.findall(path.read_text(encoding="utf-8"))
    }
    assert len(raised) > 30
    assert not {one for one in raised if one[1] not in CODES}


async def test_the_page_about_the_api_asks_nobody_else(api: Api) -> None:
    page = await api.call("GET", "/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert "<script" not in page.text
    assert not re.search(r"""(?:src|href|action|url)\s*[=(]\s*["']?(?:https?:)?//""", page.text)
    for code in CODES:
        assert f'id="problem-{code}"' in page.text
