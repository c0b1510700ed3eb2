"""Broadcasts by e-mail, and dead letters, over the real API: from publishing to what operators see and try again."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, insert, update

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import attempts, deliveries, payloads
from hub.model.vocabulary import Channel
from tests.support.api import Api, open_api
from tests.support.clock import FakeClock
from workers.expansion import Expansions
from workers.scheduler import Scheduler

pytestmark = [pytest.mark.req("R2"), pytest.mark.req("R8"), pytest.mark.req("R20")]
ON = ("memory", "servers")

MAIL = Channel.EMAIL
TYPE = {"category": "news", "title": "News", "channels": {"in_app": {}, "email": {"when": "always"}}}


@pytest.fixture
async def api(servers: dict[str, Any], tmp_path: Path, clock: FakeClock) -> AsyncIterator[Api]:
    """A node with a mail server that nobody asks anything."""
    more = {"email_providers": SecretStr("smtp://127.0.0.1:1"), "email_from": "hub@example.com"}
    async with open_api(tmp_path, clock, **servers, **more) as one:
        await one.call("PUT", "/v1/types/news", key="first", json=TYPE)
        yield one


def store_of(api: Api) -> SqlStore:
    assert isinstance(api.core.store, SqlStore)
    return api.core.store


async def users(api: Api, *ids: str, **fields: Any) -> None:
    for id_ in ids:
        profile = {"email": f"{id_}@example.com", **fields}
        await api.call("PUT", f"/v1/users/{id_}", key="first", json=profile)


async def publish(api: Api, **event: Any) -> str:
    answer = await api.call("POST", "/v1/events", key="first", json={"type": "news", **event})
    await api.settle()
    return str(answer.json()["id"])


async def expand(api: Api) -> None:
    worker = Expansions(
        api.core.store,
        api.core.definitions,
        api.clock,
        available=frozenset({MAIL}),
        default_timezone="UTC",
        page_users=2,
    )
    while await worker.round():
        pass


async def get(api: Api, path: str) -> Any:
    return (await api.call("GET", path, key="first")).json()


async def post(api: Api, body: Any, key: str = "first") -> Any:
    return await api.call("POST", "/v1/dead-letters/replay", key=key, json=body)


async def kill(api: Api, event_id: str, state: str = "dead", **more: Any) -> list[str]:
    """End an event's deliveries as a sender would, one attempt each; returns their ids."""
    rows = await api.core.store.event_deliveries(event_id, None, None, 99)
    values = {"state": state, "reason": "exhausted", "provider": "smtp-1", "attempts": 1, **more}

    async def work(connection: Any) -> None:
        await connection.execute(update(deliveries).where(deliveries.c.event_id == event_id).values(values))
        await connection.execute(delete(payloads).where(payloads.c.event_id == event_id))
        for slice_key in {row.slice_key for row in rows}:
            await connection.execute(
                insert(payloads).values(event_id=event_id, slice_key=slice_key, raw=b"-")
            )
        for row in rows:
            await connection.execute(
                insert(attempts).values(
                    user_id=row.user_id, delivery_id=row.id, number=1, provider="smtp-1", event_id=event_id,
                    channel="email", outcome="retry", code="451", detail="4.7.1 later",
                    started_at_us=api.clock.now_us(), duration_us=12_500, is_repeat=False,
                )
            )  # fmt: skip

    await store_of(api)._db.write(work)
    return [row.id for row in rows]


# ---------------------------------------------------------------- broadcasts


@pytest.mark.req("R19", "R24")
async def test_a_broadcast_by_mail_shows_how_far_it_is(api: Api) -> None:
    await users(api, "a", "b", "c", "d")
    await users(api, "silent", email=None)
    await api.call("PUT", "/v1/users/b/preferences", key="first", json={"channels": {"email": False}})
    event = await publish(api, to={"everyone": True})
    status = await get(api, f"/v1/events/{event}")
    [waiting] = status["expansions"]
    assert (waiting["state"], waiting["channel"], waiting["looked_at"]) == ("waiting", "email", 0)
    assert status["deliveries"] == 0
    assert "audience" not in waiting

    await expand(api)
    status = await get(api, f"/v1/events/{event}")
    [done] = status["expansions"]
    assert (done["state"], done["audience"], done["deliveries"]) == ("done", 5, 3)
    assert done["counts"] == {"channel": 1, "no_address": 1}
    assert status["deliveries"] == 3
    page = await get(api, f"/v1/events/{event}/deliveries?limit=2")
    assert page["expansions"] == [done]
    rest = await get(api, f"/v1/events/{event}/deliveries?limit=2&cursor={page['next']}")
    assert "expansions" not in rest
    listed = [*page["deliveries"], *rest["deliveries"]]
    assert sorted(row["user"] for row in listed) == ["a", "c", "d"]
    assert {row["state"] for row in listed} == {"queued"}
    [line] = (await get(api, f"/v1/log?event={event}&state=expanded"))["entries"]
    assert line["channel"] == "email"
    assert await api.core.store.ledger() == []


async def test_a_retracted_broadcast_goes_to_nobody_more(api: Api) -> None:
    await users(api, "a", "b", "c")
    event = await publish(api, to={"everyone": True})
    await api.call("DELETE", f"/v1/events/{event}", key="first")
    [stopping] = (await get(api, f"/v1/events/{event}"))["expansions"]
    assert (stopping["state"], stopping["stopped"]) == ("stopping", "retracted")
    await expand(api)
    [done] = (await get(api, f"/v1/events/{event}"))["expansions"]
    assert (done["state"], done["deliveries"], done["counts"]) == ("done", 0, {"retracted": 3})
    assert await api.core.store.ledger() == []


# ---------------------------------------------------------------- dead deliveries


async def test_dead_deliveries_are_listed_with_their_attempts_and_tried_again(api: Api) -> None:
    await users(api, "a", "b")
    event = await publish(api, to=["a", "b"])
    ids = await kill(api, event)
    page = await get(api, "/v1/dead-letters?limit=1")
    following = await get(api, f"/v1/dead-letters?limit=1&cursor={page['next']}")
    assert following["next"] is None
    letters = [*page["dead_letters"], *following["dead_letters"]]
    assert sorted(one["id"] for one in letters) == sorted(ids)
    one = letters[0]
    assert (one["kind"], one["event"], one["state"], one["reason"]) == (
        "delivery",
        event,
        "dead",
        "exhausted",
    )
    assert (one["type"], one["category"], one["channel"], one["provider"]) == (
        "news",
        "news",
        "email",
        "smtp-1",
    )
    [attempt] = one["attempts"]
    assert (attempt["code"], attempt["detail"], attempt["duration_ms"]) == ("451", "4.7.1 later", 12.5)
    for query, count in (
        ("channel=email", 2),
        ("channel=sms", 0),
        ("provider=smtp-1&reason=exhausted", 2),
        ("reason=expired", 0),
        ("since=2030-01-01T00:00:00Z", 0),
        ("kind=event", 0),
    ):
        assert len((await get(api, f"/v1/dead-letters?{query}"))["dead_letters"]) == count, query

    answer = (await post(api, {"ids": [ids[0], "dlv_unknown"]})).json()
    assert answer["replayed"] == 1
    assert answer["refused"] == {"not_dead": 1}
    assert answer["refusals"] == [
        {"id": "dlv_unknown", "reason": "not_dead", "detail": "There is nothing dead with this id."}
    ]
    shown = await get(api, f"/v1/events/{event}/deliveries?state=queued")
    [again] = shown["deliveries"]
    assert (again["id"], again["reason"], len(again["attempts"])) == (ids[0], None, 1)
    assert (await post(api, {"filter": {"channel": "email"}})).json()["replayed"] == 1
    assert (await get(api, "/v1/dead-letters"))["dead_letters"] == []
    states = [line["state"] for line in (await get(api, f"/v1/log?event={event}&user=a"))["entries"]]
    assert states == ["replayed", "generated"]
    assert await api.core.store.ledger() == []


async def test_what_may_have_arrived_needs_to_be_asked_for(api: Api) -> None:
    await users(api, "a")
    [id_] = await kill(api, await publish(api, to="a"), "unknown")
    refused = (await post(api, {"ids": [id_]})).json()
    assert refused["refused"] == {"unknown": 1}
    assert "twice" in refused["refusals"][0]["detail"]
    assert (await post(api, {"filter": {}})).json() == {"replayed": 0, "refused": {}, "refusals": []}
    assert (await post(api, {"filter": {}, "unknown": True})).json()["replayed"] == 1


async def test_more_than_one_portion_is_worked_off_up_to_the_limit(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.dead_letters.PORTION", 2)
    names = [f"u{number}" for number in range(7)]
    await users(api, *names)
    ids = await kill(api, await publish(api, to=names))
    assert (await post(api, {"filter": {}, "limit": 3})).json()["replayed"] == 3
    left = [one["id"] for one in (await get(api, "/v1/dead-letters"))["dead_letters"]]
    assert len(left) == 4
    answer = (await post(api, {"ids": [*ids, *ids]})).json()
    assert (answer["replayed"], answer["refused"]) == (4, {"not_dead": 3})


async def test_without_its_payload_it_stays_dead_with_a_reason(api: Api) -> None:
    await users(api, "a")
    event = await publish(api, to="a")
    [id_] = await kill(api, event)

    async def drop(connection: Any) -> None:
        await connection.execute(delete(payloads))

    await store_of(api)._db.write(drop)
    answer = (await post(api, {"filter": {"channel": "email"}})).json()
    assert answer["refused"] == {"payload_gone": 1}
    assert answer["refusals"][0]["detail"] == "The event that it is made of is not kept any more."
    assert (await get(api, "/v1/dead-letters"))["dead_letters"][0]["id"] == id_


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/ids"),
        ({"ids": ["dlv_1"], "filter": {}}, "/ids"),
        ({"ids": []}, "/ids"),
        ({"ids": ["dlv_1"] * 1001}, "/ids"),
        ({"filter": {"since": "yesterday"}}, "/since"),
        ({"filter": {"channel": "pigeon"}}, "/filter/channel"),
        ({"filter": {"kind": "user"}}, "/filter/kind"),
        ({"filter": {}, "limit": 0}, "/limit"),
        ({"filter": {}, "more": 1}, "/more"),
        ({"ids": ["\0"]}, "/ids/0"),
    ],
)
async def test_a_wrong_replay_gets_a_sentence_and_changes_nothing(api: Api, body: Any, pointer: str) -> None:
    answer = await post(api, body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "query", ["cursor=x", "cursor=YQ", "limit=0", "kind=x", "channel=x", "since=x", "kind=event&cursor=MQph"]
)
async def test_a_wrong_list_gets_a_sentence(api: Api, query: str) -> None:
    assert (await api.call("GET", f"/v1/dead-letters?{query}", key="first")).status_code == 422


@pytest.mark.req("R34")
async def test_reading_and_replaying_need_different_scopes(api: Api) -> None:
    reader, admin = await api.key("read"), await api.key("admin")
    assert (await api.call("GET", "/v1/dead-letters", key=reader)).status_code == 200
    assert (await post(api, {"filter": {}}, reader)).status_code == 403
    assert (await post(api, {"filter": {}}, admin)).status_code == 200
    assert (await api.call("GET", "/v1/dead-letters", token="alice")).status_code == 401


# ---------------------------------------------------------------- rejected events


@pytest.mark.req("I3")
@pytest.mark.parametrize("to", [["a", "b"], {"everyone": True}])
async def test_an_event_that_could_not_be_planned_is_planned_after_all(
    api: Api, monkeypatch: pytest.MonkeyPatch, to: Any
) -> None:
    await users(api, "a", "b")
    with monkeypatch.context() as broken:

        def fail(*_: Any) -> Any:
            raise RuntimeError("a mistake of planning")

        broken.setattr("hub.batches.plan", fail)
        broken.setattr("hub.batches.plan_broadcast", fail)
        event = await publish(api, to=to, title="At last")
    assert (await get(api, f"/v1/events/{event}"))["status"] == "rejected"
    letters = (await get(api, "/v1/dead-letters?kind=event"))["dead_letters"]
    assert {one["id"] for one in letters} == {event}
    assert letters[0]["detail"].startswith("Planning failed three times")

    answer = (await post(api, {"filter": {"kind": "event"}})).json()
    assert answer["replayed"] == len(letters)
    scheduler = Scheduler(api.core.store, api.core.queue, api.clock, partitions=2, retention_days=9)
    while await scheduler.release_due():
        pass
    await api.settle()
    assert (await get(api, f"/v1/events/{event}"))["status"] == "generated"
    for user in ("a", "b"):
        inbox = (await api.call("GET", "/v1/me/notifications", token=user)).json()
        assert [row["title"] for row in inbox["notifications"]] == ["At last"]
    assert (await get(api, "/v1/dead-letters?kind=event"))["dead_letters"] == []
    again = (await post(api, {"ids": [event]})).json()
    assert again["refused"] == {"not_dead": 1}
    assert await api.core.store.ledger() == []
