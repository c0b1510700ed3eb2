"""Several nodes behind one port: what a second node on the second core brings, and what it costs.

Two deployments side by side, one with a node on the server's core, one with a further node on the other core, which it
must share with the load. So the CPU per delivery says whether sharing the port costs anything (it should be the same),
and the rate how much of a second core gets through; the rate of two cores for the nodes alone cannot be seen here.
"""

import re
import sys
from contextlib import AsyncExitStack
from functools import partial

import httpx2

from benchmarks import machine
from benchmarks.bench import Bench, measured
from benchmarks.load import ALL, Load
from benchmarks.servers import clarion
from benchmarks.servers.candidate import Candidate, start
from hub.children import Launch
from hub.supervisor import free_port

ONE, TWO = "one node", "two nodes on one port"
PAYLOAD_BYTES = 200
IN_FLIGHT = 8

_CONNECTIONS = re.compile(r'^clarion_connections\{transport="\w+"\} (\d+)', re.MULTILINE)


async def run(bench: Bench) -> None:
    """Handshakes and broadcasts, one node against two."""
    (size,) = bench.sizes(5_000, quick=300)
    async with AsyncExitStack() as stack:
        alone = await clarion.running(stack, size)
        shared = await clarion.running(stack, size)
        second, direct = await _another_node(shared)
        entrants = []
        for name, hub, pids in ((ONE, alone, [alone.node]), (TWO, shared, [shared.node, second])):
            candidate = Candidate(name, {name: pids}, hub.websocket(), hub.candidate().sse, hub.publishers(8))
            load = await stack.enter_async_context(Load(candidate.websocket, candidate.publishers, size))
            entrants.append((candidate, load))
        for number in range(bench.rounds):
            bench.say(f"nodes: {size} connections, round {number + 1}")
            for candidate, load in entrants:
                await _handshakes(bench, candidate, load, size)
            await _spread(bench, direct, size)
            for candidate, load in entrants:
                await _broadcasts(bench, candidate, load, size)
            for _, load in entrants:
                await load.command("cut")
                await load.command("wait", seconds=0.5)


async def _another_node(hub: clarion.Deployment) -> tuple[int, int]:
    """A second node behind the same port, on the load's core: its process and the port of it alone."""
    direct = free_port()
    own = {"CLARION_PORT": str(hub.port), "CLARION_DIRECT_PORT": str(direct)}
    launch = Launch((sys.executable, "-m", "hub", "node"), hub.environment | own)
    pid = await start(hub.stack, launch, hub.home, "node", direct)
    machine.pin(pid, machine.LOAD_CORE)
    return pid, direct


async def _handshakes(bench: Bench, candidate: Candidate, load: Load, size: int) -> None:
    phase = await measured(candidate, partial(load.connect, limit=120))
    rate = size / phase.answer["seconds"]
    for view, seconds in phase.cpu.items():
        bench.results.add("nodes", f"{size} handshakes", view, cpu_us=seconds * 1e6 / size, per_second=rate)


async def _spread(bench: Bench, direct: int, size: int) -> None:
    """How many of the connections the second node got. The system deals them out by a hash of both addresses."""
    async with httpx2.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{direct}/metrics?peers=false")).text
    got = sum(int(count) for count in _CONNECTIONS.findall(text))
    bench.results.add("nodes", "connections of the second node", TWO, ratio=got / size)


async def _broadcasts(bench: Bench, candidate: Candidate, load: Load, size: int) -> None:
    count = bench.much(max(40, 240_000 // size), 24)
    options = {"count": count, "window": IN_FLIGHT, "size": PAYLOAD_BYTES, "audience": ALL, "limit": 120}
    phase = await measured(candidate, partial(load.publish, **options))
    answer = phase.answer
    for view, seconds in phase.cpu.items():
        bench.results.add(
            "nodes",
            f"{size} connections, eight broadcasts in flight",
            view,
            cpu_us=seconds * 1e6 / answer["delivered"],
            deliveries_per_s=answer["delivered"] / answer["seconds"],
            p99_ms=answer["p99_ms"],
        )
