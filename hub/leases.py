"""Leases shared out among processes: each takes its fair part, gives back what is beyond it, and works while it holds it.

A process that dies lets its leases lapse; the others take them within `TTL_SECONDS` and one round of the keeper.
Being late to renew is harmless: the fence stops whoever lost a lease from writing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from hub.errors import ClarionError
from hub.ports import Lease, LeaseStore

TTL_SECONDS: Final = 6.0
ROUND_SECONDS: Final = 1.5
GRACE_SECONDS: Final = (
    2.0  # for work to end by itself; what is cut off is rolled back or was committed, never half
)

T = TypeVar("T")
Work = Callable[[Lease, asyncio.Event], Awaitable[None]]

_log = logging.getLogger(__name__)


class LeaseKeeper:
    """Runs one task of work per lease held. `work(lease, stop)` returns soon after `stop` is set, or raises."""

    def __init__(self, store: LeaseStore, owner: str, role: str, names: Sequence[str], work: Work) -> None:
        self._store = store
        self._owner = owner
        self._role = role
        self._names = list(names)
        self._work = work
        self._held: dict[str, Lease] = {}
        self._stops: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.members = 1  # processes of this role that lived at the last round

    @property
    def held(self) -> list[str]:
        """The names that this process works on now."""
        return sorted(self._held)

    async def run(self) -> None:
        """Until cancelled: one round after the other. At the end the leases are given back."""
        try:
            while True:
                try:
                    await self.round()
                except ClarionError as error:
                    _log.warning("the lease round failed, trying again: %s", error)
                await asyncio.sleep(ROUND_SECONDS)
        finally:
            await self._say_goodbye()
            await self._give_back(list(self._held))

    async def _say_goodbye(self) -> None:
        """No longer count as a member, so that the others take all that is given back and not only their old share."""
        try:
            await self._store.heartbeat(self._owner, self._role, 0.0)
        except ClarionError as error:
            _log.warning("the others will miss this process only in some seconds: %s", error)

    async def round(self) -> None:
        """Renew what is held, collect what ended, take or give back until the share is fair."""
        members = self.members = await self._store.heartbeat(self._owner, self._role, TTL_SECONDS)
        renewed = (
            set(await self._store.renew_leases(list(self._held.values()), TTL_SECONDS))
            if self._held
            else set()
        )
        for name in [name for name in self._held if name not in renewed]:
            _log.warning("lease %s was lost to another process", name)
            await self._stop(name)
        await self._give_back([name for name, task in self._tasks.items() if task.done()])
        share = -(-len(self._names) // max(members, 1))
        await self._give_back(sorted(self._held)[share:])
        if len(self._held) < share:
            await self._take(share - len(self._held))

    async def _take(self, wanted: int) -> None:
        for name in await self._store.free_leases([name for name in self._names if name not in self._held]):
            if wanted == 0:
                return
            lease = await self._store.take_lease(name, self._owner, TTL_SECONDS)
            if lease is None:
                continue
            wanted -= 1
            self._held[name] = lease
            stop = self._stops[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._guard(lease, stop), name=f"lease-{name}")

    async def _guard(self, lease: Lease, stop: asyncio.Event) -> None:
        try:
            await self._work(lease, stop)
        except ClarionError as error:
            _log.warning("work on lease %s ended: %s", lease.name, error)
        except Exception:  # noqa: BLE001 - logged; the keeper gives the lease back and tries again
            _log.exception("work on lease %s failed", lease.name)

    async def _give_back(self, names: Sequence[str]) -> None:
        for name in names:  # all at once: each may take its grace
            self._stops[name].set()
        for name in names:
            lease = self._held[name]
            await self._stop(name)
            try:
                await self._store.release_lease(lease)
            except ClarionError as error:
                _log.warning("lease %s could not be given back, it will lapse: %s", name, error)

    async def _stop(self, name: str) -> None:
        self._held.pop(name)
        self._stops.pop(name).set()
        task = self._tasks.pop(name)
        await asyncio.wait([task], timeout=GRACE_SECONDS)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def unless_stopped(stop: asyncio.Event, call: Coroutine[Any, Any, T]) -> T | None:
    """The result of a call, or None as soon as the work shall stop; the call is cancelled then."""
    task = asyncio.ensure_future(call)
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        stopped.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
