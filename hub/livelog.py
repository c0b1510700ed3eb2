"""The live log: delivery log lines as operators get them on the live channel `log`, and over HTTP."""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from hub.model.notifications import rfc3339
from hub.ports import LogEntry

LINES_PER_MESSAGE: Final = 100  # a message must stay below what a client takes (64 KiB); the rest is counted


class LogLine(Struct, frozen=True, omit_defaults=True):
    """One line of the delivery log, as JSON."""

    at: str | None
    state: str
    event: str | None = None
    user: str | None = None
    notification: str | None = None
    channel: str | None = None
    type: str | None = None
    category: str | None = None
    provider: str | None = None
    reason: str | None = None
    detail: str | None = None


class LiveLog(Struct, frozen=True, tag_field="kind", tag="log"):
    """The live message of the `log` channel. `dropped` lines of this batch are only in the stored log."""

    entries: list[LogLine]
    dropped: int = 0


def wire_log(entry: LogEntry) -> LogLine:
    """A log row as clients get it."""
    return LogLine(
        at=rfc3339(entry.at_us),
        state=entry.state,
        event=entry.event_id,
        user=entry.user_id,
        notification=entry.notification_id,
        channel=entry.channel,
        type=entry.type,
        category=entry.category,
        provider=entry.provider,
        reason=entry.reason,
        detail=entry.detail,
    )


def encode_log(entries: Sequence[LogEntry]) -> bytes:
    """The payload of one `log` publication."""
    shown = entries[:LINES_PER_MESSAGE]
    return msgspec.json.encode(LiveLog([wire_log(entry) for entry in shown], len(entries) - len(shown)))
