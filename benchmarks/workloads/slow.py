"""Slow readers: 5 % of the clients never read. The others' latency, the node's memory, and that the slow ones end.

Each round runs the same broadcasts without slow clients and with them. Messages are long, so that what waits for a slow
client passes its bound within the run.
"""

from contextlib import AsyncExitStack
from functools import partial

from benchmarks import machine
from benchmarks.bench import Bench, measured
from benchmarks.load import ALL, Load
from benchmarks.servers import clarion

SHARE = 0.05
BYTES = 12_000
RATE = 20


async def run(bench: Bench) -> None:
    """Both kinds of rounds, interleaved."""
    (size,) = bench.sizes(1_000, quick=200)
    count = bench.much(240, 200)
    async with AsyncExitStack() as stack:
        hub = await clarion.running(stack, size)
        candidate = hub.candidate()
        for number in range(bench.rounds):
            bench.say(f"slow: {size} clients, round {number + 1}")
            for name, share in (("all read", 0.0), ("5 % never read", SHARE)):
                async with Load(hub.websocket(), candidate.publishers, size, slow_share=share) as load:
                    await load.connect()
                    await load.command("wait", seconds=0.5)
                    before = machine.memory_bytes([hub.node])
                    options = {"count": count, "rate": RATE, "size": BYTES, "body": clarion.BODY_LONG}
                    phase = await measured(candidate, partial(load.publish, audience=ALL, **options))
                    ended = await load.command("wait", seconds=3)
                    answer = phase.answer
                    grown = machine.memory_bytes([hub.node]) - before
                    slow = int(size * share)
                    closed = answer["slow_closed"] + ended["slow_closed"]
                    bench.results.add(
                        "slow readers",
                        f"{size} clients",
                        name,
                        p50_ms=answer["p50_ms"],
                        p99_ms=answer["p99_ms"],
                        max_ms=answer["max_ms"],
                        node_growth_mb=grown / 2**20,
                        slow_clients=slow,
                        slow_closed=closed,
                    )
                    await load.command("cut")
