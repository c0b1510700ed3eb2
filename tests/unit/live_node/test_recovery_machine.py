"""Live recovery as a state machine: whatever is lost on the way, each client's view equals the naive list.

The naive list of a channel is simply all that was published on it and visible to the user. A client adds what it gets;
when it is told that something is missing, or that its position cannot be recovered, it refetches the list (as from the
inbox). Nothing may be missing from its view without such a word, nothing may come twice, and offsets only grow.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from itertools import product
from typing import Any, cast

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hub.errors import BusUnavailable, Refused
from hub.live.node import LiveNode
from hub.live.seam import Frame, Joined, StreamPosition
from hub.model.notifications import Broadcast
from hub.model.users import Muted, User
from hub.model.visibility import visible
from hub.model.vocabulary import BROADCASTS, personal_channel
from hub.ports import Position, Publication, Store
from tests.support.clock import FakeClock
from tests.support.live_wires import (
    FakeWire,
    LiveStore,
    LossyBus,
    broadcast_publication,
    make_broadcast,
    make_user,
    personal_publication,
    settle,
)

USERS = ("alice", "bob")
ROWS: dict[str, User] = {"alice": make_user("alice", topics=["news"], muted=Muted(actors=["zoe"]))}


class Client:
    """A client of one user that keeps its view and its positions through reconnects. SSE clients stay after a gap."""

    def __init__(self, machine: "RecoveryMachine", user_id: str, is_sse: bool) -> None:
        self.machine = machine
        self.user_id = user_id
        self.is_sse = is_sse
        self.channels = (personal_channel(user_id), BROADCASTS)
        self.positions: dict[str, StreamPosition] = {}
        self.views: dict[str, list[str]] = {channel: [] for channel in self.channels}
        self.fetched: dict[str, set[str]] = {channel: set() for channel in self.channels}
        self.wire: FakeWire | None = None
        self.node: LiveNode | None = None
        self.epochs_after_gap: set[str] = set()

    async def connect(self, node: LiveNode, between: int = 0) -> None:
        wire = FakeWire(self.user_id)
        try:
            joined = await node.join(wire, dict(self.positions))
        except Refused as refused:
            if refused.status != 503:
                raise
            return  # a history could not be read; the client tries again later
        await settle(between)
        self.wire, self.node = wire, node
        for one in joined:
            self.read_reply(one)
        wire.on_push = self.read_frame
        wire.gap = self.read_gap  # type: ignore[method-assign]
        node.release(wire)

    def read_reply(self, joined: Joined) -> None:
        asked = self.positions.get(joined.channel)
        assert joined.was_recovering == (asked is not None)
        self.positions[joined.channel] = StreamPosition(joined.epoch, joined.offset)
        if joined.recovered:
            for frame in joined.missed:
                self.read_frame(frame)
        else:
            assert not joined.missed
            self.refetch(joined.channel)

    def read_frame(self, frame: Frame) -> None:
        """Strictly later than all before; on the personal channel the very next."""
        position = self.positions[frame.channel]
        if position.epoch == frame.epoch:
            if frame.channel == BROADCASTS:
                assert frame.offset > position.offset
            else:
                assert frame.offset == position.offset + 1
        else:
            assert frame.channel in self.epochs_after_gap, "another epoch without a word"
            self.epochs_after_gap.discard(frame.channel)
        self.positions[frame.channel] = StreamPosition(frame.epoch, frame.offset)
        text = text_of(frame.payload)
        if text in self.fetched[frame.channel]:
            self.fetched[frame.channel].discard(text)  # merged by id
            return
        assert text not in self.views[frame.channel], "twice"
        self.views[frame.channel].append(text)

    def read_gap(self, channel: str) -> None:
        if self.is_sse:
            self.epochs_after_gap.add(channel)
            # An SSE client's cursor stays where it was: the same epoch may go on from a lower top.
            self.positions[channel] = StreamPosition("gone", 0)
            self.refetch(channel)
        else:
            self.disconnect()

    def refetch(self, channel: str) -> None:
        truth = self.machine.truth(self.user_id, channel)
        self.views[channel] = list(truth)
        self.fetched[channel] = set(truth)

    def disconnect(self) -> None:
        if self.wire is not None and self.node is not None:
            self.node.leave(self.wire)
        self.wire = None


def text_of(payload: bytes) -> str:
    body: dict[str, Any] = msgspec.json.decode(payload)
    return str(body["n"] if "n" in body else body["notification"]["id"])


CHANNELS = (BROADCASTS, "#alice", "#bob")
few = st.integers(0, 3)
some_clients = st.integers(0, 3)
either = st.integers(0, 1)


class RecoveryMachine(RuleBasedStateMachine):
    """Two nodes on one bus; four clients of two users; everything may be lost but the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.published: dict[str, list[str]] = {personal_channel(user_id): [] for user_id in USERS}
        self.broadcasts: list[Broadcast] = []
        self.entries = 0
        self.last: list[Publication] = []
        self.cut: set[int] = set()
        self.clients: list[Client] = []

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(work)

    @initialize(before=few, after=few)
    def start(self, before: int, after: int) -> None:
        """Histories take their time, so that things happen while one is read."""

        async def begin() -> None:
            store = LiveStore()
            store.users = dict(ROWS)
            first = LossyBus(self.clock)
            self.buses = [first, LossyBus(self.clock, beside=first)]
            self.nodes = [LiveNode(cast("Store", store), bus, self.clock) for bus in self.buses]
            for node in self.nodes:
                await node.start()
            for number, (user_id, is_sse) in enumerate(product(USERS, (False, True))):
                self.clients.append(Client(self, user_id, is_sse))
                await self.clients[-1].connect(self.nodes[number % 2])
            for bus in self.buses:
                bus.turns = (before, after)

        self.run(begin())

    def truth(self, user_id: str, channel: str) -> list[str]:
        if channel != BROADCASTS:
            return self.published[channel]
        user = ROWS.get(user_id) or make_user(user_id)
        return [one.id for one in self.broadcasts if visible(one, user, "UTC")]

    def make(self, channel: str, topics: tuple[str, ...] = (), actor: str | None = None) -> Publication:
        """Publish in truth; what becomes of it live is another matter."""
        self.entries += 1
        if channel == BROADCASTS:
            row = make_broadcast(len(self.broadcasts) + 1, *topics, actor=actor)
            self.broadcasts.append(row)
            made = broadcast_publication(row)
        else:
            self.published[channel].append(str(self.entries))
            made = personal_publication(channel[1:], str(self.entries))
        return Publication(channel, made.payload, Position(self.entries, 0, 0), made.header)

    # ------------------------------------------------------------ what happens

    @rule(
        channel=st.sampled_from(CHANNELS),
        count=st.integers(1, 3),
        lost=st.tuples(few, few),
        failing=st.tuples(either, either),
        turns=few,
        topics=st.sampled_from([(), ("news",), ("sport",)]),
        actor=st.sampled_from([None, "zoe"]),
    )
    def publish(
        self,
        channel: str,
        count: int,
        lost: tuple[int, int],
        failing: tuple[int, int],
        turns: int,
        topics: tuple[str, ...],
        actor: str | None,
    ) -> None:
        """Some of it, or of what comes next, does not arrive at one node or another."""

        async def publish() -> None:
            for bus, lose, fail in zip(self.buses, lost, failing, strict=True):
                bus.lose, bus.fail_histories = lose, fail
            await self.buses[0].publish(self.last)
            await settle(turns)

        self.last = [self.make(channel, topics, actor) for _ in range(count)]
        self.run(publish())

    @rule(channel=st.sampled_from(CHANNELS), count=st.integers(1, 3))
    def publish_well(self, channel: str, count: int) -> None:
        self.last = [self.make(channel) for _ in range(count)]
        self.repeat()

    @rule()
    def repeat(self) -> None:
        """A new owner publishes again what the one before it had published."""

        async def publish() -> None:
            await self.buses[0].publish(self.last)

        self.run(publish())

    @rule(client=some_clients)
    def disconnect(self, client: int) -> None:
        self.clients[client].disconnect()

    @rule(
        client=some_clients,
        node=either,
        channel=st.sampled_from(CHANNELS),
        early=st.integers(0, 9),
        between=few,
    )
    def reconnect(self, client: int, node: int, channel: str, early: int, between: int) -> None:
        """A client comes back, on either node, and something is published while it joins."""
        one = self.clients[client]
        one.disconnect()
        if node in self.cut:
            return

        async def join() -> None:
            work = asyncio.create_task(one.connect(self.nodes[node], between))
            await settle(early)
            await self.buses[0].publish(self.last)
            await work

        self.last = [self.make(channel)]
        self.run(join())

    @rule(
        channel=st.sampled_from(CHANNELS), keep=few, kind=st.sampled_from(["trim", "trim", "wipe", "promote"])
    )
    def redis_fails(self, channel: str, keep: int, kind: str) -> None:
        """A history is trimmed, Redis comes back empty, or a replica takes over that lacks the last publications."""
        if kind == "trim":
            self.buses[0].trim(channel, keep)
            return
        self.last = []  # what was announced is not announced again
        if kind == "wipe":
            self.buses[0].wipe()
            return
        for number, bus in enumerate(self.buses):
            if number not in self.cut:
                bus.cut()
        self.buses[0].lag(channel, keep + 1)
        generation = str(int(self.buses[0].generation) + 1)
        for bus in self.buses:
            bus.generation = generation
        self.run(self.restore(0, 1))

    @rule(bus=either)
    def cut_link(self, bus: int) -> None:
        if bus not in self.cut:
            self.cut.add(bus)
            self.buses[bus].cut()

    @rule(bus=either, turns=few)
    def restore_link(self, bus: int, turns: int) -> None:
        if bus in self.cut:
            self.run(self.restore(bus))
            self.run(settle(turns))

    @rule(bus=either, channels=st.lists(st.sampled_from(CHANNELS), min_size=1, max_size=4))
    def outage(self, bus: int, channels: list[str]) -> None:
        """A link that is back and holds shows everything at once, also what was lost before without a word."""

        async def outage() -> None:
            if bus not in self.cut:
                self.buses[bus].cut()
            await self.buses[0].publish(self.last)
            await self.restore(bus)
            await self.patiently(bus)

        self.last = [self.make(channel) for channel in channels]
        self.run(outage())
        self.check(self.connected_to(bus))

    def connected_to(self, bus: int) -> list[Client]:
        return [client for client in self.clients if client.wire and client.node is self.nodes[bus]]

    async def patiently(self, bus: int) -> None:
        """Give repairs the loop, for as long as a busy machine may need; the clock stands still meanwhile."""
        for _ in range(200):
            await settle(150)
            if all(self.is_complete(client) for client in self.connected_to(bus)):
                return
            await asyncio.sleep(0.01)

    async def restore(self, *numbers: int) -> None:
        for number in numbers:
            self.buses[number].lose = self.buses[number].fail_histories = 0
            self.buses[number].restore()
            self.cut.discard(number)

    @rule(seconds=st.integers(1, 7))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.run(self.tick())

    async def tick(self) -> None:
        for node in self.nodes:
            with suppress(BusUnavailable):  # as the node's own loop does
                await node.tick()

    # ------------------------------------------------------------ what must hold

    @invariant()
    def views_are_in_order_and_hold_nothing_else(self) -> None:
        for client in self.clients:
            for channel, view in client.views.items():
                seen = set(view)
                assert view == [text for text in self.truth(client.user_id, channel) if text in seen]

    def is_complete(self, client: Client) -> bool:
        return all(view == self.truth(client.user_id, channel) for channel, view in client.views.items())

    def check(self, clients: Iterable[Client]) -> None:
        for client in clients:
            for channel, view in client.views.items():
                assert view == self.truth(client.user_id, channel)

    def teardown(self) -> None:
        """With all links up and some time, connected clients have everything; the others get it when they come."""
        if self.clients:
            self.run(self.calm_down())
            self.check(self.clients)
            self.run(self.end())
        self.loop.close()

    async def calm_down(self) -> None:
        for bus in self.buses:
            bus.lose = bus.fail_histories = 0
        await self.restore(*self.cut)
        for _ in range(31):
            self.clock.advance(1)
            await self.tick()
        await settle(50)
        for number, client in enumerate(self.clients):
            if client.wire is None:
                await client.connect(self.nodes[number % 2])
        await settle(50)

    async def end(self) -> None:
        for node in self.nodes:
            await node.close()
        for bus in self.buses:
            await bus.close()


RecoveryMachine.TestCase.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.req("I4")
@pytest.mark.req("I5")
@pytest.mark.req("I6")
class TestRecovery(RecoveryMachine.TestCase):  # type: ignore[name-defined, misc]
    """Runs the machine."""
