"""Targeted: one message to one of 10,000 connected users at a time, from the publish to the user's socket.

Three fsyncs stand in the way: the append to the queue, the commit in the store, the append to the user's history.
At 1,000 a second the latency counts, at saturation the rate; over HTTP one by one, in batches, and by XADD.
"""

from contextlib import AsyncExitStack
from functools import partial

from benchmarks.bench import Bench, measured
from benchmarks.load import ONE, Load
from benchmarks.servers import clarion
from benchmarks.servers.candidate import Candidate

RATE = 1_000
WINDOW = 1_000  # undelivered messages at saturation
PUBLISHERS = 64
WAYS = {
    "HTTP": {},
    "HTTP in batches of 50": {"batch": 50},
    # The one connection to Valkey does not wait for each XADD's fsync, as many publishers together do not.
    "Redis ingest": {"stream": 1, "window": WINDOW},
}


async def run(bench: Bench) -> None:
    """WebSocket in all ways, then SSE over HTTP."""
    (size,) = bench.sizes(10_000, quick=300)
    async with AsyncExitStack() as stack:
        hub = await clarion.running(stack, size)
        candidate = hub.candidate(PUBLISHERS)
        sockets = await _connected(bench, stack, candidate, size, is_sse=False)
        for number in range(bench.rounds):
            bench.say(f"targeted: {size} users, round {number + 1}")
            for way, options in WAYS.items():
                await _one(bench, candidate, sockets, way, number, options)
        await sockets.command("cut")
        streams = await _connected(bench, stack, candidate, size, is_sse=True)
        for number in range(bench.rounds):
            await _steady(bench, candidate, streams, "HTTP, over SSE", number, {})


async def _connected(
    bench: Bench, stack: AsyncExitStack, candidate: Candidate, size: int, *, is_sse: bool
) -> Load:
    clients = candidate.sse if is_sse else candidate.websocket
    load = await stack.enter_async_context(Load(clients, candidate.publishers, size))
    bench.say(f"targeted: connecting {size} users{' over SSE' if is_sse else ''}")
    await load.connect(limit=300)
    await load.command("wait", seconds=0.5)
    return load


async def _one(
    bench: Bench, candidate: Candidate, load: Load, way: str, seed: int, options: dict[str, int]
) -> None:
    await _steady(bench, candidate, load, way, seed, options)
    count = bench.much(15_000, 1_000)
    await _phase(
        bench, candidate, load, f"{way}, saturated", seed, options | {"count": count, "window": WINDOW}
    )


async def _steady(
    bench: Bench, candidate: Candidate, load: Load, way: str, seed: int, options: dict[str, int]
) -> None:
    count = bench.much(5_000, 1_000)
    await _phase(
        bench, candidate, load, f"{way}, {RATE} a second", seed, options | {"count": count, "rate": RATE}
    )


async def _phase(
    bench: Bench, candidate: Candidate, load: Load, case: str, seed: int, options: dict[str, int]
) -> None:
    fixed = {"body": clarion.BODY_USER, "size": 200, "audience": ONE, "limit": 120, "seed": seed + 1}
    phase = await measured(candidate, partial(load.publish, **fixed, **options))
    answer = phase.answer
    for view, seconds in phase.cpu.items():
        bench.results.add(
            "targeted",
            case,
            view,
            cpu_us=seconds * 1e6 / answer["delivered"],
            deliveries_per_s=answer["delivered"] / answer["seconds"],
            p50_ms=answer["p50_ms"],
            p99_ms=answer["p99_ms"],
            max_ms=answer["max_ms"],
        )
