"""Visibility: may this user see this broadcast? One answer for inbox, counts, recovery and live delivery.

Today's preferences decide, and the topics as they were when the broadcast got its `broadcast_seq`. Expiry and
retraction are not looked at here: they take the row away from everybody.
"""

from collections.abc import Iterator
from typing import NamedTuple

from hub.model.events import BroadcastAudience
from hub.model.notifications import Broadcast
from hub.model.preferences import Verdict, allows, pick_locale
from hub.model.users import Subscription, User
from hub.model.vocabulary import Channel


class Visibility(NamedTuple):
    """Whether a user sees a broadcast, the topic that brought it (None: everyone), the key of `contents`, and why."""

    visible: bool
    topic: str | None
    locale: str
    rule: str
    detail: str

    def __bool__(self) -> bool:
        return self.visible


def visible(broadcast: Broadcast, user: User, default_timezone: str) -> Visibility:
    """Decide about one broadcast and one user. A user that is not stored yet is `User(Profile(id))`."""
    audience = broadcast.audience
    if not broadcast.in_app:
        return _hidden(
            "not_in_app", "The type, or the event, does not use the app, or the event had expired."
        )
    if (refusal := outside(audience, user, default_timezone)) is not None:  # it is false itself
        return refusal
    refused: Verdict | None = None
    for topic in ways(audience, broadcast.seq, user):
        verdict = allows(
            user.preferences,
            broadcast.category,
            {} if broadcast.default_in_app else {Channel.IN_APP: False},
            Channel.IN_APP,
            actor=broadcast.actor,
            topic=topic,
            critical=broadcast.critical,
        )
        if verdict.allowed:
            locale = pick_locale(broadcast.contents, user.profile.locale)
            return Visibility(True, topic, locale, verdict.rule, verdict.detail)
        refused = refused or verdict
    if refused is None:
        return _hidden("not_in_audience", "The user is subscribed to none of its topics.")
    return _hidden(refused.rule, refused.detail)


def restricts(user: User) -> bool:
    """Whether the user's own rules may hide a broadcast that its audience includes.

    False: what is visible depends on nothing of the user but topics, exclusion and time zone (and, where a category
    is off in the app by default, on nothing at all: it is hidden). Connections of such users may share frames.
    """
    preferences = user.preferences
    return (
        preferences.channels.get(Channel.IN_APP) is False
        or any(
            own is False or (isinstance(own, dict) and Channel.IN_APP in own)
            for own in preferences.categories.values()
        )
        or bool(preferences.muted.actors or preferences.muted.topics or preferences.only.categories)
    )


def in_timezones(audience: BroadcastAudience, timezone: str | None, default_timezone: str) -> bool:
    """Whether an audience that is cut by time zones includes a user with this one."""
    if audience.timezones is None:
        return True
    zone = timezone or default_timezone
    return zone in audience.timezones or (audience.other_than is not None and zone not in audience.other_than)


def was_subscribed(user: User, topic: str, seq: int) -> bool:
    """Whether one of the user's intervals on a topic holds a broadcast_seq."""
    return any(one.topic == topic and _holds(one, seq) for one in user.subscriptions)


def _holds(interval: Subscription, seq: int) -> bool:
    return interval.from_seq <= seq and (interval.until_seq is None or seq < interval.until_seq)


def outside(audience: BroadcastAudience, user: User, default_timezone: str) -> Visibility | None:
    """Why an audience leaves a user out, whatever its topics say; None when it does not."""
    if user.profile.id in audience.exclude:
        return _hidden(
            "excluded", "The event leaves this user out (or addresses them directly, or they caused it)."
        )
    if not in_timezones(audience, user.profile.timezone, default_timezone):
        return _hidden("other_timezone", "This part of the event is for other time zones.")
    return None


def ways(audience: BroadcastAudience, seq: int, user: User) -> Iterator[str | None]:
    """The ways by which a broadcast may have come: its topics in the event's order, then everyone (None)."""
    if audience.topics:
        held = {one.topic for one in user.subscriptions if _holds(one, seq)}
        yield from (topic for topic in audience.topics if topic in held)
    if audience.everyone:
        yield None


def _hidden(rule: str, detail: str) -> Visibility:
    return Visibility(False, None, "", rule, detail)
