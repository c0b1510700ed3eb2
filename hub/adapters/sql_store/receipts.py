"""Receipts on SQL: one conditional UPDATE by the provider's reference, with its log line in the same transaction."""

from typing import Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.journal import append_log
from hub.adapters.sql_store.tables import deliveries
from hub.model.deliveries import MOVES
from hub.ports import LogEntry

AFTER_SENDING: Final = ("sent", "unknown")  # what a provider may still have news of


class Receipts(Part):
    """`hub.ports.receipts.ReceiptStore` on SQL."""

    async def settle(self, provider: str, reference: str, state: str, code: str, at_us: int) -> bool:
        """Move the delivery that this provider calls `reference`. False: none, or it has moved on already."""
        return await self._db.write(self._settle, provider, reference, state, code, at_us)

    async def _settle(
        self, connection: AsyncConnection, provider: str, reference: str, state: str, code: str, at_us: int
    ) -> bool:
        moved = await connection.execute(
            update(deliveries)
            .where(
                deliveries.c.reference == reference,
                deliveries.c.provider == provider,
                deliveries.c.state.in_([one for one in AFTER_SENDING if state in MOVES[one]]),
            )
            .values(state=state, reason=code)
            .returning(deliveries)
        )
        rows = moved.all()
        entries = [
            LogEntry(
                at_us,
                state,
                row.event_id,
                row.user_id,
                row.notification_id,
                row.channel,
                row.type,
                row.category,
                row.provider,
                code,
                "The provider's receipt.",
            )
            for row in rows
        ]
        await append_log(self._db, connection, entries)
        return bool(rows)

    async def has_reference(self, provider: str, reference: str) -> bool:
        """Whether there is a delivery with this reference, whatever its state."""
        page = select(deliveries.c.id).where(
            deliveries.c.reference == reference, deliveries.c.provider == provider
        )
        async with self._db.read() as connection:
            return (await connection.execute(page.limit(1))).first() is not None
