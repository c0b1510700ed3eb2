"""Slow readers: 5 % of the clients never read. The others' latency, the node's memory, and that the slow ones end.

Each round runs the same broadcasts without slow clients and with them. Messages are long, so that what waits for a slow
client passes its bound within the run.
"""

import re
from contextlib import AsyncExitStack
from functools import partial

import httpx2

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.load import ALL, Load
from benchmarks.servers import clarion

SHARE = 0.05
BYTES = (
    24_000  # the kernel takes over 2 MB for a client that does not read, before the node has to keep anything
)
RATE = 20

_CONNECTIONS = re.compile(r'^clarion_connections\{transport="websocket"\} (\S+)', re.MULTILINE)


async def run(bench: Bench) -> None:
    """Both kinds of rounds, interleaved."""
    (size,) = bench.sizes(1_000, quick=200)
    async with AsyncExitStack() as stack:
        hub = await clarion.running(stack, size)
        for number in range(bench.rounds):
            bench.say(f"slow: {size} clients, round {number + 1}")
            for name, share in (("all read", 0.0), ("5 % never read", SHARE)):
                async with Load(hub.websocket(), hub.publishers(8), size, slow_share=share) as load:
                    await _one(bench, hub, load, name, int(size * share))
                    await load.command("cut")


async def _one(bench: Bench, hub: clarion.Deployment, load: Load, name: str, slow: int) -> None:
    await load.connect()
    await load.command("wait", seconds=0.5)
    before = machine.memory_bytes([hub.node])
    count = 200
    publish = partial(load.publish, count=count, rate=RATE, size=BYTES, body=clarion.BODY_LONG)
    answer = await publish(audience=ALL, limit=count / RATE + 60)
    grown = machine.memory_bytes([hub.node]) - before
    await load.command("wait", seconds=3)
    left = await _connections(hub)
    bench.results.add(
        "slow",
        f"{load.connections} clients",
        name,
        p50_ms=answer["p50_ms"],
        p99_ms=answer["p99_ms"],
        max_ms=answer["max_ms"],
        node_growth_mb=grown / 2**20,
        slow_clients=slow,
        ended_by_the_node=load.connections - left,
    )


async def _connections(hub: clarion.Deployment) -> int:
    """How many clients the node still holds, by its own metrics: who does not read cannot see its end."""
    async with httpx2.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{hub.port}/metrics")).text
    found = _CONNECTIONS.search(text)
    return round(float(found[1])) if found else 0
