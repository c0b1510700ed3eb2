"""Events: what a backend publishes (`EventInput`), what was accepted (`Event`) and what one partition gets (`Slice`).

Decoding with msgspec is the validation of shapes; `hub.model.admission` checks what shapes cannot say.
The queue stores slices as MessagePack; fields may be added with defaults, never renamed.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from hub.model.vocabulary import CLOCK_TIME_PATTERN, ID_PATTERN, Channel, Priority

Id = Annotated[str, Meta(pattern=ID_PATTERN, min_length=1, max_length=128)]
Title = Annotated[str, Meta(max_length=1000)]
Body = Annotated[str, Meta(max_length=10_000)]
Url = Annotated[str, Meta(max_length=2048)]


class Action(Struct, frozen=True, forbid_unknown_fields=True):
    """A button of a notification."""

    title: Annotated[str, Meta(min_length=1, max_length=200)]
    url: Url


class AudienceItem(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One entry of `to`: exactly one of a user (`id`, whose profile is upserted), a topic or everyone."""

    id: Id | None = None
    topic: Id | None = None
    everyone: Literal[True] | None = None
    email: Annotated[str, Meta(max_length=320)] | None = None
    phone: Annotated[str, Meta(max_length=32)] | None = None
    name: Annotated[str, Meta(max_length=200)] | None = None
    locale: Annotated[str, Meta(max_length=35)] | None = None
    timezone: Annotated[str, Meta(max_length=64)] | None = None


class LocalTime(Struct, frozen=True, forbid_unknown_fields=True):
    """A wall-clock time in each recipient's own zone: its next occurrence after acceptance."""

    local: Annotated[str, Meta(pattern=CLOCK_TIME_PATTERN)]


class EventInput(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The JSON body of an event, as CONTRACT names it. Times are still RFC 3339 texts here."""

    to: Id | AudienceItem | Annotated[list[Id | AudienceItem], Meta(min_length=1, max_length=1000)]
    type: Id = "message"
    exclude: Annotated[list[Id], Meta(max_length=1000)] = []
    include_actor: bool = False
    title: Title | None = None
    body: Body | None = None
    url: Url | None = None
    icon: Url | None = None
    actions: Annotated[list[Action], Meta(max_length=10)] = []
    data: dict[str, Any] = {}
    actor: Id | None = None
    priority: Priority = "normal"
    channels: Annotated[list[Channel], Meta(min_length=1, max_length=5)] | None = None
    send_at: str | LocalTime | None = None
    expires_at: str | None = None
    digest_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    collapse_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


class NamedUser(Struct, frozen=True, omit_defaults=True, array_like=True):
    """A user named by an addressed event, with the profile fields to upsert (None: leave as it is)."""

    id: str
    email: str | None = None
    phone: str | None = None
    name: str | None = None
    locale: str | None = None
    timezone: str | None = None


class Event(Struct, frozen=True, omit_defaults=True):
    """An accepted event: normalised, with its id and moments. The audience lives in its slices."""

    id: str
    type: str
    accepted_at_us: int
    source: str  # "http:<api key id>", "redis:<name>"
    slices: int  # how many slices the event was cut into, in all
    title: str | None = None
    body: str | None = None
    url: str | None = None
    icon: str | None = None
    actions: tuple[Action, ...] = ()
    data: dict[str, Any] = {}
    actor: str | None = None
    include_actor: bool = False
    priority: Priority = "normal"
    channels: tuple[Channel, ...] | None = None
    expires_at_us: int | None = None
    digest_key: str | None = None
    collapse_key: str | None = None


class BroadcastAudience(Struct, frozen=True, omit_defaults=True):
    """Who may see a broadcast, before anybody's own rules: one or more topics, or everyone; minus `exclude`."""

    topics: tuple[str, ...] = ()
    everyone: bool = False
    exclude: tuple[
        str, ...
    ] = ()  # explicit ones, the actor unless included, and users addressed by the same event
    timezones: tuple[str, ...] | None = None  # only users in these zones (a `local` send time); None: all
    other_than: tuple[str, ...] | None = (
        None  # with `timezones`: and users in any zone but these (the default's part)
    )


class Slice(Struct, frozen=True, omit_defaults=True):
    """The part of an event that one partition handles.

    At most one of `users` (addressed), `broadcast` (the lane) and `schedule` (stored whole, planned when due) is set;
    none when exclusion left nobody: the slice only tells that the event exists.
    """

    event: Event
    users: tuple[NamedUser, ...] = ()
    broadcast: BroadcastAudience | None = None
    schedule: "Schedule | None" = None
    first: bool = False  # of the event's slices: the one whose planning logs the acceptance
    part: str = ""  # the time zone, for a part of a `local` schedule

    def key(self, partition: str) -> str:
        """The slice's name within its event, unique: the partition, and what tells apart slices of one partition."""
        if self.schedule is not None:
            return f"{partition}@schedule"
        return f"{partition}@{self.part}" if self.part else partition


class Schedule(Struct, frozen=True, omit_defaults=True):
    """An event that waits for its time, with its whole audience."""

    users: tuple[NamedUser, ...] = ()
    broadcast: BroadcastAudience | None = None
    send_at_us: int | None = None
    local: str | None = None  # "HH:MM" in each recipient's zone


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Slice)


def encode_slice(part: Slice) -> bytes:
    """A slice as the queue stores it (MessagePack)."""
    return _encoder.encode(part)


def decode_slice(raw: bytes) -> Slice:
    """The inverse of `encode_slice`. Raises `msgspec.MsgspecError` for what is not one."""
    return _decoder.decode(raw)
