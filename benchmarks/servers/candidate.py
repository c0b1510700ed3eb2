"""What all candidates share: a name, how to connect and publish, and the processes whose CPU and memory count."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine, native
from benchmarks.load import Clients, Publishers
from hub import children
from hub.children import Launch
from hub.supervisor import free_port, http_ready

PLAIN_BODY = '{"ts":{ts},"pad":"{pad}"}'
START_SECONDS = 60.0


class ServerFailed(Exception):
    """A server did not start; the message has its last words."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A running server. `views`: the names of its rows in the tables, with the processes of each."""

    name: str
    views: Mapping[str, Sequence[int]]
    websocket: Clients
    sse: Clients
    publishers: Publishers


async def start(stack: AsyncExitStack, launch: Launch, folder: Path, name: str, port: int | None) -> int:
    """Start a server on its core, wait until it answers, end it with the stack; returns its process id."""
    log_path = folder / f"{name}.log"
    with log_path.open("ab") as log:
        process = await children.spawn(launch, log)
    stack.push_async_callback(children.stop, process, 5.0)
    machine.pin(process.pid, machine.SERVER_CORE)
    if port is not None:
        path = "/readyz" if name == "node" else "/"
        await _listening(process, log_path, name, port, path)
    return process.pid


async def _listening(
    process: asyncio.subprocess.Process, log_path: Path, name: str, port: int, path: str
) -> None:
    check = http_ready("127.0.0.1", port, path)
    try:
        async with asyncio.timeout(START_SECONDS):
            while not await check():
                if process.returncode is not None:
                    break
                await asyncio.sleep(0.05)
            else:
                return
    except TimeoutError:
        pass
    raise ServerFailed(f"{name} did not start: {log_path.read_text(errors='replace')[-2000:]}")


def folder(stack: AsyncExitStack) -> Path:
    """A temporary folder that is gone with the stack."""
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clarion-bench-")))


async def floor(stack: AsyncExitStack) -> Candidate:
    """One send(2) per delivery and nothing else."""
    port = free_port()
    launch = Launch((str(native.program("floor")), str(port)))
    pid = await start(stack, launch, folder(stack), "floor", port)
    return Candidate(
        "floor (C, send)",
        {"floor (C, send)": [pid]},
        Clients(port, "/sub"),
        Clients(port, "/sub", is_sse=True),
        Publishers([PLAIN_BODY], "/pub"),
    )


async def plain(stack: AsyncExitStack, env: Mapping[str, str], tokens: Path | None) -> Candidate:
    """Stock uvicorn and Starlette: `await send_text` in a loop."""
    port = free_port()
    path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
    launch = Launch(
        (sys.executable, "-m", "benchmarks.servers.plain_app", str(port)), {**env, "PYTHONPATH": path}
    )
    pid = await start(stack, launch, folder(stack), "plain", port)
    name = "Starlette, send_text loop"
    return Candidate(
        name,
        {name: [pid]},
        Clients(port, "/ws?token={t}", ready='"connect"', tokens=tokens),
        Clients(port, "/sse?token={t}", is_sse=True, ready="event: ready", tokens=tokens),
        Publishers([PLAIN_BODY], "/pub"),
    )
