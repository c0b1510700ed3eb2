"""Live recovery as a state machine: whatever is lost on the way, each client's view equals the naive list.

The naive list of a channel is simply all that was published on it and visible to the user. A client adds what it gets;
when it is told that something is missing, or that its position cannot be recovered, it refetches the list (as from the
inbox). Nothing may be missing from its view without such a word, nothing may come twice, and offsets only grow.
"""

import asyncio
from contextlib import suppress
from typing import Any, cast

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

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
        self.told_gap = False
        self.epochs_after_gap: set[str] = set()

    async def connect(self, node: LiveNode, between: int) -> None:
        wire = FakeWire(self.user_id)
        try:
            joined = await node.join(wire, dict(self.positions))
        except Refused as refused:
            if refused.status != 503:
                raise
            return  # a history could not be read; the client tries again later
        for _ in range(between):
            await asyncio.sleep(0)
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
            self.told_gap = True
            assert self.node is not None
            assert self.wire is not None
            self.node.leave(self.wire)
            self.wire = None

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


class RecoveryMachine(RuleBasedStateMachine):
    """Two nodes on one bus; clients of two users; everything may be lost but the truth."""

    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.clock = FakeClock()
        self.published: dict[str, list[str]] = {personal_channel(user_id): [] for user_id in USERS}
        self.broadcasts: list[Broadcast] = []
        self.entries = 0
        self.last: list[Publication] = []
        self.all: list[Client] = []
        self.cut: set[int] = set()

    @initialize()
    def start(self) -> None:
        async def begin() -> None:
            store = LiveStore()
            store.users = dict(ROWS)
            first = LossyBus(self.clock)
            self.buses = [first, LossyBus(self.clock, beside=first)]
            self.nodes = [LiveNode(cast("Store", store), bus, self.clock) for bus in self.buses]
            for node in self.nodes:
                await node.start()

        self.runner.run(begin())

    def truth(self, user_id: str, channel: str) -> list[str]:
        if channel != BROADCASTS:
            return self.published[channel]
        user = ROWS.get(user_id) or make_user(user_id)
        return [one.id for one in self.broadcasts if visible(one, user, "UTC")]

    def run(self, turns: int = 0) -> None:
        self.runner.run(settle(turns))

    # ------------------------------------------------------------ clients

    @rule(target=clients, user_id=st.sampled_from(USERS), is_sse=st.booleans())
    def come(self, user_id: str, is_sse: bool) -> Client:
        client = Client(self, user_id, is_sse)
        self.all.append(client)
        return client

    @rule(client=clients, node=st.integers(0, 1), between=st.integers(0, 6))
    def connect(self, client: Client, node: int, between: int) -> None:
        if client.wire is None and node not in self.cut:
            self.runner.run(client.connect(self.nodes[node], between))

    @rule(client=clients)
    def disconnect(self, client: Client) -> None:
        client.disconnect()

    # ------------------------------------------------------------ publishing

    @rule(user_id=st.sampled_from(USERS), count=st.integers(1, 4), turns=st.integers(0, 4))
    def publish(self, user_id: str, count: int, turns: int) -> None:
        channel = personal_channel(user_id)
        publications = []
        for _ in range(count):
            self.entries += 1
            text = str(self.entries)
            self.published[channel].append(text)
            one = personal_publication(user_id, text)
            publications.append(
                Publication(one.channel, one.payload, Position(self.entries, 0, 0), one.header)
            )
        self.send(publications, turns)

    @rule(
        topics=st.sampled_from([(), (), ("news",), ("sport",)]),
        actor=st.sampled_from([None, "zoe"]),
        count=st.integers(1, 3),
        turns=st.integers(0, 4),
    )
    def broadcast(self, topics: tuple[str, ...], actor: str | None, count: int, turns: int) -> None:
        publications = []
        for _ in range(count):
            self.entries += 1
            one = make_broadcast(len(self.broadcasts) + 1, *topics, actor=actor)
            self.broadcasts.append(one)
            made = broadcast_publication(one)
            publications.append(Publication(BROADCASTS, made.payload, Position(self.entries, 0, 0)))
        self.send(publications, turns)

    @rule()
    def repeat(self) -> None:
        """A new owner publishes again what the one before it had published."""
        self.send(self.last, 0)

    def send(self, publications: list[Publication], turns: int) -> None:
        async def publish() -> None:
            await self.buses[0].publish(publications)
            await settle(turns)

        self.last = publications
        self.runner.run(publish())

    # ------------------------------------------------------------ faults

    @rule(bus=st.integers(0, 1), count=st.integers(1, 3))
    def lose_messages(self, bus: int, count: int) -> None:
        self.buses[bus].lose = count

    @rule(bus=st.integers(0, 1))
    def fail_a_history(self, bus: int) -> None:
        self.buses[bus].fail_histories = 1

    @rule(channel=st.sampled_from([BROADCASTS, "#alice", "#bob"]), keep=st.integers(0, 3))
    def trim(self, channel: str, keep: int) -> None:
        self.buses[0].trim(channel, keep)

    @rule()
    def wipe(self) -> None:
        self.buses[0].wipe()
        self.last = []  # Redis came back empty: what was announced is not announced again

    @rule(bus=st.integers(0, 1))
    def cut_link(self, bus: int) -> None:
        if bus not in self.cut:
            self.cut.add(bus)
            self.buses[bus].cut()

    @rule(bus=st.integers(0, 1), turns=st.integers(0, 3))
    def restore_link(self, bus: int, turns: int) -> None:
        if bus in self.cut:
            self.cut.discard(bus)
            self.buses[bus].fail_histories = 0

            async def restore() -> None:
                self.buses[bus].restore()
                await settle(turns)

            self.runner.run(restore())

    @rule(behind=st.integers(1, 3), channel=st.sampled_from([BROADCASTS, "#alice", "#bob"]))
    def promote_a_lagging_replica(self, behind: int, channel: str) -> None:
        async def promote() -> None:
            for bus in self.buses:
                bus.cut()
            self.buses[0].lag(channel, behind)
            generation = str(int(self.buses[0].generation) + 1)
            for bus in self.buses:
                bus.generation = generation
                bus.fail_histories = 0
                bus.restore()

        self.cut.clear()
        self.last = []
        self.runner.run(promote())

    @rule(seconds=st.integers(1, 7))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)
        for node in self.nodes:
            self.tick(node)

    def tick(self, node: LiveNode) -> None:
        async def upkeep() -> None:
            with suppress(BusUnavailable):  # as the node's own loop does
                await node.tick()

        self.runner.run(upkeep())

    # ------------------------------------------------------------ what must hold

    @invariant()
    def views_hold_nothing_that_was_not_published(self) -> None:
        for client in self.all:
            for channel, view in client.views.items():
                truth = self.truth(client.user_id, channel)
                assert view == [text for text in truth if text in set(view)]

    @rule()
    def everything_calms_down(self) -> None:
        """With all links up and some time, connected clients have everything; the others get it when they come."""
        for bus in self.buses:
            bus.lose = bus.fail_histories = 0
        for number in list(self.cut):
            self.restore_link(number, 0)
        self.run(50)
        for _ in range(31):
            self.clock.advance(1)
            for node in self.nodes:
                self.tick(node)
        self.run(50)
        for number, client in enumerate(self.all):
            if client.wire is None:
                self.runner.run(client.connect(self.nodes[number % 2], 0))
        self.run(50)
        for client in self.all:
            for channel, view in client.views.items():
                assert view == self.truth(client.user_id, channel)

    def teardown(self) -> None:
        if hasattr(self, "nodes"):
            self.everything_calms_down()

            async def end() -> None:
                for node in self.nodes:
                    await node.close()
                for bus in self.buses:
                    await bus.close()

            self.runner.run(end())
        self.runner.close()


RecoveryMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.req("I4")
@pytest.mark.req("I5")
@pytest.mark.req("I6")
class TestRecovery(RecoveryMachine.TestCase):  # type: ignore[name-defined, misc]
    """Runs the machine."""
