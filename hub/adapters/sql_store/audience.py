"""The audience of a broadcast in SQL: its users with an address on a channel, page by page, and how many there are.

Topics are walked one after the other, each by the id of its subscribers, so that a page costs the same wherever it is;
who holds an earlier topic too was on a page of that one. A cursor is the place of the topic and the last id.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Select, and_, func, or_, select, union
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.tables import (
    broadcast_marks,
    broadcast_reached,
    devices,
    push_subscriptions,
    subscriptions,
    suppressions,
    users,
    watermarks,
)
from hub.model.events import BroadcastAudience
from hub.model.notifications import Broadcast
from hub.model.rules import address_of
from hub.model.users import Profile, Subscription, User
from hub.model.visibility import was_subscribed
from hub.model.vocabulary import Channel

_COLUMNS: Final = {Channel.EMAIL: users.c.email, Channel.SMS: users.c.phone}
_TARGETS: Final = {Channel.WEB_PUSH: push_subscriptions, Channel.MOBILE_PUSH: devices}


class Place(NamedTuple):
    """Where a walk stands: at which of the topics, and behind which user."""

    topic: int = 0
    after: str = ""

    def encode(self) -> str:
        """As a cursor."""
        return f"{self.topic}:{self.after}"


def place_of(cursor: str) -> Place:
    """The inverse of `encode`; an empty cursor is the beginning."""
    topic, _, after = cursor.partition(":")
    return Place(int(topic or 0), after)


class Walk:
    """One broadcast's audience on one channel."""

    def __init__(self, db: Database, broadcast: Broadcast, channel: Channel, default_timezone: str) -> None:
        self._db = db
        self._broadcast = broadcast
        self._audience = broadcast.audience
        self._channel = channel
        self._zones = _in_zones(db, broadcast.audience, default_timezone)
        # Whoever follows a topic is a user, so everyone includes all topics.
        self._topics = () if self._audience.everyone else tuple(dict.fromkeys(self._audience.topics))

    async def ids(self, connection: AsyncConnection, place: Place, limit: int) -> list[str]:
        """The next users with an address, by id."""
        if self._topics:
            if place.topic >= len(self._topics):
                return []
            page = self._subscribers(self._topics[place.topic], place.after, limit)
        else:
            page = self._everyone(place.after, limit)
        return list((await connection.scalars(page)).all())

    def following(self, place: Place, ids: Sequence[str], limit: int) -> Place | None:
        """Where the page behind these begins; None: there is none."""
        if len(ids) == limit:
            return Place(place.topic, ids[-1])
        return Place(place.topic + 1) if place.topic + 1 < len(self._topics) else None

    def is_new(self, user: User, place: Place) -> bool:
        """Whether a user was not on the page of an earlier topic."""
        seq = self._broadcast.seq
        return not any(was_subscribed(user, topic, seq) for topic in self._topics[: place.topic])

    async def count(self, connection: AsyncConnection) -> int:
        """How many users the audience has, with and without an address."""
        if not self._topics:
            whole: Select[Any] = select(func.count()).select_from(users).where(*self._zones)
        else:
            own = subscriptions.c
            whole = select(func.count(own.user_id.distinct())).where(
                self._db.among(own.topic, self._topics), *self._held()
            )
            if self._zones:
                whole = whole.join_from(subscriptions, users, users.c.id == own.user_id).where(*self._zones)
        return int(await connection.scalar(whole) or 0)

    # ------------------------------------------------------------ statements

    def _everyone(self, after: str, limit: int) -> Select[Any]:
        column = _COLUMNS.get(self._channel)
        if column is not None:
            page = select(users.c.id).where(column.is_not(None), users.c.id > after, *self._zones)
            return page.order_by(users.c.id).limit(limit)
        user_id = _TARGETS[self._channel].c.user_id
        page = select(user_id).distinct().where(user_id > after)
        if self._zones:
            page = page.outerjoin(users, users.c.id == user_id).where(*self._zones)
        return page.order_by(user_id).limit(limit)

    def _subscribers(self, topic: str, after: str, limit: int) -> Select[Any]:
        """Open and closed memberships have an index each: the first of each, merged. One at most holds a seq."""
        own = subscriptions.c
        is_open, is_closed = own.until_seq.is_(None), own.until_seq.is_not(None)
        parts = []
        for kind in (is_open, is_closed):
            page = select(own.user_id).where(own.topic == topic, kind, own.user_id > after)
            page = page.where(*self._held(), self._has_address()).order_by(own.user_id).limit(limit)
            parts.append(select(page.subquery().c.user_id))
        both = union(*parts).subquery()
        return select(both.c.user_id).order_by(both.c.user_id).limit(limit)

    def _held(self) -> tuple[ColumnElement[bool], ...]:
        """Memberships that hold the broadcast's seq."""
        own, seq = subscriptions.c, self._broadcast.seq
        return own.from_seq <= seq, or_(own.until_seq.is_(None), own.until_seq > seq)

    def _has_address(self) -> ColumnElement[bool]:
        """Asked of each member by index. As a join, a planner might read all addresses for every page."""
        user_id = subscriptions.c.user_id
        column = _COLUMNS.get(self._channel)
        if column is not None:
            known = select(users.c.id).where(users.c.id == user_id, column.is_not(None), *self._zones)
            return known.limit(1).scalar_subquery().is_not(None)
        table = _TARGETS[self._channel]
        target = select(table.c.user_id).where(table.c.user_id == user_id)
        if self._zones:
            target = target.join_from(table, users, users.c.id == table.c.user_id).where(*self._zones)
        return target.limit(1).scalar_subquery().is_not(None)


def _in_zones(
    db: Database, audience: BroadcastAudience, default_timezone: str
) -> tuple[ColumnElement[bool], ...]:
    """`hub.model.visibility.in_timezones` in SQL: of a broadcast at local times each part has its own users."""
    if audience.timezones is None:
        return ()
    zone = func.coalesce(func.nullif(users.c.timezone, ""), default_timezone)
    inside = db.among(zone, audience.timezones)
    return (inside,) if audience.other_than is None else (or_(inside, ~db.among(zone, audience.other_than)),)


# ---------------------------------------------------------------- what decisions about a page read


async def with_topics(
    db: Database, connection: AsyncConnection, audience: BroadcastAudience, found: Sequence[User]
) -> list[User]:
    """The users with their memberships in the audience's topics."""
    if not audience.topics or not found:
        return list(found)
    own = subscriptions.c
    rows = await connection.execute(
        select(subscriptions)
        .where(
            db.among(own.user_id, [user.profile.id for user in found]), db.among(own.topic, audience.topics)
        )
        .order_by(own.user_id, own.topic, own.from_seq)
    )
    intervals: dict[str, list[Subscription]] = {}
    for row in rows:
        intervals.setdefault(row.user_id, []).append(Subscription(row.topic, row.from_seq, row.until_seq))
    return [replace(user, subscriptions=tuple(intervals.get(user.profile.id, ()))) for user in found]


async def with_addresses(
    db: Database, connection: AsyncConnection, channel: Channel, found: Sequence[User]
) -> list[User]:
    """The users with what is known of their addresses on the channel: reachable (push), suppressed (the others)."""
    if channel in _TARGETS:
        return [replace(user, reachable=frozenset({channel})) for user in found]
    addresses = {user.profile.id: _spellings(address_of(user.profile, channel)) for user in found}
    if not any(addresses.values()):
        return list(found)
    rows = await connection.scalars(
        select(suppressions.c.address).where(
            suppressions.c.channel == channel.value,
            db.among(suppressions.c.address, sorted(set().union(*addresses.values()))),
        )
    )
    out = set(rows.all())
    suppressed = frozenset({channel})
    return [
        replace(user, suppressed=suppressed) if addresses[user.profile.id] & out else user for user in found
    ]


def _spellings(address: str | None) -> set[str]:
    """An address as it may stand among the suppressed: as it is, and with a lower-case domain."""
    if address is None:
        return set()
    local, at, domain = address.rpartition("@")
    return {address, f"{local}{at}{domain.lower()}"}


async def seen_by(
    db: Database, connection: AsyncConnection, broadcast: Broadcast, ids: Sequence[str]
) -> frozenset[str]:
    """Those of the users who saw the broadcast: by a mark of their own, else by a watermark."""
    if not ids:
        return frozenset()
    own = await connection.execute(
        select(broadcast_marks.c.user_id, broadcast_marks.c.seen_at_us).where(
            db.among(broadcast_marks.c.user_id, ids), broadcast_marks.c.seq == broadcast.seq
        )
    )
    marked = {row.user_id: row.seen_at_us is not None for row in own}
    through = await connection.scalars(
        select(watermarks.c.user_id).where(
            db.among(watermarks.c.user_id, ids),
            and_(
                watermarks.c.category.in_(("", broadcast.category)),
                watermarks.c.through_seq >= broadcast.seq,
            ),
        )
    )
    covered = {user_id for user_id in through.all() if user_id not in marked}
    return frozenset(covered | {user_id for user_id, has_seen in marked.items() if has_seen})


async def reached_by(
    db: Database, connection: AsyncConnection, seq: int, ids: Collection[str]
) -> frozenset[str]:
    """Those of the users whom the app reached with a broadcast that is still expanded for those whom it did not."""
    if not ids:
        return frozenset()
    own = broadcast_reached.c
    rows = await connection.scalars(select(own.user_id).where(own.seq == seq, db.among(own.user_id, ids)))
    return frozenset(rows.all())


def stranger(user_id: str) -> User:
    """Who has an address and no row of their own."""
    return User(Profile(user_id))
