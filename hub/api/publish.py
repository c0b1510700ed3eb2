"""Publishing, and what became of events. A 202 means that the event is on disk in the queue."""

from typing import Annotated

from msgspec import Meta, Struct

from hub.api.body import REQUEST_LIMIT_BYTES
from hub.api.conditions import idempotency_key_of, media_type_of
from hub.api.delivery_models import Deliveries
from hub.api.models import (
    BatchResult,
    Cursor,
    EventNotifications,
    EventStatus,
    Limit,
    Page,
    Published,
    Retracted,
)
from hub.api.routing import Call, Reply, Route
from hub.model.admission import EVENT_LIMIT_BYTES

REPLAYED = ((b"idempotency-replayed", b"true"),)
NDJSON = ("application/x-ndjson", "application/jsonl", "application/ndjson")


class DeliveryQuery(Struct, frozen=True):
    """Parameters of the deliveries of an event."""

    limit: Limit = 50
    cursor: Cursor | None = None
    state: Annotated[str, Meta(max_length=40, description="Only those in this state.")] | None = None


async def publish(call: Call) -> Reply:
    """POST /v1/events."""
    key = idempotency_key_of(call.headers.get(b"idempotency-key"))
    accepted = await call.parts.intake.publish(call.raw, f"http:{call.key_id}", call.key_id, key)
    return Reply(Published(accepted.id, "accepted"), 202, REPLAYED if accepted.replayed else ())


async def publish_batch(call: Call) -> Reply:
    """POST /v1/events/batch."""
    key = idempotency_key_of(call.headers.get(b"idempotency-key"))
    media_type = media_type_of(call.headers.get(b"content-type"))
    # Without a word about the type the first character tells: an array begins with a bracket.
    ndjson = media_type in NDJSON or (media_type != "application/json" and call.raw.lstrip()[:1] == b"{")
    result = await call.parts.intake.publish_batch(call.raw, ndjson, f"http:{call.key_id}", call.key_id, key)
    content = BatchResult(result.results, result.accepted, result.rejected)
    return Reply(content, 202 if result.accepted else 422, REPLAYED if result.replayed else ())


async def status(call: Call) -> Reply:
    """GET /v1/events/{event}."""
    return Reply(await call.parts.events.status(call.path["event"], call.key_id))


async def retract(call: Call) -> Reply:
    """DELETE /v1/events/{event}."""
    return Reply(await call.parts.events.retract(call.path["event"], call.key_id))


async def notifications(call: Call) -> Reply:
    """GET /v1/events/{event}/notifications."""
    page = call.query_as(Page)
    return Reply(
        await call.parts.events.notifications(call.path["event"], call.key_id, page.limit, page.cursor)
    )


async def deliveries(call: Call) -> Reply:
    """GET /v1/events/{event}/deliveries."""
    page = call.query_as(DeliveryQuery)
    return Reply(
        await call.parts.events.deliveries(
            call.path["event"], call.key_id, page.state, page.limit, page.cursor
        )
    )


_INTAKE_CODES = (
    "idempotency_in_flight",
    "idempotency_key_reused",
    "invalid_idempotency_key",
    "queue_full",
    "queue_unavailable",
)
_EVENT_CODES = ("invalid_request", "unknown_type", "invalid_data", "invalid_event", "event_too_large")

ROUTES = [
    Route(
        "POST",
        "/v1/events",
        publish,
        ("publish",),
        "Publish an event",
        Published,
        202,
        body_kind="event",
        body_limit=EVENT_LIMIT_BYTES,
        too_large="event_too_large",
        codes=(*_INTAKE_CODES, *_EVENT_CODES),
        headers=("Idempotency-Key",),
        quiet=True,
    ),
    Route(
        "POST",
        "/v1/events/batch",
        publish_batch,
        ("publish",),
        "Publish up to 1,000 events: a JSON array, or one event a line",
        BatchResult,
        202,
        body_kind="events",
        body_limit=REQUEST_LIMIT_BYTES,
        codes=(*_INTAKE_CODES, "empty_batch", "batch_too_large"),
        other_statuses=(422,),
        headers=("Idempotency-Key",),
    ),
    Route(
        "GET",
        "/v1/events/{event}/notifications",
        notifications,
        ("read",),
        "What an event became, user by user",
        EventNotifications,
        query=Page,
        any_id=True,
        codes=("unknown_event", "invalid_cursor"),
    ),
    Route(
        "GET",
        "/v1/events/{event}/deliveries",
        deliveries,
        ("read",),
        "The deliveries of an event on addressed channels",
        Deliveries,
        query=DeliveryQuery,
        any_id=True,
        codes=("unknown_event", "invalid_cursor"),
    ),
    Route(
        "GET",
        "/v1/events/{event}",
        status,
        ("read", "publish"),
        "State and sums of an event (an id, or key:<idempotency key>)",
        EventStatus,
        any_id=True,
        codes=("unknown_event",),
    ),
    Route(
        "DELETE",
        "/v1/events/{event}",
        retract,
        ("publish",),
        "Retract an event, at any stage",
        Retracted,
        any_id=True,
        codes=("unknown_event", "bus_unavailable"),
    ),
]
