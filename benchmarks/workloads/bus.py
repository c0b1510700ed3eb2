"""The bus alone: what it costs a process to receive live messages, against redis-py's pub/sub.

All read the very same messages at the same time, on the server's core; ours are parsed into channel, offset, epoch and
payload, redis-py's are counted as they come. redis-py takes part twice: as it installs itself, with its own parser on
asyncio's own loop, and with all that the product has: hiredis, uvloop and a calmed garbage collector.
"""

import asyncio
import json
import sys
from contextlib import AsyncExitStack

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.servers import clarion
from benchmarks.servers.candidate import ServerFailed
from hub.ports import LiveBus, Publication
from hub.wiring import open_core

BURSTS, SINGLY = "receiving, in bursts of 250", "receiving, one at a time"
OURS, LIBRARY, TUNED = "Clarion", "redis-py pub/sub", "redis-py pub/sub, with hiredis and uvloop"
CHANNELS = [f"#u{number}" for number in range(100)]
PAYLOAD = json.dumps({"kind": "notification", "notification": {"body": "x" * 400}}).encode()
GROUP = 250


async def run(bench: Bench) -> None:
    """All readers in each round, in bursts and one message at a time."""
    async with AsyncExitStack() as stack:
        hub = await clarion.deployment(stack, 1)
        core = await stack.enter_async_context(open_core(hub.settings, "bench"))
        for number in range(bench.rounds):
            bench.say(f"bus: round {number + 1}")
            await _one(bench, hub, core.bus, BURSTS, count=bench.much(100_000, 10_000), group=GROUP)
            await _one(bench, hub, core.bus, SINGLY, count=bench.much(10_000, 1_000), group=1)
    for case in (BURSTS, SINGLY):
        bench.results.note("bus", case, "Messages a second are those of a whole core, from the CPU of one.")


async def _one(
    bench: Bench, hub: clarion.Deployment, bus: LiveBus, case: str, *, count: int, group: int
) -> None:
    async with AsyncExitStack() as readers:
        started = {
            OURS: await _reader(readers, hub, "product", count),
            LIBRARY: await _reader(readers, hub, "library", count),
            TUNED: await _reader(readers, hub, "tuned library", count),
        }
        before = {name: machine.cpu_seconds([one.pid]) for name, one in started.items()}
        for first in range(0, count, group):
            numbers = range(first, first + group)
            await bus.publish([Publication(CHANNELS[index % len(CHANNELS)], PAYLOAD) for index in numbers])
        for name, one in started.items():
            await _heard(one, "done")
            seconds = machine.cpu_seconds([one.pid]) - before[name]
            bench.results.add("bus", case, name, cpu_us=seconds * 1e6 / count, messages_per_s=count / seconds)


async def _reader(
    stack: AsyncExitStack, hub: clarion.Deployment, how: str, count: int
) -> asyncio.subprocess.Process:
    arguments = ("-m", "benchmarks.servers.bus_reader", how, json.dumps(CHANNELS), str(count))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env=clarion.inherited() | hub.environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    stack.push_async_callback(_end, process)
    machine.pin(process.pid, machine.SERVER_CORE)
    await _heard(process, "ready")
    return process


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


async def _heard(process: asyncio.subprocess.Process, word: str) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(120):
        line = (await process.stdout.readline()).decode().strip()
    if line != word:
        raise ServerFailed(f"a reader of the bus said {line!r} instead of {word!r}")
