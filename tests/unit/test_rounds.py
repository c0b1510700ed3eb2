"""What partitions of one process share: reads and calls are joined, and what concerns one of them stays with it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from hub import rounds
from hub.errors import QueueUnavailable, StoreUnavailable
from hub.ports import Position, QueuedSlice
from hub.rounds import Joint, Rounds, Slices

PATIENCE_SECONDS = 5.0


def part(number: int) -> QueuedSlice:
    return QueuedSlice(Position(number, 0, 0), b"%d" % number)


class Streams:
    """Notes the reads; each is answered by the test."""

    def __init__(self) -> None:
        self.reads: list[tuple[dict[str, Position | None], float]] = []
        self.answers: asyncio.Queue[Slices | Exception] = asyncio.Queue()
        self.begun = asyncio.Event()

    async def read(self, after: Mapping[str, Position | None], wait_seconds: float) -> Slices:
        self.reads.append((dict(after), wait_seconds))
        self.begun.set()
        answer = await self.answers.get()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.reads) < count:
                self.begun.clear()
                await self.begun.wait()


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
def stops() -> dict[str, asyncio.Event]:
    return {name: asyncio.Event() for name in ("0", "1", "lane")}


@asynccontextmanager
async def taking_part(streams: Streams, stops: dict[str, asyncio.Event]) -> AsyncIterator[Rounds]:
    together = Rounds(streams.read)
    async with AsyncExitStack() as stack:
        for name, stop in stops.items():
            await stack.enter_async_context(together.member(name, stop))
        yield together


def asking(together: Rounds, *names: str) -> list[asyncio.Task[Sequence[QueuedSlice]]]:
    return [asyncio.create_task(together.read(name, None)) for name in names]


@pytest.mark.req("R23")
async def test_those_that_wait_share_a_read(streams: Streams, stops: dict[str, asyncio.Event]) -> None:
    async with taking_part(streams, stops) as together:
        zero, one, lane = asking(together, "0", "1", "lane")
        streams.answers.put_nowait({"0": [part(1)], "lane": [part(2)]})
        assert await zero == [part(1)]
        assert await lane == [part(2)]
        assert streams.reads[0] == ({"0": None, "1": None, "lane": None}, rounds.WAIT_SECONDS)
        assert not one.done()
        again = [asyncio.create_task(together.read(name, Position(2, 0, 0))) for name in ("0", "lane")]
        await streams.until(2)  # only when both were back
        assert streams.reads[1][0] == {"0": Position(2, 0, 0), "1": None, "lane": Position(2, 0, 0)}
        streams.answers.put_nowait({name: [part(3)] for name in stops})
        assert await asyncio.gather(one, *again) == [[part(3)]] * 3
    assert len(streams.reads) == 2


@pytest.mark.req("R23", "I12")
async def test_a_slow_partition_holds_up_the_others_only_a_moment(
    streams: Streams, stops: dict[str, asyncio.Event]
) -> None:
    async with taking_part(streams, stops) as together:
        zero, one = asking(together, "0", "1")  # the lane still works
        await streams.until(1)
        assert streams.reads == [
            ({"0": None, "1": None}, 0)
        ]  # it waits for nothing: who comes back is read for at once
        streams.answers.put_nowait({"0": [part(1)], "1": [part(1)]})
        await asyncio.gather(zero, one)


async def test_who_comes_back_late_need_not_wait_for_news_of_the_others(
    streams: Streams, stops: dict[str, asyncio.Event]
) -> None:
    async with taking_part(streams, stops) as together:
        zero, one = asking(together, "0", "1")
        await streams.until(1)
        [lane] = asking(together, "lane")
        streams.answers.put_nowait({})  # nothing was there
        await streams.until(2)
        assert set(streams.reads[1][0]) == {"0", "1", "lane"}
        streams.answers.put_nowait({name: [part(1)] for name in stops})
        await asyncio.gather(zero, one, lane)


async def test_a_newcomer_is_read_for_at_once(streams: Streams, stops: dict[str, asyncio.Event]) -> None:
    lane = stops.pop("lane")
    async with taking_part(streams, stops) as together:
        waiting = asking(together, "0", "1")
        await streams.until(1)  # blocks, since nobody has anything
        async with together.member("lane", lane):
            waiting += asking(together, "lane")
            await streams.until(2)
            assert set(streams.reads[1][0]) == {"0", "1", "lane"}
            streams.answers.put_nowait({name: [part(1)] for name in ("0", "1", "lane")})
            assert await asyncio.gather(*waiting) == [[part(1)]] * 3


async def test_a_round_of_several_events_is_not_followed_at_once(
    streams: Streams, stops: dict[str, asyncio.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with taking_part(streams, stops) as together:
        waiting = asking(together, *stops)
        streams.answers.put_nowait({"0": [part(1)]})  # one event alone
        await waiting[0]
        monkeypatch.setattr(rounds, "APART_SECONDS", 3600)
        waiting[0] = asyncio.create_task(together.read("0", Position(1, 0, 0)))
        await streams.until(2)
        streams.answers.put_nowait({"0": [part(2)], "1": [part(2)]})
        await asyncio.gather(*waiting[:2])
        waiting[:2] = asking(together, "0", "1")
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(streams.reads) == 2
        stops["1"].set()
        assert await waiting[1] == []  # who shall stop does not wait for it
        for task in waiting:
            task.cancel()


@pytest.mark.req("I15")
async def test_who_shall_stop_waits_no_longer(streams: Streams, stops: dict[str, asyncio.Event]) -> None:
    async with taking_part(streams, stops) as together:
        zero, one, lane = asking(together, *stops)
        await streams.until(1)
        stops["1"].set()
        assert await one == []
        assert not zero.done()
        assert not lane.done()
        streams.answers.put_nowait({"0": [part(1)], "1": [part(1)], "lane": [part(1)]})
        assert await asyncio.gather(zero, lane) == [[part(1)]] * 2


async def test_a_read_that_fails_is_told_to_those_who_wait(
    streams: Streams, stops: dict[str, asyncio.Event]
) -> None:
    async with taking_part(streams, stops) as together:
        waiting = asking(together, *stops)
        streams.answers.put_nowait(QueueUnavailable("Redis is away."))
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [QueueUnavailable] * 3


# ---------------------------------------------------------------- calls of one turn


class Doubler:
    """Answers with twice the number; 13 makes it raise."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.away = False
        self.open: asyncio.Event | None = None

    async def __call__(self, numbers: Sequence[int]) -> Sequence[int]:
        self.calls.append(list(numbers))
        if self.open is not None:
            await self.open.wait()
        if self.away:
            raise StoreUnavailable("The database is away.")
        if 13 in numbers:
            raise ValueError(13)
        return [2 * number for number in numbers]


@pytest.mark.req("R25")
async def test_calls_of_one_turn_are_one_call() -> None:
    double = Doubler()
    joint = Joint(double, StoreUnavailable)
    assert await asyncio.gather(*map(joint.ask, range(4))) == [0, 2, 4, 6]
    assert await joint.ask(5) == 10
    assert double.calls == [[0, 1, 2, 3], [5]]


@pytest.mark.req("I3", "I10")
async def test_an_error_reaches_only_who_caused_it() -> None:
    double = Doubler()
    joint = Joint(double, StoreUnavailable)
    outcomes = await asyncio.gather(*map(joint.ask, (1, 13, 2)), return_exceptions=True)
    assert [outcome if isinstance(outcome, int) else type(outcome) for outcome in outcomes] == [
        2,
        ValueError,
        4,
    ]
    assert double.calls == [[1, 13, 2], [1], [13], [2]]


async def test_an_outage_concerns_all_and_is_tried_once() -> None:
    double = Doubler()
    double.away = True
    joint = Joint(double, StoreUnavailable)
    outcomes = await asyncio.gather(*map(joint.ask, (1, 2)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 2
    assert double.calls == [[1, 2]]


async def test_who_stops_waiting_takes_nobody_along_and_the_last_ends_the_call() -> None:
    double = Doubler()
    double.open = asyncio.Event()
    joint = Joint(double, StoreUnavailable)
    first, second = (asyncio.create_task(joint.ask(number)) for number in (1, 2))
    while not double.calls:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    double.open.set()
    assert await second == 4
    double.open.clear()
    alone = asyncio.create_task(joint.ask(3))
    while len(double.calls) < 2:
        await asyncio.sleep(0)
    alone.cancel()
    await asyncio.wait([alone])
    async with asyncio.timeout(PATIENCE_SECONDS):
        while [task for task in asyncio.all_tasks() if task.get_name() == "joint-call"]:
            await asyncio.sleep(0)
