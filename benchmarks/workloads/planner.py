"""The planner alone: `plan`, the pure function that turns one event and one user into a notification and its reasons."""

import os
import time
from collections.abc import Callable

import msgspec

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.workloads.generator import PREFERENCES, TYPE, TYPE_DEFINITION
from hub.model.events import Event, NamedUser
from hub.model.planning import Environment, Memo, plan
from hub.model.preferences import parse_preferences
from hub.model.types import MESSAGE, CategoryDefinition, TypeDefinition, TypeVersion
from hub.model.users import Profile, User

CASE = "one recipient"
_ROUND = 500  # calls that share what a batch shares
_NOW_US = 1_780_000_000_000_000


async def run(bench: Bench) -> None:
    """On the server's core, in this process."""
    os.sched_setaffinity(0, {machine.SERVER_CORE})
    try:
        for number in range(bench.rounds):
            bench.say(f"planner: round {number + 1}")
            for name, call in (("plain message", _message), ("templates and preferences", _typed())):
                cpu_us = _timed(call, bench.much(40, 4)) * 1e6
                bench.results.add("planner", CASE, name, cpu_us=cpu_us, per_second=1e6 / cpu_us)
    finally:
        os.sched_setaffinity(0, {machine.LOAD_CORE})


def _timed(call: Callable[[int, Memo], object], rounds: int) -> float:
    """Seconds of CPU for one call."""
    call(0, Memo())
    begun = time.thread_time()
    for _ in range(rounds):
        memo = Memo()
        for number in range(_ROUND):
            call(number, memo)
    return (time.thread_time() - begun) / (rounds * _ROUND)


def _environment(memo: Memo) -> Environment:
    return Environment(now_us=_NOW_US, created_at_us=_NOW_US, available=frozenset(), memo=memo)


def _message(number: int, memo: Memo) -> object:
    event = Event(f"evt_{number}", "message", _NOW_US, "http:1", 1, title="Paid", body="x" * 100)
    category = CategoryDefinition(title="Messages")
    return plan(event, MESSAGE, category, None, NamedUser(f"u{number}"), _environment(memo))


def _typed() -> Callable[[int, Memo], object]:
    kind = TypeVersion(TYPE, 1, msgspec.convert(TYPE_DEFINITION, TypeDefinition))
    category = CategoryDefinition(title="Bench")
    preferences = parse_preferences(PREFERENCES)

    def call(number: int, memo: Memo) -> object:
        data = {"number": number, "amount": number % 200}
        event = Event(f"evt_{number}", TYPE, _NOW_US, "http:1", 1, data=data, actor="shop")
        profile = Profile(f"u{number}", name="Ada", locale="ko" if number % 3 == 0 else "en")
        user = User(profile, preferences, version=1)
        return plan(event, kind, category, user, NamedUser(profile.id), _environment(memo))

    return call
