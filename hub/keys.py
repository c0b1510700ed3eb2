"""API keys: 256 random bits each, kept as SHA-256 only, with scopes, rotation with an overlap, and revocation.

A key that is checked is remembered for `CACHE_SECONDS`: a revocation counts at once on the node that took it and
elsewhere within that bound. The first key comes from the settings, has all scopes and lives outside the database.
"""

import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from hashlib import sha256
from typing import Final

from hub.errors import Refused
from hub.ports import ApiKey, Clock, KeyStore

SCOPES: Final = ("publish", "users", "types", "read", "admin")
PREFIX: Final = "clk_"
FIRST_KEY_ID: Final = "key_first"
CACHE_SECONDS: Final = 5
CACHE_SIZE: Final = 10_000
ROTATION_SECONDS: Final = 86_400


def hash_secret(secret: str) -> str:
    """What is kept of a secret. No salt or slow hash: it has 256 random bits."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class Keys:
    """Creates, checks, rotates and revokes API keys."""

    def __init__(self, store: KeyStore, clock: Clock, first_secret: str | None) -> None:
        self._store = store
        self._clock = clock
        self._first_hash = hash_secret(first_secret) if first_secret else None
        self._first_key = ApiKey(FIRST_KEY_ID, "CLARION_API_KEY", frozenset(SCOPES), 0)
        self._cache: OrderedDict[str, tuple[int, ApiKey]] = OrderedDict()

    async def find(self, secret: str) -> ApiKey | None:
        """The living key of a secret; None for every other text. Raises `StoreUnavailable`."""
        if not 16 <= len(secret) <= 512:
            return None
        hashed = hash_secret(secret)  # hashing first makes the comparisons below tell nothing by their time
        if self._first_hash is not None and secrets.compare_digest(hashed, self._first_hash):
            return self._first_key
        now_us = self._clock.now_us()
        checked_us, key = self._cache.get(hashed, (0, None))
        if key is None or now_us - checked_us > CACHE_SECONDS * 1_000_000:
            key = await self._store.find_key(hashed)
            self._remember(hashed, key, now_us)
        return key if key is not None and is_alive(key, now_us) else None

    async def create(
        self, name: str, scopes: Iterable[str], expires_at_us: int | None = None
    ) -> tuple[ApiKey, str]:
        """A new key and its secret, which nobody can see again. Raises `Refused(422)`."""
        wanted = frozenset(scopes)
        if not wanted or not wanted <= set(SCOPES):
            raise Refused(422, "invalid_value", f"Scopes are one or more of {', '.join(SCOPES)}.")
        now_us = self._clock.now_us()
        if expires_at_us is not None and expires_at_us <= now_us:
            raise Refused(422, "invalid_value", "expires_at lies in the past.")
        secret = PREFIX + secrets.token_urlsafe(32)
        key = ApiKey("key_" + secrets.token_hex(8), name, wanted, now_us, expires_at_us=expires_at_us)
        await self._store.add_key(key, hash_secret(secret))
        return key, secret

    async def rotate(self, key_id: str, overlap_seconds: int = ROTATION_SECONDS) -> tuple[ApiKey, str]:
        """A new key with the same name and scopes; the old one works for `overlap_seconds` more."""
        if key_id == FIRST_KEY_ID:
            raise _first_key_is_a_setting()
        old = next((key for key in await self._store.list_keys() if key.id == key_id), None)
        if old is None or not is_alive(old, self._clock.now_us()):
            raise Refused(404, "not_found", f"A living key {key_id!r} does not exist.")
        created = await self.create(old.name, old.scopes)
        ends_us = self._clock.now_us() + overlap_seconds * 1_000_000
        await self._store.expire_key(key_id, min(ends_us, old.expires_at_us or ends_us))
        self._cache.clear()
        return created

    async def revoke(self, key_id: str) -> None:
        """End a key now. Raises `Refused(404)`; `Refused(409)` for the first key, which is a setting."""
        if key_id == FIRST_KEY_ID and self._first_hash is not None:
            raise _first_key_is_a_setting()
        if not await self._store.revoke_key(key_id, self._clock.now_us()):
            raise Refused(404, "not_found", f"The key {key_id!r} does not exist.")
        self._cache.clear()

    async def list(self) -> list[ApiKey]:
        """All keys, the first one included, never their secrets."""
        first = [self._first_key] if self._first_hash is not None else []
        return [*first, *await self._store.list_keys()]

    def _remember(self, hashed: str, key: ApiKey | None, now_us: int) -> None:
        self._cache.pop(hashed, None)
        if key is None:  # wrong secrets are not kept: a flood of them would push the good ones out
            return
        self._cache[hashed] = (now_us, replace(key))
        if len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)


def is_alive(key: ApiKey, now_us: int) -> bool:
    """Neither revoked nor expired."""
    if key.revoked_at_us is not None and key.revoked_at_us <= now_us:
        return False
    return key.expires_at_us is None or now_us < key.expires_at_us


def _first_key_is_a_setting() -> Refused:
    return Refused(
        409,
        "conflict",
        "The first key is the setting CLARION_API_KEY; change it there and restart the nodes.",
    )
