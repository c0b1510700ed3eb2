"""The load generator as a child process: clients and publishers on the load's core, driven by commands.

It ends with its input, so also when this process is killed.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import machine, native

Answer = dict[str, Any]
ALL, ONE, NONE = range(3)
"""Who gets a message: every client, one of them, nobody (only the answer counts)."""


class LoadFailed(Exception):
    """The load generator saw something that makes the figures worthless; the message says what."""


@dataclass(frozen=True, slots=True)
class Clients:
    """How clients connect to a server, and when they count as connected."""

    port: int
    path: str
    is_sse: bool = False
    init: str | None = None  # the first message of a WebSocket client
    return_init: str | None = None  # the same for one that comes back, with its places
    ready: str | None = None  # what the server's greeting contains
    marks: Sequence[str] = ()  # where the greeting says the client's place on a channel
    headers: Sequence[str] = ()
    tokens: Path | None = None


@dataclass(frozen=True, slots=True)
class Publishers:
    """How messages are published: over HTTP, in batches over HTTP, into a Redis stream when a socket is given."""

    bodies: Sequence[str]
    path: str = "/"
    batch_path: str = "/"
    headers: Sequence[str] = ()
    count: int = 8
    socket: str | None = None
    stream: str = ""


@dataclass(slots=True)
class Load:
    """One load generator. `async with Load(clients, publishers, 1000) as load: await load.connect()`."""

    clients: Clients
    publishers: Publishers
    connections: int
    at_once: int = 64
    slow_share: float = 0.0
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)

    async def __aenter__(self) -> Self:
        arguments = [str(argument) for argument in self._arguments()]
        self._process = await asyncio.create_subprocess_exec(
            str(native.program("load")),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        machine.pin(self._process.pid, machine.LOAD_CORE)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process and process.returncode is None:
            process.kill()
        if process:
            await process.wait()

    def _arguments(self) -> list[object]:
        clients, publishers = self.clients, self.publishers
        arguments: list[object] = ["--port", clients.port, "--path", clients.path]
        arguments += ["--connections", self.connections, "--at-once", self.at_once, "--slow", self.slow_share]
        arguments += ["--sse"] if clients.is_sse else []
        for name, value in (
            ("--init", clients.init),
            ("--return-init", clients.return_init),
            ("--ready", clients.ready),
            ("--tokens", clients.tokens),
            ("--publish-socket", publishers.socket),
        ):
            arguments += [name, value] if value is not None else []
        arguments += ["--headers", "".join(f"{header}\r\n" for header in clients.headers)]
        arguments += ["--publish-headers", "".join(f"{header}\r\n" for header in publishers.headers)]
        arguments += ["--publish-path", publishers.path, "--batch-path", publishers.batch_path]
        arguments += ["--publishers", publishers.count]
        if publishers.socket is not None:
            words = ("XADD", publishers.stream, "*", "event")
            command = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
            arguments += ["--publish-command", f"*5\r\n{command}"]
        for mark in clients.marks:
            arguments += ["--mark", mark]
        for body in publishers.bodies:
            arguments += ["--body", body]
        return arguments

    async def command(self, name: str, **options: float) -> Answer:
        """Run one command and return its answer. Raises `LoadFailed` when the program ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        words = [name, *(f"{key}={value}" for key, value in options.items())]
        try:
            self._process.stdin.write(" ".join(words).encode() + b"\n")
            await self._process.stdin.drain()
        except OSError as error:
            raise LoadFailed(f"the load generator ended: {error}") from error
        line = await self._process.stdout.readline()
        if not line:
            raise LoadFailed(f"the load generator ended during {words}")
        answer: Answer = json.loads(line)
        return answer

    async def connect(self, **options: float) -> Answer:
        """Connect all clients. Raises `LoadFailed` when not all of them are open."""
        answer = await self.command("connect", **options)
        if answer["open"] != self.connections:
            raise LoadFailed(
                f"{answer['open']} of {self.connections} clients are connected: {answer['problem']}"
            )
        return answer

    async def publish(self, **options: float) -> Answer:
        """Publish and wait for all deliveries. Raises `LoadFailed` when one is missing or came twice."""
        answer = await self.command("publish", **options)
        is_exact = answer["delivered"] == answer["expected"] and answer["published"] == options["count"]
        if options["audience"] == ALL:
            is_exact = is_exact and answer["least"] == answer["most"] == options["count"]
        if not is_exact or answer["refused"] or answer["closed"]:
            raise LoadFailed(
                f"{answer['delivered']} deliveries instead of {answer['expected']}, {answer['published']} published, "
                f"{answer['refused']} refused, {answer['closed']} clients closed: {answer['problem']}"
            )
        return answer
