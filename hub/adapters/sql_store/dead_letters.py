"""Dead letters: deliveries that are dead or unknown, events that could not be planned, and their second chance.

Replaying is a conditional change, so that of two replays one counts. A replayed event waits in the schedule, which
queues it whatever crashes in between; its slice's row goes in the same transaction, so that it is planned as if for the
first time.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Table, bindparam, delete, desc, func, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.journal import append_log
from hub.adapters.sql_store.rows import delivery_of
from hub.adapters.sql_store.tables import (
    attempts,
    broadcasts,
    deliveries,
    notifications,
    payloads,
    retractions,
    scheduled,
    slices,
    users,
)
from hub.model.deliveries import Delivery, may_move
from hub.model.events import Schedule, Slice, decode_slice, encode_slice
from hub.ports import DeadQuery, DeadSlice, LogEntry, PastAttempt, Replay

ROUNDS: Final = (
    1000  # more than a delivery ever has; a replay moves its earlier rounds out of the way by this much
)
_DEAD: Final = text("deliveries.state IN ('dead', 'unknown')")  # word by word what the index says
TOGETHER: Final = 50
_PSEUDONYM: Final = "erased-"


class DeadLetters(Part):
    """`hub.ports.DeadLetterStore` on SQL."""

    async def attempts_of(self, rows: Sequence[Delivery]) -> Mapping[tuple[str, str], Sequence[PastAttempt]]:
        """The attempts of deliveries, oldest first, by (user id, delivery id)."""
        found: dict[tuple[str, str], list[PastAttempt]] = {}
        async with self._db.read() as connection:
            for some in _portions(rows):
                page = select(attempts).where(*self._of(attempts, some))
                page = page.order_by(attempts.c.started_at_us, attempts.c.number)
                for row in await connection.execute(page):
                    found.setdefault((row.user_id, row.delivery_id), []).append(_attempt_of(row))
        return found

    def _of(self, table: Table, rows: Sequence[Delivery]) -> tuple[ColumnElement[bool], ...]:
        """Rows of another table that belong to these deliveries (a few at once)."""
        users_of = self._db.among(table.c.user_id, {row.user_id for row in rows})
        if table is attempts:
            return users_of, self._db.among(table.c.delivery_id, {row.id for row in rows})
        return users_of, self._db.among(table.c.id, {row.notification_id for row in rows})

    async def dead_deliveries(self, query: DeadQuery) -> list[Delivery]:
        """Deliveries in these states, newest first."""
        table = deliveries.c
        which: list[Any] = [_DEAD, table.state.in_(query.states)]
        for column, wanted in (
            (table.channel, query.channel),
            (table.provider, query.provider),
            (table.reason, query.reason),
        ):
            if wanted is not None:
                which.append(column == wanted)
        if query.since_us is not None:
            which.append(table.created_at_us >= query.since_us)
        if query.before is not None:
            which.append(tuple_(table.created_at_us, table.id) < query.before)
        page = select(deliveries).where(*which).order_by(desc(table.created_at_us), desc(table.id))
        async with self._db.read() as connection:
            return [delivery_of(row) for row in await connection.execute(page.limit(query.limit))]

    # ------------------------------------------------------------ deliveries again

    async def replay_deliveries(self, ids: Sequence[str], now_us: int, *, unknown: bool) -> Replay:
        """Move `dead` ones (and, if allowed, `unknown` ones) to `queued`, due at once, with all their attempts before them."""
        return await self._db.write(self._replay, ids, now_us, unknown) if ids else Replay()

    async def _replay(
        self, connection: AsyncConnection, ids: Sequence[str], now_us: int, unknown: bool
    ) -> Replay:
        replay = Replay(refused=dict.fromkeys(ids, "not_dead"))
        found = await connection.execute(
            select(deliveries)
            .where(self._db.among(deliveries.c.id, ids), _DEAD)
            .order_by(deliveries.c.user_id, deliveries.c.id)
            .with_for_update()
        )
        rows = [delivery_of(row) for row in found]
        obstacles = await self._obstacles(connection, rows, now_us)
        going = []
        for row in rows:
            obstacle = "unknown" if row.state == "unknown" and not unknown else obstacles.get(row.id)
            if obstacle:
                replay.refused[row.id] = obstacle
            else:
                del replay.refused[row.id]
                going.append(row)
        if not going:
            return replay
        assert all(may_move(row.state, "queued") for row in going)
        await self._set_rounds_aside(connection, [row for row in going if row.attempts])
        again = {"state": "queued", "reason": None, "due_at_us": now_us, "claim": None}
        statement = (
            update(deliveries)
            .where(
                deliveries.c.user_id == bindparam("of_user"),
                deliveries.c.id == bindparam("of_delivery"),
                _DEAD,
            )
            .values(**again, attempts=0, lapses=0, tried_at_us=None)
        )
        await connection.execute(
            statement, [{"of_user": row.user_id, "of_delivery": row.id} for row in going]
        )
        replay.log = [_replayed(row, now_us) for row in going]
        await append_log(self._db, connection, replay.log)
        return replay

    async def _obstacles(
        self, connection: AsyncConnection, rows: Sequence[Delivery], now_us: int
    ) -> dict[str, str]:
        """Why a delivery could only fail again, by its id."""
        if not rows:
            return {}
        db, events = self._db, {row.event_id for row in rows}
        kept = await connection.execute(
            select(payloads.c.event_id, payloads.c.slice_key).where(db.among(payloads.c.event_id, events))
        )
        whole = {(row.event_id, row.slice_key) for row in kept}
        retracted = await connection.scalars(
            select(retractions.c.event_id).where(db.among(retractions.c.event_id, events))
        )
        gone = set(retracted.all())
        known = set(
            (
                await connection.scalars(
                    select(users.c.id).where(db.among(users.c.id, {row.user_id for row in rows}))
                )
            ).all()
        )
        ids = {row.notification_id for row in rows}
        away = [select(broadcasts.c.id, broadcasts.c.hidden).where(db.among(broadcasts.c.id, ids))]
        away += [
            select(notifications.c.id, notifications.c.hidden).where(*self._of(notifications, some))
            for some in _portions(rows)
        ]
        hidden: dict[str, str] = {}
        for page in away:
            found = await connection.execute(page)
            hidden |= {row.id: row.hidden for row in found if row.hidden is not None}
        obstacles = {}
        for row in rows:
            if row.user_id.startswith(_PSEUDONYM) and row.user_id not in known:
                obstacles[row.id] = "erased"
            elif row.event_id in gone:
                obstacles[row.id] = "retracted"
            elif row.notification_id in hidden:
                obstacles[row.id] = hidden[row.notification_id]
            elif row.expires_at_us is not None and row.expires_at_us <= now_us:
                obstacles[row.id] = "expired"
            elif (row.event_id, row.slice_key) not in whole:
                obstacles[row.id] = "payload_gone"
        return obstacles

    async def _set_rounds_aside(self, connection: AsyncConnection, rows: Sequence[Delivery]) -> None:
        """Rounds are counted from 1 again: those that were go below 0, where no earlier replay's are."""
        own = attempts.c
        moves = []
        for some in _portions(rows):
            lowest = (
                select(own.user_id, own.delivery_id, func.min(own.number).label("number"))
                .where(*self._of(attempts, some))
                .group_by(own.user_id, own.delivery_id)
            )
            moves += [
                {
                    "of_user": row.user_id,
                    "of_delivery": row.delivery_id,
                    "by": ROUNDS * (1 + (1 - row.number) // ROUNDS),
                }
                for row in await connection.execute(lowest)
            ]
        if moves:
            statement = update(attempts).where(
                own.user_id == bindparam("of_user"),
                own.delivery_id == bindparam("of_delivery"),
                own.number > 0,
            )
            await connection.execute(statement.values(number=own.number - bindparam("by")), moves)

    # ------------------------------------------------------------ events again

    async def dead_slices(
        self, before: tuple[int, str, str] | None, since_us: int | None, limit: int
    ) -> list[DeadSlice]:
        """Rejected slices, newest first; `before` is (at_us, event id, slice key) of the last one seen."""
        keys = (slices.c.planned_at_us, slices.c.event_id, slices.c.slice_key)
        page = select(*keys, slices.c.type, slices.c.error).where(slices.c.error.is_not(None))
        if before is not None:
            page = page.where(tuple_(*keys) < before)
        if since_us is not None:
            page = page.where(slices.c.planned_at_us >= since_us)
        async with self._db.read() as connection:
            rows = await connection.execute(page.order_by(*map(desc, keys)).limit(limit))
        return [
            DeadSlice(row.event_id, row.slice_key, row.type, row.planned_at_us, row.error or "")
            for row in rows
        ]

    async def replay_events(self, event_ids: Sequence[str], now_us: int) -> Replay:
        """Turn rejected slices back: they are as if never planned, and wait in the schedule to be queued again."""
        return await self._db.write(self._replay_events, event_ids, now_us) if event_ids else Replay()

    async def _replay_events(
        self, connection: AsyncConnection, event_ids: Sequence[str], now_us: int
    ) -> Replay:
        replay = Replay(refused=dict.fromkeys(event_ids, "not_dead"))
        found = await connection.execute(
            select(slices)
            .where(self._db.among(slices.c.event_id, event_ids), slices.c.error.is_not(None))
            .order_by(slices.c.event_id, slices.c.slice_key)
            .with_for_update()
        )
        retracted = await connection.scalars(
            select(retractions.c.event_id).where(self._db.among(retractions.c.event_id, event_ids))
        )
        gone = set(retracted.all())
        going: list[tuple[Any, bytes]] = []
        for row in found:
            waiting, obstacle = _waiting_again(row.raw, now_us)
            obstacle = "retracted" if row.event_id in gone else obstacle
            if obstacle or waiting is None:
                replay.refused[row.event_id] = obstacle or "unreadable"
            else:
                going.append((row, waiting))
        for event_id in {row.event_id for row, _ in going}:
            replay.refused.pop(event_id, None)
        for row, waiting in going:
            await connection.execute(
                delete(slices).where(
                    slices.c.event_id == row.event_id,
                    slices.c.slice_key == row.slice_key,
                    slices.c.error.is_not(None),
                )
            )
            part = f"replay:{row.slice_key}:{now_us}"  # a name of its own: the queue knows releases by it
            await connection.execute(
                scheduled.insert().values(
                    event_id=row.event_id, part=part, due_at_us=now_us, queued_at_us=None, raw=waiting
                )
            )
            entry = LogEntry(
                now_us,
                "replayed",
                row.event_id,
                type=row.type,
                category=row.category or None,
                reason="rejected",
            )
            replay.log.append(entry)
        await append_log(self._db, connection, replay.log)
        return replay


def _portions(rows: Sequence[Delivery]) -> Iterator[Sequence[Delivery]]:
    """A few at once: what is asked by user and id costs SQLite a look for each of the one with each of the other."""
    for first in range(0, len(rows), TOGETHER):
        yield rows[first : first + TOGETHER]


def _attempt_of(row: Any) -> PastAttempt:
    return PastAttempt(
        number=row.number % ROUNDS,
        provider=row.provider,
        outcome=row.outcome,
        code=row.code,
        detail=row.detail,
        started_at_us=row.started_at_us,
        duration_us=row.duration_us,
        is_repeat=row.is_repeat,
    )


def _replayed(row: Delivery, now_us: int) -> LogEntry:
    return LogEntry(
        now_us,
        "replayed",
        row.event_id,
        row.user_id,
        row.notification_id,
        row.channel.value,
        row.type,
        row.category,
        row.provider,
        row.reason,
        f"It was {row.state}, after {row.attempts} attempts.",
    )


def _waiting_again(raw: bytes | None, now_us: int) -> tuple[bytes | None, str | None]:
    """A rejected slice as a part that the scheduler releases, or why that cannot be."""
    try:
        part = decode_slice(raw or b"")
    except msgspec.MsgspecError:
        return None, "unreadable"
    if part.schedule is not None:
        return None, "scheduled"
    schedule = Schedule(users=part.users, broadcast=part.broadcast, send_at_us=now_us)
    return encode_slice(Slice(event=part.event, schedule=schedule, part=part.part)), None
