"""The first tables.

On PostgreSQL notifications and deliveries lie in 8 parts by hash of the user, the log in one part per day (made ahead
by `prepare_log_days`) and one for what fits no day.
"""

import sqlalchemy as sa
from alembic import op

from hub.adapters.sql_store.migrations.columns import big, flag, name, raw, rowid, small, text, where

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

PARTS = 8


def upgrade() -> None:
    planning()
    broadcasting()
    people()
    journal()
    definitions()
    if op.get_bind().dialect.name == "postgresql":
        parts()
    op.execute("INSERT INTO settings (name, value) VALUES ('catalog_version', '1'), ('schema', '1')")
    op.execute(
        "INSERT INTO leases (name, owner, fence, expires_at_us, position, clock_us, broadcast_seq) "
        "VALUES ('lane', '', 0, 0, '', 0, 0)"
    )


def parts() -> None:
    op.execute("CREATE SEQUENCE log_ids")
    for table in ("notifications", "deliveries"):
        for number in range(PARTS):
            op.execute(
                f"CREATE TABLE {table}_part_{number} PARTITION OF {table} "
                f"FOR VALUES WITH (MODULUS {PARTS}, REMAINDER {number})"
            )
    op.execute("CREATE TABLE log_part_default PARTITION OF log DEFAULT")


def planning() -> None:
    op.create_table(
        "settings",
        name("name"),
        text("value"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "processes",
        name("owner"),
        name("role"),
        big("expires_at_us"),
        sa.PrimaryKeyConstraint("owner"),
    )
    op.create_table(
        "leases",
        name("name"),
        name("owner"),
        big("fence"),
        big("expires_at_us"),
        name("position"),
        big("clock_us"),
        big("broadcast_seq"),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "slices",
        name("event_id"),
        name("slice_key"),
        name("type"),
        name("category"),
        name("source"),
        name("actor", null=True),
        big("accepted_at_us"),
        big("send_at_us", null=True),
        big("planned_at_us"),
        small("total"),
        small("recipients"),
        small("in_app"),
        small("suppressed"),
        small("rejected"),
        small("deliveries"),
        small("erased_in_app"),
        small("erased_suppressed"),
        small("erased_deliveries"),
        text("expansion", null=True),
        text("error", null=True),
        raw("raw", null=True),
        sa.PrimaryKeyConstraint("event_id", "slice_key"),
    )
    op.create_index("slices_planned", "slices", ["planned_at_us"])
    op.create_table(
        "scheduled",
        name("event_id"),
        name("part"),
        big("due_at_us"),
        big("queued_at_us", null=True),
        raw("raw"),
        sa.PrimaryKeyConstraint("event_id", "part"),
    )
    op.create_index("scheduled_due", "scheduled", ["due_at_us"], **where("queued_at_us IS NULL"))
    op.create_table(
        "retractions",
        name("event_id"),
        big("at_us"),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index("retractions_at", "retractions", ["at_us"])
    op.create_table(
        "notifications",
        name("user_id"),
        name("id"),
        name("event_id"),
        name("slice_key"),
        name("type"),
        name("category"),
        text("content"),
        big("created_at_us"),
        flag("in_app"),
        flag("shown"),
        name("hidden", null=True),
        text("reasons"),
        name("actor", null=True),
        name("priority"),
        name("collapse_key", null=True),
        big("expires_at_us", null=True),
        big("reached_at_us", null=True),
        big("seen_at_us", null=True),
        big("read_at_us", null=True),
        big("archived_at_us", null=True),
        name("locale", null=True),
        sa.PrimaryKeyConstraint("user_id", "id"),
        postgresql_partition_by="HASH (user_id)",
    )
    op.create_index(
        "notifications_collapse",
        "notifications",
        ["user_id", "collapse_key"],
        **where("collapse_key IS NOT NULL"),
    )
    op.create_index("notifications_event", "notifications", ["event_id", "user_id"])
    op.create_index(
        "notifications_inbox",
        "notifications",
        ["user_id", "created_at_us", "id"],
        **where("shown", "shown = 1"),
    )
    op.create_index(
        "notifications_unread",
        "notifications",
        ["user_id", "created_at_us", "id", "seen_at_us", "expires_at_us"],
        **where(
            "shown AND read_at_us IS NULL AND archived_at_us IS NULL",
            "shown = 1 AND read_at_us IS NULL AND archived_at_us IS NULL",
        ),
    )
    op.create_table(
        "deliveries",
        name("user_id"),
        name("id"),
        name("notification_id"),
        name("event_id"),
        name("slice_key"),
        name("type"),
        name("category"),
        name("channel"),
        name("state"),
        name("reason", null=True),
        name("condition"),
        big("created_at_us"),
        big("due_at_us"),
        big("expires_at_us", null=True),
        name("digest_key", null=True),
        text("fallback"),
        sa.PrimaryKeyConstraint("user_id", "id"),
        postgresql_partition_by="HASH (user_id)",
    )
    op.create_index(
        "deliveries_due",
        "deliveries",
        ["state", "due_at_us"],
        **where("state IN ('held', 'queued', 'failed')"),
    )
    op.create_index("deliveries_event", "deliveries", ["event_id", "id"])
    op.create_index("deliveries_notification", "deliveries", ["user_id", "notification_id"])


def broadcasting() -> None:
    op.create_table(
        "broadcasts",
        rowid("seq"),
        name("id"),
        name("event_id"),
        name("slice_key"),
        name("type"),
        name("category"),
        text("contents"),
        big("created_at_us"),
        text("audience"),
        name("audience_key", null=True),
        flag("in_app"),
        flag("shown"),
        name("hidden", null=True),
        flag("default_in_app"),
        flag("critical"),
        text("reasons"),
        name("actor", null=True),
        name("priority"),
        name("collapse_key", null=True),
        big("expires_at_us", null=True),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index(
        "broadcasts_collapse",
        "broadcasts",
        ["collapse_key", "audience_key"],
        **where("collapse_key IS NOT NULL"),
    )
    op.create_index("broadcasts_event", "broadcasts", ["event_id"])
    op.create_index("broadcasts_id", "broadcasts", ["id"], unique=True)
    op.create_index("broadcasts_order", "broadcasts", ["created_at_us", "id"])
    op.create_table(
        "broadcast_targets",
        name("target"),
        big("seq"),
        sa.PrimaryKeyConstraint("target", "seq"),
    )
    op.create_index("broadcast_targets_seq", "broadcast_targets", ["seq"])
    op.create_table(
        "broadcast_marks",
        name("user_id"),
        big("seq"),
        big("seen_at_us", null=True),
        big("read_at_us", null=True),
        big("archived_at_us", null=True),
        sa.PrimaryKeyConstraint("user_id", "seq"),
    )
    op.create_index("broadcast_marks_seq", "broadcast_marks", ["seq"])
    op.create_table(
        "watermarks",
        name("user_id"),
        name("category"),
        name("mark"),
        big("through_seq"),
        big("at_us"),
        sa.PrimaryKeyConstraint("user_id", "category", "mark", "through_seq"),
    )


def people() -> None:
    op.create_table(
        "users",
        name("id"),
        text("name", null=True),
        text("avatar", null=True),
        text("email", null=True),
        text("phone", null=True),
        name("locale", null=True),
        name("timezone", null=True),
        text("attributes"),
        text("preferences"),
        big("version"),
        big("tokens_valid_from_us"),
        big("created_at_us"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("users_timezone", "users", ["timezone"], **where("timezone IS NOT NULL"))
    op.create_table(
        "subscriptions",
        name("user_id"),
        name("topic"),
        big("from_seq"),
        big("until_seq", null=True),
        sa.PrimaryKeyConstraint("user_id", "topic", "from_seq"),
    )
    op.create_index(
        "subscriptions_open", "subscriptions", ["user_id", "topic"], unique=True, **where("until_seq IS NULL")
    )
    op.create_index("subscriptions_over", "subscriptions", ["until_seq"], **where("until_seq IS NOT NULL"))
    op.create_index(
        "subscriptions_topic", "subscriptions", ["topic", "user_id"], **where("until_seq IS NULL")
    )
    op.create_table(
        "tombstones",
        name("hash"),
        big("erased_at_us"),
        big("tokens_valid_from_us"),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index("tombstones_at", "tombstones", ["erased_at_us"])


def journal() -> None:
    op.create_table(
        "log",
        big("id"),
        big("at_us"),
        name("state"),
        name("event_id", null=True),
        name("user_id", null=True),
        name("notification_id", null=True),
        name("channel", null=True),
        name("type", null=True),
        name("category", null=True),
        name("provider", null=True),
        text("reason", null=True),
        text("detail", null=True),
        sa.PrimaryKeyConstraint("id", "at_us"),
        postgresql_partition_by="RANGE (at_us)",
        sqlite_with_rowid=False,
    )
    op.create_index("log_at", "log", ["at_us"])
    op.create_index("log_event", "log", ["event_id", "id"])
    op.create_index("log_user", "log", ["user_id", "id"], **where("user_id IS NOT NULL"))
    op.create_table(
        "log_counters",
        big("minute"),
        name("type"),
        name("channel"),
        name("state"),
        name("provider"),
        name("shard"),
        big("count"),
        sa.PrimaryKeyConstraint("minute", "type", "channel", "state", "provider", "shard"),
    )


def definitions() -> None:
    op.create_table(
        "types",
        name("name"),
        small("version"),
        text("definition", null=True),
        big("created_at_us"),
        sa.PrimaryKeyConstraint("name", "version"),
    )
    op.create_table(
        "categories",
        name("name"),
        small("version"),
        text("definition", null=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "api_keys",
        name("id"),
        name("secret_hash"),
        text("name"),
        text("scopes"),
        big("created_at_us"),
        big("revoked_at_us", null=True),
        big("expires_at_us", null=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("api_keys_secret", "api_keys", ["secret_hash"], unique=True)
    op.create_table(
        "login_links",
        name("secret_hash"),
        name("subject"),
        big("expires_at_us"),
        big("used_at_us", null=True),
        sa.PrimaryKeyConstraint("secret_hash"),
    )
