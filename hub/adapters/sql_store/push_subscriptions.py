"""Browsers that take web push, and what their service workers report.

A subscription is found by its endpoint's id, so whoever registers it again takes it over. A receipt moves its
delivery by a conditional UPDATE, and its log lines are written in the same transaction.
"""

from collections.abc import Collection
from typing import Any

from msgspec.structs import asdict
from sqlalchemy import case, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Part
from hub.adapters.sql_store.journal import append_log
from hub.adapters.sql_store.people_rows import add_users
from hub.adapters.sql_store.push_rows import note_push
from hub.adapters.sql_store.tables import deliveries, push_subscriptions
from hub.model.deliveries import MOVES
from hub.ports import LogEntry
from hub.ports.push_subscriptions import PushEvent, PushReceipt, PushSubscription

_MAY_BE_DELIVERED = tuple(sorted(state for state, moves in MOVES.items() if "delivered" in moves))


class PushSubscriptions(Part):
    """`hub.ports.PushSubscriptionStore` on SQL."""

    async def save_subscription(self, subscription: PushSubscription, keep: int) -> None:
        """Keep it (creating the user). A known id moves to this user. Of a user's, the `keep` used last stay."""
        await self._db.write(self._save_subscription, subscription, keep)

    async def _save_subscription(
        self, connection: AsyncConnection, given: PushSubscription, keep: int
    ) -> None:
        await add_users(self._db, connection, [given.user_id])
        await note_push(self._db, connection)
        table = push_subscriptions.c
        insert = self._db.insert(push_subscriptions).values(**asdict(given))
        now = insert.excluded
        since = case((table.user_id == now.user_id, table.created_at_us), else_=now.created_at_us)
        again = {name: now[name] for name in ("user_id", "p256dh", "auth", "used_at_us")}
        await connection.execute(
            insert.on_conflict_do_update(index_elements=["id"], set_={**again, "created_at_us": since})
        )
        others = await connection.scalars(
            select(table.id)
            .where(table.user_id == given.user_id, table.id != given.id)
            .order_by(table.used_at_us.desc(), table.id)
            .offset(keep - 1)
        )
        if older := list(others.all()):
            await connection.execute(delete(push_subscriptions).where(self._db.among(table.id, older)))

    async def subscriptions_of(self, user_ids: Collection[str]) -> dict[str, list[PushSubscription]]:
        """The subscriptions of each of these users that has any, the one used last first."""
        if not user_ids:
            return {}
        table = push_subscriptions.c
        async with self._db.read() as connection:
            rows = await connection.execute(
                select(push_subscriptions)
                .where(self._db.among(table.user_id, user_ids))
                .order_by(table.user_id, table.used_at_us.desc(), table.id)
            )
        found: dict[str, list[PushSubscription]] = {}
        for row in rows.mappings():
            found.setdefault(row["user_id"], []).append(PushSubscription(**dict(row)))
        return found

    async def remove_subscription(self, subscription_id: str, user_id: str | None = None) -> bool:
        """Remove it, if it is this user's (None: whosever it is). False: there was none."""

        async def work(connection: AsyncConnection) -> bool:
            which = delete(push_subscriptions).where(push_subscriptions.c.id == subscription_id)
            if user_id is not None:
                which = which.where(push_subscriptions.c.user_id == user_id)
            return (await connection.execute(which)).rowcount > 0

        return await self._db.write(work)

    async def note_receipt(
        self, user_id: str, delivery_id: str, event: PushEvent, at_us: int
    ) -> PushReceipt | None:
        """Log what a service worker reported, and move the delivery to `delivered` where it may move there.

        One that still is `sending` is left alone (`is_early`, nothing is logged): report it again in a moment. None:
        the user has no such delivery (any more).
        """
        return await self._db.write(self._note_receipt, user_id, delivery_id, event, at_us)

    async def _note_receipt(
        self, connection: AsyncConnection, user_id: str, delivery_id: str, event: PushEvent, at_us: int
    ) -> PushReceipt | None:
        which = (deliveries.c.user_id == user_id, deliveries.c.id == delivery_id)
        found = await connection.execute(select(deliveries).where(*which).with_for_update())
        row = found.one_or_none()
        if row is None:
            return None
        if row.state == "sending":
            return PushReceipt([], is_early=True)
        entries = [_entry(row, event, at_us)]
        moved = await connection.execute(
            update(deliveries)
            .where(*which, deliveries.c.state.in_(_MAY_BE_DELIVERED))
            .values(state="delivered", reason="receipt")
        )
        if moved.rowcount:
            entries.insert(0, _entry(row, "delivered", at_us))
        await append_log(self._db, connection, entries)
        return PushReceipt(entries)


def _entry(row: Any, state: str, at_us: int) -> LogEntry:
    return LogEntry(
        at_us,
        state,
        row.event_id,
        row.user_id,
        row.notification_id,
        row.channel,
        row.type,
        row.category,
        row.provider,
    )
