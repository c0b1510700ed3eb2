"""API keys by hash, dashboard links that work once, small settings. Secrets are never stored, only their hashes."""

from typing import Any

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.rows import document
from hub.adapters.sql_store.tables import api_keys, login_links, settings
from hub.ports import ApiKey


class Keys(Part):
    """`hub.ports.KeyStore` on SQL."""

    async def add_key(self, key: ApiKey, secret_hash: str) -> None:
        """Store a new key."""
        row = {
            "id": key.id,
            "secret_hash": secret_hash,
            "name": key.name,
            "scopes": document(sorted(key.scopes)),
            "created_at_us": key.created_at_us,
            "revoked_at_us": key.revoked_at_us,
            "expires_at_us": key.expires_at_us,
        }
        await self._db.write(_execute, api_keys.insert().values(row))

    async def find_key(self, secret_hash: str) -> ApiKey | None:
        """The key with this secret, also when it was revoked or has expired."""
        async with self._db.read() as connection:
            found = await connection.execute(select(api_keys).where(api_keys.c.secret_hash == secret_hash))
            row = found.one_or_none()
        return None if row is None else _key_of(row)

    async def list_keys(self) -> list[ApiKey]:
        """All keys, oldest first."""
        async with self._db.read() as connection:
            rows = await connection.execute(
                select(api_keys).order_by(api_keys.c.created_at_us, api_keys.c.id)
            )
        return [_key_of(row) for row in rows]

    async def revoke_key(self, key_id: str, now_us: int) -> bool:
        """End a key at once. False: there is no such key, or it was revoked before."""
        which = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at_us.is_(None))
        return await self._db.write(_execute, which.values(revoked_at_us=now_us)) > 0

    async def expire_key(self, key_id: str, at_us: int) -> bool:
        """Let a key end at a moment. False: there is no such key."""
        which = update(api_keys).where(api_keys.c.id == key_id)
        return await self._db.write(_execute, which.values(expires_at_us=at_us)) > 0

    async def add_login_link(self, secret_hash: str, subject: str, expires_at_us: int) -> None:
        """Store a link that works once."""
        row = {"secret_hash": secret_hash, "subject": subject, "expires_at_us": expires_at_us}
        await self._db.write(_execute, login_links.insert().values(row))

    async def redeem_login_link(self, secret_hash: str, now_us: int) -> str | None:
        """The subject, once; None when unknown, used or late."""

        async def work(connection: AsyncConnection) -> str | None:
            used = await connection.execute(
                update(login_links)
                .where(
                    login_links.c.secret_hash == secret_hash,
                    login_links.c.used_at_us.is_(None),
                    login_links.c.expires_at_us > now_us,
                )
                .values(used_at_us=now_us)
                .returning(login_links.c.subject)
            )
            subject: str | None = used.scalar_one_or_none()
            return subject

        return await self._db.write(work)

    async def setting(self, name: str, default: str) -> str:
        """A small deployment setting, stored as `default` when it is not there yet (first writer wins)."""
        page = select(settings.c.value).where(settings.c.name == name)
        async with self._db.read() as connection:
            found = await connection.scalar(page)
        if found is not None:
            return str(found)

        async def work(connection: AsyncConnection) -> str:
            await connection.execute(
                self._db.insert(settings).values(name=name, value=default).on_conflict_do_nothing()
            )
            return str(await connection.scalar(page))

        return await self._db.write(work)

    async def change_setting(self, name: str, expected: str, value: str) -> bool:
        """Compare and set."""
        which = update(settings).where(settings.c.name == name, settings.c.value == expected)
        return await self._db.write(_execute, which.values(value=value)) > 0


async def _execute(connection: AsyncConnection, statement: Any) -> int:
    return int((await connection.execute(statement)).rowcount)


def _key_of(row: Any) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        scopes=frozenset(msgspec.json.decode(row.scopes, type=list[str])),
        created_at_us=row.created_at_us,
        revoked_at_us=row.revoked_at_us,
        expires_at_us=row.expires_at_us,
    )
