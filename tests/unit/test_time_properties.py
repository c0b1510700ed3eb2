"""Time, for any zone, clock change, leap day and clock that jumps: what is due when.

Zones are those that do what others do not: half hours, 45 minutes, days that were skipped or doubled, offsets with
seconds, summer time at midnight, none at all. Moments are taken from around their changes, and from anywhere.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import event as note
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hub.model.addressed import OFFLINE_GRACE_SECONDS
from hub.model.digests import DigestId, OpenDigest, find_place, with_one_more
from hub.model.events import Event, NamedUser
from hub.model.outcomes import GiveUp, RetryAfter, Sent, Unclear
from hub.model.planning import Environment, Plan, plan
from hub.model.retries import SCHEDULES, Tried, after_attempt
from hub.model.schedule import next_local, parse_moment, quiet_until
from hub.model.types import ChannelRule, Digest, Throttle, TypeDefinition, TypeVersion
from hub.model.users import Preferences, Profile, QuietHours, User
from hub.model.vocabulary import Channel

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",  # half an hour, and until 2011 changes at 00:01
    "America/Sao_Paulo",  # summer time from midnight, until 2019
    "America/Santiago",
    "Africa/Cairo",
    "Africa/Casablanca",  # summer time all year, but in Ramadan
    "Africa/Monrovia",  # -00:44:30 until 1972
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",  # +05:45
    "Asia/Seoul",
    "Asia/Tehran",
    "Australia/Lord_Howe",  # clocks change by half an hour
    "Australia/Eucla",  # +08:45
    "Pacific/Apia",  # had no 2011-12-30
    "Pacific/Kwajalein",  # had no 1993-08-21
    "Pacific/Chatham",  # +12:45, with summer time
    "Pacific/Kiritimati",  # +14
    "Antarctica/Troll",  # clocks change by two hours
    "Europe/Dublin",  # winter time is the exception
]
PLACES = [
    *(f"{year}-03-{day}T01:00:00Z" for year in (2024, 2026) for day in ("08", "10", "31")),
    *(
        f"{year}-{month}-0{day}T02:00:00Z"
        for year in (2025, 2026)
        for month in ("04", "10", "11")
        for day in (1, 5)
    ),
    "2011-12-30T09:00:00Z",
    "2011-12-30T11:00:00Z",
    "1993-08-20T11:00:00Z",
    "1972-01-07T00:00:00Z",
    "2018-11-04T03:00:00Z",
    "2024-02-28T23:00:00Z",
    "2024-02-29T12:00:00Z",
    "2023-02-28T23:30:00Z",
    "2100-02-28T23:30:00Z",  # no leap year
    "1999-12-31T23:59:00Z",
    "2027-12-31T23:59:59Z",
]

zones = st.sampled_from(ZONES)
moments = st.one_of(
    st.builds(
        lambda place, apart: parse_moment(place) + apart,
        st.sampled_from(PLACES),
        st.integers(-40 * HOUR, 40 * HOUR)
        | st.integers(-3 * 60, 3 * 60).map(lambda minutes: minutes * MINUTE),
    ),
    st.integers(parse_moment("1970-01-10T00:00:00Z"), parse_moment("2150-01-01T00:00:00Z")),
)
minutes_of_day = st.integers(0, 1439) | st.sampled_from(
    [0, 1, 59, 60, 119, 120, 125, 135, 150, 180, 1380, 1439]
)
clocks = minutes_of_day.map(lambda minute: f"{minute // 60:02d}:{minute % 60:02d}")
quiet_hours = st.builds(QuietHours, start=clocks, end=clocks)


def shown(moment_us: int, zone: str) -> datetime:
    return (EPOCH + timedelta(microseconds=moment_us)).astimezone(ZoneInfo(zone))


def is_quiet(quiet: QuietHours, zone: str, moment_us: int) -> bool:
    clock = f"{shown(moment_us, zone):%H:%M}"
    if quiet.start <= quiet.end:
        return quiet.start <= clock < quiet.end
    return not quiet.end <= clock < quiet.start


def jumps(zone: str, from_us: int, until_us: int) -> bool:
    """Whether clocks change somewhere between."""
    step = 30 * MINUTE
    offsets = {shown(at_us, zone).utcoffset() for at_us in (*range(from_us, until_us, step), until_us)}
    return len(offsets) > 1


# ---------------------------------------------------------------- wall clocks


@pytest.mark.req("R18")
@settings(max_examples=400, deadline=None)
@given(clocks, zones, moments)
@example("02:15", "Australia/Lord_Howe", parse_moment("2026-10-03T12:00:00Z"))
@example("09:00", "Pacific/Apia", parse_moment("2011-12-29T20:00:00Z"))
@example("09:00", "Pacific/Apia", parse_moment("2011-12-30T09:30:00Z"))
def test_the_next_local_time_is_near_shows_itself_and_is_the_first(
    local: str, zone: str, from_us: int
) -> None:
    found_us = next_local(local, zone, from_us)
    assert 0 <= found_us - from_us <= 50 * HOUR
    clock = f"{shown(found_us, zone):%H:%M}"
    if clock != local:  # skipped: it counts as if the clock had not changed yet
        assert jumps(zone, found_us - 26 * HOUR, found_us)
        note("skipped")
    # Nothing between shows it. Every minute would take long, so from both ends and where it would be.
    near = [*range(from_us, min(found_us, from_us + 3 * HOUR), MINUTE // 2)]
    near += [*range(max(from_us, found_us - 26 * HOUR), found_us, 15 * MINUTE)]
    if clock == local:
        assert not [at_us for at_us in near if f"{shown(at_us, zone):%H:%M}" == local and at_us % MINUTE == 0]


@pytest.mark.req("R13")
@settings(max_examples=500, deadline=None)
@given(quiet_hours, zones, moments)
@example(QuietHours("03:15", "02:30"), "America/New_York", parse_moment("2026-03-08T06:00:00Z"))
@example(QuietHours("02:40", "02:15"), "Australia/Lord_Howe", parse_moment("2026-10-03T12:00:00Z"))
@example(QuietHours("22:00", "07:00"), "Pacific/Apia", parse_moment("2011-12-30T09:00:00Z"))
@example(QuietHours("01:15", "01:45"), "America/New_York", parse_moment("2026-11-01T05:20:00Z"))
@example(QuietHours("23:00", "00:00"), "Asia/Seoul", parse_moment("2024-02-28T14:30:00Z"))
def test_quiet_hours_end_outside_of_themselves_and_soon(quiet: QuietHours, zone: str, at_us: int) -> None:
    end_us = quiet_until(quiet, zone, at_us)
    assert (end_us is None) == (quiet.start == quiet.end or not is_quiet(quiet, zone, at_us))
    if end_us is None:
        return
    assert at_us < end_us <= at_us + 3 * DAY
    assert not is_quiet(quiet, zone, end_us)
    assert quiet_until(quiet, zone, end_us) is None
    if not jumps(zone, at_us - 2 * HOUR, end_us + 2 * HOUR):
        assert is_quiet(quiet, zone, end_us - 1), "no earlier moment would do"
        assert end_us - at_us <= DAY
    note("held")


# ---------------------------------------------------------------- digests

digests = st.builds(
    lambda window, longer, extend, items, first: Digest(
        [Channel.EMAIL],
        window,
        extend=extend,
        max_seconds=window + longer if extend or longer % 2 else None,
        max_items=items,
        first_at_once=first,
    ),
    st.sampled_from([1, 60, 600, 86_400]),
    st.integers(0, 100_000),
    st.booleans(),
    st.none() | st.integers(2, 5),
    st.booleans(),
)
steps = st.lists(st.integers(0, 200) | st.integers(-100_000, 100_000), min_size=1, max_size=12)


@pytest.mark.req("R18")
@settings(max_examples=400, deadline=None)
@given(digests, moments, steps)
def test_a_digest_never_waits_longer_than_it_may(digest: Digest, start_us: int, steps: list[int]) -> None:
    """One after the other joins, on a clock that goes on, stands still and is set back."""
    window_us = digest.window_seconds * SECOND
    longest_us = max(window_us, (digest.max_seconds or 0) * SECOND if digest.extend else 0)
    known: OpenDigest | None = None
    now_us = start_us
    opened_us = start_us
    for step in steps:
        now_us += step * SECOND
        before = known
        place = find_place(digest, known, now_us, now_us, now_us)
        known = with_one_more(known, place, place.due_at_us, now_us, waits=not place.at_once)
        if place.at_once:
            assert (place.due_at_us, known.count, known.sent_at_us) == (now_us, 0, now_us)
            assert digest.first_at_once
            note("at once")
            continue
        assert place.due_at_us >= now_us
        assert place.due_at_us <= now_us + longest_us or (before and place.due_at_us <= before.due_at_us)
        if place.joins:
            assert before is not None
            assert before.due_at_us > now_us
            assert known.count == before.count + 1
            assert place.due_at_us <= max(opened_us + longest_us, before.due_at_us)
            if now_us < opened_us - MINUTE:  # the clock was set back
                assert place.due_at_us <= now_us + window_us
            full = digest.max_items is not None and known.count >= digest.max_items
            if not digest.extend and not full and now_us >= opened_us:
                assert place.due_at_us == before.due_at_us
            if full:
                assert place.due_at_us == now_us
            note("joined")
        else:
            assert (known.count, known.opened_at_us, place.due_at_us) == (1, now_us, now_us + window_us)
            opened_us = now_us


@pytest.mark.req("R18")
@settings(max_examples=300, deadline=None)
@given(digests, moments, st.lists(st.integers(0, 30), min_size=2, max_size=40))
def test_a_steady_stream_is_sent_again_and_again(digest: Digest, start_us: int, steps: list[int]) -> None:
    """Senders take a digest when it is due, so none grows for ever, and `first_at_once` comes after silence only."""
    window_us = digest.window_seconds * SECOND
    known: OpenDigest | None = None
    now_us, gone_us = start_us, None
    for step in steps:
        now_us += step * SECOND
        if known is not None and known.count and known.due_at_us <= now_us:
            gone_us = known.due_at_us
            known = OpenDigest(sent_at_us=gone_us)
        place = find_place(digest, known, now_us, now_us, now_us)
        if digest.first_at_once and not (known and known.count):
            assert place.at_once == (gone_us is None or now_us - gone_us >= window_us)
        known = with_one_more(known, place, place.due_at_us, now_us, waits=not place.at_once)
        if place.at_once:
            gone_us = now_us
        if digest.max_items is not None:
            assert known.count <= digest.max_items


# ---------------------------------------------------------------- planning over time

kinds = st.builds(
    lambda rule, digest, throttle, critical: TypeVersion(
        "t",
        1,
        TypeDefinition(
            "c",
            channels={Channel.EMAIL: rule},
            digest=digest,
            throttle=throttle,
            critical=critical,
            title="x",
        ),
    ),
    st.builds(
        ChannelRule,
        when=st.sampled_from(["always", "offline", "unseen"]),
        after_seconds=st.sampled_from([0, 30, 7200, 2_592_000]),
    ),
    st.none() | digests,
    st.none()
    | st.builds(
        Throttle,
        limit=st.integers(1, 3),
        per_seconds=st.sampled_from([1, 600, 86_400]),
        then=st.sampled_from(["drop", "digest"]),
    ),
    st.sampled_from([False, False, False, True]),
)
people = st.builds(
    lambda zone, quiet: User(
        Profile("alice", email="a@b.c", timezone=zone), Preferences(quiet_hours=quiet), version=1
    ),
    st.none() | zones,
    st.none() | quiet_hours,
)


def planned(kind: TypeVersion, user: User, number: int, env: Environment, expires_us: int | None) -> Plan:
    event = Event(f"evt_{number}", "t", env.now_us, "s", 1, expires_at_us=expires_us)
    return plan(event, kind, None, user, NamedUser("alice"), env)


@pytest.mark.req("R13")
@pytest.mark.req("R18")
@settings(max_examples=400, deadline=None)
@given(kinds, people, zones, moments, steps, st.none() | st.integers(1, 100_000))
def test_nothing_is_due_in_quiet_hours_before_its_time_or_after_it_expired(
    kind: TypeVersion, user: User, default_zone: str, start_us: int, steps: list[int], expires: int | None
) -> None:
    zone = user.profile.timezone or default_zone
    quiet, critical = user.preferences.quiet_hours, kind.definition.critical
    known: dict[DigestId, OpenDigest] = {}
    let_through = 0
    now_us = created_us = start_us
    for number, step in enumerate(steps):
        now_us += step * SECOND
        created_us = max(now_us, created_us + 1)
        env = Environment(
            now_us,
            created_us,
            frozenset(Channel),
            default_zone,
            recent={("alice", "t"): let_through},
            digests=known,
        )
        expires_us = None if expires is None else now_us + expires * SECOND
        made = planned(kind, user, number, env, expires_us)
        known.update(made.digests)
        [reason] = [one for one in made.notification.reasons if one.channel is Channel.EMAIL]
        if not made.deliveries:
            assert reason.rule in ("throttled", "expires_first", "expired")
            note(reason.rule)
            continue
        [delivery] = made.deliveries
        let_through += delivery.throttled
        assert delivery.due_at_us >= now_us
        assert expires_us is None or delivery.due_at_us < expires_us
        assert (delivery.state == "held") >= (delivery.due_at_us > now_us)
        if quiet is not None and quiet.start != quiet.end and not critical:
            assert not is_quiet(quiet, zone, delivery.due_at_us)
        if critical:
            assert (delivery.digest_key, delivery.throttled) == (None, False)
        waits = {
            "offline": OFFLINE_GRACE_SECONDS,
            "unseen": kind.definition.channels[Channel.EMAIL].after_seconds,
        }
        if delivery.digest_key is None:
            assert delivery.due_at_us - now_us >= waits.get(delivery.condition, 0) * SECOND
        throttle = kind.definition.throttle
        if throttle is not None and not critical:
            assert let_through <= throttle.limit
        note(reason.rule)


# ---------------------------------------------------------------- retries

outcomes = st.sampled_from([Sent(), GiveUp("550", "no"), Unclear("lost", "no answer")]) | st.builds(
    RetryAfter,
    code=st.just("451"),
    detail=st.just("later"),
    seconds=st.none() | st.floats(0, 1e6, allow_nan=False),
)


@pytest.mark.req("R8")
@settings(max_examples=400)
@given(
    outcomes,
    st.sampled_from(list(SCHEDULES)),
    st.integers(1, 15),
    moments,
    st.integers(-100_000, 300_000),
    st.none() | st.integers(-100, 100_000),
    st.booleans(),
    st.booleans(),
    st.floats(0, 1, allow_nan=False),
)
def test_a_retry_is_never_due_in_the_past_too_old_or_one_too_many(
    outcome: object,
    channel: Channel,
    attempts: int,
    first_us: int,
    age: int,
    expires: int | None,
    may_fall_back: bool,
    repeats: bool,
    jitter: float,
) -> None:
    now_us = first_us + age * SECOND  # negative: the clock was set back since
    expires_us = None if expires is None else now_us + expires * SECOND
    tried = Tried(channel, attempts, first_us, now_us, expires_us, may_fall_back, repeats)
    move = after_attempt(outcome, tried, jitter)  # type: ignore[arg-type]
    schedule = SCHEDULES[channel]
    note(move.state)
    assert (move.state == "failed") == (move.due_at_us is not None)
    if move.due_at_us is None:
        return
    assert not isinstance(outcome, Sent | GiveUp)
    assert attempts < schedule.attempts
    assert move.due_at_us >= now_us
    bound = schedule.fallback_seconds if may_fall_back else schedule.max_age_seconds
    assert move.due_at_us <= first_us + bound * SECOND
    assert expires_us is None or move.due_at_us < expires_us
    if isinstance(outcome, RetryAfter) and outcome.seconds is not None:
        assert move.due_at_us - now_us >= int(outcome.seconds * SECOND) - 1


@pytest.mark.req("R8")
@given(st.sampled_from(list(SCHEDULES)), moments, st.floats(0, 1, allow_nan=False))
def test_retries_end(channel: Channel, start_us: int, jitter: float) -> None:
    now_us, attempts = start_us, 0
    while True:
        attempts += 1
        assert attempts <= SCHEDULES[channel].attempts
        tried = Tried(channel, attempts, start_us, now_us)
        move = after_attempt(RetryAfter("451", "later"), tried, jitter)
        if move.due_at_us is None:
            break
        assert move.due_at_us >= now_us
        now_us = move.due_at_us
    assert move.state == "dead"
    assert now_us <= start_us + SCHEDULES[channel].max_age_seconds * SECOND
