"""A hub node in memory, for tests of the edge: histories in lists, delivery at once, tokens signed with a test key."""

import asyncio
import secrets
import time
from collections import defaultdict
from typing import Any

import jwt
import msgspec

from hub.errors import Refused, TokenError, TokenExpired
from hub.live.seam import Frame, Identity, Joined, StreamPosition, Wire
from hub.model.vocabulary import BROADCASTS, LOG, personal_channel
from hub.origins import OriginPolicy, PublicUrl

SECRET = "a secret for tests alone, long enough for HS256"
SESSION_PREFIX = "session-of-"


def make_token(user_id: str, seconds: float = 3600, **claims: Any) -> str:
    now = time.time()
    return jwt.encode({"sub": user_id, "iat": now, "exp": now + seconds, **claims}, SECRET, algorithm="HS256")


class FakeGate:
    """Accepts `make_token`'s tokens, and sessions named `session-of-<user>`."""

    def __init__(self) -> None:
        self.origins = OriginPolicy(PublicUrl.parse("http://127.0.0.1:8000"), (), any_loopback=True)
        self.failure: Exception | None = None

    async def authenticate(self, token: str) -> Identity:
        if self.failure is not None:
            raise self.failure
        try:
            claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False})
        except jwt.PyJWTError:
            raise TokenError("The token is not good.") from None
        if claims["exp"] + 60 < time.time():  # the leeway of the real one
            raise TokenExpired("The token has expired.")
        operator = claims.get("operator") is True
        expires_at_us = int(claims["exp"] * 1e6)
        return Identity(claims["sub"], expires_at_us, int(claims["iat"] * 1e6), operator)

    async def authenticate_session(self, session: str) -> Identity:
        if not session.startswith(SESSION_PREFIX):
            raise TokenError("This is no session.")
        return Identity(session.removeprefix(SESSION_PREFIX), None, 0)

    def origin_allowed(self, origin: str | None, host: str) -> bool:
        return origin is None or self.origins.allows(origin, host)


class Stream:
    """One channel's history."""

    def __init__(self) -> None:
        self.epoch = "1." + secrets.token_hex(4)
        self.top = 0
        self.frames: list[Frame] = []

    def trim(self) -> None:
        self.frames.clear()

    def wipe(self) -> None:
        self.__init__()


class FakeNode:
    """Implements `hub.live.seam.Node`."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = defaultdict(Stream)
        self.wires: dict[Wire, set[str]] = {}
        self.held: dict[Wire, list[Frame]] = {}
        self.alive: list[Wire] = []
        self.proven_us: list[int] = []  # until when, for each of them
        self.left: list[Wire] = []
        self.calls: list[tuple[str, Any]] = []
        self.changed = asyncio.Event()
        self.join_gate: asyncio.Event | None = None  # set it to hold joins back
        self.rpc_gate: asyncio.Event | None = None
        self.join_failure: Exception | None = None

    # ------------------------------------------------------------ what a test does

    def publish(self, channel: str, payload: dict[str, Any] | bytes, report_id: str = "") -> Frame:
        stream = self.streams[channel]
        stream.top += 1
        raw = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
        frame = Frame(channel, stream.epoch, stream.top, "notification", raw, report_id)
        stream.frames.append(frame)
        for wire, channels in list(self.wires.items()):
            if channel in channels:
                held = self.held.get(wire)
                if held is not None:
                    held.append(frame)
                else:
                    _push(wire, frame)
        return frame

    def of(self, user_id: str) -> list[Wire]:
        return [wire for wire in self.wires if wire.identity.user_id == user_id]

    async def until(self, condition: Any, seconds: float = 5) -> None:
        """Wait until a condition about this node holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    # ------------------------------------------------------------ the seam

    async def join(self, wire: Wire, positions: dict[str, StreamPosition]) -> list[Joined]:
        if self.join_failure is not None:
            raise self.join_failure
        channels = [personal_channel(wire.identity.user_id), BROADCASTS]
        self.wires[wire] = set(channels)
        self.held[wire] = []
        self.changed.set()
        if self.join_gate is not None:
            await self.join_gate.wait()
        self.held[wire] = []  # what came meanwhile is in the histories
        return [self._recover(channel, positions.get(channel)) for channel in channels]

    def _recover(self, channel: str, position: StreamPosition | None) -> Joined:
        stream = self.streams[channel]
        if position is None:
            return Joined(channel, stream.epoch, stream.top)
        missed = [frame for frame in stream.frames if frame.offset > position.offset]
        is_same = position.epoch in ("", stream.epoch) and position.offset <= stream.top
        if is_same and len(missed) == stream.top - position.offset:
            return Joined(channel, stream.epoch, position.offset, True, True, missed)
        return Joined(channel, stream.epoch, stream.top, True)

    def release(self, wire: Wire) -> None:
        for frame in self.held.pop(wire, []):
            _push(wire, frame)
        self.changed.set()

    def leave(self, wire: Wire) -> None:
        self.wires.pop(wire, None)
        self.held.pop(wire, None)
        self.left.append(wire)
        self.changed.set()

    async def subscribe(self, wire: Wire, channel: str, position: StreamPosition | None) -> Joined:
        if channel != LOG or not wire.identity.operator:
            raise Refused(403, "forbidden", "Only operators may listen to the log.")
        self.wires[wire].add(channel)
        self.held[wire] = []
        return self._recover(channel, position)

    def unsubscribe(self, wire: Wire, channel: str) -> None:
        self.wires[wire].discard(channel)
        self.changed.set()

    async def history(
        self, wire: Wire, channel: str, limit: int, since: StreamPosition | None, reverse: bool
    ) -> Joined:
        if channel not in self.wires[wire]:
            raise Refused(403, "forbidden", "Not yours.")
        stream = self.streams[channel]
        frames = stream.frames[::-1] if reverse else stream.frames
        if since is not None:
            frames = [f for f in frames if (f.offset < since.offset if reverse else f.offset > since.offset)]
        return Joined(channel, stream.epoch, stream.top, missed=frames[:limit])

    async def rpc(self, wire: Wire, method: str, data: Any) -> bytes:
        self.calls.append((method, data))
        self.changed.set()
        match method:
            case "unread_count":
                return b'{"unread":2,"unseen":3}'
            case "echo":
                return msgspec.json.encode(data)
            case "wait":
                assert self.rpc_gate is not None
                await self.rpc_gate.wait()
                return b'{"waited":true}'
            case "refuse":
                raise Refused(data["status"], "refused", "As you wish.")
            case "fail":
                raise ValueError("a bug")
        raise Refused(404, "not_found", "No such method.")

    def set_visible(self, wire: Wire, visible: bool) -> None:
        wire.visible = visible
        self.changed.set()

    def proven_alive(self, wire: Wire, until_us: int) -> None:
        self.alive.append(wire)
        self.proven_us.append(until_us)
        self.changed.set()


def _push(wire: Wire, frame: Frame) -> None:
    """As the real node does it: who got what is to be reported is asked for a proof."""
    wire.push(frame)
    if frame.report_id:
        wire.ask_proof()
