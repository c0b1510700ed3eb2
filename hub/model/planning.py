"""Planning: one event and one user become a notification, its deliveries, and the reasons for all of it.

Pure: the same arguments give the same plan. A recipient is never lost: whatever refuses the app still leaves a row
with its reason, and a template that fails leaves a stand-in. Quiet hours, digests and throttles never hold back
the app. What the reasons mean stands in `hub.model.rules.RULES`.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from hub.model.addressed import NO_WAY, OFFLINE_GRACE_SECONDS, Addressed, deliver, patience_us, substitute
from hub.model.contents import NOBODY, Rendered, own_texts, reads_recipient, render_content, stand_in
from hub.model.deliveries import Delivery
from hub.model.digests import DigestId, OpenDigest
from hub.model.events import BroadcastAudience, Event, NamedUser
from hub.model.notifications import Broadcast, Content, Notification, Reason, notification_id, rfc3339
from hub.model.preferences import Cause, pick_locale
from hub.model.rules import RULES, Question, check_policy, checks, policy
from hub.model.types import CategoryDefinition, Texts, TypeVersion
from hub.model.users import Preferences, Profile, User
from hub.model.vocabulary import Channel

__all__ = [
    "OFFLINE_GRACE_SECONDS",
    "RULES",
    "Environment",
    "Plan",
    "merged_user",
    "plan",
    "plan_broadcast",
    "planned_channels",
]

_ALL: Final = tuple(Channel)


class Chosen(NamedTuple):
    """A type's texts for one locale of users."""

    locale: str  # the type's own name for it
    texts: Texts
    personal: bool  # whether they differ from one recipient to the next


class Decision(NamedTuple):
    """What becomes of the channels of one notification."""

    reasons: tuple[Reason, ...]
    in_app: bool
    deliveries: tuple[Delivery, ...]
    digests: tuple[tuple[DigestId, OpenDigest], ...] = ()


class Memo(Struct):
    """What is the same for many recipients of a batch, found once. One version of each type."""

    chosen: dict[tuple[str, str | None], Chosen] = {}  # by type and the users' locale
    rendered: dict[tuple[str, str, str], Rendered] = {}  # by event, type and the type's locale
    decisions: dict[tuple[object, ...], tuple[Preferences, Decision]] = {}  # without deliveries


class Environment(Struct, frozen=True):
    """What planning knows beside the event and the user."""

    now_us: int
    created_at_us: int  # of the notification: unique and increasing within its partition
    available: frozenset[Channel]  # channels that a provider serves; the app needs none
    default_timezone: str = "UTC"
    actors: Mapping[str, Profile] = {}
    recent: Mapping[tuple[str, str], int] = {}  # (user, type): let through in the throttle's time
    digests: Mapping[DigestId, OpenDigest] = {}
    urls: Mapping[str, str] = {}  # what templates get as `urls`
    memo: Memo | None = None  # shared within a batch
    unused: frozenset[Channel] = frozenset()  # channels on which nobody at all has an address


class Plan(Struct, frozen=True):
    """What is stored for one recipient. `problems`: sentences for the report (templates that failed).

    `digests`: those that its deliveries joined or opened, as they are with them.
    """

    notification: Notification
    deliveries: tuple[Delivery, ...]
    problems: tuple[str, ...] = ()
    digests: tuple[tuple[DigestId, OpenDigest], ...] = ()


def plan(
    event: Event,
    kind: TypeVersion,
    category: CategoryDefinition | None,
    user: User | None,
    named: NamedUser,
    env: Environment,
    slice_key: str = "",
) -> Plan:
    """Plan an addressed event for one of its users (None: unknown so far; the event's own fields count)."""
    known = merged_user(user, named)
    id_ = notification_id(event.id, named.id)
    reasons, in_app, deliveries, digests = _decide(event, kind, category, known, id_, env)
    chosen = _choose(kind, known.profile.locale, env.memo)
    used = in_app or deliveries
    rendered = _render(event, kind, known.profile, env, chosen) if used else Rendered(stand_in(event, kind))
    if rendered.problems:
        reasons = (*reasons, *_notes(rendered.problems))
    erased = known.erased_at_us is not None and any(reason.rule == "erased" for reason in reasons)
    row = Notification(
        id=id_,
        user_id=named.id,
        event_id=event.id,
        type=event.type,
        category=kind.definition.category,
        content=Content() if erased else rendered.content,
        created_at_us=env.created_at_us,
        in_app=in_app,
        reasons=reasons,
        actor=event.actor,
        priority=event.priority,
        collapse_key=event.collapse_key,
        expires_at_us=event.expires_at_us,
        locale=chosen.locale or None,
        slice_key=slice_key,
    )
    return Plan(row, deliveries, rendered.problems, digests)


def _decide(
    event: Event,
    kind: TypeVersion,
    category: CategoryDefinition | None,
    user: User,
    notification: str,
    env: Environment,
) -> Decision:
    """What becomes of each channel."""
    usual = _usual(event, kind, user) if env.memo is not None else None
    if usual is not None and env.memo is not None and (known := env.memo.decisions.get(usual)):
        return known[1]
    question = Question(
        kind=kind,
        category=category,
        user=user,
        available=env.available,
        now_us=env.now_us,
        cause=Cause(event.actor),
        channels=event.channels,
        accepted_at_us=event.accepted_at_us,
        expires_at_us=event.expires_at_us,
        recent=env.recent.get((user.profile.id, kind.name), 0),
    )
    reasons: dict[Channel, Reason] = {}
    addressed: list[Addressed] = []
    missed: list[Channel] = []
    in_app = False
    for channel in planned_channels(kind, event.channels):
        refusal = next((verdict for verdict in checks(question, channel) if not verdict.allowed), None)
        if refusal is not None:
            reasons[channel] = Reason(channel, "refuse", refusal.rule, refusal.detail)
            missed += [channel] if refusal.rule in NO_WAY else []
        elif channel is Channel.IN_APP:
            in_app = True
            rule = check_policy(kind, event.channels, channel)
            reasons[channel] = Reason(channel, "use", rule.rule, rule.detail)
        else:
            addressed.append(deliver(question, channel, event, notification, env))
            reasons[channel] = addressed[-1].reason
    for channel in missed:
        other = substitute(question, channel, {one.reason.channel for one in addressed if one.delivery})
        if other is not None:
            addressed.append(deliver(question, other, event, notification, env, instead_of=channel))
            reasons[other] = addressed[-1].reason
    deliveries = [one.delivery for one in addressed if one.delivery is not None]
    digests = [one.digest for one in addressed if one.digest is not None]
    decision = Decision(tuple(reasons.values()), in_app, tuple(deliveries), tuple(digests))
    # A delivery has its own id and moment, and a throttle counts each user's own.
    if usual is not None and env.memo is not None and not deliveries and not kind.definition.throttle:
        env.memo.decisions[usual] = (user.preferences, decision)  # kept, so that its id is nobody else's
    return decision


def _usual(event: Event, kind: TypeVersion, user: User) -> tuple[object, ...] | None:
    """All that decides about an event that does not expire; None for others. Users who chose alike share preferences."""
    if user.erased_at_us is not None or event.expires_at_us is not None:
        return None
    profile, chosen = user.profile, id(user.preferences)
    addressed = (profile.email is None, profile.phone is None, user.reachable, user.suppressed)
    return (kind.name, event.channels, event.actor, chosen, *addressed)


def plan_broadcast(
    event: Event,
    kind: TypeVersion,
    category: CategoryDefinition | None,
    audience: BroadcastAudience,
    seq: int,
    env: Environment,
) -> Broadcast:
    """Plan a broadcast: one row with a rendering for each locale of the type, for whoever may see it."""
    definition = kind.definition
    rendered = {
        locale: render_content(
            event,
            kind,
            NOBODY,
            locale or None,
            actor=env.actors.get(event.actor or ""),
            urls=env.urls,
        )
        for locale in ("", *definition.locales)
    }
    contents = {locale: one.content for locale, one in rendered.items()}
    if all(content == contents[""] for content in contents.values()):
        contents = {"": contents[""]}
    reasons = [
        _broadcast_reason(event, kind, channel, env) for channel in planned_channels(kind, event.channels)
    ]
    problems = [
        f"{locale}: {problem}" if locale else problem
        for locale, one in rendered.items()
        for problem in one.problems
    ]
    # A slash is in no user's id, so no user's notification has this id. The zone tells a local event's parts apart.
    suffix = "/" + (audience.timezones[0] if audience.timezones else "")
    defaults = category.defaults if category else {}
    return Broadcast(
        id=notification_id(event.id, suffix),
        seq=seq,
        event_id=event.id,
        type=event.type,
        category=definition.category,
        contents=contents,
        created_at_us=env.created_at_us,
        audience=audience,
        in_app=any(reason.channel is Channel.IN_APP and reason.verdict == "use" for reason in reasons),
        default_in_app=defaults.get(Channel.IN_APP, True),
        critical=definition.critical,
        reasons=(*reasons, *_notes(problems)),
        actor=event.actor,
        priority=event.priority,
        collapse_key=event.collapse_key,
        expires_at_us=event.expires_at_us,
    )


def merged_user(user: User | None, named: NamedUser) -> User:
    """A user with the fields that the event itself gives; the same object when it gives nothing new.

    What was erased does not come back with an older event.
    """
    known = user or User(Profile(named.id))
    if named == NamedUser(named.id):
        return known
    profile = known.profile
    given = {
        name: value
        for name in ("email", "phone", "name", "locale", "timezone")
        if (value := getattr(named, name)) is not None and value != getattr(profile, name)
    }
    return replace(known, profile=replace(profile, **given)) if given else known


# ---------------------------------------------------------------- channels


def planned_channels(kind: TypeVersion, channels: tuple[Channel, ...] | None) -> list[Channel]:
    """The channels that a plan says something about: those of the type and those that the event names."""
    own = kind.definition.channels
    return [channel for channel in _ALL if channel in own or (channels is not None and channel in channels)]


def _broadcast_reason(event: Event, kind: TypeVersion, channel: Channel, env: Environment) -> Reason:
    """What is known about a channel before anybody's preferences."""
    verdict = check_policy(kind, event.channels, channel)
    if not verdict.allowed:
        return Reason(channel, "refuse", verdict.rule, verdict.detail)
    if event.expires_at_us is not None and event.expires_at_us <= env.now_us:
        return Reason(channel, "refuse", "expired", RULES["expired"])
    if channel is not Channel.IN_APP and channel not in env.available:
        return Reason(channel, "refuse", "no_provider", f"No provider serves {channel}.")
    if channel in env.unused:
        return Reason(channel, "refuse", "no_address", f"Nobody has an address for {channel}.")
    rule = policy(kind, event.channels, channel)
    due_us = env.now_us if rule is None or channel is Channel.IN_APP else env.now_us + patience_us(rule)
    if event.expires_at_us is not None and event.expires_at_us <= due_us:
        detail = f"It would be due at {rfc3339(due_us)}; the event expires at {rfc3339(event.expires_at_us)}."
        return Reason(channel, "refuse", "expires_first", detail)
    return Reason(
        channel, "hold" if verdict.rule in ("offline", "unseen") else "use", verdict.rule, verdict.detail
    )


# ---------------------------------------------------------------- texts


def _choose(kind: TypeVersion, locale: str | None, memo: Memo | None) -> Chosen:
    chosen = memo.chosen.get((kind.name, locale)) if memo is not None else None
    if chosen is None:
        texts = own_texts(kind, locale)
        personal = reads_recipient(kind, texts)
        chosen = Chosen(pick_locale(kind.definition.locales, locale), texts, personal)
        if memo is not None:
            memo.chosen[kind.name, locale] = chosen
    return chosen


def _render(event: Event, kind: TypeVersion, profile: Profile, env: Environment, chosen: Chosen) -> Rendered:
    shared = env.memo.rendered if env.memo is not None and not chosen.personal else None
    key = (event.id, kind.name, chosen.locale)
    rendered = shared.get(key) if shared is not None else None
    if rendered is None:
        actor = env.actors.get(event.actor) if event.actor else None
        rendered = render_content(
            event, kind, profile, profile.locale, actor=actor, urls=env.urls, sources=chosen.texts
        )
        if shared is not None:
            shared[key] = rendered
    return rendered


def _notes(problems: tuple[str, ...] | list[str]) -> list[Reason]:
    return [Reason(Channel.IN_APP, "note", "template_error", problem) for problem in problems]
