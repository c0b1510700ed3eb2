"""The HTTP client that senders share: one session per process, bounded in time and size, and exact about what was sent.

It follows no redirect, keeps no cookie, obeys no proxy of the environment, and never raises for what a server or a
network does: `post` says what came back, or whether the request may have arrived although nothing did.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from msgspec import Struct
from yarl import URL

from hub import __version__

ANSWER_LIMIT_BYTES: Final = 64 * 1024
CONNECT_SECONDS: Final = 5.0
# Shorter than what servers keep, so that a request hardly ever meets a connection that is being closed: nobody could
# tell whether it arrived.
IDLE_SECONDS: Final = 2.0
LONGEST_WAIT_SECONDS: Final = 86_400.0


class Answer(Struct, frozen=True):
    """What a server answered: status, headers with lower-case names, and up to 64 KiB of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Lost(Struct, frozen=True):
    """No answer came. `may_have_arrived`: the request was being written, so the server may have acted on it."""

    code: str
    detail: str
    may_have_arrived: bool


class HttpClient:
    """One session, opened at the first request on the running loop; whoever uses it holds it until `let_go`."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        resolver: Callable[[], AbstractResolver] | None = None,
    ) -> None:
        """`tls` and `resolver` (made on the loop) replace the system's trust and name service."""
        self._tls = tls
        self._resolver = resolver
        self._session: aiohttp.ClientSession | None = None
        self._holders = 0

    def hold(self) -> None:
        """Say that somebody uses it."""
        self._holders += 1

    async def let_go(self) -> None:
        """Somebody is done; the last one closes the connections."""
        self._holders -= 1
        if self._holders <= 0 and self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def post(
        self,
        url: str | URL,
        *,
        body: bytes,
        headers: Mapping[str, str],
        timeout_seconds: float,
        auth: tuple[str, str] | None = None,
    ) -> Answer | Lost:
        """Send one request, in at most `timeout_seconds` in all."""
        sent = SimpleNamespace(began=False)
        limits = aiohttp.ClientTimeout(
            total=timeout_seconds, sock_connect=min(CONNECT_SECONDS, timeout_seconds)
        )
        given = {**headers, "User-Agent": f"Clarion/{__version__}"}
        if auth is not None:
            given["Authorization"] = aiohttp.encode_basic_auth(*auth)
        try:
            async with self._opened().post(
                url, data=body, headers=given, timeout=limits, allow_redirects=False, trace_request_ctx=sent
            ) as response:
                content = await _bounded(response)
                named = {name.lower(): value for name, value in response.headers.items()}
                return Answer(response.status, named, content)
        except TimeoutError:
            return Lost("timeout", f"No answer within {timeout_seconds:g} s.", sent.began)
        except aiohttp.ClientConnectorCertificateError:
            return Lost("tls", "The server's certificate is not trusted.", may_have_arrived=False)
        except aiohttp.ClientConnectorError as error:
            return Lost("connect_failed", f"No connection: {_words(error.os_error)}.", may_have_arrived=False)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Lost("connection_lost", f"The connection ended: {_words(error)}.", sent.began)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_began)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    keepalive_timeout=IDLE_SECONDS,
                    ttl_dns_cache=30,
                    ssl=self._tls or True,
                    resolver=self._resolver() if self._resolver is not None else None,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=[trace],
                trust_env=False,
            )
        return self._session


async def _began(_session: aiohttp.ClientSession, context: SimpleNamespace, _: Any) -> None:
    """Right before the first byte is written: from here on the request may have arrived."""
    context.trace_request_ctx.began = True


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body up to the limit. What is cut off or too long makes no difference: the status has been said."""
    content = bytearray()
    try:
        while len(content) < ANSWER_LIMIT_BYTES:
            chunk = await response.content.read(ANSWER_LIMIT_BYTES - len(content))
            if not chunk:
                return bytes(content)
            content += chunk
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass
    response.close()  # what was not read to its end is no connection for another request
    return bytes(content)


def _words(error: BaseException) -> str:
    """What happened, without addresses or values of ours."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else ""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        text = "the server closed it"
    return text or type(error).__name__


def retry_after_seconds(text: str | None, now_us: int) -> float | None:
    """The wait that a Retry-After asks for: seconds or an HTTP date (RFC 9110 §10.2.3); at most a day. None: unsaid."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:12]), LONGEST_WAIT_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
        seconds = moment.timestamp() - now_us / 1_000_000
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT_SECONDS)


def printable(text: str, limit: int = 200) -> str:
    """A bounded piece of somebody else's text for logs: on one line, without control characters."""
    shown = " ".join("".join(one if one.isprintable() else " " for one in text[: 2 * limit]).split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


async def in_time(work: "asyncio.Future[Any]", seconds: float) -> bool:
    """Wait for a thread's work without cancelling it; tells whether it ended. What it ends with later is nobody's."""
    work.add_done_callback(lambda done: done.cancelled() or done.exception())
    done, _ = await asyncio.wait({work}, timeout=seconds)
    return bool(done)
