"""What the machine has and what processes use of it. Linux: cores are pinned, CPU comes from the scheduler's own counts.

`cpu_seconds` counts time on a core and not time waited for one, so that a busy machine disturbs it least.
"""

import contextlib
import os
import platform
import resource
from collections.abc import Iterable
from pathlib import Path

SPARE_FILES = 500  # of the open-file limit: what a server needs beside its connections
# Asked once: the benchmark then keeps itself on one of them. Elsewhere than on Linux it says so and ends.
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
SERVER_CORE = CORES[-1]  # of everything that serves
LOAD_CORE = CORES[0]  # of clients and publishers


def pin(pid: int, core: int) -> None:
    """Keep a process with its threads, and what it starts from now on, on one core."""
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(ProcessLookupError):  # the thread has ended
            os.sched_setaffinity(int(thread.name), {core})


def most_connections() -> int:
    """How many connections one process may hold, in whole hundreds; raises our own limit to what is allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(100, (min(hard, 100_000) - SPARE_FILES) // 100 * 100)


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    pids = [pid]
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in thread.read_text().split():
            pids += family(int(child))
    return pids


def is_running(pid: int) -> bool:
    """Whether a process is there that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def cpu_seconds(pids: Iterable[int]) -> float:
    """Time that all threads of these processes spent on a core so far."""
    nanoseconds = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the thread ends as we look
                nanoseconds += int(thread.read_text().split()[0])
    return nanoseconds / 1e9


def memory_bytes(pids: Iterable[int]) -> int:
    """Resident memory of these processes."""
    page = resource.getpagesize()
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids)


def description() -> dict[str, str | int]:
    """What to know about the machine to read the figures."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": model,
        "cores": len(CORES),
        "server_core": SERVER_CORE,
        "load_core": LOAD_CORE,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "load_average": f"{os.getloadavg()[0]:.2f}",
    }
