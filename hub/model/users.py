"""Users: profiles, preferences and what is known of a user when a decision about them is taken."""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from hub.model.events import Id
from hub.model.vocabulary import CLOCK_TIME_PATTERN, Channel


class Profile(Struct, frozen=True, omit_defaults=True):
    """A user as the product knows them. `locale` is a BCP 47 tag, `timezone` an IANA name."""

    id: str
    name: str | None = None
    avatar: str | None = None
    email: str | None = None
    phone: str | None = None
    locale: str | None = None
    timezone: str | None = None
    attributes: dict[str, Any] = {}


class Muted(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who and what is never notified of."""

    actors: Annotated[list[Id], Meta(max_length=1000)] = []
    topics: Annotated[list[Id], Meta(max_length=1000)] = []


class OnlyRule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """In one category, nothing but what these actors caused, or (and) what came on these topics."""

    actors: Annotated[list[Id], Meta(max_length=1000)] | None = None
    topics: Annotated[list[Id], Meta(max_length=1000)] | None = None


class Only(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Restrictions per category."""

    categories: dict[Id, OnlyRule] = {}


class QuietHours(Struct, frozen=True, forbid_unknown_fields=True):
    """From `start` to `end` (HH:MM, the user's zone; may pass midnight) addressed channels wait. Never the app."""

    start: Annotated[str, Meta(pattern=CLOCK_TIME_PATTERN)]
    end: Annotated[str, Meta(pattern=CLOCK_TIME_PATTERN)]


class Preferences(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a user allows. What is unset follows the category's default, else it is allowed."""

    channels: dict[Channel, bool] = {}
    categories: dict[Id, dict[Channel, bool] | bool] = {}
    muted: Muted = Muted()
    only: Only = Only()
    quiet_hours: QuietHours | None = None


NOTHING_CHOSEN: Final = Preferences()  # the one object that users without a choice share


class Subscription(Struct, frozen=True, array_like=True):
    """One interval of a user's membership in a topic: from_seq <= broadcast_seq, and < until_seq if it is over."""

    topic: str
    from_seq: int
    until_seq: int | None = None


class User(Struct, frozen=True):
    """Everything that decisions about one user read: the row that stores, caches and connections share."""

    profile: Profile
    preferences: Preferences = NOTHING_CHOSEN
    version: int = 0  # raised by every change of profile or preferences; 0: not stored yet
    subscriptions: tuple[Subscription, ...] = ()  # filled for viewers (inbox, live); empty for planning
    reachable: frozenset[Channel] = frozenset()  # push channels with a subscription or a device
    suppressed: frozenset[Channel] = frozenset()  # addresses taken out by bounce, complaint or STOP
    tokens_valid_from_us: int = 0  # earlier tokens are refused (revocation, erasure)
    erased_at_us: int | None = None  # events accepted before this moment are not planned for this user
