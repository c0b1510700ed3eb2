"""The event queue: a durable log per partition. What an append confirmed is on disk; nothing is lost."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct


class Position(NamedTuple):
    """Where a slice stands in its partition: stream entry id and index within the entry. Ordered like the queue."""

    ms: int
    seq: int
    index: int  # type: ignore[assignment]  # a place, not tuple's search method

    def encode(self) -> str:
        """Fixed width, so that texts sort as positions do."""
        return f"{self.ms:015d}-{self.seq:010d}-{self.index:06d}"

    @classmethod
    def decode(cls, text: str) -> "Position":
        """The inverse of `encode`."""
        ms, seq, index = text.split("-")
        return cls(int(ms), int(seq), int(index))


class Idempotency(Struct, frozen=True):
    """A caller's key (already scoped to the API key), the digest of the parsed body, and how long it is kept."""

    key: str
    digest: str
    keep_seconds: int = 86_400


class Append(Struct, frozen=True):
    """One accepted event on its way to the queue: encoded slices per partition name ("0".."P-1", "lane")."""

    event_id: str
    slices: Mapping[str, bytes]
    idempotency: Idempotency | None = None


class Appended(Struct, frozen=True):
    """The event is on disk. `replayed`: it was before, under the same key; `event_id` is the first one's."""

    event_id: str
    replayed: bool = False


class KeyReused(Struct, frozen=True):
    """The idempotency key belongs to another body; nothing was appended for this event."""

    event_id: str


class QueuedSlice(Struct, frozen=True):
    """One slice as read; `raw` is what was appended."""

    position: Position
    raw: bytes


class IngestEntry(Struct, frozen=True):
    """One entry of the public ingest stream: raw fields as a publisher wrote them, and its entry id ("ms-seq")."""

    entry_id: str
    fields: Mapping[bytes, bytes]


class RejectedEntry(Struct, frozen=True):
    """An entry of the public stream that cannot be accepted: its id, its event as it came, and why."""

    entry_id: str
    event: bytes
    code: str
    detail: str


class EventQueue(Protocol):
    """A durable log per partition. An append that returned is on disk; order within a partition is append order.

    An append that raised `QueueUnavailable` may or may not have happened. Reading takes nothing away: a new owner
    reads its partition from the start; only `trim` removes. Nothing is lost; appends may repeat (slices are planned once).
    """

    async def append(self, events: Sequence[Append]) -> list[Appended | KeyReused]:
        """Append all events of one call in order, atomically, grouped to one entry per partition.

        The check of idempotency keys and the append are one step. Results are in order. Calls that arrive together
        share one round trip (and one fsync). Raises `QueueUnavailable`.
        """
        ...

    async def find_key(self, key: str) -> str | None:
        """The event id that an idempotency key (scoped) was used for in the last 24 h."""
        ...

    async def read(
        self, partition: str, after: Position | None, limit: int, wait_seconds: float
    ) -> list[QueuedSlice]:
        """Up to about `limit` slices after a position (None: from the start); whole entries; waits when empty."""
        ...

    async def read_many(
        self, after: Mapping[str, Position | None], limit: int, wait_seconds: float
    ) -> dict[str, list[QueuedSlice]]:
        """`read` for several partitions at once, `limit` for each; waits only when all are empty.

        Partitions without news are left out.
        """
        ...

    async def trim(self, partition: str, through: Position) -> None:
        """Remove all entries up to and including the one of `through`. Repeating it changes nothing."""
        ...

    async def waiting(self) -> dict[str, int]:
        """Waiting slices per partition, and "ingest"."""
        ...

    async def read_ingest(self, after: str | None, limit: int, wait_seconds: float) -> list[IngestEntry]:
        """Entries of the public stream `<prefix>:ingest` after an entry id (None: from the start)."""
        ...

    async def trim_ingest(self, through: str) -> None:
        """Remove entries of the public stream up to and including this id."""
        ...

    async def reject_ingest(self, rejected: Sequence[RejectedEntry]) -> None:
        """Append to `<prefix>:ingest:rejected` in order, in one round trip; it keeps the last 10,000.

        Repeating the same entry may repeat it.
        """
        ...

    async def listen_ingest(self, receive: Callable[[bytes], Awaitable[None]]) -> None:
        """Hand over what is PUBLISHed on `<prefix>:publish` until cancelled. At most once; lost while away."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
