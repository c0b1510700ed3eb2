"""What the calls answer, as structs: the OpenAPI text is made from them, and tests hold every answer against it."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from hub.livelog import LogLine
from hub.model.events import Id
from hub.model.explanation import Explained
from hub.model.notifications import Content, Reason, WireNotification
from hub.model.types import CategoryDefinition, TypeDefinition
from hub.model.users import Preferences
from hub.model.vocabulary import Channel

Limit = Annotated[int, Meta(ge=1, le=1000, description="How many at most.")]
Cursor = Annotated[str, Meta(max_length=2048, description="`next` of the page before.")]
Moment = Annotated[str, Meta(description="RFC 3339, UTC.")]


class Page(Struct, frozen=True):
    """Parameters of a list."""

    limit: Limit = 50
    cursor: Cursor | None = None


# ---------------------------------------------------------------- events


class Published(Struct, frozen=True):
    """The event is on disk."""

    id: str
    status: Literal["accepted"]


class BatchResult(Struct, frozen=True):
    """The outcome per item, in order: `{"id", "status"}` or `{"error": {"code", "detail", "errors"}}`."""

    results: list[dict[str, Any]]
    accepted: int
    rejected: int


class Retracted(Struct, frozen=True):
    """The event is taken back."""

    id: str
    status: Literal["retracted"]


class ExpansionShown(Struct, frozen=True, omit_defaults=True):
    """How far a broadcast is with an addressed channel: everybody ends as a delivery, or in a count by the rule.

    `audience` is counted at the end; before it, `looked_at` says how far it is.
    """

    notification: str
    channel: Channel
    state: Literal["waiting", "running", "stopping", "done"]
    due_at: Moment | None
    looked_at: int
    deliveries: int
    counts: dict[str, int]
    audience: int | None = None
    stopped: Literal["retracted", "collapsed"] | None = None
    done_at: Moment | None = None


class EventStatus(Struct, frozen=True, omit_defaults=True):
    """Where an event is, and its sums."""

    id: str
    status: Literal["accepted", "scheduled", "generated", "retracted", "rejected"]
    type: str | None = None
    category: str | None = None
    source: str | None = None
    actor: str | None = None
    accepted_at: Moment | None = None
    send_at: Moment | None = None
    error: str | None = None
    recipients: int | None = None
    in_app: int | None = None
    suppressed: int | None = None
    rejected: int | None = None
    deliveries: int | None = None
    seen: int | None = None
    read: int | None = None
    expansions: list[ExpansionShown] = []


class EventNotification(Struct, frozen=True, omit_defaults=True):
    """What one user (null: all who may see the broadcast) got, and why."""

    user: str | None
    in_app: bool
    reasons: list[Reason]
    notification: WireNotification
    topics: list[str] = []
    everyone: bool = False


class EventNotifications(Struct, frozen=True):
    """A page of what an event became."""

    notifications: list[EventNotification]
    next: str | None


# ---------------------------------------------------------------- users


class ShownProfile(Struct, frozen=True):
    """A user."""

    id: str
    name: str | None
    avatar: str | None
    email: str | None
    phone: str | None
    locale: str | None
    timezone: str | None
    attributes: dict[str, Any]


class Users(Struct, frozen=True):
    """A page of users, by id."""

    users: list[ShownProfile]
    next: str | None


class UserBatch(Struct, frozen=True):
    """The outcome per line, in order: `{"id", "status": "merged"}` or `{"error": {"code", "detail", "errors"}}`."""

    results: list[dict[str, Any]]
    merged: int
    rejected: int


class UserTopics(Struct, frozen=True):
    """The topics that a user follows."""

    topics: list[str]
    next: str | None


class TopicShown(Struct, frozen=True):
    """A topic and its number of subscribers."""

    topic: str
    users: int


class Topics(Struct, frozen=True):
    """A page of topics, by name."""

    topics: list[TopicShown]
    next: str | None


class TopicUsers(Struct, frozen=True):
    """A page of subscribers, by id."""

    users: list[str]
    next: str | None


class TopicChange(Struct, frozen=True, forbid_unknown_fields=True):
    """Who shall follow the topic, and who no longer; at most 10,000 in all."""

    add: Annotated[list[Id], Meta(max_length=10_000)] = []
    remove: Annotated[list[Id], Meta(max_length=10_000)] = []


class Me(Struct, frozen=True):
    """What a user may see and change of their own profile."""

    id: str
    name: str | None
    avatar: str | None
    locale: str | None
    timezone: str | None


class MePatch(Struct, frozen=True, forbid_unknown_fields=True):
    """RFC 7396: null clears, what is left out stays."""

    locale: Annotated[str, Meta(max_length=35)] | None = None
    timezone: Annotated[str, Meta(max_length=64)] | None = None


class PreferencesBody(Preferences, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Preferences; a `grid` that was read may be sent back, and is left alone."""

    grid: list[Any] | None = None


class InboxPage(Struct, frozen=True):
    """Notifications, newest first, and the counts (up to 100, then `capped`)."""

    notifications: list[WireNotification]
    next: str | None
    unread: int
    unseen: int
    capped: bool


class MarkCounts(Struct, frozen=True, omit_defaults=True):
    """The counts afterwards, and which of the ids changed."""

    unread: int
    unseen: int
    capped: bool
    ids: list[str] | None = None


class SessionOpened(Struct, frozen=True):
    """The cookie is set; it ends then."""

    user: str
    expires_at: Moment | None


# ---------------------------------------------------------------- definitions


class TypeShown(TypeDefinition, frozen=True, kw_only=True, omit_defaults=True):
    """A type, and the version that its ETag carries (0: built in)."""

    name: str
    version: int


class TypeBody(TypeDefinition, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A type; what was read may be sent back, its `name` and `version` then say nothing new."""

    name: str | None = None
    version: int | None = None


class Types(Struct, frozen=True):
    """A page of types, by name."""

    types: list[TypeShown]
    next: str | None


class VersionShown(TypeDefinition, frozen=True, kw_only=True, omit_defaults=True):
    """One version of a type."""

    version: int
    created_at: Moment | None


class Versions(Struct, frozen=True):
    """All versions of a type, newest first."""

    versions: list[VersionShown]
    next: str | None


class CategoryShown(CategoryDefinition, frozen=True, kw_only=True, omit_defaults=True):
    """A category, and the version that its ETag carries (0: built in)."""

    name: str
    version: int


class CategoryBody(
    CategoryDefinition, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A category; what was read may be sent back, its `name` and `version` then say nothing new."""

    name: str | None = None
    version: int | None = None


class Categories(Struct, frozen=True):
    """A page of categories, by name."""

    categories: list[CategoryShown]
    next: str | None


# ---------------------------------------------------------------- log, keys, operations


class Log(Struct, frozen=True):
    """A page of the delivery log, newest first."""

    entries: list[LogLine]
    next: str | None


class KeyShown(Struct, frozen=True, omit_defaults=True):
    """An API key; `key`, its secret, is shown once, when it is made."""

    id: str
    name: str
    scopes: list[str]
    created_at: Moment | None
    revoked_at: Moment | None = None
    expires_at: Moment | None = None
    key: str | None = None


class KeyList(Struct, frozen=True):
    """All API keys, never their secrets."""

    keys: list[KeyShown]
    next: str | None


class KeyInput(Struct, frozen=True, forbid_unknown_fields=True):
    """A new key."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    scopes: Annotated[list[Literal["publish", "users", "types", "read", "admin"]], Meta(min_length=1)]
    expires_at: Moment | None = None


class Rotation(Struct, frozen=True, forbid_unknown_fields=True):
    """How long the old key works beside the new one."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=2_592_000)] = 86_400


class Health(Struct, frozen=True, omit_defaults=True):
    """Whether this node can serve, and what is wrong if it cannot."""

    status: Literal["ok", "degraded", "unavailable"]
    problems: list[str] = []
    durability: Literal["strong", "weak"] | None = None


class Explanation(Struct, frozen=True, omit_defaults=True):
    """What was decided for a user, and every rule that had a say."""

    user: str
    type: str
    category: str
    rules: list[Explained]  # today's, one after the other
    event: dict[str, Any] | None = None  # what was planned for it then


# ---------------------------------------------------------------- preview


class PreviewRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What to render: an event's own parts, for whom, and (instead of the stored definition) a draft."""

    data: dict[str, Any] = {}
    title: Annotated[str, Meta(max_length=1000)] | None = None
    body: Annotated[str, Meta(max_length=10_000)] | None = None
    url: Annotated[str, Meta(max_length=2048)] | None = None
    icon: Annotated[str, Meta(max_length=2048)] | None = None
    actor: Id | None = None
    user: Id | None = None
    locale: Annotated[str, Meta(max_length=35)] | None = None
    definition: TypeDefinition | None = None


class Preview(Struct, frozen=True):
    """What the app would show, and everything that would go wrong."""

    content: Content
    locale: str
    problems: list[str]
