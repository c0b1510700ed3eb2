"""Rounds: what the partitions of one process need at the same time is fetched and done once for all of them.

Each partition keeps a task, an order and errors of its own. Those that wait for events share one read, and calls of one
turn of the event loop are one call, so batches stay in step. Nobody waits for a late one longer than `GATHER_SECONDS`.
Where events trickle in faster than rounds end, a round is held until it is worth its price (`APART_SECONDS`).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from hub.ports import Position, QueuedSlice

GATHER_SECONDS: Final = 0.02  # for those who still work; as long as a slow commit
APART_SECONDS: Final = 0.01  # after a read of several events: a round costs as much as ten of them
WAIT_SECONDS: Final = 1.0

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Slices = Mapping[str, Sequence[QueuedSlice]]
_Read = Callable[[Mapping[str, Position | None], float], Coroutine[Any, Any, Slices]]


class Rounds:
    """Reads for all partitions that wait. `read(after, wait_seconds)` reads after these positions, and keeps trying."""

    def __init__(self, read: _Read) -> None:
        self._read = read
        self._members: set[str] = set()
        self._waiting: dict[str, tuple[Position | None, asyncio.Future[Sequence[QueuedSlice]]]] = {}
        self._complete = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._idling: asyncio.Task[Slices] | None = None
        self._next_at = 0.0  # on the event loop's clock

    @asynccontextmanager
    async def member(self, name: str, stop: asyncio.Event) -> AsyncIterator[None]:
        """Take part, until `stop`: from then on reads bring nothing."""
        self._members.add(name)
        stopped = asyncio.create_task(stop.wait(), name=f"stop-{name}")
        stopped.add_done_callback(lambda _: self._serve(name, []))
        try:
            yield
        finally:
            stopped.cancel()
            self._waiting.pop(name, None)
            self._members.discard(name)
            self._gathered()
            if not self._members and self._running is not None:
                self._running.cancel()
                await asyncio.wait([self._running])

    async def read(self, name: str, after: Position | None) -> Sequence[QueuedSlice]:
        """The next slices of a member's partition; it waits for some."""
        future: asyncio.Future[Sequence[QueuedSlice]] = asyncio.get_running_loop().create_future()
        self._waiting[name] = (after, future)
        self._gathered()
        if self._idling is not None:
            self._idling.cancel()  # a newcomer: else it would wait for as long as nobody else gets anything
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run(), name="read-partitions")
        return await future

    async def _run(self) -> None:
        while self._waiting:
            if len(self._waiting) < len(self._members):
                self._complete.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(GATHER_SECONDS):
                        await self._complete.wait()
            await asyncio.sleep(self._next_at - asyncio.get_running_loop().time())
            asked = {name: after for name, (after, _) in self._waiting.items()}
            if not asked:
                return
            try:
                found = await self._read_once(asked)
            except Exception as error:  # noqa: BLE001 - handed to those who wait
                self._fail(asked, error)
            else:
                if sum(map(len, found.values())) > 1:
                    self._next_at = asyncio.get_running_loop().time() + APART_SECONDS
                for name, slices in found.items():
                    self._serve(name, slices)

    async def _read_once(self, asked: Mapping[str, Position | None]) -> Slices:
        is_whole = len(asked) == len(self._members)
        reading = asyncio.create_task(self._read(asked, WAIT_SECONDS if is_whole else 0))
        self._idling = reading if is_whole else None
        try:
            await asyncio.wait([reading])
        finally:
            self._idling = None
            if not reading.done():
                reading.cancel()
                await asyncio.wait([reading])
        return {} if reading.cancelled() else reading.result()

    def _gathered(self) -> None:
        if len(self._waiting) == len(self._members):
            self._complete.set()

    def _serve(self, name: str, slices: Sequence[QueuedSlice]) -> None:
        waiting = self._waiting.pop(name, None)
        if waiting is not None and not waiting[1].done():
            waiting[1].set_result(slices)

    def _fail(self, names: Mapping[str, object], error: Exception) -> None:
        for name in names:
            waiting = self._waiting.pop(name, None)
            if waiting is not None and not waiting[1].done():
                waiting[1].set_exception(error)


@dataclass(slots=True)
class _Turn(Generic[Asked, Answer]):
    asked: list[tuple[Asked, asyncio.Future[Answer]]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None


class Joint(Generic[Asked, Answer]):
    """Joins what is asked within one turn of the event loop.

    `call` answers many at once. One of the `shared` errors concerns all who asked; after any other each is asked for
    alone, so that it reaches only who caused it.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]],
        shared: type[Exception] | tuple[type[Exception], ...],
    ) -> None:
        self._call = call
        self._shared = shared
        self._next: _Turn[Asked, Answer] | None = None

    async def ask(self, one: Asked) -> Answer:
        """The answer, as if it were asked for alone."""
        turn = self._next
        if turn is None:
            turn = self._next = _Turn()
            turn.task = asyncio.create_task(self._run(turn), name="joint-call")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        turn.asked.append((one, future))
        try:
            return await future
        except asyncio.CancelledError:
            if turn.task is not None and all(waiting.done() for _, waiting in turn.asked):
                turn.task.cancel()  # nobody waits any more
            raise

    async def _run(self, turn: _Turn[Asked, Answer]) -> None:
        self._next = None
        asked = [(one, future) for one, future in turn.asked if not future.done()]
        if not asked:
            return
        try:
            answers = await self._call([one for one, _ in asked])
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            if len(asked) == 1 or isinstance(error, self._shared):
                for _, future in asked:
                    if not future.done():
                        future.set_exception(error)
                return
            for one, future in asked:
                await self._alone(one, future)
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            if not future.done():
                future.set_result(answer)

    async def _alone(self, one: Asked, future: asyncio.Future[Answer]) -> None:
        if future.done():
            return  # who asked was cancelled
        try:
            [answer] = await self._call([one])
        except Exception as error:  # noqa: BLE001 - handed to who waits
            if not future.done():
                future.set_exception(error)
        else:
            if not future.done():
                future.set_result(answer)
