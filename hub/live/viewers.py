"""Viewers: users with their subscriptions, as visibility reads them, loaded in batches.

What is served is never older than the time to live, and never older than the last control message about the user
(`forget`). A load that was under way when one came is done again. What the check of a token read is kept
for the join that follows it, so that a connection costs one row of one query.
"""

import asyncio
import logging
from collections import OrderedDict
from functools import partial
from typing import Final, NamedTuple

from hub.errors import StoreUnavailable
from hub.model.users import Profile, User
from hub.ports import Clock, UserStore

TTL_SECONDS: Final = 60.0
GATHER_SECONDS: Final = 0.01  # a query costs a millisecond: in a wave it is shared by those of this long
_BATCH: Final = 500

logger = logging.getLogger(__name__)


UNKNOWN: Final = User(Profile("-"))
"""The one object that stands for every user whom the store does not know: many connect before anything names them."""


class Viewer(NamedTuple):
    """A user (or `UNKNOWN`) as of a moment before the store was asked."""

    user: User
    at_us: int


class Viewers:
    """A cache in front of `UserStore.load_users`."""

    def __init__(
        self, store: UserStore, clock: Clock, *, ttl_seconds: float = TTL_SECONDS, capacity: int = 4_000
    ) -> None:
        self._store = store
        self._clock = clock
        self._ttl_us = int(ttl_seconds * 1e6)
        self._capacity = capacity
        self._kept: OrderedDict[str, Viewer] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[Viewer]] = {}
        self._loading: dict[str, asyncio.Future[Viewer]] = {}
        self._outdated: set[str] = set()  # of those that are loading
        self._to_keep: set[str] = set()  # of those that wait or are loading
        self._task: asyncio.Task[None] | None = None

    def take(self, user_id: str) -> Viewer | None:
        """What `check_in` has read lately; once."""
        viewer = self._kept.pop(user_id, None)
        return None if viewer is None or viewer.at_us < self._clock.now_us() - self._ttl_us else viewer

    async def fresh(self, user_id: str) -> User:
        """The user as of now: read by a query that begins after this call. Raises `StoreUnavailable`."""
        user = (await asyncio.shield(self._wait_for(user_id))).user
        return User(Profile(user_id)) if user is UNKNOWN else user

    async def check_in(self, user_id: str) -> User:
        """The same for the check of a token; the row is kept for the join that follows."""
        self._to_keep.add(user_id)
        return (await asyncio.shield(self._wait_for(user_id))).user

    def load(self, user_id: str) -> asyncio.Future[Viewer]:
        """Ask the store; calls that come together share a query. The future is shared: wait for it shielded.

        Its exception is `StoreUnavailable`.
        """
        return self._loading.get(user_id) or self._wait_for(user_id)

    def _wait_for(self, user_id: str) -> asyncio.Future[Viewer]:
        future = self._waiting.get(user_id)
        if future is None:
            future = self._waiting[user_id] = asyncio.get_running_loop().create_future()
            if self._task is None:
                self._task = asyncio.create_task(self._work())
        return future

    def forget(self, user_id: str) -> None:
        """The user changed."""
        self._kept.pop(user_id, None)
        if user_id in self._loading:
            self._outdated.add(user_id)

    def clear(self) -> None:
        """Anybody may have changed."""
        self._kept.clear()
        self._outdated.update(self._loading)

    async def close(self) -> None:
        """Stop loading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        try:
            while self._waiting:
                is_complete = await self._load_batch()
                if self._waiting and is_complete:
                    await asyncio.sleep(GATHER_SECONDS)
        finally:
            self._task = None
            for future in (*self._waiting.values(), *self._loading.values()):
                future.set_exception(StoreUnavailable("The hub node is closing."))
                future.exception()
            self._waiting.clear()
            self._loading.clear()
            self._to_keep.clear()

    async def _load_batch(self) -> bool:
        """Whether none of it has to be read again at once."""
        ids = list(self._waiting)[:_BATCH]
        self._loading = {user_id: self._waiting.pop(user_id) for user_id in ids}
        now_us = self._clock.now_us()
        failure: StoreUnavailable | None = None
        users: dict[str, User] = {}
        try:
            users = await self._store.load_users(ids, with_subscriptions=True)
        except StoreUnavailable as error:
            failure = error
        except Exception as error:
            logger.exception("loading %d users failed", len(ids))
            failure = StoreUnavailable(f"Users could not be loaded ({type(error).__name__}).")
        loaded, self._loading = self._loading, {}
        outdated, self._outdated = self._outdated, set()
        for user_id, future in loaded.items():
            if failure is not None:
                future.set_exception(failure)
                future.exception()  # nobody may be waiting any more
            elif user_id in outdated:
                self._wait_for(user_id).add_done_callback(partial(_pass_on, future))
            else:
                viewer = Viewer(users.get(user_id) or UNKNOWN, now_us)
                if user_id in self._to_keep and user_id not in self._waiting:
                    self._to_keep.discard(user_id)
                    self._kept[user_id] = viewer
                future.set_result(viewer)
        while len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return not outdated


def _pass_on(waiting: asyncio.Future[Viewer], done: asyncio.Future[Viewer]) -> None:
    error = done.exception()
    if error is None:
        waiting.set_result(done.result())
    else:
        waiting.set_exception(error)
        waiting.exception()
