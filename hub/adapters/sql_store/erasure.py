"""Erasing and exporting a user.

Erasure removes what names the user and keeps what adds up: deliveries, their attempts and log rows go on under a random
pseudonym, an event that is kept for nobody else's deliveries goes, the ledger notes how many rows went, and a
tombstone (a keyed hash) refuses earlier tokens and earlier events.
Honest limits: rejected events are kept whole, and other people's notifications keep the name of their actor, until
retention drops them. An address whose owner complained or said STOP stays suppressed, without a word about why.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import to_builtins
from sqlalchemy import Column, ColumnElement, Table, and_, bindparam, case, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.journal import append_log, cancel_deliveries
from hub.adapters.sql_store.locks import hold_commits
from hub.adapters.sql_store.people_rows import ensure_erasure_key, new_pseudonym, tombstone_hash
from hub.adapters.sql_store.rows import (
    broadcast_of,
    delivery_of,
    log_entry_of,
    marks_of,
    notification_of,
    preferences_of,
    profile_of,
    user_suffix,
)
from hub.adapters.sql_store.suppressions import BOUNCE, addresses_of
from hub.adapters.sql_store.tables import (
    attempts,
    broadcast_marks,
    broadcast_reached,
    broadcasts,
    deliveries,
    devices,
    log,
    notifications,
    payloads,
    push_subscriptions,
    slices,
    subscriptions,
    suppressions,
    tombstones,
    users,
    watermarks,
)
from hub.model.addresses import canonical_address
from hub.model.notifications import rfc3339
from hub.ports import LogEntry


class Erasure(Part):
    """The privacy half of `hub.ports.UserStore` on SQL."""

    async def erase_user(self, user_id: str, now_us: int) -> bool:
        """Remove rows, subscriptions, addresses; deliveries `cancelled(erased)`; log gets a random pseudonym; tokens
        issued before now are refused; later-planned slices of earlier events skip the user. False: was unknown."""
        return await self._db.write(self._erase, user_id, now_us)

    async def _erase(self, connection: AsyncConnection, user_id: str, now_us: int) -> bool:
        await hold_commits(self._db, connection)
        await self._set_tombstone(connection, user_id, now_us)
        entries = await cancel_deliveries(connection, "erased", now_us, deliveries.c.user_id == user_id)
        known = bool(entries)
        known |= await self._remove_notifications(connection, user_id)
        await self._release_addresses(connection, user_id)
        for table, column in (
            (subscriptions, subscriptions.c.user_id),
            (broadcast_marks, broadcast_marks.c.user_id),
            (broadcast_reached, broadcast_reached.c.user_id),
            (watermarks, watermarks.c.user_id),
            (devices, devices.c.user_id),
            (push_subscriptions, push_subscriptions.c.user_id),
            (users, users.c.id),
        ):
            removed = await connection.execute(delete(table).where(column == user_id))
            known |= removed.rowcount > 0
        await append_log(self._db, connection, entries)
        pseudonym = new_pseudonym()
        # A notification's id ends with a short hash of its user's id, which would lead back.
        own, other = user_suffix(user_id), user_suffix(pseudonym)
        # Targets are addresses, and a provider's reference and words lead to one.
        for table, names, emptied in (
            (log, ("notification_id",), ("detail",)),
            (deliveries, ("id", "notification_id"), ("served", "reference")),
            (attempts, ("delivery_id",), ("detail",)),
        ):
            await connection.execute(
                update(table)
                .where(table.c.user_id == user_id)
                .values(**_renamed(table, names, own, other), **dict.fromkeys(emptied), user_id=pseudonym)
            )
        await append_log(self._db, connection, [LogEntry(now_us, "erased", user_id=pseudonym)])
        return known

    async def _release_addresses(self, connection: AsyncConnection, user_id: str) -> None:
        """A bounce is forgotten; it would show again. What its owner wished holds for the address, whoever has it next."""
        for which in await self._suppressed(connection, user_id):
            await connection.execute(delete(suppressions).where(which, suppressions.c.reason == BOUNCE))
            await connection.execute(update(suppressions).where(which).values(detail=None))

    async def _suppressed(self, connection: AsyncConnection, user_id: str) -> list[ColumnElement[bool]]:
        row = (await connection.execute(select(users).where(users.c.id == user_id))).one_or_none()
        return [
            and_(
                suppressions.c.channel == channel.value,
                suppressions.c.address == canonical_address(channel, address),
            )
            for channel, address in (addresses_of(profile_of(row)) if row is not None else ())
        ]

    async def _set_tombstone(self, connection: AsyncConnection, user_id: str, now_us: int) -> None:
        key = await ensure_erasure_key(self._db, connection)
        values = {"erased_at_us": now_us, "tokens_valid_from_us": now_us}
        await connection.execute(
            self._db.insert(tombstones)
            .values(hash=tombstone_hash(key, user_id), **values)
            .on_conflict_do_update(index_elements=["hash"], set_=values)
        )

    async def _remove_notifications(self, connection: AsyncConnection, user_id: str) -> bool:
        shown = func.sum(case((notifications.c.in_app, 1), else_=0))
        sums = await connection.execute(
            select(
                notifications.c.event_id,
                notifications.c.slice_key,
                func.count().label("rows"),
                shown.label("shown"),
            )
            .where(notifications.c.user_id == user_id)
            .group_by(notifications.c.event_id, notifications.c.slice_key)
        )
        removed = sums.all()
        if removed:
            await connection.execute(
                update(slices)
                .where(
                    slices.c.event_id == bindparam("of_event"), slices.c.slice_key == bindparam("of_slice")
                )
                .values(
                    erased_in_app=slices.c.erased_in_app + bindparam("shown"),
                    erased_suppressed=slices.c.erased_suppressed + bindparam("quiet"),
                ),
                [
                    {
                        "of_event": row.event_id,
                        "of_slice": row.slice_key,
                        "shown": row.shown,
                        "quiet": row.rows - row.shown,
                    }
                    for row in removed
                ],
            )
        await connection.execute(delete(notifications).where(notifications.c.user_id == user_id))
        if removed:
            await self._remove_payloads(connection, removed)
        return bool(removed)

    async def _remove_payloads(self, connection: AsyncConnection, removed: Sequence[Any]) -> None:
        """Events are kept for those whose deliveries they are rendered for; of these slices nobody may be left."""
        others = select(notifications.c.id).where(
            notifications.c.event_id == payloads.c.event_id, notifications.c.slice_key == payloads.c.slice_key
        )
        await connection.execute(
            delete(payloads).where(
                payloads.c.event_id == bindparam("of_event"),
                payloads.c.slice_key == bindparam("of_slice"),
                ~others.exists(),
            ),
            [{"of_event": row.event_id, "of_slice": row.slice_key} for row in removed],
        )

    # ------------------------------------------------------------ export

    async def export_user(self, user_id: str) -> dict[str, object] | None:
        """Everything that is kept about a user, as JSON-able data. None: nothing is."""
        async with self._db.read(snapshot=True) as connection:
            found = (await connection.execute(select(users).where(users.c.id == user_id))).one_or_none()

            async def rows(table: Table, column: Column[Any], *order: Column[Any]) -> list[Any]:
                page = select(table).where(column == user_id).order_by(*order)
                return list((await connection.execute(page)).all())

            intervals = await rows(
                subscriptions, subscriptions.c.user_id, subscriptions.c.topic, subscriptions.c.from_seq
            )
            own = await rows(notifications, notifications.c.user_id, notifications.c.created_at_us)
            sent = await rows(deliveries, deliveries.c.user_id, deliveries.c.created_at_us, deliveries.c.id)
            phones = await rows(devices, devices.c.user_id, devices.c.created_at_us, devices.c.id)
            tries = await rows(attempts, attempts.c.user_id, attempts.c.started_at_us)
            through = await rows(watermarks, watermarks.c.user_id, watermarks.c.at_us)
            lines = await rows(log, log.c.user_id, log.c.id)
            out = [
                (await connection.execute(select(suppressions).where(which))).one_or_none()
                for which in await self._suppressed(connection, user_id)
            ]
            browsers = await rows(
                push_subscriptions, push_subscriptions.c.user_id, push_subscriptions.c.created_at_us
            )
            marked = await connection.execute(
                select(broadcasts, broadcast_marks)
                .join_from(broadcast_marks, broadcasts, broadcasts.c.seq == broadcast_marks.c.seq)
                .where(broadcast_marks.c.user_id == user_id)
                .order_by(broadcast_marks.c.seq)
            )
            shared = [
                {**to_builtins(broadcast_of(row)), "marks": to_builtins(marks_of(row))} for row in marked
            ]
        if found is None and not any((intervals, own, sent, through, lines, browsers, shared, phones)):
            return None
        profile = {"id": user_id} if found is None else to_builtins(profile_of(found))
        return {
            "profile": profile,
            "created_at": None if found is None else rfc3339(found.created_at_us),
            "preferences": {} if found is None else to_builtins(preferences_of(found.preferences)),
            "topics": [
                {"topic": row.topic, "from_seq": row.from_seq, "until_seq": row.until_seq}
                for row in intervals
            ],
            "notifications": [to_builtins(notification_of(row)) for row in own],
            "deliveries": [to_builtins(delivery_of(row)) for row in sent],
            "devices": [
                {
                    "token": row.token,
                    "platform": row.platform,
                    "created_at": rfc3339(row.created_at_us),
                    "used_at": rfc3339(row.used_at_us),
                }
                for row in phones
            ],
            "attempts": [row._asdict() for row in tries],
            "broadcast_marks": shared,
            "all_marks": [
                {
                    "mark": row.mark,
                    "category": row.category or None,
                    "through_seq": row.through_seq,
                    "at_us": row.at_us,
                }
                for row in through
            ],
            "suppressions": [
                {
                    "channel": row.channel,
                    "address": row.address,
                    "reason": row.reason,
                    "at": rfc3339(row.at_us),
                }
                for row in out
                if row is not None
            ],
            "push_subscriptions": [
                {
                    "id": row.id,
                    "endpoint": row.endpoint,
                    "created_at": rfc3339(row.created_at_us),
                    "used_at": rfc3339(row.used_at_us),
                }
                for row in browsers
            ],
            "log": [to_builtins(log_entry_of(row)) for row in lines],
        }


def _renamed(table: Table, names: tuple[str, ...], own: str, other: str) -> dict[str, Any]:
    return {name: func.replace(table.c[name], own, other) for name in names}
