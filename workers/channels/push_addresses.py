"""Where push messages may go: what a push service's name resolves to must be an address of the public internet.

The connection goes to what is answered here, so a name that is rebound to an internal address after it was checked
leads nowhere. What an endpoint may be called is checked before (`hub.model.push_hosts`).
"""

import errno
import socket

from aiohttp import ThreadedResolver
from aiohttp.abc import AbstractResolver, ResolveResult

from hub.model.push_hosts import is_public_address


class PublicOnly(AbstractResolver):
    """Resolves names, and leaves out every address that is not public.

    `loopback`: names of this machine that the settings allow. `inner`: who is asked; the system's name service if unsaid.
    """

    def __init__(self, loopback: frozenset[str] = frozenset(), inner: AbstractResolver | None = None) -> None:
        self._inner = inner or ThreadedResolver()
        self._loopback = loopback

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The public addresses of a name. Raises OSError when it has none."""
        found = await self._inner.resolve(host, port, family)
        if host in self._loopback:
            return found
        public = [one for one in found if is_public_address(one["host"])]
        if not public:
            raise OSError(errno.EHOSTUNREACH, f"{host} leads to no public address")
        return public

    async def close(self) -> None:
        """Let go of the resolver inside."""
        await self._inner.close()
