"""Expansion: a broadcast on an addressed channel becomes deliveries, one page of its audience after the other.

Pure. Everybody of a page ends in exactly one of two places: a delivery, or a count under the rule that refused it.
The type's policy counts as it was when the broadcast was planned; people's choices, addresses and topics as they are
when their page comes (topics: as they were at the broadcast's seq). Broadcasts are neither digested nor throttled.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from hub.model.addressed import may_fall_back, patience_us
from hub.model.deliveries import Delivery
from hub.model.events import Event
from hub.model.ids import delivery_id
from hub.model.notifications import Broadcast
from hub.model.preferences import Cause
from hub.model.rules import Question, checks, policy
from hub.model.schedule import quiet_until
from hub.model.types import CategoryDefinition, ChannelRule, TypeDefinition, TypeVersion
from hub.model.users import Profile, User
from hub.model.visibility import outside, ways
from hub.model.vocabulary import Channel

if TYPE_CHECKING:
    from hub.model.planning import Environment

_NOBODY: Final = User(Profile(""))


class Expansion(Struct, frozen=True):
    """A broadcast on its way to one addressed channel.

    `condition`: what the channel's policy waits for ("always", "offline", "unseen"). `cursor`: how far it is expanded;
    opaque. `audience`: counted with the last page, so None before it. `counts`: users per rule that got no delivery.
    `stopped`: "retracted" or "collapsed"; nobody more gets a delivery, and what still waits is cancelled.
    """

    broadcast_id: str
    channel: Channel
    seq: int
    event_id: str
    slice_key: str
    condition: str
    due_at_us: int
    fallback: tuple[Channel, ...] = ()
    cursor: str = ""
    audience: int | None = None
    deliveries: int = 0
    counts: Mapping[str, int] = {}
    stopped: str | None = None
    done_at_us: int | None = None

    @property
    def looked_at(self) -> int:
        """How many users were decided about so far."""
        return self.deliveries + sum(self.counts.values())

    @property
    def state(self) -> str:
        """Where it stands, in a word."""
        if self.done_at_us is not None:
            return "done"
        if self.stopped is not None:
            return "stopping"
        return "running" if self.cursor else "waiting"


class Expanded(NamedTuple):
    """What became of a page of users: deliveries, and how many got none by each rule."""

    deliveries: list[Delivery]
    counts: dict[str, int]


class Terms(Struct, frozen=True):
    """What is the same for all users of a page."""

    broadcast: Broadcast
    expansion: Expansion
    category: CategoryDefinition | None
    available: frozenset[Channel]
    default_timezone: str
    now_us: int


def expansions_of(row: Broadcast, event: Event, kind: TypeVersion, env: "Environment") -> list[Expansion]:
    """One for each addressed channel that the broadcast's plan does not refuse."""
    found = []
    for reason in row.reasons:
        if reason.channel is Channel.IN_APP or reason.verdict not in ("use", "hold"):
            continue
        rule = policy(kind, event.channels, reason.channel)
        assert rule is not None  # else the plan had refused it
        found.append(
            Expansion(
                broadcast_id=row.id,
                channel=reason.channel,
                seq=row.seq,
                event_id=row.event_id,
                slice_key=row.slice_key,
                condition=rule.when if rule.when in ("offline", "unseen") else "always",
                due_at_us=env.now_us + patience_us(rule),
                fallback=tuple(rule.fallback),
            )
        )
    return found


def expand(
    terms: Terms, users: Iterable[User], seen: frozenset[str], reached: frozenset[str] = frozenset()
) -> Expanded:
    """Decide about each of the users. `seen`: those who saw the broadcast, or said that they saw all up to it.

    `reached`: those whose app proved that it read it.
    """
    question = _question(terms)
    deliveries: list[Delivery] = []
    counts: Counter[str] = Counter()
    for user in users:
        looked = _looked(terms.expansion.condition, user.profile.id, seen, reached)
        decided = _decide(terms, question, user, looked)
        if isinstance(decided, Delivery):
            deliveries.append(decided)
        else:
            counts[decided] += 1
    return Expanded(deliveries, dict(counts))


def _question(terms: Terms) -> Question:
    """What the rules are asked, but for the user. The type says of the channel what it said at planning."""
    broadcast, expansion = terms.broadcast, terms.expansion
    definition = TypeDefinition(
        category=broadcast.category,
        critical=broadcast.critical,
        channels={expansion.channel: ChannelRule()},
    )
    return Question(
        kind=TypeVersion(broadcast.type, 0, definition),
        category=terms.category,
        user=_NOBODY,
        available=terms.available,
        now_us=terms.now_us,
        accepted_at_us=broadcast.created_at_us,  # whoever was erased before it and came back is somebody new
        expires_at_us=broadcast.expires_at_us,
    )


def _looked(condition: str, user_id: str, seen: frozenset[str], reached: frozenset[str]) -> str | None:
    """Why a user does not need what waits for this condition any more; None: they do."""
    if condition != "always" and user_id in seen:
        return "seen"
    return "reached" if condition == "offline" and user_id in reached else None


def _decide(terms: Terms, question: Question, user: User, looked: str | None) -> Delivery | str:
    """A delivery, or the rule that refused it: the first, in the order of `checks`; `looked` is the last of all."""
    broadcast, channel = terms.broadcast, terms.expansion.channel
    if (left_out := outside(broadcast.audience, user, terms.default_timezone)) is not None:
        return left_out.rule
    refused: str | None = None
    for topic in ways(broadcast.audience, broadcast.seq, user):
        asked = replace(question, user=user, cause=Cause(broadcast.actor, topic))
        refusal = next((verdict for verdict in checks(asked, channel) if not verdict.allowed), None)
        if refusal is None:
            return looked or _deliver(terms, asked)
        refused = refused or refusal.rule
    return refused or "not_in_audience"


def _deliver(terms: Terms, asked: Question) -> Delivery | str:
    broadcast, expansion, user = terms.broadcast, terms.expansion, asked.user
    due_us = terms.now_us
    if not broadcast.critical:
        zone = user.profile.timezone or terms.default_timezone
        due_us = quiet_until(user.preferences.quiet_hours, zone, due_us) or due_us
    if broadcast.expires_at_us is not None and due_us >= broadcast.expires_at_us:
        return "expires_first"
    channel = expansion.channel
    return Delivery(
        id=delivery_id(broadcast.id, channel, user.profile.id),
        user_id=user.profile.id,
        notification_id=broadcast.id,
        event_id=broadcast.event_id,
        type=broadcast.type,
        category=broadcast.category,
        channel=channel,
        state="held" if due_us > terms.now_us else "queued",
        created_at_us=broadcast.created_at_us,
        due_at_us=due_us,
        condition=expansion.condition,
        expires_at_us=broadcast.expires_at_us,
        fallback=tuple(other for other in expansion.fallback if may_fall_back(asked, other, channel)),
        slice_key=expansion.slice_key,
    )
