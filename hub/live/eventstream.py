"""An EventSource client after the hand-over: events out, nothing in.

Each event's `id` is the client's cursor after it. A client proves that it reads when everything written to it has left
this machine after a short grace (on Linux: when its own system has confirmed it, which a vanished one never does); one
that takes nothing for two heartbeats, or falls too far behind, is cut off and comes back with its cursor.
"""

import asyncio
import fcntl
import math
import random
import socket
import struct
import sys
import termios
from typing import Final

from hub.live import sse
from hub.live.connection import Connection
from hub.live.edge import Edge
from hub.live.seam import Frame, Identity, Joined, Parcel, StreamPosition
from hub.model.vocabulary import BROADCASTS, personal_channel

_REASONS: Final = {3001: "shutdown", 3005: "token_expired", 3008: "slow"}


class EventStreamConnection(Connection):
    """One EventSource. Implements `hub.live.seam.Wire`."""

    __slots__ = (
        "_alive_at",
        "_broadcasts",
        "_chunked",
        "_expires_at",
        "_heartbeat_at",
        "_joined",
        "_personal",
        "_stalled",
        "_told",
    )

    transport = "sse"

    def __init__(self, edge: Edge, chunked: bool) -> None:
        super().__init__(edge)
        self._chunked = chunked
        self._personal = self._broadcasts = self._told = sse.place_text("", 0)
        self._joined = False
        self._stalled = False
        self._heartbeat_at = math.inf
        self._alive_at = math.inf
        self._expires_at = math.inf

    async def join(self, identity: Identity, cursor: sse.Cursor | None, told_unknown: bool) -> bytes:
        """Join the node; returns the first events. Raises what the node raises. `start` or `abandon` comes next."""
        edge = self._edge
        edge.claim(self, identity)
        self._joined = True
        joined = await edge.node.join(self, positions_of(identity, cursor))
        counts = await edge.node.rpc(self, "unread_count", None)
        return self._first_events(joined, counts, told_unknown)

    def _first_events(self, joined: list[Joined], counts: bytes, has_gap: bool) -> bytes:
        size = sum(len(frame.payload) for one in joined for frame in one.missed)
        is_bounded = size <= self._edge.limits.recovery_bytes
        for one in joined:
            offset = one.offset if is_bounded or not one.missed else one.missed[-1].offset
            self._move(one.channel, sse.place_text(one.epoch, offset))
            has_gap = has_gap or (one.was_recovering and not (one.recovered and is_bounded))
        events = [self._id_line(), sse.ready(self.connection_id, counts)]
        if has_gap:
            events.append(sse.gap())
        if is_bounded:
            for frame in (frame for one in joined for frame in one.missed):
                self._move(frame.channel, frame.place())
                events += [self._id_line(), frame.sse()]
        return b"".join(events)

    def start(self, transport: asyncio.Transport, head: bytes, first: bytes) -> None:
        """Own the transport, write the response's head and the first events, and go live."""
        self.attach(transport)
        _notice_dead_peer(transport, self._edge.limits.heartbeat_seconds)
        transport.write(head + self._framed(first))
        limits, now = self._edge.limits, self._edge.wheel.now()
        self._heartbeat_at = now + limits.heartbeat_seconds * random.uniform(0.5, 1.0)
        if self.identity.expires_at_us is not None:
            left = (self.identity.expires_at_us - self._edge.clock.now_us()) / 1_000_000
            # A token may be taken shortly after its end (leeway): such a stream gets a while too.
            self._expires_at = now + (left if left > 0 else limits.expiry_grace_seconds)
        self._set_deadline()
        self._edge.node.release(self)
        self.flush()

    def abandon(self) -> None:
        """The stream never began."""
        self._ended()

    # ------------------------------------------------------------ output

    def _move(self, channel: str, place: bytes) -> None:
        if channel == BROADCASTS:
            self._broadcasts = place
        else:
            self._personal = place

    def _id_line(self) -> bytes:
        return sse.id_line(self._personal, self._broadcasts)

    def _framed(self, data: bytes) -> bytes:
        return sse.chunk(data) if self._chunked else data

    def encode(self, frame: Frame) -> bytes:
        """A publication as an event with the cursor after it."""
        if frame.offset:
            self._move(frame.channel, frame.place())
        return self._framed(self._id_line() + frame.sse())

    def push_parcel(self, parcel: Parcel) -> None:
        """Send publications that many connections get alike; only the place on the personal channel is each one's own."""
        if not self._chunked:
            for frame in parcel.frames:
                self.push(frame)
            return
        self._broadcasts = parcel.frames[-1].place()
        data = parcel.sse_chunk(self._personal)
        transport = self._direct
        if transport is not None and self._output is None:
            transport.write(data)
        else:
            self.send(data)

    def gap(self, channel: str) -> None:  # noqa: ARG002
        """Tell the client to refetch."""
        self.send(self._framed(sse.gap()))

    # ------------------------------------------------------------ time

    def _set_deadline(self) -> None:
        if not self._closing:
            self._edge.wheel.schedule(self, min(self._heartbeat_at, self._alive_at, self._expires_at))

    def on_time(self, now: float) -> None:
        """A deadline came; see which."""
        if self._closing:
            self.drop()
            return
        if now >= self._expires_at:
            self.close(3005, "token expired")
            return
        if now >= self._alive_at:
            self._prove(now)
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + self._edge.limits.heartbeat_seconds
            if self._paused and self._stalled:
                self.drop()
                return
            self._stalled = self._paused
            if not self._paused and self._told is self._broadcasts:  # else broadcasts are heartbeat enough
                self.send(self._framed(sse.comment()))
            self._told = self._broadcasts
        self._set_deadline()

    def ask_proof(self) -> None:
        """See after a grace whether all of it has left."""
        if self._alive_at is math.inf:
            self._asked_us = self._edge.clock.now_us()
            self._alive_at = self._edge.wheel.now() + self._edge.limits.alive_seconds
            self._set_deadline()

    def _prove(self, now: float) -> None:
        transport = self._transport
        if transport is None or self._paused or transport.get_write_buffer_size() or unconfirmed(transport):
            self._alive_at = now + self._edge.limits.alive_seconds
            return
        self._alive_at = math.inf
        self._edge.node.proven_alive(self, self._asked_us)

    # ------------------------------------------------------------ the end

    def close(self, code: int, reason: str) -> None:
        """Tell the client why, and end the response. At a shutdown clients come back at different moments."""
        retry_ms = random.randint(500, 3_000) if code == 3001 else None
        last = self._framed(sse.reconnect(_REASONS.get(code, reason), retry_ms))
        self._finish(last + sse.LAST_CHUNK if self._chunked else last)
        if self._transport is not None:
            self._transport.close()

    def overflow(self) -> None:
        """A peer that does not read would not read a farewell either; it comes back with its cursor."""
        self.drop()

    def on_left(self) -> None:
        """Leave the node."""
        if self._joined:
            self._edge.node.leave(self)
        self._edge.remove(self)


def positions_of(identity: Identity, cursor: sse.Cursor | None) -> dict[str, StreamPosition]:
    """Where a cursor says its client is, per channel."""
    if cursor is None:
        return {}
    return {
        personal_channel(identity.user_id): StreamPosition(*cursor.personal),
        BROADCASTS: StreamPosition(*cursor.broadcasts),
    }


def unconfirmed(transport: asyncio.BaseTransport) -> int:
    """Bytes that left the transport and that the peer's system has not confirmed (Linux; 0 elsewhere)."""
    connection = transport.get_extra_info("socket")
    if connection is None or sys.platform != "linux":
        return 0
    count = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    return int(struct.unpack("i", count)[0])


def _notice_dead_peer(transport: asyncio.Transport, heartbeat_seconds: float) -> None:
    """Without this the kernel retries for a quarter of an hour to reach a peer that vanished (Linux)."""
    connection = transport.get_extra_info("socket")
    if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT") and connection.family != socket.AF_UNIX:
        milliseconds = int(heartbeat_seconds * 2_000)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
