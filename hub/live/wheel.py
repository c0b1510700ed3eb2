"""One timer for all connections: pings, pong timeouts, expiry, heartbeats and deadlines share it.

Each timed object has at most one deadline; setting a new one replaces it. Deadlines fire late by up to one tick, never
early. A handler that fails is logged and takes nobody else's turn. All of it runs on one event loop.
"""

import logging
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)

NOT_DUE = -1
_EMPTY: "tuple[int, set[Timed]]" = (NOT_DUE, set())


class Timed(Protocol):
    """What can have a deadline. `due_tick` belongs to the wheel and begins as `NOT_DUE`."""

    due_tick: int

    def on_time(self, now: float) -> None:
        """The deadline came; the object may set its next one."""
        ...


class Cancellable(Protocol):
    """A pending call of an event loop."""

    def cancel(self) -> None: ...


class Loop(Protocol):
    """What the wheel needs of an event loop."""

    def time(self) -> float: ...
    def call_at(self, when: float, callback: Callable[[], None]) -> Cancellable: ...


class Wheel:
    """Buckets of deadlines, one per tick; the loop's timer runs only while there is one."""

    def __init__(self, loop: Loop, tick_seconds: float = 0.25) -> None:
        self._loop = loop
        self._tick_seconds = tick_seconds
        self._buckets: dict[int, tuple[int, set[Timed]]] = {}  # the tick again: one object for all
        self._handle: Cancellable | None = None
        self._reached = self._tick_of(loop.time())

    def now(self) -> float:
        """Seconds of the loop's clock."""
        return self._loop.time()

    def _tick_of(self, moment: float) -> int:
        # A timer set for the start of a tick must find that the tick has begun, whatever the floats say.
        return int(moment / self._tick_seconds + 1e-6)

    def schedule(self, timed: Timed, at: float) -> None:
        """Call `timed.on_time` once, soon after the moment `at` of the loop's clock. Replaces its deadline."""
        tick = max(int(at / self._tick_seconds) + 1, self._reached + 1)
        if timed.due_tick == tick:
            return
        if timed.due_tick != NOT_DUE:
            self._remove(timed)
        bucket = self._buckets.get(tick)
        if bucket is None:
            bucket = self._buckets[tick] = (tick, set())
        timed.due_tick, members = bucket
        members.add(timed)
        if self._handle is None:
            self._arm()

    def cancel(self, timed: Timed) -> None:
        """Forget its deadline, if it has one."""
        if timed.due_tick != NOT_DUE:
            self._remove(timed)

    def close(self) -> None:
        """Forget all deadlines."""
        self._buckets.clear()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _remove(self, timed: Timed) -> None:
        bucket = self._buckets.get(timed.due_tick)
        timed.due_tick = NOT_DUE
        if bucket is not None:
            bucket[1].discard(timed)

    def _arm(self) -> None:
        now = self._loop.time()
        self._reached = max(self._reached, self._tick_of(now))
        self._handle = self._loop.call_at((self._reached + 1) * self._tick_seconds, self._turn)

    def _turn(self) -> None:
        self._handle = None
        now = self._loop.time()
        reached = self._tick_of(now)
        # After a pause (a suspended machine) there may be more ticks than buckets.
        span = range(self._reached + 1, reached + 1)
        ticks = span if len(span) <= len(self._buckets) else sorted(t for t in self._buckets if t <= reached)
        self._reached = max(reached, self._reached)
        for tick in ticks:
            for timed in self._buckets.pop(tick, _EMPTY)[1]:
                if timed.due_tick != tick:  # an earlier one of this bucket moved or cancelled it
                    continue
                timed.due_tick = NOT_DUE
                try:
                    timed.on_time(now)
                except Exception:
                    logger.exception("a deadline could not be handled")
        if self._buckets and self._handle is None:
            self._arm()
