"""Many rows into one table with one statement, as tuples in the order of its columns.

The text goes to the driver as it is: for a row of twenty columns, what SQLAlchemy does with its parameters took four
times as long as inserting it.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Database

Row = tuple[Any, ...]


async def insert_rows(
    db: Database, connection: AsyncConnection, table: Table, rows: Sequence[Row], *, ignore_known: bool = True
) -> None:
    """Insert them; with `ignore_known` those whose key is there stay as they are."""
    if rows:
        await connection.exec_driver_sql(_text(table, db.sqlite, ignore_known), list(rows))


@cache
def _text(table: Table, sqlite: bool, ignore_known: bool) -> str:
    names = [column.name for column in table.columns]
    quoted = ", ".join(f'"{name}"' for name in names)
    places = ", ".join("?" if sqlite else f"${number}" for number in range(1, len(names) + 1))
    ending = " ON CONFLICT DO NOTHING" if ignore_known else ""
    return f'INSERT INTO "{table.name}" ({quoted}) VALUES ({places}){ending}'  # noqa: S608 - names of our own
