"""Events after a 202: their state, their notifications and deliveries, and their retraction at any stage.

An id that we gave is never unknown: until SQL has the event, its keyed checksum proves that it was accepted.
"""

from time import perf_counter
from typing import Any, Final

from hub.dead_letters import delivery_json
from hub.errors import Refused
from hub.inbox import Inbox
from hub.intake import scoped_key
from hub.live.broadcasts import encode_broadcast_retracted
from hub.livelog import log_publication
from hub.model.expansion import Expansion
from hub.model.ids import EventIds
from hub.model.notifications import (
    Broadcast,
    LiveRetracted,
    Notification,
    encode_live,
    rfc3339,
    wire_addressed,
    wire_broadcast,
)
from hub.model.vocabulary import BROADCASTS, personal_channel
from hub.paging import decode_cursor, encode_cursor
from hub.ports import Clock, EventQueue, EventRecord, LiveBus, LogEntry, Publication, Store

KEY_PREFIX: Final = "key:"
COUNTING_SECONDS: Final = (
    0.1  # of a retraction: a few queries for each user, and the others are still to be told
)


class Events:
    """The calls on `/v1/events/{id}`."""

    def __init__(
        self, *, store: Store, queue: EventQueue, bus: LiveBus, ids: EventIds, clock: Clock, inbox: Inbox
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._queue = queue
        self._bus = bus
        self._ids = ids
        self._clock = clock

    async def status(self, reference: str, key_id: str) -> dict[str, Any]:
        """State and sums. `reference` is an event id or `key:<idempotency key>`. Raises `Refused(404)`."""
        event_id = await self._resolve(reference, key_id)
        record = await self._store.event(event_id)
        if record is None:
            accepted_at_us = self._ids.accepted_at_us(event_id)
            return {"id": event_id, "status": "accepted", "accepted_at": rfc3339(accepted_at_us)}
        status = {**_described(record), **await self._store.event_sums(event_id)}
        if expansions := await self._store.event_expansions(event_id):
            status["expansions"] = [_expanded(row) for row in expansions]
        return status

    async def notifications(
        self, reference: str, key_id: str, limit: int, cursor: str | None
    ) -> dict[str, Any]:
        """What the event became, by user; broadcasts come on the first page, once each, without a user."""
        event_id = await self._resolve(reference, key_id)
        after = decode_cursor(cursor, 1)[0] if cursor else None
        rows = await self._store.event_notifications(event_id, after, limit)
        listed = [_listed(row) for row in rows]
        if after is None:
            listed = [_listed_broadcast(row) for row in await self._store.event_broadcasts(event_id)] + listed
        following = encode_cursor(rows[-1].user_id) if len(rows) == limit else None
        return {"notifications": listed, "next": following}

    async def deliveries(
        self, reference: str, key_id: str, state: str | None, limit: int, cursor: str | None
    ) -> dict[str, Any]:
        """The event's deliveries on addressed channels, by id, with their attempts; expansions with the first page."""
        event_id = await self._resolve(reference, key_id)
        after = decode_cursor(cursor, 1)[0] if cursor else None
        rows = await self._store.event_deliveries(event_id, state, after, limit)
        following = encode_cursor(rows[-1].id) if len(rows) == limit else None
        attempts = await self._store.attempts_of(rows)
        listed = [delivery_json(row, attempts.get((row.user_id, row.id), ())) for row in rows]
        page: dict[str, Any] = {"deliveries": listed, "next": following}
        if after is None and (expansions := await self._store.event_expansions(event_id)):
            page["expansions"] = [_expanded(row) for row in expansions]
        return page

    async def retract(self, reference: str, key_id: str) -> dict[str, Any]:
        """Take an event back, whether it waits, is scheduled or was shown. Repeating it is the same answer."""
        event_id = await self._resolve(reference, key_id)
        now_us = self._clock.now_us()
        personal, broadcasts = await self._store.retract(event_id, now_us)
        until = perf_counter() + COUNTING_SECONDS
        publications = [
            await self._taken_from(user_id, ids, counted=not number or perf_counter() < until)
            for number, (user_id, ids) in enumerate(personal.items())
        ]
        publications += [Publication(BROADCASTS, encode_broadcast_retracted(row)) for row in broadcasts]
        publications.append(log_publication([LogEntry(now_us, "retracted", event_id)]))
        await self._bus.publish(publications)
        return {"id": event_id, "status": "retracted"}

    async def _taken_from(self, user_id: str, ids: list[str], *, counted: bool) -> Publication:
        counts = await self._inbox.counts(user_id) if counted else None
        unread, unseen = (counts.unread, counts.unseen) if counts else (None, None)
        message = LiveRetracted(tuple(ids), unread, unseen)
        return Publication(personal_channel(user_id), encode_live(message), header="kind=retracted")

    async def _resolve(self, reference: str, key_id: str) -> str:
        if reference.startswith(KEY_PREFIX):
            found = await self._queue.find_key(scoped_key(key_id, reference.removeprefix(KEY_PREFIX)))
            if found is None:
                raise _unknown(reference)
            return found
        if not self._ids.is_ours(reference) and await self._store.event(reference) is None:
            raise _unknown(reference)
        return reference


def _unknown(reference: str) -> Refused:
    return Refused(404, "unknown_event", f"There is no event {reference[:140]!r}.")


def _described(record: EventRecord) -> dict[str, Any]:
    described: dict[str, Any] = {
        "id": record.id,
        "status": record.state,
        "type": record.type,
        "category": record.category,
        "source": record.source,
        "actor": record.actor,
        "accepted_at": rfc3339(record.accepted_at_us),
    }
    if record.send_at_us is not None:
        described["send_at"] = rfc3339(record.send_at_us)
    if record.error is not None:
        described["error"] = record.error
    return described


def _listed(row: Notification) -> dict[str, Any]:
    return {
        "user": row.user_id,
        "in_app": row.in_app,
        "reasons": row.reasons,
        "notification": wire_addressed(row),
    }


def _listed_broadcast(row: Broadcast) -> dict[str, Any]:
    topic = row.audience.topics[0] if len(row.audience.topics) == 1 and not row.audience.everyone else None
    return {
        "user": None,
        "in_app": row.in_app,
        "reasons": row.reasons,
        "notification": wire_broadcast(row, "", topic, None),
        "topics": row.audience.topics,
        "everyone": row.audience.everyone,
    }


def _expanded(row: Expansion) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "notification": row.broadcast_id,
        "channel": row.channel,
        "state": row.state,
        "due_at": rfc3339(row.due_at_us),
        "looked_at": row.looked_at,
        "deliveries": row.deliveries,
        "counts": row.counts,
    }
    more = {"audience": row.audience, "stopped": row.stopped, "done_at": rfc3339(row.done_at_us)}
    return {**shown, **{name: value for name, value in more.items() if value is not None}}
