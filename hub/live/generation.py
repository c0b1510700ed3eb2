"""The generation of all epochs: raised once when the Redis behind the live bus may lack writes that it confirmed.

A promoted replica may lag, and a Redis with weak durability may forget its last second; its offsets would then be given
a second time, and clients would take old positions for good ones. The setting `generation` holds the number and whom it
was last compared with, so that one loss raises it once, whoever sees it first, also across restarts.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from hub.ports import KeyStore

SETTING: Final = "generation"


@dataclass(frozen=True, slots=True)
class Sight:
    """Who the Redis is that answers now (INFO server, INFO replication)."""

    run_id: str
    replication_id: str
    was_promoted: bool  # it has a second replication id: it was a replica once
    is_weak: bool  # it does not keep every confirmed write through a restart

    def may_lack_writes(self, run_id: str, replication_id: str) -> bool:
        """Compare with an earlier sight."""
        if self.replication_id != replication_id and self.was_promoted:
            return True
        return self.run_id != run_id and self.is_weak


class Numbered(Protocol):
    """A bus whose epochs begin with a generation."""

    generation: str


class Generation:
    """Compares the Redis in use with the one that was seen last, and tells the bus its generation."""

    def __init__(self, store: KeyStore, bus: Numbered, look: Callable[[], Awaitable[Sight]]) -> None:
        self._store = store
        self._bus = bus
        self._look = look

    async def check(self) -> None:
        """Call it at the start and after every loss of the link, before positions are compared.

        Raises what `look` raises, and `StoreUnavailable`.
        """
        sight = await self._look()
        seen = f"{sight.run_id}:{sight.replication_id}"
        while True:
            stored = await self._store.setting(SETTING, f"1 {seen}")
            number, _, last = stored.partition(" ")
            if last == seen:
                break
            run_id, _, replication_id = last.partition(":")
            if sight.may_lack_writes(run_id, replication_id):
                number = str(int(number) + 1)
            if await self._store.change_setting(SETTING, stored, f"{number} {seen}"):
                break
        self._bus.generation = number
