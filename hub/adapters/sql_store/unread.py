"""What many users have not read, in a handful of statements of one moment, however many users ask.

Every stream begins with its user's counts, and after a failure streams come in waves. Which of the broadcasts a user may
see is not decided here; who has read or archived one does not get it. Nothing is left out but what `Unread.older` names.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    Integer,
    Select,
    String,
    bindparam,
    desc,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.inbox import UNREAD, Watermarks
from hub.adapters.sql_store.rows import EVERYONE, broadcast_of, marks_of
from hub.adapters.sql_store.tables import (
    broadcast_marks,
    broadcast_targets,
    broadcasts,
    notifications,
    subscriptions,
    watermarks,
)
from hub.adapters.sql_store.users import Users
from hub.model.notifications import Broadcast, Marks
from hub.model.users import Profile, User
from hub.ports import BroadcastRow, Unread

_UNMARKED: Final = Marks()


class _Statements(NamedTuple):
    """Made once for each kind of database: to put one together takes longer than to run it."""

    addressed: Select[Any]  # ids, cap, now_us
    candidates: Select[Any]  # ids, limit, now_us
    watermarks: Select[Any]  # ids
    marks: Select[Any]  # ids, from_seq
    unread_before: Select[Any]  # ids, from_seq


@cache
def _statements(sqlite: bool) -> _Statements:
    if sqlite:
        given = func.json_each(bindparam("ids", type_=String)).table_valued("value")
    else:
        array = func.unnest(bindparam("ids", type_=postgresql.ARRAY(String)))
        given = array.table_valued("value").render_derived()
    ids = select(given.c.value)
    now_us = bindparam("now_us", type_=BigInteger)
    unread: Select[Any] = (
        select(literal_column("1"))
        .select_from(notifications)
        .where(
            notifications.c.user_id == given.c.value,
            UNREAD,
            or_(notifications.c.expires_at_us.is_(None), notifications.c.expires_at_us > now_us),
        )
        .limit(bindparam("cap", type_=Integer))
        .correlate(given)
    )
    unseen = unread.where(notifications.c.seen_at_us.is_(None))  # whoever read it has seen it
    addressed = select(
        given.c.value.label("user_id"),
        select(func.count()).select_from(unread.subquery()).scalar_subquery().label("unread"),
        select(func.count()).select_from(unseen.subquery()).scalar_subquery().label("unseen"),
    )
    topics = select(subscriptions.c.topic).where(subscriptions.c.user_id.in_(ids))
    targets = union_all(select(literal(EVERYONE)), topics)
    table = broadcasts.c
    candidates = (
        select(broadcasts)
        .where(
            table.shown,
            table.seq.in_(select(broadcast_targets.c.seq).where(broadcast_targets.c.target.in_(targets))),
            or_(table.expires_at_us.is_(None), table.expires_at_us > now_us),
        )
        .order_by(desc(table.seq))
        .limit(bindparam("limit", type_=Integer))
    )
    own = broadcast_marks.c
    from_seq = bindparam("from_seq", type_=BigInteger)
    before = select(own.user_id).where(
        own.user_id.in_(ids), own.seq < from_seq, own.read_at_us.is_(None), own.archived_at_us.is_(None)
    )
    return _Statements(
        addressed=addressed,
        candidates=candidates,
        watermarks=select(watermarks).where(watermarks.c.user_id.in_(ids)),
        marks=select(broadcast_marks).where(own.user_id.in_(ids), own.seq >= from_seq),
        unread_before=before.distinct(),
    )


class UnreadCounts(Users):
    """The counting of `hub.ports.InboxStore` on SQL."""

    async def unread(self, user_ids: Sequence[str], cap: int, limit: int, now_us: int) -> dict[str, Unread]:
        """For each of these (different) users what is shown, alive, unarchived and unread, of one moment.

        `limit`: so many broadcasts are looked at for all of them together.
        """
        return await self._db.read_apart(self._unread, user_ids, cap, limit, now_us) if user_ids else {}

    async def _unread(
        self, connection: AsyncConnection, user_ids: Sequence[str], cap: int, limit: int, now_us: int
    ) -> dict[str, Unread]:
        statements = _statements(self._db.sqlite)
        ids = msgspec.json.encode(list(user_ids)).decode() if self._db.sqlite else list(user_ids)
        asked = {"ids": ids, "cap": cap, "now_us": now_us}
        addressed = {
            row.user_id: (int(row.unread), int(row.unseen))
            for row in await connection.execute(statements.addressed, asked)
        }
        found = await connection.execute(
            statements.candidates, {"ids": ids, "limit": limit, "now_us": now_us}
        )
        candidates = [broadcast_of(row) for row in found]
        if not candidates:
            return {user_id: Unread(User(Profile(user_id)), *addressed[user_id]) for user_id in user_ids}
        users = await self._load_users(connection, user_ids, True)
        from_seq = candidates[-1].seq
        through: dict[str, list[Any]] = {}
        for row in await connection.execute(statements.watermarks, {"ids": ids}):
            through.setdefault(row.user_id, []).append(row)
        marks: dict[str, dict[int, Marks]] = {}
        for row in await connection.execute(statements.marks, {"ids": ids, "from_seq": from_seq}):
            marks.setdefault(row.user_id, {})[row.seq] = marks_of(row)
        is_page_full = len(candidates) == limit
        unread_before: set[str] = set()
        if is_page_full:
            before = await connection.execute(statements.unread_before, {"ids": ids, "from_seq": from_seq})
            unread_before = {row.user_id for row in before}
        nothing_marked = [BroadcastRow(one, _UNMARKED) for one in candidates]
        counted = {}
        for user_id in user_ids:
            rows, older = nothing_marked, is_page_full
            if user_id in through or user_id in marks:
                watermark = Watermarks(through.get(user_id, ()))
                rows = _unread_rows(candidates, marks.get(user_id, {}), watermark)
                is_covered = watermark.all_read_through() >= from_seq - 1 and user_id not in unread_before
                older = older and not is_covered
            key = (candidates[-1].created_at_us, candidates[-1].id) if older else None
            user = users.get(user_id) or User(Profile(user_id))
            counted[user_id] = Unread(user, *addressed[user_id], rows, key)
        return counted


def _unread_rows(
    candidates: list[Broadcast], own: dict[int, Marks], through: Watermarks
) -> list[BroadcastRow]:
    """A mark of one's own stands above the watermarks."""
    rows = []
    for one in candidates:
        marks = own.get(one.seq) or through.marks_on(one.seq, one.category)
        if marks.read_at_us is None and marks.archived_at_us is None:
            rows.append(BroadcastRow(one, marks))
    return rows
