"""Bounces: what mail servers, their hooks and complaint services tell of addresses that we wrote to.

Who calls with a key is believed about addresses. A report that came by e-mail is believed only about the delivery of ours
that it gives back, and only for the address that this delivery's user has: a made-up one can harm nobody else. Hard
bounces and complaints suppress the address; everything is logged. Repeating any of it changes nothing.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from hub.errors import FieldError, Refused
from hub.livelog import LiveLog
from hub.model.addresses import canonical_email, is_email, is_sound
from hub.model.bounce_reports import Kind, Report, read_reports
from hub.model.deliveries import Delivery
from hub.model.schedule import parse_moment
from hub.model.vocabulary import Channel
from hub.ports import Clock, LiveBus, LogEntry, Store, Suppression

BOUNCES_LIMIT: Final = 1_000
_REASONS: Final[dict[str, str]] = {"hard": "bounce", "complaint": "complaint"}


class Bounce(Struct, frozen=True, forbid_unknown_fields=True):
    """One bounce or complaint. `soft` ones (a full mailbox, a server that is away) are only logged."""

    address: Annotated[str, Meta(max_length=320)]
    kind: Kind
    detail: Annotated[str, Meta(max_length=1000)] | None = None
    at: Annotated[str, Meta(description="RFC 3339; without it, now.")] | None = None


class Taken(Struct, frozen=True):
    """What became of one. `ignored`: a report about nothing that we sent, or about another address than the user's."""

    address: str | None
    status: Literal["suppressed", "known", "logged", "ignored"]


class _Fact(Struct, frozen=True):
    """A bounce that is believed."""

    address: str
    kind: Kind
    detail: str | None
    at_us: int
    delivery: Delivery | None = None


class Bounces:
    """Takes bounces in."""

    def __init__(self, store: Store, bus: LiveBus, clock: Clock) -> None:
        self._store = store
        self._livelog = LiveLog(bus)
        self._clock = clock

    async def take(self, bounces: Sequence[Bounce]) -> list[Taken]:
        """Bounces that a backend tells of: all of them, or a `Refused(422)` that names the first mistake of each."""
        now_us = self._clock.now_us()
        facts, errors = [], []
        for index, one in enumerate(bounces):
            place = f"/{index}" if len(bounces) > 1 else ""
            try:
                facts.append(_fact_of(one, now_us, place))
            except Refused as refused:
                errors += refused.errors
        if errors:
            raise Refused(422, "invalid_request", f"The bounces cannot be taken: {errors[0].detail}", errors)
        return await self._believe(facts)

    async def take_report(self, raw: bytes) -> list[Taken]:
        """A report as it came by e-mail. Raises `Refused(422)` for what is none."""
        try:
            reports = await asyncio.to_thread(read_reports, raw)
        except ValueError as error:
            detail = f"This is not a report of a mail system. {error}"
            raise Refused(422, "invalid_request", detail, [FieldError("", "invalid_value", detail)]) from None
        facts = [await self._fact_of_report(report) for report in reports]
        taken = iter(await self._believe([fact for fact in facts if fact is not None]))
        return [next(taken) if fact is not None else Taken(None, "ignored") for fact in facts]

    async def _fact_of_report(self, report: Report) -> _Fact | None:
        delivery = await self._delivery(report.delivery_id) if report.delivery_id else None
        if delivery is None or delivery.channel is not Channel.EMAIL:
            return None
        user = (await self._store.load_users([delivery.user_id])).get(delivery.user_id)
        address = user.profile.email if user is not None else None
        if address is None:
            return None
        claimed = {canonical_email(one).lower() for one in report.addresses}
        if claimed and canonical_email(address).lower() not in claimed:
            return None  # it bounced behind a forwarding of theirs, or the address has changed
        if not claimed and report.kind != "complaint":
            return None
        return _Fact(address, report.kind, report.detail, self._clock.now_us(), delivery)

    async def _delivery(self, delivery_id: str) -> Delivery | None:
        """A delivery by its id alone: the id holds its event's, and deliveries of an event are listed by id."""
        event_id = "evt_" + delivery_id.removeprefix("dlv_").partition("_")[0]
        found = await self._store.event_deliveries(event_id, None, delivery_id[:-1], 1)
        return found[0] if found and found[0].id == delivery_id else None

    async def _believe(self, facts: Sequence[_Fact]) -> list[Taken]:
        rows = [
            Suppression(Channel.EMAIL, fact.address, _REASONS[fact.kind], fact.detail, fact.at_us)
            for fact in facts
            if fact.kind in _REASONS
        ]
        log = [_line(fact, self._clock.now_us()) for fact in facts]
        written = {row.address for row in await self._store.suppress_all(rows, log)} if facts else set()
        await self._livelog.tell(log)
        return [Taken(fact.address, _status(fact, written)) for fact in facts]


def _status(fact: _Fact, written: set[str]) -> Literal["suppressed", "known", "logged"]:
    if fact.kind not in _REASONS:
        return "logged"
    return "suppressed" if canonical_email(fact.address) in written else "known"


def _line(fact: _Fact, now_us: int) -> LogEntry:
    """Its line in the log. Without a delivery nobody is named: such a line would outlive the erasure of its user."""
    delivery = fact.delivery
    detail = (fact.detail or "").replace(fact.address, "…") or None
    if delivery is None:
        return LogEntry(now_us, "bounced", channel=Channel.EMAIL.value, reason=fact.kind, detail=detail)
    return LogEntry(
        now_us,
        "bounced",
        delivery.event_id,
        delivery.user_id,
        delivery.notification_id,
        delivery.channel.value,
        delivery.type,
        delivery.category,
        reason=fact.kind,
        detail=detail,
    )


def _fact_of(one: Bounce, now_us: int, place: str) -> _Fact:
    if not is_email(one.address):
        raise _wrong(f"{place}/address", "This is not an e-mail address.")
    if one.detail is not None and not is_sound(one.detail):
        raise _wrong(f"{place}/detail", "A NUL or half of a surrogate pair cannot be kept.")
    try:
        at_us = parse_moment(one.at) if one.at is not None else now_us
    except ValueError as error:
        raise _wrong(f"{place}/at", str(error)) from None
    return _Fact(one.address, one.kind, one.detail, min(at_us, now_us))


def _wrong(pointer: str, detail: str) -> Refused:
    return Refused(422, "invalid_request", detail, [FieldError(pointer, "invalid_value", detail)])
