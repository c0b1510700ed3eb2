"""Notifications as they are stored, and as clients get them (CONTRACT, "A notification").

A row is either addressed (one user) or a broadcast (many users; one rendering per locale). Both become the same
JSON through `wire_notification`, so that inbox, recovery and live delivery cannot differ.
"""

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Struct

from hub.model.events import Action, BroadcastAudience
from hub.model.vocabulary import Channel, Priority


class Content(Struct, frozen=True, omit_defaults=True):
    """What is shown, rendered in one locale. `data` is the exposed part of the event's data."""

    title: str = ""
    body: str = ""
    url: str | None = None
    icon: str | None = None
    actions: tuple[Action, ...] = ()
    data: dict[str, Any] = {}
    actor_name: str | None = None
    actor_avatar: str | None = None


class Reason(Struct, frozen=True, omit_defaults=True):
    """One verdict of planning on one channel: which rule decided and how, in words that a person understands."""

    channel: Channel
    verdict: str  # "use", "hold" or "refuse"; "note": something to know that decided nothing
    rule: str  # closed list in hub.model.rules.RULES
    detail: str = ""


class Notification(Struct, frozen=True, omit_defaults=True):
    """What one user gets from one addressed event; with its marks when read from the store."""

    id: str
    user_id: str
    event_id: str
    type: str
    category: str
    content: Content
    created_at_us: int  # unique and increasing within a partition: the inbox' order
    in_app: bool  # false: planned, kept for explanation, not shown
    reasons: tuple[Reason, ...] = ()
    actor: str | None = None
    priority: Priority = "normal"
    collapse_key: str | None = None
    expires_at_us: int | None = None
    seen_at_us: int | None = None
    read_at_us: int | None = None
    archived_at_us: int | None = None
    locale: str | None = None
    slice_key: str = ""  # the key of the slice that made it


class Broadcast(Struct, frozen=True, omit_defaults=True):
    """One notification that many users read."""

    id: str
    seq: int  # broadcast_seq, given by the lane's owner, from 1
    event_id: str
    type: str
    category: str
    contents: dict[str, Content]  # per locale; "" is the rendering of the type's own texts
    created_at_us: int
    audience: BroadcastAudience
    in_app: bool = True  # the type (or the event's channels) uses the app at all
    default_in_app: bool = True  # the category's default for the app, at planning
    critical: bool = False
    reasons: tuple[Reason, ...] = ()
    actor: str | None = None
    priority: Priority = "normal"
    collapse_key: str | None = None
    expires_at_us: int | None = None
    slice_key: str = ""  # the key of the slice that made it


class Marks(Struct, frozen=True, omit_defaults=True):
    """One user's marks on one broadcast (for addressed ones they stand in the row itself)."""

    seen_at_us: int | None = None
    read_at_us: int | None = None
    archived_at_us: int | None = None


def notification_id(event_id: str, suffix: str) -> str:
    """The id of the notification that an event makes for a user (or, for a broadcast, for its part)."""
    digest = blake2b(suffix.encode(), digest_size=6).hexdigest()
    return f"ntf_{event_id.removeprefix('evt_')}_{digest}"


def rfc3339(moment_us: int | None) -> str | None:
    """A moment as clients get it: RFC 3339, UTC, milliseconds."""
    if moment_us is None:
        return None
    second, rest_us = divmod(moment_us, 1_000_000)
    return f"{_second(second)}.{rest_us // 1000:03d}Z"


@lru_cache(maxsize=256)
def _second(second: int) -> str:
    """A whole second without its zone: the moments of a batch share a few."""
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


class WireNotification(Struct, frozen=True):
    """The JSON of a notification."""

    id: str
    event: str
    type: str
    category: str
    topic: str | None
    title: str
    body: str
    url: str | None
    icon: str | None
    actions: tuple[Action, ...]
    data: dict[str, Any]
    actor: str | None
    actor_name: str | None
    actor_avatar: str | None
    priority: Priority
    created_at: str | None
    seen_at: str | None
    read_at: str | None
    archived_at: str | None


class LiveNotification(Struct, frozen=True, tag_field="kind", tag="notification"):
    """The live message that carries a notification."""

    notification: WireNotification


def wire_addressed(row: Notification) -> WireNotification:
    """An addressed notification as its user gets it."""
    marks = Marks(seen_at_us=row.seen_at_us, read_at_us=row.read_at_us, archived_at_us=row.archived_at_us)
    return _wire(row, row.content, None, marks)


def wire_broadcast(row: Broadcast, locale: str, topic: str | None, marks: Marks | None) -> WireNotification:
    """A broadcast as one user gets it: in one of its locales, with the topic that brought it.

    `marks` is None where many read it (live): the marks are then null.
    """
    return _wire(row, row.contents[locale], topic, marks or Marks())


def _wire(
    row: Notification | Broadcast, content: Content, topic: str | None, marks: Marks
) -> WireNotification:
    return WireNotification(
        id=row.id,
        event=row.event_id,
        type=row.type,
        category=row.category,
        topic=topic,
        title=content.title,
        body=content.body,
        url=content.url,
        icon=content.icon,
        actions=content.actions,
        data=content.data,
        actor=row.actor,
        actor_name=content.actor_name,
        actor_avatar=content.actor_avatar,
        priority=row.priority,
        created_at=rfc3339(row.created_at_us),
        seen_at=rfc3339(marks.seen_at_us),
        read_at=rfc3339(marks.read_at_us),
        archived_at=rfc3339(marks.archived_at_us),
    )


class LiveMark(Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="mark"):
    """Tells a user's other connections what was marked, and the counts after it."""

    mark: str
    unread: int
    unseen: int
    ids: tuple[str, ...] | None = None
    all: bool | None = None
    category: str | None = None


class LiveRetracted(Struct, frozen=True, tag_field="kind", tag="retracted"):
    """These notifications are gone from the inbox (retracted or replaced)."""

    ids: tuple[str, ...]
    unread: int | None
    unseen: int | None


_json = msgspec.json.Encoder()


def encode_live(message: Struct) -> bytes:
    """A live message as it travels: one line of JSON, encoded once."""
    return _json.encode(message)
