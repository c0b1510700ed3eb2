"""Rows of users inside somebody else's transaction: upserts, tombstones, pseudonyms.

Users are written in the order of their ids, so that two transactions never wait for each other in a circle.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import Statement
from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.tables import settings, tombstones, users
from hub.model.events import NamedUser

NAMED_FIELDS: Final = ("email", "phone", "name", "locale", "timezone")
_NEWEST_ERASURE: Final = Statement("SELECT max(erased_at_us) FROM tombstones")
_KNOWN: Final = Statement(f"SELECT id, {', '.join(NAMED_FIELDS)} FROM users WHERE id {{given}}")  # noqa: S608 - our own
_INSERT: Final = Statement(
    "INSERT INTO users (id, email, phone, name, locale, timezone, attributes, preferences, version,"  # noqa: S608
    " tokens_valid_from_us, created_at_us) VALUES (?, ?, ?, ?, ?, ?, '{}', '{}', 1, 0, {now})"
    " ON CONFLICT (id) DO UPDATE SET version = users.version + 1,"
    f" {', '.join(f'{name} = coalesce(excluded.{name}, users.{name})' for name in NAMED_FIELDS)}"
    f" WHERE {' OR '.join(f'excluded.{name} IS NOT NULL' for name in NAMED_FIELDS)}"
)
ERASURE_KEY: Final = "erasure_key"


def new_pseudonym() -> str:
    """A name for a person who must not be named: random, so that nothing leads back."""
    return f"erased-{secrets.token_hex(8)}"


async def add_users(db: Database, connection: AsyncConnection, ids: Collection[str]) -> None:
    """Create those that are unknown."""
    if not ids:
        return
    known = await connection.scalars(select(users.c.id).where(db.among(users.c.id, ids)))
    if missing := set(ids) - set(known.all()):
        await insert_users(db, connection, {user_id: {} for user_id in missing})


async def insert_users(
    db: Database, connection: AsyncConnection, fresh: Mapping[str, Mapping[str, str]]
) -> None:
    """Insert new users with the fields that are given. One who appeared meanwhile keeps what is not."""
    rows = [(id_, *(given.get(name) for name in NAMED_FIELDS)) for id_, given in sorted(fresh.items())]
    await _INSERT.run_many(db, connection, rows)


async def merge_named(db: Database, connection: AsyncConnection, named: Sequence[NamedUser]) -> None:
    """Create unknown users and set the given profile fields of known ones; only changes are written."""
    wanted: dict[str, dict[str, str]] = {}
    for user in named:
        given = wanted.setdefault(user.id, {})
        given.update({name: value for name in NAMED_FIELDS if (value := getattr(user, name)) is not None})
    if not wanted:
        return
    found = await _KNOWN.among(db, connection, wanted.keys())
    known = {row[0]: dict(zip(NAMED_FIELDS, row[1:], strict=True)) for row in found}
    if fresh := {user_id: given for user_id, given in wanted.items() if user_id not in known}:
        await insert_users(db, connection, fresh)
    changed = {id_: changes(row, wanted[id_]) for id_, row in known.items()}
    await change_users(connection, {id_: fields for id_, fields in changed.items() if fields})


def changes(row: Mapping[Any, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the fields that differ from a row."""
    return {name: value for name, value in fields.items() if row[name] != value}


async def change_users(connection: AsyncConnection, changed: Mapping[str, Mapping[str, Any]]) -> None:
    """Set columns of users and raise their versions: one statement for each set of columns."""
    by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for user_id, fields in sorted(changed.items()):
        values = {f"new_{name}": value for name, value in fields.items()}
        by_columns.setdefault(tuple(sorted(fields)), []).append({"user_id": user_id, **values})
    for names, rows in by_columns.items():
        columns: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names}
        statement = update(users).where(users.c.id == bindparam("user_id"))
        await connection.execute(statement.values(**columns, version=users.c.version + 1), rows)


async def settings_among(connection: AsyncConnection, *names: str) -> dict[str, str]:
    """Those of the small settings that are there."""
    found = await connection.execute(
        select(settings.c.name, settings.c.value).where(settings.c.name.in_(names))
    )
    return {row.name: row.value for row in found}


# ---------------------------------------------------------------- the erased


async def erasure_key(connection: AsyncConnection) -> bytes | None:
    """The key that hashes erased ids; None as long as nobody was erased."""
    found = await connection.scalar(select(settings.c.value).where(settings.c.name == ERASURE_KEY))
    return bytes.fromhex(found) if found else None


async def ensure_erasure_key(db: Database, connection: AsyncConnection) -> bytes:
    """The key that hashes erased ids, made at the first erasure."""
    await connection.execute(
        db.insert(settings).values(name=ERASURE_KEY, value=secrets.token_hex(32)).on_conflict_do_nothing()
    )
    key = await erasure_key(connection)
    assert key is not None
    return key


def tombstone_hash(key: bytes, user_id: str) -> str:
    """The name of an erased user's tombstone."""
    return blake2b(user_id.encode(), key=key, digest_size=20).hexdigest()


async def find_tombstones(
    db: Database, connection: AsyncConnection, ids: Collection[str]
) -> dict[str, tuple[int, int]]:
    """(erased_at_us, tokens_valid_from_us) of those of the users that were erased once."""
    key = await erasure_key(connection)
    return await tombstones_among(db, connection, key, ids) if key is not None else {}


async def tombstones_among(
    db: Database, connection: AsyncConnection, key: bytes, ids: Collection[str]
) -> dict[str, tuple[int, int]]:
    """`find_tombstones` for who has the key."""
    if not ids:
        return {}
    by_hash = {tombstone_hash(key, user_id): user_id for user_id in ids}
    found = await connection.execute(select(tombstones).where(db.among(tombstones.c.hash, by_hash.keys())))
    return {by_hash[row.hash]: (row.erased_at_us, row.tokens_valid_from_us) for row in found}


async def erased_since(
    db: Database, connection: AsyncConnection, ids: Collection[str], since_us: int
) -> dict[str, int]:
    """When those of the users were erased that were erased after a moment. One look when nobody was."""
    newest = (await _NEWEST_ERASURE.run(db, connection)).scalar()
    if newest is None or newest <= since_us:
        return {}
    found = await find_tombstones(db, connection, ids)
    return {user_id: erased_at_us for user_id, (erased_at_us, _) in found.items() if erased_at_us > since_us}
