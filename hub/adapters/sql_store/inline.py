"""SQLite without a thread between: a generator's statements run on the event loop, only the fsync does not.

A thread that steps through rows takes and gives back the interpreter's lock for each of them, and waits for it
whenever the loop is busy: measured, that cost more than the work. So the loop is held for as long as a batch's
statements take (milliseconds), and is free while COMMIT writes. Not for what may take long; nodes do not use it.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")


class _Found:
    """What of a result the ready-made statements use."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self.rowcount = cursor.rowcount

    def all(self) -> list[Any]:
        return self._cursor.fetchall()

    def scalar(self) -> Any:
        row = self._cursor.fetchone()
        return row[0] if row else None


class _Inline:
    """What the store's functions use of an `AsyncConnection`; no call ever waits."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._driver = cast("sqlite3.Connection", connection.connection.dbapi_connection)

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        return self._connection.execute(statement, parameters)

    async def exec_driver_sql(self, statement: str, parameters: Any = ()) -> Any:
        """Straight to the driver: of a small batch's time SQLAlchemy's way there took a third."""
        many = isinstance(parameters, list)
        connection = self._connection
        connection.dispatch.before_cursor_execute(connection, None, statement, parameters, None, many)
        return _Found((self._driver.executemany if many else self._driver.execute)(statement, parameters))

    async def scalar(self, statement: Any, parameters: Any = None) -> Any:
        return self._connection.scalar(statement, parameters)

    async def scalars(self, statement: Any, parameters: Any = None) -> Any:
        return self._connection.scalars(statement, parameters)


@asynccontextmanager
async def writing(engine: Engine) -> AsyncIterator[AsyncConnection]:
    """A transaction, committed at the end: call it with the write lock held, and await nothing else within."""
    with engine.connect() as connection:
        connection.begin()
        yield cast("AsyncConnection", _Inline(connection))
        await asyncio.to_thread(connection.commit)


@contextmanager
def reading(engine: Engine) -> Iterator[AsyncConnection]:
    """A connection for reading, of one moment."""
    with engine.connect() as connection:
        connection.begin()
        yield cast("AsyncConnection", _Inline(connection))


def read_in_thread(engine: Engine, work: Callable[[AsyncConnection], Coroutine[Any, Any, T]]) -> T:
    """Run a whole read in the calling thread. `work` awaits nothing but its connection, so it never waits."""
    with reading(engine) as connection:
        running = work(connection)
        try:
            running.send(None)
        except StopIteration as done:
            return cast("T", done.value)
        finally:
            running.close()
    raise RuntimeError("A read in a thread may await nothing but its connection.")
