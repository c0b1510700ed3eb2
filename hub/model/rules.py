"""The rules of planning, as a closed list, and the one place that asks them all.

`checks` yields every rule that applies to one user and one channel, in the order in which they decide: the first that
fails refuses the channel. Planning stops there; an explanation lists them all.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct

from hub.model.notifications import rfc3339
from hub.model.preferences import CRITICAL, Cause, Verdict, judge
from hub.model.types import CategoryDefinition, ChannelRule, TypeVersion
from hub.model.users import Profile, User
from hub.model.vocabulary import Channel

RULES: Final[dict[str, str]] = {
    # What the event and its type say.
    "always": "The type uses this channel at once.",
    "offline": "The type uses this channel when the app did not reach the user.",
    "unseen": "The type uses this channel when the user did not look for a while.",
    "never": "The type never uses this channel.",
    "not_in_type": "The type does not use this channel.",
    "not_in_event": "The event leaves this channel out.",
    "added_by_event": "The event asks for this channel.",
    "expired": "The event had expired.",
    "expires_first": "The event would expire before the delivery is due.",
    "erased": "The user was erased after the event was accepted.",
    "retracted": "The event was retracted.",
    # What the user chose.
    "channel": "The user switched the channel on or off as a whole.",
    "category": "The user switched the category on or off as a whole.",
    "category_channel": "The user switched the channel on or off for the category.",
    "category_default": "The category's default, as the user chose nothing.",
    "muted_actor": "The user muted whoever caused the event.",
    "muted_topic": "The user muted the topic.",
    "only_actors": "The user wants only what chosen people cause, in this category.",
    "only_topics": "The user wants only what comes on chosen topics, in this category.",
    "allowed": "Nothing that the user chose speaks against it.",
    "critical": "The type is critical, so it passes what the user chose.",
    # What the channel needs.
    "no_provider": "No provider serves this channel.",
    "no_address": "The user has no address for this channel.",
    "suppressed_address": "The user's address was taken out by a bounce, a complaint or STOP.",
    "takes_over": "The channel takes over from one that has no provider or no address in use.",
    # When.
    "throttled": "The user got as many of this type as the type allows in its time.",
    "digest": "The delivery waits to be joined with others.",
    "quiet_hours": "The delivery waits for the end of the user's quiet hours.",
    # Broadcasts.
    "not_in_app": "The broadcast is not shown in the app.",
    "excluded": "The event leaves this user out.",
    "other_timezone": "This part of the event is for other time zones.",
    "not_in_audience": "The user is subscribed to none of the topics.",
    "seen": "The user had seen it before the delivery was due.",
    "reached": "The app had reached the user with it before the delivery was due.",
    "fallback": "The user gets it on this channel already, in place of another one.",
    "collapsed": "A newer notification with the same collapse key took its place.",
    # What went wrong.
    "template_error": "A template of the type could not be rendered, so a stand-in is shown.",
}


class Question(Struct, frozen=True):
    """One user and one event (or only its type), with what the rules look at."""

    kind: TypeVersion
    category: CategoryDefinition | None
    user: User  # with the event's own upserts merged in
    available: frozenset[Channel]
    now_us: int
    cause: Cause = Cause()
    channels: tuple[Channel, ...] | None = None  # the event's own list
    accepted_at_us: int | None = None  # None: no event is asked about
    expires_at_us: int | None = None
    recent: int = 0  # addressed notifications of this type that the user got in the throttle's time

    @property
    def defaults(self) -> Mapping[Channel, bool]:
        """The category's defaults per channel."""
        return self.category.defaults if self.category else {}


def checks(question: Question, channel: Channel) -> Iterator[Verdict]:
    """Every rule that applies to this channel, in the order in which they decide."""
    if question.accepted_at_us is not None:
        yield from _check_event(question, question.accepted_at_us)
    yield check_policy(question.kind, question.channels, channel)
    definition = question.kind.definition
    judged = judge(question.user.preferences, definition.category, question.defaults, channel, question.cause)
    for verdict in judged:
        passes = definition.critical and not verdict.allowed
        yield Verdict(True, CRITICAL.rule, f"{verdict.detail} {CRITICAL.detail}") if passes else verdict
    if channel is not Channel.IN_APP:
        yield from check_address(question, channel)


def _check_event(question: Question, accepted_at_us: int) -> Iterator[Verdict]:
    erased_at_us = question.user.erased_at_us
    if erased_at_us is not None:
        yield Verdict(
            erased_at_us <= accepted_at_us, "erased", f"The user was erased at {rfc3339(erased_at_us)}."
        )
    if question.expires_at_us is not None:
        detail = f"The event expires at {rfc3339(question.expires_at_us)}."
        yield Verdict(question.expires_at_us > question.now_us, "expired", detail)


def check_policy(kind: TypeVersion, channels: tuple[Channel, ...] | None, channel: Channel) -> Verdict:
    """What the type and the event's own list of channels say about a channel."""
    rule = policy(kind, channels, channel)
    if rule is not None and rule.when != "never":
        if channel not in kind.definition.channels:
            return Verdict(True, "added_by_event", RULES["added_by_event"])
        when = "always" if channel is Channel.IN_APP else rule.when
        detail = f"{RULES[when][:-1]} ({rule.after_seconds} s)." if when == "unseen" else RULES[when]
        return Verdict(True, when, detail)
    if channels is not None and channel not in channels:
        return Verdict(False, "not_in_event", RULES["not_in_event"])
    name = "not_in_type" if rule is None else "never"
    return Verdict(False, name, RULES[name])


def policy(kind: TypeVersion, channels: tuple[Channel, ...] | None, channel: Channel) -> ChannelRule | None:
    """The rule of a channel after the event's list: it narrows, and for `message` it adds. None: not used."""
    rule = kind.definition.channels.get(channel)
    if channels is None:
        return rule
    if channel not in channels:
        return None
    if kind.name == "message" and (rule is None or rule.when == "never" or Channel.IN_APP not in channels):
        return ChannelRule(when="always")  # without the app there is nothing that could reach the user before
    return rule


def check_address(question: Question, channel: Channel) -> Iterator[Verdict]:
    """Whether a channel can be used at all: a provider, an address, and that it was not taken out."""
    yield Verdict(channel in question.available, "no_provider", _served(channel, question.available))
    address = address_of(question.user.profile, channel)
    reachable = address is not None or channel in question.user.reachable
    detail = f"The user has {'an' if reachable else 'no'} address for {channel}."
    yield Verdict(reachable, "no_address", detail)
    if reachable:
        suppressed = channel in question.user.suppressed
        detail = RULES["suppressed_address"] if suppressed else "The address is in use."
        yield Verdict(not suppressed, "suppressed_address", detail)


def _served(channel: Channel, available: frozenset[Channel]) -> str:
    return f"A provider serves {channel}." if channel in available else f"No provider serves {channel}."


def address_of(profile: Profile, channel: Channel) -> str | None:
    """The address in a profile for a channel; push subscriptions and devices are no part of it."""
    if channel is Channel.EMAIL:
        return profile.email
    return profile.phone if channel is Channel.SMS else None


def check_throttle(question: Question) -> Verdict | None:
    """Whether the type's throttle lets one more through on addressed channels. None: it has none."""
    throttle = question.kind.definition.throttle
    if throttle is None or question.kind.definition.critical:
        return None
    detail = f"{question.recent} of at most {throttle.limit} in {throttle.per_seconds} s."
    return Verdict(question.recent < throttle.limit, "throttled", detail)
