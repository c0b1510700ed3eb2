"""The tables, as SQLModel classes over one MetaData of their own.

The migrations are the only source of real tables; a test holds both together.
"""

from typing import Final

from sqlalchemy import Index, Integer

from hub.adapters.sql_store import delivery_tables  # noqa: F401 - its tables are in the same MetaData
from hub.adapters.sql_store.columns import (
    IN_PARTITIONS,
    LOG_IDS,
    RowId,
    Table,
    document,
    key,
    moment,
    number,
    where,
    word,
)

# ---------------------------------------------------------------- work and its owners


class SettingRow(Table, table=True):
    """Small deployment settings; `schema` is the version of the tables, `catalog_version` that of the types."""

    __tablename__ = "settings"
    name: str = key()
    value: str = document()


class ProcessRow(Table, table=True):
    """A living process, by role."""

    __tablename__ = "processes"
    owner: str = key()
    role: str = word()
    expires_at_us: int = moment()


class LeaseRow(Table, table=True):
    """Who owns a piece of work, its fence, and what the last committed batch left."""

    __tablename__ = "leases"
    name: str = key()
    owner: str = word()
    fence: int = moment()
    expires_at_us: int = moment()
    position: str = word()
    clock_us: int = moment()
    broadcast_seq: int = moment()


# ---------------------------------------------------------------- what was planned


class SliceRow(Table, table=True):
    """The ledger: one row per planned slice, with what it says about its event.

    Events have no table of their own: generators of different partitions would wait for each other on its rows.
    """

    __tablename__ = "slices"
    __table_args__ = (
        Index("slices_planned", "planned_at_us"),
        Index("slices_rejected", "planned_at_us", "event_id", "slice_key", **where("error IS NOT NULL")),
    )
    event_id: str = key()
    slice_key: str = key()
    type: str = word()
    category: str = word()
    source: str = word()
    actor: str | None = word()
    accepted_at_us: int = moment()
    send_at_us: int | None = moment()
    planned_at_us: int = moment()
    total: int
    recipients: int
    in_app: int
    suppressed: int
    rejected: int
    deliveries: int
    erased_in_app: int = 0
    erased_suppressed: int = 0
    erased_deliveries: int = 0
    expansion: str | None = document()
    error: str | None = document()
    raw: bytes | None


class ScheduledRow(Table, table=True):
    """A part of an event that waits for its moment."""

    __tablename__ = "scheduled"
    __table_args__ = (Index("scheduled_due", "due_at_us", **where("queued_at_us IS NULL")),)
    event_id: str = key()
    part: str = key()
    due_at_us: int = moment()
    queued_at_us: int | None = moment()
    raw: bytes


class RetractionRow(Table, table=True):
    """An event that was taken back, at whatever stage."""

    __tablename__ = "retractions"
    __table_args__ = (Index("retractions_at", "at_us"),)
    event_id: str = key()
    at_us: int = moment()


class NotificationRow(Table, table=True):
    """What one user gets from one addressed event. `shown`: the inbox has it; `hidden`: why it does not any more."""

    __tablename__ = "notifications"
    __table_args__ = (
        Index("notifications_inbox", "user_id", "created_at_us", "id", **where("shown", "shown = 1")),
        Index(
            "notifications_unread",
            "user_id",
            "created_at_us",
            "id",
            "seen_at_us",
            "expires_at_us",
            **where(
                "shown AND read_at_us IS NULL AND archived_at_us IS NULL",
                "shown = 1 AND read_at_us IS NULL AND archived_at_us IS NULL",
            ),
        ),
        Index("notifications_event", "event_id", "user_id"),
        Index("notifications_collapse", "user_id", "collapse_key", **where("collapse_key IS NOT NULL")),
        IN_PARTITIONS,
    )
    user_id: str = key()
    id: str = key()
    event_id: str = word()
    slice_key: str = word()
    type: str = word()
    category: str = word()
    content: str = document()
    created_at_us: int = moment()
    in_app: bool
    shown: bool
    hidden: str | None = word()
    reasons: str = document()
    actor: str | None = word()
    priority: str = word()
    collapse_key: str | None = word()
    expires_at_us: int | None = moment()
    reached_at_us: int | None = moment()
    seen_at_us: int | None = moment()
    read_at_us: int | None = moment()
    archived_at_us: int | None = moment()
    locale: str | None = word()


class BroadcastRow(Table, table=True):
    """One notification that many read. `audience_key` is set with a collapse key only."""

    __tablename__ = "broadcasts"
    __table_args__ = (
        Index("broadcasts_id", "id", unique=True),
        Index("broadcasts_event", "event_id"),
        Index("broadcasts_order", "created_at_us", "id"),
        Index("broadcasts_collapse", "collapse_key", "audience_key", **where("collapse_key IS NOT NULL")),
    )
    seq: int = number(RowId)
    id: str = word()
    event_id: str = word()
    slice_key: str = word()
    type: str = word()
    category: str = word()
    contents: str = document()
    created_at_us: int = moment()
    audience: str = document()
    audience_key: str | None = word()
    in_app: bool
    shown: bool
    hidden: str | None = word()
    default_in_app: bool
    critical: bool
    reasons: str = document()
    actor: str | None = word()
    priority: str = word()
    collapse_key: str | None = word()
    expires_at_us: int | None = moment()


class BroadcastTargetRow(Table, table=True):
    """Where a broadcast is found: one row per topic, or `*` for everyone (no topic can be called so)."""

    __tablename__ = "broadcast_targets"
    __table_args__ = (Index("broadcast_targets_seq", "seq"),)
    target: str = key()
    seq: int = number()


class BroadcastMarkRow(Table, table=True):
    """One user's marks on one broadcast. When it exists it stands above the watermarks."""

    __tablename__ = "broadcast_marks"
    __table_args__ = (Index("broadcast_marks_seq", "seq"),)
    user_id: str = key()
    seq: int = number()
    seen_at_us: int | None = moment()
    read_at_us: int | None = moment()
    archived_at_us: int | None = moment()


class WatermarkRow(Table, table=True):
    """One saying "all through this seq are seen (or read)": its moment, for a category or (empty) for all."""

    __tablename__ = "watermarks"
    user_id: str = key()
    category: str = key()
    mark: str = key()
    through_seq: int = number()
    at_us: int = moment()


# ---------------------------------------------------------------- people


class UserRow(Table, table=True):
    """A user with profile and preferences. `version` rises with every change of either."""

    __tablename__ = "users"
    __table_args__ = (
        Index("users_timezone", "timezone", **where("timezone IS NOT NULL")),
        Index("users_email", "id", **where("email IS NOT NULL")),
        Index("users_phone", "id", **where("phone IS NOT NULL")),
    )
    id: str = key()
    name: str | None = document()
    avatar: str | None = document()
    email: str | None = document()
    phone: str | None = document()
    locale: str | None = word()
    timezone: str | None = word()
    attributes: str = document()
    preferences: str = document()
    version: int = moment()
    tokens_valid_from_us: int = moment()
    created_at_us: int = moment()


class SubscriptionRow(Table, table=True):
    """An interval of membership: from_seq <= broadcast_seq, and < until_seq once it is over."""

    __tablename__ = "subscriptions"
    __table_args__ = (
        Index("subscriptions_open", "user_id", "topic", unique=True, **where("until_seq IS NULL")),
        Index("subscriptions_topic", "topic", "user_id", **where("until_seq IS NULL")),
        Index("subscriptions_over", "until_seq", **where("until_seq IS NOT NULL")),
        Index("subscriptions_left", "topic", "user_id", **where("until_seq IS NOT NULL")),
    )
    user_id: str = key()
    topic: str = key()
    from_seq: int = number()
    until_seq: int | None = moment()


class TombstoneRow(Table, table=True):
    """An erased user, by a keyed hash of the id: nothing here names anybody."""

    __tablename__ = "tombstones"
    __table_args__ = (Index("tombstones_at", "erased_at_us"),)
    hash: str = key()
    erased_at_us: int = moment()
    tokens_valid_from_us: int = moment()


# ---------------------------------------------------------------- the log


class LogRow(Table, table=True):
    """One line of the delivery log."""

    __tablename__ = "log"
    __table_args__ = (
        Index("log_user", "user_id", "id", **where("user_id IS NOT NULL")),
        Index("log_event", "event_id", "id"),
        Index("log_at", "at_us"),
        {"postgresql_partition_by": "RANGE (at_us)", "sqlite_with_rowid": False},
    )
    id: int = number(sa_column_args=[LOG_IDS])
    at_us: int = number()
    state: str = word()
    event_id: str | None = word()
    user_id: str | None = word()
    notification_id: str | None = word()
    channel: str | None = word()
    type: str | None = word()
    category: str | None = word()
    provider: str | None = word()
    reason: str | None = document()
    detail: str | None = document()


class CounterRow(Table, table=True):
    """Log rows counted by minute. Writers have shards of their own, so that they do not wait for each other."""

    __tablename__ = "log_counters"
    minute: int = number()
    type: str = key()
    channel: str = key()
    state: str = key()
    provider: str = key()
    shard: str = key()
    count: int = moment()


# ---------------------------------------------------------------- definitions, keys


class TypeRow(Table, table=True):
    """One version of a type. The newest one counts; without a definition it says that the type was deleted."""

    __tablename__ = "types"
    name: str = key()
    version: int = number(Integer)
    definition: str | None = document()
    created_at_us: int = moment()


class CategoryRow(Table, table=True):
    """A category; without a definition it was deleted, and its versions go on when it comes back."""

    __tablename__ = "categories"
    name: str = key()
    version: int
    definition: str | None = document()


class ApiKeyRow(Table, table=True):
    """An API key, by the hash of its secret."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("api_keys_secret", "secret_hash", unique=True),)
    id: str = key()
    secret_hash: str = word()
    name: str = document()
    scopes: str = document()
    created_at_us: int = moment()
    revoked_at_us: int | None = moment()
    expires_at_us: int | None = moment()


class LoginLinkRow(Table, table=True):
    """A dashboard link that works once."""

    __tablename__ = "login_links"
    secret_hash: str = key()
    subject: str = word()
    expires_at_us: int = moment()
    used_at_us: int | None = moment()


METADATA: Final = Table.metadata
_tables = METADATA.tables
settings = _tables["settings"]
processes = _tables["processes"]
leases = _tables["leases"]
slices = _tables["slices"]
scheduled = _tables["scheduled"]
retractions = _tables["retractions"]
notifications = _tables["notifications"]
deliveries = _tables["deliveries"]
claims = _tables["claims"]
attempts = _tables["attempts"]
payloads = _tables["payloads"]
suppressions = _tables["suppressions"]
push_subscriptions = _tables["push_subscriptions"]
devices = _tables["devices"]
expansions = _tables["expansions"]
broadcast_reached = _tables["broadcast_reached"]
broadcasts = _tables["broadcasts"]
broadcast_targets = _tables["broadcast_targets"]
broadcast_marks = _tables["broadcast_marks"]
watermarks = _tables["watermarks"]
users = _tables["users"]
subscriptions = _tables["subscriptions"]
tombstones = _tables["tombstones"]
log = _tables["log"]
log_counters = _tables["log_counters"]
types = _tables["types"]
categories = _tables["categories"]
api_keys = _tables["api_keys"]
login_links = _tables["login_links"]
