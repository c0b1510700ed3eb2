"""The load generator and the floor, compiled when they are needed into the user's cache folder.

Sources that did not change are not compiled again. Without a C compiler `BuildFailed` says what to install.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
PARTS = {
    "load": ("load.c", "connection.c", "protocols.c", "template.c", "latency.c", "publish.c"),
    "floor": ("floor.c",),
    "sink": ("sink.c",),
}
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra")


class BuildFailed(Exception):
    """A program could not be compiled; the message says why."""


def cache_folder() -> Path:
    """Where compiled programs stay."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "clarion-benchmarks"


def program(name: str) -> Path:
    """The compiled program of this name. Raises `BuildFailed`."""
    sources = [SOURCES / part for part in PARTS[name]]
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in [*sorted(SOURCES.glob("*.h")), *sources]:
        digest.update(source.read_bytes())
    target = cache_folder() / f"{name}-{digest.hexdigest()[:16]}"
    if target.exists():
        return target
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise BuildFailed("The benchmarks need a C compiler: install gcc or clang, or name one in CC.")
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}")
    made = subprocess.run(
        [compiler, *FLAGS, "-o", str(unfinished), *map(str, sources)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise BuildFailed(f"{compiler} could not compile {name}: {made.stderr.strip()[:2000]}")
    unfinished.rename(target)  # two runs at once: both have made the same
    return target
