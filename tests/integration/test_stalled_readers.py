"""Readers that stall beside a crowd that reads: bounded memory for each of them, and nothing changes for the others.

The node is the real one, on a memory bus; every client is a socket. What is kept for a client is read from its
connection, not from the process: its transport's buffer and its queue.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from hub.adapters.memory_bus import MemoryBus
from hub.clock import SystemClock
from hub.live.connection import Connection
from hub.live.edge import Edge
from hub.live.fanout import PORTION_BYTES
from hub.live.limits import Limits
from hub.live.node import LiveNode
from hub.live.seam import Identity
from hub.model.notifications import Content
from hub.ports import Store
from tests.support.echo_server import waiting_bytes
from tests.support.live_node import FakeNode, make_token
from tests.support.live_server import live_server
from tests.support.live_wires import (
    LiveStore,
    broadcast_publication,
    make_broadcast,
    make_user,
    personal_publication,
)
from tests.support.raw_client import RawStream, RawWebSocket

pytestmark = pytest.mark.req("I14")

CROWD = 60
STALLED = 3  # 5 %
BODY = "x" * 8_000
FRAME_BYTES = 8_500
LIMITS = Limits(queue_bytes=150_000, write_buffer_bytes=32_768, linger_seconds=60)
# The transport asks for a pause above its limit, so one piece of output, which is no larger, may lie above it.
TRANSPORT_BYTES = 2 * (LIMITS.write_buffer_bytes + FRAME_BYTES)
BOUND_BYTES = LIMITS.queue_bytes + TRANSPORT_BYTES
Client = RawWebSocket | RawStream


@dataclass
class House:
    edge: Edge
    bus: MemoryBus
    port: int
    number: int = 0

    async def publish(self, count: int = 1) -> None:
        """Broadcasts that are in flight together, to everyone."""
        first, self.number = self.number + 1, self.number + count
        contents = {"": Content(title=BODY)}
        broadcasts = [make_broadcast(number, contents=contents) for number in range(first, self.number + 1)]
        await self.bus.publish([broadcast_publication(broadcast) for broadcast in broadcasts])

    def of(self, user_id: str) -> Connection:
        (found,) = [one for one in self.edge._connections.values() if one.identity.user_id == user_id]
        return found


@asynccontextmanager
async def house(limits: Limits = LIMITS) -> AsyncIterator[House]:
    store, clock = LiveStore(), SystemClock()
    names = [f"u{n}" for n in range(CROWD)] + [f"stalled{n}" for n in range(STALLED)]
    store.users = {name: make_user(name) for name in names}
    bus = MemoryBus(clock)
    node = LiveNode(cast("Store", store), bus, clock, methods={"unread_count": no_counts})
    await node.start()
    try:
        async with live_server(limits, node=cast("FakeNode", node)) as server:
            yield House(server.edge, bus, server.port)
            for connection in list(server.edge._connections.values()):
                connection.drop()  # the drain would wait for who does not read
    finally:
        await node.close()
        await bus.close()


async def no_counts(_identity: Identity, _data: Any) -> bytes:
    return b'{"unread":0,"unseen":0}'


async def by_websocket(house: House, user_id: str) -> RawWebSocket:
    client = await RawWebSocket.connect(house.port)
    await client.login(make_token(user_id))
    return client


async def by_stream(house: House, user_id: str) -> RawStream:
    stream = await RawStream.open(house.port, Authorization=f"Bearer {make_token(user_id)}")
    assert (await stream.event())[0] == "ready"
    return stream


async def next_seq(client: Client) -> int:
    """The number of the next broadcast."""
    if isinstance(client, RawStream):
        kind, data, _ = await client.event()
        assert kind == "notification"
    else:
        data = (await client.reply())["push"]["pub"]["data"]
    return int(data["notification"]["id"].removeprefix("ntf_"))


def stop_reading(house: House, client: Client, user_id: str) -> Connection:
    """The client reads no more, and the kernel takes little for it."""
    client.writer.transport.pause_reading()
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection = house.of(user_id)
    assert connection._transport is not None
    connection._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    return connection


def wake(client: Client) -> None:
    client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
    client.writer.transport.resume_reading()


Opener = Callable[[House, str], Awaitable[Any]]
KINDS = pytest.mark.parametrize("opened", [by_websocket, by_stream], ids=["websocket", "sse"])


async def gather(opened: Opener, at: House) -> tuple[list[Client], list[Client], list[Connection]]:
    crowd = [await opened(at, f"u{n}") for n in range(CROWD)]
    stalled = [await opened(at, f"stalled{n}") for n in range(STALLED)]
    held = [stop_reading(at, client, f"stalled{n}") for n, client in enumerate(stalled)]
    return crowd, stalled, held


@KINDS
async def test_one_after_the_other(opened: Opener) -> None:
    """Nobody waits: each broadcast is read by the whole crowd before the next one is published."""
    async with house() as at:
        crowd, stalled, held = await gather(opened, at)
        most = 0
        while not all(one.is_closing() for one in held):
            await at.publish()
            assert [await next_seq(client) for client in crowd] == [at.number] * CROWD
            most = max(most, *map(waiting_bytes, held))
            assert at.number < 150, "more than a megabyte went to each, far more than the limits hold"
        assert LIMITS.queue_bytes / 2 < most <= BOUND_BYTES
        assert all(waiting_bytes(one) <= TRANSPORT_BYTES for one in held)
        assert len(at.edge) == CROWD, "who stalls takes no place any more"
        await check_ends(stalled, held, at)
        await at.publish()
        assert [await next_seq(client) for client in crowd] == [at.number] * CROWD


async def check_ends(stalled: Sequence[Client], held: Sequence[Connection], at: House) -> None:
    """Who wakes up reads what was begun, and why it is over; who does not is cut off."""
    if isinstance(stalled[0], RawStream):
        assert all(one._transport is None or one._transport.is_closing() for one in held)
        return
    awake, *asleep = cast("Sequence[RawWebSocket]", stalled)
    wake(awake)
    assert await awake.closed() == (3008, "slow")
    for connection in held[1:]:
        connection.on_time(at.edge.wheel.now())
    for client in asleep:
        wake(client)
        assert await client.closed() == (1006, "")


@KINDS
async def test_many_in_flight(opened: Opener) -> None:
    """Bursts that fit the queue reach everyone who reads; who does not costs no more than before."""
    limits = replace(LIMITS, queue_bytes=1_000_000)
    async with house(limits) as at:
        crowd, _, held = await gather(opened, at)
        most = 0
        for burst in range(3):
            reading = [asyncio.create_task(read_many(client, 60)) for client in crowd]
            await at.publish(60)
            while not all(one.done() for one in reading):
                most = max(most, *map(waiting_bytes, held))
                await asyncio.sleep(0)
            expected = list(range(60 * burst + 1, 60 * burst + 61))
            assert [one.result() for one in reading] == [expected] * CROWD
        assert all(one.is_closing() for one in held)
        assert most <= limits.queue_bytes + TRANSPORT_BYTES + PORTION_BYTES


async def read_many(client: Client, count: int) -> list[int]:
    return [await next_seq(client) for _ in range(count)]


async def test_personal_messages_pass_while_others_stall() -> None:
    async with house() as at:
        crowd, _, held = await gather(by_websocket, at)
        while not all(one.is_closing() for one in held):
            await at.bus.publish(
                [personal_publication(f"stalled{n}", BODY) for n in range(STALLED)]
                + [personal_publication(f"u{n}", str(n)) for n in range(CROWD)]
            )
            for number, client in enumerate(cast("list[RawWebSocket]", crowd)):
                assert (await client.reply())["push"]["pub"]["data"] == {"n": str(number)}
            assert all(waiting_bytes(one) <= BOUND_BYTES for one in held)
