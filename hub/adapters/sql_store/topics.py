"""Subscriptions to topics: intervals of broadcast_seq.

They begin and end at the lane's next broadcast_seq, read under a lock of the lane's row that a broadcast's commit
takes too: who joins gets what is committed afterwards and nothing before, who leaves keeps what there was.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Database, Part
from hub.adapters.sql_store.people_rows import add_users
from hub.adapters.sql_store.tables import leases, subscriptions, users
from hub.errors import FieldError, Refused
from hub.model.users import Subscription
from hub.model.vocabulary import LANE

TOPIC_LIMIT: Final = 500
_OPEN: Final = subscriptions.c.until_seq.is_(None)


class Topics(Part):
    """The subscription half of `hub.ports.UserStore` on SQL."""

    async def change_topic(self, topic: str, add: Sequence[str], remove: Sequence[str]) -> None:
        """Open and close subscription intervals at the lane's current broadcast_seq + 1; unknown users are created.

        Adding a subscriber or removing a stranger changes nothing. Raises `Refused(422, "too_many_topics")` beyond 500.
        """

        async def work(connection: AsyncConnection) -> None:
            await join_topics(self._db, connection, {topic: add})
            if remove:
                at_seq = await _next_seq(self._db, connection)
                await _close(
                    connection,
                    at_seq,
                    subscriptions.c.topic == topic,
                    self._db.among(subscriptions.c.user_id, remove),
                )

        await self._db.write(work)

    async def delete_topic(self, topic: str) -> int:
        """Close all open intervals; returns how many."""

        async def work(connection: AsyncConnection) -> int:
            at_seq = await _next_seq(self._db, connection)
            return await _close(connection, at_seq, subscriptions.c.topic == topic)

        return await self._db.write(work)

    async def list_topics(self, after: str | None, limit: int) -> list[tuple[str, int]]:
        """Topics with their number of subscribers."""
        page = (
            select(subscriptions.c.topic, func.count().label("members"))
            .where(_OPEN)
            .group_by(subscriptions.c.topic)
            .order_by(subscriptions.c.topic)
            .limit(limit)
        )
        if after is not None:
            page = page.where(subscriptions.c.topic > after)
        async with self._db.read() as connection:
            return [(row.topic, row.members) for row in await connection.execute(page)]

    async def topic_users(self, topic: str, after: str | None, limit: int) -> list[str]:
        """Current subscribers by id."""
        page = select(subscriptions.c.user_id).where(_OPEN, subscriptions.c.topic == topic)
        if after is not None:
            page = page.where(subscriptions.c.user_id > after)
        async with self._db.read() as connection:
            return list((await connection.scalars(page.order_by(subscriptions.c.user_id).limit(limit))).all())

    async def user_topics(self, user_id: str) -> list[Subscription]:
        """Open and closed intervals of a user."""
        page = (
            select(subscriptions)
            .where(subscriptions.c.user_id == user_id)
            .order_by(subscriptions.c.topic, subscriptions.c.from_seq)
        )
        async with self._db.read() as connection:
            rows = await connection.execute(page)
        return [Subscription(row.topic, row.from_seq, row.until_seq) for row in rows]


async def join_topics(
    db: Database, connection: AsyncConnection, joins: Mapping[str, Collection[str]]
) -> None:
    """Open intervals for users (by topic) who have none open. Raises `Refused(422, "too_many_topics")`."""
    ids = {user_id for members in joins.values() for user_id in members}
    if not ids:
        return
    await add_users(db, connection, ids)
    # One joins at a time for a user, so that the limit holds.
    await connection.execute(
        select(users.c.id).where(db.among(users.c.id, ids)).order_by(users.c.id).with_for_update()
    )
    found = await connection.execute(
        select(subscriptions.c.user_id, subscriptions.c.topic).where(
            _OPEN, db.among(subscriptions.c.user_id, ids)
        )
    )
    topics: dict[str, set[str]] = {}
    for row in found:
        topics.setdefault(row.user_id, set()).add(row.topic)
    opened: list[dict[str, Any]] = []
    for topic, members in joins.items():
        for user_id in dict.fromkeys(members):
            own = topics.setdefault(user_id, set())
            if topic not in own:
                own.add(topic)
                opened.append({"user_id": user_id, "topic": topic, "until_seq": None})
                if len(own) > TOPIC_LIMIT:
                    raise _too_many(user_id)
    if opened:
        at_seq = await _next_seq(db, connection)
        rows = [{**row, "from_seq": at_seq} for row in opened]
        await connection.execute(subscriptions.insert(), rows)


async def _close(connection: AsyncConnection, at_seq: int, *which: Any) -> int:
    # An interval in which nothing can have been broadcast was none.
    empty = await connection.execute(
        delete(subscriptions).where(_OPEN, subscriptions.c.from_seq >= at_seq, *which)
    )
    closed = await connection.execute(update(subscriptions).where(_OPEN, *which).values(until_seq=at_seq))
    return empty.rowcount + closed.rowcount


async def _next_seq(db: Database, connection: AsyncConnection) -> int:
    """The seq of the next broadcast, which cannot be given while this transaction lasts."""
    lane = select(leases.c.broadcast_seq).where(leases.c.name == LANE).with_for_update()
    found = await connection.scalar(lane)
    if found is None:
        fresh = {"name": LANE, "owner": "", "fence": 0, "expires_at_us": 0, "position": "", "clock_us": 0}
        await connection.execute(
            db.insert(leases).values(**fresh, broadcast_seq=0).on_conflict_do_nothing(index_elements=["name"])
        )
        found = await connection.scalar(lane)
    return int(found or 0) + 1


def _too_many(user_id: str) -> Refused:
    detail = f"User {user_id!r} would have more than {TOPIC_LIMIT} topics."
    return Refused(422, "too_many_topics", detail, [FieldError("", "too_many_topics", detail)])
