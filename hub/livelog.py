"""The live log: delivery log lines as operators get them on the live channel `log`, and over HTTP."""

import logging
from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Struct

from hub.errors import BusUnavailable
from hub.model.notifications import rfc3339
from hub.model.vocabulary import LOG
from hub.ports import LiveBus, LogEntry, Publication

logger = logging.getLogger(__name__)

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


class LogLines(Struct, frozen=True, tag_field="kind", tag="log"):
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
    return msgspec.json.encode(LogLines([wire_log(entry) for entry in shown], len(entries) - len(shown)))


def log_publication(entries: Sequence[LogEntry]) -> Publication:
    """Log rows as one publication on the operators' channel."""
    return Publication(LOG, encode_log(entries), header="kind=log")


class LiveLog:
    """Shows operators what was logged just now. A hint: the stored log has it in any case."""

    def __init__(self, bus: LiveBus) -> None:
        self._bus = bus

    async def tell(self, entries: Sequence[LogEntry]) -> None:
        """Publish log rows that are stored already."""
        if not entries:
            return
        try:
            await self._bus.publish([log_publication(entries)])
        except BusUnavailable as error:
            logger.info("the live log misses %d lines: %s", len(entries), error)
