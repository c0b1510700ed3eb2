"""The model against a naive restatement of its rules, for any user, event, type and moment.

The restatement works on plain JSON and sets, decides everything at once and knows no order of rules. It was written
from the contract, not from the code: where the two disagree, one of them is wrong.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.model.events import BroadcastAudience, Event, NamedUser
from hub.model.explanation import explain_rules
from hub.model.notifications import Broadcast, Content
from hub.model.planning import OFFLINE_GRACE_SECONDS, Environment, plan, plan_broadcast
from hub.model.preferences import allows
from hub.model.rules import RULES
from hub.model.types import (
    CategoryDefinition,
    ChannelRule,
    Digest,
    Texts,
    Throttle,
    TypeDefinition,
    TypeVersion,
)
from hub.model.users import Muted, Only, OnlyRule, Preferences, Profile, QuietHours, Subscription, User
from hub.model.visibility import restricts, visible
from hub.model.vocabulary import Channel

CATEGORIES = ["orders", "posts"]
ACTORS = ["alice", "bob", "carol"]
TOPICS = ["t", "u"]
ZONES = ["UTC", "Asia/Seoul", "America/New_York"]
NOW = 1_780_000_000_000_000
SECOND = 1_000_000

# ---------------------------------------------------------------- what there is

channels = st.sampled_from(list(Channel))
switches = st.dictionaries(channels, st.booleans(), max_size=3)
some_actors = st.lists(st.sampled_from(ACTORS), max_size=2, unique=True)
some_topics = st.lists(st.sampled_from(TOPICS), max_size=2, unique=True)
minutes = st.integers(0, 1439)
clocks = minutes.map(lambda minute: f"{minute // 60:02d}:{minute % 60:02d}")
maybe_actor = st.none() | st.sampled_from(ACTORS)

preferences = st.builds(
    Preferences,
    channels=switches,
    categories=st.dictionaries(st.sampled_from(CATEGORIES), st.booleans() | switches, max_size=2),
    muted=st.builds(Muted, actors=some_actors, topics=some_topics),
    only=st.builds(
        Only,
        categories=st.dictionaries(
            st.sampled_from(CATEGORIES),
            st.builds(OnlyRule, actors=st.none() | some_actors, topics=st.none() | some_topics),
            max_size=1,
        ),
    ),
    quiet_hours=st.none()
    | st.builds(QuietHours, start=clocks, end=clocks)
    | st.sampled_from(
        [QuietHours("20:00", "21:00"), QuietHours("22:00", "07:00"), QuietHours("00:00", "23:59")]
    ),
)
one_choice = st.one_of(
    preferences.map(lambda all_: Preferences(channels=all_.channels)),
    preferences.map(lambda all_: Preferences(categories=all_.categories)),
    preferences.map(lambda all_: Preferences(muted=all_.muted)),
    preferences.map(lambda all_: Preferences(only=all_.only)),
    preferences.map(lambda all_: Preferences(quiet_hours=all_.quiet_hours)),
)

subscriptions = st.lists(
    st.builds(
        Subscription,
        topic=st.sampled_from(TOPICS),
        from_seq=st.integers(1, 6),
        until_seq=st.none() | st.integers(1, 8),
    ),
    max_size=3,
).map(tuple)

users = st.builds(
    User,
    profile=st.builds(
        Profile,
        id=st.just("alice"),
        email=st.sampled_from(["a@b.c", "a@b.c", None]),
        phone=st.sampled_from(["+821012345678", None]),
        locale=st.sampled_from([None, "ko", "ko-KR", "de", "KO-kr"]),
        timezone=st.sampled_from([None, *ZONES]),
    ),
    preferences=preferences | one_choice,
    subscriptions=subscriptions,
    reachable=st.frozensets(st.sampled_from([Channel.WEB_PUSH, Channel.MOBILE_PUSH])),
    suppressed=st.frozensets(channels, max_size=1),
    erased_at_us=st.none() | st.sampled_from([NOW - 2 * SECOND, NOW - SECOND, NOW]),
)

rules = st.builds(
    ChannelRule,
    when=st.sampled_from(["always", "offline", "unseen", "never"]),
    after_seconds=st.sampled_from([0, 60, 7200]),
    fallback=st.lists(channels, max_size=3),
)

types = st.builds(
    TypeVersion,
    name=st.sampled_from(["t", "t", "message"]),
    version=st.just(1),
    definition=st.builds(
        TypeDefinition,
        category=st.sampled_from(CATEGORIES),
        critical=st.booleans(),
        title=st.none() | st.just("T {{ data.n }}"),
        channels=st.dictionaries(channels, rules, max_size=5),
        digest=st.none()
        | st.builds(
            Digest,
            channels=st.lists(st.sampled_from([Channel.EMAIL, Channel.SMS]), min_size=1, max_size=2),
            window_seconds=st.just(600),
        ),
        throttle=st.none()
        | st.builds(
            Throttle, limit=st.just(2), per_seconds=st.just(60), then=st.sampled_from(["drop", "digest"])
        ),
        locales=st.dictionaries(
            st.sampled_from(["ko", "ko-KR"]),
            st.builds(Texts, title=st.none() | st.just("K {{ data.n }}")),
            max_size=2,
        ),
    ),
)

events = st.builds(
    Event,
    id=st.just("evt_x"),
    type=st.just("t"),
    accepted_at_us=st.just(NOW - SECOND),
    source=st.just("s"),
    slices=st.just(1),
    data=st.sampled_from([{"n": 1}, {}]),
    actor=maybe_actor,
    channels=st.none() | st.lists(channels, min_size=1, max_size=3, unique=True).map(tuple),
    expires_at_us=st.none() | st.sampled_from([NOW, NOW + 1, NOW + 60 * SECOND, NOW + 600 * SECOND]),
    digest_key=st.none() | st.just("key"),
)

categories = st.none() | st.builds(CategoryDefinition, defaults=switches)
environments = st.builds(
    Environment,
    now_us=st.just(NOW),
    created_at_us=st.just(NOW),
    available=st.just(frozenset(Channel)) | st.frozensets(channels),
    default_timezone=st.sampled_from(ZONES),
    recent=st.sampled_from([{}, {("alice", "t"): 2}, {("bob", "t"): 9}]),
)

# ---------------------------------------------------------------- the restatement


def naive_objections(chosen, category, defaults, channel, actor, topic):
    """All that a user's choices say against one notification. `chosen`: preferences as JSON."""
    objections = set()
    of_category = chosen.get("categories", {}).get(category, {})
    if chosen.get("channels", {}).get(channel, True) is False:
        objections.add("channel")
    if of_category is False:
        objections.add("category")
    of_channel = of_category.get(channel) if isinstance(of_category, dict) else None
    if of_channel is False:
        objections.add("category_channel")
    if of_channel is None and not defaults.get(channel, True):
        objections.add("category_default")
    muted = chosen.get("muted", {})
    if actor in muted.get("actors", []):
        objections.add("muted_actor")
    if topic in muted.get("topics", []):
        objections.add("muted_topic")
    only = chosen.get("only", {}).get("categories", {}).get(category, {})
    if actor not in (only.get("actors") if only.get("actors") is not None else [actor]):
        objections.add("only_actors")
    if topic not in (only.get("topics") if only.get("topics") is not None else [topic]):
        objections.add("only_topics")
    return objections


def as_json(value):
    return msgspec.to_builtins(value)


@pytest.mark.req("R11")
@pytest.mark.req("R12")
@settings(max_examples=600)
@given(
    preferences | one_choice,
    st.sampled_from(CATEGORIES),
    switches,
    channels,
    maybe_actor,
    st.none() | st.sampled_from(TOPICS),
    st.booleans(),
)
def test_preferences(chosen, category, defaults, channel, actor, topic, critical):
    said = allows(chosen, category, defaults, channel, actor=actor, topic=topic, critical=critical)
    objections = naive_objections(as_json(chosen), category, as_json(defaults), channel.value, actor, topic)
    assert said.allowed == (critical or not objections)
    if said.allowed:
        assert said.rule == ("critical" if objections else "allowed")
    else:
        assert said.rule in objections
    note("refused" if objections else "allowed")


# ---------------------------------------------------------------- visibility

broadcasts = st.builds(
    Broadcast,
    id=st.just("ntf_b"),
    seq=st.integers(1, 7),
    event_id=st.just("evt_b"),
    type=st.just("t"),
    category=st.sampled_from(CATEGORIES),
    contents=st.sampled_from(
        [
            {"": Content()},
            {"": Content(), "ko": Content()},
            {"": Content(), "ko": Content(), "ko-KR": Content()},
        ]
    ),
    created_at_us=st.just(1),
    audience=st.builds(
        BroadcastAudience,
        topics=some_topics.map(tuple),
        everyone=st.booleans(),
        exclude=st.sampled_from([(), ("bob",), ("alice", "bob")]),
        timezones=st.none() | st.lists(st.sampled_from(ZONES), min_size=1, max_size=2).map(tuple),
        other_than=st.none() | st.lists(st.sampled_from(ZONES), max_size=2).map(tuple),
    ),
    in_app=st.sampled_from([True, True, True, False]),
    default_in_app=st.sampled_from([True, True, False]),
    critical=st.booleans(),
    actor=maybe_actor,
)


def naive_ways(row, user):
    """Every way by which a broadcast may have come to a user: topics, and None for everyone."""
    had = {
        s.topic
        for s in user.subscriptions
        if row.seq in range(s.from_seq, s.until_seq if s.until_seq is not None else 10**9)
    }
    return (had & set(row.audience.topics)) | ({None} if row.audience.everyone else set())


def naive_open_ways(row, user, default_zone):
    """The ways that nothing closes."""
    zone = user.profile.timezone or default_zone
    for_zone = row.audience.timezones is None or zone in row.audience.timezones
    if row.audience.timezones is not None and row.audience.other_than is not None:
        for_zone = for_zone or zone not in row.audience.other_than
    if not row.in_app or user.profile.id in row.audience.exclude or not for_zone:
        return set()
    chosen, defaults = as_json(user.preferences), {"in_app": row.default_in_app}
    return {
        way
        for way in naive_ways(row, user)
        if row.critical or not naive_objections(chosen, row.category, defaults, "in_app", row.actor, way)
    }


def naive_locale(known, locale):
    """The longest known tag that is the user's, or begins it."""
    locale = (locale or "").lower()
    fits = [key for key in known if key and (locale == key.lower() or locale.startswith(key.lower() + "-"))]
    return max(fits, key=len, default=None)


@pytest.mark.req("R12")
@pytest.mark.req("R19")
@settings(max_examples=400)
@given(broadcasts, users, st.sampled_from(ZONES))
def test_visibility(row, user, default_zone):
    seen = visible(row, user, default_zone)
    ways = naive_open_ways(row, user, default_zone)
    assert seen.visible == bool(ways)
    assert seen.rule in RULES
    if seen:
        assert seen.topic in ways
        assert seen.topic is not None or ways == {None}
        assert (seen.locale or None) == naive_locale(row.contents, user.profile.locale)
    note("seen" if seen else seen.rule)


open_to_all = broadcasts.map(
    lambda row: msgspec.structs.replace(
        row, audience=BroadcastAudience(everyone=True), in_app=True, critical=False, seq=3
    )
)
in_app_choice = st.dictionaries(
    st.sampled_from(CATEGORIES), st.booleans() | st.fixed_dictionaries({Channel.IN_APP: st.booleans()})
).map(lambda chosen: Preferences(categories=chosen))
of_one_choice = st.builds(
    User,
    profile=st.just(Profile("alice")),
    preferences=one_choice | in_app_choice,
    subscriptions=subscriptions,
)


@settings(max_examples=400)
@given(broadcasts | open_to_all, users | of_one_choice, st.sampled_from(ZONES))
def test_who_restricts_nothing_sees_what_anybody_with_the_same_topics_sees(row, user, default_zone):
    plain = User(user.profile, subscriptions=user.subscriptions)
    if not restricts(user):
        assert visible(row, user, default_zone)[:3] == visible(row, plain, default_zone)[:3]
    assert not restricts(plain)


@given(broadcasts, users, st.sampled_from(ZONES))
def test_what_a_user_sees_never_grows_by_a_restriction(row, user, default_zone):
    muted = msgspec.structs.replace(user.preferences, muted=Muted(actors=ACTORS, topics=TOPICS))
    stricter = msgspec.structs.replace(user, preferences=muted)
    assert visible(row, user, default_zone).visible or not visible(row, stricter, default_zone).visible


# ---------------------------------------------------------------- planning


def naive_when(event, of, channel):
    """The policy of a channel for an event, or None when it is not used."""
    own = of.definition.channels.get(channel)
    when = own.when if own else None
    if event.channels is not None:
        if channel not in event.channels:
            return None
        if of.name == "message" and (when in (None, "never") or Channel.IN_APP not in event.channels):
            return "always"
    return None if when in (None, "never") else when


def naive_quiet_end(quiet, zone, moment_us):
    """Walk minute by minute to the end of the quiet hours; the moment itself when they do not hold."""
    shown = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_us)).astimezone(ZoneInfo(zone))
    minute_of_day = shown.hour * 60 + shown.minute  # no clock changes within a day of NOW

    def quiet_at(minute):
        clock = f"{minute // 60 % 24:02d}:{minute % 60:02d}"
        crosses = quiet.start > quiet.end
        return (clock >= quiet.start) + (clock < quiet.end) == (1 if crosses else 2)

    if quiet is None or quiet.start == quiet.end or not quiet_at(minute_of_day):
        return moment_us
    walked = next(minutes for minutes in range(1, 1441) if not quiet_at(minute_of_day + minutes))
    return moment_us - moment_us % (60 * SECOND) + walked * 60 * SECOND


def naive_replaced(event, of, own):
    """Whether the event's own list replaces the policy that a message has for a channel."""
    listed = of.name == "message" and event.channels is not None
    return listed and (own.when == "never" or Channel.IN_APP not in event.channels)


def naive_address(user, env, channel):
    """Whether a channel can be used for a user at all."""
    own = {"email": user.profile.email, "sms": user.profile.phone}.get(channel.value)
    return (
        channel in env.available and bool(own or channel in user.reachable) and channel not in user.suppressed
    )


def naive_due(event, of, user, env, channel, when, after_seconds):
    """When a delivery is due on a channel by a policy, or None when it is not made."""
    critical = of.definition.critical
    wait = {"always": 0, "offline": OFFLINE_GRACE_SECONDS}.get(when)
    wait = after_seconds if wait is None else wait
    throttle, digest = of.definition.throttle, of.definition.digest
    too_many = throttle and not critical and env.recent.get(("alice", of.name), 0) >= throttle.limit
    if too_many and throttle.then == "drop":
        return None
    if digest and channel in digest.channels and not critical:
        wait = max(wait, digest.window_seconds)
    elif too_many:
        wait = max(wait, throttle.per_seconds)
    due = NOW + wait * SECOND
    if not critical:
        due = naive_quiet_end(
            user.preferences.quiet_hours, user.profile.timezone or env.default_timezone, due
        )
    return due if event.expires_at_us is None or due < event.expires_at_us else None


def naive_plan(event, of, category, user, env):
    """Per used channel the moment it is due (the app: None), for every channel that nothing speaks against.

    Where a channel has no address, the first usable one of its fallbacks takes over.
    """
    used, missed = {}, []
    erased = user.erased_at_us is not None and user.erased_at_us > event.accepted_at_us
    expired = event.expires_at_us is not None and event.expires_at_us <= env.now_us
    defaults = as_json(category.defaults) if category else {}

    def wanted(channel):
        objections = naive_objections(
            as_json(user.preferences), of.definition.category, defaults, channel.value, event.actor, None
        )
        return of.definition.critical or not objections

    for channel in Channel:
        when = naive_when(event, of, channel)
        if when is None or erased or expired or not wanted(channel):
            continue
        own = of.definition.channels.get(channel)
        if channel is Channel.IN_APP:
            used[channel] = None
        elif naive_address(user, env, channel):
            after = own.after_seconds if own else 0
            if (due := naive_due(event, of, user, env, channel, when, after)) is not None:
                used[channel] = due
        elif own is not None and not naive_replaced(event, of, own):
            missed.append((channel, own))
    for channel, own in missed:
        others = [other for other in own.fallback if other not in (channel, Channel.IN_APP)]
        other = next((one for one in others if wanted(one) and naive_address(user, env, one)), None)
        if other is not None and other not in used:
            due = naive_due(event, of, user, env, other, own.when, own.after_seconds)
            if due is not None:
                used[other] = due
    return used


@pytest.mark.req("R13")
@pytest.mark.req("R17")
@pytest.mark.req("R18")
@settings(max_examples=600, deadline=None)
@given(events, types, categories, users, environments)
def test_planning(event, of, category, user, env):
    made = plan(event, of, category, user, NamedUser("alice"), env)
    expected = naive_plan(event, of, category, user, env)
    due = {delivery.channel: delivery.due_at_us for delivery in made.deliveries}
    assert made.notification.in_app == (Channel.IN_APP in expected)
    assert due == {channel: moment for channel, moment in expected.items() if channel is not Channel.IN_APP}

    told = {reason.channel: reason for reason in made.notification.reasons if reason.verdict != "note"}
    named = set(of.definition.channels) | set(event.channels or ())
    standing_in = {other for rule in of.definition.channels.values() for other in rule.fallback}
    assert named <= set(told) <= named | standing_in
    assert {channel for channel, reason in told.items() if reason.verdict != "refuse"} == set(expected)
    assert all(reason.rule in RULES and reason.detail for reason in made.notification.reasons)
    for delivery in made.deliveries:
        held = delivery.condition != "always" or delivery.digest_key is not None or delivery.due_at_us > NOW
        assert delivery.state == ("held" if held else "queued")
        assert told[delivery.channel].verdict == ("hold" if held else "use")
        assert Channel.IN_APP not in delivery.fallback
    assert made.notification.locale == naive_locale(of.definition.locales, user.profile.locale)
    assert bool(made.problems) == any(reason.verdict == "note" for reason in made.notification.reasons)
    note("in the app" if made.notification.in_app else "suppressed")


@pytest.mark.req("R17")
@given(types, categories, users, st.frozensets(channels), maybe_actor, st.none() | st.sampled_from(TOPICS))
def test_an_explanation_agrees_with_the_plan(of, category, user, available, actor, topic):
    user = msgspec.structs.replace(user, erased_at_us=None)
    said = explain_rules(of, category, user, available, actor=actor, topic=topic)
    refused = {one.channel for one in said if not one.allows and one.rule != "throttled"}
    event = Event("evt_x", "t", NOW, "s", 1, data={"n": 1}, actor=actor)
    made = plan(event, of, category, user, NamedUser("alice"), Environment(NOW, NOW, available))
    planned = {
        reason.channel: reason.verdict for reason in made.notification.reasons if reason.verdict != "note"
    }
    if topic is None:
        assert {channel for channel, verdict in planned.items() if verdict == "refuse"} == refused
    assert {one.channel for one in said} >= set(of.definition.channels)
    assert {one.channel for one in said if one.rule == "takes_over"} == {
        reason.channel for reason in made.notification.reasons if reason.rule == "takes_over"
    }


@given(events, types, categories, users, environments)
@settings(deadline=None)
def test_nobody_is_lost_and_nothing_that_is_not_exposed_leaks(event, of, category, user, env):
    secret = msgspec.structs.replace(event, data={"n": 1, "secret": "s3cret"})
    made = plan(secret, of, category, user, NamedUser("alice"), env)
    assert made.notification.user_id == "alice"
    assert made.notification.content.data in ({}, secret.data if of.name == "message" else {})
    wire = msgspec.json.encode(made.notification)
    assert (b"s3cret" in wire) <= (of.name == "message")
    assert msgspec.json.decode(wire, type=type(made.notification)) == made.notification


@given(events, types, categories, broadcasts, environments)
@settings(deadline=None)
def test_a_planned_broadcast_is_seen_by_whom_its_own_event_would_be_planned_for(
    event, of, category, row, env
):
    """Live and inbox ask `visible`; for a user without topics or time zones it must agree with `plan`."""
    made = plan_broadcast(event, of, category, BroadcastAudience(everyone=True), row.seq, env)
    for chosen in (
        Preferences(),
        Preferences(channels={Channel.IN_APP: False}),
        Preferences(categories={"orders": False}),
    ):
        user = User(Profile("zoe"), chosen)
        addressed = plan(event, of, category, user, NamedUser("zoe"), env)
        assert visible(made, user, "UTC").visible == addressed.notification.in_app
    assert "" in made.contents
