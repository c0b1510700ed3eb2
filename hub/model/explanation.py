"""Explaining: what every rule would say today about a user and a type, channel by channel.

Pure, and made of the same rules that planning asks, in the order in which they decide: it cannot tell another story
than the plan. Nothing is planned or counted by it.
"""

from msgspec import Struct

from hub.model.addressed import NO_WAY, substitute, takes_over
from hub.model.planning import planned_channels
from hub.model.preferences import Cause
from hub.model.rules import RULES, Question, check_policy, check_throttle, checks
from hub.model.types import CategoryDefinition, TypeVersion
from hub.model.users import User
from hub.model.vocabulary import Channel


class Explained(Struct, frozen=True):
    """One rule's say about one channel. `allows`: whether it lets the notification through."""

    channel: Channel
    rule: str
    allows: bool
    detail: str


def explain_rules(
    kind: TypeVersion,
    category: CategoryDefinition | None,
    user: User,
    available: frozenset[Channel],
    *,
    actor: str | None = None,
    topic: str | None = None,
    now_us: int = 0,
    recent: int = 0,
) -> list[Explained]:
    """Every rule that would apply today to a user and a type, channel by channel, in the order in which they decide.

    `recent`: how many notifications the type's throttle let through for this user in its time.
    """
    question = Question(kind, category, user, available, now_us, Cause(actor, topic), recent=recent)
    found: list[Explained] = []
    used: set[Channel] = set()
    missed: list[Channel] = []
    for channel in planned_channels(kind, None):
        verdicts = list(checks(question, channel))
        refusal = next((verdict for verdict in verdicts if not verdict.allowed), None)
        used |= {channel} if refusal is None else set()
        missed += [channel] if refusal is not None and refusal.rule in NO_WAY else []
        found += [Explained(channel, v.rule, v.allowed, v.detail) for v in verdicts]
        throttle = None if channel is Channel.IN_APP else check_throttle(question)
        found += [Explained(channel, throttle.rule, throttle.allowed, throttle.detail)] if throttle else []
        digest = kind.definition.digest
        if digest is not None and channel in digest.channels and not kind.definition.critical:
            found.append(
                Explained(channel, "digest", True, f"{RULES['digest'][:-1]} ({digest.window_seconds} s).")
            )
        quiet = user.preferences.quiet_hours
        if channel is not Channel.IN_APP and quiet is not None and not kind.definition.critical:
            detail = f"From {quiet.start} to {quiet.end} in the user's zone, this channel waits."
            found.append(Explained(channel, "quiet_hours", True, detail))
    for channel in missed:
        if (other := substitute(question, channel, used)) is not None:
            used.add(other)
            verdict = takes_over(channel, check_policy(kind, None, channel))
            # Of its own it is not used; as the other's stand-in it is, and by the other's policy.
            found = [
                one for one in found if one.channel is not other or one.rule not in ("never", "not_in_type")
            ]
            found.append(Explained(other, verdict.rule, verdict.allowed, verdict.detail))
    return found
