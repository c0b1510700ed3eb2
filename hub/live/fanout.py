"""Fan-out of broadcasts to all connections of a node: one sweep at a time, in slices, then the loop gets its turn.

Each connection gets every broadcast that its user may see, in order, once. Members without restricting rules share
one frame per locale and topic; the others are tested one by one with `visible()`. What comes during a sweep waits for
the next one, where each wire gets all of it in one go.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Final

from hub.live.broadcasts import BroadcastEntry
from hub.live.metrics import LiveMetrics
from hub.live.reached import Reached
from hub.live.registry import Member, Registry, Seat
from hub.live.seam import Frame, Parcel
from hub.model.visibility import visible
from hub.model.vocabulary import BROADCASTS
from hub.ports import Clock

SLICE: Final = 256  # wires between two turns of the loop
BACKLOG: Final = 1_000  # broadcasts that wait for one member; beyond, they refetch
PORTION_BYTES: Final = 256 * 1024  # of broadcasts in one sweep, or one broadcast
QUEUE: Final = 5_000  # broadcasts that wait for a sweep; beyond, everyone refetches
HELD: Final = 2_000  # publications that wait for one reply; beyond, the same

logger = logging.getLogger(__name__)


class Fanout:
    """Hands publications to wires."""

    def __init__(
        self,
        registry: Registry,
        reached: Reached,
        metrics: LiveMetrics,
        clock: Clock,
        default_timezone: str,
        reload: Callable[[Member], None],
        ttl_seconds: float,
    ) -> None:
        self._registry = registry
        self._reached = reached
        self._metrics = metrics
        self._clock = clock
        self._default_timezone = default_timezone
        self._reload = reload
        self._ttl_us = int(ttl_seconds * 1e6)
        self._queue: list[BroadcastEntry] = []
        self._sweep: Iterator[None] | None = None
        self.sequence = 0  # of the last publication that was given to `broadcast`

    # ------------------------------------------------------------ one wire

    def deliver(self, seat: Seat, channel: str, frame: Frame | None) -> None:
        """Give one publication (None: a gap) to one wire, or hold it back until its reply is out."""
        if seat.left:
            return
        if seat.held is not None and (held := seat.held.get(channel)) is not None:
            if len(held) >= HELD:
                held[:] = [None]
            else:
                held.append(frame)
            return
        try:
            if frame is None:
                seat.wire.gap(channel)
                return
            seat.wire.push(frame)
        except Exception:
            # A wire promises not to raise. If one does, the others must still get theirs.
            logger.exception("a connection failed while it was written to")
            return
        if frame.report_id and (channel != BROADCASTS or seat.member.is_addressed):
            self._reached.written(seat, frame.report_id)

    # ------------------------------------------------------------ broadcasts

    def broadcast(self, entry: BroadcastEntry) -> None:
        """Queue one publication for all who are connected now."""
        self.sequence += 1
        entry.sequence = self.sequence
        self._registry.broadcast_seq = max(self._registry.broadcast_seq, entry.broadcast.seq)
        if len(self._queue) >= QUEUE:
            self._queue.clear()
            entry = BroadcastEntry.gap(entry.epoch, entry.offset, entry.sequence)
        self._queue.append(entry)
        if self._sweep is None:
            self._sweep = self._run()
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        if self._sweep is None:
            return
        try:
            done = next(self._sweep, self) is self
        except Exception:
            # Who was not visited yet would miss this batch without a word: all are told to refetch.
            logger.exception("a sweep failed")
            self._sweep = self._run()
            self.broadcast(BroadcastEntry.gap("", 0))
            done = False
        if done:
            self._sweep = None
        else:
            asyncio.get_running_loop().call_soon(self._step)

    def _run(self) -> Iterator[None]:
        while self._queue:
            batch = self._portion()
            plan = _Plan(batch)
            fresh_from_us = self._clock.now_us() - self._ttl_us
            done = 0
            for members in self._slices(batch):
                done += self._offer_all(members, plan, fresh_from_us)
                yield
            self._count(batch, done)

    def _portion(self) -> list[BroadcastEntry]:
        """What the next sweep hands out: a wire that does not read must not be given a long queue in one piece."""
        size = 0
        for count, entry in enumerate(self._queue):
            size += entry.size
            if size > PORTION_BYTES and count:
                portion, self._queue = self._queue[:count], self._queue[count:]
                return portion
        portion, self._queue = self._queue, []
        return portion

    def _candidates(self, batch: list[BroadcastEntry]) -> list[Member]:
        if any(entry.everyone for entry in batch):
            return list(self._registry.members.values())
        topics = {topic for entry in batch for topic in entry.broadcast.audience.topics}
        found = dict(self._registry.unready)
        found.update(dict.fromkeys(self._registry.subscribers(topics)))
        return list(found)

    def _slices(self, batch: list[BroadcastEntry]) -> Iterator[list[Member]]:
        """Who may get some of it, in portions of about as many wires as `SLICE`."""
        members = self._candidates(batch)
        if len(self._registry.seats) < 2 * len(self._registry.members):
            for first in range(0, len(members), SLICE):
                yield members[first : first + SLICE]
            return
        portion: list[Member] = []
        wires = 0
        for member in members:
            portion.append(member)
            wires += len(member.seats)
            if wires >= SLICE:
                yield portion
                portion, wires = [], 0
        yield portion

    def _offer_all(self, members: list[Member], plan: "_Plan", fresh_from_us: int) -> int:
        """Give members what they may see of a batch; returns the written frames. The hottest loop of a node."""
        first = plan.first if plan.uniform else 0
        excluded, parcels = plan.excluded, plan.parcels
        written = 0
        for member in members:
            if (
                not first
                or member.restricted
                or not member.ready
                or member.user_at_us < fresh_from_us
                or (excluded and member.user_id in excluded)
            ):
                written += self._offer(member, plan, fresh_from_us)
                continue
            parcel = parcels.get(member.locale) or plan.parcel(member.locale)
            seats = member.seats
            for seat in seats:
                if seat.held is not None or seat.left or seat.broadcasts_after >= first:
                    written += self._write_to(seat, plan.frames(parcel))
                    continue
                try:
                    seat.wire.push_parcel(parcel)
                except Exception:
                    logger.exception("a connection failed while it was written to")
                    continue
                if parcel.report_ids and member.is_addressed:
                    for report_id in parcel.report_ids:
                        self._reached.written(seat, report_id)
                written += len(parcel.frames)
        return written

    def _offer(self, member: Member, plan: "_Plan", fresh_from_us: int) -> int:
        """Give one member what they may see, tested one by one, or keep it until their row is loaded."""
        if not member.ready or member.user_at_us < fresh_from_us:
            self._keep(member, plan.batch)
            return 0
        return self._write(member, [(entry, self._frame_or_gap(member, entry)) for entry in plan.batch])

    def _keep(self, member: Member, batch: list[BroadcastEntry]) -> None:
        member.backlog += tuple(batch)
        if len(member.backlog) > BACKLOG:
            newest = member.backlog[-1]
            member.backlog = (BroadcastEntry.gap(newest.epoch, newest.offset, newest.sequence),)
        self._reload(member)

    def flush(self, member: Member) -> None:
        """The member's row is loaded: give them what waited for it."""
        backlog, member.backlog = member.backlog, ()
        if backlog:
            written = self._write(member, [(entry, self._frame_or_gap(member, entry)) for entry in backlog])
            self._metrics.delivered(BROADCASTS, written)

    def _write(self, member: Member, frames: "list[tuple[BroadcastEntry, Frame | bool]]") -> int:
        return sum([self._write_to(seat, frames) for seat in member.seats])

    def _write_to(self, seat: Seat, frames: "list[tuple[BroadcastEntry, Frame | bool]]") -> int:
        written = 0
        after = seat.broadcasts_after
        for entry, frame in frames:
            if frame is not False and entry.sequence > after:
                self.deliver(seat, BROADCASTS, None if frame is True else frame)
                written += 1
        return written

    def _frame_or_gap(self, member: Member, entry: BroadcastEntry) -> Frame | bool:
        return True if entry.is_gap else self.frame_for(member, entry) or False

    def frame_for(self, member: Member, entry: BroadcastEntry) -> Frame | None:
        """The frame that a member gets of a publication, or None when it is not for them."""
        broadcast = entry.broadcast
        if member.user is None or not broadcast.in_app:
            return None
        if entry.expires_at_us is not None and entry.expires_at_us <= self._clock.now_us():
            return None
        if member.restricted or broadcast.audience.timezones is not None:
            verdict = visible(broadcast, member.viewer(), self._default_timezone)
            return entry.frame_in(member.locale, verdict.topic) if verdict else None
        # The same answer as `visible` gives to who has no rules of their own, in less time.
        if member.user_id in entry.excluded or not (broadcast.default_in_app or broadcast.critical):
            return None
        for topic in broadcast.audience.topics:
            for interval in member.topics.get(topic, ()):
                if interval.from_seq <= broadcast.seq and (
                    interval.until_seq is None or broadcast.seq < interval.until_seq
                ):
                    return entry.frame_in(member.locale, topic)
        return entry.frame_in(member.locale, None) if broadcast.audience.everyone else None

    def _count(self, batch: list[BroadcastEntry], written: int) -> None:
        self._metrics.delivered(BROADCASTS, written)
        now_us = self._clock.now_us()
        for entry in batch:
            entry.forget_frames()
            if entry.accepted_at_us and not entry.is_gap:
                self._metrics.latency(BROADCASTS, now_us - entry.accepted_at_us)


class _Plan:
    """What a batch has in common for members without rules: one parcel per locale."""

    __slots__ = ("batch", "excluded", "first", "parcels", "uniform")

    def __init__(self, batch: list[BroadcastEntry]) -> None:
        self.batch = batch
        self.first = batch[0].sequence
        self.uniform = all(entry.uniform for entry in batch)
        self.excluded = frozenset[str]().union(*(entry.excluded for entry in batch))
        self.parcels: dict[str | None, Parcel] = {}

    def parcel(self, locale: str | None) -> Parcel:
        """The batch for everyone with this locale who is not excluded from any of it."""
        parcel = self.parcels.get(locale)
        if parcel is None:
            parcel = self.parcels[locale] = Parcel([entry.frame_in(locale, None) for entry in self.batch])
        return parcel

    def frames(self, parcel: Parcel) -> list[tuple[BroadcastEntry, Frame | bool]]:
        """The same one by one, for who may not have got all of it."""
        return list(zip(self.batch, parcel.frames, strict=True))
