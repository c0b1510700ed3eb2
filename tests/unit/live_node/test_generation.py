"""The generation is raised once for each loss, by whoever sees it first, also across restarts."""

from dataclasses import replace
from typing import cast

import pytest

from hub.live.generation import SETTING, Generation, Sight
from hub.ports import KeyStore
from tests.support.live_wires import LiveStore

FIRST = Sight("run-1", "repl-1", was_promoted=False, is_weak=False)
RESTARTED = Sight("run-2", "repl-2", was_promoted=False, is_weak=False)
PROMOTED = Sight("run-9", "repl-9", was_promoted=True, is_weak=False)


class Numbered:
    generation = "0"


class Process:
    """One process that looks at the same Redis."""

    def __init__(self, store: LiveStore, sight: Sight) -> None:
        self.sight = sight
        self.bus = Numbered()
        self.generation = Generation(cast("KeyStore", store), self.bus, self.look)

    async def look(self) -> Sight:
        return self.sight

    async def check(self, sight: Sight) -> str:
        self.sight = sight
        await self.generation.check()
        return self.bus.generation


@pytest.fixture
def store() -> LiveStore:
    return LiveStore()


async def test_the_first_look_begins_with_one(store: LiveStore) -> None:
    assert await Process(store, FIRST).check(FIRST) == "1"
    assert await Process(store, FIRST).check(FIRST) == "1"


@pytest.mark.req("I5")
async def test_a_promotion_raises_it_once_for_all(store: LiveStore) -> None:
    processes = [Process(store, FIRST) for _ in range(3)]
    assert [await process.check(FIRST) for process in processes] == ["1"] * 3
    assert [await process.check(PROMOTED) for process in processes] == ["2"] * 3
    assert [await process.check(PROMOTED) for process in processes] == ["2"] * 3
    second = replace(PROMOTED, run_id="run-10", replication_id="repl-10")
    assert [await process.check(second) for process in processes] == ["3"] * 3


@pytest.mark.req("I5")
async def test_a_promotion_while_nobody_looked_is_seen_at_the_start(store: LiveStore) -> None:
    await Process(store, FIRST).check(FIRST)
    assert await Process(store, PROMOTED).check(PROMOTED) == "2"


async def test_a_restart_that_lost_nothing_raises_nothing(store: LiveStore) -> None:
    process = Process(store, FIRST)
    await process.check(FIRST)
    assert await process.check(RESTARTED) == "1"
    assert store.settings[SETTING] == "1 run-2:repl-2"


@pytest.mark.req("I5")
async def test_a_restart_of_a_forgetful_redis_raises_it(store: LiveStore) -> None:
    process = Process(store, FIRST)
    await process.check(replace(FIRST, is_weak=True))
    assert await process.check(replace(RESTARTED, is_weak=True)) == "2"


async def test_who_loses_the_race_takes_the_winners_number(store: LiveStore) -> None:
    process = Process(store, FIRST)
    await process.check(FIRST)
    change = store.change_setting

    async def beaten(name: str, expected: str, value: str) -> bool:
        await change(name, expected, value)
        return False

    store.change_setting = beaten  # type: ignore[method-assign]
    assert await process.check(PROMOTED) == "2"
