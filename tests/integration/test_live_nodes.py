"""Hub nodes on a real Valkey and a real store: two nodes, links that break, a replica that lags and is promoted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis

from hub.adapters.embedded_valkey import EmbeddedValkey, socket_path
from hub.adapters.redis_bus import RedisBus
from hub.adapters.redis_health import look_at_redis
from hub.adapters.sql_store import SqlStore, memory_store
from hub.clock import SystemClock
from hub.live.generation import SETTING, Generation, Sight
from hub.live.node import LiveNode
from hub.live.seam import StreamPosition
from hub.model.users import Preferences
from hub.model.vocabulary import BROADCASTS
from tests.support.live_wires import (
    FakeWire,
    broadcast_publication,
    connect,
    make_broadcast,
    personal_publication,
)
from tests.support.proxy import Proxy

ALICE = "#alice"


@pytest.fixture
async def store() -> AsyncIterator[SqlStore]:
    store = await memory_store()
    yield store
    await store.close()


@asynccontextmanager
async def node_on(url: str, prefix: str, store: SqlStore) -> AsyncIterator[tuple[LiveNode, RedisBus]]:
    """A node with a bus of its own, which knows its generation."""

    async def look() -> Sight:
        found = (await look_at_redis(url)).replication
        return Sight(found.run_id, found.replid, found.previous_replid != "", is_weak=False)

    bus = RedisBus(url, prefix, partitions=4)
    node = LiveNode(store, bus, SystemClock(), generation=Generation(store, bus, look))
    try:
        await node.start()
        yield node, bus
    finally:
        await node.close()
        await bus.close()


@pytest.mark.req("R3")
@pytest.mark.req("R22")
@pytest.mark.req("I4")
async def test_users_on_either_node_get_everything_in_order(
    redis_url: str, redis_prefix: str, store: SqlStore
) -> None:
    async with (
        node_on(redis_url, redis_prefix, store) as (first, bus),
        node_on(redis_url, redis_prefix, store) as (second, other_bus),
    ):
        wires = [FakeWire("alice"), FakeWire("alice"), FakeWire("bob")]
        for wire, node in zip(wires, (first, second, second), strict=True):
            await connect(node, wire)
        for number in range(1, 101):
            publisher = bus if number % 2 else other_bus
            await publisher.publish(
                [personal_publication("alice", str(number)), broadcast_publication(make_broadcast(number))]
            )
        for wire in wires:
            await wire.until(lambda wire=wire: len(wire.offsets(BROADCASTS)) == 100)
            assert wire.offsets(BROADCASTS) == list(range(1, 101))
        for wire in wires[:2]:
            await wire.until(lambda wire=wire: len(wire.offsets(ALICE)) == 100)
            assert wire.payloads(ALICE) == [b'{"n":"%d"}' % number for number in range(1, 101)]
        assert wires[2].offsets(ALICE) == []


@pytest.mark.req("I4")
@pytest.mark.req("I5")
async def test_reconnects_between_nodes_while_publishing_lose_nothing(
    redis_url: str, redis_prefix: str, store: SqlStore
) -> None:
    async with (
        node_on(redis_url, redis_prefix, store) as (first, bus),
        node_on(redis_url, redis_prefix, store) as (second, _),
    ):
        got: list[int] = []
        position: dict[str, StreamPosition] = {}

        async def publish() -> None:
            for number in range(400):
                await bus.publish([personal_publication("alice", str(number))])

        publishing = asyncio.create_task(publish())
        turn = 0
        while not publishing.done() or turn < 2 or len(got) < 400:
            node = (first, second)[turn % 2]
            turn += 1
            wire = FakeWire("alice")
            joined, _ = await connect(node, wire, position)
            assert joined.recovered or not position
            # Some live ones, unless all is said.
            count = 3 if not publishing.done() else 0
            await wire.until(lambda wire=wire, count=count: len(wire.got) >= count or publishing.done())
            got += (
                [frame.offset for frame in joined.missed] if position else list(range(1, joined.offset + 1))
            )
            got += wire.offsets(ALICE)
            node.leave(wire)
            position = {ALICE: StreamPosition(joined.epoch, got[-1] if got else 0)}
            assert turn < 1_000
        await publishing
        assert got == list(range(1, 401))


async def test_a_change_of_preferences_holds_for_the_next_broadcast(
    redis_url: str, redis_prefix: str, store: SqlStore
) -> None:
    async with node_on(redis_url, redis_prefix, store) as (node, bus):
        wire = FakeWire("alice")
        await connect(node, wire)
        heard: list[int] = []
        for number, allowed in ((1, True), (3, False), (5, True)):
            await store.save_preferences("alice", Preferences(categories={"posts": allowed}), None)
            await bus.send_control(msgspec.json.encode({"kind": "user", "id": "alice"}))
            await bus.publish([broadcast_publication(make_broadcast(number))])
            # One that she may always see ends the round: the row is read when it is needed, not when it changed.
            await bus.publish([broadcast_publication(make_broadcast(number + 1, category="news"))])
            heard += [number, number + 1] if allowed else [number + 1]
            count = len(heard)
            await wire.until(lambda count=count: len(wire.got) >= count)
            assert wire.offsets(BROADCASTS) == heard


async def test_topics_of_the_store_decide(redis_url: str, redis_prefix: str, store: SqlStore) -> None:
    await store.change_topic("news", ["alice"], [])
    async with node_on(redis_url, redis_prefix, store) as (node, bus):
        wires = [FakeWire("alice"), FakeWire("bob")]
        for wire in wires:
            await connect(node, wire)
        await bus.publish(
            [broadcast_publication(make_broadcast(1, "news")), broadcast_publication(make_broadcast(2))]
        )
        for wire in wires:
            await wire.until(lambda wire=wire: 2 in wire.offsets(BROADCASTS))
        assert [wire.offsets(BROADCASTS) for wire in wires] == [[1, 2], [2]]


@pytest.mark.req("I6")
async def test_a_cut_link_is_repaired_without_a_further_message(
    own_valkey: EmbeddedValkey, tmp_path: Path, store: SqlStore
) -> None:
    path = str(socket_path(tmp_path / "own-valkey"))
    async with (
        Proxy(path=path) as proxy,
        node_on(proxy.url, "cut", store) as (node, _),
        node_on(own_valkey.url, "cut", store) as (_, publisher),
    ):
        wire = FakeWire("alice")
        await connect(node, wire)
        proxy.refuse()
        await publisher.publish(
            [personal_publication("alice", "last"), broadcast_publication(make_broadcast(1))]
        )
        proxy.admit()
        await wire.until(lambda: len(wire.got) == 2, timeout_seconds=5)
        proxy.freeze()
        await publisher.publish([personal_publication("alice", "frozen")])
        await asyncio.sleep(2.5)  # longer than the silence that counts as a loss
        proxy.thaw()
        await wire.until(lambda: len(wire.got) == 3, timeout_seconds=5)
        assert wire.offsets(ALICE) == [1, 2]
        assert wire.gaps == []


@pytest.mark.req("I5")
async def test_a_promoted_replica_that_lags_is_told_never_silence(
    own_valkey: EmbeddedValkey, tmp_path: Path, store: SqlStore
) -> None:
    primary_path = str(socket_path(tmp_path / "own-valkey"))
    replica_path = str(socket_path(tmp_path / "replica"))
    async with AsyncExitStack() as stack:
        replica = EmbeddedValkey(tmp_path / "replica")
        await replica.start()
        stack.push_async_callback(replica.stop)
        replication = await stack.enter_async_context(Proxy(path=primary_path))
        front = await stack.enter_async_context(Proxy(path=primary_path))
        redis = await stack.enter_async_context(Redis.from_url(replica.url))
        await redis.execute_command("REPLICAOF", "127.0.0.1", replication.port)
        node, bus = await stack.enter_async_context(node_on(front.url, "promoted", store))
        wire, bystander = FakeWire("alice"), FakeWire("bob")
        await connect(node, wire)
        await connect(node, bystander)
        await bus.publish([personal_publication("alice", text) for text in "123"])
        await bus.publish([broadcast_publication(make_broadcast(1))])
        await wire.until(lambda: len(wire.got) == 4)
        async with asyncio.timeout(10):
            while [key async for key in redis.scan_iter("promoted:*top*")] == [] or (
                (await redis.info("replication"))["master_link_status"] != "up"
            ):
                await asyncio.sleep(0.05)
            async with Redis.from_url(own_valkey.url) as primary:
                await primary.execute_command("WAIT", 1, 5_000)
        replication.freeze()  # from here on the replica lags
        await bus.publish([personal_publication("alice", text) for text in "45"])
        await wire.until(lambda: len(wire.got) == 6)
        old = StreamPosition(wire.got[-1][1], 5)

        await redis.execute_command("REPLICAOF", "NO", "ONE")
        front._path = replica_path
        front.cut()
        await wire.until(lambda: ALICE in wire.gaps and BROADCASTS in wire.gaps, timeout_seconds=10)
        await bystander.until(lambda: sorted(bystander.gaps) == ["#bob", BROADCASTS])
        assert bus.generation == "2"
        assert (await store.setting(SETTING, "")).startswith("2 ")

        # The replica gives offsets 4 and 5 again; who was at 5 must not take them for what it has.
        await bus.publish([personal_publication("alice", text) for text in "67"])
        await wire.until(lambda: len(wire.got) == 8)
        assert wire.payloads()[-2:] == [b'{"n":"6"}', b'{"n":"7"}']
        joined, _ = await connect(node, FakeWire("alice"), {ALICE: old})
        assert (joined.was_recovering, joined.recovered) == (True, False)
        assert joined.epoch.startswith("2.")


async def test_a_wiped_redis_is_told(own_valkey: EmbeddedValkey, store: SqlStore) -> None:
    async with node_on(own_valkey.url, "wiped", store) as (node, bus):
        wire = FakeWire("alice")
        await connect(node, wire)
        await bus.publish([personal_publication("alice", text) for text in "123"])
        await wire.until(lambda: len(wire.got) == 3)
        async with Redis.from_url(own_valkey.url) as redis:
            await redis.flushall()
        await bus.publish([personal_publication("alice", "4")])
        await wire.until(lambda: ALICE in wire.gaps)
        await bus.publish([personal_publication("alice", "5")])
        await wire.until(lambda: len(wire.got) == 4)
        assert wire.payloads()[-1] == b'{"n":"5"}'
