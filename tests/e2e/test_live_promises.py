"""Live delivery by a whole hub, nodes and generator as processes: the public SDKs, unmodified, and EventSource."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.centrifuge_sdks import SDKS, STORIES, Cable, Hub, Make, Sdk
from tests.support.cluster import Cluster, running_cluster
from tests.support.listener import Listener, listening
from tests.support.processes import eventually

MORE_THAN_HISTORY_HOLDS = 120


@pytest.fixture(params=SDKS)
def make(request: pytest.FixtureRequest) -> Make:
    make = SDKS[request.param]
    return partial(make, node=request.getfixturevalue("node")) if request.param == "javascript" else make


def websocket_of(cluster: Cluster, node: int = 0) -> str:
    return cluster.nodes[node].url.replace("http:", "ws:") + "/connection/websocket"


def hub_of(cluster: Cluster, user: str) -> Hub:
    async def publish(to: str, title: str) -> None:
        await cluster.publish(to=to, title=title)

    async def forget() -> None:
        events = [{"to": user, "title": f"more {number}"} for number in range(MORE_THAN_HISTORY_HOLDS)]
        await cluster.publish_many(events)
        await cluster.drained()

    return Hub(websocket_of(cluster), cluster.token, publish, forget)


async def call(client: Sdk, method: str, data: Any = None) -> Any:
    """The answer of an RPC; what was published meanwhile stays to be read."""
    await client.order("rpc", method=method, data=data)
    kept = []
    async with asyncio.timeout(10):
        while (found := await client.events.get())["event"] not in ("rpc", "rpc_failed"):
            kept.append(found)
    for one in kept:
        client.events.put_nowait(one)
    assert found["event"] == "rpc", found
    return found["data"]


@pytest.mark.slow
@pytest.mark.req("R1", "I5", "R34")
async def test_the_stories_of_an_sdk_hold_on_a_real_hub(tmp_path: Path, sqlite_url: str, make: Make) -> None:
    async with running_cluster(tmp_path / "data", sqlite_url) as cluster:
        for story in STORIES:
            print(story.__name__)
            await story(hub_of(cluster, story.__name__), make, story.__name__)


@pytest.mark.slow
@pytest.mark.req("R1", "R3", "R11", "R12", "I4")
async def test_an_sdk_lists_marks_and_chooses(tmp_path: Path, sqlite_url: str, make: Make) -> None:
    async with (
        running_cluster(tmp_path / "data", sqlite_url, nodes=2) as cluster,
        listening(cluster, "alice", node=1) as found,
        make(websocket_of(cluster, 0), cluster.token("alice")) as client,
    ):
        other: Listener = found["alice"]
        await cluster.call("PUT", "/v1/topics/t/users/alice")
        await client.order("connect")
        for _ in range(2):
            await client.until("subscribed")

        # One of each kind, published at the other node: live it is what the inbox lists.
        await cluster.publish(node=1, to="alice", title="to you", data={"n": 1}, actor="bob")
        await cluster.publish(node=1, to={"everyone": True}, title="to all")
        await cluster.publish(node=1, to={"topic": "t"}, title="to the topic")
        live = [await client.until("publication") for _ in range(3)]
        shown = {one["data"]["notification"]["title"]: one for one in live}
        assert {title: one["channel"] for title, one in shown.items()} == {
            "to you": "#alice",
            "to all": "broadcasts",
            "to the topic": "broadcasts",
        }
        page = await call(client, "notifications.list", {"limit": 10})
        listed = {row["title"]: row for row in page["notifications"]}
        marks = {"seen_at": None, "read_at": None, "archived_at": None}
        assert {title: {**one["data"]["notification"], **marks} for title, one in shown.items()} == listed
        assert (page["unread"], page["unseen"], page["next"]) == (3, 3, None)

        # A mark of one device reaches the other, at the other node.
        ids = [listed["to you"]["id"], listed["to all"]["id"]]
        marked = await call(client, "notifications.mark", {"mark": "read", "ids": ids})
        assert (sorted(marked["ids"]), marked["unread"], marked["unseen"]) == (sorted(ids), 1, 1)
        await eventually(lambda: len(other.of_kind("mark")) == 1)
        told = other.of_kind("mark")[0].data
        assert (told["mark"], sorted(told["ids"]), told["unread"]) == ("read", sorted(ids), 1)
        assert (await call(client, "unread_count"))["unread"] == 1
        unread = await call(client, "notifications.list", {"unread": True})
        assert [row["title"] for row in unread["notifications"]] == ["to the topic"]

        # Preferences hold for the very next event, live too, on every node.
        wishes = await call(client, "preferences.patch", {"muted": {"topics": ["t"], "actors": ["bob"]}})
        assert wishes["muted"] == {"actors": ["bob"], "topics": ["t"]}
        assert (await call(client, "preferences.get"))["muted"] == wishes["muted"]
        await cluster.publish(node=1, to={"topic": "t"}, title="not wanted")
        await cluster.publish(node=1, to="alice", title="not wanted", actor="bob")
        await cluster.publish(node=1, to={"everyone": True}, title="wanted by all")
        await cluster.publish(node=1, to="alice", title="wanted")
        titles = set()
        while len(titles) < 2:
            one = await client.until("publication")
            if one["data"]["kind"] == "notification":
                titles.add(one["data"]["notification"]["title"])
        assert titles == {"wanted by all", "wanted"}
        await eventually(lambda: set(other.titles[3:]) == titles, what=str(other.titles))
        # Addressed rows keep what was decided when they came; broadcasts follow today's wishes.
        assert sorted(await cluster.titles("alice")) == ["to all", "to you", "wanted", "wanted by all"]


@pytest.mark.slow
@pytest.mark.req("R3", "I4", "I5")
async def test_another_node_gives_what_was_missed(tmp_path: Path, sqlite_url: str, make: Make) -> None:
    """Its node dies; the client comes back to the other one, with its position, and has everything once."""
    async with running_cluster(tmp_path / "data", sqlite_url, nodes=2) as cluster:
        first, second = cluster.nodes
        assert first.port
        assert second.port
        relay = Cable("127.0.0.1", first.port)
        await relay.plug()
        url = f"ws://127.0.0.1:{relay.port}/connection/websocket"
        try:
            async with make(url, cluster.token("alice")) as client:
                await client.order("connect")
                for _ in range(2):
                    await client.until("subscribed")
                await cluster.publish(to="alice", title="before")
                assert await client.title() == "before"

                await relay.cut()
                await first.kill()
                for number in range(3):
                    await cluster.publish(node=1, to="alice", title=f"missed {number}")
                    await cluster.publish(node=1, to={"everyone": True}, title=f"all {number}")
                await cluster.drained()
                relay._target = ("127.0.0.1", second.port)
                await relay.plug()
                subscribed = [await client.until("subscribed", 15) for _ in range(2)]
                assert all(one["was_recovering"] and one["recovered"] for one in subscribed)
                await cluster.publish(node=1, to="alice", title="after")
                personal: list[str] = []
                broadcasts: list[str] = []
                came = [one for one in client.seen if one["event"] == "publication"][1:]
                while len(personal) + len(broadcasts) < 7:
                    one = came.pop(0) if came else await client.until("publication")
                    title = one["data"]["notification"]["title"]
                    (personal if one["channel"] == "#alice" else broadcasts).append(title)
                assert personal == ["missed 0", "missed 1", "missed 2", "after"]
                assert broadcasts == ["all 0", "all 1", "all 2"]
        finally:
            await relay.cut()


@pytest.mark.slow
@pytest.mark.req("R34", "I16")
async def test_a_revoked_token_ends_connections_on_every_node(tmp_path: Path, sqlite_url: str) -> None:
    async with (
        running_cluster(tmp_path / "data", sqlite_url, nodes=2) as cluster,
        listening(cluster, "bob") as found,
    ):
        old = cluster.as_user("alice")
        begun = [asyncio.Event(), asyncio.Event()]
        streams = [asyncio.create_task(listen_to_the_end(cluster, node, old, begun[node])) for node in (0, 1)]
        for heard in begun:
            await asyncio.wait_for(heard.wait(), 10)
        await cluster.call("POST", "/v1/users/alice/revoke-tokens")
        ends = await asyncio.wait_for(asyncio.gather(*streams), 5)
        assert all("event: ready" in text for text in ends), ends
        for node in (0, 1):
            answer = await cluster.ask("GET", "/v1/me/notifications", node, headers=old)
            assert answer.status_code == 401
        await asyncio.sleep(1.1)  # tokens have whole seconds
        assert (await cluster.ask("GET", "/v1/me/notifications", headers=cluster.as_user("alice"))).is_success
        assert found["bob"].connects == 1


async def listen_to_the_end(
    cluster: Cluster, node: int, headers: dict[str, str], begun: asyncio.Event
) -> str:
    """Everything that a stream says until the server ends it."""
    url = cluster.nodes[node].url + "/v1/me/stream"
    text = ""
    try:
        async with cluster.client.stream("GET", url, headers=headers, timeout=20) as response:
            assert response.status_code == 200
            async for part in response.aiter_text():
                text += part
                begun.set()
    except httpx2.RemoteProtocolError:
        pass
    return text
