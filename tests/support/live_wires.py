"""Wires without sockets, a store of users alone, and a live bus that loses what a test wants: for tests of the node."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from hub.adapters.memory_bus import MemoryBus
from hub.errors import BusUnavailable, StoreUnavailable
from hub.live.broadcasts import encode_broadcast
from hub.live.node import LiveNode
from hub.live.seam import Frame, Identity, Joined, Parcel, StreamPosition
from hub.model.events import BroadcastAudience
from hub.model.notifications import Broadcast, Content
from hub.model.users import Preferences, Profile, Subscription, User
from hub.model.vocabulary import BROADCASTS, personal_channel
from hub.ports import Clock, History, LogEntry, Message, Publication

_ids = count(1)


class FakeWire:
    """A client that reads everything. Keeps what it got, in order, and lets a test wait for more."""

    def __init__(
        self, user_id: str, *, operator: bool = False, issued_at_us: int = 1_000, transport: str = "websocket"
    ):
        self.connection_id = f"connection-{next(_ids)}"
        self.identity = Identity(user_id, None, issued_at_us, operator)
        self.visible = True
        self.transport = transport
        self.got: list[tuple[str, str, int, bytes]] = []  # channel, epoch, offset, payload
        self.frames: list[Frame] = []
        self.gaps: list[str] = []
        self.closed: tuple[int, str] | None = None
        self.asked = 0  # how often it was asked for a proof
        self.on_push: Callable[[Frame], None] | None = None
        self._news = asyncio.Event()

    def push(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.got.append((frame.channel, frame.epoch, frame.offset, frame.payload))
        self._news.set()
        if self.on_push is not None:
            self.on_push(frame)

    def push_parcel(self, parcel: Parcel) -> None:
        for frame in parcel.frames:
            self.push(frame)

    def gap(self, channel: str) -> None:
        self.gaps.append(channel)
        self._news.set()

    def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)
        self._news.set()

    def ask_proof(self) -> None:
        self.asked += 1

    def payloads(self, channel: str | None = None) -> list[bytes]:
        return [payload for name, _, _, payload in self.got if channel in (None, name)]

    def offsets(self, channel: str) -> list[int]:
        return [offset for name, _, offset, _ in self.got if name == channel]

    async def until(self, condition: Callable[[], bool], timeout_seconds: float = 5.0) -> None:
        async with asyncio.timeout(timeout_seconds):
            while not condition():
                self._news.clear()
                await self._news.wait()


class LiveStore:
    """What the node needs of `Store`: users, reports, settings."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.queries: list[list[str]] = []
        self.reports: list[tuple[str, str, int]] = []
        self.settings: dict[str, str] = {}
        self.away = False
        self.gate: asyncio.Event | None = None  # set it to hold loads back

    async def load_users(self, ids: Sequence[str], with_subscriptions: bool = False) -> dict[str, User]:
        assert with_subscriptions
        self.queries.append(list(ids))
        found = {user_id: self.users[user_id] for user_id in ids if user_id in self.users}
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise StoreUnavailable("The store is away.")
        return found

    async def report_reached(self, reports: Sequence[tuple[str, str, int]]) -> list[LogEntry]:
        if self.away:
            raise StoreUnavailable("The store is away.")
        self.reports += reports
        return []

    async def setting(self, name: str, default: str) -> str:
        return self.settings.setdefault(name, default)

    async def change_setting(self, name: str, expected: str, value: str) -> bool:
        if self.settings.get(name) != expected:
            return False
        self.settings[name] = value
        return True


class LossyBus(MemoryBus):
    """A memory bus that loses messages, hides histories or hangs as a test says."""

    def __init__(self, clock: Clock, *, beside: MemoryBus | None = None) -> None:
        super().__init__(clock, beside=beside)
        self.lose = 0  # the next messages
        self.histories: list[str] = []  # channels whose history was read
        self.fail_histories = 0  # the next reads
        self.gate: asyncio.Event | None = None  # set it to hold histories back
        self.turns = (0, 0)  # of the loop that a history takes, before and after it is read
        self.subscribed: dict[str, int] = defaultdict(int)

    def _hand_over(self, message: Message) -> None:
        if self.lose > 0:
            self.lose -= 1
        else:
            super()._hand_over(message)

    async def history(self, channel: str, after: int, epoch: str | None, limit: int = 300) -> History:
        self.histories.append(channel)
        if self.fail_histories > 0:
            self.fail_histories -= 1
            raise BusUnavailable("The bus is away.")
        await settle(self.turns[0])
        found = await super().history(channel, after, epoch, limit)
        await settle(self.turns[1])
        if self.gate is not None:
            await self.gate.wait()
        return found

    async def subscribe(self, channel: str) -> None:
        await super().subscribe(channel)
        self.subscribed[channel] += 1

    async def unsubscribe(self, channel: str) -> None:
        await super().unsubscribe(channel)
        self.subscribed[channel] -= 1

    def trim(self, channel: str, keep: int) -> None:
        """Lose all but the last messages of a history."""
        held = self.channels.channel(channel).held
        while len(held) > keep:
            held.popleft()

    def lag(self, channel: str, behind: int) -> None:
        """Become a replica that had not got the last publications yet."""
        state = self.channels.channel(channel)
        for _ in range(min(behind, state.offset)):
            state.offset -= 1
            if state.held:
                state.held.pop()


def make_user(
    user_id: str, *, locale: str | None = None, topics: Sequence[str | Subscription] = (), **preferences: Any
) -> User:
    """A stored user; topics are intervals from the first broadcast on."""
    intervals = tuple(t if isinstance(t, Subscription) else Subscription(t, 1) for t in topics)
    return User(
        Profile(user_id, locale=locale), Preferences(**preferences), version=1, subscriptions=intervals
    )


def make_broadcast(seq: int, *topics: str, exclude: Sequence[str] = (), **fields: Any) -> Broadcast:
    """A broadcast to topics, or to everyone when none is named."""
    audience = BroadcastAudience(topics=topics, everyone=not topics, exclude=tuple(exclude))
    return Broadcast(
        **{
            "id": f"ntf_{seq}",
            "seq": seq,
            "event_id": f"evt_{seq}",
            "type": "post",
            "category": "posts",
            "contents": {"": Content(title=f"number {seq}"), "ko": Content(title=f"번호 {seq}")},
            "created_at_us": seq,
            "audience": audience,
            **fields,
        }
    )


def broadcast_publication(broadcast: Broadcast, header: str = "") -> Publication:
    return Publication(BROADCASTS, encode_broadcast(broadcast), header=header)


def personal_publication(user_id: str, text: str, header: str = "kind=notification") -> Publication:
    return Publication(personal_channel(user_id), b'{"n":"%s"}' % text.encode(), header=header)


async def connect(
    node: LiveNode, wire: FakeWire, positions: dict[str, StreamPosition] | None = None
) -> tuple[Joined, Joined]:
    """Join and release; returns (personal, broadcasts)."""
    personal, broadcasts = await node.join(wire, positions or {})
    node.release(wire)
    return personal, broadcasts


async def settle(turns: int = 50) -> None:
    """Let everything that is ready to run do so."""
    for _ in range(turns):
        await asyncio.sleep(0)
