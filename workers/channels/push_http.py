"""HTTP to push services, over one session: bounded in time and size, to public addresses only, without redirects.

Names are resolved by `PublicOnly`, and the connection goes to what it answered: a name that is rebound to an internal
address after it was checked leads nowhere. Addresses that the settings do not name are refused before (`PushHosts`).
"""

import socket
import ssl
from collections.abc import Sequence
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct
from yarl import URL

from hub.model.push_hosts import Endpoint, is_public_address

CONNECT_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 10.0
ANSWER_LIMIT_BYTES: Final = 4_096
IDLE_SECONDS: Final = 15.0
FORBIDDEN: Final = "resolves to no public address"


class PushAnswer(Struct, frozen=True):
    """What a push service answered; `text`: the beginning of its body."""

    status: int
    text: str
    retry_after: str | None


class NotWritten(Exception):  # the message did not leave
    """No connection. The text says why."""


class NotAnswered(Exception):  # the message may have arrived
    """The request was written, at least in part, and no whole answer came."""


class NoHttp(Exception):  # garbage
    """What came back is not HTTP."""


class PublicOnly(AbstractResolver):
    """Resolves names, and leaves out every address that is not of the public internet.

    `loopback`: names of this machine that the settings allow.
    """

    def __init__(self, inner: AbstractResolver, loopback: frozenset[str] = frozenset()) -> None:
        self._inner = inner
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
            raise OSError(f"{host} {FORBIDDEN}")
        return public

    async def close(self) -> None:
        """Let go of the resolver inside."""
        await self._inner.close()


class PushHttp:
    """The one session of a process. Opened with the first message; belongs to one event loop."""

    def __init__(
        self,
        connections: int,
        *,
        loopback: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        resolver: AbstractResolver | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._connections = connections
        self._loopback = frozenset(loopback)
        self._tls = tls
        self._resolver = resolver
        self._answer_seconds = answer_seconds
        self._session: aiohttp.ClientSession | None = None

    async def post(self, endpoint: Endpoint, body: bytes, headers: dict[str, str]) -> PushAnswer:
        """Post one message. Raises `NotWritten`, `NotAnswered` or `NoHttp`."""
        session = self._session or self._open()
        try:
            async with session.post(
                URL(endpoint.url, encoded=True), data=body, headers=headers, allow_redirects=False
            ) as response:
                text = "" if response.status == 204 else await _beginning(response)
                return PushAnswer(response.status, text, response.headers.get("Retry-After"))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotWritten(_why(error)) from error
        except (aiohttp.ClientResponseError, aiohttp.ClientPayloadError) as error:
            raise NoHttp("The answer is not HTTP.") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NotAnswered(
                "The connection ended, or was silent for too long, before the answer."
            ) from error

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._connections * 2,  # the engine asks for no more than `connections`: nobody waits here
            keepalive_timeout=IDLE_SECONDS,
            ssl=self._tls or True,
            resolver=PublicOnly(self._resolver or aiohttp.ThreadedResolver(), self._loopback),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=CONNECT_SECONDS + self._answer_seconds * 2,
                connect=CONNECT_SECONDS,
                sock_read=self._answer_seconds,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # what is not decompressed cannot explode
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            headers={"User-Agent": "clarion"},
        )
        return self._session

    async def close(self) -> None:
        """Close what is open."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


async def _beginning(response: aiohttp.ClientResponse) -> str:
    chunks = bytearray()
    while len(chunks) < ANSWER_LIMIT_BYTES and (chunk := await response.content.readany()):
        chunks += chunk
    return bytes(chunks[:ANSWER_LIMIT_BYTES]).decode("utf-8", "replace")


def _why(error: Exception) -> str:
    """A sentence without the endpoint, whose path is a secret between browser and hub."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            forbidden = FORBIDDEN in str(error.os_error)
            return f"Its name {FORBIDDEN}." if forbidden else "Its name cannot be resolved."
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return "TLS did not come about: its certificate or its protocol is not accepted."
        case aiohttp.ConnectionTimeoutError():
            return f"No connection within {CONNECT_SECONDS:.0f} s."
    return "No connection."
