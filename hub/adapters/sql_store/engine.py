"""One database: connections, transactions and the database's clock.

SQLite has one writer at a time: an asyncio lock within the process, `flock` on a file beside the database between
processes, then BEGIN IMMEDIATE. Readers are free. PostgreSQL transactions that were chosen as victims run again, a
bounded number of times. A lost connection is `StoreUnavailable`; whether the transaction happened is then unknown.
"""

import asyncio
import contextlib
import fcntl
import os
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from itertools import count
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import msgspec
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Engine,
    ExceptionContext,
    String,
    Table,
    any_,
    bindparam,
    create_engine,
    event,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from hub.adapters.sql_store import inline
from hub.adapters.sql_store.failures import may_run_again, refused_by_driver, translated
from hub.errors import StoreUnavailable
from hub.urls import sqlalchemy_url

P = ParamSpec("P")
T = TypeVar("T")

TRIES: Final = 6
LOCK_WAIT_SECONDS: Final = 30.0
BUSY_TIMEOUT_MS: Final = 10_000
CHECKPOINT_PAGES: Final = 16_384  # a write that finds so many in the log takes them over itself
CHECKPOINT_ROWS: Final = 4_000  # after so many a generator takes them over, beside those who write

_MEMORY: Final = ("sqlite://", "sqlite:///:memory:", "sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:")
# julianday() is precise to less than a millisecond, and older than unixepoch('subsec') (SQLite 3.42).
SQLITE_NOW: Final = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
POSTGRESQL_NOW: Final = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
_POSTGRESQL_SETTINGS: Final = {
    "application_name": "clarion",
    "jit": "off",
    # A process that froze within a transaction holds its rows; a lease must be takeable within ten seconds.
    "idle_in_transaction_session_timeout": "4s",
    "lock_timeout": "20s",
}
_memories = count(1)


class Database:
    """Engine and transactions of one database. Belongs to one event loop."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        self.memory = url in _MEMORY
        # The memory VFS keeps a database as long as one connection is open, so a thrown away one takes nothing along.
        name = f"file:/clarion-{os.getpid()}-{next(_memories)}?vfs=memdb"
        self._keeper = sqlite3.connect(name, uri=True) if self.memory else None
        self.url = f"sqlite+aiosqlite:///{name}&uri=true" if self.memory else _with_driver(url)
        self.sqlite = self.url.startswith("sqlite")
        self._lock = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()
        self._checkpoint: asyncio.Task[None] | None = None
        self._rows_since_checkpoint = 0
        self._engine = self._create(pool_size)
        self._lock_path: Path | None = None
        self._inline: Engine | None = None
        if self.sqlite:
            self._inline = self._create_inline()
            self._inline_writer = self._inline.execution_options(begin="IMMEDIATE")
            self._inline_reader = self._inline.execution_options(begin="DEFERRED")
            self._writer = self._engine.execution_options(begin="IMMEDIATE")
            self._reader = self._engine
            self._snapshot = self._engine.execution_options(begin="DEFERRED")
            if not self.memory:
                self._lock_path = Path(self._engine.url.database or "").absolute().parent / "write.lock"
        else:
            self._writer = self._engine
            self._reader = self._engine.execution_options(isolation_level="AUTOCOMMIT")
            self._snapshot = self._engine.execution_options(isolation_level="REPEATABLE READ")

    def _create(self, pool_size: int) -> AsyncEngine:
        if not self.sqlite:
            engine = create_async_engine(
                self.url,
                pool_size=pool_size,
                max_overflow=pool_size,
                pool_timeout=15,
                connect_args={"timeout": 10, "server_settings": _POSTGRESQL_SETTINGS},
            )
            event.listen(engine.sync_engine, "handle_error", _drop_half_asked)
            return engine
        # isolation_level None: the driver begins nothing by itself, `begin` below does.
        engine = create_async_engine(
            self.url, connect_args={"isolation_level": None}, pool_size=pool_size, max_overflow=pool_size
        )
        _prepare(engine.sync_engine)
        return engine

    def _create_inline(self) -> Engine:
        arguments = {"isolation_level": None, "check_same_thread": False}  # COMMIT has a thread of its own
        engine = create_engine(
            self.url.replace("sqlite+aiosqlite:", "sqlite:", 1), connect_args=arguments, poolclass=QueuePool
        )
        _prepare(engine)
        return engine

    @property
    def engines(self) -> list[Engine]:
        """What statements go through, for those who watch them."""
        return [self._engine.sync_engine, *([self._inline] if self._inline else [])]

    async def close(self) -> None:
        """Let what runs finish, then let go of connections."""
        if self._running:
            await asyncio.wait(self._running)
        await self._engine.dispose()
        if self._inline is not None:
            self._inline.dispose()
        if self._keeper is not None:
            self._keeper.close()

    # ------------------------------------------------------------ transactions

    async def write(
        self, work: Callable[Concatenate[AsyncConnection, P], Awaitable[T]], *args: P.args, **named: P.kwargs
    ) -> T:
        """Run `work` in one transaction. It may run more than once, so it must not keep state of its own."""

        async def run(connection: AsyncConnection) -> T:
            return await work(connection, *args, **named)

        with translated():
            if self.sqlite:
                return await self._finish(self._write_sqlite(run))
            return await self._write_postgresql(run)

    @contextlib.asynccontextmanager
    async def read(self, snapshot: bool = False) -> AsyncIterator[AsyncConnection]:
        """A connection for reading; with `snapshot` all statements see one moment."""
        with translated():
            async with contextlib.AsyncExitStack() as stack:
                if self.memory:  # without a write-ahead log a reader would be in the writer's way
                    await stack.enter_async_context(self._lock)
                yield await stack.enter_async_context(
                    (self._snapshot if snapshot else self._reader).connect()
                )

    async def read_apart(
        self, work: Callable[Concatenate[AsyncConnection, P], Awaitable[T]], *args: P.args, **named: P.kwargs
    ) -> T:
        """Run `work` on a snapshot; it awaits nothing but its connection. On SQLite all of it is one hop to a thread.

        The driver makes several hops for each statement, which costs more than a few short statements themselves.
        """

        async def run(connection: AsyncConnection) -> T:
            return await work(connection, *args, **named)

        if self._inline is None:
            async with self.read(snapshot=True) as connection:
                return await run(connection)

        async def hop() -> T:
            async with self._lock if self.memory else contextlib.nullcontext():
                return await asyncio.to_thread(inline.read_in_thread, self._inline_reader, run)

        with translated():
            return await self._finish(hop())

    async def write_inline(
        self, work: Callable[Concatenate[AsyncConnection, P], Awaitable[T]], *args: P.args, **named: P.kwargs
    ) -> T:
        """`write` for the generator: short statements without a hop between threads (see `inline`)."""
        if self._inline is None:
            return await self.write(work, *args, **named)

        async def run() -> T:
            async with self._lock, self._file_lock(), inline.writing(self._inline_writer) as connection:
                return await work(connection, *args, **named)

        with translated():
            return await self._finish(run())

    @contextlib.asynccontextmanager
    async def read_inline(self) -> AsyncIterator[AsyncConnection]:
        """`read` for the generator, of one moment on SQLite: short queries only."""
        if self._inline is None:
            async with self.read() as connection:
                yield connection
            return
        with translated():
            async with contextlib.AsyncExitStack() as stack:
                if self.memory:
                    await stack.enter_async_context(self._lock)
                yield stack.enter_context(inline.reading(self._inline_reader))

    def written(self, rows: int) -> None:
        """Count what a generator wrote; now and then what the write-ahead log holds is taken over.

        Pages that many batches touch are then written to the database once, and no commit waits for it.
        """
        self._rows_since_checkpoint += rows
        if self._rows_since_checkpoint < CHECKPOINT_ROWS or self._inline is None or self.memory:
            return
        if self._checkpoint is None or self._checkpoint.done():
            self._rows_since_checkpoint = 0
            self._checkpoint = asyncio.create_task(asyncio.to_thread(_take_over, self._inline))
            self.keep(self._checkpoint)

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Let `close` wait for a task."""
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _finish(self, work: Awaitable[T]) -> T:
        # Cancelling within a transaction throws its connection away, and the lock would be given back before SQLite has
        # rolled back. So it ends by itself: it is short.
        task = asyncio.ensure_future(work)
        self.keep(task)
        return await asyncio.shield(task)

    async def _write_sqlite(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        async with self._lock, self._file_lock(), self._writer.connect() as connection:
            result = await run(connection)
            await connection.commit()
            return result

    async def _write_postgresql(self, run: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        attempt = 1
        while True:
            try:
                async with self._writer.begin() as connection:
                    return await run(connection)
            except DBAPIError as error:
                if attempt >= TRIES or not may_run_again(error):
                    raise
                await asyncio.sleep(random.uniform(0.005, 0.02) * 2**attempt)
                attempt += 1

    @contextlib.asynccontextmanager
    async def _file_lock(self) -> AsyncIterator[None]:
        if self._lock_path is None:
            yield
            return
        descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        waiting: asyncio.Future[None] | None = None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting = asyncio.get_running_loop().run_in_executor(
                    None, fcntl.flock, descriptor, fcntl.LOCK_EX
                )
                await asyncio.wait([waiting], timeout=LOCK_WAIT_SECONDS)
                if not waiting.done():
                    raise StoreUnavailable(
                        f"Another process has held {self._lock_path} for too long."
                    ) from None
                waiting.result()
            yield
        finally:
            if waiting is not None and not waiting.done():
                waiting.add_done_callback(lambda _: os.close(descriptor))  # the thread still waits on it
            else:
                os.close(descriptor)

    # ------------------------------------------------------------ what differs between the databases

    def now_us(self) -> ColumnElement[int]:
        """The database's own clock."""
        return literal_column(SQLITE_NOW if self.sqlite else POSTGRESQL_NOW, BigInteger)

    def among(
        self, column: ColumnElement[Any], values: Collection[str] | Collection[int]
    ) -> ColumnElement[bool]:
        """`column IN values` as one parameter: one prepared statement for any number of values."""
        if self.sqlite:
            with translated():
                document = msgspec.json.encode(list(values)).decode()
            each = func.json_each(document).table_valued("value")
            return column.in_(select(each.c.value))
        array = postgresql.ARRAY(BigInteger() if isinstance(next(iter(values), ""), int) else String())
        return column == any_(bindparam(None, list(values), type_=array, unique=True))

    def insert(self, table: Table) -> Any:
        """An INSERT that can say ON CONFLICT."""
        return sqlite_insert(table) if self.sqlite else postgresql.insert(table)


class Part:
    """Base of the store's parts: they share one database."""

    def __init__(self, database: Database) -> None:
        self._db = database


def _with_driver(url: str) -> str:
    return url if url.startswith(("sqlite+aiosqlite:", "postgresql+asyncpg:")) else sqlalchemy_url(url)


def _drop_half_asked(context: ExceptionContext) -> None:
    """Throw a connection away whose driver refused a value.

    asyncpg has prepared the statement by then and does not say that nothing more comes, so that the server is still in
    an implicit transaction: the next one on this connection could not choose its isolation.
    """
    if refused_by_driver(context.original_exception):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


def _prepare(engine: Engine) -> None:
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA journal_mode = WAL")
    # FACTS: WAL with NORMAL lost committed rows at a power loss, FULL lost none.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    cursor.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * 4096}")
    cursor.execute("PRAGMA temp_store = MEMORY")
    cursor.execute("PRAGMA cache_size = -16384")
    cursor.close()


def _take_over(engine: Engine) -> None:
    with contextlib.suppress(DBAPIError), engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")  # waits for nobody, holds up nobody


def _begin_sqlite(connection: Connection) -> None:
    if mode := connection.get_execution_options().get("begin"):
        connection.exec_driver_sql(f"BEGIN {mode}")
