"""Commands to Redis for one port: timeouts and errors in one place.

Commands are sent once: nothing here repeats a command whose outcome is unknown. Every failure (refused, lost, slow,
an error reply) is raised as the one error that the caller's port names.
"""

import asyncio
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import hiredis

from hub.adapters.redis_endpoint import CONNECT_SECONDS, Endpoint
from hub.adapters.redis_line import Command, Line
from hub.errors import ClarionError


def load_script(name: str) -> str:
    """A Lua script of this package, without its comments.

    Scripts are always sent whole (EVAL): Redis then can never answer NOSCRIPT half-way through a pipeline, which would
    reorder publications. Calls are packed, so the text costs nothing measurable.
    """
    text = (files("hub.adapters") / "scripts" / name).read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("--"))


class RedisCommands:
    """Commands of one part of the program. Replies are raw: bytes, int, lists.

    All share one connection, which opens when it is needed, except commands that Redis may hold back (BLOCK): each of
    those has a connection of its own for as long as it runs.
    """

    def __init__(self, url: str, unavailable: type[ClarionError], timeout_seconds: float) -> None:
        self._endpoint = Endpoint.from_url(url)
        self._unavailable = unavailable
        self._timeout_seconds = timeout_seconds
        self._line: Line | None = None
        self._connecting: asyncio.Task[Line] | None = None
        self._blocking: set[Line] = set()
        self._idle: list[Line] = []

    async def call(self, *command: str | bytes | int, wait_seconds: float = 0.0) -> Any:
        """One command; `wait_seconds` is how long Redis itself may take its time (BLOCK)."""
        [reply] = await self._ask([command], self._timeout_seconds, wait_seconds)
        if isinstance(reply, Exception):
            raise self._unavailable(_sentence(reply)) from reply
        return reply

    async def call_all(self, commands: Sequence[Command]) -> list[Any]:
        """Commands in one round trip; the first error reply is raised."""
        replies = await self.try_all(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._unavailable(_sentence(reply)) from reply
        return replies

    async def try_all(self, commands: Sequence[Command], timeout_seconds: float | None = None) -> list[Any]:
        """Commands in one round trip. Error replies come back as exceptions in their place."""
        return await self._ask(commands, timeout_seconds or self._timeout_seconds) if commands else []

    async def close(self) -> None:
        """Close all connections."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait([self._connecting])
        for line in (self._line, *self._idle, *self._blocking):
            if line is not None:
                line.abort()
        self._line = None
        self._idle.clear()

    async def _ask(self, commands: Sequence[Command], seconds: float, wait_seconds: float = 0.0) -> list[Any]:
        line: Line | None = None
        try:
            async with asyncio.timeout(seconds + wait_seconds):
                if wait_seconds > 0:
                    return await self._ask_alone(commands)
                line = self._line
                if line is None or not line.is_open:
                    line = await self._shared_line()
                return await line.ask(commands)
        except OSError as error:  # TimeoutError is one
            if isinstance(error, TimeoutError) and line is not None:
                line.abort()  # what does not answer would hold up the next callers too
            raise self._unavailable(_sentence(error)) from error

    async def _ask_alone(self, commands: Sequence[Command]) -> list[Any]:
        while self._idle:
            line = self._idle.pop()
            if line.is_open:
                break
        else:
            line = await self._connect()
        self._blocking.add(line)
        try:
            replies = await line.ask(commands)
        except BaseException:
            line.abort()  # Redis may still hold the command back
            raise
        finally:
            self._blocking.discard(line)
        self._idle.append(line)
        return replies

    async def _shared_line(self) -> Line:
        """The connection of all; callers that find none wait for the same new one."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name="redis connect")
            self._connecting.add_done_callback(self._connected)
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> Line:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await Line.connect(self._endpoint)

    def _connected(self, done: asyncio.Task[Line]) -> None:
        self._connecting = None
        if not done.cancelled() and done.exception() is None:
            self._line = done.result()


def _sentence(error: Exception) -> str:
    """What happened, without the command (which may carry a payload)."""
    if isinstance(error, hiredis.ReplyError):
        return f"Redis refused: {str(error)[:200]}"
    if isinstance(error, TimeoutError):
        return "Redis did not answer in time; the outcome is unknown."
    return f"Redis cannot be reached, or the connection was lost; the outcome is unknown ({type(error).__name__})."
