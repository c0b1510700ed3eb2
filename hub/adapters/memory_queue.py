"""The event queue in memory, for tests and experiments: the same behaviour as on Redis, gone with the process."""

import asyncio
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

from hub.model.vocabulary import LANE
from hub.ports import Append, Appended, Clock, IngestEntry, KeyReused, Position, QueuedSlice, RejectedEntry

T = TypeVar("T")
_Id = tuple[int, int]


class _Stream(Generic[T]):
    """Entries with increasing ids, and a way to wait for the next."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: _Id = (0, 0)
        self.growth = asyncio.Event()  # set by the next entry
        self.ids: list[_Id] = []
        self.entries: list[T] = []

    def add(self, entry: T) -> _Id:
        ms = self._clock.now_us() // 1000
        last_ms, last_seq = self._last
        # Like Redis: a clock that stands still or goes back does not make an id smaller.
        self._last = (ms, 0) if ms > last_ms else (last_ms, last_seq + 1)
        self.ids.append(self._last)
        self.entries.append(entry)
        self.growth.set()
        self.growth = asyncio.Event()
        return self._last

    async def after(self, entry_id: _Id, wait_seconds: float) -> list[tuple[_Id, T]]:
        start = bisect_right(self.ids, entry_id)
        if start == len(self.ids) and wait_seconds > 0:
            try:
                async with asyncio.timeout(wait_seconds):
                    await self.growth.wait()
            except TimeoutError:
                return []
            start = bisect_right(self.ids, entry_id)
        return list(zip(self.ids[start:], self.entries[start:], strict=True))

    def trim(self, through: _Id) -> None:
        end = bisect_right(self.ids, through)
        del self.ids[:end], self.entries[:end]


class MemoryQueue:
    """`EventQueue` without Redis. `add_ingest` and `publish_ingest` play the publishers."""

    def __init__(self, clock: Clock, partitions: int = 0) -> None:
        self._clock = clock
        names = (*(str(number) for number in range(partitions)), LANE)
        # Partitions that were not announced come into being when they are named.
        self._streams: defaultdict[str, _Stream[list[bytes]]] = defaultdict(lambda: _Stream(clock))
        self._streams.update((name, _Stream(clock)) for name in names)
        self._keys: dict[str, tuple[str, str, int]] = {}  # event id, digest, until
        self._ingest: _Stream[Mapping[bytes, bytes]] = _Stream(clock)
        self._receivers: list[asyncio.Queue[bytes]] = []
        self.rejected: deque[RejectedEntry] = deque(maxlen=10_000)

    async def append(self, events: Sequence[Append]) -> list[Appended | KeyReused]:
        """See `EventQueue.append`."""
        outcomes: list[Appended | KeyReused] = []
        slices: dict[str, list[bytes]] = {}
        for event in events:
            given = event.idempotency
            known = self._known(given.key) if given else None
            if given and known:
                same = known[1] == given.digest
                outcomes.append(Appended(known[0], replayed=True) if same else KeyReused(known[0]))
                continue
            if given:
                until = self._clock.now_us() + given.keep_seconds * 1_000_000
                self._keys[given.key] = (event.event_id, given.digest, until)
            for partition, raw in event.slices.items():
                slices.setdefault(partition, []).append(raw)
            outcomes.append(Appended(event.event_id))
        for partition, raws in slices.items():
            self._streams[partition].add(raws)
        return outcomes

    async def find_key(self, key: str) -> str | None:
        """See `EventQueue.find_key`."""
        known = self._known(key)
        return known[0] if known else None

    async def read(
        self, partition: str, after: Position | None, limit: int, wait_seconds: float
    ) -> list[QueuedSlice]:
        """See `EventQueue.read`."""
        start = (after.ms, after.seq) if after else (0, 0)
        return _slices(await self._streams[partition].after(start, wait_seconds), limit)

    async def read_many(
        self, after: Mapping[str, Position | None], limit: int, wait_seconds: float
    ) -> dict[str, list[QueuedSlice]]:
        """See `EventQueue.read_many`."""
        found = {name: await self.read(name, position, limit, 0) for name, position in after.items()}
        found = {name: slices for name, slices in found.items() if slices}
        if found or wait_seconds <= 0:
            return found
        growth = [asyncio.ensure_future(self._streams[name].growth.wait()) for name in after]
        try:
            await asyncio.wait(growth, timeout=wait_seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in growth:
                one.cancel()
        return await self.read_many(after, limit, 0)

    async def trim(self, partition: str, through: Position) -> None:
        """See `EventQueue.trim`."""
        self._streams[partition].trim((through.ms, through.seq))

    async def waiting(self) -> dict[str, int]:
        """See `EventQueue.waiting`."""
        counts = {name: sum(map(len, stream.entries)) for name, stream in self._streams.items()}
        return {**counts, "ingest": len(self._ingest.entries)}

    async def read_ingest(self, after: str | None, limit: int, wait_seconds: float) -> list[IngestEntry]:
        """See `EventQueue.read_ingest`."""
        found = await self._ingest.after(_entry_id(after) if after else (0, 0), wait_seconds)
        return [IngestEntry(f"{ms}-{seq}", fields) for (ms, seq), fields in found[:limit]]

    async def trim_ingest(self, through: str) -> None:
        """See `EventQueue.trim_ingest`."""
        self._ingest.trim(_entry_id(through))

    async def reject_ingest(self, rejected: Sequence[RejectedEntry]) -> None:
        """See `EventQueue.reject_ingest`."""
        self.rejected += rejected

    async def listen_ingest(self, receive: Callable[[bytes], Awaitable[None]]) -> None:
        """See `EventQueue.listen_ingest`."""
        bodies: asyncio.Queue[bytes] = asyncio.Queue()
        self._receivers.append(bodies)
        try:
            while True:
                await receive(await bodies.get())
        finally:
            self._receivers.remove(bodies)

    async def close(self) -> None:
        """See `EventQueue.close`."""

    def add_ingest(self, fields: Mapping[bytes, bytes]) -> str:
        """What a publisher does with XADD; returns the entry id."""
        ms, seq = self._ingest.add(dict(fields))
        return f"{ms}-{seq}"

    def publish_ingest(self, body: bytes) -> int:
        """What a publisher does with PUBLISH; returns how many listened."""
        for bodies in self._receivers:
            bodies.put_nowait(body)
        return len(self._receivers)

    def _known(self, key: str) -> tuple[str, str, int] | None:
        known = self._keys.get(key)
        if known and known[2] <= self._clock.now_us():
            del self._keys[key]
            return None
        return known


def _slices(entries: Sequence[tuple[_Id, list[bytes]]], limit: int) -> list[QueuedSlice]:
    slices: list[QueuedSlice] = []
    for (ms, seq), raws in entries:
        if len(slices) >= limit:
            break
        slices += [QueuedSlice(Position(ms, seq, index), raw) for index, raw in enumerate(raws)]
    return slices


def _entry_id(text: str) -> _Id:
    ms, seq = text.split("-")
    return int(ms), int(seq)
