"""Group commit: appends that arrive while others are under way share the next round trip and its fsync.

A trip costs this process and Redis as much as several appends, so one that follows a shared one waits a few milliseconds
for company. Who publishes alone, one after the other, never waits. Each caller gets its own results, or
`QueueUnavailable`. A cancelled caller disturbs nobody: if its events were not sent yet they are left out. Nothing is sent
twice.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from hub.adapters.redis_connection import RedisCommands, load_script
from hub.adapters.redis_keys import RedisKeys
from hub.adapters.redis_line import Command
from hub.errors import QueueUnavailable
from hub.ports import Append, Appended, Idempotency, KeyReused

_APPEND = load_script("append.lua")
# One script call holds up everybody else on that Redis, so it stays short. A call of one caller is never cut.
_SCRIPT_SLICES = 500
_SCRIPT_BYTES = 512 * 1024
_TRIP_BYTES = 8 * 1024 * 1024
_WAITING_BYTES = 64 * 1024 * 1024
_LEAST_SECONDS = 1.0
GATHER_SECONDS = 0.003  # between the starts of two trips that are shared …
ENOUGH_SLICES = 32  # … unless so many wait

Outcome = Appended | KeyReused
_pack = msgspec.msgpack.Encoder().encode


class _Call:
    """One caller that waits."""

    __slots__ = ("deadline", "events", "outcomes", "size", "slices")

    def __init__(
        self, events: Sequence[Append], deadline: float, outcomes: asyncio.Future[list[Outcome]]
    ) -> None:
        self.events = events
        self.deadline = deadline
        self.outcomes = outcomes
        self.slices = self.size = 0
        for event in events:
            for raw in event.slices.values():
                self.slices += 1
                self.size += len(raw)


@dataclass(slots=True)
class _Script:
    """Calls that are appended by one script call."""

    calls: list[_Call] = field(default_factory=list)
    slices: int = 0
    size: int = 0
    runs: list[list[Append]] = field(default_factory=list)  # the events for which each of its answers stands

    def has_room_for(self, call: _Call) -> bool:
        return self.slices + call.slices <= _SCRIPT_SLICES and self.size + call.size <= _SCRIPT_BYTES

    def add(self, call: _Call) -> None:
        self.calls.append(call)
        self.slices += call.slices
        self.size += call.size


class AppendGroups:
    """Collects calls and sends them, one round trip at a time."""

    def __init__(self, commands: RedisCommands, keys: RedisKeys, timeout_seconds: float) -> None:
        self._commands = commands
        self._keys = keys
        self._timeout_seconds = timeout_seconds
        self._waiting: list[_Call] = []
        self._waiting_bytes = 0
        self._waiting_slices = 0
        self._earliest = 0.0  # by the loop's clock: when the next trip may begin
        self._enough: asyncio.Event | None = None
        self._sender: asyncio.Task[None] | None = None
        self._closed = False

    async def append(self, events: Sequence[Append]) -> list[Outcome]:
        """Append the events of one call, with whatever else waits. Raises `QueueUnavailable`."""
        if self._closed:
            raise QueueUnavailable("The queue is closed; nothing was appended.")
        loop = asyncio.get_running_loop()
        call = _Call(events, loop.time() + self._timeout_seconds, loop.create_future())
        if self._waiting and self._waiting_bytes + call.size > _WAITING_BYTES:
            raise QueueUnavailable("Too much waits for Redis already; nothing was appended.")
        self._waiting.append(call)
        self._waiting_bytes += call.size
        self._waiting_slices += call.slices
        if self._enough is not None and self._waiting_slices >= ENOUGH_SLICES:
            self._enough.set()
        if self._sender is None:
            self._sender = loop.create_task(self._send_all(), name="append groups")
        return await call.outcomes

    async def close(self) -> None:
        """Let the round trip under way end; tell the rest that nothing happened."""
        self._closed = True
        if self._enough is not None:
            self._enough.set()
        for call in self._take(all_of_them=True):
            _fail(call, "The queue was closed; nothing was appended.")
        if self._sender:
            await asyncio.wait([self._sender])

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                started = asyncio.get_running_loop().time()
                calls = self._take()
                await self._send(calls)
                is_shared = len(calls) + len(self._waiting) > 1
                self._earliest = started + GATHER_SECONDS if is_shared else 0.0
        finally:
            self._sender = None
            for call in self._take(all_of_them=True):  # only when this task was cancelled
                _fail(call, "The queue was closed; nothing was appended.")

    async def _gather(self) -> None:
        """Let more come, when they do come: until a moment after the last trip's start, or enough wait."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._earliest and self._waiting_slices < ENOUGH_SLICES:
            self._enough = asyncio.Event()
            timer = loop.call_at(self._earliest, self._enough.set)
            try:
                await self._enough.wait()
            finally:
                timer.cancel()
                self._enough = None

    def _take(self, *, all_of_them: bool = False) -> list[_Call]:
        """The next round trip's calls, in order of arrival, without those whose caller has gone."""
        taken: list[_Call] = []
        size = count = 0
        for call in self._waiting:
            if taken and size + call.size > _TRIP_BYTES and not all_of_them:
                break
            count += 1
            self._waiting_bytes -= call.size
            self._waiting_slices -= call.slices
            if not call.outcomes.done():
                taken.append(call)
                size += call.size
        del self._waiting[:count]
        return taken

    async def _send(self, calls: list[_Call]) -> None:
        now = asyncio.get_running_loop().time()
        timely: list[_Call] = []
        for call in calls:
            if call.deadline > now:
                timely.append(call)
            else:
                _fail(call, "Redis is too slow; nothing was appended.")
        if not timely:
            return
        scripts = [_Script()]
        for call in timely:
            if scripts[-1].calls and not scripts[-1].has_room_for(call):
                scripts.append(_Script())
            scripts[-1].add(call)
        # Nobody waits much longer than the timeout, and nobody's trip is too short to be one.
        seconds = max(timely[0].deadline - now, _LEAST_SECONDS)
        reason = "The append was interrupted; the outcome is unknown."
        try:
            commands = [self._command(script) for script in scripts]
            replies = await self._commands.try_all(commands, seconds)
            for script, reply in zip(scripts, replies, strict=True):
                _settle(script, reply)
        except QueueUnavailable as error:
            reason = str(error)
        finally:
            for call in timely:
                _fail(call, reason)

    def _command(self, script: _Script) -> Command:
        places: dict[str, int] = {}  # of idempotency keys among the script's keys
        numbers: dict[str, int] = {}  # of partitions
        parts: list[str | bytes | int] = []
        for keyed, run in _runs(script.calls):
            script.runs.append(run)
            if keyed is None:
                parts += ("", 0, "", 0)
            else:
                place = places.setdefault(keyed.key, len(places) + 1)
                parts += (run[0].event_id, place, keyed.digest, keyed.keep_seconds)
            packs: dict[str, list[bytes]] = {}
            for event in run:
                for partition, raw in event.slices.items():
                    packs.setdefault(partition, []).append(raw)
            parts.append(len(packs))
            for partition, raws in packs.items():
                parts += (numbers.setdefault(partition, len(numbers) + 1), len(raws), _pack(raws))
        keys = [self._keys.idempotency(key) for key in places]
        keys += [key for name in numbers for key in (self._keys.queue(name), self._keys.queue_total(name))]
        return ("EVAL", _APPEND, len(keys), *keys, len(places), *parts)


def _runs(calls: Sequence[_Call]) -> list[tuple[Idempotency | None, list[Append]]]:
    """Events with a key one by one; those without need no check, so neighbours go together."""
    runs: list[tuple[Idempotency | None, list[Append]]] = []
    unkeyed: list[Append] = []
    for call in calls:
        for event in call.events:
            if event.idempotency is None:
                if not unkeyed:
                    runs.append((None, unkeyed))
                unkeyed.append(event)
            else:
                unkeyed = []
                runs.append((event.idempotency, [event]))
    return runs


def _settle(script: _Script, reply: object) -> None:
    """Hand each call its part of the script's answers."""
    if not isinstance(reply, list):
        for call in script.calls:
            _fail(call, f"Redis refused the append: {str(reply)[:200]}")
        return
    outcomes: list[Outcome] = []
    for answer, run in zip(reply, script.runs, strict=True):
        if isinstance(answer, bytes):
            first = answer[1:].decode()
            outcomes.append(KeyReused(first) if answer[:1] == b"!" else Appended(first, replayed=True))
        else:
            outcomes += [Appended(event.event_id) for event in run]
    start = 0
    for call in script.calls:
        end = start + len(call.events)
        if not call.outcomes.done():
            call.outcomes.set_result(outcomes[start:end])
        start = end


def _fail(call: _Call, reason: str) -> None:
    """Refuse a caller that has no answer yet."""
    if not call.outcomes.done():
        call.outcomes.set_exception(QueueUnavailable(reason))
