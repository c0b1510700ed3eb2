"""Trimming a partition's stream holds up no batch, happens once for many, and is made up for at the end."""

import asyncio

from hub.adapters.memory_queue import MemoryQueue
from hub.errors import QueueUnavailable
from hub.generator import Trimmer
from hub.ports import Position
from tests.support.clock import FakeClock


class Queue(MemoryQueue):
    """Notes the trims; they end when the test says so."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, 4)
        self.trims: list[Position] = []
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.away = False

    async def trim(self, partition: str, through: Position) -> None:
        self.trims.append(through)
        self.begun.set()
        await self.open.wait()
        if self.away:
            raise QueueUnavailable("Redis is away.")
        await super().trim(partition, through)


def at(ms: int) -> Position:
    return Position(ms, 0, 0)


async def test_many_batches_share_a_trim_and_wait_for_none(clock: FakeClock) -> None:
    queue = Queue(clock)
    trimmer = Trimmer(queue, "1")
    for ms in range(1, 11):
        trimmer.done_through(at(ms))
    await queue.begun.wait()
    assert queue.trims == [at(10)]
    trimmer.done_through(at(11))  # while it is under way
    queue.open.set()
    queue.begun.clear()
    await queue.begun.wait()
    assert queue.trims == [at(10), at(11)]
    await trimmer.finish()
    assert queue.trims[2:] in ([], [at(11)])  # repeated at most when it was cut off


async def test_the_end_trims_what_is_left_at_once(clock: FakeClock) -> None:
    queue = Queue(clock)
    queue.open.set()
    trimmer = Trimmer(queue, "1")
    trimmer.done_through(at(1))
    await trimmer.finish()
    assert queue.trims == [at(1)]
    await Trimmer(queue, "1").finish()
    assert queue.trims == [at(1)]


async def test_the_end_does_not_wait_for_redis(clock: FakeClock) -> None:
    queue = Queue(clock)
    queue.open.set()
    queue.away = True
    trimmer = Trimmer(queue, "1")
    trimmer.done_through(at(1))
    await trimmer.finish()
    assert queue.trims == [at(1)]
    trimmer.cancel()
