"""Where a Redis is and how to get in: its URL read exactly as redis-py reads it, and connections opened from it."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from redis.asyncio.connection import SSLConnection, parse_url

CONNECT_SECONDS: Final = 2.0

P = TypeVar("P", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address, the credentials and the database of a Redis URL."""

    host: str
    port: int
    path: str | None
    username: str | None
    password: str | None
    database: int
    tls: ssl.SSLContext | None

    @classmethod
    def from_url(cls, url: str) -> "Endpoint":
        """Raises ValueError for a URL that redis-py would refuse."""
        options: dict[str, Any] = {**_safer_tls(url), **parse_url(url)}
        tls = None
        if options.get("connection_class") is SSLConnection:
            given = {name: value for name, value in options.items() if name.startswith("ssl_")}
            tls = SSLConnection(**given).ssl_context.get()
        return cls(
            host=options.get("host", "localhost"),
            port=options.get("port", 6379),
            path=options.get("path"),
            username=options.get("username"),
            password=options.get("password"),
            database=int(options.get("db") or 0),
            tls=tls,
        )

    @property
    def credentials(self) -> tuple[str, ...]:
        """The words after AUTH; none without a password."""
        if self.password is None:
            return ()
        return (self.username, self.password) if self.username else (self.password,)

    async def open(self, make: Callable[[], P]) -> P:
        """A connection for a new protocol object. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self.path is not None:
            _, protocol = await loop.create_unix_connection(make, self.path)
        else:
            _, protocol = await loop.create_connection(make, self.host, self.port, ssl=self.tls)
        return protocol


def _safer_tls(url: str) -> dict[str, Any]:
    """redis-py 5 leaves host names of certificates unchecked unless told otherwise; the URL's own options win."""
    return {"ssl_check_hostname": True} if url.startswith("rediss:") else {}
