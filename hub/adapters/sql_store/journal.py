"""The delivery log with its minute counters, and the cancelling of deliveries: written with the state they tell of.

Always called inside the caller's transaction: a state without its log row, or a row without its count, cannot be.
"""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, Final

from sqlalchemy import ColumnElement, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import Row, Statement, insert_rows
from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.rows import MINUTE_US, log_values
from hub.adapters.sql_store.tables import deliveries, log
from hub.model.deliveries import CANCEL_REASONS, MOVES
from hub.ports import LogEntry

WAITING: Final = tuple(sorted(state for state, moves in MOVES.items() if "cancelled" in moves))
_LAST: Final = Statement("SELECT max(id) FROM log")
_NEXT: Final = Statement("SELECT nextval('log_ids') FROM generate_series(1, ?)")
_COUNT: Final = Statement(
    "INSERT INTO log_counters (minute, type, channel, state, provider, shard, count) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (minute, type, channel, state, provider, shard)"
    " DO UPDATE SET count = log_counters.count + excluded.count"
)
_SHARD: Final = f"p{os.getpid() % 8}"  # for writers that are not a partition


async def append_log(
    db: Database, connection: AsyncConnection, entries: Sequence[LogEntry], shard: str = _SHARD
) -> None:
    """Append lines and count them."""
    if not entries:
        return
    if db.sqlite:  # one writer at a time: the next number is the last one's successor
        last = (await _LAST.run(db, connection)).scalar() or 0
        numbers: Iterable[int] = count(last + 1)
    else:
        numbers = [row[0] for row in await _NEXT.rows(db, connection, len(entries))]
    await insert_rows(db, connection, log, [*map(log_values, numbers, entries)], ignore_known=False)
    await _COUNT.run_many(db, connection, _counts(entries, shard))


def _counts(entries: Sequence[LogEntry], shard: str) -> list[Row]:
    counts = Counter(
        (
            entry.at_us // MINUTE_US,
            entry.type or "",
            entry.channel or "",
            entry.state,
            entry.provider or "",
            shard,
        )
        for entry in entries
    )
    # In one order, so that two writers of one shard cannot wait for each other in a circle.
    return [(*key, count) for key, count in sorted(counts.items())]


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
