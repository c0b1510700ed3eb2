"""A herd comes back: 10,000 clients are cut off, each misses one message, all return at once with their positions.

Counted is the time from the first connect to the moment when the last client has what it missed. A client that was told
to refetch instead would never get it, and the run would fail.
"""

from contextlib import AsyncExitStack

from benchmarks.bench import Bench, measured
from benchmarks.load import Answer, Load, LoadFailed
from benchmarks.servers import clarion

CASE = "all at once"


async def run(bench: Bench) -> None:
    """Personal messages: each client's own history has the one that it missed."""
    (size,) = bench.sizes(10_000, quick=300)
    async with AsyncExitStack() as stack:
        hub = await clarion.running(stack, size)
        candidate = hub.candidate()
        load = await stack.enter_async_context(Load(hub.websocket(), candidate.publishers, size))
        for number in range(bench.rounds):
            bench.say(f"reconnect: {size} clients, round {number + 1}")
            await load.connect(limit=120)
            await load.command("cut")
            await hub.publish_to_each(0, size)

            async def return_at_once() -> Answer:
                return await load.connect(**{"return": 1, "catch_up": 1, "at_once": size, "limit": 120})

            phase = await measured(candidate, return_at_once)
            if phase.answer["delivered"] != size or phase.answer["without"]:
                raise LoadFailed(f"{phase.answer['without']} of {size} clients did not get what they missed")
            for view, seconds in phase.cpu.items():
                bench.results.add(
                    "reconnect", CASE, view, seconds=phase.answer["seconds"], cpu_us=seconds * 1e6 / size
                )
            await load.command("cut")
            await load.command("wait", seconds=1)
