"""The tables of addressed channels: deliveries with their claims and attempts, what they are made of, where they go.

A part of `hub.adapters.sql_store.tables`, which everybody imports them from.
"""

from typing import Final

from sqlalchemy import Index, Integer

from hub.adapters.sql_store.columns import (
    IN_PARTITIONS,
    Table,
    counter,
    document,
    flag_off,
    key,
    moment,
    number,
    where,
    word,
)

OUT: Final = "state IN ('queued', 'sending', 'failed', 'unknown', 'sent', 'delivered')"
"""Of a delivery: it went out, or is about to."""


class DeliveryRow(Table, table=True):
    """One notification on one addressed channel for one user; states and moves stand in hub.model.deliveries.

    `handed_until_us`: senders were told of it, and are not told again before. `claim`: the chunk that works on it now.
    `served`: targets that took it. `reference`: the provider's name for it.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("deliveries_event", "event_id", "id"),
        Index("deliveries_notification", "user_id", "notification_id"),
        Index("deliveries_due", "channel", "due_at_us", **where("state IN ('held', 'queued', 'failed')")),
        Index(
            "deliveries_careful",
            "channel",
            "due_at_us",
            **where("lapses > 0 AND state IN ('held', 'queued', 'failed')"),
        ),
        Index(
            "deliveries_digest",
            "user_id",
            "digest_key",
            "channel",
            **where("digest_key IS NOT NULL AND state = 'held'"),
        ),
        Index(
            "deliveries_digested",
            "user_id",
            "due_at_us",
            **where(f"digest_key IS NOT NULL AND {OUT}"),
        ),
        Index(
            "deliveries_throttle",
            "user_id",
            "type",
            "created_at_us",
            **where("throttled", "throttled = 1"),
        ),
        Index("deliveries_claim", "claim", **where("claim IS NOT NULL")),
        Index("deliveries_reference", "reference", **where("reference IS NOT NULL")),
        Index("deliveries_dead", "created_at_us", "id", **where("state IN ('dead', 'unknown')")),
        IN_PARTITIONS,
    )
    user_id: str = key()
    id: str = key()
    notification_id: str = word()
    event_id: str = word()
    slice_key: str = word()
    type: str = word()
    category: str = word()
    channel: str = word()
    state: str = word()
    reason: str | None = word()
    condition: str = word()
    created_at_us: int = moment()
    due_at_us: int = moment()
    expires_at_us: int | None = moment()
    digest_key: str | None = word()
    fallback: str = document()
    throttled: bool = flag_off()
    attempts: int = counter()
    lapses: int = counter()
    tried_at_us: int | None = moment()
    handed_until_us: int | None = moment()
    claim: str | None = word()
    provider: str | None = word()
    reference: str | None = word()
    served: str | None = document()


class ClaimRow(Table, table=True):
    """A chunk of deliveries that one sender works on. Past `expires_at_us` it is nobody's, and its owner is fenced off."""

    __tablename__ = "claims"
    __table_args__ = (Index("claims_over", "expires_at_us"),)
    id: str = key()
    owner: str = word()
    expires_at_us: int = moment()


class AttemptRow(Table, table=True):
    """One try of one delivery by one provider. `number`: the round, in which each provider is asked once at most.

    `is_repeat`: an earlier one may have reached a provider.
    """

    __tablename__ = "attempts"
    __table_args__ = (Index("attempts_event", "event_id"),)
    user_id: str = key()
    delivery_id: str = key()
    number: int = number(Integer)
    provider: str = key()
    event_id: str = word()
    channel: str = word()
    outcome: str = word()
    code: str = word()
    detail: str | None = document()
    started_at_us: int = moment()
    duration_us: int = moment()
    is_repeat: bool


class PayloadRow(Table, table=True):
    """The event of a slice that addressed channels are planned for: their texts are rendered when they are sent."""

    __tablename__ = "payloads"
    event_id: str = key()
    slice_key: str = key()
    raw: bytes


class SuppressionRow(Table, table=True):
    """An address that is not used any more: it bounced, its owner complained, or said STOP."""

    __tablename__ = "suppressions"
    channel: str = key()
    address: str = key()
    reason: str = word()
    detail: str | None = document()
    at_us: int = moment()


class PushSubscriptionRow(Table, table=True):
    """A browser that takes web push, as it described itself. It belongs to whoever used it last."""

    __tablename__ = "push_subscriptions"
    __table_args__ = (Index("push_subscriptions_user", "user_id"),)
    id: str = key()
    user_id: str = word()
    endpoint: str = document()
    p256dh: str = document()
    auth: str = document()
    created_at_us: int = moment()
    used_at_us: int = moment()


class DeviceRow(Table, table=True):
    """A mobile device that takes push. It belongs to whoever used it last."""

    __tablename__ = "devices"
    __table_args__ = (Index("devices_user", "user_id"),)
    id: str = key()
    user_id: str = word()
    token: str = document()
    platform: str = word()
    created_at_us: int = moment()
    used_at_us: int = moment()


class ExpansionRow(Table, table=True):
    """A broadcast on its way to one addressed channel: how far it is expanded (`cursor`), and what came of it.

    `counts`: JSON of users per reason that got no delivery. `audience`: counted once, with the last page. `stopped`: why
    it goes on no more; the cursor is then the last delivery that was looked at to be cancelled. `done_at_us`: all is done.
    """

    __tablename__ = "expansions"
    __table_args__ = (
        Index("expansions_due", "due_at_us", **where("done_at_us IS NULL")),
        Index("expansions_event", "event_id"),
    )
    broadcast_id: str = key()
    channel: str = key()
    seq: int = moment()
    event_id: str = word()
    slice_key: str = word()
    condition: str = word()
    fallback: str = document()
    due_at_us: int = moment()
    cursor: str = word()
    audience: int | None = moment()
    deliveries: int = moment()
    counts: str = document()
    stopped: str | None = word()
    done_at_us: int | None = moment()


class BroadcastReachedRow(Table, table=True):
    """A user whom the app reached with a broadcast, kept while it is expanded on a channel for those who were not."""

    __tablename__ = "broadcast_reached"
    seq: int = number()
    user_id: str = key()
    at_us: int = moment()
