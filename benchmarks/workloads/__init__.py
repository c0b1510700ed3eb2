"""The workloads, one file each. Their names are the arguments of `python -m benchmarks`."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from benchmarks.bench import Bench
from benchmarks.workloads import (
    backfill,
    broadcast,
    bus,
    generator,
    handshakes,
    ingest,
    memory,
    nodes,
    planner,
    reconnect,
    slow,
    targeted,
)

WORKLOADS: Mapping[str, Callable[[Bench], Awaitable[None]]] = {
    "broadcast": broadcast.run,
    "sse": partial(broadcast.run, workload="sse", is_sse=True),
    "targeted": targeted.run,
    "handshakes": handshakes.run,
    "memory": memory.run,
    "reconnect": reconnect.run,
    "slow": slow.run,
    "ingest": ingest.run,
    "generator": generator.run,
    "backfill": backfill.run,
    "bus": bus.run,
    "planner": planner.run,
    "nodes": nodes.run,
}
