"""A long queue of broadcasts reaches wires in portions, so that one that does not read is never given all of it."""

import pytest

from hub.live.fanout import PORTION_BYTES
from hub.live.node import LiveNode
from hub.live.seam import Parcel
from hub.model.notifications import Content
from hub.model.vocabulary import BROADCASTS
from tests.support.live_wires import (
    FakeWire,
    LiveStore,
    LossyBus,
    broadcast_publication,
    connect,
    make_broadcast,
    make_user,
)


class Scale(FakeWire):
    """Weighs what it is given in one piece."""

    def __init__(self, user_id: str) -> None:
        super().__init__(user_id)
        self.pieces: list[int] = []

    def push_parcel(self, parcel: Parcel) -> None:
        self.pieces.append(len(parcel.websocket()))
        super().push_parcel(parcel)


@pytest.mark.req("I14")
@pytest.mark.parametrize(("size", "pieces"), [(10, 1), (30_000, 7), (300_000, 50)])
async def test_no_piece_is_larger_than_a_portion_or_one_broadcast(
    live: LiveNode, store: LiveStore, bus: LossyBus, size: int, pieces: int
) -> None:
    store.users = {"alice": make_user("alice")}
    wire = Scale("alice")
    await connect(live, wire)
    contents = {"": Content(title="x" * size)}
    broadcasts = [make_broadcast(number, contents=contents) for number in range(1, 51)]
    await bus.publish([broadcast_publication(broadcast) for broadcast in broadcasts])
    await wire.until(lambda: len(wire.offsets(BROADCASTS)) == 50)
    assert wire.offsets(BROADCASTS) == list(range(1, 51))
    assert len(wire.pieces) == pieces
    assert max(wire.pieces) <= max(PORTION_BYTES, size + 1_000)
