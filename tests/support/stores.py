"""Builders for what a store is given: batches of a partition, with moments and ids that need no thought."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hub.adapters.sql_store import SqlStore
from hub.model.deliveries import Delivery
from hub.model.events import BroadcastAudience, NamedUser
from hub.model.notifications import Broadcast, Content, Notification, notification_id
from hub.model.vocabulary import LANE, Channel
from hub.ports import Batch, Committed, EventRecord, Lease, LogEntry, PlannedSlice

NOW_US = 1_767_614_400_000_000


class Partition:
    """The generator of one partition, as far as a store sees it: holds its lease and commits batches."""

    def __init__(self, store: SqlStore, lease: Lease) -> None:
        self.store = store
        self.lease = lease

    @classmethod
    async def take(cls, store: SqlStore, name: str = "0", owner: str = "generator") -> "Partition":
        lease = await store.take_lease(name, owner, 60)
        assert lease is not None
        return cls(store, lease)

    async def publish(self, event_id: str, users: Sequence[str], **more: Any) -> list[Notification]:
        """Commit one addressed event; returns its rows."""
        batch = self.batch()
        rows = self.add(batch, event_id, users, **more)
        await self.commit(batch)
        return rows

    async def broadcast(self, event_id: str, *topics: str, **more: Any) -> Broadcast:
        """Commit one broadcast (no topics: to everyone); returns its row."""
        batch = self.batch()
        row = self.add_broadcast(batch, event_id, *topics, **more)
        await self.commit(batch)
        return row

    def batch(self) -> Batch:
        return Batch(self.lease)

    async def commit(self, batch: Batch) -> Committed:
        position = f"{int(self.lease.position or 0) + 1:05d}"
        batch.lease = replace(batch.lease, position=position)
        committed = await self.store.commit(batch)
        self.lease = batch.lease
        return committed

    def add(
        self,
        batch: Batch,
        event_id: str,
        users: Sequence[str],
        *,
        channels: Sequence[Channel] = (),
        condition: str = "offline",
        in_app: bool = True,
        slices: int = 1,
        accepted_at_us: int = NOW_US,
        key: str | None = None,
        **fields: Any,
    ) -> list[Notification]:
        rows = []
        deliveries = 0
        key = key or self.lease.name
        for user_id in users:
            row = Notification(
                id=notification_id(event_id, user_id),
                user_id=user_id,
                event_id=event_id,
                type=fields.pop("type", "order.paid"),
                category=fields.get("category", "orders"),
                content=Content(title=f"{event_id} for {user_id}", data={"n": 1}),
                created_at_us=self._moment(batch),
                in_app=in_app,
                slice_key=key,
                **{name: value for name, value in fields.items() if name != "category"},
            )
            rows.append(row)
            for channel in channels:
                deliveries += 1
                batch.deliveries.append(delivery_of(row, channel, condition))
            state = "generated" if in_app or channels else "suppressed"
            batch.log.append(log_of(row, state))
        batch.users += [NamedUser(user_id) for user_id in users]
        batch.notifications += rows
        shown = len(rows) if in_app else 0
        batch.slices.append(PlannedSlice(event_id, key, len(rows), shown, len(rows) - shown, 0, deliveries))
        batch.events.append(record_of(event_id, slices, accepted_at_us))
        return rows

    def add_broadcast(
        self,
        batch: Batch,
        event_id: str,
        *topics: str,
        audience: BroadcastAudience | None = None,
        **fields: Any,
    ) -> Broadcast:
        seq = batch.lease.broadcast_seq + 1
        batch.lease = replace(batch.lease, broadcast_seq=seq)
        row = Broadcast(
            id=notification_id(event_id, LANE),
            seq=seq,
            event_id=event_id,
            type="news",
            category=fields.pop("category", "news"),
            contents={"": Content(title=event_id)},
            created_at_us=self._moment(batch),
            audience=audience or BroadcastAudience(topics=topics, everyone=not topics),
            slice_key=self.lease.name,
            **fields,
        )
        batch.broadcasts.append(row)
        batch.slices.append(PlannedSlice(event_id, self.lease.name, 1, int(row.in_app), int(not row.in_app)))
        batch.events.append(record_of(event_id, 1, NOW_US))
        batch.log.append(log_of(row, "generated"))
        return row

    def _moment(self, batch: Batch) -> int:
        moment = max(NOW_US, batch.lease.clock_us + 1)
        batch.lease = replace(batch.lease, clock_us=moment)
        return moment


async def counted(store: SqlStore, user_id: str, cap: int, now_us: int) -> tuple[int, int]:
    """What is unread and unseen of a user's addressed rows."""
    found = (await store.unread([user_id], cap, 1, now_us))[user_id]
    return found.unread, found.unseen


def record_of(event_id: str, slices: int = 1, accepted_at_us: int = NOW_US, **more: Any) -> EventRecord:
    return EventRecord(event_id, "order.paid", "orders", "http:key", "bob", accepted_at_us, slices, **more)


def delivery_of(
    row: Notification, channel: Channel, condition: str = "offline", state: str = "held"
) -> Delivery:
    return Delivery(
        id=f"dlv_{row.id.removeprefix('ntf_')}_{channel}",
        user_id=row.user_id,
        notification_id=row.id,
        event_id=row.event_id,
        type=row.type,
        category=row.category,
        channel=channel,
        state=state,
        created_at_us=row.created_at_us,
        due_at_us=row.created_at_us + 60_000_000,
        condition=condition,
        fallback=(Channel.SMS,),
    )


def log_of(row: Notification | Broadcast, state: str) -> LogEntry:
    user_id = row.user_id if isinstance(row, Notification) else None
    return LogEntry(
        row.created_at_us,
        state,
        row.event_id,
        user_id,
        row.id,
        Channel.IN_APP,
        row.type,
        row.category,
        reason="default",
    )
