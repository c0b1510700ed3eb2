"""Claims and moves of deliveries: `hub.ports.SendingStore` on SQL.

A chunk's claim is one row with an end. Whoever records something first looks at it within the same transaction, and
whoever takes lapsed claims away deletes that row, so that of the two only one can be. Statements take all rows of a
call at once, straight to the driver: they stand in the way of every message.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import Row, RowsStatement, Statement, insert_rows
from hub.adapters.sql_store.claimed import load_claimed
from hub.adapters.sql_store.gone import take_out
from hub.adapters.sql_store.handing import Handing
from hub.adapters.sql_store.journal import append_log
from hub.adapters.sql_store.lapses import Lapses
from hub.adapters.sql_store.rows import delivery_values, document
from hub.adapters.sql_store.tables import attempts, claims, deliveries, slices
from hub.ports import Begin, Claimed, End, Wanted

_KEY: Final = {"user_id": "text", "id": "text"}
_CLAIM: Final = RowsStatement(
    "UPDATE deliveries SET claim = given.claim, handed_until_us = NULL FROM {rows} WHERE deliveries.user_id = given.user_id"
    " AND deliveries.id = given.id AND deliveries.state = 'queued' AND deliveries.claim IS NULL"
    " AND deliveries.lapses = given.lapses"
    " RETURNING deliveries.id",
    **_KEY,
    lapses="integer",
    claim="text",
)
_BEGIN: Final = RowsStatement(
    # Begun twice is begun once: whoever did not hear that it is written asks again.
    "UPDATE deliveries SET attempts = attempts + CASE state WHEN 'queued' THEN 1 ELSE 0 END, state = 'sending',"
    " tried_at_us = COALESCE(tried_at_us, given.at_us)"
    " FROM {rows} WHERE deliveries.user_id = given.user_id AND deliveries.id = given.id"
    " AND deliveries.claim = given.claim AND deliveries.state IN ('queued', 'sending') RETURNING deliveries.id",
    **_KEY,
    claim="text",
    at_us="bigint",
)
_END: Final = RowsStatement(
    "UPDATE deliveries SET state = given.state, reason = given.reason, claim = NULL,"
    " due_at_us = COALESCE(given.due_at_us, deliveries.due_at_us),"
    " tried_at_us = CASE WHEN given.state = 'failed' THEN COALESCE(tried_at_us, given.at_us) ELSE tried_at_us END,"
    " provider = COALESCE(given.provider, deliveries.provider),"
    " reference = COALESCE(given.reference, deliveries.reference),"
    " served = COALESCE(given.served, deliveries.served)"
    " FROM {rows} WHERE deliveries.user_id = given.user_id AND deliveries.id = given.id"
    " AND deliveries.claim = given.claim AND deliveries.state = given.was RETURNING deliveries.id",
    **_KEY,
    claim="text",
    at_us="bigint",
    was="text",
    state="text",
    reason="text",
    due_at_us="bigint",
    provider="text",
    reference="text",
    served="text",
)
_ALIVE: Final = "SELECT id FROM claims WHERE id {given} AND expires_at_us > {now}"
_SQLITE_ALIVE: Final = Statement(_ALIVE)
_POSTGRESQL_ALIVE: Final = Statement(_ALIVE + " FOR SHARE")


class Sending(Handing, Lapses):
    """`hub.ports.SendingStore` on SQL."""

    # ------------------------------------------------------------ claims

    async def claim(
        self, claim: str, owner: str, wanted: Sequence[Wanted], ttl_seconds: float
    ) -> list[Claimed]:
        """Take those that are `queued` and nobody's; all that is needed to send them."""
        ids = await self._db.write_inline(self._claim, claim, owner, wanted, ttl_seconds)
        return await self._db.read_apart(load_claimed, self._db, claim) if ids else []

    async def _claim(
        self,
        connection: AsyncConnection,
        claim: str,
        owner: str,
        wanted: Sequence[Wanted],
        ttl_seconds: float,
    ) -> list[str]:
        until = self._db.now_us() + round(ttl_seconds * 1e6)
        await connection.execute(self._db.insert(claims).values(id=claim, owner=owner, expires_at_us=until))
        taken = await _CLAIM.rows(self._db, connection, [(*one, claim) for one in sorted(wanted)])
        if not taken:
            await connection.execute(delete(claims).where(claims.c.id == claim))
        return [row[0] for row in taken]

    async def renew_claims(self, mine: Sequence[str], ttl_seconds: float) -> set[str]:
        """Extend those that are still ours; returns them."""

        async def work(connection: AsyncConnection) -> set[str]:
            now = self._db.now_us()
            renewed = await connection.execute(
                update(claims)
                .where(self._db.among(claims.c.id, mine), claims.c.expires_at_us > now)
                .values(expires_at_us=now + round(ttl_seconds * 1e6))
                .returning(claims.c.id)
            )
            return set(renewed.scalars().all())

        return await self._db.write(work) if mine else set()

    async def release_claim(self, claim: str) -> None:
        """Give back what was not begun: due at once, for others. What was begun and not ended lapses at once."""

        async def work(connection: AsyncConnection) -> None:
            mine = select(claims.c.id).where(claims.c.id == claim).with_for_update()
            if await connection.scalar(mine) is None:
                return
            of_claim = deliveries.c.claim == claim
            await connection.execute(
                update(deliveries).where(of_claim, deliveries.c.state == "queued").values(claim=None)
            )
            if await connection.scalar(select(deliveries.c.id).where(of_claim).limit(1)) is None:
                await connection.execute(delete(claims).where(claims.c.id == claim))
            else:  # nobody would look for them without it
                await connection.execute(
                    update(claims).where(claims.c.id == claim).values(expires_at_us=self._db.now_us())
                )

        await self._db.write(work)

    # ------------------------------------------------------------ what happened

    async def record(self, begins: Sequence[Begin], ends: Sequence[End]) -> set[str]:
        """Write what happened, in one transaction; returns the ids of the deliveries whose move held."""
        if not begins and not ends:
            return set()
        held = await self._db.write_inline(self._record, begins, ends)
        self._db.written(len(begins) + 3 * len(ends))  # each end brings an attempt and a line of the log
        return held

    async def _record(
        self, connection: AsyncConnection, begins: Sequence[Begin], ends: Sequence[End]
    ) -> set[str]:
        alive = await self._alive(connection, {one.claim for one in begins} | {one.claim for one in ends})
        ended = await _END.rows(
            self._db, connection, [_end_row(end) for end in _in_order(ends) if end.claim in alive]
        )
        begun = await _BEGIN.rows(
            self._db,
            connection,
            [(one.user_id, one.id, one.claim, one.at_us) for one in sorted(begins) if one.claim in alive],
        )
        held = {row[0] for row in (*ended, *begun)}
        if done := [end for end in ends if end.delivery.id in held]:
            await self._write_ends(connection, done)
        return held

    async def _alive(self, connection: AsyncConnection, asked: Collection[str]) -> set[str]:
        question = _SQLITE_ALIVE if self._db.sqlite else _POSTGRESQL_ALIVE
        return {row[0] for row in await question.among(self._db, connection, sorted(asked))}

    async def _write_ends(self, connection: AsyncConnection, ends: Sequence[End]) -> None:
        await insert_rows(self._db, connection, attempts, [row for end in ends for row in _attempt_rows(end)])
        await take_out(self._db, connection, ends)
        await self._insert_fallbacks(connection, [end for end in ends if end.fallback is not None])
        await append_log(self._db, connection, [entry for end in ends for entry in end.log])

    async def _insert_fallbacks(self, connection: AsyncConnection, ends: Sequence[End]) -> None:
        """Insert what takes over, unless its notification has a delivery on that channel already; the ledger counts it."""
        added: dict[tuple[str, str], int] = defaultdict(int)
        for end in ends:
            assert end.fallback is not None
            values = dict(zip(deliveries.columns.keys(), _fallback_row(end), strict=True))
            made = await connection.execute(
                self._db.insert(deliveries).values(values).on_conflict_do_nothing().returning(deliveries.c.id)
            )
            if made.scalars().all():
                added[end.delivery.event_id, end.delivery.slice_key] += 1
        for (event_id, slice_key), count in sorted(added.items()):
            await connection.execute(
                update(slices)
                .where(slices.c.event_id == event_id, slices.c.slice_key == slice_key)
                .values(deliveries=slices.c.deliveries + count)
            )


def _in_order(ends: Sequence[End]) -> list[End]:
    """Rows are always taken in one order, so that two transactions never wait for each other in a circle."""
    return sorted(ends, key=lambda end: (end.delivery.user_id, end.delivery.id))


def _end_row(end: End) -> Row:
    return (
        end.delivery.user_id,
        end.delivery.id,
        end.claim,
        end.at_us,
        end.was,
        end.move.state,
        end.move.reason,
        end.move.due_at_us,
        end.provider,
        end.reference,
        document(end.served) if end.served else None,
    )


def _attempt_rows(end: End) -> list[Row]:
    delivery = end.delivery
    return [
        (
            delivery.user_id,
            delivery.id,
            attempt.number,
            attempt.provider,
            delivery.event_id,
            delivery.channel.value,
            attempt.outcome,
            attempt.code,
            attempt.detail,
            attempt.started_at_us,
            attempt.duration_us,
            attempt.is_repeat,
        )
        for attempt in end.attempts
    ]


def _fallback_row(end: End) -> Row:
    assert end.fallback is not None
    return delivery_values(end.fallback, end.delivery.slice_key, end.fallback.state)
