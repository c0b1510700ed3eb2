"""Handshakes: how many a second, and the CPU of one, token check included. Every client is a user not seen before.

The product answers when both channels of the user are joined with their positions; the plain application checks the
same token and greets. The floor and nginx check nobody; they are there for orientation.
"""

from contextlib import AsyncExitStack
from functools import partial

from benchmarks.bench import Bench, measured
from benchmarks.load import Load
from benchmarks.servers import clarion, nchan
from benchmarks.servers.candidate import Candidate, floor, plain


async def run(bench: Bench) -> None:
    """WebSocket and SSE, all candidates."""
    (size,) = bench.sizes(3_000, quick=300)
    async with AsyncExitStack() as stack:
        sizes = {
            "WebSocket": size,
            "SSE": max(1, size // 3),
        }  # a stream's costs more: it begins with the counts
        hub = await clarion.running(stack, sum(sizes.values()) * (bench.rounds + 1))
        found = await nchan.nchan(stack)
        candidates = [hub.candidate(), await floor(stack), await plain(stack, hub.environment, hub.tokens)]
        candidates += [found] if found else []
        first = 0
        for case, many in sizes.items():
            if found is None:
                bench.results.lacks("handshakes", case, nchan.NAME, "not installed")
            loads = [(one, await _load(stack, one, many, case)) for one in candidates]
            for number in range(bench.rounds + 1):
                bench.say(f"handshakes: {case}, {f'round {number}' if number else 'warming up'}")
                for candidate, load in loads:
                    await _one(bench, candidate, load, case, first, counts=number > 0)
                first += many


async def _load(stack: AsyncExitStack, candidate: Candidate, size: int, case: str) -> Load:
    clients = candidate.sse if case == "SSE" else candidate.websocket
    return await stack.enter_async_context(Load(clients, candidate.publishers, size))


async def _one(
    bench: Bench, candidate: Candidate, load: Load, case: str, first: int, *, counts: bool
) -> None:
    phase = await measured(candidate, partial(load.connect, limit=120, first=first))
    await load.command("cut")
    await load.command("wait", seconds=0.3)
    if not counts:
        return
    rate = load.connections / phase.answer["seconds"]
    for view, seconds in phase.cpu.items():
        cpu_us = seconds * 1e6 / load.connections
        bench.results.add("handshakes", case, view, cpu_us=cpu_us, per_second=rate)
