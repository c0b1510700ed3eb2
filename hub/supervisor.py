"""Runs the parts of one machine as child processes and starts again what falls.

Parts start in stages and stop in the opposite order: what serves others starts first and stops last. A part that
stops by itself is started again after a growing pause. When this process ends, however it ends, its children end.
A part that refuses its settings (exit code 2) at the first start ends the whole start: repeating would not help.
"""

import asyncio
import contextlib
import random
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hub import children
from hub.children import Launch
from hub.errors import ClarionError, ConfigError
from hub.locks import FolderLock
from hub.logs import get_logger

log = get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
HEALTHY_SECONDS = 30.0  # who ran that long starts again with the first pause
READY_POLL_SECONDS = 0.02
START_ATTEMPTS = 3
USAGE_EXIT_CODE = 2


async def _at_once() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Part:
    """One child: its name, how to launch it, how to tell that it works, when it starts and how long it may drain."""

    name: str
    launch: Callable[[], Launch]  # asked before every start
    ready: Callable[[], Awaitable[bool]] = _at_once
    stage: int = 1
    drain_seconds: float = 15.0
    output: Path | None = None  # None: our own output
    explain: Callable[[], str] | None = None  # a sentence about why it ended


class PartFailed(ClarionError):
    """A part could not be started at all; `exit_code` is what the program should end with."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class _Child:
    """A part while it is kept alive."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.process: asyncio.subprocess.Process | None = None
        self.starts = 0
        self.keeper: asyncio.Task[None] | None = None

    async def start(self) -> asyncio.subprocess.Process:
        launch = await asyncio.to_thread(self.part.launch)  # it may wait for a predecessor to go
        if self.part.output is None:
            self.process = await children.spawn(launch)
        else:
            with self.part.output.open("ab") as output:
                self.process = await children.spawn(launch, output)
        self.starts += 1
        return self.process

    async def become_ready(self) -> bool:
        """Wait until it works; False when it ended before that."""
        assert self.process is not None
        ended = asyncio.ensure_future(self.process.wait())
        try:
            while not ended.done():
                if await self.part.ready() and not ended.done():
                    return True
                await asyncio.wait([ended], timeout=READY_POLL_SECONDS)
            return False
        finally:
            ended.cancel()


class Supervisor:
    """Keeps parts alive on one data folder until it is told to stop.

    `on_ready` is called once, when every part works. Only one supervisor runs on a folder (ConfigError).
    """

    def __init__(
        self, data_dir: Path, parts: Sequence[Part], on_ready: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._lock = FolderLock(data_dir / "up.lock")
        self._children = [_Child(part) for part in parts]
        self._on_ready = on_ready
        self._stopping = asyncio.Event()

    def pids(self) -> dict[str, int]:
        """The process ids of the parts that run now."""
        return {
            child.part.name: child.process.pid
            for child in self._children
            if child.process and child.process.returncode is None
        }

    def request_stop(self) -> None:
        """Ask `run` to stop the parts and return; a second request does not let them drain."""
        if self._stopping.is_set():
            for child in self._children:
                if child.process and child.process.returncode is None:
                    child.process.kill()
        self._stopping.set()

    async def run(self) -> None:
        """Start all parts, keep them alive until SIGTERM, SIGINT or `request_stop`, then stop them in order."""
        if not self._lock.acquire():
            raise ConfigError(
                f"clarion up runs already on {str(self._lock.path.parent)!r} (process {self._lock.holder()}); stop it "
                "or choose another CLARION_DATA_DIR."
            )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.request_stop)
        try:
            if await self._start_all():
                if self._on_ready:
                    await self._on_ready()
                await self._stopping.wait()
        finally:
            self._stopping.set()
            await self._stop_all()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            self._lock.release()

    async def _start_all(self) -> bool:
        for stage in sorted({child.part.stage for child in self._children}):
            starting = [self._first_start(child) for child in self._children if child.part.stage == stage]
            outcomes = await asyncio.gather(*starting, return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
            if self._stopping.is_set():
                return False
        return True

    async def _first_start(self, child: _Child) -> None:
        for attempt in range(START_ATTEMPTS):
            process = await child.start()
            if await child.become_ready():
                child.keeper = asyncio.create_task(self._keep(child), name=f"keep {child.part.name}")
                return
            if self._stopping.is_set():
                return
            if process.returncode == USAGE_EXIT_CODE:
                break
            await self._pause(FIRST_PAUSE_SECONDS * 2**attempt)
        assert child.process is not None
        code = child.process.returncode
        why = (
            child.part.explain()
            if child.part.explain
            else f"the {child.part.name} did not start (exit code {code})"
        )
        raise PartFailed(why, USAGE_EXIT_CODE if code == USAGE_EXIT_CODE else 1)

    async def _keep(self, child: _Child) -> None:
        """Start a part again whenever it ends, until we stop."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            assert child.process is not None
            began = loop.time()
            code = await child.process.wait()
            if self._stopping.is_set():
                return
            failures = 0 if loop.time() - began > HEALTHY_SECONDS else failures + 1
            pause = min(FIRST_PAUSE_SECONDS * 2 ** max(failures - 1, 0), LONGEST_PAUSE_SECONDS)
            log.error(
                "part ended, starting it again", part=child.part.name, exit_code=code, pause_seconds=pause
            )
            await self._pause(pause)
            if self._stopping.is_set():
                return
            try:
                await child.start()
            except (OSError, ClarionError) as error:
                log.error("part cannot be started", part=child.part.name, error=str(error))

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            pass

    async def _stop_all(self) -> None:
        for stage in sorted({child.part.stage for child in self._children}, reverse=True):
            await asyncio.gather(
                *(self._stop(child) for child in self._children if child.part.stage == stage)
            )

    async def _stop(self, child: _Child) -> None:
        if child.keeper:
            child.keeper.cancel()
            await asyncio.gather(child.keeper, return_exceptions=True)
        if child.process:
            await children.stop(child.process, child.part.drain_seconds)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody used a moment ago.

    Taken below the range that systems give to outgoing connections,
    so that none of those gets it before its server does.
    """
    for _ in range(100):
        port = random.randint(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server((host, port)):
            return port
    raise ConfigError(f"No free TCP port was found on {host} between 20000 and 32000.")


def http_ready(host: str, port: int, path: str = "/readyz") -> Callable[[], Awaitable[bool]]:
    """A readiness check: one GET that must answer 200 within 2 s."""

    async def check() -> bool:
        writer = None
        try:
            async with asyncio.timeout(2.0):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).split(b" ")[1:2] == [b"200"]
        except (OSError, TimeoutError):
            return False
        finally:
            if writer:
                writer.close()

    return check
