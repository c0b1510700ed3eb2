"""From a Redis URL to connections: the one place for options, timeouts and errors.

Commands are sent once: nothing here repeats a command whose outcome is unknown. Every failure (refused, lost, slow,
an error reply) is raised as the one error that the caller's port names.
"""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from hub.errors import ClarionError

CONNECT_SECONDS = 2.0
Command = Sequence[str | bytes | int]


def load_script(name: str) -> str:
    """A Lua script of this package, without its comments.

    Scripts are always sent whole (EVAL): Redis then can never answer NOSCRIPT half-way through a pipeline, which would
    reorder publications. Calls are packed, so the text costs nothing measurable.
    """
    text = (files("hub.adapters") / "scripts" / name).read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("--"))


class RedisCommands:
    """A pool of connections for commands. Replies are raw (bytes, int, lists); each concurrent call has its own connection."""

    def __init__(self, url: str, unavailable: type[ClarionError], timeout_seconds: float) -> None:
        self._unavailable = unavailable
        self._timeout_seconds = timeout_seconds
        self._client = Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            **_safer_tls(url),
        )
        # redis-py would turn stream entries into dicts, which forgets repeated fields.
        self._client.response_callbacks.clear()

    async def call(self, *command: str | bytes | int, wait_seconds: float = 0.0) -> Any:
        """One command; `wait_seconds` is how long Redis itself may take its time (BLOCK)."""
        try:
            async with asyncio.timeout(self._timeout_seconds + wait_seconds):
                return await self._client.execute_command(*command)
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            raise self._unavailable(_sentence(error)) from error

    async def call_all(self, commands: Sequence[Command]) -> list[Any]:
        """Commands in one round trip; the first error reply is raised."""
        replies = await self.try_all(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._unavailable(_sentence(reply)) from reply
        return replies

    async def try_all(self, commands: Sequence[Command], timeout_seconds: float | None = None) -> list[Any]:
        """Commands in one round trip. Error replies come back as exceptions in their place."""
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        try:
            async with asyncio.timeout(timeout_seconds or self._timeout_seconds):
                return cast("list[Any]", await pipeline.execute(raise_on_error=False))
        except (RedisError, OSError) as error:
            raise self._unavailable(_sentence(error)) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def _sentence(error: Exception) -> str:
    """What happened, without the command (which may carry a payload)."""
    if isinstance(error, ResponseError):
        return f"Redis refused: {str(error)[:200]}"
    if isinstance(error, TimeoutError):
        return "Redis did not answer in time; the outcome is unknown."
    return f"Redis cannot be reached, or the connection was lost; the outcome is unknown ({type(error).__name__})."


def _safer_tls(url: str) -> dict[str, Any]:
    """redis-py 5 leaves host names of certificates unchecked unless told otherwise; the URL's own options win."""
    return {"ssl_check_hostname": True} if url.startswith("rediss:") else {}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to connect, for links that speak to Redis without redis-py."""

    host: str
    port: int
    path: str | None
    username: str | None
    password: str | None
    tls: ssl.SSLContext | None

    @classmethod
    def from_url(cls, url: str) -> "Endpoint":
        """Read the URL exactly as `RedisCommands` does."""
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
            tls=tls,
        )
