"""Types and categories: what backends define once, so that their events need to say little."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

from hub.model.events import Action, Id
from hub.model.vocabulary import Channel, When

Template = Annotated[str, Meta(max_length=65_536)]


class ChannelRule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When a type uses a channel, and the channel's own texts."""

    when: When = "always"
    after_seconds: Annotated[int, Meta(ge=0, le=2_592_000)] = 600
    fallback: Annotated[list[Channel], Meta(max_length=4)] = []
    subject: Template | None = None
    html: Template | None = None
    mjml: Template | None = None
    text: Template | None = None


class Digest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Many notifications into one, on addressed channels. `extend`: each one puts the digest off by its window again,
    up to `max_seconds` after the first. `first_at_once`: what comes after a window of silence goes out alone.
    """

    channels: Annotated[list[Channel], Meta(min_length=1, max_length=4)]
    window_seconds: Annotated[int, Meta(ge=1, le=2_592_000)]
    extend: bool = False
    max_seconds: Annotated[int, Meta(ge=1, le=2_592_000)] | None = None
    max_items: Annotated[int, Meta(ge=2, le=1000)] | None = None
    first_at_once: bool = False


class Throttle(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """At most `limit` per user and `per_seconds` on addressed channels; what is beyond is dropped or digested."""

    limit: Annotated[int, Meta(ge=1, le=100_000)]
    per_seconds: Annotated[int, Meta(ge=1, le=2_592_000)]
    then: Literal["drop", "digest"] = "drop"


class Texts(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The texts of a type in one locale; an unset one falls back to a wider locale, then to the type's own."""

    title: Template | None = None
    body: Template | None = None
    url: Template | None = None
    icon: Template | None = None
    channels: dict[Channel, dict[str, Template]] = {}


class TypeDefinition(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `PUT /v1/types/{type}`. One that names no channel is shown in the app: it would reach nobody else."""

    category: Id
    critical: bool = False
    title: Template | None = None
    body: Template | None = None
    url: Template | None = None
    icon: Template | None = None
    actions: Annotated[list[Action], Meta(max_length=10)] = []
    schema: dict[str, Any] | None = None
    expose: Annotated[list[str], Meta(max_length=100)] = []
    channels: Annotated[
        dict[Channel, ChannelRule],
        Meta(description="When each channel is used; without any the app always is."),
    ] = {}
    digest: Digest | None = None
    throttle: Throttle | None = None
    locales: dict[str, Texts] = {}

    def __post_init__(self) -> None:
        if not self.channels:
            force_setattr(self, "channels", {Channel.IN_APP: ChannelRule()})


class CategoryTexts(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A category's words in one locale."""

    title: Annotated[str, Meta(max_length=200)] | None = None
    description: Annotated[str, Meta(max_length=1000)] | None = None


class CategoryDefinition(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `PUT /v1/categories/{c}`. A hidden one is not shown to users; `defaults` hold until a user chooses."""

    title: Annotated[str, Meta(max_length=200)] | None = None
    description: Annotated[str, Meta(max_length=1000)] | None = None
    locales: dict[str, CategoryTexts] = {}
    hidden: bool = False
    defaults: dict[Channel, bool] = {}


class TypeVersion(Struct, frozen=True):
    """A type as it was defined at one time; `version` counts from 1 (0: built in)."""

    name: str
    version: int
    definition: TypeDefinition


MESSAGE = TypeVersion(
    name="message",
    version=0,
    definition=TypeDefinition(
        category="messages",
        channels={
            Channel.IN_APP: ChannelRule(when="always"),
            Channel.WEB_PUSH: ChannelRule(when="offline"),
        },
    ),
)
"""The built-in type: shows the event's own title and body, and backfills web push for who is offline. Exposes all data."""
