"""One connection to Redis for commands (RESP2): round trips of several callers go out as they come, without waiting.

Replies come back in that order. A caller that gave up disturbs nobody: its replies are dropped. When the connection
is lost every caller that waits hears `ConnectionError`; what became of its commands is unknown. Nothing is repeated.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis

from hub.adapters.redis_endpoint import Endpoint

Command = Sequence[str | bytes | int]


class _Trip:
    """Commands of one caller that wait for their replies."""

    __slots__ = ("answer", "count", "replies")

    def __init__(self, count: int, answer: asyncio.Future[list[Any]]) -> None:
        self.count = count
        self.answer = answer
        self.replies: list[Any] = []


class Line(asyncio.Protocol):
    """A connection that is used by many at once."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._trips: deque[_Trip] = deque()
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def connect(cls, endpoint: Endpoint) -> "Line":
        """Open a connection, log in, choose the database. Raises OSError."""
        line = await endpoint.open(cls)
        greeting: list[Command] = []
        if endpoint.credentials:
            greeting.append(("AUTH", *endpoint.credentials))
        if endpoint.database:
            greeting.append(("SELECT", endpoint.database))
        try:
            for reply in await line.ask(greeting) if greeting else []:
                if isinstance(reply, Exception):
                    raise ConnectionRefusedError(str(reply)[:200])
        except BaseException:
            line.abort()
            raise
        return line

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Send commands together; their replies in order, error replies as exceptions in their place."""
        answer: asyncio.Future[list[Any]] = self._loop.create_future()
        if self._transport is None:
            answer.set_exception(ConnectionResetError("the connection is closed"))
            return answer
        self._trips.append(_Trip(len(commands), answer))
        # hiredis' stub calls for a tuple of one; any length works.
        packed = [hiredis.pack_command(tuple(command)) for command in commands]  # type: ignore[arg-type]
        self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))
        return answer

    def abort(self) -> None:
        """Close at once; whoever waits hears of it."""
        if self._transport is not None:
            self._transport.abort()
        self._end(None)

    # ------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own are not subclasses

    def data_received(self, data: bytes) -> None:
        """Called by the loop. Hands on what is complete."""
        reader, trips = self._reader, self._trips
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not False:
                trip = trips[0]
                trip.replies.append(reply)
                if len(trip.replies) == trip.count:
                    trips.popleft()
                    if not trip.answer.done():
                        trip.answer.set_result(trip.replies)
        except (hiredis.ProtocolError, IndexError):  # not Redis, or an answer that nobody asked for
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._end(exc)

    def _end(self, error: Exception | None) -> None:
        self._transport = None
        trips, self._trips = self._trips, deque()
        for trip in trips:
            if not trip.answer.done():
                reason = str(error) if error else "closed by Redis"
                trip.answer.set_exception(ConnectionResetError(reason))
