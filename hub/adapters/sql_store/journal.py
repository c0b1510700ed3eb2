"""The delivery log with its minute counters, and the cancelling of deliveries: written with the state they tell of.

Always called inside the caller's transaction: a state without its log row, or a row without its count, cannot be.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, desc, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.rows import MINUTE_US, log_values
from hub.adapters.sql_store.tables import deliveries, log, log_counters
from hub.model.deliveries import CANCEL_REASONS, MOVES
from hub.ports import LogEntry

WAITING: Final = tuple(sorted(state for state, moves in MOVES.items() if "cancelled" in moves))
_KEY: Final = ("minute", "type", "channel", "state", "provider", "shard")
_SHARD: Final = f"p{os.getpid() % 8}"  # for writers that are not a partition


async def append_log(
    db: Database, connection: AsyncConnection, entries: Sequence[LogEntry], shard: str = _SHARD
) -> None:
    """Append lines and count them."""
    if not entries:
        return
    rows = [log_values(entry) for entry in entries]
    if db.sqlite:  # one writer at a time: the next number is the last one's successor
        last = await connection.scalar(select(log.c.id).order_by(desc(log.c.id)).limit(1)) or 0
        rows = [{"id": last + number, **row} for number, row in enumerate(rows, 1)]
    await connection.execute(log.insert(), rows)
    insert = db.insert(log_counters)
    added = insert.on_conflict_do_update(
        index_elements=_KEY, set_={"count": log_counters.c.count + insert.excluded.count}
    )
    await connection.execute(added, _counts(rows, shard))


def _counts(rows: Sequence[Mapping[str, Any]], shard: str) -> list[dict[str, Any]]:
    counts = Counter(
        (
            row["at_us"] // MINUTE_US,
            row["type"] or "",
            row["channel"] or "",
            row["state"],
            row["provider"] or "",
            shard,
        )
        for row in rows
    )
    # In one order, so that two writers of one shard cannot wait for each other in a circle.
    return [{**dict(zip(_KEY, key, strict=True)), "count": count} for key, count in sorted(counts.items())]


async def cancel_deliveries(
    connection: AsyncConnection, reason: str, at_us: int, *which: ColumnElement[bool]
) -> list[LogEntry]:
    """Cancel those that may still be cancelled; returns the lines to log. A conditional UPDATE: who is late changes nothing."""
    assert reason in CANCEL_REASONS
    changed = await connection.execute(
        update(deliveries)
        .where(deliveries.c.state.in_(WAITING), *which)
        .values(state="cancelled", reason=reason)
        .returning(*_LOGGED)
    )
    return [cancelled_entry(row, reason, at_us) for row in changed]


_LOGGED: Final = (
    deliveries.c.event_id,
    deliveries.c.user_id,
    deliveries.c.notification_id,
    deliveries.c.channel,
    deliveries.c.type,
    deliveries.c.category,
)


def cancelled_entry(row: Any, reason: str, at_us: int) -> LogEntry:
    """The line that tells of a cancelled delivery."""
    return LogEntry(
        at_us,
        "cancelled",
        row.event_id,
        row.user_id,
        row.notification_id,
        str(row.channel),
        row.type,
        row.category,
        reason=reason,
    )
