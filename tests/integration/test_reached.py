"""What waits for a user to be reached, from a real bus through a node and its sockets back into the store."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hub.adapters.redis_bus import RedisBus
from hub.adapters.sql_store import SqlStore, memory_store
from hub.clock import SystemClock
from hub.live.limits import Limits
from hub.live.node import LiveNode
from hub.live.seam import Identity
from hub.model.notifications import Notification
from hub.model.planning import OFFLINE_GRACE_SECONDS
from hub.model.vocabulary import Channel
from tests.support.live_node import make_token
from tests.support.live_server import LiveServer, live_server
from tests.support.live_wires import personal_publication
from tests.support.raw_client import RawStream, RawWebSocket
from tests.support.stores import Partition

pytestmark = pytest.mark.req("R2")

LIMITS = Limits(ping_seconds=600)  # the node's own pings do not come in time


class Hall:
    """A node with its server, and what is published to its users."""

    def __init__(self, server: LiveServer, store: SqlStore, bus: RedisBus, partition: Partition) -> None:
        self.server = server
        self.store = store
        self.bus = bus
        self.partition = partition

    async def publish(self, event_id: str, *user_ids: str) -> list[Notification]:
        """One notification each, whose push waits for its user to be reached."""
        rows = await self.partition.publish(event_id, user_ids, channels=[Channel.WEB_PUSH])
        await self.bus.publish(
            [personal_publication(r.user_id, r.id, f"kind=notification;reach={r.id}") for r in rows]
        )
        return rows

    async def states(self, event_id: str) -> dict[str, str]:
        found = await self.store.event_deliveries(event_id, None, None, 9)
        return {one.user_id: one.state for one in found}

    async def until_reached(self, event_id: str, *user_ids: str) -> None:
        async with asyncio.timeout(OFFLINE_GRACE_SECONDS):
            while True:
                states = await self.states(event_id)
                if all(states[user_id] == "cancelled" for user_id in user_ids):
                    return
                await asyncio.sleep(0.02)


async def count(identity: Identity, data: object) -> bytes:
    return b'{"unread":0,"unseen":0}'


@asynccontextmanager
async def hall_on(url: str, prefix: str) -> AsyncIterator[Hall]:
    store = await memory_store()
    bus = RedisBus(url, prefix, partitions=4)
    node = LiveNode(store, bus, SystemClock(), limits=LIMITS, methods={"unread_count": count})
    await node.start()
    try:
        async with live_server(LIMITS, node=node) as server:
            yield Hall(server, store, bus, await Partition.take(store))
    finally:
        await node.close()
        await bus.close()
        await store.close()


async def logged_in(hall: Hall, user_id: str) -> RawWebSocket:
    client = await RawWebSocket.connect(hall.server.port)
    await client.login(make_token(user_id))
    return client


async def read(client: RawWebSocket, row: Notification) -> None:
    """Read a notification as a client does: the ping behind it is answered."""
    assert (await client.reply())["push"]["pub"]["data"] == {"n": row.id}
    assert await client.reply() == {}
    client.say("{}")


async def test_who_reads_is_reached_in_time_and_a_hidden_page_is_not(
    redis_url: str, redis_prefix: str
) -> None:
    async with hall_on(redis_url, redis_prefix) as hall:
        visible, hidden = await logged_in(hall, "alice"), await logged_in(hall, "bob")
        stream = await RawStream.open(
            hall.server.port, "/v1/me/stream", Authorization=f"Bearer {make_token('carol')}"
        )
        assert (await stream.event())[0] == "ready"
        call = {"method": "presence.set", "data": {"visible": False}}
        assert "rpc" in await hidden.call(rpc=call)

        [of_bob, of_alice, of_carol] = await hall.publish("evt_1", "bob", "alice", "carol")
        await read(visible, of_alice)
        assert (await stream.event())[1] == {"n": of_carol.id}
        assert (await hidden.reply())["push"]["pub"]["data"] == {"n": of_bob.id}
        await hall.until_reached("evt_1", "alice", "carol")
        assert await hall.states("evt_1") == {"alice": "cancelled", "bob": "held", "carol": "cancelled"}

        assert "rpc" in await hidden.call(rpc={**call, "data": {"visible": True}})
        [next_of_bob] = await hall.publish("evt_2", "bob")
        await read(hidden, next_of_bob)
        await hall.until_reached("evt_2", "bob")
        assert (await hall.states("evt_1"))["bob"] == "held", "what came while it was hidden was not reached"
        assert await hall.store.ledger() == []


async def test_one_of_several_pages_is_enough(redis_url: str, redis_prefix: str) -> None:
    async with hall_on(redis_url, redis_prefix) as hall:
        silent, reading = await logged_in(hall, "alice"), await logged_in(hall, "alice")
        [row] = await hall.publish("evt_1", "alice")
        assert "push" in await silent.reply()  # and never answers
        await read(reading, row)
        await hall.until_reached("evt_1", "alice")
