"""Rows and structs: how what the product speaks of stands in the tables. Pure."""

from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import msgspec

from hub.model.deliveries import Delivery
from hub.model.events import BroadcastAudience
from hub.model.expansion import Expansion
from hub.model.notifications import Broadcast, Content, Marks, Notification, Reason
from hub.model.users import NOTHING_CHOSEN, Preferences, Profile, User
from hub.model.vocabulary import Channel
from hub.ports import LogEntry

EVERYONE: Final = "*"
MINUTE_US: Final = 60_000_000
PROFILE_TEXTS: Final = ("name", "avatar", "email", "phone", "locale", "timezone")

_NOTHING: Final = "{}"  # most users have set nothing
_SHARED_LENGTH: Final = 1024  # longer ones are hardly ever alike
_encode = msgspec.json.Encoder().encode
_content = msgspec.json.Decoder(Content)
_contents = msgspec.json.Decoder(dict[str, Content])
_reasons = msgspec.json.Decoder(tuple[Reason, ...])
_audience = msgspec.json.Decoder(BroadcastAudience)
_preferences = msgspec.json.Decoder(Preferences)
_attributes = msgspec.json.Decoder(dict[str, Any])
_names = msgspec.json.Decoder(tuple[str, ...])
_channels = msgspec.json.Decoder(tuple[Channel, ...])
_counts = msgspec.json.Decoder(dict[str, int])


def document(value: object) -> str:
    """A value as JSON text."""
    return _encode(value).decode()


def notification_values(row: Notification, slice_key: str, hidden: str | None) -> tuple[Any, ...]:
    """A notification as columns, in the table's order. `hidden`: why it is not shown."""
    return (
        row.user_id,
        row.id,
        row.event_id,
        slice_key,
        row.type,
        row.category,
        document(row.content),
        row.created_at_us,
        row.in_app,
        row.in_app and hidden is None,
        hidden,
        document(row.reasons),
        row.actor,
        row.priority,
        row.collapse_key,
        row.expires_at_us,
        None,  # reached
        row.seen_at_us,
        row.read_at_us,
        row.archived_at_us,
        row.locale,
    )


def notification_of(row: Any) -> Notification:
    """A notification from its columns."""
    return Notification(
        id=row.id,
        user_id=row.user_id,
        event_id=row.event_id,
        type=row.type,
        category=row.category,
        content=_content.decode(row.content),
        created_at_us=row.created_at_us,
        in_app=row.in_app,
        reasons=_reasons.decode(row.reasons),
        actor=row.actor,
        priority=row.priority,
        collapse_key=row.collapse_key,
        expires_at_us=row.expires_at_us,
        seen_at_us=row.seen_at_us,
        read_at_us=row.read_at_us,
        archived_at_us=row.archived_at_us,
        locale=row.locale,
        slice_key=row.slice_key,
    )


def content_of(text: str) -> Content:
    """What a notification shows, from its column."""
    return _content.decode(text)


def broadcast_values(row: Broadcast) -> dict[str, Any]:
    """A broadcast as columns."""
    return {
        "seq": row.seq,
        "id": row.id,
        "event_id": row.event_id,
        "slice_key": row.slice_key,
        "type": row.type,
        "category": row.category,
        "contents": document(row.contents),
        "created_at_us": row.created_at_us,
        "audience": document(row.audience),
        "audience_key": audience_key(row.audience) if row.collapse_key is not None else None,
        "in_app": row.in_app,
        "shown": row.in_app,
        "hidden": None,
        "default_in_app": row.default_in_app,
        "critical": row.critical,
        "reasons": document(row.reasons),
        "actor": row.actor,
        "priority": row.priority,
        "collapse_key": row.collapse_key,
        "expires_at_us": row.expires_at_us,
    }


def broadcast_of(row: Any) -> Broadcast:
    """A broadcast from its columns."""
    return Broadcast(
        id=row.id,
        seq=row.seq,
        event_id=row.event_id,
        type=row.type,
        category=row.category,
        contents=_contents.decode(row.contents),
        created_at_us=row.created_at_us,
        audience=_audience.decode(row.audience),
        in_app=row.in_app,
        default_in_app=row.default_in_app,
        critical=row.critical,
        reasons=_reasons.decode(row.reasons),
        actor=row.actor,
        priority=row.priority,
        collapse_key=row.collapse_key,
        expires_at_us=row.expires_at_us,
        slice_key=row.slice_key,
    )


def targets_of(audience: BroadcastAudience) -> list[str]:
    """Under which targets a broadcast is found. Everyone includes every topic's subscribers, but readers ask by both."""
    targets = list(dict.fromkeys(audience.topics))
    return [*targets, EVERYONE] if audience.everyone else targets


def audience_key(audience: BroadcastAudience) -> str:
    """Equal for equal audiences. Who is left out does not count: another actor's broadcast replaces all the same."""
    zones = None if audience.timezones is None else sorted(audience.timezones)
    what = document([sorted(set(audience.topics)), audience.everyone, zones])
    return blake2b(what.encode(), digest_size=16).hexdigest()


def delivery_values(row: Delivery, slice_key: str, state: str, reason: str | None = None) -> tuple[Any, ...]:
    """A delivery as columns, in the table's order."""
    return (
        row.user_id,
        row.id,
        row.notification_id,
        row.event_id,
        slice_key,
        row.type,
        row.category,
        row.channel.value,
        state,
        reason,
        row.condition,
        row.created_at_us,
        row.due_at_us,
        row.expires_at_us,
        row.digest_key,
        document(row.fallback),
        row.throttled,
        row.attempts,
        row.lapses,
        row.tried_at_us,
        None,  # handed_until_us
        None,  # claim
        None,  # provider
        None,  # reference
        document(row.served) if row.served else None,
    )


def delivery_of(row: Any) -> Delivery:
    """A delivery from its columns."""
    return Delivery(
        id=row.id,
        user_id=row.user_id,
        notification_id=row.notification_id,
        event_id=row.event_id,
        type=row.type,
        category=row.category,
        channel=Channel(row.channel),
        state=row.state,
        created_at_us=row.created_at_us,
        due_at_us=row.due_at_us,
        condition=row.condition,
        digest_key=row.digest_key,
        expires_at_us=row.expires_at_us,
        fallback=_channels.decode(row.fallback),
        throttled=row.throttled,
        attempts=row.attempts,
        lapses=row.lapses,
        tried_at_us=row.tried_at_us,
        served=_names.decode(row.served) if row.served else (),
        slice_key=row.slice_key,
        reason=row.reason,
        provider=row.provider,
    )


def expansion_values(row: Expansion, stopped: str | None) -> tuple[Any, ...]:
    """An expansion as columns, in the table's order. `stopped`: why it is over before it began."""
    return (
        row.broadcast_id,
        row.channel.value,
        row.seq,
        row.event_id,
        row.slice_key,
        row.condition,
        document(row.fallback),
        row.due_at_us,
        row.cursor,
        row.audience,
        row.deliveries,
        document(row.counts),
        stopped or row.stopped,
        row.done_at_us,
    )


def expansion_of(row: Any) -> Expansion:
    """An expansion from its columns."""
    return Expansion(
        broadcast_id=row.broadcast_id,
        channel=Channel(row.channel),
        seq=row.seq,
        event_id=row.event_id,
        slice_key=row.slice_key,
        condition=row.condition,
        due_at_us=row.due_at_us,
        fallback=_channels.decode(row.fallback),
        cursor=row.cursor,
        audience=row.audience,
        deliveries=row.deliveries,
        counts=_counts.decode(row.counts),
        stopped=row.stopped,
        done_at_us=row.done_at_us,
    )


def profile_of(row: Any) -> Profile:
    """A profile from a user's columns."""
    return Profile(
        id=row.id,
        name=row.name,
        avatar=row.avatar,
        email=row.email,
        phone=row.phone,
        locale=row.locale,
        timezone=row.timezone,
        attributes=attributes_of(row.attributes),
    )


def user_of(row: Any) -> User:
    """A user from the columns that `situation` selects, in that order."""
    id_, name, avatar, email, phone, locale, timezone, attributes, preferences, version, valid_from_us = row
    profile = Profile(id_, name, avatar, email, phone, locale, timezone, attributes_of(attributes))
    return User(profile, preferences_of(preferences), version, tokens_valid_from_us=valid_from_us)


def attributes_of(text: str) -> dict[str, Any]:
    """A profile's attributes from their text."""
    return _attributes.decode(text) if text != _NOTHING else {}


def preferences_of(text: str) -> Preferences:
    """Preferences from their text. Users with the same text share one object, so nobody may change it."""
    if text == _NOTHING:
        return NOTHING_CHOSEN
    return _shared_preferences(text) if len(text) <= _SHARED_LENGTH else _preferences.decode(text)


@lru_cache(maxsize=1024)
def _shared_preferences(text: str) -> Preferences:
    return _preferences.decode(text)


def marks_of(row: Any) -> Marks:
    """The marks that stand in a row."""
    return Marks(seen_at_us=row.seen_at_us, read_at_us=row.read_at_us, archived_at_us=row.archived_at_us)


def log_values(id_: int, entry: LogEntry) -> tuple[Any, ...]:
    """A line of the log as columns, in the table's order."""
    return (
        id_,
        entry.at_us,
        entry.state,
        entry.event_id,
        entry.user_id,
        entry.notification_id,
        None if entry.channel is None else str(entry.channel),
        entry.type,
        entry.category,
        entry.provider,
        entry.reason,
        entry.detail,
    )


def log_entry_of(row: Any) -> LogEntry:
    """A line of the log from its columns."""
    return LogEntry(
        at_us=row.at_us,
        state=row.state,
        event_id=row.event_id,
        user_id=row.user_id,
        notification_id=row.notification_id,
        channel=row.channel,
        type=row.type,
        category=row.category,
        provider=row.provider,
        reason=row.reason,
        detail=row.detail,
        id=row.id,
    )


def user_suffix(user_id: str) -> str:
    """What a notification id ends with for this user (`hub.model.notifications.notification_id`)."""
    return blake2b(user_id.encode(), digest_size=6).hexdigest()
