"""What a generator looks up before it plans a batch: a handful of ready-made statements, however large the batch.

Texts for the driver, because building and keying the same five expressions for each batch took longer than asking.
What is rare (slices planned before, erased users) is asked only when there is any.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import Statement
from hub.adapters.sql_store.engine import Database, Part
from hub.adapters.sql_store.people_rows import ERASURE_KEY, tombstones_among
from hub.adapters.sql_store.push_rows import HAS_PUSH, with_push
from hub.adapters.sql_store.rows import broadcast_of, notification_of, user_of
from hub.adapters.sql_store.suppressions import HAS_SUPPRESSIONS, with_suppressed
from hub.adapters.sql_store.tables import broadcasts, notifications, slices
from hub.model.notifications import Notification
from hub.model.users import Profile, User
from hub.ports import Situation, StoredSlice

CATALOG: Final = "catalog_version"
_ASKED: Final = ", ".join(f"'{name}'" for name in (CATALOG, ERASURE_KEY, HAS_SUPPRESSIONS, HAS_PUSH))
_SETTINGS: Final = Statement(
    f"SELECT name, value FROM settings WHERE name IN ({_ASKED})"  # noqa: S608 - names of our own
)
_SLICES: Final = Statement("SELECT event_id, slice_key FROM slices WHERE event_id {given}")
_RETRACTIONS: Final = Statement("SELECT event_id FROM retractions WHERE event_id {given}")
_USERS: Final = Statement(
    "SELECT id, name, avatar, email, phone, locale, timezone, attributes, preferences, version, tokens_valid_from_us"
    " FROM users WHERE id {given}"
)


class Situations(Part):
    """The reading half of `hub.ports.PlanStore`."""

    async def situation(self, parts: Mapping[str, Sequence[str]], users: Sequence[str]) -> Situation:
        """What is known of these events' slices (ids by slice key) and of these users."""
        events = sorted({event_id for ids in parts.values() for event_id in ids})
        async with self._db.read_inline() as connection:
            settings = dict(await _SETTINGS.rows(self._db, connection))
            known = await self.stored_slices(connection, events)
            retracted = await self.retracted_among(connection, events)
            people = {row[0]: user_of(row) for row in await _USERS.among(self._db, connection, users)}
            if HAS_SUPPRESSIONS in settings:
                people = await with_suppressed(self._db, connection, people)
            if HAS_PUSH in settings:
                people = await with_push(self._db, connection, people)
            if key := settings.get(ERASURE_KEY):
                erased = await tombstones_among(self._db, connection, bytes.fromhex(key), users)
                people |= {id_: _erased(people.get(id_), id_, *at) for id_, at in erased.items()}
        planned: dict[tuple[str, str], StoredSlice] = {}
        for key, ids in parts.items():
            if again := [event_id for event_id in ids if (event_id, key) in known]:
                found = await self.planned(key, again)
                planned |= {(event_id, key): one for event_id, one in found.items()}
        return Situation(
            planned, frozenset(retracted), people, int(settings.get(CATALOG, 0)), HAS_PUSH in settings
        )

    async def planned(self, partition: str, event_ids: Sequence[str]) -> dict[str, StoredSlice]:
        """Those of the events whose slice with this key is planned already, with what was planned in it.

        What is not shown any more (retracted, replaced) is left out: it must not be announced again.
        """
        if not event_ids:
            return {}
        known = select(slices.c.event_id).where(
            self._db.among(slices.c.event_id, event_ids), slices.c.slice_key == partition
        )
        async with self._db.read(snapshot=True) as connection:
            ids = list((await connection.scalars(known)).all())
            if not ids:
                return {}
            rows = await connection.execute(
                select(notifications)
                .where(
                    self._db.among(notifications.c.event_id, ids),
                    notifications.c.slice_key == partition,
                    notifications.c.hidden.is_(None),
                )
                .order_by(notifications.c.created_at_us)
            )
            found = await connection.execute(
                select(broadcasts).where(
                    self._db.among(broadcasts.c.event_id, ids),
                    broadcasts.c.slice_key == partition,
                    broadcasts.c.hidden.is_(None),
                )
            )
        by_event: dict[str, list[Notification]] = {}
        for row in rows:
            by_event.setdefault(row.event_id, []).append(notification_of(row))
        lane = {row.event_id: broadcast_of(row) for row in found}
        return {id_: StoredSlice(id_, by_event.get(id_, []), lane.get(id_)) for id_ in ids}

    async def retracted(self, event_ids: Sequence[str]) -> set[str]:
        """Those of the events that were retracted."""
        async with self._db.read_inline() as connection:
            return await self.retracted_among(connection, event_ids)

    async def retracted_among(self, connection: AsyncConnection, event_ids: Collection[str]) -> set[str]:
        """`retracted` in a transaction that runs."""
        return await retracted_among(self._db, connection, event_ids)

    async def stored_slices(
        self, connection: AsyncConnection, event_ids: Collection[str]
    ) -> set[tuple[str, str]]:
        """Event id and key of the slices of these events, whichever partition's."""
        return {(row[0], row[1]) for row in await _SLICES.among(self._db, connection, event_ids)}


def _erased(user: User | None, user_id: str, erased_at_us: int, revoked_us: int) -> User:
    known = user or User(Profile(user_id))
    return msgspec.structs.replace(
        known,
        erased_at_us=erased_at_us,
        tokens_valid_from_us=max(known.tokens_valid_from_us, revoked_us),
    )


async def retracted_among(db: Database, connection: AsyncConnection, event_ids: Collection[str]) -> set[str]:
    """Those of the events that were retracted."""
    return {row[0] for row in await _RETRACTIONS.among(db, connection, event_ids)}
