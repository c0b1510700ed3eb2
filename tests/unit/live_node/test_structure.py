"""What a delivery and an idle connection are made of. Counts, not times: docs/performance.md has the figures."""

import asyncio
import gc
from collections import Counter

import pytest

from hub.clock import SystemClock
from hub.live import seam
from hub.live.edge import Edge
from hub.live.eventstream import EventStreamConnection
from hub.live.node import LiveNode
from hub.live.seam import Identity
from hub.live.websocket import WebSocketConnection
from tests.support.live_wires import (
    LiveStore,
    LossyBus,
    broadcast_publication,
    make_broadcast,
    make_user,
    settle,
)

CROWD = 300  # more than one slice of a sweep


class Recorder:
    """A transport that takes everything."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def set_write_buffer_limits(self, high: int) -> None: ...
    def get_extra_info(self, name: str) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0


@pytest.fixture
async def edge(live: LiveNode) -> Edge:
    return Edge(live, None, SystemClock())  # type: ignore[arg-type]


async def websocket(live: LiveNode, edge: Edge, user_id: str) -> Recorder:
    connection = WebSocketConnection(edge, None, frame_pings=False)
    transport = Recorder()
    edge.add(connection)
    edge.claim(connection, Identity(user_id, None, 1_000))
    connection.attach(transport)  # type: ignore[arg-type]
    await live.join(connection, {})
    connection._joined = True
    connection._session.connected(user_id)
    live.release(connection)
    return transport


async def stream(live: LiveNode, edge: Edge, user_id: str) -> Recorder:
    connection = EventStreamConnection(edge, chunked=True)
    transport = Recorder()
    edge.add(connection)
    edge.claim(connection, Identity(user_id, None, 1_000))
    await live.join(connection, {})
    connection.start(transport, b"", b"")  # type: ignore[arg-type]
    transport.written.clear()
    return transport


@pytest.mark.req("R1")
async def test_a_broadcast_is_encoded_once_for_each_locale_and_written_once_to_each_connection(
    live: LiveNode, edge: Edge, bus: LossyBus, store: LiveStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    original = seam.text_frame
    monkeypatch.setattr(seam, "text_frame", lambda payload: encoded.append(payload) or original(payload))
    for number in range(CROWD):
        store.users[f"user-{number}"] = make_user(f"user-{number}", locale="ko" if number % 3 else None)
    transports = [await websocket(live, edge, f"user-{number}") for number in range(CROWD)]
    await bus.publish([broadcast_publication(make_broadcast(1))])
    await settle()
    assert len(encoded) == 2
    assert {len(transport.written) for transport in transports} == {1}
    assert (
        len({id(transport.written[0]) for transport in transports}) == 2
    )  # the same bytes, not copies of them


@pytest.mark.req("R1")
async def test_broadcasts_that_come_together_are_one_write_to_each_connection(
    live: LiveNode, edge: Edge, bus: LossyBus
) -> None:
    sockets = [await websocket(live, edge, f"user-{number}") for number in range(CROWD)]
    streams = [await stream(live, edge, f"user-{number}") for number in range(3)]
    await bus.publish([broadcast_publication(make_broadcast(seq)) for seq in range(1, 9)])
    await settle()
    assert {len(transport.written) for transport in (*sockets, *streams)} == {1}
    assert len({id(transport.written[0]) for transport in sockets}) == 1
    assert sockets[0].written[0].count(b'"pub"') == 8
    assert [streams[0].written[0].count(b"event: notification"), streams[0].written[0].count(b"id: 1!")] == [
        8,
        8,
    ]


async def test_no_task_waits_for_a_connection_and_few_objects_are_kept(live: LiveNode, edge: Edge) -> None:
    kept = [await websocket(live, edge, f"early-{number}") for number in range(20)]
    await settle()
    gc.collect()
    tasks = len(asyncio.all_tasks())
    before = Counter(type(found).__name__ for found in gc.get_objects())
    kept += [await websocket(live, edge, f"user-{number}") for number in range(200)]
    await settle()
    gc.collect()
    assert len(asyncio.all_tasks()) == tasks
    grown = Counter(type(found).__name__ for found in gc.get_objects()) - before
    ours = {
        name: count / 200
        for name, count in grown.items()
        # The recorders with their lists, and the channels of the memory bus, are the test's.
        if name not in ("Recorder", "_Channel", "deque", "Identity") and count > 100
    }
    expected = {"WebSocketConnection", "Session", "Seat", "Member", "Channel", "tuple", "list"}
    assert set(ours) <= expected, ours
    assert all(count <= 1.2 for name, count in ours.items() if name not in ("tuple", "list")), ours
    assert ours.get("tuple", 0) <= 3.2, ours  # seats of the user, seats and channels of each other
    assert ours.get("list", 0) <= 2.2, ours  # the recorder's and the memory bus'
