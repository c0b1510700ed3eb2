"""Moments and zones: local times, clock changes, quiet hours, and scheduled events cut to their parts."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hub.model.admission import admit
from hub.model.events import EventInput, Slice
from hub.model.schedule import cut_scheduled, next_local, parse_moment, quiet_until, release, zone_of
from hub.model.types import MESSAGE
from hub.model.users import Profile, QuietHours, User
from hub.model.visibility import in_timezones
from hub.model.vocabulary import LANE

pytestmark = pytest.mark.req("R18")

MINUTE = 60_000_000
ZONES = [
    "UTC",
    "Europe/Berlin",
    "Asia/Seoul",
    "America/New_York",
    "Asia/Kolkata",
    "Pacific/Apia",
    "Australia/Lord_Howe",
]
CLOCKS = st.integers(0, 1439).map(lambda minutes: f"{minutes // 60:02d}:{minutes % 60:02d}")
MOMENTS = st.integers(parse_moment("2025-01-01T00:00:00Z"), parse_moment("2027-12-31T00:00:00Z"))


def wall(moment_us, zone):
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_us)).astimezone(ZoneInfo(zone))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-12-01T09:00:00Z", "2026-12-01T09:00:00+00:00"),
        ("2026-12-01t18:00:00+09:00", "2026-12-01 09:00:00z"),
        ("2026-12-01T09:00:00.123456Z", "2026-12-01T09:00:00.123456789Z"),
        ("1970-01-01T00:00:00-00:00", "1970-01-01T00:00:00Z"),
    ],
)
def test_moments_are_read_with_their_zone(text, same):
    assert parse_moment(text) == parse_moment(same)


def test_a_moment_is_whole_microseconds():
    assert parse_moment("1970-01-01T00:00:01.5Z") == 1_500_000
    assert parse_moment("1969-12-31T23:59:59Z") == -1_000_000


@given(CLOCKS, st.sampled_from(ZONES), MOMENTS)
def test_a_local_time_is_the_next_one_that_clocks_show(local, zone, now):
    due = next_local(local, zone, now)
    assert 0 <= due - now <= 49 * 60 * MINUTE
    shown = wall(due, zone).strftime("%H:%M")
    if shown == local:  # not skipped by a clock change: then no earlier minute shows it
        minute = now - now % MINUTE + (MINUTE if now % MINUTE else 0)
        earlier = range(minute, due, MINUTE)
        assert all(wall(moment, zone).strftime("%H:%M") != local for moment in earlier)


@pytest.mark.parametrize(
    ("local", "zone", "now", "due"),
    [
        ("09:00", "Europe/Berlin", "2026-06-01T06:59:59Z", "2026-06-01T07:00:00Z"),
        ("09:00", "Europe/Berlin", "2026-06-01T07:00:00Z", "2026-06-01T07:00:00Z"),
        ("09:00", "Europe/Berlin", "2026-06-01T07:00:00.000001Z", "2026-06-02T07:00:00Z"),
        ("00:00", "Asia/Seoul", "2026-06-01T15:30:00Z", "2026-06-02T15:00:00Z"),
        # Clocks jump from 02:00 to 03:00: 02:30 is when it would have been.
        ("02:30", "Europe/Berlin", "2026-03-28T22:00:00Z", "2026-03-29T01:30:00Z"),
        ("03:00", "Europe/Berlin", "2026-03-28T22:00:00Z", "2026-03-29T01:00:00Z"),
        # Clocks go back from 03:00 to 02:00: 02:30 comes twice.
        ("02:30", "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T00:30:00Z"),
        ("02:30", "Europe/Berlin", "2026-10-25T00:31:00Z", "2026-10-25T01:30:00Z"),
        ("02:30", "Europe/Berlin", "2026-10-25T01:31:00Z", "2026-10-26T01:30:00Z"),
        # Lord Howe Island changes its clocks by half an hour.
        ("02:15", "Australia/Lord_Howe", "2026-10-03T12:00:00Z", "2026-10-03T15:45:00Z"),
        # Samoa had no 30 December 2011.
        ("12:00", "Pacific/Apia", "2011-12-30T09:00:00Z", "2011-12-30T22:00:00Z"),
    ],
)
def test_local_times_around_clock_changes(local, zone, now, due):
    assert next_local(local, zone, parse_moment(now)) == parse_moment(due)


def test_an_unknown_zone_counts_as_utc():
    assert zone_of("Mars/Base").key == "UTC"
    assert zone_of("../etc/passwd").key == "UTC"


# ---------------------------------------------------------------- quiet hours


@pytest.mark.req("R13")
@pytest.mark.parametrize(
    ("start", "end", "at", "until"),
    [
        ("22:00", "07:00", "2026-06-01T21:59:59+02:00", None),
        ("22:00", "07:00", "2026-06-01T22:00:00+02:00", "2026-06-02T07:00:00+02:00"),
        ("22:00", "07:00", "2026-06-02T06:59:59+02:00", "2026-06-02T07:00:00+02:00"),
        ("22:00", "07:00", "2026-06-02T07:00:00+02:00", None),
        ("13:00", "14:00", "2026-06-02T13:30:00+02:00", "2026-06-02T14:00:00+02:00"),
        ("13:00", "14:00", "2026-06-02T14:00:00+02:00", None),
        ("08:00", "08:00", "2026-06-02T08:00:00+02:00", None),
        ("22:00", "07:00", "2026-03-28T23:00:00+01:00", "2026-03-29T07:00:00+02:00"),
        ("22:00", "07:00", "2026-10-24T23:00:00+02:00", "2026-10-25T07:00:00+01:00"),
    ],
)
def test_quiet_hours_in_berlin(start, end, at, until):
    found = quiet_until(QuietHours(start, end), "Europe/Berlin", parse_moment(at))
    assert found == (parse_moment(until) if until else None)


@pytest.mark.req("R13")
@given(CLOCKS, CLOCKS, st.sampled_from(ZONES), MOMENTS)
def test_quiet_hours_end_at_the_first_minute_that_is_not_quiet(start, end, zone, at):
    def is_quiet(moment):
        clock = wall(moment, zone).strftime("%H:%M")
        if start <= end:
            return start <= clock < end
        return not end <= clock < start

    found = quiet_until(QuietHours(start, end), zone, at)
    assert (found is not None) == is_quiet(at)
    if found is not None:
        assume(wall(found, zone).strftime("%H:%M") == end)  # the end was not skipped by a clock change
        minute = at - at % MINUTE + MINUTE
        while is_quiet(minute):
            minute += MINUTE
        assert found == minute


# ---------------------------------------------------------------- cutting

NOW = parse_moment("2026-06-01T12:00:00Z")


def scheduled(to, send_at) -> Slice:
    event = msgspec.convert({"to": to, "send_at": send_at}, EventInput)
    admitted = admit(event, MESSAGE, event_id="evt_x", now_us=NOW, source="s", partitions=4)
    [part] = admitted.slices.values()
    return part


def test_a_fixed_time_is_one_part_that_is_cut_like_any_event():
    parts = cut_scheduled(scheduled(["a", "b", {"topic": "t"}], "2026-06-01T13:00:00Z"), [], {}, "UTC", 4)
    [(name, due, part)] = parts
    assert (name, due) == ("", parse_moment("2026-06-01T13:00:00Z"))
    released = release(part, 4)
    assert {user.id for one in released.values() for user in one.users} == {"a", "b"}
    assert released[LANE].broadcast.timezones is None
    assert part.event.slices == 1 + len(released)
    assert all(one.schedule is None for one in released.values())


def test_a_local_time_is_one_part_for_each_moment():
    whole = scheduled(
        ["berlin", "paris", "seoul", "nowhere", {"id": "named", "timezone": "Asia/Seoul"}], {"local": "09:00"}
    )
    zones = {
        "berlin": "Europe/Berlin",
        "paris": "Europe/Paris",
        "seoul": "Asia/Seoul",
        "nowhere": None,
        "named": "UTC",
    }
    parts = cut_scheduled(whole, [], zones, "UTC", 4)
    due = {user.id: (name, when) for name, when, part in parts for user in part.schedule.users}
    assert due["seoul"] == due["named"] == ("Asia/Seoul", parse_moment("2026-06-02T00:00:00Z"))
    assert due["berlin"] == due["paris"] == ("Europe/Berlin", parse_moment("2026-06-02T07:00:00Z"))
    assert due["nowhere"] == ("UTC", parse_moment("2026-06-02T09:00:00Z"))
    assert [when for _, when, _ in parts] == sorted(when for _, when, _ in parts)


def test_times_are_the_next_after_acceptance_however_late_they_are_planned():
    whole = scheduled("a", {"local": "12:00"})
    assert cut_scheduled(whole, [], {}, "UTC", 4)[0][1] == NOW


def test_local_broadcasts_reach_every_zone_once_even_one_nobody_had_then():
    whole = scheduled({"everyone": True}, {"local": "09:00"})
    parts = cut_scheduled(whole, ["Europe/Berlin", "Asia/Seoul", "Gone/Zone", "Europe/Paris"], {}, "UTC", 4)
    audiences = [part.schedule.broadcast for _, _, part in parts]
    for zone in ["Europe/Berlin", "Europe/Paris", "Asia/Seoul", "UTC", None, "America/Lima", "Gone/Zone"]:
        assert sum(in_timezones(audience, zone, "UTC") for audience in audiences) == 1, zone
    assert len(parts) == 3


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from([*ZONES, None, "Gone/Zone"]), max_size=6),
    st.lists(st.sampled_from(ZONES), max_size=5),
    CLOCKS,
    st.sampled_from(["UTC", "Asia/Seoul"]),
    st.booleans(),
)
def test_parts_lose_nobody_double_nobody_and_count_their_slices(people, zones, local, default, everyone):
    to = [*people, *([{"everyone": True}] if everyone or not people else [])]
    parts = cut_scheduled(scheduled(to, {"local": local}), zones, people, default, 4)
    names = [name for name, _, _ in parts]
    assert len(set(names)) == len(names)
    released = {(name, where): one for name, _, part in parts for where, one in release(part, 4).items()}
    assert sorted(user.id for one in released.values() for user in one.users) == sorted(people)
    keys = {one.key(where) for (_, where), one in released.items()}
    assert len(keys) == len(released)
    assert {one.event.slices for one in released.values()} == {1 + len(released)}
    for name, due, part in parts:
        for user in part.schedule.users:
            zone = people[user.id] if people[user.id] in ZONES else default
            assert due == next_local(local, zone, NOW), name
    audiences = [one.broadcast for one in released.values() if one.broadcast]
    for zone in [*ZONES, None]:
        user = User(Profile("x", timezone=zone))
        seen = sum(in_timezones(one, user.profile.timezone, default) for one in audiences)
        assert seen == (1 if everyone or not people else 0)


def test_only_scheduled_slices_are_cut_and_released():
    plain = Slice(scheduled("a", {"local": "09:00"}).event)
    with pytest.raises(ValueError, match="not scheduled"):
        cut_scheduled(plain, [], {}, "UTC", 4)
    with pytest.raises(ValueError, match="not scheduled"):
        release(plain, 4)


def test_an_empty_local_audience_still_has_a_part():
    event = msgspec.convert({"to": "a", "exclude": ["a"], "send_at": {"local": "09:00"}}, EventInput)
    [part] = admit(event, MESSAGE, event_id="evt_x", now_us=NOW, source="s", partitions=4).slices.values()
    [(name, _, cut)] = cut_scheduled(part, [], {}, "UTC", 4)
    assert name == "UTC"
    assert len(release(cut, 4)) == 1
