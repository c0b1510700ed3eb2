"""What ends batches (looking for retractions, trimming) holds up none, happens once for many, and is made up for."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from hub.adapters.memory_queue import MemoryQueue
from hub.errors import QueueUnavailable, StoreUnavailable
from hub.generator import Trimmer
from hub.ports import Position
from tests.support.clock import FakeClock


class Queue(MemoryQueue):
    """Notes the trims; they end when the test says so."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, 4)
        self.trims: list[Position] = []
        self.trimmed: list[tuple[str, Position]] = []
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.away = False

    async def trim(self, partition: str, through: Position) -> None:
        self.trims.append(through)
        self.trimmed.append((partition, through))
        self.begun.set()
        await self.open.wait()
        if self.away:
            raise QueueUnavailable("Redis is away.")
        await super().trim(partition, through)


class Told:
    """Notes what was looked at for retractions, and how many trims had been there before."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.looks: list[tuple[int, list[Any]]] = []
        self.away = False
        self.asked = asyncio.Event()

    async def __call__(self, announcements: Sequence[Any]) -> None:
        self.asked.set()
        if self.away:
            raise StoreUnavailable("The database is away.")
        self.looks.append((len(self.queue.trims), list(announcements)))


async def bring_nothing_forward(notifications: Sequence[tuple[str, str]]) -> None:
    raise AssertionError(f"Nobody told of {notifications}.")


def trimmer_of(queue: Queue, told: Told | None = None) -> Trimmer:
    return Trimmer(queue, told or Told(queue), bring_nothing_forward)


def at(ms: int) -> Position:
    return Position(ms, 0, 0)


async def test_many_batches_share_a_trim_and_wait_for_none(clock: FakeClock) -> None:
    queue = Queue(clock)
    trimmer = trimmer_of(queue)
    for ms in range(1, 11):
        trimmer.done_through("1", at(ms))
    await queue.begun.wait()
    assert queue.trims == [at(10)]
    trimmer.done_through("1", at(11))  # while it is under way
    queue.open.set()
    queue.begun.clear()
    await queue.begun.wait()
    assert queue.trims == [at(10), at(11)]
    await trimmer.finish("1")
    assert queue.trims[2:] in ([], [at(11)])  # repeated at most when it was cut off


async def test_the_end_trims_what_is_left_at_once(clock: FakeClock) -> None:
    queue = Queue(clock)
    queue.open.set()
    trimmer = trimmer_of(queue)
    trimmer.done_through("1", at(1))
    await trimmer.finish("1")
    assert queue.trims == [at(1)]
    await trimmer_of(queue).finish("1")
    assert queue.trims == [at(1)]


async def test_the_end_does_not_wait_for_redis(clock: FakeClock) -> None:
    queue = Queue(clock)
    queue.open.set()
    queue.away = True
    trimmer = trimmer_of(queue)
    trimmer.done_through("1", at(1))
    await trimmer.finish("1")
    assert queue.trims == [at(1)]
    trimmer.forget("1")


async def test_retractions_of_many_batches_are_looked_for_once_and_before_the_trim(clock: FakeClock) -> None:
    queue = Queue(clock)
    queue.open.set()
    told = Told(queue)
    trimmer = trimmer_of(queue, told)
    rows: list[Any] = ["first", "second", "third"]
    for ms, row in enumerate(rows, 1):
        trimmer.announced("1", [row])
        trimmer.done_through("1", at(ms))
    await queue.begun.wait()
    assert told.looks == [(0, rows)]
    assert queue.trims == [at(3)]
    await trimmer.finish("1")


async def test_nothing_is_trimmed_whose_retractions_could_not_be_looked_for(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.generator.WAIT_SECONDS", 0.01)
    queue = Queue(clock)
    queue.open.set()
    told = Told(queue)
    told.away = True
    trimmer = trimmer_of(queue, told)
    row: Any = "row"
    trimmer.announced("1", [row])
    trimmer.done_through("1", at(1))
    await told.asked.wait()
    assert not queue.trims
    told.away = False
    await queue.begun.wait()
    assert told.looks == [(0, ["row"])]
    assert queue.trims == [at(1)]
    await trimmer.finish("1")


async def test_all_partitions_share_a_look_and_a_moment(clock: FakeClock) -> None:
    queue = Queue(clock)
    queue.open.set()
    told = Told(queue)
    trimmer = trimmer_of(queue, told)
    for partition, row in (("1", "one"), ("2", "two"), ("lane", "three")):
        rows: list[Any] = [row]
        trimmer.announced(partition, rows)
        trimmer.done_through(partition, at(7))
    await queue.begun.wait()
    assert told.looks == [(0, ["one", "two", "three"])]
    assert queue.trimmed == [("1", at(7)), ("2", at(7)), ("lane", at(7))]
    for partition in ("1", "2", "lane"):
        await trimmer.finish(partition)


async def test_what_nobody_heard_is_brought_forward_once_and_lost_when_the_database_is_away(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.generator.WAIT_SECONDS", 0.01)
    queue = Queue(clock)
    queue.open.set()
    brought: list[Sequence[tuple[str, str]]] = []
    away = True

    async def bring_forward(notifications: Sequence[tuple[str, str]]) -> None:
        brought.append(notifications)
        if away:
            raise StoreUnavailable("The database is away.")

    trimmer = Trimmer(queue, Told(queue), bring_forward)
    for number, alone in enumerate(([("alice", "ntf_1")], [], [("bob", "ntf_2")]), 1):
        trimmer.unheard("1", alone)
        trimmer.done_through("1", at(number))
    await queue.begun.wait()
    assert brought == [[("alice", "ntf_1"), ("bob", "ntf_2")]]
    assert queue.trims == [at(3)], "and what cannot be brought forward holds up no trim"
    away = False
    trimmer.unheard("1", [("carol", "ntf_3")])
    trimmer.done_through("1", at(4))
    await trimmer.finish("1")
    assert brought[1:] == [[("carol", "ntf_3")]]
    assert queue.trims[-1] == at(4)


async def test_the_end_of_one_partition_leaves_the_others_alone(clock: FakeClock) -> None:
    queue = Queue(clock)
    queue.open.set()
    trimmer = trimmer_of(queue)
    for partition in ("1", "2"):
        trimmer.done_through(partition, at(3))
    trimmer.forget("1")  # its lease was lost
    await queue.begun.wait()
    assert queue.trimmed == [("2", at(3))]
    await trimmer.finish("2")
