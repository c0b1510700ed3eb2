"""Rows of users inside somebody else's transaction: upserts, tombstones, pseudonyms.

Users are written in the order of their ids, so that two transactions never wait for each other in a circle.
"""

import secrets
from collections.abc import Collection, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from msgspec.structs import asdict
from sqlalchemy import bindparam, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import Statement
from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.tables import settings, tombstones, users
from hub.model.events import NamedUser

_NEWEST_ERASURE: Final = Statement("SELECT max(erased_at_us) FROM tombstones")
NAMED_FIELDS: Final = ("email", "phone", "name", "locale", "timezone")
ERASURE_KEY: Final = "erasure_key"


def new_pseudonym() -> str:
    """A name for a person who must not be named: random, so that nothing leads back."""
    return f"erased-{secrets.token_hex(8)}"


def fresh_user(user_id: str, **fields: Any) -> dict[str, Any]:
    """The columns of a new user."""
    row: dict[str, Any] = {
        "id": user_id,
        "name": None,
        "avatar": None,
        "email": None,
        "phone": None,
        "locale": None,
        "timezone": None,
        "attributes": "{}",
        "preferences": "{}",
        "version": 1,
        "tokens_valid_from_us": 0,
        "created_at_us": 0,
    }
    return {**row, **fields}


async def add_users(db: Database, connection: AsyncConnection, ids: Collection[str]) -> None:
    """Create those that are unknown."""
    if not ids:
        return
    known = await connection.scalars(select(users.c.id).where(db.among(users.c.id, ids)))
    if missing := sorted(set(ids) - set(known.all())):
        await insert_users(db, connection, [fresh_user(user_id) for user_id in missing])


async def insert_users(db: Database, connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert new users. One who appeared meanwhile keeps what is not given here."""
    now_us = await connection.scalar(select(db.now_us()))
    stamped = [{**row, "created_at_us": now_us} for row in rows]
    insert = db.insert(users)
    given = {name: func.coalesce(insert.excluded[name], users.c[name]) for name in NAMED_FIELDS}
    merged = insert.on_conflict_do_update(
        index_elements=["id"], set_={**given, "version": users.c.version + 1}, where=_anything_given(insert)
    )
    await connection.execute(merged, stamped)


def _anything_given(insert: Any) -> Any:
    return or_(*(insert.excluded[name].is_not(None) for name in NAMED_FIELDS))


async def merge_named(db: Database, connection: AsyncConnection, named: Sequence[NamedUser]) -> None:
    """Create unknown users and set the given profile fields of known ones; only changes are written."""
    wanted: dict[str, dict[str, str]] = {}
    for user in named:
        given = {name: value for name, value in asdict(user).items() if name != "id" and value is not None}
        wanted.setdefault(user.id, {}).update(given)
    if not wanted:
        return
    columns = [users.c.id, *(users.c[name] for name in NAMED_FIELDS)]
    found = await connection.execute(select(*columns).where(db.among(users.c.id, wanted.keys())))
    known = {row["id"]: row for row in found.mappings()}
    if fresh := sorted(wanted.keys() - known.keys()):
        await insert_users(db, connection, [fresh_user(user_id, **wanted[user_id]) for user_id in fresh])
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
