"""The other side of senders: a mail server or a push service that takes everything, keeps nothing and counts."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks import machine, native
from benchmarks.servers.candidate import START_SECONDS, ServerFailed, folder
from hub import children
from hub.children import Launch
from hub.supervisor import free_port


@dataclass(frozen=True, slots=True)
class Counts:
    """What came since the sink was started; the connection of whoever asks is counted too."""

    messages: int
    bytes: int
    connections: int
    most_at_once: int


@dataclass(frozen=True, slots=True)
class Sink:
    """A sink at work: `kind` is smtp or http."""

    kind: str
    port: int

    async def counts(self) -> Counts:
        """What came until now. Raises OSError while it does not listen."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"COUNT\r\n\r\n")
            while not (line := await reader.readline()).startswith(b"250 ") or not line[4:5].isdigit():
                if not line:
                    raise ServerFailed("the sink does not count")
            return Counts(*map(int, line.split()[1:]))
        finally:
            writer.close()


async def sink(stack: AsyncExitStack, kind: str) -> Sink:
    """Start one on the load's core; it ends with the stack."""
    made = Sink(kind, free_port())
    log_path = folder(stack) / "sink.log"
    with log_path.open("ab") as log:
        process = await children.spawn(Launch((str(native.program("sink")), kind, str(made.port))), log)
    stack.push_async_callback(children.stop, process, 5.0)
    machine.pin(process.pid, machine.LOAD_CORE)
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                await made.counts()
            except OSError:
                await asyncio.sleep(0.02)
            else:
                return made
