"""The rows that planning leaves about an event: its record, and the lines of the delivery log."""

from collections.abc import Sequence
from typing import Final

from hub.model.events import Event, Slice
from hub.model.notifications import Notification, Reason
from hub.model.planning import Plan
from hub.model.vocabulary import Channel
from hub.ports import Batch, EventRecord, LogEntry, QueuedSlice

UNREADABLE: Final = "unreadable"


def log_acceptance(part: Slice) -> list[LogEntry]:
    """The log line of an event's acceptance, with the first of its slices."""
    event = part.event
    if not part.first:
        return []
    return [LogEntry(event.accepted_at_us, "accepted", event.id, type=event.type, detail=event.source)]


def log_planned(now_us: int, row: Notification, planned: Plan) -> LogEntry:
    """The one log line of a notification at planning."""
    return LogEntry(
        now_us,
        "generated" if row.in_app or planned.deliveries else "suppressed",
        row.event_id,
        row.user_id,
        row.id,
        Channel.IN_APP,
        row.type,
        row.category,
        reason=in_app_rule(row.reasons),
        detail="; ".join(planned.problems) or None,
    )


def in_app_rule(reasons: Sequence[Reason]) -> str | None:
    """The rule that decided about the app."""
    return next((r.rule for r in reasons if r.channel == Channel.IN_APP), None)


def record_of(
    event: Event,
    category: str,
    *,
    state: str = "generated",
    error: str | None = None,
    raw: bytes | None = None,
) -> EventRecord:
    """An event as SQL keeps it; `raw` is its slice, whole, when it was rejected."""
    return EventRecord(
        id=event.id,
        type=event.type,
        category=category,
        source=event.source,
        actor=event.actor,
        accepted_at_us=event.accepted_at_us,
        slices=event.slices,
        state=state,
        error=error,
        raw=raw,
    )


def reject_unreadable(batch: Batch, queued: QueuedSlice, now_us: int) -> None:
    """Bytes in the queue that are no slice: kept under an id made of their position."""
    event_id = f"evt_unreadable_{queued.position.encode()}"
    batch.events.append(
        EventRecord(event_id, UNREADABLE, "", "queue", None, now_us, 0, "rejected", "not a slice", queued.raw)
    )
    batch.log.append(LogEntry(now_us, "rejected", event_id, type=UNREADABLE, reason="planning_error"))
