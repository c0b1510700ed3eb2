"""Moments: RFC 3339 texts, wall-clock times in a user's zone, quiet hours, and scheduled events cut to their parts.

All of it is a function of its arguments and of the installed time zone data. A wall-clock time that a clock change
skips counts as if the clock had not changed yet (02:30 becomes 03:30); one that comes twice counts at both.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from msgspec.structs import replace

from hub.model.events import BroadcastAudience, NamedUser, Schedule, Slice
from hub.model.users import QuietHours
from hub.model.vocabulary import LANE, partition_of

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FIRST_US: Final = -62_135_596_800_000_000  # the first moment of year 1, and the last of 9999
_LAST_US: Final = 253_402_300_799_999_999
_RFC3339: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))"
)
_WITHOUT_ZONE: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?"
)


def parse_moment(text: str) -> int:
    """An RFC 3339 date-time as microseconds since 1970. Raises ValueError with a sentence."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        if _WITHOUT_ZONE.fullmatch(text):
            raise ValueError("A time needs a date, a time and a zone, as in 2026-12-01T09:00:00Z.")
        raise ValueError("This is not an RFC 3339 date and time, as in 2026-12-01T09:00:00Z.")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    fraction, _, sign, zone_hours, zone_minutes = found.groups()[6:]
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise ValueError(f"There is no such moment: {error}.") from None
    offset_minutes = 0
    if sign:
        if int(zone_hours) > 23 or int(zone_minutes) > 59:
            raise ValueError("There is no such offset from UTC.")
        offset_minutes = (int(zone_hours) * 60 + int(zone_minutes)) * (-1 if sign == "-" else 1)
    moment_us = (moment - _EPOCH) // _MICROSECOND - offset_minutes * 60_000_000
    moment_us += int((fraction or "0").ljust(6, "0")[:6])
    if not _FIRST_US <= moment_us <= _LAST_US:
        raise ValueError("There is no such moment: the year must be 1 to 9999.")
    return moment_us


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones()) - {"localtime", "Factory"}


def is_timezone(name: str) -> bool:
    """Tell whether this is an IANA time zone that the installed data knows."""
    return name in _zone_names()


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """A zone by name; UTC for one that the installed data does not know (any more)."""
    try:
        return ZoneInfo(name) if is_timezone(name) else ZoneInfo("UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def next_local(local: str, zone: str, from_us: int) -> int:
    """The first moment, not before `from_us`, at which clocks in a zone show `local` ("HH:MM")."""
    tz = zone_of(zone)
    hour, minute = (int(part) for part in local.split(":"))
    today = (_EPOCH + timedelta(microseconds=from_us)).astimezone(tz).date()
    for days in range(-1, 4):  # -1 and 3: clock changes move a day's times by up to a day (Apia 2011)
        date = today + timedelta(days=days)
        wall = datetime(date.year, date.month, date.day, hour, minute)  # noqa: DTZ001  (the zone comes next)
        for moment_us in _moments_of(wall, tz):
            if moment_us >= from_us:
                return moment_us
    raise AssertionError("a wall-clock time comes every day")  # pragma: no cover


def _moments_of(wall: datetime, tz: ZoneInfo) -> list[int]:
    """When clocks show this: once, twice (a clock went back), or, if skipped, when they would have shown it."""
    first, second = (wall.replace(tzinfo=tz, fold=fold).astimezone(UTC) for fold in (0, 1))
    shown = {m for m in (first, second) if m.astimezone(tz).replace(tzinfo=None) == wall} or {first}
    return sorted((m - _EPOCH) // _MICROSECOND for m in shown)


def quiet_until(quiet: QuietHours | None, zone: str, at_us: int) -> int | None:
    """When the quiet hours that hold at a moment end; None when none hold. Equal start and end: never quiet.

    The end is never itself within quiet hours, also where a clock change skips it.
    """
    if quiet is None or not _is_quiet(quiet, zone, at_us):
        return None
    end_us = next_local(quiet.end, zone, at_us)
    while _is_quiet(quiet, zone, end_us):  # skipped, it counts later: the next ones may have begun
        end_us = next_local(quiet.end, zone, end_us + 1)
    return end_us


def _is_quiet(quiet: QuietHours, zone: str, at_us: int) -> bool:
    wall = (_EPOCH + timedelta(microseconds=at_us)).astimezone(zone_of(zone)).strftime("%H:%M")
    begun, over = wall >= quiet.start, wall >= quiet.end
    if quiet.start == quiet.end:
        return False
    return begun and not over if quiet.start < quiet.end else begun or not over


# ---------------------------------------------------------------- cutting


def cut_audience(
    users: Sequence[NamedUser], broadcast: BroadcastAudience | None, partitions: int, event_id: str
) -> dict[str, tuple[tuple[NamedUser, ...], BroadcastAudience | None]]:
    """An audience by partition name. An empty one goes, empty, to the partition of the event's id."""
    if len(users) == 1 and broadcast is None:  # most events
        return {str(partition_of(users[0].id, partitions)): (tuple(users), None)}
    per_partition: dict[str, list[NamedUser]] = {}
    for user in users:
        per_partition.setdefault(str(partition_of(user.id, partitions)), []).append(user)
    parts: dict[str, tuple[tuple[NamedUser, ...], BroadcastAudience | None]] = {
        name: (tuple(named), None) for name, named in per_partition.items()
    }
    if broadcast is not None:
        parts[LANE] = ((), broadcast)
    return parts or {str(partition_of(event_id, partitions)): ((), None)}


def cut_scheduled(
    scheduled: Slice,
    zones: Iterable[str],
    user_zones: Mapping[str, str | None],
    default_zone: str,
    partitions: int,
) -> list[tuple[str, int, Slice]]:
    """The parts of a scheduled event: (part, due_at_us, slice still with `schedule`, narrowed to this part).

    A fixed time is one part, "". A local time is one part per moment, named by one of its zones: times are the next
    after acceptance, so planning late changes nothing. `zones`: those of all known users (for broadcasts);
    `user_zones`: of the named users. A user whose zone had no part belongs to the default zone's. `event.slices` of
    the parts counts all that `release` makes of them, and the scheduled slice itself.
    """
    schedule = scheduled.schedule
    if schedule is None:
        raise ValueError("the slice is not scheduled")
    if schedule.local is None:
        at_us = scheduled.event.accepted_at_us if schedule.send_at_us is None else schedule.send_at_us
        cuts = [("", at_us, schedule)]
    else:
        cuts = _cut_local(
            schedule,
            scheduled.event.accepted_at_us,
            local=schedule.local,
            zones=zones,
            user_zones=user_zones,
            default_zone=default_zone,
        )
    event_id = scheduled.event.id
    total = 1 + sum(len(cut_audience(s.users, s.broadcast, partitions, event_id)) for _, _, s in cuts)
    event = replace(scheduled.event, slices=total)
    return [(part, due_us, Slice(event=event, schedule=s, part=part)) for part, due_us, s in cuts]


def _cut_local(
    schedule: Schedule,
    accepted_at_us: int,
    *,
    local: str,
    zones: Iterable[str],
    user_zones: Mapping[str, str | None],
    default_zone: str,
) -> list[tuple[str, int, Schedule]]:
    zone_by_user = {u.id: _known(u.timezone or user_zones.get(u.id), default_zone) for u in schedule.users}
    wanted = {default_zone} if schedule.broadcast or not schedule.users else set()
    if schedule.broadcast:
        wanted |= {zone for zone in zones if is_timezone(zone)}
    due_by_zone = {
        z: next_local(local, z, accepted_at_us) for z in sorted(wanted | set(zone_by_user.values()))
    }
    zones_by_due: dict[int, list[str]] = {}
    for zone, due_us in due_by_zone.items():
        zones_by_due.setdefault(due_us, []).append(zone)
    cuts = []
    for due_us, due_zones in sorted(zones_by_due.items()):
        broadcast = None
        if schedule.broadcast and not wanted.isdisjoint(due_zones):
            others = (
                tuple(z for z in sorted(wanted) if z not in due_zones) if default_zone in due_zones else None
            )
            broadcast = replace(
                schedule.broadcast,
                timezones=tuple(z for z in due_zones if z in wanted),
                other_than=others,
            )
        users = tuple(u for u in schedule.users if zone_by_user[u.id] in due_zones)
        cuts.append((due_zones[0], due_us, Schedule(users=users, broadcast=broadcast, send_at_us=due_us)))
    return cuts


def _known(zone: str | None, default_zone: str) -> str:
    return zone if zone and is_timezone(zone) else default_zone


def release(due: Slice, partitions: int) -> dict[str, Slice]:
    """A due part as slices for the queue, by partition name: the event as if it were published now."""
    if due.schedule is None:
        raise ValueError("the slice is not scheduled")
    parts = cut_audience(due.schedule.users, due.schedule.broadcast, partitions, due.event.id)
    return {
        name: Slice(event=due.event, users=users, broadcast=broadcast, part=due.part)
        for name, (users, broadcast) in parts.items()
    }
