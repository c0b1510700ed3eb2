"""Delivering: a chunk of due deliveries is claimed, decided once more, composed, carried and recorded.

SQL is the truth: whatever happens to the job, a delivery is in one state there, and nothing is sent before `sending`
is on disk. One of a chunk that fails costs the others nothing. What is not begun when a process stops is given back.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from hub.batches import Catalog, CatalogSource
from hub.model.deliveries import Delivery
from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent, Unclear
from hub.model.outgoing import Item, Outgoing, Target
from hub.model.retries import Move, Tried, after_attempt
from hub.model.sending import Facts, Go, Stop, Wait, decide, fall_back
from hub.model.vocabulary import Channel
from hub.ports import Begin, Claimed, Clock, End, LogEntry, Wanted
from workers.carriers import Carried, Carriers
from workers.channels.base import ComposeError, Sender
from workers.claims import Claims
from workers.recorder import Recorder

_SECOND_US: Final = 1_000_000
_STATES: Final = {
    "failed": "retried",
    "dead": "failed",
}  # as the log calls a move; others have the state's name

_log = logging.getLogger(__name__)
Links = Callable[[Claimed], Mapping[str, str]]


class DeliveryMetrics(Protocol):
    """What senders count."""

    def attempted(self, channel: Channel, provider: str, outcome: str, seconds: float) -> None: ...
    def ended(self, channel: Channel, state: str, seconds_behind: float) -> None: ...


class _One:
    """A claimed delivery with what was decided about it."""

    __slots__ = ("claimed", "facts")

    def __init__(self, claimed: Claimed, catalog: Catalog) -> None:
        self.claimed = claimed
        delivery, event = claimed.delivery, claimed.event
        kind = catalog.types.get(delivery.type) or catalog.types["message"]
        item = None
        if event is not None and claimed.content is not None:
            item = Item(delivery.notification_id, claimed.content, event, delivery.created_at_us)
        self.facts = Facts(
            delivery=delivery,
            user=claimed.user,
            kind=kind,
            category=catalog.categories.get(delivery.category),
            item=item,
            targets=claimed.targets,
            suppressed=claimed.suppressed,
            hidden=claimed.hidden,
            reached_at_us=claimed.reached_at_us,
            seen_at_us=claimed.seen_at_us,
            is_broadcast=claimed.is_broadcast,
        )

    @property
    def delivery(self) -> Delivery:
        """The row."""
        return self.claimed.delivery


class Delivering:
    """Works chunks of one channel."""

    def __init__(
        self,
        sender: Sender,
        carriers: Carriers,
        claims: Claims,
        recorder: Recorder,
        catalog: CatalogSource,
        clock: Clock,
        *,
        links: Links,
        available: frozenset[Channel],
        default_timezone: str,
        metrics: DeliveryMetrics,
    ) -> None:
        self._sender = sender
        self._carriers = carriers
        self._claims = claims
        self._recorder = recorder
        self._catalog = catalog
        self._clock = clock
        self._links = links
        self._available = available
        self._default_timezone = default_timezone
        self._metrics = metrics
        self.stopping = False  # what is not begun is left to others

    async def chunk(self, deliveries: Sequence[Wanted]) -> None:
        """Deliver those of these that are still to be delivered. Raises `StoreUnavailable`."""
        catalog = await self._catalog.current()
        async with self._claims.on(deliveries) as (claim, taken):
            groups = iter(_grouped([_One(claimed, catalog) for claimed in taken]))
            hands = min(len(taken), self._carriers.connections)
            written = [self._work(claim, groups) for _ in range(hands)]
            for futures in await asyncio.gather(*written):
                await asyncio.gather(*futures, return_exceptions=True)  # what failed is logged, and lapses

    async def _work(self, claim: str, groups: Iterator[list[_One]]) -> "list[asyncio.Future[set[str]]]":
        """One of the chunk's workers, one message after the other; returns what is still to be written."""
        written: list[asyncio.Future[set[str]]] = []
        for group in groups:
            async with self._carriers.hands:
                if self.stopping:
                    break
                try:
                    ends = await self._deliver(claim, group)
                except Exception:  # noqa: BLE001 - one message must not take the others along; its claim lapses
                    _log.exception("a delivery failed in a way that nobody foresaw")
                    continue
                # Given before this hand is free: whoever uses it next begins in the same transaction or a later one,
                # so that a crash leaves no more in doubt than were on their way.
                written = [future for future in written if not future.done()]
                written += [self._record(ends)] if ends else []
        return written

    async def _deliver(self, claim: str, group: list[_One]) -> list[End]:
        """Send one message (a digest's deliveries are one); returns what is to be recorded of it."""
        now_us = self._clock.now_us()
        ends: list[End] = []
        going: list[_One] = []
        targets: tuple[Target, ...] = ()
        for one in group:
            match decide(one.facts, self._default_timezone, now_us):
                case Go(targets):
                    going.append(one)
                case Wait(due_at_us, reason):
                    ends.append(self._end(claim, one, Move("held", reason, due_at_us), "queued"))
                case Stop(state, reason):
                    ends.append(self._end(claim, one, Move(state, reason), "queued"))
        if not going:
            return ends
        if (wait := self._carriers.closed()) is not None:
            return ends + [self._after(claim, one, wait, "queued") for one in going]
        # Before anything is made of it: when a process dies, what it was at is known by its state.
        held = await self._recorder.step([], [Begin(claim, *_key(one), now_us) for one in going])
        begun = [one for one in going if one.delivery.id in held]
        if not begun:
            return ends  # all of them were cancelled, or became somebody else's, in the last moment
        try:
            message = self._sender.compose(self._outgoing(begun, targets))
        except ComposeError as error:
            unfit = GiveUp("not_composed", str(error))
            return ends + [self._after(claim, one, unfit, "sending") for one in begun]
        return ends + await self._send(claim, begun, message, targets)

    async def _send(
        self, claim: str, begun: list[_One], message: object, targets: tuple[Target, ...]
    ) -> list[End]:
        number = begun[0].delivery.attempts + 1
        carried = await self._carriers.carry(message, targets, number, is_repeat=_is_repeat(begun))
        for attempt in carried.tries.values():
            self._metrics.attempted(
                self._sender.channel, attempt.provider, attempt.outcome, attempt.duration_us / 1e6
            )
        return [self._after(claim, one, carried.outcome, "sending", carried) for one in begun]

    def _record(self, ends: list[End]) -> "asyncio.Future[set[str]]":
        def count(written: "asyncio.Future[set[str]]") -> None:
            if written.cancelled() or written.exception() is not None:
                return
            now_us = self._clock.now_us()
            for end in ends:
                if end.delivery.id in written.result():
                    behind = max(now_us - end.delivery.due_at_us, 0) / 1e6
                    self._metrics.ended(end.delivery.channel, end.move.state, behind)

        future = self._recorder.step(ends, [])
        future.add_done_callback(count)
        return future

    def _outgoing(self, group: list[_One], targets: tuple[Target, ...]) -> Outgoing:
        lead, newest = group[0], group[-1]
        items = tuple(one.facts.item for one in group if one.facts.item is not None)
        return Outgoing(
            delivery=lead.delivery,
            user=lead.claimed.user,
            kind=newest.facts.kind,
            category=newest.facts.category,
            items=items,
            targets=targets,
            urls=self._links(lead.claimed),
            actor=newest.claimed.actor,
            is_repeat=_is_repeat(group),
        )

    # ------------------------------------------------------------ ends

    def _after(
        self, claim: str, one: _One, outcome: Outcome, was: str, carried: Carried | None = None
    ) -> End:
        """The end of one delivery after a round (or, `was` queued, without one)."""
        delivery = one.delivery
        now_us = self._clock.now_us()
        served = _served(delivery, carried)
        tried = Tried(
            channel=delivery.channel,
            attempts=delivery.attempts + (was == "sending"),
            first_attempt_us=delivery.tried_at_us or now_us,
            now_us=now_us,
            expires_at_us=delivery.expires_at_us,
            may_fall_back=fall_back(one.facts, self._available, now_us) is not None,
            repeats=self._sender.repeats,
        )
        move = after_attempt(outcome, tried, random.random())
        if move.state in ("dead", "expired") and served:
            move = Move("sent", "sent")  # one of the user's devices has it
        return self._end(claim, one, move, was, outcome, carried)

    def _end(
        self,
        claim: str,
        one: _One,
        move: Move,
        was: str,
        outcome: Outcome | None = None,
        carried: Carried | None = None,
    ) -> End:
        delivery = one.delivery
        now_us = self._clock.now_us()
        next_one = fall_back(one.facts, self._available, now_us) if move.state == "dead" else None
        provider = carried.provider if carried else None
        lines = [*_tried(one, carried)]
        lines.append(_line(one, now_us, _STATES.get(move.state, move.state), provider, move.reason, outcome))
        if next_one is not None:
            detail = f"{next_one.channel} takes over."
            lines.append(replace(_line(one, now_us, "fell_back", None, move.reason, None), detail=detail))
        return End(
            claim=claim,
            delivery=delivery,
            move=move,
            at_us=now_us,
            was=was,
            provider=provider,
            reference=outcome.reference if isinstance(outcome, Sent) else None,
            served=_served(delivery, carried),
            attempts=tuple(carried.tries.values()) if carried else (),
            gone=tuple(
                target
                for target, _, said in (carried.outcomes if carried else ())
                if isinstance(said, GiveUp) and said.target_is_gone
            ),
            detail=outcome.detail if outcome is not None else None,
            fallback=next_one,
            log=tuple(lines),
        )


def _grouped(claimed: list[_One]) -> list[list[_One]]:
    """One group for each message: a digest's deliveries together, oldest first; every other alone."""
    groups: dict[tuple[str, ...], list[_One]] = {}
    for one in claimed:
        delivery = one.delivery
        key = (delivery.user_id, delivery.digest_key) if delivery.digest_key is not None else (delivery.id,)
        groups.setdefault(key, []).append(one)
    return list(groups.values())


def _key(one: _One) -> tuple[str, str]:
    return one.delivery.user_id, one.delivery.id


def _is_repeat(group: Sequence[_One]) -> bool:
    """Whether an earlier attempt may have reached a provider without our knowing."""
    return any(one.delivery.lapses > 0 and one.delivery.attempts > 0 for one in group)


def _served(delivery: Delivery, carried: Carried | None) -> tuple[str, ...]:
    took = [target.id for target, _, said in (carried.outcomes if carried else ()) if isinstance(said, Sent)]
    return (*delivery.served, *(id_ for id_ in took if id_ not in delivery.served))


def _tried(one: _One, carried: Carried | None) -> Iterator[LogEntry]:
    """A line for each provider that failed before another one decided."""
    for attempt in carried.tries.values() if carried else ():
        if attempt.provider != (carried.provider if carried else None):
            yield LogEntry(
                attempt.started_at_us + attempt.duration_us,
                "provider_failed",
                one.delivery.event_id,
                one.delivery.user_id,
                one.delivery.notification_id,
                one.delivery.channel.value,
                one.delivery.type,
                one.delivery.category,
                attempt.provider,
                attempt.code,
                attempt.detail,
            )


def _line(
    one: _One, now_us: int, state: str, provider: str | None, reason: str, outcome: Outcome | None
) -> LogEntry:
    delivery = one.delivery
    detail = outcome.detail if isinstance(outcome, RetryAfter | GiveUp | Unclear | Sent) else None
    if _is_repeat([one]) and state == "sent":
        detail = f"Repeated: an earlier attempt may have arrived. {detail or ''}".rstrip()
    return LogEntry(
        now_us,
        state,
        delivery.event_id,
        delivery.user_id,
        delivery.notification_id,
        delivery.channel.value,
        delivery.type,
        delivery.category,
        provider,
        reason,
        detail or None,
    )
