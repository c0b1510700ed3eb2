"""An addressed channel that nothing refuses: when its delivery is due, what it waits for, or why it is not worth it.

Pure. The policy says what is waited for, throttles and digests collect, quiet hours shift, and what would come after
the event expired is not made. Critical types are neither collected nor shifted.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Final, NamedTuple

from hub.model.deliveries import Delivery
from hub.model.digests import DigestId, OpenDigest, Place, find_place, with_one_more
from hub.model.events import Event
from hub.model.ids import delivery_id
from hub.model.notifications import Reason, rfc3339
from hub.model.preferences import Verdict, allows
from hub.model.rules import RULES, Question, check_address, check_policy, check_throttle, policy
from hub.model.schedule import quiet_until
from hub.model.types import ChannelRule, Digest
from hub.model.vocabulary import Channel

if TYPE_CHECKING:
    from hub.model.planning import Environment

OFFLINE_GRACE_SECONDS: Final = 5  # for nodes to prove and report that the app reached the user
NO_WAY: Final = frozenset(
    {"no_provider", "no_address", "suppressed_address"}
)  # rules after which others take over
_SECOND_US: Final = 1_000_000


class Addressed(NamedTuple):
    """What becomes of one addressed channel. `digest`: what its digest has become."""

    reason: Reason
    delivery: Delivery | None = None
    digest: tuple[DigestId, OpenDigest] | None = None


class _Collected(NamedTuple):
    """Into which digest a delivery goes, and where it stands there."""

    id: DigestId
    known: OpenDigest | None
    place: Place
    verdict: Verdict


def deliver(
    question: Question,
    channel: Channel,
    event: Event,
    notification_id: str,
    env: "Environment",
    instead_of: Channel | None = None,
) -> Addressed:
    """The delivery of a notification on an addressed channel that no rule refuses.

    `instead_of`: the channel that it takes over from, whose policy counts then.
    """
    rule = policy(question.kind, question.channels, instead_of or channel)
    assert rule is not None  # the policy was asked before
    throttle = check_throttle(question)
    too_many = throttle if throttle is not None and not throttle.allowed else None
    digest = _digest_of(question, channel, too_many is not None)
    if too_many is not None and digest is None:
        return Addressed(Reason(channel, "refuse", too_many.rule, too_many.detail))
    verdict = check_policy(question.kind, question.channels, instead_of or channel)
    if instead_of is not None:
        verdict = takes_over(instead_of, verdict)
    due_us = question.now_us + patience_us(rule)
    collected = None
    if digest is not None:
        soonest_us = due_us if rule.when == "offline" else question.now_us
        collected = _collect(digest, question, channel, event, env, due_us, soonest_us, too_many)
        due_us = collected.place.due_at_us
        verdict = verdict if collected.place.at_once else collected.verdict
    if (quiet_us := _quiet_until(question, due_us, env)) is not None:
        due_us = quiet_us
        verdict = Verdict(True, "quiet_hours", f"Quiet hours hold until {rfc3339(quiet_us)}.")
    if event.expires_at_us is not None and due_us >= event.expires_at_us:
        detail = f"It would be due at {rfc3339(due_us)}; the event expires at {rfc3339(event.expires_at_us)}."
        return Addressed(Reason(channel, "refuse", "expires_first", detail))
    waits = rule.when in ("offline", "unseen") or due_us > question.now_us
    waits = waits or (collected is not None and not collected.place.at_once)
    chain = rule.fallback
    if instead_of is not None:
        chain = chain[chain.index(channel) + 1 :]
    delivery = Delivery(
        id=delivery_id(notification_id, channel),
        user_id=question.user.profile.id,
        notification_id=notification_id,
        event_id=event.id,
        type=event.type,
        category=question.kind.definition.category,
        channel=channel,
        state="held" if waits else "queued",
        created_at_us=env.created_at_us,
        due_at_us=due_us,
        condition=rule.when if rule.when in ("offline", "unseen") else "always",
        digest_key=collected.id.key if collected else None,
        expires_at_us=event.expires_at_us,
        fallback=tuple(other for other in chain if may_fall_back(question, other, channel)),
        throttled=throttle is not None and throttle.allowed,
    )
    reason = Reason(channel, "hold" if waits else "use", verdict.rule, verdict.detail)
    if collected is None:
        return Addressed(reason, delivery)
    become = with_one_more(collected.known, collected.place, due_us, question.now_us, waits=waits)
    return Addressed(reason, delivery, (collected.id, become))


def substitute(question: Question, channel: Channel, used: Collection[Channel]) -> Channel | None:
    """The channel that takes over from one that has no provider or no address in use: the first that can be used.

    None: there is none, or the notification goes out on it anyway (`used`).
    """
    rule = policy(question.kind, question.channels, channel)
    for other in rule.fallback if rule is not None else ():
        usable = all(verdict.allowed for verdict in check_address(question, other))
        if usable and may_fall_back(question, other, channel):
            return None if other in used else other
    return None


def takes_over(channel: Channel, verdict: Verdict) -> Verdict:
    """Why a channel is used that takes over from another one; `verdict`: of the other's policy."""
    return Verdict(True, "takes_over", f"It takes over from {channel}. {verdict.detail}")


def patience_us(rule: ChannelRule) -> int:
    """How long a channel waits for the app to reach its user, by its policy alone."""
    if rule.when == "offline":
        return OFFLINE_GRACE_SECONDS * _SECOND_US
    return rule.after_seconds * _SECOND_US if rule.when == "unseen" else 0


def _digest_of(question: Question, channel: Channel, too_many: bool) -> Digest | None:
    """How a channel collects: as the type's digest says, or else its throttle, for what is too much."""
    definition = question.kind.definition
    throttle, digest = definition.throttle, definition.digest
    if definition.critical or (too_many and throttle is not None and throttle.then == "drop"):
        return None
    if digest is not None and channel in digest.channels:
        return digest
    return Digest([channel], throttle.per_seconds) if too_many and throttle is not None else None


def _collect(
    digest: Digest,
    question: Question,
    channel: Channel,
    event: Event,
    env: "Environment",
    own_due_us: int,
    soonest_us: int,
    too_many: Verdict | None,
) -> _Collected:
    id_ = DigestId(question.user.profile.id, channel, event.digest_key or question.kind.name)
    known = env.digests.get(id_)
    place = find_place(digest, known, question.now_us, own_due_us, soonest_us)
    detail = f"{RULES['digest'][:-1]} ({digest.window_seconds} s)."
    if too_many is not None:
        detail = f"{too_many.detail} {detail}"
    return _Collected(id_, known, place, Verdict(True, "digest", detail))


def _quiet_until(question: Question, due_us: int, env: "Environment") -> int | None:
    if question.kind.definition.critical:
        return None
    zone = question.user.profile.timezone or env.default_timezone
    return quiet_until(question.user.preferences.quiet_hours, zone, due_us)


def may_fall_back(question: Question, other: Channel, channel: Channel) -> bool:
    """Whether the user allows a fallback. Address and provider are looked at when it is needed."""
    definition = question.kind.definition
    return (
        other not in (channel, Channel.IN_APP)
        and allows(
            question.user.preferences,
            definition.category,
            question.defaults,
            other,
            actor=question.cause.actor,
            topic=question.cause.topic,
            critical=definition.critical,
        ).allowed
    )
