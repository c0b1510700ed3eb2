"""What expands broadcasts on addressed channels: pages of their audience, and what became of each page."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from hub.model.deliveries import Delivery
from hub.model.expansion import Expansion
from hub.model.notifications import Broadcast
from hub.model.users import User
from hub.ports.rows import LogEntry


class DueExpansion(NamedTuple):
    """An expansion that has work to do, and its broadcast."""

    expansion: Expansion
    broadcast: Broadcast


class AudiencePage(Struct, frozen=True):
    """Users of an audience who have an address on the channel, by id, with what decisions about them read.

    Nobody is on two pages. `seen`, `reached`: those of them who saw the broadcast, and whom the app reached with it while
    the channel waits for that. `cursor`: where the next page begins.
    `audience`: how many there are in all, with and without an address, counted with the last page (None: not the last).
    """

    users: tuple[User, ...]
    seen: frozenset[str]
    cursor: str
    audience: int | None = None
    reached: frozenset[str] = frozenset()


class ExpansionStore(Protocol):
    """Expansions. A page is written once: its step counts only while the expansion is as it was when it was read."""

    async def due_expansions(self, now_us: int, limit: int) -> list[DueExpansion]:
        """Expansions that are due and not done, the one that waits longest first."""
        ...

    async def audience_page(self, due: DueExpansion, limit: int, default_timezone: str) -> AudiencePage:
        """The next users, of one moment. Topics are as they were at the broadcast's seq, all else is as of now."""
        ...

    async def save_page(
        self,
        expansion: Expansion,
        page: AudiencePage,
        deliveries: Sequence[Delivery],
        counts: Mapping[str, int],
        now_us: int,
    ) -> LogEntry | None:
        """Write what became of a page, and move on, in one transaction. With the last page it is done: returns its line.

        Changes nothing when the page was written before, or the expansion was stopped. Who was erased or
        reached meanwhile gets nothing; whoever has a delivery on the channel already (a fallback) is counted, not doubled.
        """
        ...

    async def clear_stopped(
        self, due: DueExpansion, limit: int, default_timezone: str, now_us: int
    ) -> list[LogEntry]:
        """Cancel the next deliveries of a stopped one that still wait; at their end it is done. Returns the lines."""
        ...

    async def event_expansions(self, event_id: str) -> list[Expansion]:
        """The expansions of an event's broadcasts."""
        ...
