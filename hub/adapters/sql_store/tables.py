"""The tables, as SQLModel classes over one MetaData of their own.

The migrations are the only source of real tables; a test holds both together. Moments are whole microseconds in
BIGINT, documents are JSON texts. On PostgreSQL names sort by bytes (collation C), as they do in SQLite and Python.
"""

from typing import Any, ClassVar, Final

from sqlalchemy import BigInteger, Index, Integer, MetaData, Sequence, String, Text, text
from sqlmodel import Field, SQLModel

Name: Final = String().with_variant(String(collation="C"), "postgresql")
RowId: Final = BigInteger().with_variant(Integer(), "sqlite")
LOG_IDS: Final = Sequence("log_ids")


class Table(SQLModel):
    """Base of all tables of the store."""

    metadata: ClassVar[MetaData] = MetaData()


def _where(postgresql: str, sqlite: str | None = None) -> dict[str, Any]:
    return {"postgresql_where": text(postgresql), "sqlite_where": text(sqlite or postgresql)}


def _key(**more: Any) -> Any:
    return Field(primary_key=True, sa_type=Name, **more)


def _number(sa_type: Any = BigInteger, **more: Any) -> Any:
    # The database never makes one up: numbers come from the lane's owner, the log's sequence or the clock.
    return Field(primary_key=True, sa_type=sa_type, sa_column_kwargs={"autoincrement": False}, **more)


def _name(**more: Any) -> Any:
    return Field(sa_type=Name, **more)


def _moment(**more: Any) -> Any:
    return Field(sa_type=BigInteger, **more)


def _document(**more: Any) -> Any:
    return Field(sa_type=Text, **more)


_IN_PARTITIONS: Final = {"postgresql_partition_by": "HASH (user_id)"}


# ---------------------------------------------------------------- work and its owners


class SettingRow(Table, table=True):
    """Small deployment settings; `schema` is the version of the tables, `catalog_version` that of the types."""

    __tablename__ = "settings"
    name: str = _key()
    value: str = _document()


class ProcessRow(Table, table=True):
    """A living process, by role."""

    __tablename__ = "processes"
    owner: str = _key()
    role: str = _name()
    expires_at_us: int = _moment()


class LeaseRow(Table, table=True):
    """Who owns a piece of work, its fence, and what the last committed batch left."""

    __tablename__ = "leases"
    name: str = _key()
    owner: str = _name()
    fence: int = _moment()
    expires_at_us: int = _moment()
    position: str = _name()
    clock_us: int = _moment()
    broadcast_seq: int = _moment()


# ---------------------------------------------------------------- what was planned


class SliceRow(Table, table=True):
    """The ledger: one row per planned slice, with what it says about its event.

    Events have no table of their own: generators of different partitions would wait for each other on its rows.
    """

    __tablename__ = "slices"
    __table_args__ = (Index("slices_planned", "planned_at_us"),)
    event_id: str = _key()
    slice_key: str = _key()
    type: str = _name()
    category: str = _name()
    source: str = _name()
    actor: str | None = _name()
    accepted_at_us: int = _moment()
    send_at_us: int | None = _moment()
    planned_at_us: int = _moment()
    total: int
    recipients: int
    in_app: int
    suppressed: int
    rejected: int
    deliveries: int
    erased_in_app: int = 0
    erased_suppressed: int = 0
    erased_deliveries: int = 0
    expansion: str | None = _document()
    error: str | None = _document()
    raw: bytes | None


class ScheduledRow(Table, table=True):
    """A part of an event that waits for its moment."""

    __tablename__ = "scheduled"
    __table_args__ = (Index("scheduled_due", "due_at_us", **_where("queued_at_us IS NULL")),)
    event_id: str = _key()
    part: str = _key()
    due_at_us: int = _moment()
    queued_at_us: int | None = _moment()
    raw: bytes


class RetractionRow(Table, table=True):
    """An event that was taken back, at whatever stage."""

    __tablename__ = "retractions"
    __table_args__ = (Index("retractions_at", "at_us"),)
    event_id: str = _key()
    at_us: int = _moment()


class NotificationRow(Table, table=True):
    """What one user gets from one addressed event. `shown`: the inbox has it; `hidden`: why it does not any more."""

    __tablename__ = "notifications"
    __table_args__ = (
        Index("notifications_inbox", "user_id", "created_at_us", "id", **_where("shown", "shown = 1")),
        Index(
            "notifications_unread",
            "user_id",
            "created_at_us",
            "id",
            "seen_at_us",
            "expires_at_us",
            **_where(
                "shown AND read_at_us IS NULL AND archived_at_us IS NULL",
                "shown = 1 AND read_at_us IS NULL AND archived_at_us IS NULL",
            ),
        ),
        Index("notifications_event", "event_id", "user_id"),
        Index("notifications_collapse", "user_id", "collapse_key", **_where("collapse_key IS NOT NULL")),
        _IN_PARTITIONS,
    )
    user_id: str = _key()
    id: str = _key()
    event_id: str = _name()
    slice_key: str = _name()
    type: str = _name()
    category: str = _name()
    content: str = _document()
    created_at_us: int = _moment()
    in_app: bool
    shown: bool
    hidden: str | None = _name()
    reasons: str = _document()
    actor: str | None = _name()
    priority: str = _name()
    collapse_key: str | None = _name()
    expires_at_us: int | None = _moment()
    reached_at_us: int | None = _moment()
    seen_at_us: int | None = _moment()
    read_at_us: int | None = _moment()
    archived_at_us: int | None = _moment()
    locale: str | None = _name()


class DeliveryRow(Table, table=True):
    """One notification on one addressed channel for one user; states and moves stand in hub.model.deliveries."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("deliveries_event", "event_id", "id"),
        Index("deliveries_notification", "user_id", "notification_id"),
        Index("deliveries_due", "state", "due_at_us", **_where("state IN ('held', 'queued', 'failed')")),
        _IN_PARTITIONS,
    )
    user_id: str = _key()
    id: str = _key()
    notification_id: str = _name()
    event_id: str = _name()
    slice_key: str = _name()
    type: str = _name()
    category: str = _name()
    channel: str = _name()
    state: str = _name()
    reason: str | None = _name()
    condition: str = _name()
    created_at_us: int = _moment()
    due_at_us: int = _moment()
    expires_at_us: int | None = _moment()
    digest_key: str | None = _name()
    fallback: str = _document()


class BroadcastRow(Table, table=True):
    """One notification that many read. `audience_key` is set with a collapse key only."""

    __tablename__ = "broadcasts"
    __table_args__ = (
        Index("broadcasts_id", "id", unique=True),
        Index("broadcasts_event", "event_id"),
        Index("broadcasts_order", "created_at_us", "id"),
        Index("broadcasts_collapse", "collapse_key", "audience_key", **_where("collapse_key IS NOT NULL")),
    )
    seq: int = _number(RowId)
    id: str = _name()
    event_id: str = _name()
    slice_key: str = _name()
    type: str = _name()
    category: str = _name()
    contents: str = _document()
    created_at_us: int = _moment()
    audience: str = _document()
    audience_key: str | None = _name()
    in_app: bool
    shown: bool
    hidden: str | None = _name()
    default_in_app: bool
    critical: bool
    reasons: str = _document()
    actor: str | None = _name()
    priority: str = _name()
    collapse_key: str | None = _name()
    expires_at_us: int | None = _moment()


class BroadcastTargetRow(Table, table=True):
    """Where a broadcast is found: one row per topic, or `*` for everyone (no topic can be called so)."""

    __tablename__ = "broadcast_targets"
    __table_args__ = (Index("broadcast_targets_seq", "seq"),)
    target: str = _key()
    seq: int = _number()


class BroadcastMarkRow(Table, table=True):
    """One user's marks on one broadcast. When it exists it stands above the watermarks."""

    __tablename__ = "broadcast_marks"
    __table_args__ = (Index("broadcast_marks_seq", "seq"),)
    user_id: str = _key()
    seq: int = _number()
    seen_at_us: int | None = _moment()
    read_at_us: int | None = _moment()
    archived_at_us: int | None = _moment()


class WatermarkRow(Table, table=True):
    """One saying "all through this seq are seen (or read)": its moment, for a category or (empty) for all."""

    __tablename__ = "watermarks"
    user_id: str = _key()
    category: str = _key()
    mark: str = _key()
    through_seq: int = _number()
    at_us: int = _moment()


# ---------------------------------------------------------------- people


class UserRow(Table, table=True):
    """A user with profile and preferences. `version` rises with every change of either."""

    __tablename__ = "users"
    __table_args__ = (Index("users_timezone", "timezone", **_where("timezone IS NOT NULL")),)
    id: str = _key()
    name: str | None = _document()
    avatar: str | None = _document()
    email: str | None = _document()
    phone: str | None = _document()
    locale: str | None = _name()
    timezone: str | None = _name()
    attributes: str = _document()
    preferences: str = _document()
    version: int = _moment()
    tokens_valid_from_us: int = _moment()
    created_at_us: int = _moment()


class SubscriptionRow(Table, table=True):
    """An interval of membership: from_seq <= broadcast_seq, and < until_seq once it is over."""

    __tablename__ = "subscriptions"
    __table_args__ = (
        Index("subscriptions_open", "user_id", "topic", unique=True, **_where("until_seq IS NULL")),
        Index("subscriptions_topic", "topic", "user_id", **_where("until_seq IS NULL")),
        Index("subscriptions_over", "until_seq", **_where("until_seq IS NOT NULL")),
    )
    user_id: str = _key()
    topic: str = _key()
    from_seq: int = _number()
    until_seq: int | None = _moment()


class TombstoneRow(Table, table=True):
    """An erased user, by a keyed hash of the id: nothing here names anybody."""

    __tablename__ = "tombstones"
    __table_args__ = (Index("tombstones_at", "erased_at_us"),)
    hash: str = _key()
    erased_at_us: int = _moment()
    tokens_valid_from_us: int = _moment()


# ---------------------------------------------------------------- the log


class LogRow(Table, table=True):
    """One line of the delivery log."""

    __tablename__ = "log"
    __table_args__ = (
        Index("log_user", "user_id", "id", **_where("user_id IS NOT NULL")),
        Index("log_event", "event_id", "id"),
        Index("log_at", "at_us"),
        {"postgresql_partition_by": "RANGE (at_us)", "sqlite_with_rowid": False},
    )
    id: int = _number(sa_column_args=[LOG_IDS])
    at_us: int = _number()
    state: str = _name()
    event_id: str | None = _name()
    user_id: str | None = _name()
    notification_id: str | None = _name()
    channel: str | None = _name()
    type: str | None = _name()
    category: str | None = _name()
    provider: str | None = _name()
    reason: str | None = _document()
    detail: str | None = _document()


class CounterRow(Table, table=True):
    """Log rows counted by minute. Writers have shards of their own, so that they do not wait for each other."""

    __tablename__ = "log_counters"
    minute: int = _number()
    type: str = _key()
    channel: str = _key()
    state: str = _key()
    provider: str = _key()
    shard: str = _key()
    count: int = _moment()


# ---------------------------------------------------------------- definitions, keys


class TypeRow(Table, table=True):
    """One version of a type. The newest one counts; without a definition it says that the type was deleted."""

    __tablename__ = "types"
    name: str = _key()
    version: int = _number(Integer)
    definition: str | None = _document()
    created_at_us: int = _moment()


class CategoryRow(Table, table=True):
    """A category; without a definition it was deleted, and its versions go on when it comes back."""

    __tablename__ = "categories"
    name: str = _key()
    version: int
    definition: str | None = _document()


class ApiKeyRow(Table, table=True):
    """An API key, by the hash of its secret."""

    __tablename__ = "api_keys"
    __table_args__ = (Index("api_keys_secret", "secret_hash", unique=True),)
    id: str = _key()
    secret_hash: str = _name()
    name: str = _document()
    scopes: str = _document()
    created_at_us: int = _moment()
    revoked_at_us: int | None = _moment()
    expires_at_us: int | None = _moment()


class LoginLinkRow(Table, table=True):
    """A dashboard link that works once."""

    __tablename__ = "login_links"
    secret_hash: str = _key()
    subject: str = _name()
    expires_at_us: int = _moment()
    used_at_us: int | None = _moment()


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
