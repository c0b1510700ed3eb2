"""Lapses: what becomes of deliveries whose process died, froze or lost the database.

Suspects are those that were on their way, since they are what a process works on; when none of a channel was, all that
the process had of it. Suspects go out again in ever smaller chunks, until one is alone and convicted, or innocent.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import RowsStatement
from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.journal import append_log
from hub.adapters.sql_store.tables import claims, deliveries
from hub.model.sending import LAPSES
from hub.model.vocabulary import Channel
from hub.ports import LogEntry

_LAPSE = RowsStatement(
    "UPDATE deliveries SET state = given.state, reason = given.reason, lapses = given.lapses, claim = NULL FROM {rows}"
    " WHERE deliveries.user_id = given.user_id AND deliveries.id = given.id RETURNING deliveries.id",
    user_id="text",
    id="text",
    state="text",
    reason="text",
    lapses="integer",
)


class Lapses(Part):
    """The part of `hub.ports.SendingStore` that gives back what nobody ended."""

    async def recover(self, repeating: Sequence[Channel]) -> list[LogEntry]:
        """End claims that lapsed. What was not begun is due again; so is what was, on `repeating` channels, marked."""
        async with self._db.read_inline() as connection:
            over = await connection.scalar(
                select(claims.c.id).where(claims.c.expires_at_us <= self._db.now_us()).limit(1)
            )
        return await self._db.write(self._recover, repeating) if over is not None else []

    async def _recover(self, connection: AsyncConnection, repeating: Sequence[Channel]) -> list[LogEntry]:
        now_us = await connection.scalar(select(self._db.now_us())) or 0
        lapsed = await connection.execute(
            delete(claims).where(claims.c.expires_at_us <= now_us).returning(claims.c.id, claims.c.owner)
        )
        owners: dict[str, str] = {row.id: row.owner for row in lapsed}
        if not owners:
            return []
        found = await connection.execute(
            select(deliveries)
            .where(
                self._db.among(deliveries.c.claim, list(owners)),
                deliveries.c.state.in_(("queued", "sending")),
            )
            .order_by(deliveries.c.user_id, deliveries.c.id)
            .with_for_update()
        )
        rows = found.all()
        begun = {(owners[row.claim], row.channel) for row in rows if row.state == "sending"}
        changes, entries = [], []
        for row in rows:
            is_suspect = row.state == "sending" or (owners[row.claim], row.channel) not in begun
            lapses = row.lapses + is_suspect
            state, reason = _after_lapse(row, lapses, repeating)
            changes.append((row.user_id, row.id, state, reason, lapses))
            entries += [_lapse_entry(row, now_us, state, reason)] if reason else []
        await _LAPSE.rows(self._db, connection, changes)
        await append_log(self._db, connection, entries)
        return entries


def _after_lapse(row: Any, lapses: int, repeating: Sequence[Channel]) -> tuple[str, str | None]:
    """Where a delivery goes, and why (None: nothing happened to it yet)."""
    if lapses >= LAPSES:
        return "dead", "kills_senders"
    if row.state != "sending":
        return "queued", None
    return ("queued", "repeated") if row.channel in repeating else ("unknown", "sender_died")


def _lapse_entry(row: Any, now_us: int, state: str, reason: str | None) -> LogEntry:
    return LogEntry(
        now_us,
        "retried" if state == "queued" else state,
        row.event_id,
        row.user_id,
        row.notification_id,
        row.channel,
        row.type,
        row.category,
        row.provider,
        reason,
        "The process that sent it ended or froze before it could say what became of it.",
    )
