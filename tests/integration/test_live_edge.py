"""Live connections over the real server: connect, get publications, be counted, leave."""

import pytest

from tests.support.live_node import make_token
from tests.support.live_server import live_server
from tests.support.raw_client import RawStream, RawWebSocket


@pytest.mark.req("R1")
async def test_a_websocket_gets_its_personal_publications_and_broadcasts():
    async with live_server() as hub:
        client = await RawWebSocket.connect(hub.port)
        result = await client.login(make_token("alice"))
        assert set(result["subs"]) == {"#alice", "broadcasts"}
        assert result["client"]
        assert result["ping"] == 25
        assert result["pong"] is True
        assert result["expires"] is True
        assert 3590 <= result["ttl"] <= 3600
        hub.node.publish("#alice", {"n": 1})
        hub.node.publish("#bob", {"n": 2})
        hub.node.publish("broadcasts", {"n": 3})
        first, second = await client.reply(), await client.reply()
        assert first == {"push": {"channel": "#alice", "pub": {"data": {"n": 1}, "offset": 1}}}
        assert second == {"push": {"channel": "broadcasts", "pub": {"data": {"n": 3}, "offset": 1}}}
        client.abort()
        await hub.node.until(lambda: not hub.node.wires)
        assert len(hub.edge) == 0


@pytest.mark.req("R1")
async def test_an_event_stream_gets_its_personal_publications_and_broadcasts():
    async with live_server() as hub:
        stream = await RawStream.open(hub.port, Authorization=f"Bearer {make_token('alice')}")
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        kind, data, cursor = await stream.event()
        assert kind == "ready"
        assert data["connection"] in {wire.connection_id for wire in hub.node.wires}
        assert (data["unread"], data["unseen"]) == (2, 3)
        assert cursor
        hub.node.publish("#alice", {"kind": "notification", "n": 1})
        hub.node.publish("broadcasts", {"kind": "notification", "n": 2})
        one, two = await stream.event(), await stream.event()
        assert one[:2] == ("notification", {"kind": "notification", "n": 1})
        assert two[:2] == ("notification", {"kind": "notification", "n": 2})
        assert len({cursor, one[2], two[2]}) == 3
        stream.abort()
        await hub.node.until(lambda: not hub.node.wires)
        assert len(hub.edge) == 0
