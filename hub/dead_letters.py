"""Dead letters: what could not be delivered or planned, for operators to look at and to try again.

A replay never loses anything: what cannot be tried again stays as it was, with its reason. It may send twice what was
`unknown` (an SMS whose provider did not say whether it took it), so that needs to be asked for.
"""

from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from hub.errors import FieldError, Refused
from hub.livelog import LiveLog
from hub.model.deliveries import Delivery
from hub.model.notifications import rfc3339
from hub.model.schedule import parse_moment
from hub.model.vocabulary import Channel
from hub.paging import decode_cursor, encode_cursor, invalid_cursor
from hub.ports import Clock, DeadQuery, DeadSlice, LiveBus, PastAttempt, Replay, Store

REASONS: Final[dict[str, str]] = {
    "not_dead": "There is nothing dead with this id.",
    "unknown": 'It may have arrived; "unknown": true tries it again, and may deliver it twice.',
    "payload_gone": "The event that it is made of is not kept any more.",
    "retracted": "The event was retracted.",
    "collapsed": "A newer notification with the same collapse key took its place.",
    "expired": "The event has expired.",
    "erased": "The user was erased.",
    "unreadable": "What is kept of it is no event.",
    "scheduled": "The moments of a scheduled event were never found; publish it again.",
}
"""Why something is not tried again, as a closed list."""

PORTION: Final = 500  # of one transaction
SHOWN: Final = 100  # refusals that an answer names; all are counted

Kind = Literal["delivery", "event"]


class DeadFilter(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which dead letters. `since`: of notifications that were made (events that were set aside) at or after this moment."""

    kind: Kind = "delivery"
    channel: Channel | None = None
    provider: Annotated[str, Meta(max_length=200)] | None = None
    reason: Annotated[str, Meta(max_length=200)] | None = None
    since: Annotated[str, Meta(description="RFC 3339, UTC.")] | None = None


class ReplayRequest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What to try again: up to 1,000 ids, or what a filter finds, newest first, up to `limit`.

    Ids of deliveries (`dlv_…`) and of rejected events. `unknown`: also deliveries in the state `unknown`.
    """

    ids: Annotated[list[Annotated[str, Meta(max_length=300)]], Meta(min_length=1, max_length=1000)] | None = (
        None
    )
    filter: DeadFilter | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    unknown: bool = False


class _Tally:
    """What became of all portions of a replay."""

    def __init__(self) -> None:
        self._replayed = 0
        self._refused: Counter[str] = Counter()
        self._named: list[dict[str, str]] = []

    def add(self, replay: Replay) -> None:
        """Count one portion."""
        self._replayed += len(replay.log)
        self._refused.update(replay.refused.values())
        for id_, reason in replay.refused.items():
            if len(self._named) < SHOWN:
                self._named.append({"id": id_, "reason": reason, "detail": REASONS[reason]})

    def json(self) -> dict[str, Any]:
        """As an answer."""
        refused = dict(sorted(self._refused.items()))
        return {"replayed": self._replayed, "refused": refused, "refusals": self._named}


class DeadLetters:
    """The calls on `/v1/dead-letters`."""

    def __init__(self, store: Store, bus: LiveBus, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._livelog = LiveLog(bus)

    async def list(self, asked: DeadFilter, limit: int, cursor: str | None) -> dict[str, Any]:
        """A page, newest first. Raises `Refused(422)`."""
        since_us = _moment(asked.since)
        if asked.kind == "event":
            before = _slice_key(cursor)
            slices = await self._store.dead_slices(before, since_us, limit + 1)
            rows = [_dead_event(row) for row in slices[:limit]]
            last = slices[limit - 1] if len(slices) > limit else None
            following = encode_cursor(last.at_us, last.event_id, last.slice_key) if last else None
        else:
            query = _query(asked, since_us, limit + 1, _delivery_key(cursor))
            found = await self._store.dead_deliveries(query)
            attempts = await self._store.attempts_of(found[:limit])
            rows = [_dead_delivery(row, attempts.get((row.user_id, row.id), ())) for row in found[:limit]]
            last_one = found[limit - 1] if len(found) > limit else None
            following = encode_cursor(last_one.created_at_us, last_one.id) if last_one else None
        return {"dead_letters": rows, "next": following}

    async def replay(self, request: ReplayRequest) -> dict[str, Any]:
        """Try again; returns counts, and why what stays stays. Raises `Refused(422)`."""
        tally = _Tally()
        if (request.ids is None) == (request.filter is None):
            raise _wrong("Give either `ids` or `filter`.", "/ids")
        if request.ids is not None:
            await self._replay_ids(list(dict.fromkeys(request.ids)), request.unknown, tally)
        elif request.filter is not None and request.filter.kind == "event":
            await self._replay_events(request.filter, request.limit, tally)
        elif request.filter is not None:
            await self._replay_deliveries(request.filter, request.limit, request.unknown, tally)
        return tally.json()

    async def _replay_ids(self, ids: Sequence[str], unknown: bool, tally: _Tally) -> None:
        deliveries = [id_ for id_ in ids if id_.startswith("dlv_")]
        events = [id_ for id_ in ids if not id_.startswith("dlv_")]
        await self._in_portions(deliveries, lambda some: self._again(some, unknown), tally)
        await self._in_portions(events, self._events_again, tally)

    async def _replay_deliveries(self, which: DeadFilter, limit: int, unknown: bool, tally: _Tally) -> None:
        query = _query(which, _moment(which.since), 0, None)
        if not unknown:
            query = replace(query, states=("dead",))
        while limit > 0:
            found = await self._store.dead_deliveries(replace(query, limit=min(limit, PORTION)))
            if not found:
                return
            await self._in_portions([row.id for row in found], lambda some: self._again(some, unknown), tally)
            limit -= len(found)
            query = replace(query, before=(found[-1].created_at_us, found[-1].id))

    async def _replay_events(self, which: DeadFilter, limit: int, tally: _Tally) -> None:
        since_us = _moment(which.since)
        before: tuple[int, str, str] | None = None
        while limit > 0:
            found = await self._store.dead_slices(before, since_us, min(limit, PORTION))
            if not found:
                return
            ids = list(dict.fromkeys(row.event_id for row in found))
            await self._in_portions(ids, self._events_again, tally)
            limit -= len(found)
            before = (found[-1].at_us, found[-1].event_id, found[-1].slice_key)

    async def _in_portions(
        self,
        ids: Sequence[str],
        again: Callable[[Sequence[str]], Coroutine[Any, Any, Replay]],
        tally: _Tally,
    ) -> None:
        for first in range(0, len(ids), PORTION):
            replay = await again(ids[first : first + PORTION])
            tally.add(replay)
            await self._livelog.tell(replay.log)

    async def _again(self, ids: Sequence[str], unknown: bool) -> Replay:
        return await self._store.replay_deliveries(ids, self._clock.now_us(), unknown=unknown)

    async def _events_again(self, ids: Sequence[str]) -> Replay:
        return await self._store.replay_events(ids, self._clock.now_us())


def attempt_json(attempt: PastAttempt) -> dict[str, Any]:
    """An attempt as clients get it."""
    return {
        "number": attempt.number,
        "provider": attempt.provider,
        "outcome": attempt.outcome,
        "code": attempt.code,
        "detail": attempt.detail,
        "at": rfc3339(attempt.started_at_us),
        "duration_ms": attempt.duration_us / 1000,
        "repeat": attempt.is_repeat,
    }


def delivery_json(row: Delivery, attempts: Sequence[PastAttempt]) -> dict[str, Any]:
    """A delivery as clients get it, with its attempts, oldest first."""
    return {
        "id": row.id,
        "user": row.user_id,
        "notification": row.notification_id,
        "channel": row.channel,
        "state": row.state,
        "reason": row.reason,
        "provider": row.provider,
        "due_at": rfc3339(row.due_at_us),
        "created_at": rfc3339(row.created_at_us),
        "attempts": [attempt_json(attempt) for attempt in attempts],
    }


def _dead_delivery(row: Delivery, attempts: Sequence[PastAttempt]) -> Mapping[str, Any]:
    shown = delivery_json(row, attempts)
    return {"kind": "delivery", **shown, "event": row.event_id, "type": row.type, "category": row.category}


def _dead_event(row: DeadSlice) -> Mapping[str, Any]:
    return {
        "kind": "event",
        "id": row.event_id,
        "event": row.event_id,
        "slice": row.slice_key,
        "type": row.type,
        "state": "rejected",
        "reason": "planning_error",
        "detail": row.error,
        "created_at": rfc3339(row.at_us),
    }


def _query(asked: DeadFilter, since_us: int | None, limit: int, before: tuple[int, str] | None) -> DeadQuery:
    channel = asked.channel.value if asked.channel else None
    return DeadQuery(limit, before, channel, asked.provider, asked.reason, since_us)


def _moment(text: str | None) -> int | None:
    try:
        return parse_moment(text) if text is not None else None
    except ValueError as error:
        raise _wrong(str(error), "/since") from None


def _delivery_key(cursor: str | None) -> tuple[int, str] | None:
    if cursor is None:
        return None
    moment, id_ = decode_cursor(cursor, 2)
    return _number(moment), id_


def _slice_key(cursor: str | None) -> tuple[int, str, str] | None:
    if cursor is None:
        return None
    moment, event_id, slice_key = decode_cursor(cursor, 3)
    return _number(moment), event_id, slice_key


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or len(text) > 18:
        raise invalid_cursor()
    return int(text)


def _wrong(detail: str, pointer: str) -> Refused:
    return Refused(422, "invalid_request", detail, [FieldError(pointer, "invalid_value", detail)])
