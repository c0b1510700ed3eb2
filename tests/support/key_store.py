"""API keys, one-time links and users' revocations in a dictionary: stands at the ports `KeyStore` and `UserStore`."""

from collections.abc import Sequence
from dataclasses import replace

from hub.model.users import Profile, User
from hub.ports import ApiKey


class DictStore:
    """Only what keys, sessions and access ask for."""

    def __init__(self) -> None:
        self.keys: dict[str, ApiKey] = {}
        self.links: dict[str, tuple[str, int]] = {}
        self.users: dict[str, User] = {}
        self.lookups = 0

    async def add_key(self, key: ApiKey, secret_hash: str) -> None:
        self.keys[secret_hash] = key

    async def find_key(self, secret_hash: str) -> ApiKey | None:
        self.lookups += 1
        return self.keys.get(secret_hash)

    async def list_keys(self) -> list[ApiKey]:
        return list(self.keys.values())

    async def revoke_key(self, key_id: str, now_us: int) -> bool:
        return self._change(key_id, revoked_at_us=now_us)

    async def expire_key(self, key_id: str, at_us: int) -> bool:
        return self._change(key_id, expires_at_us=at_us)

    def _change(self, key_id: str, **fields: int) -> bool:
        for secret_hash, key in self.keys.items():
            if key.id == key_id:
                self.keys[secret_hash] = replace(key, **fields)  # type: ignore[arg-type]
                return True
        return False

    async def add_login_link(self, secret_hash: str, subject: str, expires_at_us: int) -> None:
        self.links[secret_hash] = (subject, expires_at_us)

    async def redeem_login_link(self, secret_hash: str, now_us: int) -> str | None:
        subject, expires_at_us = self.links.pop(secret_hash, ("", 0))
        return subject if now_us < expires_at_us else None

    async def load_users(self, ids: Sequence[str], with_subscriptions: bool = False) -> dict[str, User]:
        return {one: self.users[one] for one in ids if one in self.users}

    def revoke(self, user_id: str, now_us: int) -> None:
        self.users[user_id] = User(Profile(user_id), version=1, tokens_valid_from_us=now_us)
