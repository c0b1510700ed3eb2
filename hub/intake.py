"""Intake: from bytes to the event queue. What returns `Accepted` is on disk; anything else was not accepted.

HTTP (one, batch) and Redis ingest come through the same three steps: decode, `admit` (the pure rules), append.
A raised `QueueUnavailable` means that the outcome is unknown: the caller repeats with its idempotency key.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from random import randbytes  # ids need not be hard to guess, only different
from typing import Annotated, Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct

from hub.decoding import decode_json
from hub.errors import FieldError, Refused
from hub.model.admission import EVENT_LIMIT_BYTES, Admitted, admit
from hub.model.events import EventInput, encode_slice
from hub.model.ids import EventIds
from hub.model.types import TypeVersion
from hub.ports import Append, Appended, Clock, EventQueue, Idempotency, KeyReused

BATCH_LIMIT: Final = 1000
QUEUE_FULL_RETRY_SECONDS: Final = 5


class BatchItem(EventInput, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One item of a batch: an event that may carry its own idempotency key."""

    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None


class TypeSource(Protocol):
    """Where intake finds the type of an event."""

    async def type(self, name: str) -> TypeVersion | None:
        """The current version of a type (the built-in `message` too); None when it is not defined."""
        ...


class IntakeMetrics(Protocol):
    """What intake counts."""

    def accepted(self, source: str, count: int) -> None: ...
    def refused(self, source: str, code: str) -> None: ...


class Accepted(Struct, frozen=True):
    """An event that is on disk. `replayed`: it was already, under the same idempotency key."""

    id: str
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The outcome of a batch, item by item, in the order of the request."""

    results: list[dict[str, Any]]
    accepted: int
    rejected: int
    replayed: bool  # every accepted item was a replay


class Submission(Struct, frozen=True):
    """One event on its way in: decoded, with where it came from and the id it shall get."""

    event: EventInput
    source: str
    event_id: str
    idempotency: Idempotency | None


# Of one entry more than the limit the decoder complains at once; a list would be filled with millions first.
_BatchArray: Final = msgspec.defstruct(
    "_BatchArray",
    [(f"item_{index}", msgspec.Raw, None) for index in range(BATCH_LIMIT)],
    array_like=True,
    forbid_unknown_fields=True,
)

_single: Final = msgspec.json.Decoder(EventInput)
_item: Final = msgspec.json.Decoder(BatchItem)
_LINE: Final = re.compile(rb"[^ \t\r\n][^\n]*")
_array: Final = msgspec.json.Decoder(_BatchArray)
_any_array: Final = msgspec.json.Decoder(list[msgspec.Raw])
_canonical: Final = msgspec.json.Encoder(order="deterministic")


class Intake:
    """Admits events and appends them to the queue."""

    def __init__(
        self,
        queue: EventQueue,
        types: TypeSource,
        ids: EventIds,
        clock: Clock,
        *,
        partitions: int,
        queue_limit: int,
        metrics: IntakeMetrics,
    ) -> None:
        self._queue = queue
        self._types = types
        self._ids = ids
        self._clock = clock
        self._partitions = partitions
        self._queue_limit = queue_limit
        self._metrics = metrics
        self._waiting = 0

    async def watch_queue(self, *, count_ingest: bool = True) -> None:
        """Refresh the number of waiting events that `publish` compares with the limit. Call about every second.

        What waits in the public stream counts, but not for who empties it: it could not leave the stream otherwise.
        """
        waiting = await self._queue.waiting()
        self._waiting = sum(count for name, count in waiting.items() if name != "ingest" or count_ingest)

    async def publish(self, body: bytes, source: str, key_id: str, idempotency_key: str | None) -> Accepted:
        """Accept one event. Raises `Refused` (400, 409, 413, 422, 503) or `QueueUnavailable`."""
        try:
            event = decode_json(_single, check_size(body))
        except Refused as refused:
            self._metrics.refused(source, refused.code)
            raise
        return await self.submit(
            Submission(event, source, self.new_id(), idempotency_of(key_id, idempotency_key, event))
        )

    async def publish_batch(
        self, body: bytes, ndjson: bool, source: str, key_id: str, idempotency_key: str | None
    ) -> BatchResult:
        """Accept many. Bad items do not block others. Raises as `publish` when the request as a whole is wrong.

        A key for the whole request counts as one key per item (`<key>#<index>`), so a repeat finds the same ids.
        """
        decoded: list[Submission | Refused] = []
        raws = split_batch(body, ndjson)
        ids = self._ids.several(self._clock.now_us(), randbytes(6), len(raws))
        for index, (raw, event_id) in enumerate(zip(raws, ids, strict=True)):
            try:
                item = decode_json(_item, check_size(raw))
                key = f"{idempotency_key}#{index}" if idempotency_key else None
                decoded.append(_submission_of(item, source, key_id, event_id, key))
            except Refused as refused:
                self._metrics.refused(source, refused.code)
                decoded.append(refused)
        outcomes = iter(await self.submit_many([one for one in decoded if isinstance(one, Submission)]))
        results = [one if isinstance(one, Refused) else next(outcomes) for one in decoded]
        accepted = [one for one in results if isinstance(one, Accepted)]
        return BatchResult(
            [_item_result(one) for one in results],
            len(accepted),
            len(results) - len(accepted),
            bool(accepted) and all(one.replayed for one in accepted),
        )

    async def submit(self, submission: Submission) -> Accepted:
        """Admit and append one decoded event. Raises `Refused` or `QueueUnavailable`."""
        [outcome] = await self.submit_many([submission])
        if isinstance(outcome, Refused):
            raise outcome
        return outcome

    async def submit_many(self, submissions: Sequence[Submission]) -> list[Accepted | Refused]:
        """Admit and append decoded events together, in order: the way in for every source.

        A refused one does not hold up the others. Raises `Refused(503)` when the queue is full and `QueueUnavailable`
        when its answer is missing; then all of them are to be repeated.
        """
        self._refuse_when_full()
        types = {name: await self._types.type(name) for name in {one.event.type for one in submissions}}
        now_us = self._clock.now_us()
        outcomes: list[Refused | None] = []
        appends: list[Append] = []
        for submission in submissions:
            event, source = submission.event, submission.source
            try:
                admitted = admit(
                    event,
                    types[event.type],
                    event_id=submission.event_id,
                    now_us=now_us,
                    source=source,
                    partitions=self._partitions,
                )
                appends.append(append_of(admitted, submission.idempotency))
                outcomes.append(None)
            except Refused as refused:
                self._metrics.refused(source, refused.code)
                outcomes.append(refused)
        appended = iter(await self._queue.append(appends) if appends else [])
        results = [refused or _appended(next(appended)) for refused in outcomes]
        sources = [one.source for one, got in zip(submissions, results, strict=True) if type(got) is Accepted]
        for source in dict.fromkeys(sources):
            self._metrics.accepted(source, sources.count(source))
        return results

    def new_id(self) -> str:
        """A fresh event id."""
        return self._ids.new(self._clock.now_us(), randbytes(6))

    def _refuse_when_full(self) -> None:
        if self._waiting >= self._queue_limit:
            raise Refused(
                503,
                "queue_full",
                f"{self._waiting} events wait already; the limit is {self._queue_limit}. Publish again later.",
                retry_after_seconds=QUEUE_FULL_RETRY_SECONDS,
            )


def _submission_of(
    item: BatchItem, source: str, key_id: str, event_id: str, request_key: str | None
) -> Submission:
    if item.idempotency_key is None:
        return Submission(item, source, event_id, idempotency_of(key_id, request_key, item))
    event = msgspec.structs.replace(item, idempotency_key=None)
    return Submission(event, source, event_id, idempotency_of(key_id, item.idempotency_key, event))


def append_of(admitted: Admitted, idempotency: Idempotency | None) -> Append:
    """An admitted event as the queue takes it."""
    first = next(iter(admitted.slices))
    slices = {
        name: encode_slice(msgspec.structs.replace(part, first=name == first))
        for name, part in admitted.slices.items()
    }
    return Append(admitted.event.id, slices, idempotency)


Bytes = TypeVar("Bytes", bytes, msgspec.Raw)


def check_size(raw: Bytes) -> Bytes:
    """The bytes, or `Refused(413)` when they are more than an event may have."""
    size = len(memoryview(raw))
    if size > EVENT_LIMIT_BYTES:
        raise Refused(
            413, "event_too_large", f"The event has {size} bytes; at most {EVENT_LIMIT_BYTES} are allowed."
        )
    return raw


def split_batch(body: bytes, ndjson: bool) -> Sequence[msgspec.Raw]:
    """The items of a batch request, undecoded. Raises `Refused` when there are none or too many."""
    raws = first_lines(body, BATCH_LIMIT + 1) if ndjson else array_items(body)
    if not raws:
        raise Refused(422, "empty_batch", "The batch has no events.", [FieldError("", "empty", "No events.")])
    if len(raws) > BATCH_LIMIT:
        raise _too_many()
    return raws


def array_items(body: bytes) -> Sequence[msgspec.Raw]:
    """The items of a JSON array. Raises `Refused(413)` at the first too many: what comes after it is not even read."""
    try:
        found = msgspec.structs.astuple(_array.decode(body))
    except msgspec.ValidationError:
        if body.lstrip()[:1] == b"[":
            raise _too_many() from None
        return decode_json(_any_array, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return decode_json(_any_array, body)  # says what is wrong
    return found[: found.index(None)] if found[-1] is None else found


def _too_many() -> Refused:
    return Refused(413, "batch_too_large", f"The batch has more than {BATCH_LIMIT} events.")


def first_lines(body: bytes, count: int) -> list[msgspec.Raw]:
    """So many lines that are not blank; what comes after them is not even cut, for it may be millions."""
    return [msgspec.Raw(found.group()) for found in islice(_LINE.finditer(body), count)]


def scoped_key(key_id: str, idempotency_key: str) -> str:
    """An idempotency key as the queue knows it: one API key's keys never meet another's."""
    return blake2b(
        f"{key_id}\0{idempotency_key}".encode("utf-8", "surrogatepass"), digest_size=16
    ).hexdigest()


def idempotency_of(key_id: str, idempotency_key: str | None, event: EventInput) -> Idempotency | None:
    """The scoped key and the digest of the parsed body; None without a key."""
    if idempotency_key is None:
        return None
    digest = blake2b(_canonical.encode(event), digest_size=16).hexdigest()
    return Idempotency(scoped_key(key_id, idempotency_key), digest)


def _appended(result: Appended | KeyReused) -> Accepted | Refused:
    if isinstance(result, KeyReused):
        return Refused(
            422,
            "idempotency_key_reused",
            "This idempotency key was used for another body in the last 24 hours.",
        )
    return Accepted(result.event_id, result.replayed)


def _item_result(outcome: Accepted | Refused) -> dict[str, Any]:
    if isinstance(outcome, Accepted):
        return {"id": outcome.id, "status": "accepted"}
    error: dict[str, Any] = {"code": outcome.code, "detail": outcome.detail}
    if outcome.errors:
        error["errors"] = [
            {"pointer": field.pointer, "code": field.code, "detail": field.detail} for field in outcome.errors
        ]
    return {"error": error}
