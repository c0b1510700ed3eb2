"""Expansion: broadcasts on addressed channels become deliveries, a page of their audience at a time.

One process works at a time (the lease `expansion`). A page is one transaction that moves the cursor, so a crash, or
a second worker, repeats nothing; memory is that of one page, however large the audience. All expansions that are due
go on side by side, so a small one does not wait for the end of a large one.
"""

import asyncio
import logging
from typing import Final

from hub.batches import Catalog, CatalogSource
from hub.errors import ClarionError
from hub.livelog import LiveLog
from hub.model.expansion import Terms, expand
from hub.model.vocabulary import EXPANSION, Channel
from hub.ports import Clock, DueExpansion, Lease, LogEntry, Store

LEASE: Final = EXPANSION
ROUND_SECONDS: Final = 0.5
PAGE_USERS: Final = 1_000
AT_ONCE: Final = 20  # expansions that get a page each in a round

_log = logging.getLogger(__name__)


class Expansions:
    """Expands broadcasts."""

    def __init__(
        self,
        store: Store,
        catalog: CatalogSource,
        clock: Clock,
        *,
        available: frozenset[Channel],
        default_timezone: str,
        livelog: LiveLog | None = None,
        page_users: int = PAGE_USERS,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._available = available
        self._default_timezone = default_timezone
        self._livelog = livelog
        self._page_users = page_users

    async def work(self, lease: Lease, stop: asyncio.Event) -> None:
        """The work of the `expansion` lease, until stopped."""
        del lease  # every page is conditional on the one before it, so no fence is needed
        while not stop.is_set():
            try:
                while await self.round() and not stop.is_set():
                    pass
            except ClarionError as error:
                _log.warning("expansion tries again: %s", error)
            try:
                await asyncio.wait_for(stop.wait(), ROUND_SECONDS)
            except TimeoutError:
                pass

    async def round(self) -> int:
        """One page of each expansion that is due; returns of how many. Raises `StoreUnavailable`."""
        found = await self._store.due_expansions(self._clock.now_us(), AT_ONCE)
        if found:
            catalog = await self._catalog.current()
            for due in found:
                await self._tell(await self._page(due, catalog))
        return len(found)

    async def _page(self, due: DueExpansion, catalog: Catalog) -> list[LogEntry]:
        expansion, broadcast = due
        now_us = self._clock.now_us()
        if expansion.stopped is not None:
            return await self._store.clear_stopped(due, self._page_users, self._default_timezone, now_us)
        page = await self._store.audience_page(due, self._page_users, self._default_timezone)
        terms = Terms(
            broadcast=broadcast,
            expansion=expansion,
            category=catalog.categories.get(broadcast.category),
            available=self._available,
            default_timezone=self._default_timezone,
            now_us=now_us,
        )
        deliveries, counts = expand(terms, page.users, page.seen, page.reached)
        entry = await self._store.save_page(expansion, page, deliveries, counts, now_us)
        return [entry] if entry is not None else []

    async def _tell(self, entries: list[LogEntry]) -> None:
        if self._livelog is not None:
            await self._livelog.tell(entries)
