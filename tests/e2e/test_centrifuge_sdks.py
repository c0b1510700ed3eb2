"""The public Centrifuge SDKs, unmodified, against the edge: every story with each of them."""

from functools import partial

import pytest

from hub.live.limits import Limits
from tests.support.centrifuge_sdks import SDKS, STORIES, Hub, Make
from tests.support.live_node import make_token
from tests.support.live_server import LiveServer, live_server


def hub_of(server: LiveServer) -> Hub:
    async def publish(user: str, title: str) -> None:
        server.node.publish(f"#{user}", {"kind": "notification", "notification": {"title": title}})

    async def forget() -> None:
        for stream in server.node.streams.values():
            stream.trim()

    return Hub(server.websocket, make_token, publish, forget)


@pytest.fixture(params=SDKS)
def make(request: pytest.FixtureRequest) -> Make:
    make = SDKS[request.param]
    return partial(make, node=request.getfixturevalue("node")) if request.param == "javascript" else make


@pytest.mark.req("R1")
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
async def test_sdk(make, story):
    async with live_server() as server:
        await story(hub_of(server), make, "alice")


@pytest.mark.req("I15")
async def test_sdk_comes_back_by_itself_after_a_shutdown(make):
    async with live_server() as first, make(first.websocket, make_token("alice")) as client:
        await client.order("connect")
        await client.until("connected")
        await first.edge.drain()
        told = await client.until("connecting", code=3001)
        assert told["reason"] == "shutdown"


@pytest.mark.req("I16")
async def test_sdk_of_an_operator_listens_to_the_log(make):
    async with live_server() as server, make(server.websocket, make_token("root", operator=True)) as client:
        await client.order("connect")
        await client.until("connected")
        await client.order("subscribe", channel="log")
        await client.until("client_subscribed")
        server.node.publish("log", {"kind": "log", "entries": []})
        assert (await client.until("client_publication"))["data"] == {"kind": "log", "entries": []}


@pytest.mark.req("R2")
async def test_sdk_proves_by_itself_that_a_notification_was_read(make):
    """The ping behind it comes outside of the announced rhythm; SDKs answer it as any other, and stay."""
    limits = Limits(ping_seconds=600, proof_seconds=0.1)
    async with live_server(limits) as server, make(server.websocket, make_token("alice")) as client:
        await client.order("connect")
        await client.until("connected")
        for number in range(1, 6):
            server.node.publish(
                "#alice", {"kind": "notification", "notification": {"title": f"{number}"}}, report_id="ntf_1"
            )
            assert await client.title() == f"{number}"
            await server.node.until(lambda number=number: len(server.node.alive) == number)
        assert not [one for one in client.seen if one["event"] in ("connecting", "disconnected")][1:]
