"""One live channel on a node: its epoch, its last offset, a ring of what came last, and the repair of gaps.

What leaves here is contiguous by offset, without repeats, in one epoch; where history cannot give that, the channel
says so (`lost`) and goes on from the stream's top. Messages are hints: only the bus' history tells what there is.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from hub.errors import BusUnavailable
from hub.ports import History, LiveBus, Message

if TYPE_CHECKING:
    from hub.live.registry import Seat

TOP: Final = 2**53  # beyond every offset: asks history for the position alone
_BUFFERED: Final = 2_000  # messages kept while a history is read; beyond, it is read again

logger = logging.getLogger(__name__)


class Held(Protocol):
    """What a channel keeps of a message."""

    epoch: str
    offset: int
    size: int  # bytes, for the bound of the ring


E = TypeVar("E", bound=Held)


@dataclass(frozen=True, slots=True)
class ChannelKind(Generic[E]):
    """What channels of one kind have in common."""

    name: str  # personal, broadcasts or log
    bus: LiveBus
    make: Callable[[Message], E]
    publish: Callable[["Channel[E]", E], None]  # the next one, in order
    lost: Callable[["Channel[E]"], None]  # something before the present position is gone for good
    failed: Callable[["Channel[E]"], None]  # a repair did: `check` must be called again
    repaired: Callable[[str, int], None]
    cap: int  # more missed ones than this are not recovered
    ring_entries: int
    ring_bytes: int
    shared: bool = False  # many clients recover from it: read its history once for all


class Channel(Generic[E]):
    """The state of one channel on this node. `seats` are the connections that get its live publications."""

    __slots__ = (
        "_buffer",
        "_reach",
        "_read_back",
        "_ring",
        "_ring_size",
        "_subscribed",
        "_sync",
        "closed",
        "epoch",
        "idle_since_us",
        "kind",
        "last",
        "losses",
        "name",
        "seats",
        "users",
    )

    def __init__(self, name: str, kind: ChannelKind[E]) -> None:
        self.name = name
        self.kind = kind
        self.epoch = ""  # not known yet
        self.last = 0
        self.losses = 0  # how often `lost` was said
        self.closed = False
        self.users = 0  # those who need it open
        self.idle_since_us = 0
        self.seats: tuple[Seat, ...] = ()  # a list for each user would be twice as large
        self._subscribed = False
        self._buffer: list[Message] | None = None  # while a history is read
        self._sync: asyncio.Task[None] | None = None
        self._read_back: asyncio.Task[None] | None = None
        self._ring: list[E] | None = None  # a list: an empty deque costs 760 bytes, and there is one per user
        self._ring_size = 0
        self._reach = 0  # history holds nothing at or below this offset

    # ------------------------------------------------------------ live

    def receive(self, message: Message) -> None:
        """A message of the bus: the next one goes out, an old one is dropped, any other starts a repair."""
        if self._buffer is not None:
            if len(self._buffer) >= _BUFFERED:
                # Only the newest matters then: its offset shows the gap, and history has the rest.
                self._buffer.clear()
            self._buffer.append(message)
        elif not self._take(message):
            self._start_sync([message])

    def _take(self, message: Message) -> bool:
        """Tell whether this message needs no repair."""
        if message.epoch != self.epoch:
            return False
        if message.offset == self.last + 1:
            self._accept(message)
            return True
        return message.offset <= self.last

    def _accept(self, message: Message) -> None:
        entry = self.kind.make(message)
        self.last = message.offset
        self._keep(entry)
        self.kind.publish(self, entry)

    def _keep(self, entry: E) -> None:
        if self._ring is None:
            self._ring = []
        self._ring.append(entry)
        self._ring_size += entry.size
        while self._ring and (
            len(self._ring) > self.kind.ring_entries or self._ring_size > self.kind.ring_bytes
        ):
            self._ring_size -= self._ring.pop(0).size

    # ------------------------------------------------------------ agreement with history

    async def ready(self, after: int | None = None) -> bool:
        """Return when the channel is subscribed and its position known; `after` is where a first reader wants to begin.

        True: the position was just read. Raises `BusUnavailable`.
        """
        if self._sync is None and not self.epoch:
            self._start_sync([], after)
        if self._sync is None:
            return False
        await _outcome(self._sync)
        return True

    async def check(self) -> None:
        """Compare with history and repair. Callers that come together share one read. Raises `BusUnavailable`."""
        self.check_soon()
        if self._sync is not None:
            await _outcome(self._sync)

    def check_soon(self) -> None:
        """The same, without waiting for it."""
        if self._sync is None and not self.closed:
            self._start_sync([])

    def stop(self) -> list[asyncio.Task[None]]:
        """Give up what is under way; returns what ends soon."""
        self.closed = True
        tasks = [task for task in (self._sync, self._read_back) if task is not None]
        for task in tasks:
            task.cancel()
        return tasks

    async def close(self) -> None:
        """Give the subscription back; nobody uses the channel any more."""
        self.closed = True
        if self._sync is not None:
            await asyncio.wait([self._sync])
        if self._subscribed:
            self._subscribed = False
            with suppress(BusUnavailable):  # then there is nothing to give back
                await self.kind.bus.unsubscribe(self.name)

    def _start_sync(self, messages: list[Message], after: int | None = None) -> None:
        self._buffer = messages
        self._sync = asyncio.create_task(self._agree(after))
        self._sync.add_done_callback(self._synced)

    def _synced(self, task: asyncio.Task[None]) -> None:
        if self._sync is task:
            self._end_sync()
        if task.cancelled() or task.exception() is None:
            return
        if not isinstance(task.exception(), BusUnavailable):
            logger.error("a channel (%s) could not be repaired", self.kind.name, exc_info=task.exception())
        self.kind.failed(self)

    def _end_sync(self) -> None:
        self._sync = None
        self._buffer = None

    async def _agree(self, after: int | None) -> None:
        try:
            await self._agree_with_history(after)
        finally:
            self._end_sync()  # in the same step as the last look at the buffer: nothing slips in between

    async def _agree_with_history(self, after: int | None) -> None:
        if not self._subscribed:
            await self.kind.bus.subscribe(self.name)
            self._subscribed = True
        while True:
            # What arrives from here on is newer than the history that is asked for now.
            pending, self._buffer = self._buffer or [], []
            if self.epoch:
                history = await self.kind.bus.history(self.name, self.last, self.epoch, self.kind.cap)
                more = self._repair(history)
            else:
                history = await self.kind.bus.history(
                    self.name, TOP if after is None else after, None, self.kind.cap
                )
                self._adopt(history)
                more = False
            if not more and self._replay(pending, known=True) and self._replay(self._buffer, known=False):
                return

    def _repair(self, history: History) -> bool:
        """Put out what was missed, or say that it is lost; True when history has more."""
        messages = history.messages
        if history.epoch == self.epoch and history.top == self.last:
            return False
        if history.epoch != self.epoch or not messages or messages[0].offset != self.last + 1:
            self._lose(history)
            return False
        before = self.last
        for message in messages:
            if not self._take(message):
                break
        self.kind.repaired(self.kind.name, self.last - before)
        return self.last < history.top

    def _lose(self, history: History) -> None:
        self._ring = None
        self._ring_size = 0
        self._reach = 0
        self._adopt(history)
        self.losses += 1
        self.kind.lost(self)

    def _adopt(self, history: History) -> None:
        self.epoch = history.epoch
        self.last = history.top
        messages = history.messages
        if messages and messages[-1].offset == history.top and _contiguous(messages):
            for message in messages:
                self._keep(self.kind.make(message))

    def _replay(self, messages: list[Message], *, known: bool) -> bool:
        """Take what arrived meanwhile. `known`: before the history was asked for, which therefore has the last word."""
        while messages:
            if not self._take(messages[0]) and not known:
                return False  # asks history again, then this one is known
            del messages[0]
        return True

    # ------------------------------------------------------------ recovery

    async def since(self, after: int, top: int, epoch: str) -> list[E] | None:
        """The publications after an offset up to the present `top`, or None when they cannot all be had.

        Raises `BusUnavailable`.
        """
        if after == top:
            return []
        if after > top or top - after > self.kind.cap or after < self._reach:
            return None
        found = self._recall(after, top)
        if found is None and self.kind.shared:
            await self._read_back_once()
            found = self._recall(after, top) if self.epoch == epoch else None
        if found is None and self.epoch == epoch and after >= self._reach:
            history = await self.kind.bus.history(self.name, after, epoch, self.kind.cap)
            messages = history.messages
            if (
                history.epoch == epoch
                and messages
                and messages[0].offset == after + 1
                and _contiguous(messages)
            ):
                found = [self.kind.make(message) for message in messages if message.offset <= top]
            elif history.epoch == epoch == self.epoch:
                self._reach = max(self._reach, after + 1)
        if found is not None and len(found) != top - after:
            return None
        return found if self.epoch == epoch else None

    async def held(self) -> list[E]:
        """What history holds up to the present top, as far as `cap` goes. Raises `BusUnavailable`."""
        top, epoch = self.last, self.epoch
        if not self.kind.shared:
            after = max(0, top - self.kind.cap)
            history = await self.kind.bus.history(self.name, after, epoch, self.kind.cap)
            return [self.kind.make(message) for message in history.messages if message.offset <= top]
        if top and (
            not self._ring or self._ring[0].offset - 1 > max(self._reach, top - self.kind.ring_entries)
        ):
            await self._read_back_once()
        return [] if self._ring is None else self._ring.copy()

    def _recall(self, after: int, top: int) -> list[E] | None:
        ring = self._ring
        if not ring or ring[0].offset > after + 1:
            return None
        first = ring[0].offset
        return ring[after + 1 - first : top + 1 - first]

    async def _read_back_once(self) -> None:
        if self._read_back is None:
            self._read_back = asyncio.create_task(self._read_ring())
            self._read_back.add_done_callback(self._ring_read)
        await _outcome(self._read_back)

    def _ring_read(self, task: asyncio.Task[None]) -> None:
        self._read_back = None
        if not task.cancelled():
            task.exception()  # those who wait have it

    async def _read_ring(self) -> None:
        """Fill the ring from history, backwards to what it holds."""
        wanted = max(0, self.last - self.kind.ring_entries)
        epoch = self.epoch
        history = await self.kind.bus.history(self.name, wanted, epoch, self.kind.ring_entries)
        if (
            history.messages
            and history.messages[0].offset != wanted + 1
            and history.epoch == epoch == self.epoch
        ):
            self._reach = history.messages[0].offset - 1
        first = self._ring[0].offset if self._ring else self.last + 1
        older = [message for message in history.messages if message.offset < first]
        if self.epoch != epoch or history.epoch != epoch or not _contiguous(older):
            return
        if not older or older[-1].offset != first - 1:
            return
        ring = self._ring or []
        front: list[E] = []
        for message in reversed(older):
            entry = self.kind.make(message)
            if len(ring) + len(front) >= self.kind.ring_entries:
                break
            if self._ring_size + entry.size > self.kind.ring_bytes:
                break
            front.append(entry)
            self._ring_size += entry.size
        front.reverse()
        self._ring = front + ring


async def _outcome(task: asyncio.Task[None]) -> None:
    """Wait for shared work without owning it."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if task.cancelled():
            raise BusUnavailable("The live channel was given up.") from None
        raise


def _contiguous(messages: list[Message]) -> bool:
    return all(second.offset == first.offset + 1 for first, second in pairwise(messages))
