"""One pub/sub connection: bytes to replies (RESP2) and back. It ends when the peer is silent for too long.

It never reconnects; `RedisLink` does.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis

from hub.adapters.redis_endpoint import Endpoint

_CLIENT_NAME: Final = "clarion-link"


class WireError(Exception):
    """The connection cannot go on; says why."""


class Wire(asyncio.Protocol):
    """A connection to Redis that carries subscriptions and nothing else."""

    def __init__(
        self,
        endpoint: Endpoint,
        on_message: Callable[[bytes, bytes], None],
        on_answer: Callable[[bytes], None],
    ) -> None:
        self._endpoint = endpoint
        self._on_message = on_message
        self._on_answer = on_answer
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._replies: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self.reason = "closed by Redis"

    @classmethod
    async def connect(
        cls,
        endpoint: Endpoint,
        on_message: Callable[[bytes, bytes], None],
        on_answer: Callable[[bytes], None],
    ) -> "Wire":
        """Open the connection. Raises OSError."""
        return await endpoint.open(lambda: cls(endpoint, on_message, on_answer))

    async def handshake(self) -> None:
        """Log in, and make sure that Redis has loaded its data. Raises `WireError`."""
        if self._endpoint.credentials:
            await self._ask("AUTH", *self._endpoint.credentials)
        # Redis takes subscriptions while it still reads its log; histories can be read only after it.
        await self._ask("PING")
        await self._ask("CLIENT", "SETNAME", _CLIENT_NAME)

    def send(self, *command: str | bytes) -> None:
        """Write one command; a broken connection swallows it."""
        if self._transport is not None and not self._transport.is_closing():
            # hiredis' stub calls for a tuple of one; any length works.
            self._transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]

    async def until(self, awaited: asyncio.Future[Any]) -> None:
        """Wait for something that this connection brings. Raises `WireError` when it ends before."""
        await asyncio.wait([awaited, self.closed], return_when=asyncio.FIRST_COMPLETED)
        if not awaited.done():
            raise WireError(self.reason)

    def watch(self, ping_seconds: float, silence_seconds: float) -> None:
        """Ping from now on, and end the connection when nothing comes back."""
        step = min(ping_seconds, silence_seconds) / 4
        self._heard_at = self._loop.time()
        self._tick(step, ping_seconds, silence_seconds, self._heard_at, self._heard_at)

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        if not self.closed.done():
            self.reason = reason
        if self._transport is not None:
            self._transport.abort()
        self._finish()

    # ------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own are not subclasses

    def data_received(self, data: bytes) -> None:
        """Called by the loop. Hands on what is complete."""
        self._heard_at = self._loop.time()
        reader, on_message = self._reader, self._on_message
        reader.feed(data)
        next_reply = reader.gets
        try:
            while (reply := next_reply()) is not False:
                if type(reply) is list and reply[0] == b"message":
                    on_message(reply[1], reply[2])
                else:
                    self._other(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"it does not speak RESP ({error})")

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if exc is not None and not self.closed.done():
            self.reason = str(exc) or type(exc).__name__
        self._finish()

    # ------------------------------------------------------------ inside

    def _other(self, reply: object) -> None:
        if isinstance(reply, list):
            if reply[0] in (b"subscribe", b"unsubscribe"):
                self._on_answer(reply[1])
        elif self._replies:
            waiter = self._replies.popleft()
            if not waiter.done():
                waiter.set_result(reply)
        elif isinstance(reply, Exception):
            # A subscription was refused (ACL): no confirmation will come for it.
            self.abort(f"Redis refused: {str(reply)[:200]}")

    async def _ask(self, *command: str) -> None:
        waiter: asyncio.Future[Any] = self._loop.create_future()
        self._replies.append(waiter)
        self.send(*command)
        await self.until(waiter)
        reply = waiter.result()
        if isinstance(reply, Exception):
            raise WireError(f"Redis refused: {str(reply)[:200]}")

    def _tick(self, step: float, ping: float, silence: float, planned_at: float, pinged_at: float) -> None:
        now = self._loop.time()
        if now - planned_at > silence / 4:
            # We were held up ourselves; what arrived meanwhile is not read yet.
            self._heard_at = max(self._heard_at, now - silence / 2)
        if now - self._heard_at >= silence:
            self.abort(f"no answer for {silence:g} s")
            return
        if now - pinged_at >= ping:
            pinged_at = now
            self.send("PING")
        self._timer = self._loop.call_later(step, self._tick, step, ping, silence, now + step, pinged_at)

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.closed.done():
            self.closed.set_result(None)
