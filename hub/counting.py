"""The counts of the inbox: unread and unseen, as `visible()` says, for one user or for a wave of them.

Whoever asks gets what a read that began after the call has found, so a mark that was made before is in it. Those who
ask together share that read: a stream begins with its user's counts, and streams come in waves.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass, replace
from typing import Any, Final

from hub.errors import StoreUnavailable
from hub.model.users import User
from hub.model.visibility import Visibility, restricts, visible
from hub.ports import BroadcastRow, Clock, InboxQuery, Store, Unread

COUNT_CAP: Final = 100
PAGE: Final = 200  # broadcast candidates that are read at a time
GATHER_SECONDS: Final = 0.01  # between the reads of a wave: each is then shared by those who came meanwhile
_BATCH: Final = 200
_STEP: Final = 400  # broadcasts that are looked at before the event loop has its turn

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counts:
    """Unread and unseen, unarchived; counted up to `COUNT_CAP`, beyond which they are capped."""

    unread: int
    unseen: int

    @property
    def capped(self) -> bool:
        """Whether there may be more."""
        return max(self.unread, self.unseen) >= COUNT_CAP

    def json(self) -> dict[str, Any]:
        """As clients get them."""
        return {"unread": self.unread, "unseen": self.unseen, "capped": self.capped}


async def visible_broadcasts(
    store: Store, user: User, query: InboxQuery, now_us: int, default_timezone: str
) -> AsyncIterator[tuple[BroadcastRow, Visibility]]:
    """The broadcasts that this user may see, newest first, read page by page."""
    topics = sorted({subscription.topic for subscription in user.subscriptions})
    before = query.before
    while True:
        asked = replace(query, limit=PAGE, before=before)
        rows = await store.broadcast_page(user.profile.id, topics, asked, now_us)
        for row in rows:
            if sight := visible(row.broadcast, user, default_timezone):
                yield row, sight
        if len(rows) < PAGE:
            return
        before = (rows[-1].broadcast.created_at_us, rows[-1].broadcast.id)


def _kind(found: Unread) -> Hashable | None:
    """Equal for users of one read whose counts are equal: `restricts` says on what else they could depend.

    Users who have marked nothing share one list, so a wave looks at its broadcasts once for most of them.
    """
    user, rows = found.user, found.broadcasts
    if rows and (restricts(user) or any(user.profile.id in row.broadcast.audience.exclude for row in rows)):
        return None
    older = None if found.older is None else user.profile.id  # whose page is read alone
    return found.unread, found.unseen, id(rows), user.subscriptions, user.profile.timezone, older


class Counting:
    """Counts what users have not read. It keeps nothing."""

    def __init__(self, store: Store, clock: Clock, default_timezone: str) -> None:
        self._store = store
        self._clock = clock
        self._default_timezone = default_timezone
        self._waiting: dict[str, asyncio.Future[Counts]] = {}
        self._task: asyncio.Task[None] | None = None

    async def of(self, user_id: str) -> Counts:
        """One user's counts. Raises `StoreUnavailable`."""
        future = self._waiting.get(user_id)
        if future is None:
            future = self._waiting[user_id] = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work(), name="count-unread")
        return await asyncio.shield(future)

    async def _work(self) -> None:
        while self._waiting:
            ids = list(self._waiting)[:_BATCH]
            asking = {user_id: self._waiting.pop(user_id) for user_id in ids}
            try:
                await self._answer(asking)
            finally:
                for future in asking.values():
                    if not future.done():
                        future.set_exception(StoreUnavailable("The counting was stopped."))
                        future.exception()  # nobody may be waiting any more
            if self._waiting:
                await asyncio.sleep(GATHER_SECONDS)

    async def _answer(self, asking: dict[str, asyncio.Future[Counts]]) -> None:
        now_us = self._clock.now_us()
        try:
            found = await self._store.unread(list(asking), COUNT_CAP, PAGE, now_us)
        except Exception as error:
            if len(asking) > 1 and not isinstance(error, StoreUnavailable):
                logger.exception("counting for %d users failed; now one by one", len(asking))
                for user_id, future in asking.items():
                    await self._answer({user_id: future})
                return
            for future in asking.values():
                future.set_exception(error)
                future.exception()  # nobody may be waiting any more
            return
        alike: dict[Hashable, Counts] = {}
        looked_at = 0
        for user_id, future in asking.items():
            one = found[user_id]
            kind = _kind(one)
            if kind is not None and kind in alike:
                future.set_result(alike[kind])
                continue
            try:
                counts = await self._count(one, now_us)
            except Exception as error:  # noqa: BLE001 - handed to whoever waits
                future.set_exception(error)
                future.exception()
                continue
            future.set_result(counts)
            if kind is not None:
                alike[kind] = counts
            looked_at += len(one.broadcasts)
            if looked_at > _STEP:
                looked_at = 0
                await asyncio.sleep(0)

    async def _count(self, found: Unread, now_us: int) -> Counts:
        user, unread, unseen = found.user, found.unread, found.unseen
        for row in found.broadcasts:
            if unread >= COUNT_CAP and unseen >= COUNT_CAP:
                break
            if visible(row.broadcast, user, self._default_timezone):
                unread += 1
                unseen += row.marks.seen_at_us is None
        if found.older is not None and not (unread >= COUNT_CAP and unseen >= COUNT_CAP):
            query = InboxQuery(PAGE, found.older, unread=True)
            async for row, _ in visible_broadcasts(self._store, user, query, now_us, self._default_timezone):
                unread += 1
                unseen += row.marks.seen_at_us is None
                if unread >= COUNT_CAP and unseen >= COUNT_CAP:
                    break
        return Counts(min(unread, COUNT_CAP), min(unseen, COUNT_CAP))
