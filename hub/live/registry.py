"""Who is connected to this node: seats (one per wire) of members (one per user), and the indexes that fan-out reads.

Everything here is memory and changes at once. A member whose row is not loaded is `unready`: broadcasts wait for
them alone, in order.
"""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from hub.live.broadcasts import BroadcastEntry
from hub.live.channels import Channel
from hub.live.frames import PersonalFrame
from hub.live.seam import Frame, Wire
from hub.live.viewers import UNKNOWN, Viewer
from hub.model.users import Profile, Subscription, User
from hub.model.visibility import restricts

NEVER: Final = 1 << 62  # a seat that takes no broadcasts yet
_NO_TOPICS: Final[
    dict[str, list[Subscription]]
] = {}  # shared: one empty dict for each user would cost 64 bytes

T = TypeVar("T")


def without(things: tuple[T, ...], thing: T) -> tuple[T, ...]:
    """A tuple without this object."""
    return tuple([other for other in things if other is not thing])


class Seat:
    """One wire's place: what it gets, from where on, and what is held back until its reply is out."""

    __slots__ = (
        "broadcasts_after",
        "channels",
        "held",
        "joined",
        "left",
        "member",
        "replied",
        "revoked",
        "unproven",
        "wire",
    )

    def __init__(self, wire: Wire, member: "Member") -> None:
        self.wire = wire
        self.member = member
        self.channels: tuple[Channel[PersonalFrame], ...] = ()  # personal, and `log` of operators
        self.broadcasts_after = NEVER  # the node's sequence at the join: later ones are live
        self.held: dict[str, list[Frame | None]] | None = {}  # per channel; None in a list: a gap
        self.unproven: list[tuple[str, int]] | None = None  # (notification id, written_at_us)
        self.replied: list[str] | None = None  # notifications to report that go out with the reply
        self.joined = False
        self.left = False
        self.revoked = False


class Member:
    """One connected user."""

    __slots__ = (
        "backlog",
        "loading",
        "locale",
        "outdated",
        "ready",
        "restricted",
        "seats",
        "topics",
        "user",
        "user_at_us",
        "user_id",
    )

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.seats: tuple[Seat, ...] = ()
        self.user: User | None = None  # None: not loaded yet; may be `UNKNOWN`
        self.user_at_us = 0
        self.ready = False  # `user` may be used; otherwise broadcasts wait in `backlog`
        self.loading: asyncio.Future[Viewer] | None = None
        self.outdated = False  # what `loading` brought is too old
        self.restricted = False
        self.locale: str | None = None
        self.topics = _NO_TOPICS
        self.backlog: tuple[BroadcastEntry, ...] = ()

    @property
    def is_addressed(self) -> bool:
        """Whether anything but the app could reach the user: only then is it worth a ping that the app did."""
        user = self.user
        return user is not None and bool(user.reachable or user.profile.email or user.profile.phone)

    def viewer(self) -> User:
        """The user as `visible` reads one; the row must have been loaded."""
        assert self.user is not None
        return User(Profile(self.user_id)) if self.user is UNKNOWN else self.user


class Registry:
    """All seats and members of a node."""

    def __init__(self) -> None:
        self.members: dict[str, Member] = {}
        self.seats: dict[str, Seat] = {}  # by connection id
        self.unready: dict[Member, None] = {}
        self.broadcast_seq = 0  # the greatest that was seen
        self._by_topic: dict[str, dict[Member, None]] = {}
        self._by_age: dict[Member, None] = {}  # the oldest row first

    def add(self, wire: Wire) -> Seat:
        """Take a wire in; its member is made when it is the user's first."""
        user_id = wire.identity.user_id
        member = self.members.get(user_id)
        if member is None:
            member = self.members[user_id] = Member(user_id)
            self.unready[member] = None
        seat = Seat(wire, member)
        member.seats += (seat,)
        self.seats[wire.connection_id] = seat
        return seat

    def remove(self, seat: Seat) -> None:
        """Forget a seat, and its member with the last one."""
        member = seat.member
        del self.seats[seat.wire.connection_id]
        member.seats = without(member.seats, seat)
        if not member.seats:
            del self.members[member.user_id]
            self.unready.pop(member, None)
            self._by_age.pop(member, None)
            self._leave_topics(member)

    def set_user(self, member: Member, user: User, at_us: int) -> None:
        """The member's row is known."""
        member.user_at_us = at_us
        member.ready = True
        self.unready.pop(member, None)
        self._by_age.pop(member, None)
        self._by_age[member] = None
        if member.user == user:
            return
        self._leave_topics(member)
        member.user = user
        member.restricted = restricts(user)
        member.locale = user.profile.locale
        topics: dict[str, list[Subscription]] = {}
        for subscription in user.subscriptions:
            # Of the closed ones only those that hold broadcasts which are still to come.
            if subscription.until_seq is None or subscription.until_seq > self.broadcast_seq + 1:
                topics.setdefault(subscription.topic, []).append(subscription)
        member.topics = topics or _NO_TOPICS
        for topic in member.topics:
            self._by_topic.setdefault(topic, {})[member] = None

    def set_unready(self, member: Member) -> None:
        """The member's row is to be loaded (again)."""
        member.ready = False
        self.unready[member] = None

    def older_than(self, at_us: int, limit: int) -> list[Member]:
        """Members whose row was read before a moment, the oldest first; they count as young for the next call."""
        found = []
        for member in islice(self._by_age, limit):
            if member.user_at_us >= at_us:
                break
            found.append(member)
        for member in found:
            del self._by_age[member]
            self._by_age[member] = None
        return found

    def subscribers(self, topics: Iterable[str]) -> Iterator[Member]:
        """Members with an interval on one of the topics; some may come twice."""
        for topic in topics:
            yield from self._by_topic.get(topic, ())

    def _leave_topics(self, member: Member) -> None:
        for topic in member.topics:
            others = self._by_topic[topic]
            others.pop(member, None)
            if not others:
                del self._by_topic[topic]
        member.topics = _NO_TOPICS
