"""Statements of the hot paths, which go to the driver as they are.

Many rows enter a table with one statement, as tuples in the order of its columns: what SQLAlchemy does with the
parameters of a row of twenty columns took four times as long as inserting it. And building and keying the same
expressions for every batch took longer than the database took to answer them.
"""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Column, CursorResult, Table
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import POSTGRESQL_NOW, SQLITE_NOW, Database
from hub.adapters.sql_store.failures import translated

_encode = msgspec.json.Encoder().encode

Row = tuple[Any, ...]


class Statement:
    """A text with `?` for its parameters, `{now}` for the database's clock, and `{given}` for "is among these".

    With `{given}` a list is the one parameter. `sqlite`: that database's own text, where the two must differ by more.
    """

    def __init__(self, text: str, sqlite: str | None = None) -> None:
        parts = text.replace("{given}", "= ANY(?::text[])").replace("{now}", POSTGRESQL_NOW).split("?")
        numbered = (f"{part}${number}" for number, part in enumerate(parts[:-1], 1))
        among = "IN (SELECT value FROM json_each(?))"
        self._sqlite = (sqlite or text).replace("{given}", among).replace("{now}", SQLITE_NOW)
        self._postgresql = "".join(numbered) + parts[-1]

    async def run(self, db: Database, connection: AsyncConnection, *parameters: Any) -> CursorResult[Any]:
        """Send it with its parameters."""
        return await connection.exec_driver_sql(self._sqlite if db.sqlite else self._postgresql, parameters)

    async def rows(self, db: Database, connection: AsyncConnection, *parameters: Any) -> Sequence[Any]:
        """The rows of a SELECT."""
        return (await self.run(db, connection, *parameters)).all()

    async def run_many(self, db: Database, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        """Send it once for each row."""
        await connection.exec_driver_sql(self._sqlite if db.sqlite else self._postgresql, list(rows))

    async def among(
        self, db: Database, connection: AsyncConnection, values: Collection[str]
    ) -> Sequence[Any]:
        """The rows of a SELECT with `{given}`; none when nothing is given."""
        return await self.rows(db, connection, given_as(db, values)) if values else []


def given_as(db: Database, values: Collection[str]) -> Any:
    """A list as the one parameter of `{given}`."""
    with translated():
        return _encode(list(values)).decode() if db.sqlite else list(values)


def columns_as(db: Database, rows: Sequence[Row]) -> tuple[Any, ...]:
    """Rows as parameters: one JSON document for SQLite's json_each, an array for each column for PostgreSQL's unnest."""
    if db.sqlite:
        with translated():
            return (_encode(rows).decode(),)
    return tuple(map(list, zip(*rows, strict=True)))


async def insert_rows(
    db: Database, connection: AsyncConnection, table: Table, rows: Sequence[Row], *, ignore_known: bool = True
) -> int:
    """Insert them; with `ignore_known` those whose key is there stay as they are. Returns how many were inserted."""
    if not rows:
        return 0
    text = _text(table, db.sqlite, ignore_known)
    # PostgreSQL takes columns as arrays: one execution instead of one for each row.
    given = list(rows) if db.sqlite else columns_as(db, rows)
    return (await connection.exec_driver_sql(text, given)).rowcount


@cache
def _text(table: Table, sqlite: bool, ignore_known: bool) -> str:
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    if sqlite:
        source = f"VALUES ({', '.join('?' for _ in table.columns)})"
    else:
        arrays = (f"${number}::{_array(column)}" for number, column in enumerate(table.columns, 1))
        source = f"SELECT * FROM unnest({', '.join(arrays)})"  # noqa: S608 - names of our own
    ending = " ON CONFLICT DO NOTHING" if ignore_known else ""
    return f'INSERT INTO "{table.name}" ({names}) {source}{ending}'


def _array(column: Column[Any]) -> str:
    kinds = {int: "bigint[]", bool: "boolean[]", bytes: "bytea[]", str: "text[]"}
    return kinds[column.type.python_type]


class RowsStatement:
    """A text with `{rows}` for a table of given rows, its only parameters; a name and a kind for each of its columns.

    One execution and one prepared text for any number of rows, whatever it does with them. `{now}` is the database's clock.
    """

    def __init__(self, text: str, **columns: str) -> None:
        each = ", ".join(f"json_extract(value, '$[{index}]') AS {name}" for index, name in enumerate(columns))
        arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(columns.values(), 1))
        source = f"(SELECT {each} FROM json_each(?)) AS given"  # noqa: S608 - names of our own
        self._sqlite = text.replace("{rows}", source).replace("{now}", SQLITE_NOW)
        source = f"unnest({arrays}) AS given({', '.join(columns)})"
        self._postgresql = text.replace("{rows}", source).replace("{now}", POSTGRESQL_NOW)

    async def rows(self, db: Database, connection: AsyncConnection, given: Sequence[Row]) -> Sequence[Any]:
        """What it returns; nothing when nothing is given."""
        if not given:
            return []
        with translated():
            document = _encode(given).decode() if db.sqlite else ""
        if db.sqlite:
            found = await connection.exec_driver_sql(self._sqlite, (document,))
        else:
            found = await connection.exec_driver_sql(
                self._postgresql, tuple(map(list, zip(*given, strict=True)))
            )
        return found.all()
