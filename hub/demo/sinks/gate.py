"""A port of the loopback that a server stands behind, and that can be shut and opened again.

The port stays ours while it is shut: a second socket holds it, which does not listen, so connections are refused.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Final

HOST: Final = "127.0.0.1"


class Gate:
    """Serves with a protocol factory on a free port. `connections`: what is cut off when the gate is shut."""

    def __init__(
        self,
        protocols: Callable[[], asyncio.BaseProtocol],
        connections: Callable[[], list[asyncio.BaseTransport]],
    ) -> None:
        self._protocols = protocols
        self._connections = connections
        self._holder = _bound(0)
        self.port: int = self._holder.getsockname()[1]
        self._server: asyncio.Server | None = None

    @property
    def is_open(self) -> bool:
        """Whether connections are taken."""
        return self._server is not None

    async def open(self) -> None:
        """Take connections from now on."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._protocols, sock=_bound(self.port))

    async def shut(self) -> None:
        """Cut what is open and refuse connections until it is opened again."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for transport in self._connections():
            if isinstance(transport, asyncio.Transport):
                transport.abort()
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Shut it for good."""
        await self.shut()
        self._holder.close()


def _bound(port: int) -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    found.bind((HOST, port))
    return found
