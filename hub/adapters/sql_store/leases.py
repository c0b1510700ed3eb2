"""Leases with fences and the list of living processes, by the database's clock.

Taking is one statement, so a race has one winner. A lease that lapsed still works for its owner until somebody takes
it: what stops a late owner is the fence, not the time.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import Statement
from hub.adapters.sql_store.engine import Database, Part
from hub.adapters.sql_store.failures import LockTimeout
from hub.adapters.sql_store.tables import leases
from hub.errors import LeaseLost
from hub.ports import Lease

TAKE_WAIT_SECONDS: Final = 2
STUCK_SECONDS: Final = 8.0
_ADVANCE: Final = Statement(
    "UPDATE leases SET position = ?, clock_us = ?, broadcast_seq = ? WHERE name = ? AND owner = ? AND fence = ?"
)
_LIVES: Final = Statement(
    "INSERT INTO processes (owner, role, expires_at_us) VALUES (?, ?, {now} + ?)"
    " ON CONFLICT (owner) DO UPDATE SET role = excluded.role, expires_at_us = excluded.expires_at_us"
)
_BURY: Final = Statement("DELETE FROM processes WHERE expires_at_us <= {now}")
_LIVING: Final = Statement("SELECT count(*) FROM processes WHERE role = ?")
_RENEW: Final = Statement(
    "UPDATE leases SET expires_at_us = {now} + ? WHERE name = ? AND owner = ? AND fence = ?"
)
_END_STUCK: Final = text(
    "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN leases l ON a.backend_xid::text = l.xmax::text "
    "WHERE l.name = :name AND l.expires_at_us <= EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 "
    "AND a.xact_start < clock_timestamp() - make_interval(secs => :seconds)"
)


def lost(lease: Lease) -> LeaseLost:
    """The error of a fenced-off owner."""
    return LeaseLost(f"Lease {lease.name!r} with fence {lease.fence} belongs to another owner now.")


class Leases(Part):
    """`hub.ports.LeaseStore` on SQL."""

    async def heartbeat(self, owner: str, role: str, ttl_seconds: float) -> int:
        """Say that a process lives; returns how many of its role do."""

        async def work(connection: AsyncConnection) -> int:
            await _LIVES.run(self._db, connection, owner, role, round(ttl_seconds * 1e6))
            await _BURY.run(self._db, connection)
            return int((await _LIVING.run(self._db, connection, role)).scalar() or 0)

        return await self._db.write_inline(work)

    async def take_lease(self, name: str, owner: str, ttl_seconds: float) -> Lease | None:
        """Take a lease that is free, lapsed or one's own (fence + 1). None: somebody else holds it."""

        async def work(connection: AsyncConnection) -> Lease | None:
            if not self._db.sqlite:
                await connection.execute(text(f"SET LOCAL lock_timeout = '{TAKE_WAIT_SECONDS}s'"))
            now = self._db.now_us()
            until = now + round(ttl_seconds * 1e6)
            row = {"name": name, "owner": owner, "fence": 1, "expires_at_us": until}
            fresh = {**row, "position": "", "clock_us": 0, "broadcast_seq": 0}
            taken = {"owner": owner, "fence": leases.c.fence + 1, "expires_at_us": until}
            statement = (
                self._db.insert(leases)
                .values(fresh)
                .on_conflict_do_update(
                    index_elements=["name"],
                    set_=taken,
                    where=(leases.c.expires_at_us <= now) | (leases.c.owner == owner),
                )
                .returning(leases)
            )
            found = (await connection.execute(statement)).one_or_none()
            if found is None:
                return None
            return Lease(name, owner, found.fence, found.position, found.clock_us, found.broadcast_seq)

        try:
            return await self._db.write(work)
        except LockTimeout:
            await self._free_from_stuck(name)
            return None

    async def _free_from_stuck(self, name: str) -> None:
        """End the transaction that keeps a lapsed lease's row locked: its process froze in the middle of a statement.

        PostgreSQL ends one that is idle between statements by itself (`idle_in_transaction_session_timeout`).
        """
        async with self._db.read() as connection:
            await connection.execute(_END_STUCK, {"name": name, "seconds": STUCK_SECONDS})

    async def renew_leases(self, held: Sequence[Lease], ttl_seconds: float) -> list[str]:
        """Extend those that still have this owner and fence; returns the names that were."""

        async def work(connection: AsyncConnection) -> list[str]:
            renewed: list[str] = []
            for lease in sorted(
                held, key=lambda lease: lease.name
            ):  # one order: renewals never wait in a circle
                which = (round(ttl_seconds * 1e6), lease.name, lease.owner, lease.fence)
                if (await _RENEW.run(self._db, connection, *which)).rowcount:
                    renewed.append(lease.name)
            return renewed

        return await self._db.write_inline(work) if held else []

    async def release_lease(self, lease: Lease) -> None:
        """Give it back at once (a later owner raises the fence)."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(update(leases).where(*_owned(lease)).values(owner="", expires_at_us=0))

        await self._db.write(work)

    async def free_leases(self, names: Sequence[str]) -> list[str]:
        """Those of the names that anybody may take now."""
        held = select(leases.c.name).where(
            self._db.among(leases.c.name, names), leases.c.expires_at_us > self._db.now_us()
        )
        async with self._db.read() as connection:
            taken = set((await connection.scalars(held)).all())
        return [name for name in names if name not in taken]


async def advance(db: Database, connection: AsyncConnection, lease: Lease) -> None:
    """Move a lease's high-water marks; the first statement of every batch. Raises `LeaseLost` when fenced off."""
    marks = (lease.position, lease.clock_us, lease.broadcast_seq)
    result = await _ADVANCE.run(db, connection, *marks, lease.name, lease.owner, lease.fence)
    if result.rowcount != 1:
        raise lost(lease)


def _owned(lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (leases.c.name == lease.name, leases.c.owner == lease.owner, leases.c.fence == lease.fence)
