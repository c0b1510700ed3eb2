"""What the live side reports as reached: moments, log rows, and cancelled deliveries. Few statements for any number.

A broadcast's reports are kept while it is expanded on an `offline` channel, so that pages leave these users out. A
page that is written meanwhile and a report wait for each other: one of them sees the other.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import RowsStatement, insert_rows
from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.journal import WAITING, append_log, cancelled_entry
from hub.adapters.sql_store.tables import broadcast_reached, expansions, notifications
from hub.model.vocabulary import Channel
from hub.ports import LogEntry

_REACHED: Final = RowsStatement(
    "UPDATE notifications SET reached_at_us = given.at_us FROM {rows}"
    " WHERE notifications.user_id = given.user_id AND notifications.id = given.id RETURNING notifications.id",
    user_id="text",
    id="text",
    at_us="bigint",
)
_LOGGED: Final = ", ".join(
    f"deliveries.{name} AS {name}"
    for name in ("event_id", "user_id", "notification_id", "channel", "type", "category")
)
_CANCEL: Final = RowsStatement(
    "UPDATE deliveries SET state = 'cancelled', reason = 'reached' FROM {rows}"  # noqa: S608 - names of our own
    " WHERE deliveries.user_id = given.user_id AND deliveries.notification_id = given.id"
    f" AND deliveries.condition = 'offline' AND deliveries.state IN ({', '.join(map(repr, WAITING))})"
    f" RETURNING {_LOGGED}",
    user_id="text",
    id="text",
)

_Moments = Mapping[tuple[str, str], int]  # by user and notification


class ReachWriter(Part):
    """The reporting part of `hub.ports.InboxStore` on SQL."""

    async def report_reached(self, reports: Sequence[tuple[str, str, int]]) -> list[LogEntry]:
        """(user id, notification id, written_at_us): cancels waiting `offline` deliveries; returns the lines of the log."""
        return await self._db.write(self._report_reached, reports) if reports else []

    async def _report_reached(
        self, connection: AsyncConnection, reports: Sequence[tuple[str, str, int]]
    ) -> list[LogEntry]:
        moments: dict[tuple[str, str], int] = {}
        for user_id, notification_id, at_us in reports:
            moments.setdefault((user_id, notification_id), at_us)
        entries = await self._addressed(connection, moments)
        addressed = {(entry.user_id, entry.notification_id) for entry in entries}
        shared = await self._shared(connection, {id_ for _, id_ in moments.keys() - addressed})
        rows = [
            (seq, user_id, at_us)
            for (user_id, id_), at_us in moments.items()
            if (seq := shared.get(id_)) is not None
        ]
        await insert_rows(self._db, connection, broadcast_reached, sorted(rows))
        waiting = sorted(pair for pair in moments if pair in addressed or pair[1] in shared)
        last_us = max(moments.values())
        cancelled = await _CANCEL.rows(self._db, connection, waiting)
        entries += [cancelled_entry(row, "reached", last_us) for row in cancelled]
        await append_log(self._db, connection, entries)
        return entries

    async def _addressed(self, connection: AsyncConnection, moments: _Moments) -> list[LogEntry]:
        """Note what was reached for the first time."""
        found = await connection.execute(
            select(
                notifications.c.user_id,
                notifications.c.id,
                notifications.c.event_id,
                notifications.c.type,
                notifications.c.category,
            )
            .where(
                self._db.among(notifications.c.user_id, {user_id for user_id, _ in moments}),
                self._db.among(notifications.c.id, {id_ for _, id_ in moments}),
                notifications.c.reached_at_us.is_(None),
            )
            .order_by(notifications.c.user_id, notifications.c.id)
            .with_for_update()
        )
        rows = [row for row in found if (row.user_id, row.id) in moments]
        given = [(row.user_id, row.id, moments[row.user_id, row.id]) for row in rows]
        await _REACHED.rows(self._db, connection, given)
        return [
            LogEntry(at_us, "reached", row.event_id, user_id, id_, Channel.IN_APP, row.type, row.category)
            for (user_id, id_, at_us), row in zip(given, rows, strict=True)
        ]

    async def _shared(self, connection: AsyncConnection, ids: Collection[str]) -> dict[str, int | None]:
        """Those that are broadcasts on an `offline` channel: with their seq while one of its expansions goes on.

        No page of theirs is written until this transaction ends. What was stopped is cancelled for its own reason.
        """
        if not ids:
            return {}
        found = await connection.execute(
            select(expansions.c.broadcast_id, expansions.c.seq, expansions.c.done_at_us)
            .where(
                self._db.among(expansions.c.broadcast_id, ids),
                expansions.c.condition == "offline",
                expansions.c.stopped.is_(None),
            )
            .order_by(expansions.c.broadcast_id, expansions.c.channel)
            .with_for_update(read=True)
        )
        shared: dict[str, int | None] = {}
        for row in found:
            shared[row.broadcast_id] = row.seq if row.done_at_us is None else shared.get(row.broadcast_id)
        return shared
