"""The timer wheel: late by a tick at most, never early, one deadline an object, one timer for all."""

from collections.abc import Callable

import pytest

from hub.live.wheel import NOT_DUE, Wheel


class FakeLoop:
    """A loop whose clock the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.timers: list[tuple[float, Callable[[], None], FakeHandle]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> "FakeHandle":
        handle = FakeHandle()
        self.timers.append((when, callback, handle))
        return handle

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [one for one in self.timers if one[0] <= end and not one[2].cancelled]:
            when, callback, _ = first = min(due, key=lambda one: one[0])
            self.timers.remove(first)
            self.now = max(self.now, when)
            callback()
        self.now = end


class FakeHandle:
    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Timed:
    def __init__(self, then: Callable[["Timed", float], None] | None = None) -> None:
        self.due_tick = NOT_DUE
        self.fired: list[float] = []
        self.then = then

    def on_time(self, now: float) -> None:
        self.fired.append(now)
        if self.then:
            self.then(self, now)


@pytest.fixture
def loop():
    return FakeLoop()


@pytest.fixture
def wheel(loop):
    return Wheel(loop, tick_seconds=0.05)


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05, 0.07, 1.0, 24.99])
def test_fires_once_never_early_and_at_most_two_ticks_late(loop, wheel, seconds):
    timed = Timed()
    at = loop.now + seconds
    wheel.schedule(timed, at)
    loop.advance(60)
    assert len(timed.fired) == 1
    assert at <= timed.fired[0] <= at + 0.1 + 1e-6


def test_a_new_deadline_replaces_the_old_one_in_both_directions(loop, wheel):
    for first, second in ((1.0, 5.0), (5.0, 1.0)):
        timed = Timed()
        start = loop.now
        wheel.schedule(timed, start + first)
        wheel.schedule(timed, start + second)
        loop.advance(10)
        assert len(timed.fired) == 1
        assert timed.fired[0] - start == pytest.approx(second, abs=0.11)


def test_a_cancelled_deadline_does_not_fire(loop, wheel):
    timed = Timed()
    wheel.schedule(timed, loop.now + 1)
    wheel.cancel(timed)
    wheel.cancel(timed)
    loop.advance(5)
    assert timed.fired == []


def test_a_handler_may_schedule_itself_again(loop, wheel):
    timed = Timed(lambda self, now: wheel.schedule(self, now + 1))
    wheel.schedule(timed, loop.now + 1)
    loop.advance(5.5)
    assert len(timed.fired) == 5


def test_a_handler_may_cancel_or_move_another_of_the_same_tick(loop, wheel):
    def meddle(me, now):
        wheel.cancel(cancelled)
        wheel.schedule(moved, now + 3)

    cancelled, moved = Timed(), Timed()
    others = [Timed(meddle) for _ in range(20)]
    at = loop.now + 1
    for timed in others:
        wheel.schedule(timed, at)
    order = [*others, cancelled, moved]
    wheel.schedule(cancelled, at)
    wheel.schedule(moved, at)
    loop.advance(2)
    assert all(len(one.fired) == 1 for one in order[:20])
    # Sets have no order: the two may have had their turn before the first meddler, never twice.
    assert len(cancelled.fired) <= 1
    loop.advance(5)
    assert moved.fired[-1] > at + 2


def test_a_failing_handler_takes_nobody_elses_turn(loop, wheel):
    def fail(me, now):
        raise ValueError

    timed = [Timed(fail) for _ in range(3)] + [Timed() for _ in range(3)]
    for one in timed:
        wheel.schedule(one, loop.now + 1)
    loop.advance(2)
    assert all(len(one.fired) == 1 for one in timed)


def test_the_loop_has_no_timer_while_nothing_is_due(loop, wheel):
    assert loop.timers == []
    timed = Timed()
    wheel.schedule(timed, loop.now + 1)
    assert len(loop.timers) == 1
    loop.advance(2)
    assert loop.timers == []


def test_a_suspended_machine_fires_what_was_missed_once(loop, wheel):
    timed = [Timed() for _ in range(5)]
    for number, one in enumerate(timed):
        wheel.schedule(one, loop.now + number * 100)
    _, callback, _ = loop.timers.pop()
    loop.now += 1_000_000
    callback()
    assert all(len(one.fired) == 1 for one in timed)


def test_closing_forgets_everything(loop, wheel):
    timed = Timed()
    wheel.schedule(timed, loop.now + 1)
    wheel.close()
    loop.advance(5)
    assert timed.fired == []
