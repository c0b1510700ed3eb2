"""A node on a memory bus that loses what a test wants, and a store of users alone."""

from collections.abc import AsyncIterator
from typing import cast

import pytest

from hub.live.node import LiveNode
from hub.ports import Store
from tests.support.clock import FakeClock
from tests.support.live_wires import LiveStore, LossyBus


@pytest.fixture
def store() -> LiveStore:
    return LiveStore()


@pytest.fixture
def bus(clock: FakeClock) -> LossyBus:
    return LossyBus(clock)


@pytest.fixture
async def live(store: LiveStore, bus: LossyBus, clock: FakeClock) -> AsyncIterator[LiveNode]:
    node = LiveNode(cast("Store", store), bus, clock)
    await node.start()
    yield node
    await node.close()
    await bus.close()
