"""Handing out: which deliveries are due, and that senders were told of them.

Told once and not again for a while: whoever was told may be dead, or the message may be lost. When a delivery was due
stays what it was, so that what waited longest comes first, whatever happened to it in between.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import RowsStatement, Statement
from hub.adapters.sql_store.engine import Part
from hub.model.sending import CAREFUL, together
from hub.model.vocabulary import Channel
from hub.ports import Due

_WAITING: Final = "state IN ('held', 'queued', 'failed')"  # as the index says it
_FREE: Final = f"channel = ? AND {_WAITING} AND claim IS NULL AND COALESCE(handed_until_us, 0) <= {{now}}"
_NEXT: Final = (
    f"SELECT channel, due_at_us FROM (SELECT channel, due_at_us FROM deliveries WHERE {_FREE}"  # noqa: S608
    " ORDER BY due_at_us LIMIT 1) AS next"
)
_DUE: Final = (
    f"SELECT user_id, id, lapses, digest_key, state FROM deliveries WHERE {_FREE}"  # noqa: S608
    " AND due_at_us <= {now} AND lapses CARE ORDER BY due_at_us LIMIT ?"
)
_LOCK: Final = " FOR UPDATE SKIP LOCKED"
_FRESH: Final = _DUE.replace("CARE", "= 0")
_LAPSED: Final = _DUE.replace("CARE", "> 0")
_SQLITE: Final = Statement(_FRESH), Statement(_LAPSED)
_POSTGRESQL: Final = Statement(_FRESH + _LOCK), Statement(_LAPSED + _LOCK)
_QUEUE: Final = RowsStatement(
    "UPDATE deliveries SET state = 'queued', handed_until_us = {now} + given.kick_us FROM {rows}"
    " WHERE deliveries.user_id = given.user_id AND deliveries.id = given.id RETURNING deliveries.id",
    user_id="text",
    id="text",
    kick_us="bigint",
)
_DIGEST: Final = (
    "UPDATE deliveries SET state = 'queued', handed_until_us = {now} + ?"
    " WHERE user_id = ? AND digest_key = ? AND channel = ? AND WHICH RETURNING user_id, id, lapses, digest_key"
)
_HELD: Final = Statement(_DIGEST.replace("WHICH", "state = 'held'"))
_GIVEN_BACK: Final = Statement(
    _DIGEST.replace("WHICH", "state = 'queued' AND claim IS NULL AND COALESCE(handed_until_us, 0) <= {now}")
)


class Handing(Part):
    """The half of `hub.ports.SendingStore` that the dispatcher uses."""

    async def next_due(self, channels: Sequence[Channel]) -> dict[Channel, int]:
        """Per channel the earliest moment (µs) at which a waiting delivery is due that nobody was told of."""
        if not channels:
            return {}
        question = Statement(" UNION ALL ".join([_NEXT] * len(channels)))
        async with self._db.read_inline() as connection:
            found = await question.rows(self._db, connection, *map(str, channels))
        return {Channel(row[0]): row[1] for row in found}

    async def queue_due(
        self, channel: Channel, limit: int, kick_seconds: float, *, careful: bool = True
    ) -> list[Due]:
        """Move up to `limit` due deliveries to `queued`, oldest first, with all that is held for their digests.

        `careful`: also one chunk of those that had a process die under them.
        """
        return await self._db.write_inline(
            self._queue_due, channel, limit, round(kick_seconds * 1e6), careful=careful
        )

    async def _queue_due(
        self, connection: AsyncConnection, channel: Channel, limit: int, kick_us: int, *, careful: bool
    ) -> list[Due]:
        fresh, lapsed = _SQLITE if self._db.sqlite else _POSTGRESQL
        rows: list[Any] = []
        if limit > 0:
            rows = [*await fresh.rows(self._db, connection, str(channel), limit)]
        if careful:
            rows += _first_chunk(await lapsed.rows(self._db, connection, str(channel), max(CAREFUL)))
        found = [Due(*row[:4]) for row in rows]
        await _QUEUE.rows(self._db, connection, [(due.user_id, due.id, kick_us) for due in found])
        known = {due.id for due in found}
        for user_id, _, lapses, key, state in [row for row in rows if row[3] is not None]:
            # Only what was held takes along what else is held: the first of a digest may go out at once, alone.
            statements = [_HELD] * (state == "held") + [_GIVEN_BACK] * (lapses > 0)
            for statement in statements:
                joined = await statement.rows(self._db, connection, kick_us, user_id, key, str(channel))
                found += [Due(*row) for row in joined if row[1] not in known]
                known |= {row[1] for row in joined}
        return found


def _first_chunk(lapsed: Sequence[Any]) -> list[Any]:
    """The first of them, with the next that died as often, as many as may go together."""
    alike = [row for row in lapsed if row[2] == lapsed[0][2]]
    return alike[: together(alike[0][2])] if alike else []
