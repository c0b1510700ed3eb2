"""The event queue on Redis Streams: one stream per partition, written by one script, read with XREAD, trimmed by id.

An append that returned is on disk if Redis runs with `appendfsync always` (see redis_health): the reply comes after the
fsync. An append that raised may have happened, and is never repeated from here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from hub.adapters.append_groups import AppendGroups
from hub.adapters.redis_connection import RedisCommands, load_script
from hub.adapters.redis_keys import RedisKeys
from hub.adapters.redis_link import LinkTiming, RedisLink
from hub.errors import QueueUnavailable
from hub.ports import Append, Appended, IngestEntry, KeyReused, Position, QueuedSlice, RejectedEntry

_WAITING = load_script("waiting.lua")
_REJECTED_KEPT = 10_000
_HEARD_KEPT = 10_000
# A read begins small and grows, since an entry may hold one slice or a whole request of 8 MiB.
_FIRST_ENTRIES = 16
_GROWTH = 4
_READ_BYTES = 4 * 1024 * 1024

T = TypeVar("T")
_Entries = list[tuple[bytes, list[T]]]
_unpack = msgspec.msgpack.Decoder(list[bytes]).decode


class RedisQueue:
    """`EventQueue` on one Redis."""

    def __init__(
        self,
        url: str,
        prefix: str,
        partitions: int,
        *,
        timeout_seconds: float = 5.0,
        link_timing: LinkTiming | None = None,
    ) -> None:
        self._url = url
        self._keys = RedisKeys(prefix, partitions)
        self._link_timing = link_timing or LinkTiming()
        self._commands = RedisCommands(url, QueueUnavailable, timeout_seconds)
        self._typical_weight: dict[str, float] = {}  # slices in an entry, as last seen
        self._appends = AppendGroups(self._commands, self._keys, timeout_seconds)

    async def append(self, events: Sequence[Append]) -> list[Appended | KeyReused]:
        """See `EventQueue.append`."""
        return await self._appends.append(events) if events else []

    async def find_key(self, key: str) -> str | None:
        """See `EventQueue.find_key`."""
        known: bytes | None = await self._commands.call("GET", self._keys.idempotency(key))
        return known.split(b" ", 1)[0].decode() if known else None

    async def read(
        self, partition: str, after: Position | None, limit: int, wait_seconds: float
    ) -> list[QueuedSlice]:
        """See `EventQueue.read`. A slice of a foreign entry is handed over like any other."""
        found = await self.read_many({partition: after}, limit, wait_seconds)
        return found.get(partition, [])

    async def read_many(
        self, after: Mapping[str, Position | None], limit: int, wait_seconds: float
    ) -> dict[str, list[QueuedSlice]]:
        """See `EventQueue.read_many`. One XREAD; what has more waiting is then read on by itself."""
        starts = {
            self._keys.queue(name): f"{position.ms}-{position.seq}" if position else "0-0"
            for name, position in after.items()
        }
        read = await self._read_streams(starts, limit, wait_seconds, _slices_of)
        found = {}
        for name in after:
            if entries := read.get(self._keys.queue(name)):
                found[name] = [
                    QueuedSlice(Position(ms, seq, index), raw)
                    for entry_id, slices in entries
                    for ms, seq in [_split_id(entry_id)]
                    for index, raw in enumerate(slices)
                ]
        return found

    async def trim(self, partition: str, through: Position) -> None:
        """See `EventQueue.trim`. A late repeat of an old trim finds nothing to remove."""
        await self._trim(self._keys.queue(partition), through.ms, through.seq)

    async def waiting(self) -> dict[str, int]:
        """See `EventQueue.waiting`."""
        names = self._keys.partitions
        keys = [key for name in names for key in (self._keys.queue(name), self._keys.queue_total(name))]
        counts, ingest = await self._commands.call_all(
            [("EVAL", _WAITING, len(keys), *keys), ("XLEN", self._keys.ingest)]
        )
        return {**dict(zip(names, counts, strict=True)), "ingest": ingest}

    async def read_ingest(self, after: str | None, limit: int, wait_seconds: float) -> list[IngestEntry]:
        """See `EventQueue.read_ingest`. Of a field given twice the last counts."""
        read = await self._read_streams(
            {self._keys.ingest: after or "0-0"}, limit, wait_seconds, lambda fields: [fields]
        )
        return [
            IngestEntry(entry_id.decode(), dict(zip(fields[::2], fields[1::2], strict=True)))
            for entry_id, [fields] in read.get(self._keys.ingest, [])
        ]

    async def trim_ingest(self, through: str) -> None:
        """See `EventQueue.trim_ingest`."""
        await self._trim(self._keys.ingest, *_split_id(through.encode()))

    async def reject_ingest(self, rejected: Sequence[RejectedEntry]) -> None:
        """See `EventQueue.reject_ingest`."""
        into = ("XADD", self._keys.rejected, "MAXLEN", _REJECTED_KEPT, "*")
        await self._commands.call_all(
            [
                (*into, "event", one.event, "code", one.code, "detail", one.detail, "source_id", one.entry_id)
                for one in rejected
            ]
        )

    async def listen_ingest(self, receive: Callable[[bytes], Awaitable[None]]) -> None:
        """See `EventQueue.listen_ingest`. What comes faster than `receive` takes it is dropped beyond a bound."""
        heard = _Heard()
        link = RedisLink(self._url, heard, self._link_timing)
        try:
            await link.start([self._keys.publish])
            while True:
                await receive(await heard.bodies.get())
        finally:
            await link.close()

    async def close(self) -> None:
        """See `EventQueue.close`. Appends that wait are told that they did not happen."""
        await self._appends.close()
        await self._commands.close()

    async def _trim(self, stream: str, ms: int, seq: int) -> None:
        await self._commands.call("XTRIM", stream, "MINID", "=", f"{ms}-{seq + 1}")

    async def _read_streams(
        self,
        starts: Mapping[str, str],
        limit: int,
        wait_seconds: float,
        unpack: Callable[[list[bytes]], list[T]],
    ) -> dict[str, _Entries[T]]:
        """Whole entries of each stream after an id, until they hold `limit` things or are many bytes; waits for the first."""
        block = ("BLOCK", max(1, int(wait_seconds * 1000))) if wait_seconds > 0 else ()
        count = min(self._first_count(stream, limit) for stream in starts)
        reply: Any = await self._commands.call(
            "XREAD", "COUNT", count, *block, "STREAMS", *starts, *starts.values(), wait_seconds=wait_seconds
        )
        return {
            name.decode(): await self._read_on(name.decode(), batch, count, limit, unpack)
            for name, batch in reply or ()
        }

    async def _read_on(
        self,
        stream: str,
        batch: list[tuple[bytes, list[bytes]]],
        count: int,
        limit: int,
        unpack: Callable[[list[bytes]], list[T]],
    ) -> _Entries[T]:
        """The entries of a first read by `count`, and what follows them up to the limits."""
        entries: _Entries[T] = []
        weight = size = 0
        while True:
            for entry_id, fields in batch:
                things = unpack(fields)
                entries.append((entry_id, things))
                weight += len(things)
                size += sum(map(len, fields))
                if weight >= limit or size >= _READ_BYTES:
                    break
            else:
                if len(batch) == count:
                    by_weight = (limit - weight) * len(entries) // max(weight, 1)
                    by_size = (_READ_BYTES - size) * len(entries) // max(size, 1)
                    count = max(1, min(count * _GROWTH, by_weight, by_size))
                    reply: Any = await self._commands.call(
                        "XREAD", "COUNT", count, "STREAMS", stream, entries[-1][0]
                    )
                    batch = reply[0][1] if reply else []
                    continue
            if entries:
                self._typical_weight[stream] = max(1.0, weight / len(entries))
            return entries

    def _first_count(self, stream: str, limit: int) -> int:
        return max(1, min(_FIRST_ENTRIES, int(limit / self._typical_weight.get(stream, 1.0))))


def _slices_of(fields: list[bytes]) -> list[bytes]:
    """The slices of an entry. What is not one of our packs is handed over as it is."""
    slices: list[bytes] = []
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        if name.endswith(b"="):
            try:
                slices += _unpack(value)
                continue
            except msgspec.MsgspecError:
                pass
        slices.append(value)
    return slices


class _Heard:
    """What the publish channel said, as a bounded queue."""

    def __init__(self) -> None:
        self.bodies: asyncio.Queue[bytes] = asyncio.Queue(_HEARD_KEPT)

    def link_message(self, name: str, body: bytes) -> None:  # noqa: ARG002 - one channel only
        """Keep one body, or drop it: this way in is at most once."""
        if not self.bodies.full():
            self.bodies.put_nowait(body)

    def link_lost(self) -> None:
        """What is published meanwhile is lost, as documented."""

    def link_restored(self) -> None:
        """Nothing to repair."""


def _split_id(entry_id: bytes) -> tuple[int, int]:
    ms, seq = entry_id.split(b"-")
    return int(ms), int(seq)
