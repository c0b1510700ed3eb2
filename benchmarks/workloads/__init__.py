"""The workloads, one file each. Their names are the arguments of `python -m benchmarks`."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from benchmarks.bench import Bench
from benchmarks.workloads import broadcast

WORKLOADS: Mapping[str, Callable[[Bench], Awaitable[None]]] = {
    "broadcast": broadcast.run,
    "sse": partial(broadcast.run, workload="sse", is_sse=True),
}
