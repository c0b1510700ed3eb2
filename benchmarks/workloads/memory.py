"""Memory: what an idle connection costs the server, also after an hour's worth of pings, and what a user costs Redis.

Each figure is the growth of a fresh server's resident memory over many connections, divided by their number. The
product's rows hold the user, its two channels and their offsets; the kernel's socket buffers are in nobody's.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.load import Load
from benchmarks.servers import clarion, nchan
from benchmarks.servers.candidate import Candidate, floor, folder, plain
from benchmarks.servers.pinging_node import PING_SECONDS

WARM_UP = 100  # connections that come and go before the count, so that one-time costs are not theirs
STREAMS = 4_000  # a stream begins with the user's counts, so many of them take their time
IDLE, PINGED, REDIS = (
    "idle connection",
    "idle connection, pinged",
    "Redis, connected user with one notification",
)

_Start = Callable[[AsyncExitStack, int], Awaitable[Candidate | None]]


async def run(bench: Bench) -> None:
    """Idle connections of all candidates, pinged ones of the node, and Redis."""
    (size,) = bench.sizes(machine.most_connections(), quick=500)
    for number in range(bench.rounds):
        bench.say(f"memory: {size} idle connections, round {number + 1}")
        for start in (_node, _plain, _floor, _nchan):
            await _idle(bench, size, "WebSocket", start)
            await _idle(bench, min(size, STREAMS), "SSE", start)
    await _pinged(bench)
    await _redis(bench)


async def _node(stack: AsyncExitStack, users: int) -> Candidate:
    hub = await clarion.deployment(stack, users)
    await hub.start_node()
    return hub.node_alone()


async def _plain(stack: AsyncExitStack, users: int) -> Candidate:
    tokens = clarion.write_tokens(folder(stack) / "tokens", users)
    return await plain(stack, {"CLARION_TOKEN_SECRET": clarion.SECRET}, tokens)


async def _floor(stack: AsyncExitStack, users: int) -> Candidate:  # noqa: ARG001 - like the others
    return await floor(stack)


async def _nchan(stack: AsyncExitStack, users: int) -> Candidate | None:  # noqa: ARG001 - like the others
    return await nchan.nchan(stack)


async def _idle(bench: Bench, size: int, transport: str, start: _Start) -> None:
    case = f"{IDLE}, {transport}"
    async with AsyncExitStack() as stack:
        candidate = await start(stack, size + WARM_UP)
        if candidate is None:
            bench.results.lacks("memory", case, nchan.NAME, "not installed")
            return
        clients = candidate.sse if transport == "SSE" else candidate.websocket
        async with Load(clients, candidate.publishers, WARM_UP) as warm:
            await warm.connect(first=size)
            await warm.command("cut")
        await asyncio.sleep(0.5)
        (pids,) = candidate.views.values()
        before = machine.memory_bytes(pids)
        load = await stack.enter_async_context(Load(clients, candidate.publishers, size))
        await load.connect(limit=300)
        await load.command("wait", seconds=1)
        grown = (machine.memory_bytes(pids) - before) / size
        bench.results.add("memory", case, candidate.name, kilobytes=grown / 1024)


async def _pinged(bench: Bench) -> None:
    """The real parts in a node whose pings come 60 times as often; the product has no setting for that."""
    (size,) = bench.sizes(5_000, quick=300)
    seconds = bench.much(60, 5)
    bench.say(f"memory: {size} connections pinged for {seconds} seconds")
    async with AsyncExitStack() as stack:
        hub = await clarion.deployment(stack, size + WARM_UP)
        await hub.start_node("benchmarks.servers.pinging_node")
        async with Load(hub.websocket(), hub.publishers(1), WARM_UP) as warm:
            await warm.connect(first=size)
            await warm.command("cut")
        await asyncio.sleep(0.5)
        before = machine.memory_bytes([hub.node])
        load = await stack.enter_async_context(Load(hub.websocket(), hub.publishers(1), size))
        await load.connect(limit=300)
        await load.command("wait", seconds=1)
        at_first = machine.memory_bytes([hub.node])
        answer = await load.command("wait", seconds=seconds)
        after = machine.memory_bytes([hub.node])
        bench.results.add("memory", PINGED, "before the pings", kilobytes=(at_first - before) / size / 1024)
        bench.results.add("memory", PINGED, "after them", kilobytes=(after - before) / size / 1024)
        each = answer["pings"] / size
        bench.results.note(
            "memory",
            PINGED,
            f"{size} connections got {each:.0f} pings each within {seconds} s, one every {PING_SECONDS:.2f} s, from a node "
            f"that differs from the product's in that interval alone; an hour at 25 s has 144. One round.",
        )


async def _redis(bench: Bench) -> None:
    (size,) = bench.sizes(5_000, quick=500)
    async with AsyncExitStack() as stack:
        hub = await clarion.running(stack, size * bench.rounds)
        load = await stack.enter_async_context(Load(hub.websocket(), hub.publishers(1), size))
        for number in range(bench.rounds):
            bench.say(f"memory: Redis with {size} users, round {number + 1}")
            first = number * size
            before = await hub.redis_bytes()
            await load.connect(first=first, limit=300)
            await hub.publish_to_each(first, size)
            after = await hub.redis_bytes()
            bench.results.add("memory", REDIS, clarion.NAME, kilobytes=(after - before) / size / 1024)
            await load.command("cut")
            await load.command("wait", seconds=4)
