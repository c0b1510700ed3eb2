"""The inbox: pages of addressed rows and of broadcast candidates. Reading writes nothing.

Order is (created_at_us, id), newest first, for both. Who may see a broadcast beyond its targets is not decided here.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    desc,
    false,
    not_,
    or_,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Database, Part
from hub.adapters.sql_store.rows import EVERYONE, broadcast_of, marks_of, notification_of
from hub.adapters.sql_store.tables import (
    broadcast_marks,
    broadcast_targets,
    broadcasts,
    leases,
    notifications,
    watermarks,
)
from hub.model.notifications import Broadcast, Marks, Notification
from hub.model.vocabulary import LANE
from hub.ports import BroadcastRow, InboxQuery

UNREAD: Final = and_(
    notifications.c.shown, notifications.c.read_at_us.is_(None), notifications.c.archived_at_us.is_(None)
)
_MARKED: Final = (
    broadcast_marks.c.user_id.label("marked_by"),
    broadcast_marks.c.seen_at_us,
    broadcast_marks.c.read_at_us,
    broadcast_marks.c.archived_at_us,
)

_WATERMARKS: Final = select(watermarks).where(watermarks.c.user_id == bindparam("user_id"))


class Watermarks:
    """One user's "all through here" marks, and what they mean for a broadcast."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = [(row.category, row.mark, row.through_seq, row.at_us) for row in rows]

    def marks_on(self, seq: int, category: str) -> Marks:
        """The earliest moment at which a mark covered it; `read` implies `seen`."""
        seen: int | None = None
        read: int | None = None
        for of_category, mark, through_seq, at_us in self._rows:
            if through_seq < seq or of_category not in ("", category):
                continue
            seen = at_us if seen is None else min(seen, at_us)
            if mark == "read":
                read = at_us if read is None else min(read, at_us)
        return Marks(seen_at_us=seen, read_at_us=read)

    def unread(self) -> ColumnElement[bool]:
        """The same question in SQL, beside the user's own marks: a mark of its own, else no watermark, must say so."""
        covered = [
            and_(broadcasts.c.seq <= through_seq, *([broadcasts.c.category == category] if category else []))
            for category, through_seq in self._read_through().items()
        ]
        marked = broadcast_marks.c.user_id.is_not(None)
        return and_(broadcast_marks.c.read_at_us.is_(None), or_(marked, not_(or_(false(), *covered))))

    def all_read_through(self) -> int:
        """Up to which seq everything is read, whatever its category, but for single marks above it."""
        return self._read_through().get("", 0)

    def _read_through(self) -> dict[str, int]:
        highest: dict[str, int] = {}
        for category, mark, through_seq, _ in self._rows:
            if mark == "read":
                highest[category] = max(through_seq, highest.get(category, 0))
        return highest


async def load_watermarks(connection: AsyncConnection, user_id: str) -> Watermarks:
    """The watermarks of one user."""
    return Watermarks(await connection.execute(_WATERMARKS, {"user_id": user_id}))


class InboxPages(Part):
    """The reading half of `hub.ports.InboxStore` on SQL."""

    async def inbox_page(
        self, user_id: str, query: InboxQuery, now_us: int | None = None
    ) -> list[Notification]:
        """Addressed rows that the inbox shows (in_app, not retracted, collapsed or expired), newest first.

        Without `now_us` the database's clock says what has expired.
        """
        table = notifications.c
        page = select(notifications).where(
            table.user_id == user_id, table.shown, _alive(table.expires_at_us, self._db, now_us)
        )
        if query.unread:
            page = page.where(table.read_at_us.is_(None))
        if query.category is not None:
            page = page.where(table.category == query.category)
        if query.archived != "include":
            archived = table.archived_at_us
            page = page.where(archived.is_(None) if query.archived == "exclude" else archived.is_not(None))
        if query.before is not None:
            page = page.where(_older(table.created_at_us, table.id, query.before))
        page = page.order_by(desc(table.created_at_us), desc(table.id)).limit(query.limit)
        async with self._db.read() as connection:
            return [notification_of(row) for row in await connection.execute(page)]

    async def broadcast_page(
        self, user_id: str, topics: Sequence[str], query: InboxQuery, now_us: int
    ) -> list[BroadcastRow]:
        """Candidates on these topics or for everyone, newest first, with effective marks.

        Filters of the query apply to the marks; audience beyond topic/everyone and preferences are not applied here.
        """
        table = broadcasts.c
        targets = select(broadcast_targets.c.seq).where(
            self._db.among(broadcast_targets.c.target, [*topics, EVERYONE])
        )
        older: list[ColumnElement[bool]] = []
        if query.before is not None:
            older.append(_older(table.created_at_us, table.id, query.before))
            # On the lane seq, created_at_us and id grow together, so this bound reaches into the targets' index.
            newest = (
                select(table.seq).where(*older).order_by(desc(table.created_at_us), desc(table.id)).limit(1)
            )
            targets = targets.where(broadcast_targets.c.seq <= newest.scalar_subquery())
        own = and_(broadcast_marks.c.seq == table.seq, broadcast_marks.c.user_id == user_id)
        page = (
            select(broadcasts, *_MARKED)
            .outerjoin_from(broadcasts, broadcast_marks, own)
            .where(table.shown, table.seq.in_(targets), _alive(table.expires_at_us, self._db, now_us), *older)
        )
        if query.category is not None:
            page = page.where(table.category == query.category)
        if query.archived != "include":
            archived = broadcast_marks.c.archived_at_us
            page = page.where(archived.is_(None) if query.archived == "exclude" else archived.is_not(None))

        async def read(connection: AsyncConnection) -> list[BroadcastRow]:
            marks = await load_watermarks(connection, user_id)
            chosen = page.where(marks.unread()) if query.unread else page
            rows = await connection.execute(chosen.order_by(desc(table.seq)).limit(query.limit))
            return [BroadcastRow(broadcast_of(row), _effective(row, marks)) for row in rows]

        return await self._db.read_apart(read)

    async def find_notifications(
        self, user_id: str, ids: Sequence[str]
    ) -> tuple[list[Notification], list[BroadcastRow]]:
        """The addressed rows of this user that are not hidden, and the broadcasts (anybody's, hidden too) with these ids."""
        if not ids:
            return [], []
        addressed = select(notifications).where(
            notifications.c.user_id == user_id,
            self._db.among(notifications.c.id, ids),
            notifications.c.hidden.is_(None),
        )
        own = and_(broadcast_marks.c.seq == broadcasts.c.seq, broadcast_marks.c.user_id == user_id)
        shared = (
            select(broadcasts, *_MARKED)
            .outerjoin_from(broadcasts, broadcast_marks, own)
            .where(self._db.among(broadcasts.c.id, ids))
        )
        async with self._db.read(snapshot=True) as connection:
            rows = [notification_of(row) for row in await connection.execute(addressed)]
            found = (await connection.execute(shared)).all()
            marks = await load_watermarks(connection, user_id) if found else Watermarks(())
        return rows, [BroadcastRow(broadcast_of(row), _effective(row, marks)) for row in found]

    async def top_broadcast_seq(self) -> int:
        """The last broadcast_seq that was given."""
        async with self._db.read() as connection:
            found = await connection.scalar(select(leases.c.broadcast_seq).where(leases.c.name == LANE))
        return int(found or 0)

    async def broadcasts_after(self, seq: int, limit: int) -> list[Broadcast]:
        """Stored broadcasts above a seq, ascending (repairs, checks)."""
        page = select(broadcasts).where(broadcasts.c.seq > seq).order_by(broadcasts.c.seq).limit(limit)
        async with self._db.read() as connection:
            return [broadcast_of(row) for row in await connection.execute(page)]


def _older(
    moment: ColumnElement[int], id_: ColumnElement[str], before: tuple[int, str]
) -> ColumnElement[bool]:
    return tuple_(moment, id_) < before


def _alive(expires: ColumnElement[int | None], db: Database, now_us: int | None) -> ColumnElement[bool]:
    return expires.is_(None) | (expires > (db.now_us() if now_us is None else now_us))


def _effective(row: Any, marks: Watermarks) -> Marks:
    return marks_of(row) if row.marked_by is not None else marks.marks_on(row.seq, row.category)
