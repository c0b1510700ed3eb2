"""Collapse keys at commit: a newer notification takes the place of the older ones with its key.

Older rows leave the inbox, their waiting deliveries are cancelled. Within one batch the last one stands. What was
planned for nothing at all (every channel refused) replaces nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.expansions import stop_expansions
from hub.adapters.sql_store.journal import cancel_deliveries
from hub.adapters.sql_store.rows import audience_key
from hub.adapters.sql_store.tables import broadcasts, deliveries, expansions, notifications
from hub.model.notifications import Broadcast, Notification
from hub.ports import Batch, LogEntry

BROADCASTS = ""  # the key of `Committed.collapsed` for broadcasts
_TOGETHER: Final = (
    50  # SQLite looks every id up for every user: the work grows with the square of a statement's
)
_Key = tuple[str, str]


@dataclass(slots=True)
class Replaced:
    """What a batch replaced. `hidden`: rows of the batch itself that must not be shown, with the reason."""

    collapsed: dict[str, list[str]] = field(default_factory=dict)
    hidden: dict[str, str] = field(default_factory=dict)
    cancelled: set[str] = field(
        default_factory=set
    )  # of the batch: notifications whose deliveries are cancelled
    log: list[LogEntry] = field(default_factory=list)


async def collapse_notifications(
    db: Database, connection: AsyncConnection, batch: Batch, retracted: set[str]
) -> Replaced:
    """Apply the collapse keys of a batch's addressed notifications."""
    replaced = Replaced()
    replaced.hidden = {row.id: "retracted" for row in batch.notifications if row.event_id in retracted}
    delivered = {row.notification_id for row in batch.deliveries}
    standing: dict[_Key, Notification] = {}
    showing: set[_Key] = set()
    for row in batch.notifications:
        if row.collapse_key is None or row.event_id in retracted or not (row.in_app or row.id in delivered):
            continue
        key = (row.user_id, row.collapse_key)
        if row.in_app:
            showing.add(key)
        if older := standing.get(key):
            replaced.cancelled.add(older.id)
            if older.in_app and row.in_app:
                replaced.hidden[older.id] = "collapsed"
                _note(replaced, older, batch)
        standing[key] = row
    if standing:
        await _collapse_stored(db, connection, batch, replaced, set(standing), showing)
    return replaced


async def _collapse_stored(
    db: Database,
    connection: AsyncConnection,
    batch: Batch,
    replaced: Replaced,
    keys: set[_Key],
    showing: set[_Key],
) -> None:
    found = await connection.execute(
        select(
            notifications.c.user_id,
            notifications.c.id,
            notifications.c.event_id,
            notifications.c.type,
            notifications.c.category,
            notifications.c.collapse_key,
            notifications.c.shown,
        ).where(
            db.among(notifications.c.user_id, {user_id for user_id, _ in keys}),
            db.among(notifications.c.collapse_key, {key for _, key in keys}),
            notifications.c.collapse_key.is_not(None),
            notifications.c.hidden.is_(None),
        )
    )
    own = {row.id for row in batch.notifications}
    older = [row for row in found if (row.user_id, row.collapse_key) in keys and row.id not in own]
    if not older:
        return
    hide = {row.id for row in older if row.shown and (row.user_id, row.collapse_key) in showing}
    for row in older:
        if row.id in hide:
            replaced.collapsed.setdefault(row.user_id, []).append(row.id)
            replaced.log.append(_entry(batch, row.event_id, row.user_id, row.id, row.type, row.category))
    for first in range(0, len(older), _TOGETHER):
        await _take_back(db, connection, batch, replaced, older[first : first + _TOGETHER], hide)


async def _take_back(
    db: Database,
    connection: AsyncConnection,
    batch: Batch,
    replaced: Replaced,
    older: Sequence[Any],
    hide: set[str],
) -> None:
    users = {row.user_id for row in older}
    if hidden := {row.id for row in older} & hide:
        await connection.execute(
            update(notifications)
            .where(db.among(notifications.c.user_id, users), db.among(notifications.c.id, hidden))
            .values(shown=False, hidden="collapsed")
        )
    replaced.log += await cancel_deliveries(
        connection,
        "collapsed",
        batch.lease.clock_us,
        db.among(deliveries.c.user_id, users),
        db.among(deliveries.c.notification_id, {row.id for row in older}),
    )


async def collapse_broadcasts(
    db: Database, connection: AsyncConnection, batch: Batch, retracted: set[str]
) -> Replaced:
    """Apply the collapse keys of a batch's broadcasts: the same key and audience.

    Of what is replaced no expansion goes on. It leaves the app only for something that the app shows.
    """
    replaced = Replaced()
    replaced.hidden = {row.id: "retracted" for row in batch.broadcasts if row.event_id in retracted}
    expanded = {row.broadcast_id for row in batch.expansions}
    standing: dict[_Key, Broadcast] = {}
    showing: set[_Key] = set()
    for row in batch.broadcasts:
        if row.collapse_key is None or row.event_id in retracted or not (row.in_app or row.id in expanded):
            continue
        key = (row.collapse_key, audience_key(row.audience))
        if row.in_app:
            showing.add(key)
        if older := standing.get(key):
            replaced.cancelled.add(older.id)
            if older.in_app and row.in_app:
                replaced.hidden[older.id] = "collapsed"
                _note(replaced, older, batch)
        standing[key] = row
    if standing:
        await _collapse_stored_broadcasts(db, connection, batch, replaced, set(standing), showing)
    return replaced


async def _collapse_stored_broadcasts(
    db: Database,
    connection: AsyncConnection,
    batch: Batch,
    replaced: Replaced,
    keys: set[_Key],
    showing: set[_Key],
) -> None:
    found = await connection.execute(
        select(
            broadcasts.c.id,
            broadcasts.c.event_id,
            broadcasts.c.type,
            broadcasts.c.category,
            broadcasts.c.collapse_key,
            broadcasts.c.audience_key,
            broadcasts.c.shown,
        )
        .where(
            db.among(broadcasts.c.collapse_key, {key for key, _ in keys}),
            broadcasts.c.collapse_key.is_not(None),
            broadcasts.c.hidden.is_(None),
        )
        .order_by(broadcasts.c.seq)
    )
    own = {row.id for row in batch.broadcasts}
    older = [row for row in found if (row.collapse_key, row.audience_key) in keys and row.id not in own]
    if not older:
        return
    ids = [row.id for row in older]
    await stop_expansions(
        connection, "collapsed", batch.lease.clock_us, db.among(expansions.c.broadcast_id, ids)
    )
    hide = [row for row in older if not row.shown or (row.collapse_key, row.audience_key) in showing]
    if hide:
        await connection.execute(
            update(broadcasts)
            .where(db.among(broadcasts.c.id, [row.id for row in hide]))
            .values(shown=False, hidden="collapsed")
        )
    gone = [row for row in hide if row.shown]
    if gone:
        replaced.collapsed[BROADCASTS] = [
            *(row.id for row in gone),
            *replaced.collapsed.get(BROADCASTS, ()),
        ]
        replaced.log += [_entry(batch, row.event_id, None, row.id, row.type, row.category) for row in gone]


def _note(replaced: Replaced, row: Notification | Broadcast, batch: Batch) -> None:
    user_id = row.user_id if isinstance(row, Notification) else None
    replaced.collapsed.setdefault(user_id or BROADCASTS, []).append(row.id)
    replaced.log.append(_entry(batch, row.event_id, user_id, row.id, row.type, row.category))


def _entry(
    batch: Batch, event_id: str, user_id: str | None, notification_id: str, type_: str, category: str
) -> LogEntry:
    return LogEntry(
        batch.lease.clock_us, "collapsed", event_id, user_id, notification_id, "in_app", type_, category
    )
