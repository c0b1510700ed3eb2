"""Too much, or a part is away: a clear answer, never a false 202, and everything goes on by itself afterwards."""

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.cluster import Cluster, running_cluster
from tests.support.listener import listening
from tests.support.postgres import PostgresServer
from tests.support.processes import eventually
from tests.support.proxy import Proxy

ALIVE_SECONDS = 30.0


async def problem(response: httpx2.Response) -> dict[str, Any]:
    """A refusal that a program understands."""
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == response.status_code
    return found


async def not_ready(cluster: Cluster, *words: str) -> None:
    """The node lives and says what it lacks."""
    began = time.monotonic()
    assert (await cluster.ask("GET", "/healthz")).status_code == 200
    assert time.monotonic() - began < ALIVE_SECONDS
    answer = await cluster.ask("GET", "/readyz")
    assert answer.status_code == 503
    problems = " ".join(answer.json()["problems"])
    assert all(word in problems for word in words), problems


async def ready_again(cluster: Cluster) -> None:
    async with asyncio.timeout(20):
        while (await cluster.ask("GET", "/readyz")).status_code != 200:
            await asyncio.sleep(0.1)


@pytest.mark.slow
@pytest.mark.req("R31", "I12")
async def test_beyond_the_queue_limit_publishing_is_refused_until_there_is_room(
    tmp_path: Path, sqlite_url: str
) -> None:
    limit = 40
    async with running_cluster(
        tmp_path / "data", sqlite_url, asleep=True, queue_limit=str(limit), partitions="2"
    ) as cluster:
        accepted: list[str] = []
        async with asyncio.timeout(20):
            while True:
                title = str(len(accepted))
                response = await cluster.ask("POST", "/v1/events", json={"to": "alice", "title": title})
                if response.status_code != 202:
                    break
                accepted.append(title)
                await asyncio.sleep(0.03)  # the limit is looked at once a second
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert (await problem(response))["code"] == "queue_full"
        assert len(accepted) >= limit
        for path in ("/healthz", "/readyz"):
            assert (await cluster.ask("GET", path)).status_code == 200
        assert await cluster.inbox("alice") == []  # reading goes on

        await cluster.generators[0].start()
        await asyncio.wait_for(cluster.publish_surely("late", {"to": "alice", "title": "late"}), 20)
        await cluster.drained()
        assert await cluster.titles("alice") == [*accepted, "late"]


@pytest.mark.slow
@pytest.mark.req("R31", "I1", "I12")
async def test_with_redis_away_nothing_is_accepted_and_everything_goes_on_when_it_is_back(
    tmp_path: Path, sqlite_url: str
) -> None:
    async with (
        running_cluster(tmp_path / "data", sqlite_url) as cluster,
        listening(cluster, "alice") as found,
    ):
        alice = found["alice"]
        await cluster.publish(to="alice", title="before")
        await eventually(lambda: alice.titles == ["before"])

        await cluster.valkey.kill()
        headers = {"Idempotency-Key": "while away"}
        event = {"to": "alice", "title": "while away"}
        for _ in range(3):
            response = await cluster.ask("POST", "/v1/events", json=event, headers=headers)
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
            assert (await problem(response))["code"] == "queue_unavailable"
        batch = await cluster.ask("POST", "/v1/events/batch", json=[event])
        assert batch.status_code == 503
        await not_ready(cluster, "event queue", "live bus")
        assert await cluster.titles("alice") == ["before"]  # what SQL has can be read
        refused = await cluster.ask("GET", "/v1/me/stream", headers=cluster.as_user("bob"))
        assert refused.status_code == 503

        await cluster.valkey.start()
        await ready_again(cluster)
        assert (await cluster.ask("POST", "/v1/events", json=event, headers=headers)).status_code == 202
        await eventually(lambda: alice.titles == ["before", "while away"])
        assert alice.connects == 1
        assert alice.gaps == 0
        assert await cluster.titles("alice") == ["before", "while away"]


@pytest.mark.slow
@pytest.mark.req("R31", "I12")
async def test_with_the_database_away_events_wait_and_are_worked_off_when_it_is_back(
    tmp_path: Path, postgres_server: PostgresServer, postgres_url: str
) -> None:
    path = str(postgres_server.folder / ".s.PGSQL.5432")
    async with Proxy(path=path) as proxy:
        name = postgres_url.split("?", maxsplit=1)[0].rsplit("/", 1)[1]
        url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}"
        async with running_cluster(tmp_path / "data", url) as cluster, listening(cluster, "alice") as found:
            alice = found["alice"]
            await cluster.publish(to="alice", title="before")
            await eventually(lambda: alice.titles == ["before"])

            proxy.refuse()
            # The queue is the truth until the generator commits, so publishing goes on.
            told = [f"while away {number}" for number in range(20)]
            for title in told:
                await cluster.publish(to="alice", title=title)
            await not_ready(cluster, "database")
            inbox = await cluster.ask("GET", "/v1/me/notifications", headers=cluster.as_user("alice"))
            assert inbox.status_code == 503
            assert (await problem(inbox))["code"] == "store_unavailable"
            await asyncio.sleep(8.0)  # longer than leases hold

            proxy.admit()
            await ready_again(cluster)
            await eventually(lambda: alice.titles == ["before", *told], 20, str(alice.titles))
            await cluster.drained()
            assert await cluster.titles("alice") == ["before", *told]
            assert (alice.connects, alice.gaps) == (1, 0)
            assert await cluster.ledger() == []
