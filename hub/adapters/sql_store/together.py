"""SQLite has one writer: batches that wait for it are written in one transaction, with one fsync.

Each is as whole and as fenced as alone. One that lost its lease writes nothing and spoils nothing; when anything else
fails, all are rolled back and written one by one, so an error reaches only the batch that made it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Database
from hub.errors import LeaseLost
from hub.ports import Batch, Committed

ROWS: Final = 1_000  # of notifications: the event loop is held meanwhile, and other processes wait to write

_Commit = Callable[[AsyncConnection, Batch], Awaitable[Committed]]
_Waiting = tuple[Batch, asyncio.Future[Committed]]


class Together:
    """Commits the batches of one process. `commit` writes one of them in a transaction that runs."""

    def __init__(self, db: Database, commit: _Commit) -> None:
        self._db = db
        self._commit = commit
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def add(self, batch: Batch) -> Committed:
        """Write a batch with those that wait. Raises what writing it alone would."""
        future: asyncio.Future[Committed] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, future))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="write-batches")
            self._db.keep(self._writing)
        return await future

    async def _write(self) -> None:
        while self._waiting:
            group: list[_Waiting] = []
            try:
                outcomes = await self._db.write_inline(self._write_group, group)
            except Exception as error:  # noqa: BLE001 - handed to whoever waits
                if len(group) > 1:
                    outcomes = [await self._write_alone(batch) for batch, _ in group]
                else:
                    if not group:  # not even the lock could be had: that concerns all who wait
                        group, self._waiting = self._waiting, []
                    outcomes = [error for _ in group]
            for (_, future), outcome in zip(group, outcomes, strict=True):
                _settle(future, outcome)
            self._db.written(sum(len(batch.notifications) for batch, _ in group))

    async def _write_group(
        self, connection: AsyncConnection, group: list[_Waiting]
    ) -> list[Committed | Exception]:
        group += self._take()  # only now that the lock is ours: who came meanwhile comes along
        outcomes: list[Committed | Exception] = []
        for batch, _ in group:
            try:
                outcomes.append(await self._commit(connection, batch))
            except LeaseLost as lost:  # before its first write
                outcomes.append(lost)
        return outcomes

    async def _write_alone(self, batch: Batch) -> Committed | Exception:
        try:
            return await self._db.write_inline(self._commit, batch)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            return error

    def _take(self) -> list[_Waiting]:
        """The first of those that wait, up to `ROWS`; at least one."""
        taken: list[_Waiting] = []
        rows = 0
        while self._waiting and (not taken or rows + len(self._waiting[0][0].notifications) <= ROWS):
            batch, future = self._waiting.pop(0)
            if not future.cancelled():
                taken.append((batch, future))
                rows += len(batch.notifications)
        return taken


def _settle(future: asyncio.Future[Committed], outcome: Committed | Exception) -> None:
    if future.done():
        return  # who waited was cancelled
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
