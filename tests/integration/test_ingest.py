"""Publishing by Redis means the same as by HTTP: the same refusals, order, idempotency, and nothing lost or repeated."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from hub.adapters.memory_queue import MemoryQueue
from hub.config import load_settings
from hub.model.events import decode_slice
from hub.ports import Lease
from hub.wiring import ingest_of, memory_core
from tests.support.clock import FakeClock
from tests.support.cluster import Cluster, running_cluster
from tests.support.listener import Listener, listening
from tests.support.processes import eventually

INGEST, REJECTED, PUBLISH = "clarion:ingest", "clarion:ingest:rejected", "clarion:publish"
ALICE = {"to": "alice", "title": "Hello"}


def event(**fields: Any) -> bytes:
    return json.dumps({**ALICE, **fields}).encode()


BAD: dict[str, bytes] = {
    "nothing": b"",
    "not JSON": b"{to: alice}",
    "half of it": event()[:-1],
    "not UTF-8": b'{"to": "alice", "title": "\xff\xfe"}',
    "a byte order mark": b"\xef\xbb\xbf" + event(),
    "not an object": b'["alice"]',
    "not a number": b'{"to": "alice", "data": {"n": NaN}}',
    "nested very deeply": b'{"to": "alice", "data": {"a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}}",
    "an unknown field": event(titel="Hello"),
    "a wrong type": event(title=7),
    "no audience": b'{"title": "Hello"}',
    "an empty audience": event(to=[]),
    "two kinds in one entry": event(to={"topic": "t", "everyone": True}),
    "everyone, but not": event(to={"everyone": False}),
    "an absurd id": event(to="a b/c"),
    "an endless id": event(to="a" * 129),
    "an id with a line break": event(to="alice\n"),
    "an unknown type": event(type="no.such.type"),
    "data that does not fit the type": event(type="order.paid", data={"number": "seven"}),
    "a NUL": event(title="a\x00b"),
    "a lone surrogate": b'{"to": "alice", "title": "\\ud800"}',
    "a NUL in data": event(data={"a": ["\x00"]}),
    "a date without zone": event(send_at="2099-01-01T09:00:00"),
    "no date at all": event(send_at="tomorrow"),
    "a local time that no clock shows": event(send_at={"local": "25:00"}),
    "an end before its beginning": event(expires_at="2001-01-01T00:00:00Z"),
    "an unknown time zone": event(to={"id": "alice", "timezone": "Mars/Olympus"}),
    "an unknown channel": event(channels=["pigeon"]),
    "a link that runs": event(url="javascript:alert(1)"),
    "too long a title": event(title="x" * 1001),
    "more than 64 KiB": event(data={"text": "x" * 65_536}),
    "10 MB": event(data={"text": "x" * 10_000_000}),
}


@asynccontextmanager
async def redis_of(cluster: Cluster) -> AsyncIterator[Redis]:
    async with Redis.from_url(cluster.valkey.url) as client:
        yield client


async def taken(redis: Redis) -> None:
    """Return when the public stream is empty."""
    async with asyncio.timeout(30):
        while await redis.xlen(INGEST):
            await asyncio.sleep(0.02)


async def rows_in(cluster: Cluster, count: int) -> None:
    """Return when alice's inbox has this many rows and nothing waits any more."""
    async with asyncio.timeout(20):
        while len(await cluster.inbox("alice")) < count:
            await asyncio.sleep(0.1)
    await cluster.drained()


async def define_order_paid(cluster: Cluster) -> None:
    schema = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
    await cluster.call("PUT", "/v1/categories/orders", json={"title": "Orders"})
    definition = {
        "category": "orders",
        "title": "Order {{ data.number }} is paid",
        "schema": schema,
        "channels": {"in_app": {"when": "always"}},
    }
    await cluster.call("PUT", "/v1/types/order.paid", json=definition)


@pytest.mark.slow
@pytest.mark.req("R5", "R35")
async def test_both_entrances_refuse_alike(tmp_path: Path, sqlite_url: str) -> None:
    async with running_cluster(tmp_path / "data", sqlite_url) as cluster, redis_of(cluster) as redis:
        await define_order_paid(cluster)
        by_http: dict[str, str] = {}
        entries: dict[bytes, str] = {}
        for what, body in BAD.items():
            answer = await cluster.ask(
                "POST", "/v1/events", content=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code in (400, 413, 422), (what, answer.text)
            by_http[what] = answer.json()["code"]
            entries[await redis.xadd(INGEST, {"event": body, "source": "tests"})] = what
        entries[await redis.xadd(INGEST, {"evnt": event()})] = "no event in the entry"
        entries[await redis.xadd(INGEST, {"event": event(), "source": "a b"})] = "a strange source"
        entries[await redis.xadd(INGEST, {"event": event(), "idempotency_key": ""})] = "an empty key"
        last = await redis.xadd(INGEST, {"event": event(title="fine")})
        await taken(redis)
        await cluster.drained()

        rejected = [fields for _, fields in await redis.xrange(REJECTED)]
        assert [entries[fields[b"source_id"]] for fields in rejected] == list(entries.values())
        by_redis = {entries[fields[b"source_id"]]: fields[b"code"].decode() for fields in rejected}
        assert {what: by_redis[what] for what in BAD} == by_http
        for fields in rejected:
            what = entries[fields[b"source_id"]]
            assert fields[b"event"] == BAD.get(what, b"" if "no event" in what else event())
            assert len(fields[b"detail"]) > 10
        assert last not in [fields[b"source_id"] for fields in rejected]
        assert await cluster.titles("alice") == ["fine"]

        page = await cluster.call("GET", "/v1/log", params={"state": "rejected", "limit": "100"})
        assert sorted(entry["reason"] for entry in page["entries"]) == sorted(by_redis.values())
        live = b"".join(await redis.lrange("clarion:{lane}:live:log", 0, -1))
        assert live.count(b'"rejected"') == len(by_redis)


@pytest.mark.slow
@pytest.mark.req("R5", "R15", "I2")
async def test_both_entrances_mean_the_same(tmp_path: Path, database_url: str) -> None:
    good: list[dict[str, Any]] = [
        {"to": "alice", "title": "plain"},
        {"to": {"id": "alice", "name": "Alice", "locale": "ko"}, "title": "with a profile"},
        {"to": [{"everyone": True}], "title": "to all", "actor": "bob", "data": {"a": [1, {"b": None}]}},
        {"to": ["alice", {"topic": "t"}], "title": "mixed", "url": "/a?b=c", "priority": "high"},
        {"to": ["alice"], "type": "order.paid", "data": {"number": 7}, "actions": [{"title": "Open", "url": "/o/7"}]},
        {"to": ["alice"], "title": "한글 and 🎉", "body": "two\nlines", "icon": "https://a.example/i.png"},
        {"to": "alice", "title": "too late", "send_at": "2001-01-01T00:00:00Z"},
        {"to": "alice", "title": "old", "collapse_key": "k"},
        {"to": "alice", "title": "new", "collapse_key": "k"},
    ]  # fmt: skip
    async with (
        running_cluster(tmp_path / "data", database_url) as cluster,
        redis_of(cluster) as redis,
        listening(cluster, "alice") as found,
    ):
        await define_order_paid(cluster)
        await cluster.call("PUT", "/v1/topics/t/users/alice")
        by_http: set[str] = set()
        for one in good:
            raw = json.dumps(one).encode()
            by_http.add(await cluster.publish(**one))
            for _ in range(2):
                headers = {"Idempotency-Key": raw.hex()[:255]}
                by_http.add((await cluster.call("POST", "/v1/events", content=raw, headers=headers))["id"])
        await rows_in(cluster, 2 * len(good) - 3)
        http = await cluster.inbox("alice")
        for one in good:
            raw = json.dumps(one).encode()
            await redis.xadd(INGEST, {"event": raw})
            for _ in range(2):
                await redis.xadd(INGEST, {"event": raw, "idempotency_key": raw.hex()[:255]})
        await taken(redis)
        await rows_in(cluster, 4 * len(good) - 7)
        stream = [row for row in await cluster.inbox("alice") if row["event"] not in by_http]

        assert await redis.xlen(REJECTED) == 0
        assert len(by_http) == 2 * len(good)
        assert alike(http) == alike(stream)
        assert [row["title"] for row in stream if row["title"] not in ("to all", "too late")] == [
            title
            for title in ("plain", "with a profile", "mixed", "Order 7 is paid", "한글 and 🎉")
            for _ in range(2)
        ] + ["new"]
        shown = {row["id"] for row in await cluster.inbox("alice")}
        await eventually(lambda: shown <= set(live_ids(found["alice"])))
        assert len(set(live_ids(found["alice"]))) == len(live_ids(found["alice"]))
        assert await cluster.ledger() == []


def live_ids(listener: Listener) -> list[str]:
    return [one.data["notification"]["id"] for one in listener.of_kind("notification")]


def alike(rows: list[dict[str, Any]]) -> list[str]:
    """Rows without what two events never share; order is not promised between broadcasts and the rest."""
    return sorted(
        json.dumps({name: value for name, value in row.items() if name not in ("id", "event", "created_at")})
        for row in rows
    )


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.req("R5", "R27", "I3", "I4")
async def test_a_crash_in_the_middle_repeats_and_loses_nothing(tmp_path: Path, sqlite_url: str) -> None:
    async with (
        running_cluster(tmp_path / "data", sqlite_url, generators=2) as cluster,
        redis_of(cluster) as redis,
        listening(cluster, "alice") as found,
    ):
        titles: list[str] = []

        async def publish() -> None:
            while len(titles) < 400:
                title = str(len(titles))
                await redis.xadd(INGEST, {"event": event(title=title), "source": "shop"})
                titles.append(title)
                await asyncio.sleep(0.02)

        publishing = asyncio.create_task(publish())
        for _ in range(2):
            await asyncio.sleep(0.5)
            holder = (await cluster.owners())["ingest"]
            victim = next(member for member in cluster.generators if member.pid == holder)
            await victim.kill()
            await victim.start()
            async with asyncio.timeout(20):
                while (await cluster.owners()).get("ingest", holder) == holder:
                    await asyncio.sleep(0.1)
        await publishing
        await taken(redis)
        await cluster.drained()
        rows = await cluster.inbox("alice")
        assert [row["title"] for row in rows] == titles
        assert await redis.xlen(REJECTED) == 0
        assert await cluster.ledger() == []
        report = await cluster.call("GET", f"/v1/events/{rows[0]['event']}")
        assert (report["status"], report["source"]) == ("generated", "redis:shop")
        assert sorted(row["event"] for row in rows) == [row["event"] for row in rows], (
            "ids sort like the stream"
        )
        alice = found["alice"]
        await eventually(lambda: len(alice.titles) == len(titles) or alice.gaps > 0)
        assert list(dict.fromkeys(alice.titles)) == alice.titles


@pytest.mark.slow
@pytest.mark.req("R5")
async def test_published_messages_are_heard_by_one(tmp_path: Path, sqlite_url: str) -> None:
    """Two generators, one listener: otherwise each message would be an event twice."""
    async with (
        running_cluster(tmp_path / "data", sqlite_url, generators=2) as cluster,
        redis_of(cluster) as redis,
    ):
        await cluster.wait_for_owners(*cluster.generators)
        async with asyncio.timeout(20):
            while not await redis.publish(PUBLISH, event(title="first")):
                await asyncio.sleep(0.05)
        assert await redis.publish(PUBLISH, b"nonsense") == 1
        for number in range(20):
            assert await redis.publish(PUBLISH, event(title=str(number))) == 1
        async with asyncio.timeout(20):
            while len(await cluster.titles("alice")) < 21:
                await asyncio.sleep(0.05)
        assert await cluster.titles("alice") == ["first", *map(str, range(20))]
        page = await cluster.call("GET", "/v1/log", params={"state": "rejected"})
        assert [entry["reason"] for entry in page["entries"]] == ["malformed_json"]
        assert await redis.xlen(REJECTED) == 0


@pytest.mark.req("R31")
async def test_a_full_queue_holds_the_stream_up_and_refuses_nothing(clock: FakeClock) -> None:
    settings = load_settings(
        api_key="test-key-0123456789abcdef", token_secret="0123456789abcdef0123456789abcdef", queue_limit=10
    )
    core = await memory_core(settings, clock)
    queue = core.queue
    assert isinstance(queue, MemoryQueue)
    stop = asyncio.Event()
    work = asyncio.create_task(ingest_of(core).work(Lease("ingest", "test", 1), stop))
    try:
        queue.add_ingest({b"event": b"nonsense"})
        for number in range(10):
            queue.add_ingest({b"event": event(title=str(number))})
        await eventually(lambda: len(queue.rejected) == 1)
        async with asyncio.timeout(5):
            while (await queue.waiting())["ingest"]:
                await asyncio.sleep(0.01)
        queue.add_ingest({b"event": event(title="waits")})
        queue.add_ingest({b"event": b"nonsense, told once"})
        await asyncio.sleep(1.3)  # it has tried more than once
        assert (await queue.waiting())["ingest"] == 2
        assert len(queue.rejected) == 1

        [name] = [name for name, count in (await queue.waiting()).items() if count and name != "ingest"]
        [*_, last] = await queue.read(name, None, 100, 0)
        await queue.trim(name, last.position)
        async with asyncio.timeout(5):
            while (await queue.waiting())["ingest"]:
                await asyncio.sleep(0.01)
        [moved] = await queue.read(name, last.position, 100, 0)
        assert decode_slice(moved.raw).event.title == "waits"
        assert len(queue.rejected) == 2
    finally:
        stop.set()
        await work
        await core.queue.close()
        await core.bus.close()
        await core.store.close()
