"""Admission: an `EventInput` that shapes alone cannot judge becomes an `Event` cut into slices, or a refusal.

The same for HTTP and Redis. It finds as many mistakes at once as it can. What it lets through can be queued, stored
and planned: no later step refuses an event for its form.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from hub.errors import DefinitionError, FieldError, Refused
from hub.model.addresses import is_link, is_sound, json_fault, profile_errors
from hub.model.events import (
    AudienceItem,
    BroadcastAudience,
    Event,
    EventInput,
    LocalTime,
    NamedUser,
    Schedule,
    Slice,
)
from hub.model.schedule import cut_audience, parse_moment
from hub.model.schemas import data_errors
from hub.model.types import TypeVersion
from hub.model.vocabulary import partition_of

EVENT_LIMIT_BYTES: Final = 65_536  # of an event as it came in; the caller counts
RECIPIENT_LIMIT: Final = 1000
SEND_AT_LIMIT_US: Final = 366 * 86_400 * 1_000_000

_PROFILE_FIELDS: Final = ("email", "phone", "name", "locale", "timezone")
_LINK_DETAIL: Final = "Only http, https and relative addresses are allowed, without spaces."
_TEXT_DETAIL: Final = "A NUL or half of a surrogate pair cannot be kept."


class Admitted(Struct, frozen=True):
    """An accepted event and its slices by partition name ("0".."P-1", "lane"); never without a slice."""

    event: Event
    slices: Mapping[str, Slice]


class _Audience(Struct, frozen=True):
    users: tuple[NamedUser, ...]
    broadcast: BroadcastAudience | None


def admit(
    event: EventInput,
    type_version: TypeVersion | None,
    *,
    event_id: str,
    now_us: int,
    source: str,
    partitions: int,
) -> Admitted:
    """Check an event and cut it. Raises `Refused(422)`: `unknown_type`, `invalid_data` or `invalid_event`."""
    audience, errors = _read_audience(event)
    errors += _text_errors(event)
    errors += _data_errors(event, type_version)
    send_at_us, expires_at_us = _read_times(event, now_us, errors)
    if type_version is None:
        detail = f"There is no type {event.type!r}; define it with PUT /v1/types/{event.type}."
        raise Refused(422, "unknown_type", detail, [FieldError("/type", "unknown_type", detail), *errors])
    if errors:
        of_data = all(error.pointer.startswith("/data") for error in errors)
        code, what = ("invalid_data", "data") if of_data else ("invalid_event", "event")
        raise Refused(422, code, f"The {what} cannot be accepted: {errors[0].detail}", errors)
    local = event.send_at.local if isinstance(event.send_at, LocalTime) else None
    schedule = None
    if local is not None or send_at_us is not None:
        schedule = Schedule(audience.users, audience.broadcast, send_at_us=send_at_us, local=local)
    parts = {} if schedule else cut_audience(audience.users, audience.broadcast, partitions, event_id)
    accepted = _accept(event, event_id, now_us, source, slices=len(parts) or 1, expires_at_us=expires_at_us)
    if schedule:
        home = str(partition_of(event_id, partitions))
        return Admitted(accepted, {home: Slice(event=accepted, schedule=schedule)})
    return Admitted(accepted, {name: Slice(accepted, users, lane) for name, (users, lane) in parts.items()})


# ---------------------------------------------------------------- checks


def _text_errors(event: EventInput) -> list[FieldError]:
    is_plain = event.url is None and event.icon is None and not event.actions
    if is_plain and is_sound(f"{event.title}{event.body}{event.digest_key}{event.collapse_key}"):
        return []  # most events: one look at all texts
    errors: list[FieldError] = []
    texts = [("/title", event.title), ("/body", event.body)]
    texts += [("/digest_key", event.digest_key), ("/collapse_key", event.collapse_key)]
    links = [("/url", event.url), ("/icon", event.icon)]
    for index, action in enumerate(event.actions):
        texts.append((f"/actions/{index}/title", action.title))
        links.append((f"/actions/{index}/url", action.url))
    for pointer, text in texts:
        if text is not None and not is_sound(text):
            errors.append(FieldError(pointer, "invalid_text", _TEXT_DETAIL))
    for pointer, link in links:
        if link and not is_link(link):
            errors.append(FieldError(pointer, "invalid_url", _LINK_DETAIL))
    return errors


def _data_errors(event: EventInput, type_version: TypeVersion | None) -> list[FieldError]:
    if event.data and (fault := json_fault(event.data, "/data")):
        return [fault]
    if type_version is None:
        return []
    try:
        return data_errors(type_version, event.data)
    except DefinitionError as error:  # it was good when it was defined; a newer validator may be stricter
        return [
            FieldError("/type", "invalid_schema", f"The schema of {event.type!r} cannot be used: {error}")
        ]


def _read_times(event: EventInput, now_us: int, errors: list[FieldError]) -> tuple[int | None, int | None]:
    """When it is sent (None: now) and when it expires; what is wrong with them is added to `errors`."""
    if event.send_at is None and event.expires_at is None:
        return None, None

    def read(text: str, pointer: str) -> int | None:
        try:
            return parse_moment(text)
        except ValueError as error:
            errors.append(FieldError(pointer, "invalid_time", str(error)))
            return None

    send_at_us = read(event.send_at, "/send_at") if isinstance(event.send_at, str) else None
    expires_at_us = read(event.expires_at, "/expires_at") if event.expires_at is not None else None
    if send_at_us is not None and send_at_us > now_us + SEND_AT_LIMIT_US:
        errors.append(FieldError("/send_at", "too_far", "An event can be scheduled at most a year ahead."))
    if expires_at_us is not None and expires_at_us <= now_us:
        errors.append(FieldError("/expires_at", "in_the_past", "The event has expired already."))
    elif expires_at_us is not None and send_at_us is not None and expires_at_us <= send_at_us:
        errors.append(
            FieldError("/expires_at", "before_send_at", "The event would expire before it is sent.")
        )
    if send_at_us is not None and send_at_us <= now_us:
        send_at_us = None  # a moment that has passed is now
    return send_at_us, expires_at_us


def _read_audience(event: EventInput) -> tuple[_Audience, list[FieldError]]:
    if isinstance(event.to, str) and not event.exclude:  # most events
        return _Audience((NamedUser(event.to),), None), []
    many = isinstance(event.to, list)
    items = event.to if isinstance(event.to, list) else [event.to]
    errors: list[FieldError] = []
    users: dict[str, dict[str, Any]] = {}
    topics: dict[str, None] = {}
    everyone = False
    for index, item in enumerate(items):
        if isinstance(item, str):
            users.setdefault(item, {})
            continue
        errors += _item_errors(item, f"/to/{index}" if many else "/to")
        if item.id is not None:
            fields = {name: getattr(item, name) for name in _PROFILE_FIELDS}
            users.setdefault(item.id, {}).update((k, v) for k, v in fields.items() if v is not None)
        elif item.topic is not None:
            topics[item.topic] = None
        everyone = everyone or bool(item.everyone)
    if (
        len(items) > RECIPIENT_LIMIT
    ):  # the decoder says so too; this holds for callers that build events themselves
        errors.append(FieldError("/to", "too_many", f"At most {RECIPIENT_LIMIT} recipients are allowed."))
    excluded = set(event.exclude)
    named = tuple(NamedUser(id=id_, **fields) for id_, fields in users.items() if id_ not in excluded)
    broadcast = None
    if topics or everyone:
        hidden = dict.fromkeys(event.exclude)
        if event.actor and not event.include_actor:
            hidden[event.actor] = None
        hidden.update(dict.fromkeys(users))
        broadcast = BroadcastAudience(topics=tuple(topics), everyone=everyone, exclude=tuple(hidden))
    return _Audience(named, broadcast), errors


def _item_errors(item: AudienceItem, pointer: str) -> list[FieldError]:
    kinds = [name for name in ("id", "topic", "everyone") if getattr(item, name) is not None]
    if len(kinds) != 1:
        given = " and ".join(kinds) or "none"
        detail = f"Exactly one of id, topic and everyone is needed; {given} was given."
        return [FieldError(pointer, "invalid_audience", detail)]
    fields = {name: getattr(item, name) for name in _PROFILE_FIELDS if getattr(item, name) is not None}
    if item.id is None:
        detail = "Only a user (id) can have this."
        return [FieldError(f"{pointer}/{name}", "invalid_audience", detail) for name in fields]
    return profile_errors(fields, pointer)


# ---------------------------------------------------------------- the accepted event


def _accept(
    given: EventInput, event_id: str, now_us: int, source: str, *, slices: int, expires_at_us: int | None
) -> Event:
    return Event(  # by position: half the time, for each event
        event_id,
        given.type,
        now_us,
        source,
        slices,
        given.title,
        given.body,
        given.url or None,
        given.icon or None,
        tuple(given.actions),
        given.data,
        given.actor,
        given.include_actor,
        given.priority,
        tuple(dict.fromkeys(given.channels)) if given.channels is not None else None,
        expires_at_us,
        given.digest_key,
        given.collapse_key,
    )
