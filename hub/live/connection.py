"""What both kinds of live connections share: a transport taken over from uvicorn, and bounded output.

What is sent within one turn of the event loop is joined and written once. While the peer does not read, output waits
in a bounded queue; when it is full the queue is dropped and the connection ends as slow. No task, no ASGI, no timer of
its own.
"""

import asyncio
import secrets
from abc import abstractmethod
from typing import TYPE_CHECKING, Final

from hub.live.seam import Frame, Identity, Parcel
from hub.live.wheel import NOT_DUE

if TYPE_CHECKING:
    from hub.live.edge import Edge

NOBODY: Final = Identity("", None, 0)


class Connection(asyncio.Protocol):
    """One live client. Implements the output half of `hub.live.seam.Wire`."""

    __slots__ = (
        "_asked_us",
        "_closing",
        "_direct",
        "_edge",
        "_output",
        "_paused",
        "_queued_bytes",
        "_transport",
        "connection_id",
        "due_tick",
        "identity",
        "visible",
    )

    transport: str  # its kind: each class has one

    def __init__(self, edge: "Edge", identity: Identity = NOBODY) -> None:
        self._edge = edge
        self._transport: asyncio.Transport | None = None
        self._direct: asyncio.Transport | None = None  # the same while it takes more and nobody ended it
        self._output: list[bytes] | None = None
        self._queued_bytes = 0  # counted only while paused
        self._paused = False
        self._closing = False
        self._asked_us = 0  # when the proof that runs was asked for
        self.due_tick = NOT_DUE
        self.connection_id = secrets.token_urlsafe(15)
        self.identity = identity
        self.visible = True

    # ------------------------------------------------------------ the transport

    def attach(self, transport: asyncio.Transport) -> None:
        """Own this transport from now on."""
        self._transport = transport
        self._direct = transport
        transport.set_write_buffer_limits(high=self._edge.limits.write_buffer_bytes)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The transport is gone, whoever ended it."""
        self._transport = None
        self._direct = None
        self._ended()

    def eof_received(self) -> bool | None:
        """The peer sends nothing more; asyncio then closes the transport."""
        return None

    def pause_writing(self) -> None:
        """The peer does not read as fast as we write."""
        self._paused = True
        self._direct = None
        self._queued_bytes = 0

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._paused = False
        self._flush_on()
        if not self._paused and not self._closing:
            self._direct = self._transport

    def is_closing(self) -> bool:
        """Whether the connection is over or about to be."""
        return self._closing

    # ------------------------------------------------------------ output

    def push(self, frame: Frame) -> None:
        """Send one publication."""
        self.send(self.encode(frame))

    @abstractmethod
    def push_parcel(self, parcel: Parcel) -> None:
        """Send publications that many connections get alike. A sweep has joined them: they need not wait for more."""

    @abstractmethod
    def encode(self, frame: Frame) -> bytes:
        """A publication as it goes over this wire."""

    @abstractmethod
    def overflow(self) -> None:
        """The peer is too slow; the queue was dropped."""

    @abstractmethod
    def on_time(self, now: float) -> None:
        """The wheel's deadline came."""

    @abstractmethod
    def on_left(self) -> None:
        """The connection is over; tell whom it concerns. Called once."""

    @abstractmethod
    def ask_proof(self) -> None:
        """The peer is to prove soon that it read what was written until now."""

    @abstractmethod
    def gap(self, channel: str) -> None:
        """Something was missed that history does not hold."""

    @abstractmethod
    def close(self, code: int, reason: str) -> None:
        """End the connection with a Centrifuge disconnect code."""

    def send(self, data: bytes) -> None:
        """Write these bytes with whatever else is sent in this turn of the loop."""
        if self._closing:
            return
        output = self._output
        if output is None:
            self._output = [data]
            if not self._paused:
                self._edge.flush_soon(self)
        else:
            output.append(data)
        if self._paused:
            self._queued_bytes += len(data)
            if self._queued_bytes > self._edge.limits.queue_bytes:
                self._output = None
                self.overflow()

    def flush(self) -> None:
        """Hand what waits to the transport."""
        output = self._output
        transport = self._transport
        if output is None or self._paused or transport is None:
            return
        self._output = None
        transport.write(output[0] if len(output) == 1 else b"".join(output))

    def _flush_on(self) -> None:
        """After a pause: as much as the transport takes until the next one. Who reads slowly must not fill the queue
        again behind all that waited in it."""
        output = self._output or []
        self._output = None
        while output and not self._paused and self._transport is not None:
            size, count = len(output[0]), 1
            while count < len(output) and size < self._edge.limits.write_buffer_bytes:
                size += len(output[count])
                count += 1
            self._transport.write(b"".join(output[:count]))
            output = output[count:]
        if output:
            self._output = output
            self._queued_bytes = sum(map(len, output))

    # ------------------------------------------------------------ the end

    def _finish(self, last: bytes) -> None:
        """Say goodbye: `last` is written if the peer reads, and the transport goes after a short while at most."""
        if self._closing:
            return
        self.flush()
        transport = self._transport
        if last and transport is not None:
            transport.write(last)
        self._ended()
        if transport is not None:
            self._edge.wheel.schedule(self, self._edge.wheel.now() + self._edge.limits.linger_seconds)

    def _ended(self) -> None:
        self._output = None
        self._direct = None
        if self._transport is None:
            self._edge.wheel.cancel(self)
        if not self._closing:
            self._closing = True
            self.on_left()

    def drop(self) -> None:
        """Cut the transport off at once; what is still buffered is lost."""
        if self._transport is not None:
            self._transport.abort()
        else:
            self._ended()
