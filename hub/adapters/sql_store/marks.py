"""Marks: conditional changes, their log rows, and cancelled deliveries.

On a broadcast nothing is stored for who does nothing: "all" writes a watermark, a single mark writes one row that
starts as what the watermarks say. One user's marks are changed one at a time, so that the two agree.
"""

from collections.abc import Sequence
from typing import Any, Final

from msgspec.structs import asdict, replace
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.inbox import load_watermarks
from hub.adapters.sql_store.journal import append_log, cancel_deliveries
from hub.adapters.sql_store.rows import marks_of
from hub.adapters.sql_store.tables import broadcast_marks, broadcasts, deliveries, notifications, watermarks
from hub.model.notifications import Broadcast, Marks
from hub.model.vocabulary import Channel, Mark
from hub.ports import LogEntry

_IDENTITY: Final = (
    notifications.c.id,
    notifications.c.event_id,
    notifications.c.type,
    notifications.c.category,
)


def apply_mark(mark: Mark, marks: Marks, now_us: int) -> Marks:
    """What a mark makes of marks. `read` implies `seen`; what is set keeps its moment."""
    match mark:
        case "seen":
            return replace(marks, seen_at_us=_first(marks.seen_at_us, now_us))
        case "read":
            seen, read = _first(marks.seen_at_us, now_us), _first(marks.read_at_us, now_us)
            return replace(marks, seen_at_us=seen, read_at_us=read)
        case "unread":
            return replace(marks, read_at_us=None)
        case "archive":
            return replace(marks, archived_at_us=_first(marks.archived_at_us, now_us))
        case "unarchive":
            return replace(marks, archived_at_us=None)


def _first(moment_us: int | None, now_us: int) -> int:
    return now_us if moment_us is None else moment_us


class MarkWriter(Part):
    """The writing half of `hub.ports.InboxStore` on SQL."""

    async def mark_ids(
        self, user_id: str, mark: Mark, addressed: Sequence[str], shared: Sequence[Broadcast], now_us: int
    ) -> list[str]:
        """Mark rows; returns the ids that changed. `read` implies `seen`. Cancels what waits for it, writes log."""
        return await self._db.write(self._mark_ids, user_id, mark, addressed, shared, now_us)

    async def _mark_ids(
        self,
        connection: AsyncConnection,
        user_id: str,
        mark: Mark,
        addressed: Sequence[str],
        shared: Sequence[Broadcast],
        now_us: int,
    ) -> list[str]:
        await self._lock_marks(connection, user_id)
        entries = await self._mark_addressed(connection, user_id, mark, addressed, now_us)
        entries += await self._mark_shared(connection, user_id, mark, shared, now_us)
        changed = list(dict.fromkeys(entry.notification_id for entry in entries if entry.notification_id))
        if mark in ("seen", "read") and changed:
            entries += await self._cancel_seen(connection, user_id, changed, now_us)
        await append_log(self._db, connection, entries)
        return changed

    async def _lock_marks(self, connection: AsyncConnection, user_id: str) -> None:
        if not self._db.sqlite:
            await connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(user_id, 1))))

    async def _mark_addressed(
        self, connection: AsyncConnection, user_id: str, mark: Mark, ids: Sequence[str], now_us: int
    ) -> list[LogEntry]:
        if not ids:
            return []
        found = await connection.execute(
            select(
                *_IDENTITY,
                notifications.c.seen_at_us,
                notifications.c.read_at_us,
                notifications.c.archived_at_us,
            )
            .where(
                notifications.c.user_id == user_id,
                self._db.among(notifications.c.id, ids),
                notifications.c.shown,
            )
            .with_for_update()
        )
        entries: list[LogEntry] = []
        for row in found.all():
            before = marks_of(row)
            after = apply_mark(mark, before, now_us)
            if after == before:
                continue
            await connection.execute(
                update(notifications)
                .where(notifications.c.user_id == user_id, notifications.c.id == row.id)
                .values(**asdict(after))
            )
            entries += _entries(row, user_id, mark, before, after, now_us)
        return entries

    async def _mark_shared(
        self, connection: AsyncConnection, user_id: str, mark: Mark, shared: Sequence[Broadcast], now_us: int
    ) -> list[LogEntry]:
        if not shared:
            return []
        seqs = [broadcast.seq for broadcast in shared]
        living = await connection.scalars(
            select(broadcasts.c.seq).where(self._db.among(broadcasts.c.seq, seqs), broadcasts.c.shown)
        )
        shown = set(living.all())
        own = await connection.execute(
            select(broadcast_marks).where(
                broadcast_marks.c.user_id == user_id, self._db.among(broadcast_marks.c.seq, seqs)
            )
        )
        marked = {row.seq: marks_of(row) for row in own}
        through = await load_watermarks(connection, user_id)
        entries: list[LogEntry] = []
        for broadcast in shared:
            before = marked.get(broadcast.seq) or through.marks_on(broadcast.seq, broadcast.category)
            after = apply_mark(mark, before, now_us)
            if after == before or broadcast.seq not in shown:
                continue
            statement = self._db.insert(broadcast_marks).values(
                user_id=user_id, seq=broadcast.seq, **asdict(after)
            )
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["user_id", "seq"], set_=asdict(after))
            )
            entries += _entries(broadcast, user_id, mark, before, after, now_us)
        return entries

    async def _cancel_seen(
        self, connection: AsyncConnection, user_id: str, ids: Sequence[str], now_us: int
    ) -> list[LogEntry]:
        return await cancel_deliveries(
            connection,
            "seen",
            now_us,
            deliveries.c.user_id == user_id,
            self._db.among(deliveries.c.notification_id, ids),
            deliveries.c.condition.in_(("offline", "unseen")),
        )

    async def mark_all(
        self, user_id: str, mark: Mark, category: str | None, through_seq: int, now_us: int
    ) -> None:
        """Mark all that exists: addressed rows, and broadcasts up to `through_seq` by a watermark."""
        await self._db.write(self._mark_all, user_id, mark, category, through_seq, now_us)

    async def _mark_all(
        self,
        connection: AsyncConnection,
        user_id: str,
        mark: Mark,
        category: str | None,
        through_seq: int,
        now_us: int,
    ) -> None:
        if mark not in ("seen", "read"):
            raise ValueError(f"{mark!r} cannot be set on all")
        await self._lock_marks(connection, user_id)
        entries: list[LogEntry] = []
        ids: set[str] = set()
        for step in ("seen", "read") if mark == "read" else ("seen",):
            column = notifications.c[f"{step}_at_us"]
            which = [notifications.c.user_id == user_id, notifications.c.shown, column.is_(None)]
            if category is not None:
                which.append(notifications.c.category == category)
            rows = await connection.execute(
                update(notifications).where(*which).values({column: now_us}).returning(*_IDENTITY)
            )
            for row in rows:
                ids.add(row.id)
                entries.append(_entry(row, user_id, step, now_us))
        if ids:
            entries += await self._cancel_seen(connection, user_id, sorted(ids), now_us)
        await self._mark_all_shared(connection, user_id, mark, category, through_seq, now_us)
        entries += await self._cancel_shared(connection, user_id, category, through_seq, now_us)
        await append_log(self._db, connection, entries)

    async def _mark_all_shared(
        self,
        connection: AsyncConnection,
        user_id: str,
        mark: Mark,
        category: str | None,
        through_seq: int,
        now_us: int,
    ) -> None:
        if through_seq < 1:
            return
        for step in ("seen", "read") if mark == "read" else ("seen",):
            column = broadcast_marks.c[f"{step}_at_us"]
            which = [
                broadcast_marks.c.user_id == user_id,
                broadcast_marks.c.seq <= through_seq,
                column.is_(None),
            ]
            if category is not None:
                of_category = select(broadcasts.c.seq).where(broadcasts.c.category == category)
                which.append(broadcast_marks.c.seq.in_(of_category))
            await connection.execute(update(broadcast_marks).where(*which).values({column: now_us}))
        row = {"user_id": user_id, "category": category or "", "mark": mark, "through_seq": through_seq}
        # The first moment stands: said again about the same broadcasts it changes nothing.
        await connection.execute(
            self._db.insert(watermarks).values(**row, at_us=now_us).on_conflict_do_nothing()
        )

    async def _cancel_shared(
        self, connection: AsyncConnection, user_id: str, category: str | None, through_seq: int, now_us: int
    ) -> list[LogEntry]:
        """Cancel what waits of broadcasts that a watermark covers."""
        which = [broadcasts.c.seq <= through_seq]
        if category is not None:
            which.append(broadcasts.c.category == category)
        covered = select(broadcasts.c.id).where(broadcasts.c.id == deliveries.c.notification_id, *which)
        return await cancel_deliveries(
            connection,
            "seen",
            now_us,
            deliveries.c.user_id == user_id,
            deliveries.c.condition.in_(("offline", "unseen")),
            covered.exists(),
        )


def _entries(row: Any, user_id: str, mark: Mark, before: Marks, after: Marks, now_us: int) -> list[LogEntry]:
    entries = [_entry(row, user_id, mark, now_us)]
    if mark == "read" and before.seen_at_us is None and after.seen_at_us is not None:
        entries.insert(0, _entry(row, user_id, "seen", now_us))
    return entries


def _entry(row: Any, user_id: str, state: str, at_us: int) -> LogEntry:
    return LogEntry(at_us, state, row.event_id, user_id, row.id, Channel.IN_APP, row.type, row.category)
