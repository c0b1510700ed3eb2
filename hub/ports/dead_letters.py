"""What operators ask about deliveries: their attempts, which of them are dead, and to try those again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from msgspec import Struct

from hub.model.deliveries import Delivery
from hub.ports.rows import LogEntry


class PastAttempt(Struct, frozen=True):
    """One attempt of a delivery, as it was recorded. `number`: of the round, anew after a replay."""

    number: int
    provider: str
    outcome: str
    code: str
    detail: str | None
    started_at_us: int
    duration_us: int
    is_repeat: bool


@dataclass(frozen=True, slots=True)
class DeadQuery:
    """Filters of dead deliveries, newest first. `before`: (created_at_us, id) of the last row of the page before."""

    limit: int
    before: tuple[int, str] | None = None
    channel: str | None = None
    provider: str | None = None
    reason: str | None = None
    since_us: int | None = None
    states: tuple[str, ...] = ("dead", "unknown")


class DeadSlice(NamedTuple):
    """A part of an event that could not be planned, and is kept whole."""

    event_id: str
    slice_key: str
    type: str
    at_us: int  # when it was set aside
    error: str


@dataclass(slots=True)
class Replay:
    """What became of a replay: lines that were logged, one for each that waits again, and why others do not, by id."""

    log: list[LogEntry] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


class DeadLetterStore(Protocol):
    """Dead deliveries, events that could not be planned, and their second chance."""

    async def attempts_of(
        self, deliveries: Sequence[Delivery]
    ) -> Mapping[tuple[str, str], Sequence[PastAttempt]]:
        """The attempts of deliveries, oldest first, by (user id, delivery id)."""
        ...

    async def dead_deliveries(self, query: DeadQuery) -> list[Delivery]:
        """Deliveries in these states, newest first."""
        ...

    async def replay_deliveries(self, ids: Sequence[str], now_us: int, *, unknown: bool) -> Replay:
        """Move `dead` ones (and, if allowed, `unknown` ones) to `queued`, due at once, with all their attempts before them.

        Refused, by name: `not_dead`, `unknown` (not allowed), `payload_gone`, `retracted`, `collapsed`, `expired`,
        `erased`. A conditional change: of two replays one counts.
        """
        ...

    async def dead_slices(
        self, before: tuple[int, str, str] | None, since_us: int | None, limit: int
    ) -> list[DeadSlice]:
        """Rejected slices, newest first; `before` is (at_us, event id, slice key) of the last one seen."""
        ...

    async def replay_events(self, event_ids: Sequence[str], now_us: int) -> Replay:
        """Turn rejected slices back: they are as if never planned, and wait in the schedule to be queued again.

        Refused, by name: `not_dead`, `unreadable`, `scheduled` (its times were never found), `retracted`.
        """
        ...
