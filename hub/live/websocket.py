"""A WebSocket client after the hand-over: RFC 6455 below, the Centrifuge protocol above, the node behind.

Frames are read by a `FrameReader` that lives only while one is incomplete; commands that must wait run in one short
task at a time, in order. Times come from the shared wheel: the deadline to authenticate, pings, pongs, token expiry.
"""

import asyncio
import logging
import math
import random
from typing import Final

from hub.errors import ClarionError, Refused, TokenError, TokenExpired
from hub.live.centrifuge import codes, replies
from hub.live.centrifuge.codes import Disconnect
from hub.live.centrifuge.commands import Ask, Connect, History, Refresh, Reply, Rpc, Subscribe, Unsubscribe
from hub.live.centrifuge.session import Session
from hub.live.connection import Connection
from hub.live.edge import VERSION, Edge
from hub.live.recovery import bounded
from hub.live.rfc6455 import (
    Binary,
    Closing,
    Event,
    FrameReader,
    Ping,
    Pong,
    Text,
    Violation,
    close_frame,
    ping_frame,
    pong_frame,
    text_frame,
)
from hub.live.seam import Frame, Identity, Parcel, StreamPosition
from hub.model.vocabulary import BROADCASTS, personal_channel

logger = logging.getLogger(__name__)

_PING: Final = text_frame(replies.PING_LINE)


class WebSocketConnection(Connection):
    """One WebSocket client. Implements `hub.live.seam.Wire`."""

    __slots__ = (
        "_close_at",
        "_frame_pings",
        "_joined",
        "_ping_at",
        "_pong_at",
        "_reader",
        "_session",
        "_session_identity",
    )

    transport = "websocket"

    def __init__(self, edge: Edge, session_identity: Identity | None, frame_pings: bool) -> None:
        super().__init__(edge)
        self._session = Session()
        self._reader: FrameReader | None = None
        self._session_identity = session_identity  # of a cookie, used when connect has no token
        self._frame_pings = frame_pings  # a debug tool that wants WebSocket pings instead of `{}`
        self._joined = False
        self._ping_at = math.inf
        self._pong_at = math.inf
        self._close_at = math.inf  # not authenticated in time, expired, or told to leave

    def attach(self, transport: asyncio.Transport) -> None:
        """Own this transport; the client has to authenticate soon."""
        super().attach(transport)
        self._close_at = self._edge.wheel.now() + self._edge.limits.connect_seconds
        self._set_deadline()

    # ------------------------------------------------------------ what comes in

    def data_received(self, data: bytes) -> None:
        """Bytes of the client. After the close frame they are read and dropped, so that the peer sees it."""
        if self._closing:
            self._await_close(data)
            return
        reader = self._reader or FrameReader(self._edge.limits.message_bytes)
        self._reader = reader
        try:
            for event in reader.read(data):
                self._on_event(event)
                if self.is_closing():
                    self._await_close(b"")  # the peer's close frame may be here already
                    return
        except Violation as violation:
            self._fail(violation.code, violation.reason)
            return
        if reader.idle:
            self._reader = None

    def _on_event(self, event: Event) -> None:
        now = self._edge.wheel.now()
        match event:
            case Text(text):
                if self._session.receive(text, now):
                    self._on_pong()
                self._work()
            case Ping(payload):
                if not self._session.spend(now):
                    self._disconnect(codes.FLOOD)
                elif not self._paused:  # a peer that does not read gets no pongs piled up
                    self.send(pong_frame(payload))
            case Pong():
                if not self._session.spend(now):
                    self._disconnect(codes.FLOOD)
                elif self._frame_pings and self._pong_at is not math.inf:
                    self._on_pong()
            case Binary():
                self._disconnect(codes.BAD)
            case Closing(code, _):
                self._finish(close_frame(code, ""))
                if self._transport is not None:
                    self._transport.close()

    def _await_close(self, data: bytes) -> None:
        """We sent a close frame; the peer's ends the handshake."""
        reader = self._reader
        if reader is None:
            return
        try:
            if any(isinstance(event, Closing) for event in reader.read(data)) and self._transport is not None:
                self._transport.close()
        except Violation:
            self._reader = None

    def _on_pong(self) -> None:
        self._pong_at = math.inf
        self._edge.node.proven_alive(self, self._asked_us)
        self._set_deadline()

    # ------------------------------------------------------------ commands

    def _work(self) -> None:
        """Do what waits, until something has to be awaited."""
        while not self._closing and (effect := self._session.next_effect()) is not None:
            match effect:
                case Reply(line):
                    self.send(text_frame(line))
                case Disconnect():
                    self._disconnect(effect)
                case Unsubscribe(channel, line):
                    self._edge.node.unsubscribe(self, channel)
                    self.send(text_frame(line))
                case _:
                    self._edge.start(self._answer(effect))

    async def _answer(self, ask: Ask) -> None:
        try:
            await self._serve(ask)
        except Exception as error:
            if not isinstance(error, ClarionError):
                logger.exception("a command failed")
            self._refuse(ask, error)
        self._session.finish()
        self._work()

    async def _serve(self, ask: Ask) -> None:
        match ask:
            case Connect():
                await self._connect(ask)
            case Refresh():
                await self._refresh(ask)
            case Subscribe():
                await self._subscribe(ask)
            case History():
                await self._history(ask)
            case Rpc(number, method, data):
                self._reply(replies.rpc_line(number, await self._edge.node.rpc(self, method, data)))

    def _reply(self, line: bytes) -> None:
        self.send(text_frame(line))

    def _refuse(self, ask: Ask, error: Exception) -> None:
        match ask, error:
            case ((Connect() | Refresh()), TokenExpired()):
                if isinstance(ask, Refresh):
                    self._disconnect(codes.EXPIRED)  # §6: not error 109, which would be terminal
                else:
                    self._refuse_connect(ask, codes.TOKEN_EXPIRED)
            case ((Connect() | Refresh()), TokenError()):
                self._disconnect(codes.INVALID_TOKEN)
            case Connect(), Refused(status=403):
                self._disconnect(codes.INVALID_TOKEN)
            case Connect(), Refused(status=429):
                self._disconnect(codes.LIMIT)
            case Connect(), _:
                self._refuse_connect(ask, codes.INTERNAL)
            case _, Refused():
                self._reply(replies.error_line(ask.id, codes.error_code(error)))
            case _, _:
                self._reply(replies.error_line(ask.id, codes.INTERNAL))

    def _refuse_connect(self, ask: Connect, code: int) -> None:
        self._reply(replies.error_line(ask.id, code))
        self._session.refuse()
        self._close_at = self._edge.wheel.now() + self._edge.limits.linger_seconds
        self._set_deadline()

    async def _connect(self, ask: Connect) -> None:
        if ask.token:
            identity = await self._edge.gate.authenticate(ask.token)
        elif self._session_identity is not None:
            identity = self._session_identity
        else:
            self._disconnect(codes.BAD)
            return
        if self.is_closing():
            return
        self._edge.claim(self, identity)
        positions = {name: StreamPosition(at.epoch, at.offset) for name, at in ask.positions.items()}
        self._joined = True
        try:
            joined = await self._edge.node.join(self, positions)
        except BaseException:
            self._joined = False
            self._edge.node.leave(self)
            if not self.is_closing():
                self._edge.unclaim(self)
            raise
        if self.is_closing():
            self._edge.node.leave(self)
            return
        limits = self._edge.limits
        line = replies.connect_line(
            ask.id,
            self.connection_id,
            VERSION,
            ping_seconds=0 if self._frame_pings else limits.ping_seconds,
            ttl_seconds=self._ttl_seconds(identity) if ask.token else None,
            subs=bounded(joined, limits.recovery_bytes),
        )
        self._session.connected(identity.user_id)
        self._session_identity = None
        self._expire_with(identity)
        # The first ping comes at a random moment, so that a wave of connections spreads out (§5).
        self._ping_at = self._edge.wheel.now() + limits.ping_seconds * random.uniform(0.5, 1.0)
        self._set_deadline()
        self._reply(line)
        self._edge.node.release(self)

    async def _refresh(self, ask: Refresh) -> None:
        identity = await self._edge.gate.authenticate(ask.token)
        if self._closing:
            return
        if identity.user_id != self.identity.user_id:
            self._disconnect(codes.INVALID_TOKEN)
            return
        if self.identity.operator and not identity.operator:
            self._disconnect(codes.GAP)  # its channels differ now: it comes back with what it may have (§6)
            return
        self.identity = identity
        self._expire_with(identity)
        self._set_deadline()
        ttl_seconds = self._ttl_seconds(identity)
        self._reply(replies.refresh_line(ask.id, self.connection_id, VERSION, ttl_seconds))

    async def _subscribe(self, ask: Subscribe) -> None:
        position = None if ask.position is None else StreamPosition(ask.position.epoch, ask.position.offset)
        joined = await self._edge.node.subscribe(self, ask.channel, position)
        if self._closing:
            return
        if joined.was_recovering and not joined.recovered and ask.wants_112:
            self._edge.node.unsubscribe(self, ask.channel)
            self._reply(replies.error_line(ask.id, codes.UNRECOVERABLE))
            return
        self._session.subscribed(ask.channel)
        (subscription,) = bounded([joined], self._edge.limits.recovery_bytes)
        self._reply(replies.subscribe_line(ask.id, subscription))
        self._edge.node.release(self)

    async def _history(self, ask: History) -> None:
        since = None if ask.since is None else StreamPosition(ask.since.epoch, ask.since.offset)
        page = await self._edge.node.history(self, ask.channel, ask.limit, since, ask.reverse)
        if since is not None and since.epoch and since.epoch != page.epoch:
            self._reply(replies.error_line(ask.id, codes.UNRECOVERABLE))
            return
        publications = [(frame.offset, frame.payload) for frame in page.missed]
        self._reply(replies.history_line(ask.id, page.epoch, page.offset, publications))

    # ------------------------------------------------------------ time

    def _ttl_seconds(self, identity: Identity) -> int | None:
        if identity.expires_at_us is None:
            return None
        return math.ceil((identity.expires_at_us - self._edge.clock.now_us()) / 1_000_000)

    def _expire_with(self, identity: Identity) -> None:
        ttl_seconds = self._ttl_seconds(identity)
        if ttl_seconds is None:
            self._close_at = math.inf
        else:
            grace_seconds = self._edge.limits.expiry_grace_seconds
            self._close_at = self._edge.wheel.now() + max(ttl_seconds, 0) + grace_seconds

    def _set_deadline(self) -> None:
        if not self._closing:
            deadline = min(self._ping_at, self._pong_at, self._close_at)
            if deadline is not math.inf:
                self._edge.wheel.schedule(self, deadline)

    def on_time(self, now: float) -> None:
        """A deadline came; see which."""
        if self._closing:
            self.drop()  # the closing handshake took too long
        elif now >= self._close_at:
            self._disconnect(self._overdue())
        elif now >= self._pong_at:
            self._disconnect(codes.NO_PONG)
        else:
            if now >= self._ping_at:
                self._ping(now)
            self._set_deadline()

    def _overdue(self) -> Disconnect:
        if self._session.is_connected:
            return codes.EXPIRED
        return codes.STALE if self._session.is_new else codes.SERVER_ERROR

    def ask_proof(self) -> None:
        """Ping at once, or as soon as the last ping is a little older. One is out at a time, so a burst costs few."""
        limits, now = self._edge.limits, self._edge.wheel.now()
        if self._closing or self._pong_at is not math.inf or self._ping_at <= now + limits.proof_seconds:
            return
        earliest = self._ping_at - limits.ping_seconds + limits.proof_seconds
        if earliest <= now:
            self._ping(now)
        else:
            self._ping_at = earliest
        self._set_deadline()

    def _ping(self, now: float) -> None:
        self._asked_us = self._edge.clock.now_us()
        self._ping_at = now + self._edge.limits.ping_seconds
        self._pong_at = now + self._edge.limits.pong_seconds
        if self._frame_pings:
            self.send(ping_frame())
        else:
            self._session.awaits_pong = True
            self.send(_PING)

    # ------------------------------------------------------------ what the node calls

    def encode(self, frame: Frame) -> bytes:
        """A publication as a text frame."""
        return frame.websocket_frame()

    def push_parcel(self, parcel: Parcel) -> None:
        """Send publications that many connections get alike. What most deliveries cost stands here in one place."""
        transport = self._direct
        if transport is not None and self._output is None:
            transport.write(parcel.joined or parcel.websocket())
        else:
            self.send(parcel.websocket())

    def gap(self, channel: str) -> None:
        """Something was missed: the client comes back with its position, or subscribes again."""
        if channel in (BROADCASTS, personal_channel(self.identity.user_id)):
            self._disconnect(codes.GAP)
        else:
            self._session.unsubscribed(channel)
            self._edge.node.unsubscribe(self, channel)
            self._reply(replies.unsubscribed_push(channel, 2500, "insufficient state"))

    # ------------------------------------------------------------ the end

    def close(self, code: int, reason: str) -> None:
        """Close with a code of the protocol; the reason must not be JSON (SDKs would parse it)."""
        self._reader = self._reader or FrameReader(self._edge.limits.message_bytes)
        self._finish(close_frame(code, reason))

    def _disconnect(self, disconnect: Disconnect) -> None:
        self.close(disconnect.code, disconnect.reason)

    def _fail(self, code: int, reason: str) -> None:
        """The peer broke RFC 6455: close, and read no more frames."""
        self._reader = None
        self._finish(close_frame(code, reason))
        transport = self._transport
        if transport is not None and transport.can_write_eof():
            # Not `close`: with bytes unread that would be a reset, which may overtake the close frame.
            transport.write_eof()

    def overflow(self) -> None:
        """A peer that does not read cannot see the close frame for long: the linger ends it."""
        self._disconnect(codes.SLOW)

    def on_left(self) -> None:
        """Leave the node; stop what is being answered."""
        self._session.close()
        if self._joined:
            self._edge.node.leave(self)
        self._edge.remove(self)
