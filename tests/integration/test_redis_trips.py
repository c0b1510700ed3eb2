"""How often the program goes to Redis, and over what: what speed rests on, counted."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from hub.adapters import append_groups
from hub.adapters.redis_connection import RedisCommands
from hub.adapters.redis_line import Command
from hub.adapters.redis_queue import RedisQueue
from hub.errors import QueueUnavailable
from hub.ports import Append, Idempotency
from tests.support.proxy import Proxy

PARTITIONS = 3


class CountedCommands(RedisCommands):
    """Counts round trips and their commands."""

    trips: list[int]

    async def try_all(self, commands: Sequence[Command], timeout_seconds: float | None = None) -> list[Any]:
        self.trips.append(len(commands))
        return await super().try_all(commands, timeout_seconds)


@pytest.fixture
async def queue(redis_url: str, redis_prefix: str) -> AsyncIterator[RedisQueue]:
    opened = RedisQueue(redis_url, redis_prefix, PARTITIONS)
    opened._commands.__class__ = CountedCommands
    opened._commands.trips = []  # type: ignore[attr-defined]
    yield opened
    await opened.close()


def trips(queue: RedisQueue) -> list[int]:
    return queue._commands.trips  # type: ignore[attr-defined, no-any-return]


async def entries(url: str, prefix: str) -> list[int]:
    async with Redis.from_url(url) as client:
        return [await client.xlen(f"{prefix}:{{{number}}}:queue") for number in range(PARTITIONS)]


def event(number: int) -> Append:
    return Append(f"evt_{number}", {str(number % PARTITIONS): b"%d" % number})


@pytest.mark.req("R7", "R15")
async def test_callers_of_one_turn_share_one_append(
    queue: RedisQueue, redis_url: str, redis_prefix: str
) -> None:
    await asyncio.gather(*(queue.append([event(number)]) for number in range(300)))
    assert trips(queue) == [1]
    assert await entries(redis_url, redis_prefix) == [1, 1, 1]


@pytest.mark.req("R7", "R15")
async def test_callers_that_come_meanwhile_share_the_next(queue: RedisQueue) -> None:
    first = asyncio.create_task(queue.append([event(0)]))
    while not trips(queue):
        await asyncio.sleep(0)
    await asyncio.gather(first, *(queue.append([event(number)]) for number in range(1, 200)))
    assert trips(queue) == [1, 1]


@pytest.fixture
def endless_gathering(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only enough callers end a gathering, never its time."""
    monkeypatch.setattr(append_groups, "GATHER_SECONDS", 600.0)
    monkeypatch.setattr(append_groups, "ENOUGH_SLICES", 3)


async def gathering(queue: RedisQueue, count: int) -> list[asyncio.Task[Any]]:
    """Callers that wait after a trip that was shared."""
    await asyncio.gather(*(queue.append([event(number)]) for number in range(2)))
    callers = [asyncio.create_task(queue.append([event(9 + number)])) for number in range(count)]
    while queue._appends._enough is None:
        await asyncio.sleep(0)
    return callers


@pytest.mark.req("R7", "R15")
@pytest.mark.usefixtures("endless_gathering")
async def test_after_a_shared_trip_the_next_waits_for_company(queue: RedisQueue) -> None:
    callers = await gathering(queue, 2)
    assert len(trips(queue)) == 1
    await asyncio.gather(*callers, queue.append([event(20)]))
    assert trips(queue) == [1, 1]


@pytest.mark.req("R7", "R15")
@pytest.mark.usefixtures("endless_gathering")
async def test_who_publishes_alone_never_waits(queue: RedisQueue) -> None:
    for number in range(5):
        await queue.append([event(number)])
    assert trips(queue) == [1] * 5


@pytest.mark.req("R7", "R15")
@pytest.mark.usefixtures("endless_gathering")
async def test_a_batch_that_is_enough_does_not_wait(queue: RedisQueue) -> None:
    await asyncio.gather(*(queue.append([event(number)]) for number in range(2)))
    await queue.append([event(number) for number in range(10, 13)])
    assert trips(queue) == [1, 1]


@pytest.mark.req("I1", "R7")
@pytest.mark.usefixtures("endless_gathering")
async def test_who_waits_for_company_when_the_queue_closes_hears_that_nothing_happened(
    queue: RedisQueue,
) -> None:
    callers = await gathering(queue, 2)
    closing = asyncio.create_task(queue.close())
    for caller in callers:
        with pytest.raises(QueueUnavailable, match="nothing was appended"):
            await caller
    await closing
    assert len(trips(queue)) == 1


@pytest.mark.req("R7", "R15")
@pytest.mark.parametrize("size", [1, 100, 1000])
async def test_a_batch_is_one_command_and_one_entry_per_partition(
    queue: RedisQueue, redis_url: str, redis_prefix: str, size: int
) -> None:
    await queue.append([event(number) for number in range(size)])
    assert trips(queue) == [1]
    assert await entries(redis_url, redis_prefix) == [1] * min(size, PARTITIONS) + [0] * max(
        0, PARTITIONS - size
    )
    read = await queue.read("0", None, 10_000, 0)
    assert [part.raw for part in read] == [b"%d" % number for number in range(0, size, PARTITIONS)]
    assert [part.position.index for part in read] == list(range(len(read)))


async def test_events_with_and_without_keys_keep_their_order(queue: RedisQueue) -> None:
    events = [
        Append(f"evt_{number}", {"0": b"%d" % number}, Idempotency(f"k{number}", "d") if number % 3 else None)
        for number in range(30)
    ]
    await queue.append(events)
    again = await queue.append([*events[1:3], Append("evt_x", {"0": b"x"})])
    assert [one.replayed for one in again] == [True, True, False]  # type: ignore[union-attr]
    raws = [part.raw for part in await queue.read("0", None, 1000, 0)]
    assert raws == [*(b"%d" % number for number in range(30)), b"x"]
    assert (await queue.waiting())["0"] == 31


async def test_what_only_looks_like_a_pack_is_handed_over(
    queue: RedisQueue, redis_url: str, redis_prefix: str
) -> None:
    async with Redis.from_url(redis_url) as client:
        await client.xadd(
            f"{redis_prefix}:{{0}}:queue", {"7=": b"\xff no pack", "=": b"\x92\xc4\x01a\xc4\x01b"}
        )
    assert [part.raw for part in await queue.read("0", None, 10, 0)] == [b"\xff no pack", b"a", b"b"]


# ---------------------------------------------------------------- one connection for all


async def connections(url: str) -> int:
    async with Redis.from_url(url) as client:
        return len(await client.client_list())


@pytest.mark.req("R15")
async def test_callers_share_one_connection_and_get_their_own_answers(
    redis_url: str, redis_prefix: str
) -> None:
    commands = RedisCommands(redis_url, QueueUnavailable, 5)
    before = await connections(redis_url)
    answers = await asyncio.gather(*(commands.call("ECHO", str(number)) for number in range(200)))
    assert answers == [b"%d" % number for number in range(200)]
    assert await connections(redis_url) == before + 1
    await commands.close()


async def test_who_gives_up_shifts_nobody_elses_answer(redis_url: str) -> None:
    commands = RedisCommands(redis_url, QueueUnavailable, 5)
    await commands.call("PING")
    tasks = [asyncio.create_task(commands.call("ECHO", str(number))) for number in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1::2] == [b"%d" % number for number in range(1, 50, 2)]
    assert all(isinstance(one, asyncio.CancelledError) for one in answers[::2])
    await commands.close()


async def test_a_command_that_waits_holds_up_no_other(redis_url: str, redis_prefix: str) -> None:
    commands = RedisCommands(redis_url, QueueUnavailable, 5)
    waiting = asyncio.create_task(
        commands.call("XREAD", "BLOCK", 0, "STREAMS", f"{redis_prefix}:ingest", "$", wait_seconds=60)
    )
    assert await commands.call("PING") == b"PONG"
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert await commands.call("PING") == b"PONG"
    await commands.close()


async def test_a_connection_that_does_not_answer_is_given_up(redis_url: str) -> None:
    async with Proxy(path=redis_url.partition("?")[0].removeprefix("unix://")) as proxy:
        commands = RedisCommands(proxy.url, QueueUnavailable, 0.2)
        assert await commands.call("PING") == b"PONG"
        proxy.freeze()
        with pytest.raises(QueueUnavailable, match="did not answer in time"):
            await commands.call("ECHO", "late")
        proxy.thaw()
        assert await commands.call("ECHO", "now") == b"now"
        assert proxy.accepted == 2
        await commands.close()


async def test_error_replies_stay_in_their_place(redis_url: str) -> None:
    commands = RedisCommands(redis_url, QueueUnavailable, 5)
    first, second, third = await commands.try_all([("PING",), ("NO", "SUCH"), ("ECHO", "x")])
    assert (first, third) == (b"PONG", b"x")
    assert isinstance(second, Exception)
    with pytest.raises(QueueUnavailable, match="Redis refused"):
        await commands.call("NO", "SUCH")
    await commands.close()
