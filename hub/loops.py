"""The event loop of long-running roles: uvloop where it is installed, else asyncio's own.

Their garbage collector is calmed: by default it looked at young objects every 700 allocations, a quarter of a node's time.
"""

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any, Final

YOUNG_OBJECTS: Final = 20_000  # allocated since the last look, before the next


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, like `asyncio.run`."""
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
    with asyncio.Runner(loop_factory=_factory()) as runner:
        runner.run(work)


def leave_alone_what_stays() -> None:
    """Call it when everything is started: what is there now stays for good, and collections need not look at it."""
    gc.collect()
    gc.freeze()


def _factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
