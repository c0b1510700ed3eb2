"""Backfill: attempts and claims of deliveries, what they are made of, and where they go."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from hub.adapters.sql_store.migrations.columns import big, flag, name, raw, small, text, where

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    sending()
    addresses()
    expanding()
    op.execute("UPDATE settings SET value = '2' WHERE name = 'schema'")


def sending() -> None:
    added: tuple[sa.Column[Any], ...] = (
        sa.Column("throttled", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default=sa.text("0"), autoincrement=False),
        sa.Column("lapses", sa.Integer(), nullable=False, server_default=sa.text("0"), autoincrement=False),
        big("tried_at_us", null=True),
        big("handed_until_us", null=True),
        name("claim", null=True),
        name("provider", null=True),
        name("reference", null=True),
        text("served", null=True),
    )
    op.drop_index("deliveries_due", "deliveries")
    if op.get_bind().dialect.name == "postgresql":
        for column in added:
            op.add_column("deliveries", column)
    else:
        anew(added)
    waiting = where("state IN ('held', 'queued', 'failed')")
    op.create_index("deliveries_due", "deliveries", ["channel", "due_at_us"], **waiting)
    careful = where("lapses > 0 AND state IN ('held', 'queued', 'failed')")
    op.create_index("deliveries_careful", "deliveries", ["channel", "due_at_us"], **careful)
    in_digest = where("digest_key IS NOT NULL AND state = 'held'")
    op.create_index("deliveries_digest", "deliveries", ["user_id", "digest_key", "channel"], **in_digest)
    out = "state IN ('queued', 'sending', 'failed', 'unknown', 'sent', 'delivered')"
    digested = where(f"digest_key IS NOT NULL AND {out}")
    op.create_index("deliveries_digested", "deliveries", ["user_id", "due_at_us"], **digested)
    counted = where("throttled", "throttled = 1")
    op.create_index("deliveries_throttle", "deliveries", ["user_id", "type", "created_at_us"], **counted)
    op.create_index("deliveries_claim", "deliveries", ["claim"], **where("claim IS NOT NULL"))
    op.create_index("deliveries_reference", "deliveries", ["reference"], **where("reference IS NOT NULL"))
    dead = where("state IN ('dead', 'unknown')")
    op.create_index("deliveries_dead", "deliveries", ["created_at_us", "id"], **dead)
    op.create_table("claims", name("id"), name("owner"), big("expires_at_us"), sa.PrimaryKeyConstraint("id"))
    op.create_index("claims_over", "claims", ["expires_at_us"])
    op.create_table(
        "attempts",
        name("user_id"),
        name("delivery_id"),
        small("number"),
        name("provider"),
        name("event_id"),
        name("channel"),
        name("outcome"),
        name("code"),
        text("detail", null=True),
        big("started_at_us"),
        big("duration_us"),
        flag("is_repeat"),
        sa.PrimaryKeyConstraint("user_id", "delivery_id", "number", "provider"),
    )
    op.create_index("attempts_event", "attempts", ["event_id"])
    op.create_table(
        "payloads",
        name("event_id"),
        name("slice_key"),
        raw("raw"),
        sa.PrimaryKeyConstraint("event_id", "slice_key"),
    )


def anew(added: tuple[sa.Column[Any], ...]) -> None:
    """SQLite: the table as it would have been made, so that an old file and a new one are alike."""
    kept = (
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
    )
    op.drop_index("deliveries_event", "deliveries")
    op.drop_index("deliveries_notification", "deliveries")
    op.rename_table("deliveries", "deliveries_before")
    op.create_table("deliveries", *kept, *added, sa.PrimaryKeyConstraint("user_id", "id"))
    names = ", ".join(column.name for column in kept)
    op.execute(f"INSERT INTO deliveries ({names}) SELECT {names} FROM deliveries_before")  # noqa: S608 - names of ours
    op.drop_table("deliveries_before")
    op.create_index("deliveries_event", "deliveries", ["event_id", "id"])
    op.create_index("deliveries_notification", "deliveries", ["user_id", "notification_id"])


def addresses() -> None:
    op.create_table(
        "suppressions",
        name("channel"),
        name("address"),
        name("reason"),
        text("detail", null=True),
        big("at_us"),
        sa.PrimaryKeyConstraint("channel", "address"),
    )
    op.create_table(
        "push_subscriptions",
        name("id"),
        name("user_id"),
        text("endpoint"),
        text("p256dh"),
        text("auth"),
        big("created_at_us"),
        big("used_at_us"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("push_subscriptions_user", "push_subscriptions", ["user_id"])
    op.create_table(
        "devices",
        name("id"),
        name("user_id"),
        text("token"),
        name("platform"),
        big("created_at_us"),
        big("used_at_us"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("devices_user", "devices", ["user_id"])


def expanding() -> None:
    op.create_table(
        "expansions",
        name("broadcast_id"),
        name("channel"),
        big("seq"),
        name("event_id"),
        name("slice_key"),
        name("condition"),
        text("fallback"),
        big("due_at_us"),
        name("cursor"),
        big("audience", null=True),
        big("deliveries"),
        text("counts"),
        name("stopped", null=True),
        big("done_at_us", null=True),
        sa.PrimaryKeyConstraint("broadcast_id", "channel"),
    )
    op.create_index("expansions_due", "expansions", ["due_at_us"], **where("done_at_us IS NULL"))
    op.create_index("expansions_event", "expansions", ["event_id"])
    op.create_table(
        "broadcast_reached",
        big("seq"),
        name("user_id"),
        big("at_us"),
        sa.PrimaryKeyConstraint("seq", "user_id"),
    )
    op.create_index("users_email", "users", ["id"], **where("email IS NOT NULL"))
    op.create_index("users_phone", "users", ["id"], **where("phone IS NOT NULL"))
    left = where("until_seq IS NOT NULL")
    op.create_index("subscriptions_left", "subscriptions", ["topic", "user_id"], **left)
    rejected = where("error IS NOT NULL")
    op.create_index("slices_rejected", "slices", ["planned_at_us", "event_id", "slice_key"], **rejected)
