"""A network that fails on command: a TCP proxy on the loopback that can cut, refuse, freeze and thaw.

Frozen, it keeps connections open and moves no byte, like a peer whose machine hangs or whose cable was pulled.
"""

import asyncio
import ssl
from types import TracebackType
from typing import Self


class Proxy:
    """Forwards to a Unix socket or a TCP port; with `tls` it speaks TLS to those who connect."""

    def __init__(
        self, path: str | None = None, port: int | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._tls = tls
        self._path = path
        self._target_port = port
        self._server: asyncio.Server | None = None
        self._asking = asyncio.Event()  # set: bytes flow towards the server
        self._answering = asyncio.Event()  # set: bytes flow back
        self.thaw()
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0
        self.accepted = 0

    @property
    def url(self) -> str:
        """The address for Redis clients."""
        return f"redis://127.0.0.1:{self.port}/0"

    def freeze(self) -> None:
        """Hold every byte, in both directions, also of new connections."""
        self._asking.clear()
        self._answering.clear()

    def hold_answers(self) -> None:
        """What is asked arrives; what is answered does not."""
        self._answering.clear()

    def thaw(self) -> None:
        """Let go what was held."""
        self._asking.set()
        self._answering.set()

    def refuse(self) -> None:
        """Cut all connections and close new ones at once."""
        self._refusing = True
        self.cut()

    def admit(self) -> None:
        """Take connections again."""
        self._refusing = False

    def cut(self) -> None:
        """Reset all connections; new ones are welcome."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        if self._refusing:
            writer.transport.abort()
            return
        try:
            if self._path:
                far_reader, far_writer = await asyncio.open_unix_connection(self._path)
            else:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(far_writer)
        for one, other, gate in ((reader, far_writer, self._asking), (far_reader, writer, self._answering)):
            pump = asyncio.create_task(self._pump(one, other, gate))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        try:
            while data := await reader.read(65_536):
                await gate.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
