"""Ingest: events that backends put into Redis, with the same meaning and validation as over HTTP.

Entries of `<prefix>:ingest` are read in order by the holder of the ingest lease and trimmed when they are in the event
queue or rejected; their event ids derive from the entry's id, so a crash repeats nothing. `<prefix>:publish` is at most once.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from hub.decoding import decode_json
from hub.errors import FieldError, QueueUnavailable, Refused, StoreUnavailable
from hub.intake import Intake, Submission, check_size, idempotency_of
from hub.leases import unless_stopped
from hub.livelog import LiveLog
from hub.model.events import EventInput
from hub.model.ids import EventIds
from hub.ports import Clock, EventQueue, IngestEntry, Lease, LiveBus, LogEntry, RejectedEntry, Store

BATCH_ENTRIES: Final = 200
WAIT_SECONDS: Final = 1.0
KEY_ID: Final = "redis"  # the scope of idempotency keys: Redis itself decides who may publish

_SOURCE: Final = re.compile(r"[A-Za-z0-9._:@+|~=\-]{1,64}")
_decoder: Final = msgspec.json.Decoder(EventInput)
_log = logging.getLogger(__name__)


class Ingest:
    """Moves events from the public stream into the event queue."""

    def __init__(
        self, *, intake: Intake, queue: EventQueue, bus: LiveBus, store: Store, ids: EventIds, clock: Clock
    ) -> None:
        self._intake = intake
        self._queue = queue
        self._livelog = LiveLog(bus)
        self._store = store
        self._ids = ids
        self._clock = clock

    async def work(self, lease: Lease, stop: asyncio.Event) -> None:
        """The work of the ingest lease: the stream and the pub/sub channel, until stopped."""
        del lease  # processing an entry twice is harmless, so no fence is needed
        listener = asyncio.create_task(self._queue.listen_ingest(self.receive), name="ingest-publish")
        try:
            await self._read(stop)
        finally:
            listener.cancel()
            await asyncio.wait([listener])

    async def receive(self, body: bytes) -> None:
        """One message of the pub/sub channel. What cannot be accepted shows in the live log and is gone."""
        try:
            try:
                event = decode_json(_decoder, check_size(body))
                await self._intake.submit(Submission(event, "redis:publish", self._intake.new_id(), None))
            except (Refused, QueueUnavailable) as error:
                await self._report([self._line(error, str(error))])
        except StoreUnavailable as error:
            _log.warning("a published message was lost: %s", error)

    async def _read(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                reading = self._queue.read_ingest(None, BATCH_ENTRIES, WAIT_SECONDS)
                entries = await unless_stopped(stop, reading)
                if entries:
                    await self._intake.watch_queue(count_ingest=False)
                    await self.take(entries)
                    await self._queue.trim_ingest(entries[-1].entry_id)
            except QueueUnavailable as error:
                _log.warning("ingest waits for Redis: %s", error)
                await asyncio.sleep(WAIT_SECONDS)
            except Refused as error:  # the queue is full: nothing is taken until there is room
                _log.warning("ingest waits: %s", error)
                await asyncio.sleep(WAIT_SECONDS)

    async def take(self, entries: Sequence[IngestEntry]) -> None:
        """Move entries in order. Raises `QueueUnavailable`, or `Refused(503)` when the queue is full; repeat then."""
        read: list[Submission | Refused] = []
        for entry in entries:
            try:
                read.append(self._submission(entry))
            except Refused as refused:
                read.append(refused)
        outcomes = iter(await self._intake.submit_many([one for one in read if isinstance(one, Submission)]))
        # Refusals are told last: whatever is raised above makes all of it be read again.
        results = [one if isinstance(one, Refused) else next(outcomes) for one in read]
        refusals = [
            (entry, one) for entry, one in zip(entries, results, strict=True) if isinstance(one, Refused)
        ]
        if refusals:
            await self._reject(refusals)

    def _submission(self, entry: IngestEntry) -> Submission:
        raw = entry.fields.get(b"event")
        if raw is None:
            raise _wrong_entry("/event", "missing_field", "The entry has no field `event`.")
        event = decode_json(_decoder, check_size(raw))
        source = _text(entry, b"source") or "stream"
        if not _SOURCE.fullmatch(source):
            raise _wrong_entry("/source", "invalid_value", "`source` is 1 to 64 of A-Za-z0-9._:@+|~=-.")
        key = _text(entry, b"idempotency_key")
        if key is not None and not 1 <= len(key) <= 255:
            raise _wrong_entry(
                "/idempotency_key", "invalid_value", "An idempotency key has 1 to 255 characters."
            )
        ms, seq = entry.entry_id.split("-")
        event_id = self._ids.for_ingest(int(ms), int(seq))
        own = idempotency_of(KEY_ID, f"entry:{entry.entry_id}", event)
        return Submission(event, f"redis:{source}", event_id, idempotency_of(KEY_ID, key, event) or own)

    async def _reject(self, refusals: Sequence[tuple[IngestEntry, Refused]]) -> None:
        """Together: who sends garbage shall not hold up who sends events, and each alone waits for two disks."""
        rejected = [
            RejectedEntry(entry.entry_id, entry.fields.get(b"event", b""), refused.code, _detail(refused))
            for entry, refused in refusals
        ]
        await self._queue.reject_ingest(rejected)
        await self._report([self._line(refused, _detail(refused)) for _, refused in refusals])

    def _line(self, error: Refused | QueueUnavailable, detail: str) -> LogEntry:
        code = error.code if isinstance(error, Refused) else "queue_unavailable"
        return LogEntry(self._clock.now_us(), "rejected", reason=code, detail=detail)

    async def _report(self, lines: Sequence[LogEntry]) -> None:
        await self._store.write_log(lines)
        await self._livelog.tell(lines)


def _detail(refused: Refused) -> str:
    places = "; ".join(f"{error.pointer}: {error.detail}" for error in refused.errors)
    return f"{refused.detail} {places}".strip()


def _text(entry: IngestEntry, name: bytes) -> str | None:
    raw = entry.fields.get(name)
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _wrong_entry(f"/{name.decode()}", "invalid_value", f"`{name.decode()}` is not UTF-8.") from None


def _wrong_entry(pointer: str, code: str, detail: str) -> Refused:
    return Refused(422, "invalid_request", detail, [FieldError(pointer, code, detail)])
