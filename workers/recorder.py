"""The recorder: what many deliveries begin and end at the same time is written in one transaction.

Nobody sends before the beginning is on disk, so a crash leaves at most those in doubt that were on their way. A step
that cannot be written is repeated while the store is away; its claim may lapse meanwhile, and then it does not hold.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Protocol

from hub.errors import StoreUnavailable
from hub.ports import Begin, End, LogEntry, SendingStore

_RETRY_SECONDS: Final = 0.5
_GATHER_SECONDS: Final = 0.001  # a transaction costs as much as twenty rows: it waits a moment for company
_TELL_SECONDS: Final = 0.05  # lines of so long are shown live in one message

_log = logging.getLogger(__name__)
_Step = tuple[Sequence[End], Sequence[Begin], "asyncio.Future[set[str]]"]


class Teller(Protocol):
    """Who shows log lines live."""

    async def tell(self, entries: Sequence[LogEntry]) -> None: ...


class Recorder:
    """Writes the steps of one process, whichever deliveries they are of."""

    def __init__(self, store: SendingStore, livelog: Teller) -> None:
        self._store = store
        self._livelog = livelog
        self._waiting: list[_Step] = []
        self._task: asyncio.Task[None] | None = None
        self._told: list[LogEntry] = []  # what is stored, and is still to be shown live
        self._telling: asyncio.Task[None] | None = None

    def step(self, ends: Sequence[End], begins: Sequence[Begin]) -> "asyncio.Future[set[str]]":
        """Record some ends and beginnings, after all that was given before.

        The future has the ids of the deliveries whose move held, once it is on disk. Nobody has to wait for it.
        """
        future: asyncio.Future[set[str]] = asyncio.get_running_loop().create_future()
        self._waiting.append((ends, begins, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="record-deliveries")
        return future

    async def _run(self) -> None:
        while self._waiting:
            await asyncio.sleep(_GATHER_SECONDS)
            steps, self._waiting = self._waiting, []
            if not await self._write(steps, alone=len(steps) == 1):
                for step in steps:  # one of them cannot be written, and must not take the others along
                    await self._write([step], alone=True)

    async def _write(self, steps: Sequence[_Step], *, alone: bool) -> bool:
        """One transaction. False: nothing was written, and nobody was told (`alone`: whose step it is was told why)."""
        ends = [end for some, _, _ in steps for end in some]
        begins = [begin for _, some, _ in steps for begin in some]
        try:
            held = await self._persist(begins, ends)
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            if alone:
                _log.exception("a step cannot be written, its delivery lapses")
            for _, _, future in steps if alone else ():
                if not future.done():
                    future.set_exception(error)
            return alone
        for _, _, future in steps:
            if not future.done():
                future.set_result(held)
        self._show([entry for end in ends if end.delivery.id in held for entry in end.log])
        return True

    def _show(self, entries: Sequence[LogEntry]) -> None:
        """Show stored lines live, beside the next transaction: nobody waits for that."""
        self._told += entries
        if self._told and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._tell(), name="tell-deliveries")

    async def _tell(self) -> None:
        while self._told:
            await asyncio.sleep(_TELL_SECONDS)
            lines, self._told = self._told, []
            await self._livelog.tell(lines)

    async def _persist(self, begins: Sequence[Begin], ends: Sequence[End]) -> set[str]:
        while True:
            try:
                return await self._store.record(begins, ends)
            except StoreUnavailable as error:
                _log.warning("what was sent is recorded as soon as the database answers: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)

    async def close(self, seconds: float | None = None) -> None:
        """Wait until everything is written, at most so long: what is not will be found by whoever lives."""
        if self._task is not None:
            _, waiting = await asyncio.wait([self._task], timeout=seconds)
            if waiting:
                _log.error(
                    "the database is away: what was sent last is not recorded, and may be sent once more"
                )
                self._task.cancel()
                await asyncio.wait([self._task])
        if self._telling is not None:
            await asyncio.wait([self._telling], timeout=seconds)
