"""The inbox: addressed notifications merged with broadcasts through `visible()`, their counts and marks.

What a user lists, has counted and gets live is one set, because all three ask the same function. Marks travel live
to the user's other connections; that message is a hint, the store is the truth.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from hub.counting import Counting, Counts, visible_broadcasts
from hub.errors import BusUnavailable, FieldError, Refused
from hub.livelog import LiveLog
from hub.model.events import Id
from hub.model.notifications import LiveMark, WireNotification, encode_live, wire_addressed, wire_broadcast
from hub.model.users import Profile, User
from hub.model.visibility import Visibility, visible
from hub.model.vocabulary import Channel, Mark, personal_channel
from hub.paging import decode_cursor, encode_cursor, invalid_cursor
from hub.ports import BroadcastRow, Clock, InboxQuery, LiveBus, LogEntry, Publication, Store

SortKey = tuple[int, str]


class MarkRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The body of `POST /v1/me/notifications/marks`: some ids, or all (of a category)."""

    mark: Mark
    ids: Annotated[list[str], Meta(min_length=1, max_length=100)] | None = None
    all: Literal[True] | None = None
    category: Id | None = None


class InboxParameters(Struct, frozen=True, forbid_unknown_fields=True):
    """What a page of the inbox is asked with."""

    limit: Annotated[int, Meta(ge=1, le=100, description="How many at most.")] = 50
    cursor: Annotated[str, Meta(max_length=512)] | None = None
    unread: bool = False
    category: Id | None = None
    archived: Literal["exclude", "only", "include"] = "exclude"


@dataclass(frozen=True, slots=True)
class _Item:
    key: SortKey
    wire: WireNotification


class Inbox:
    """One user's notifications, asked by id of the user (the caller has authorised it)."""

    def __init__(
        self,
        store: Store,
        bus: LiveBus,
        clock: Clock,
        default_timezone: str,
        read_user: Callable[[str], Awaitable[User]] | None = None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._default_timezone = default_timezone
        self._livelog = LiveLog(bus)
        self._counting = Counting(store, clock, default_timezone)
        self._user = read_user or self._load_user

    async def page(self, user_id: str, **parameters: Any) -> dict[str, Any]:
        """`page_of` with the parameters by name."""
        return await self.page_of(user_id, InboxParameters(**parameters))

    async def page_of(self, user_id: str, asked: InboxParameters) -> dict[str, Any]:
        """One page, newest first, with the counts. Raises `Refused(422, "invalid_cursor")`."""
        user = await self._user(user_id)
        limit = asked.limit
        query = InboxQuery(limit + 1, _decode(asked.cursor), asked.unread, asked.category, asked.archived)
        items = [
            _Item((row.created_at_us, row.id), wire_addressed(row))
            for row in await self._addressed(user_id, query)
        ]
        async for row, sight in self._broadcasts(user, query):
            wire = wire_broadcast(row.broadcast, sight.locale, sight.topic, row.marks)
            items.append(_Item((row.broadcast.created_at_us, row.broadcast.id), wire))
            if len(items) > 2 * limit + 2:
                break
        items.sort(key=lambda item: item.key, reverse=True)
        shown = items[:limit]
        following = encode_cursor(*shown[-1].key) if len(items) > limit else None
        counts = await self._counting.of(user_id)
        return {"notifications": [item.wire for item in shown], "next": following, **counts.json()}

    async def counts(self, user_id: str) -> Counts:
        """What a badge shows."""
        return await self._counting.of(user_id)

    async def mark(self, user_id: str, request: MarkRequest) -> dict[str, Any]:
        """Set marks and tell the user's other connections. Unknown ids are left out of `ids`."""
        if (request.ids is None) == (request.all is None):
            raise _wrong_marks("Give either `ids` or `all`.", "/ids")
        if request.all and request.mark not in ("seen", "read"):
            raise _wrong_marks("Only `seen` and `read` can be set on all.", "/mark")
        if request.category is not None and not request.all:
            raise _wrong_marks("`category` goes with `all`.", "/category")
        now_us = self._clock.now_us()
        user = await self._user(user_id)
        if request.all:
            through_seq = await self._store.top_broadcast_seq()
            await self._store.mark_all(user_id, request.mark, request.category, through_seq, now_us)
            changed = None
        else:
            changed = await self._mark_ids(user, request.mark, list(dict.fromkeys(request.ids or [])), now_us)
        counts = await self._counting.of(user_id)
        if changed != []:
            await self._tell(user_id, request, changed, counts)
            ids: list[str] | list[None] = changed or [None]
            await self._livelog.tell(
                [LogEntry(now_us, request.mark, None, user_id, one, Channel.IN_APP) for one in ids]
            )
        return {**counts.json(), **({} if changed is None else {"ids": changed})}

    async def _mark_ids(self, user: User, mark: Mark, ids: list[str], now_us: int) -> list[str]:
        addressed, candidates = await self._store.find_notifications(user.profile.id, ids)
        broadcasts = [row.broadcast for row in candidates if self._sight(user, row)]
        shown = [row.id for row in addressed if row.in_app]
        return await self._store.mark_ids(user.profile.id, mark, shown, broadcasts, now_us)

    async def _tell(
        self, user_id: str, request: MarkRequest, changed: list[str] | None, counts: Counts
    ) -> None:
        message = LiveMark(
            mark=request.mark,
            unread=counts.unread,
            unseen=counts.unseen,
            ids=None if changed is None else tuple(changed),
            all=request.all,
            category=request.category,
        )
        publication = Publication(personal_channel(user_id), encode_live(message), header="kind=mark")
        try:
            await self._bus.publish([publication])
        except BusUnavailable:
            return  # a hint: the other connections see the mark when they list again

    async def _load_user(self, user_id: str) -> User:
        found = await self._store.load_users([user_id], with_subscriptions=True)
        return found.get(user_id) or User(Profile(user_id))

    async def _addressed(self, user_id: str, query: InboxQuery) -> list[Any]:
        return await self._store.inbox_page(user_id, query, self._clock.now_us())

    def _broadcasts(self, user: User, query: InboxQuery) -> AsyncIterator[tuple[BroadcastRow, Visibility]]:
        return visible_broadcasts(self._store, user, query, self._clock.now_us(), self._default_timezone)

    def _sight(self, user: User, row: BroadcastRow) -> Visibility:
        return visible(row.broadcast, user, self._default_timezone)


def _decode(cursor: str | None) -> SortKey | None:
    if cursor is None:
        return None
    moment, notification_id = decode_cursor(cursor, 2)
    if not moment.isdecimal() or len(moment) > 18:
        raise invalid_cursor()
    return int(moment), notification_id


def _wrong_marks(detail: str, pointer: str) -> Refused:
    return Refused(422, "invalid_request", detail, [FieldError(pointer, "invalid_value", detail)])
