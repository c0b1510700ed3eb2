"""The claims of one process, renewed as long as it lives. One that froze or lost the database finds them gone."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from hub.errors import StoreUnavailable
from hub.ports import Claimed, SendingStore, Wanted

TTL_SECONDS: Final = 10.0
RENEW_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


class Claims:
    """Takes claims and keeps them alive."""

    def __init__(self, store: SendingStore, owner: str) -> None:
        self._store = store
        self._owner = owner
        self._held: set[str] = set()

    @asynccontextmanager
    async def on(self, deliveries: Sequence[Wanted]) -> AsyncIterator[tuple[str, list[Claimed]]]:
        """Claim what is still to be had of these; at the end what was not begun is given back at once."""
        claim = secrets.token_hex(12)
        taken = await self._store.claim(claim, self._owner, deliveries, TTL_SECONDS)
        self._held.add(claim)
        try:
            yield claim, taken
        finally:
            self._held.discard(claim)
            if taken:
                await self._release(claim)

    async def _release(self, claim: str) -> None:
        try:
            await self._store.release_claim(claim)
        except StoreUnavailable as error:
            _log.warning("a claim could not be given back, it will lapse: %s", error)

    async def keep(self) -> None:
        """Renew what is held, until cancelled."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await self.renew()

    async def renew(self) -> None:
        """Extend what is held now; what cannot be extended is somebody else's."""
        asked = set(self._held)  # others are taken and given back while the store works
        try:
            renewed = await self._store.renew_claims(sorted(asked), TTL_SECONDS)
        except StoreUnavailable as error:
            _log.warning("claims could not be renewed, trying again: %s", error)
            return
        if lost := (asked & self._held) - renewed:
            _log.warning("%d claims were lost to another process", len(lost))
            self._held -= lost
