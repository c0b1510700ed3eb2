"""Broadcasts: 200-byte events to everybody who is connected, three a second, and eight in flight, over both transports.

The product gets them as events to everyone and to a topic, through its queue, its store and its log. The others send the
200 bytes as they are; the product's messages are whole notifications, hence longer. Those rows are judged. At the judged
size the others also send as many bytes as the product does, in rows "same bytes on the wire", which nothing judges.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

from benchmarks import machine
from benchmarks.bench import Bench, measured
from benchmarks.load import ALL, Load, LoadFailed
from benchmarks.servers import clarion, nchan
from benchmarks.servers.candidate import Candidate, floor, plain

PAYLOAD_BYTES = 200
PER_SECOND = 3
IN_FLIGHT = 8
COMPARED_SIZE = 10_000
SAME_BYTES = ", same bytes on the wire"
STEADY, FLIGHT, TO_TOPIC = "3 a second", "eight in flight", "3 a second, to a topic"
_NOTE = "The others send 200 bytes, the product a notification around them. Rows of the same bytes are not judged."

_Entrant = tuple[Candidate, Load]


async def run(bench: Bench, workload: str = "broadcast", *, is_sse: bool = False) -> None:
    """All sizes, all candidates."""
    full = (10_000,) if is_sse else (1_000, 10_000, machine.most_connections())
    for size in bench.sizes(*full, quick=300):
        async with AsyncExitStack() as stack:
            entrants = await _entrants(bench, stack, size, workload, is_sse)
            for number in range(bench.rounds):
                bench.say(f"{workload}: {size} connections, round {number + 1}")
                await _round(bench, entrants, size, workload)


def case(size: int, name: str) -> str:
    """The name of a case in tables and targets."""
    return f"{size} connections, {name}"


async def _entrants(
    bench: Bench, stack: AsyncExitStack, size: int, workload: str, is_sse: bool
) -> Sequence[_Entrant]:
    hub = await clarion.running(stack, size)
    await hub.subscribe(f"u{number}" for number in range(size))
    candidates = [
        hub.candidate(),
        await floor(stack),
        await plain(stack, hub.environment, hub.tokens),
        await nchan.nchan(stack),
    ]
    entrants = []
    for candidate in candidates:
        if candidate is None:
            bench.results.lacks(workload, case(size, STEADY), nchan.NAME, "not installed")
            continue
        bench.say(f"{workload}: connecting {size} clients to {candidate.name}")
        clients = candidate.sse if is_sse else candidate.websocket
        load = await stack.enter_async_context(Load(clients, candidate.publishers, size))
        try:
            await load.connect(limit=300)
        except LoadFailed as error:
            if candidate.name == clarion.NAME:
                raise
            bench.results.lacks(workload, case(size, STEADY), candidate.name, str(error))
            continue
        await load.command("wait", seconds=0.5)
        entrants.append((candidate, load))
    return entrants


async def _round(bench: Bench, entrants: Sequence[_Entrant], size: int, workload: str) -> None:
    count = bench.much(10 if size <= 10_000 else 6, 3)
    flight = bench.much(max(32, 120_000 // size), 24)
    steady = {"count": count, "rate": PER_SECOND}
    lengths = {}
    for candidate, load in entrants:
        lengths[candidate.name] = await _one(bench, candidate, load, workload, case(size, STEADY), steady)
        if candidate.name == clarion.NAME and size <= 10_000:
            topic = steady | {"body": clarion.BODY_TOPIC}
            await _one(bench, candidate, load, workload, case(size, TO_TOPIC), topic)
    if size in (COMPARED_SIZE, bench.connections) or bench.quick:
        for candidate, load in entrants[1:]:
            longer = round(lengths[clarion.NAME] - lengths[candidate.name])
            same = steady | {"size": PAYLOAD_BYTES + max(0, longer)}
            await _one(bench, candidate, load, workload, case(size, STEADY), same, SAME_BYTES)
        bench.results.note(workload, case(size, STEADY), _NOTE)
    for candidate, load in entrants:
        in_flight = {"count": flight, "window": IN_FLIGHT}
        await _one(bench, candidate, load, workload, case(size, FLIGHT), in_flight)


async def _one(
    bench: Bench,
    candidate: Candidate,
    load: Load,
    workload: str,
    name: str,
    options: Mapping[str, float],
    suffix: str = "",
) -> float:
    """One phase of one candidate, as rows with this suffix; returns how many bytes a delivery was."""
    given = {"size": PAYLOAD_BYTES, "audience": ALL, "limit": 120, **options}
    phase = await measured(candidate, partial(load.publish, **given))
    answer = phase.answer
    length: float = answer["bytes"] / answer["delivered"]
    for view, seconds in phase.cpu.items():
        bench.results.add(
            workload,
            name,
            view + suffix,
            cpu_us=seconds * 1e6 / answer["delivered"],
            deliveries_per_s=answer["delivered"] / answer["seconds"],
            p50_ms=answer["p50_ms"],
            p99_ms=answer["p99_ms"],
            max_ms=answer["max_ms"],
            bytes=length,
            deliveries=answer["delivered"],
        )
    return length
