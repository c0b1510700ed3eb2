"""When deliveries are due: what digests and throttles look at before a batch, and due times that change.

One statement for each question and each change, however many users it is about; nothing is asked for types that
neither collect nor limit.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import Statement, columns_as, given_as
from hub.adapters.sql_store.delivery_tables import OUT
from hub.adapters.sql_store.engine import Database, Part
from hub.model.digests import DigestId, OpenDigest
from hub.model.vocabulary import Channel
from hub.ports import DigestMove, Timing

_NEVER: Final = (1 << 63) - 1


def _over(columns: Mapping[str, str], text: str) -> Statement:
    """A statement over rows that are given as parameters, which it knows as the table `given_rows`."""
    names = ", ".join(columns)
    arrays = ", ".join(f"?::{kind}[]" for kind in columns.values())
    members = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(len(columns)))
    head = f"WITH given_rows ({names}) AS (SELECT"
    return Statement(
        f"{head} * FROM unnest({arrays})) {text.format(given='{given}', throttled='throttled')}",
        f"{head} {members} FROM json_each(?)) {text.format(given='{given}', throttled='throttled = 1')}",
    )


_DIGESTS: Final = Statement(
    "SELECT user_id, channel, digest_key, count(*), min(created_at_us), min(due_at_us), CAST(NULL AS BIGINT)"  # noqa: S608 - a text of ours
    " FROM deliveries WHERE user_id {given} AND digest_key IS NOT NULL AND state = 'held'"
    " GROUP BY user_id, channel, digest_key"
    " UNION ALL"
    " SELECT user_id, channel, digest_key, 0, 0, 0, max(due_at_us)"
    f" FROM deliveries WHERE user_id {{given}} AND digest_key IS NOT NULL AND {OUT} AND due_at_us > ?"
    " GROUP BY user_id, channel, digest_key"
)
_RECENT: Final = _over(
    {"type": "text", "since_us": "bigint"},
    "SELECT user_id, deliveries.type, count(DISTINCT notification_id)"
    " FROM given_rows CROSS JOIN deliveries"  # SQLite then keeps this order, and finds by type and moment too
    " WHERE deliveries.type = given_rows.type AND created_at_us > since_us"
    " AND user_id {given} AND {throttled} GROUP BY user_id, deliveries.type",
)
_MOVE: Final = Statement(
    "UPDATE deliveries SET due_at_us = new_us"
    " FROM unnest(?::text[], ?::text[], ?::text[], ?::bigint[]) AS moved (user_id, channel, digest_key, new_us)"
    " WHERE deliveries.user_id = moved.user_id AND deliveries.channel = moved.channel"
    " AND deliveries.digest_key = moved.digest_key AND deliveries.digest_key IS NOT NULL AND state = 'held'"
    " AND (expires_at_us IS NULL OR expires_at_us > new_us)",
    # Once for each digest: joined with given rows, SQLite may read what waits in all digests instead.
    "UPDATE deliveries SET due_at_us = ?4 WHERE user_id = ?1 AND channel = ?2 AND digest_key = ?3"
    " AND state = 'held' AND (expires_at_us IS NULL OR expires_at_us > ?4)",
)
_FORWARD: Final = _over(
    {"user_id": "text", "notification_id": "text"},
    "UPDATE deliveries SET due_at_us = ? FROM given_rows"
    " WHERE deliveries.user_id = given_rows.user_id AND deliveries.notification_id = given_rows.notification_id"
    " AND state = 'held' AND condition = 'offline' AND digest_key IS NULL"
    " AND due_at_us > ? AND due_at_us <= created_at_us + ?",
)


class Timings(Part):
    """The part of `hub.ports.PlanStore` that is about time."""

    async def timing(
        self,
        digesting: Sequence[str],
        sent_since_us: int | None,
        throttled: Sequence[str],
        since_us: Mapping[str, int],
    ) -> Timing:
        """What waits in digests of some users, and how many notifications of throttled types others got."""
        if not digesting and not throttled:
            return Timing()
        digests: dict[DigestId, OpenDigest] = {}
        recent: dict[tuple[str, str], int] = {}
        async with self._db.read_inline() as connection:
            if digesting:
                digests = await self._digests(connection, digesting, sent_since_us)
            if throttled and since_us:
                types = columns_as(self._db, list(since_us.items()))
                users = given_as(self._db, throttled)
                rows = await _RECENT.rows(self._db, connection, *types, users)
                recent = {(row[0], row[1]): row[2] for row in rows}
        return Timing(digests, recent)

    async def _digests(
        self, connection: AsyncConnection, users: Sequence[str], sent_since_us: int | None
    ) -> dict[DigestId, OpenDigest]:
        given = given_as(self._db, users)
        since_us = _NEVER if sent_since_us is None else sent_since_us
        waiting: dict[DigestId, tuple[int, int, int]] = {}
        sent: dict[DigestId, int] = {}
        for row in await _DIGESTS.rows(self._db, connection, given, given, since_us):
            id_ = DigestId(row[0], Channel(row[1]), row[2])
            if row[6] is not None:
                sent[id_] = row[6]
            else:
                waiting[id_] = (row[3], row[4], row[5])
        return {
            id_: OpenDigest(*waiting.get(id_, (0, 0, 0)), sent_at_us=sent.get(id_))
            for id_ in waiting.keys() | sent.keys()
        }

    async def bring_forward(
        self, notifications: Sequence[tuple[str, str]], grace_us: int, now_us: int
    ) -> None:
        """Deliveries of these (user id, notification id) that only wait for their user to be reached are due now."""
        if notifications:
            await self._db.write_inline(self._bring_forward, notifications, grace_us, now_us)

    async def _bring_forward(
        self,
        connection: AsyncConnection,
        notifications: Sequence[tuple[str, str]],
        grace_us: int,
        now_us: int,
    ) -> None:
        pairs = columns_as(self._db, notifications)
        await _FORWARD.run(self._db, connection, *pairs, now_us, now_us, grace_us)


async def move_digests(db: Database, connection: AsyncConnection, moves: Sequence[DigestMove]) -> None:
    """What is held in these digests is due at other moments."""
    if not moves:
        return
    rows = sorted((*move.id, move.due_at_us) for move in moves)
    if db.sqlite:
        await _MOVE.run_many(db, connection, rows)
    else:
        await _MOVE.run(db, connection, *columns_as(db, rows))
