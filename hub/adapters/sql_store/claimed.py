"""What a sender gets of the deliveries that it claimed: a handful of statements, however many there are.

All of one moment. What is gone (an erased user, a retracted notification, an event that is not kept) is said, not left
out: the sender decides what becomes of its delivery.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql_store.bulk import RowsStatement
from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.inbox import Watermarks
from hub.adapters.sql_store.rows import (
    broadcast_of,
    content_of,
    delivery_of,
    marks_of,
    preferences_of,
    profile_of,
)
from hub.adapters.sql_store.situation import retracted_among
from hub.adapters.sql_store.suppressions import suppressed_pairs
from hub.adapters.sql_store.tables import (
    broadcast_marks,
    broadcasts,
    deliveries,
    devices,
    payloads,
    push_subscriptions,
    users,
    watermarks,
)
from hub.model.deliveries import Delivery
from hub.model.events import Event, decode_slice
from hub.model.notifications import Content
from hub.model.outgoing import Target
from hub.model.preferences import pick_locale
from hub.model.users import Profile, User
from hub.model.vocabulary import Channel
from hub.ports import Claimed

_ADDRESSES = {Channel.EMAIL: "email", Channel.SMS: "phone"}
_PUSH = frozenset({Channel.WEB_PUSH, Channel.MOBILE_PUSH})


# Pair by pair: two lists would be looked up crosswise.
_NOTIFICATIONS: Final = RowsStatement(
    "SELECT notifications.user_id, notifications.id, content, hidden, reached_at_us, seen_at_us"
    " FROM {rows} CROSS JOIN notifications"  # SQLite keeps this order
    " WHERE notifications.user_id = given.user_id AND notifications.id = given.id",
    user_id="text",
    id="text",
)


class _Seen(NamedTuple):
    """What is known of a notification, addressed or broadcast, for one user."""

    content: Content | None
    hidden: str | None
    reached_at_us: int | None
    seen_at_us: int | None
    is_broadcast: bool = False


async def load_claimed(connection: AsyncConnection, db: Database, claim: str) -> list[Claimed]:
    """The deliveries of a claim with all that sending them needs, in the order in which they are due."""
    page = select(deliveries).where(deliveries.c.claim == claim).order_by(deliveries.c.created_at_us)
    rows = [delivery_of(row) for row in await connection.execute(page)]
    if not rows:
        return []
    events = await _events(connection, db, rows)
    actors = {event.actor for event in events.values() if event.actor}
    people = await _people(connection, db, {row.user_id for row in rows} | actors)
    seen = await _notifications(connection, db, rows)
    missing = [row for row in rows if (row.user_id, row.notification_id) not in seen]
    seen |= await _broadcasts(connection, db, missing, people)
    gone = await retracted_among(db, connection, {row.event_id for row in rows})
    targets, suppressed = await _targets(connection, db, rows, people)
    found = []
    for row in rows:
        event = events.get((row.event_id, row.slice_key))
        known = seen.get((row.user_id, row.notification_id)) or _Seen(None, "erased", None, None)
        actor = people.get(event.actor) if event is not None and event.actor else None
        found.append(
            Claimed(
                delivery=row,
                user=people.get(row.user_id) or User(Profile(row.user_id)),
                content=known.content,
                event=event,
                actor=actor.profile if actor else None,
                targets=targets.get(row.user_id, {}),
                suppressed=suppressed.get(row.user_id, frozenset()),
                hidden="retracted" if row.event_id in gone else known.hidden,
                reached_at_us=known.reached_at_us,
                seen_at_us=known.seen_at_us,
                is_broadcast=known.is_broadcast,
            )
        )
    return found


async def _events(
    connection: AsyncConnection, db: Database, rows: Sequence[Delivery]
) -> dict[tuple[str, str], Event]:
    page = select(payloads).where(db.among(payloads.c.event_id, {row.event_id for row in rows}))
    wanted = {(row.event_id, row.slice_key) for row in rows}
    return {
        (row.event_id, row.slice_key): decode_slice(row.raw).event
        for row in await connection.execute(page)
        if (row.event_id, row.slice_key) in wanted
    }


async def _people(connection: AsyncConnection, db: Database, ids: set[str]) -> dict[str, User]:
    rows = await connection.execute(select(users).where(db.among(users.c.id, ids)))
    return {row.id: User(profile_of(row), preferences_of(row.preferences), row.version) for row in rows}


async def _notifications(
    connection: AsyncConnection, db: Database, rows: Sequence[Delivery]
) -> dict[tuple[str, str], _Seen]:
    wanted = sorted({(row.user_id, row.notification_id) for row in rows})
    return {
        (user_id, id_): _Seen(content_of(content), hidden, reached_at_us, seen_at_us)
        for user_id, id_, content, hidden, reached_at_us, seen_at_us in await _NOTIFICATIONS.rows(
            db, connection, wanted
        )
    }


async def _broadcasts(
    connection: AsyncConnection, db: Database, rows: Sequence[Delivery], people: dict[str, User]
) -> dict[tuple[str, str], _Seen]:
    """Broadcasts in each user's locale, with their own marks or what their watermarks say."""
    if not rows:
        return {}
    ids = {row.notification_id for row in rows}
    found = await connection.execute(select(broadcasts).where(db.among(broadcasts.c.id, ids)))
    shared = {row.id: (broadcast_of(row), row.hidden) for row in found}
    of_users = {row.user_id for row in rows}
    seqs = [broadcast.seq for broadcast, _ in shared.values()]
    if not seqs:
        return {}
    own = await connection.execute(
        select(broadcast_marks).where(
            and_(db.among(broadcast_marks.c.user_id, of_users), db.among(broadcast_marks.c.seq, seqs))
        )
    )
    marks = {(row.user_id, row.seq): marks_of(row) for row in own}
    through: dict[str, list[Any]] = {}
    for row in await connection.execute(select(watermarks).where(db.among(watermarks.c.user_id, of_users))):
        through.setdefault(row.user_id, []).append(row)
    seen = {}
    for delivery in rows:
        if delivery.notification_id not in shared:
            continue
        broadcast, hidden = shared[delivery.notification_id]
        user = people.get(delivery.user_id)
        content = broadcast.contents[pick_locale(broadcast.contents, user.profile.locale if user else None)]
        marked = marks.get((delivery.user_id, broadcast.seq)) or Watermarks(
            through.get(delivery.user_id, ())
        ).marks_on(broadcast.seq, broadcast.category)
        seen[delivery.user_id, delivery.notification_id] = _Seen(
            content, hidden, None, marked.seen_at_us, True
        )
    return seen


async def _targets(
    connection: AsyncConnection, db: Database, rows: Sequence[Delivery], people: dict[str, User]
) -> tuple[dict[str, dict[Channel, tuple[Target, ...]]], dict[str, frozenset[Channel]]]:
    """Where each user can be reached, on the channels that the deliveries use or may fall back to."""
    used = {channel for row in rows for channel in (row.channel, *row.fallback)}
    ids = {row.user_id for row in rows}
    targets: dict[str, dict[Channel, tuple[Target, ...]]] = {}
    suppressed: dict[str, frozenset[Channel]] = {}
    addresses = [
        (user_id, channel, address)
        for user_id in ids
        if user_id in people
        for channel, field in _ADDRESSES.items()
        if channel in used and (address := getattr(people[user_id].profile, field))
    ]
    if addresses:
        out = await suppressed_pairs(
            db, connection, {(channel, address) for _, channel, address in addresses}
        )
        for user_id, channel, address in addresses:
            if (channel, address) in out:
                suppressed[user_id] = suppressed.get(user_id, frozenset()) | {channel}
            else:
                targets.setdefault(user_id, {})[channel] = (Target(address, address),)
    for channel in sorted(used & _PUSH):
        for user_id, found in (await _push_targets(connection, db, channel, ids)).items():
            targets.setdefault(user_id, {})[channel] = tuple(found)
    return targets, suppressed


async def _push_targets(
    connection: AsyncConnection, db: Database, channel: Channel, ids: set[str]
) -> dict[str, list[Target]]:
    table = push_subscriptions if channel is Channel.WEB_PUSH else devices
    page = (
        select(table)
        .where(db.among(table.c.user_id, ids))
        .order_by(table.c.user_id, table.c.used_at_us.desc())
    )
    found: dict[str, list[Target]] = {}
    for row in await connection.execute(page):
        if channel is Channel.WEB_PUSH:
            target = Target(row.id, row.endpoint, {"p256dh": row.p256dh, "auth": row.auth})
        else:
            target = Target(row.id, row.token, {"platform": row.platform})
        found.setdefault(row.user_id, []).append(target)
    return found
