"""Types and categories, versioned. Every change raises `catalog_version` in its own transaction, which also keeps
changes one after the other."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Text, cast, desc, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.rows import document
from hub.adapters.sql_store.situation import CATALOG
from hub.adapters.sql_store.tables import categories, settings, types
from hub.errors import Refused
from hub.model.types import CategoryDefinition, TypeDefinition, TypeVersion

_type = msgspec.json.Decoder(TypeDefinition)
_category = msgspec.json.Decoder(CategoryDefinition)


class Definitions(Part):
    """`hub.ports.DefinitionStore` on SQL."""

    async def catalog_version(self) -> int:
        """Rises with every change of types or categories."""
        async with self._db.read() as connection:
            return int(
                await connection.scalar(select(settings.c.value).where(settings.c.name == CATALOG)) or 0
            )

    async def types(self) -> dict[str, TypeVersion]:
        """The current version of each type."""
        newest = (
            select(types.c.name, func.max(types.c.version).label("version")).group_by(types.c.name).subquery()
        )
        current = select(types).join_from(
            types, newest, (types.c.name == newest.c.name) & (types.c.version == newest.c.version)
        )
        async with self._db.read() as connection:
            rows = await connection.execute(
                current.where(types.c.definition.is_not(None)).order_by(types.c.name)
            )
        return {row.name: TypeVersion(row.name, row.version, _type.decode(row.definition)) for row in rows}

    async def categories(self) -> dict[str, tuple[int, CategoryDefinition]]:
        """Categories with their versions."""
        current = select(categories).where(categories.c.definition.is_not(None)).order_by(categories.c.name)
        async with self._db.read() as connection:
            rows = await connection.execute(current)
        return {row.name: (row.version, _category.decode(row.definition)) for row in rows}

    async def save_type(self, name: str, definition: object, if_version: int | None) -> TypeVersion:
        """Store a new version (unchanged: the current one). Raises `Refused(412)`."""
        if not isinstance(definition, TypeDefinition):
            definition = msgspec.convert(definition, TypeDefinition)
        return await self._db.write(self._save_type, name, definition, if_version)

    async def _save_type(
        self, connection: AsyncConnection, name: str, definition: TypeDefinition, if_version: int | None
    ) -> TypeVersion:
        await self._lock_catalog(connection)
        newest = await self._newest(connection, name)
        exists = newest is not None and newest.definition is not None
        _check_version(name, if_version, newest.version if exists else 0)
        if exists and _type.decode(newest.definition) == definition:
            return TypeVersion(name, newest.version, definition)
        version = newest.version + 1 if newest is not None else 1
        await self._add_version(connection, name, version, document(definition))
        return TypeVersion(name, version, definition)

    async def delete_type(self, name: str) -> bool:
        """Delete a type; its versions stay. False: there was none."""
        return await self._db.write(self._delete_type, name)

    async def _delete_type(self, connection: AsyncConnection, name: str) -> bool:
        await self._lock_catalog(connection)
        newest = await self._newest(connection, name)
        if newest is None or newest.definition is None:
            return False
        await self._add_version(connection, name, newest.version + 1, None)
        return True

    async def type_versions(self, name: str) -> list[tuple[TypeVersion, int]]:
        """All versions, newest first, with created_at_us."""
        all_of_it = select(types).where(types.c.name == name, types.c.definition.is_not(None))
        async with self._db.read() as connection:
            rows: Sequence[Any] = (await connection.execute(all_of_it.order_by(desc(types.c.version)))).all()
        return [
            (TypeVersion(name, row.version, _type.decode(row.definition)), row.created_at_us) for row in rows
        ]

    async def _newest(self, connection: AsyncConnection, name: str) -> Any:
        page = select(types).where(types.c.name == name).order_by(desc(types.c.version)).limit(1)
        return (await connection.execute(page)).one_or_none()

    async def _add_version(
        self, connection: AsyncConnection, name: str, version: int, definition: str | None
    ) -> None:
        row = {"name": name, "version": version, "definition": definition}
        await connection.execute(types.insert().values(**row, created_at_us=self._db.now_us()))
        await _raise_catalog(connection)

    async def save_category(self, name: str, definition: CategoryDefinition, if_version: int | None) -> int:
        """Store a category (unchanged: the current version). Raises `Refused(412)`."""
        return await self._db.write(self._save_category, name, definition, if_version)

    async def _save_category(
        self, connection: AsyncConnection, name: str, definition: CategoryDefinition, if_version: int | None
    ) -> int:
        await self._lock_catalog(connection)
        found = (await connection.execute(select(categories).where(categories.c.name == name))).one_or_none()
        exists = found is not None and found.definition is not None
        _check_version(name, if_version, found.version if found is not None and exists else 0)
        if found is not None and exists and _category.decode(found.definition) == definition:
            return int(found.version)
        version = int(found.version) + 1 if found is not None else 1
        row = {"version": version, "definition": document(definition)}
        statement = self._db.insert(categories).values(name=name, **row)
        await connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=row))
        await _raise_catalog(connection)
        return version

    async def delete_category(self, name: str) -> bool:
        """Delete a category. False: there was none."""
        return await self._db.write(self._delete_category, name)

    async def _delete_category(self, connection: AsyncConnection, name: str) -> bool:
        await self._lock_catalog(connection)
        changed = await connection.execute(
            update(categories)
            .where(categories.c.name == name, categories.c.definition.is_not(None))
            .values(definition=None, version=categories.c.version + 1)
        )
        if changed.rowcount != 1:
            return False
        await _raise_catalog(connection)
        return True

    async def _lock_catalog(self, connection: AsyncConnection) -> None:
        await connection.execute(select(settings.c.value).where(settings.c.name == CATALOG).with_for_update())


async def _raise_catalog(connection: AsyncConnection) -> None:
    following = cast(cast(settings.c.value, BigInteger) + 1, Text)
    await connection.execute(update(settings).where(settings.c.name == CATALOG).values(value=following))


def _check_version(name: str, if_version: int | None, version: int) -> None:
    if if_version is not None and if_version != version:
        raise Refused(412, "stale_version", f"{name!r} is at version {version}, not {if_version}.")
