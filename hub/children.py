"""Child processes that never outlive their parent, however it ends.

On Linux the kernel kills them (PR_SET_PDEATHSIG); elsewhere a watchdog process does when its pipe from the parent
closes. SIGKILL is right here: every child's state is on disk, and a parent that died cannot ask for a clean end.
Children get a session of their own, so that Ctrl-C reaches the parent alone and it can stop them in order.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

HAS_PDEATHSIG = sys.platform == "linux"

# Runs between fork and the program: no Python of ours may run in a forked child of a threaded process.
# prctl(PR_SET_PDEATHSIG = 1, SIGKILL = 9); a parent that died before that call is noticed by its pid.
_EXEC = (
    "import ctypes,os,sys;"
    "ctypes.CDLL(None).prctl(1,9,0,0,0);"
    "os.getppid()==int(sys.argv[1]) or sys.exit(1);"
    "os.execvp(sys.argv[2],sys.argv[2:])"
)
_WATCH = (
    "import os,sys\n"
    "pids=set()\n"
    "for line in sys.stdin:\n"
    "    (pids.add if line[0]=='+' else pids.discard)(int(line[1:]))\n"
    "for pid in pids:\n"
    "    try: os.kill(pid,9)\n"
    "    except OSError: pass\n"
)


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run: the program with its arguments, changes to the environment, and file descriptors to keep open.

    `folder`: where it runs; where we do, if unset.
    """

    command: tuple[str, ...]
    env: Mapping[str, str] | None = None
    keep_fds: tuple[int, ...] = ()
    folder: Path | None = None


class _Watchdog:
    """One process that ends our children where the kernel does not."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def tell(self, sign: str, pid: int) -> None:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WATCH],
                stdin=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        if self._process.stdin:
            self._process.stdin.write(f"{sign}{pid}\n")
            self._process.stdin.flush()


_watchdog = _Watchdog()


async def spawn(launch: Launch, output: IO[bytes] | None = None) -> asyncio.subprocess.Process:
    """Start a child that dies with this process. Its output goes to `output`, or where ours goes.

    Call it from the main thread: the kernel binds the death signal to the thread that started the child.
    """
    wrapper = (sys.executable, "-I", "-S", "-c", _EXEC, str(os.getpid())) if HAS_PDEATHSIG else ()
    process = await asyncio.create_subprocess_exec(
        *wrapper,
        *launch.command,
        env={**os.environ, **(launch.env or {})},
        cwd=launch.folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=asyncio.subprocess.STDOUT if output else None,
        pass_fds=launch.keep_fds,
        start_new_session=True,
    )
    if not HAS_PDEATHSIG:
        _watchdog.tell("+", process.pid)
    return process


async def stop(process: asyncio.subprocess.Process, grace_seconds: float) -> int:
    """Ask a child to end (SIGTERM), insist after the grace (SIGKILL), and return its exit code."""
    if process.returncode is None:
        try:
            process.terminate()
            await asyncio.wait_for(process.wait(), grace_seconds)
        except TimeoutError:
            process.kill()
        except ProcessLookupError:
            pass
    code = await process.wait()
    if not HAS_PDEATHSIG:
        _watchdog.tell("-", process.pid)
    return code
