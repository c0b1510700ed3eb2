"""Keeps the rows of connected users fresh: loaded at the join, after every change, and well before they are too old.

While a row is being loaded again its member is unready, and only their broadcasts wait. With the store away loads are
repeated by `refresh`.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from hub.live.registry import Member, Registry
from hub.live.viewers import Viewer, Viewers
from hub.model.users import User
from hub.ports import Clock

REFRESH_SECONDS: Final = (
    40.0  # a row that is older is loaded again in the background; it is used up to its TTL
)
REFRESH_AT_ONCE: Final = 2_500
INVALID_TOKEN: Final = (3500, "invalid token")


class Roster:
    """The rows of a registry's members. `on_ready` is called when a member's row came."""

    def __init__(
        self, registry: Registry, viewers: Viewers, clock: Clock, on_ready: Callable[[Member], None]
    ) -> None:
        self._registry = registry
        self._viewers = viewers
        self._clock = clock
        self._on_ready = on_ready
        self._failed: dict[Member, None] = {}

    def need(self, member: Member) -> None:
        """See that the member's row is there or under way."""
        if member.ready or member.loading is not None:
            return
        viewer = self._viewers.take(member.user_id)
        if viewer is None:
            self._load(member)
        else:
            self._accept(member, viewer)

    async def wait(self, member: Member) -> None:
        """Return when the row is there, or the member has left. Raises `StoreUnavailable`."""
        while not member.ready and self._registry.members.get(member.user_id) is member:
            self.need(member)
            if member.loading is None:
                continue
            await asyncio.shield(member.loading)
            await asyncio.sleep(0)  # the future is done, `_loaded` may still wait for its turn

    def reload(self, member: Member) -> None:
        """The row is too old to be used."""
        self._registry.set_unready(member)
        if member.loading is None:
            self._load(member)

    def changed(self, user_id: str) -> None:
        """A user's row changed; what comes from now on waits for the new one."""
        self._viewers.forget(user_id)
        member = self._registry.members.get(user_id)
        if member is not None:
            self._change(member)
            self.reload(member)

    def all_changed(self, *, reload: bool) -> None:
        """Changes may have been missed."""
        self._viewers.clear()
        for member in self._registry.members.values():
            self._change(member)
            self._registry.set_unready(member)
            if reload and member.loading is None:
                self._load(member)

    def refresh(self) -> None:
        """Load what failed, and what grows old."""
        failed, self._failed = self._failed, {}
        for member in failed:
            if self._registry.members.get(member.user_id) is member and member.loading is None:
                self._load(member)
        old_us = self._clock.now_us() - int(REFRESH_SECONDS * 1e6)
        for member in self._registry.older_than(old_us, REFRESH_AT_ONCE):
            if member.loading is None:
                self._load(member)

    def revoke(self, user_id: str, before_us: int) -> None:
        """Close connections with tokens issued before a moment; those that are still joining are refused."""
        member = self._registry.members.get(user_id)
        for seat in member.seats if member is not None else ():
            if seat.wire.identity.issued_at_us < before_us and not seat.revoked:
                seat.revoked = True
                if seat.joined:
                    seat.wire.close(*INVALID_TOKEN)

    async def close(self) -> None:
        """Stop loading."""
        await self._viewers.close()

    def _change(self, member: Member) -> None:
        # A load that is under way is done again by `viewers`; one that just ended is too old.
        member.outdated = member.loading is not None and member.loading.done()

    def _load(self, member: Member) -> None:
        member.loading = self._viewers.load(member.user_id)
        member.loading.add_done_callback(lambda future: self._loaded(member, future))

    def _loaded(self, member: Member, future: asyncio.Future[Viewer]) -> None:
        member.loading = None
        outdated, member.outdated = member.outdated, False
        if self._registry.members.get(member.user_id) is not member or future.cancelled():
            return
        if future.exception() is not None:
            self._failed[member] = None
        elif outdated:
            self._load(member)
        else:
            self._accept(member, future.result())

    def _accept(self, member: Member, viewer: Viewer) -> None:
        self._registry.set_user(member, viewer.user, viewer.at_us)
        self.revoke(member.user_id, tokens_valid_from_us(viewer.user))
        self._on_ready(member)


def tokens_valid_from_us(user: User) -> int:
    """Tokens issued before this moment are refused: they were revoked, or the user was erased."""
    return max(user.tokens_valid_from_us, user.erased_at_us or 0)
