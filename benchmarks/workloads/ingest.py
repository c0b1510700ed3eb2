"""Ingest: durable publishing, when nothing but the answer counts. No generator runs, so events stay in the queue.

Beside it a plain application that awaits one XADD per request into a Valkey of the same kind. The product authenticates,
validates, gives an id and cuts into slices on top. Batches have no rival; their rate is the figure. It is one process'
pace: during batches the node has its core alone, and Valkey works beside the little load on the other.
"""

from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from benchmarks import machine
from benchmarks.bench import Bench, measured
from benchmarks.load import NONE, Load
from benchmarks.servers import clarion
from benchmarks.servers.candidate import Candidate, plain

SINGLE, BATCH, LARGE = "one event a request", "batches of 100", "batches of 1,000"
PLAIN, PLAIN_APP = "Starlette, awaited XADD", "Starlette, app alone"
PUBLISHERS = 64
USERS = 10_000


async def run(bench: Bench) -> None:
    """One by one against the plain application, then batches."""
    async with AsyncExitStack() as stack:
        hub = await clarion.deployment(stack, 1, queue_limit="1000000000")
        await hub.start_node()
        ours = hub.candidate(PUBLISHERS)
        bare = await plain(stack, hub.environment, None)
        (app,) = bare.views.values()
        views = {PLAIN: [*app, hub.valkey], PLAIN_APP: app}
        publishers = replace(bare.publishers, path="/v1/events", bodies=clarion.BODIES, count=PUBLISHERS)
        theirs = replace(bare, views=views, publishers=publishers)
        loads = {
            one.name: await stack.enter_async_context(Load(one.websocket, one.publishers, 0))
            for one in (ours, theirs)
        }
        for number in range(bench.rounds):
            bench.say(f"ingest: round {number + 1}")
            for candidate in (ours, theirs):
                count = bench.much(20_000, 1_000)
                await _one(bench, candidate, loads[candidate.name], SINGLE, number, count=count, batch=1)
            hub.move_valkey(machine.LOAD_CORE)
            for case, size in ((BATCH, 100), (LARGE, 1_000)):
                count = bench.much(200_000, 5_000)
                await _one(bench, ours, loads[ours.name], case, number, count=count, batch=size)
                bench.results.note("ingest", case, "The node has its core alone; Valkey is on the load's.")
            hub.move_valkey(machine.SERVER_CORE)


async def _one(
    bench: Bench, candidate: Candidate, load: Load, case: str, seed: int, *, count: int, batch: int
) -> None:
    at_once = {"window": count * 2, "limit": 120, "seed": seed + 1, "users": USERS}
    body = {"body": clarion.BODY_USER, "size": 200, "audience": NONE}
    phase = await measured(candidate, partial(load.publish, count=count, batch=batch, **at_once, **body))
    for view, seconds in phase.cpu.items():
        rate = count / phase.answer["seconds"]
        bench.results.add("ingest", case, view, cpu_us=seconds * 1e6 / count, events_per_s=rate)
