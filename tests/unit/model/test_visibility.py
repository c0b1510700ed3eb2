"""Visibility: who sees a broadcast, how it came to them, and in which language."""

import msgspec
import pytest

from hub.model.events import BroadcastAudience
from hub.model.notifications import Broadcast, Content
from hub.model.preferences import parse_preferences
from hub.model.rules import RULES
from hub.model.users import Profile, Subscription, User
from hub.model.visibility import restricts, visible, was_subscribed


def broadcast(seq=10, *, topics=(), everyone=False, exclude=(), actor=None, locales=("",), **fields):
    timezones, other_than = fields.pop("timezones", None), fields.pop("other_than", None)
    return Broadcast(
        id="ntf_b",
        seq=seq,
        event_id="evt_b",
        type="post.new",
        category="posts",
        contents={locale: Content(title=f"in {locale}") for locale in locales},
        created_at_us=1,
        audience=BroadcastAudience(topics, everyone, exclude, timezones, other_than),
        actor=actor,
        **fields,
    )


def user(id_="alice", *intervals, prefer=None, **profile):
    subscriptions = tuple(Subscription(*interval) for interval in intervals)
    return User(Profile(id_, **profile), parse_preferences(prefer or {}), subscriptions=subscriptions)


def sight(one, who, default="UTC"):
    found = visible(one, who, default)
    assert found.rule in RULES
    assert bool(found) == found.visible
    return found


@pytest.mark.req("R19")
@pytest.mark.parametrize(
    ("interval", "seen"),
    [
        (("t", 1, None), True),
        (("t", 10, None), True),
        (("t", 11, None), False),
        (("t", 1, 10), False),
        (("t", 1, 11), True),
        (("u", 1, None), False),
    ],
)
def test_a_topic_reaches_who_was_subscribed_then(interval, seen):
    one = broadcast(10, topics=("t",))
    found = sight(one, user("alice", interval))
    assert found.visible is seen
    assert found.topic == ("t" if seen else None)
    assert was_subscribed(user("alice", interval), "t", 10) is seen
    assert found.rule == ("allowed" if seen else "not_in_audience")


@pytest.mark.req("R19")
def test_who_leaves_keeps_what_they_had_and_who_returns_misses_what_came_between():
    who = user("alice", ("t", 1, 5), ("t", 8, None))
    seen = [seq for seq in range(1, 12) if sight(broadcast(seq, topics=("t",)), who)]
    assert seen == [1, 2, 3, 4, 8, 9, 10, 11]


@pytest.mark.req("R19")
def test_everyone_is_everyone_even_strangers():
    found = sight(broadcast(everyone=True), User(Profile("stranger")))
    assert (found.visible, found.topic) == (True, None)


def test_whom_the_event_leaves_out():
    assert sight(broadcast(everyone=True, exclude=("alice",)), user()).rule == "excluded"


@pytest.mark.req("R12")
def test_it_comes_by_a_way_that_the_user_did_not_mute():
    one = broadcast(topics=("t", "u"), everyone=True)
    both = [("t", 1, None), ("u", 1, None)]
    assert sight(one, user("alice", *both)).topic == "t"
    assert sight(one, user("alice", *both, prefer={"muted": {"topics": ["t"]}})).topic == "u"
    all_muted = sight(one, user("alice", *both, prefer={"muted": {"topics": ["t", "u"]}}))
    assert (all_muted.visible, all_muted.topic) == (True, None)
    topical = broadcast(topics=("t",))
    assert sight(topical, user("alice", *both, prefer={"muted": {"topics": ["t"]}})).rule == "muted_topic"


@pytest.mark.req("R12")
def test_who_follows_one_person_sees_only_theirs():
    follower = user(
        "alice", ("t", 1, None), prefer={"only": {"categories": {"posts": {"actors": ["carol"]}}}}
    )
    assert sight(broadcast(topics=("t",), actor="carol"), follower)
    assert sight(broadcast(topics=("t",), actor="dave"), follower).rule == "only_actors"
    assert sight(broadcast(topics=("t",)), follower).rule == "only_actors"


@pytest.mark.req("R11")
@pytest.mark.parametrize(
    ("prefer", "rule"),
    [
        ({"channels": {"in_app": False}}, "channel"),
        ({"categories": {"posts": False}}, "category"),
        ({"categories": {"posts": {"in_app": False}}}, "category_channel"),
        ({"muted": {"actors": ["bob"]}}, "muted_actor"),
    ],
)
def test_todays_preferences_decide(prefer, rule):
    assert sight(broadcast(everyone=True, actor="bob"), user(prefer=prefer)).rule == rule
    critical = sight(broadcast(everyone=True, actor="bob", critical=True), user(prefer=prefer))
    assert (critical.visible, critical.rule) == (True, "critical")


def test_other_channels_switches_do_not_matter():
    assert sight(broadcast(everyone=True), user(prefer={"channels": {"email": False}}))


def test_a_category_that_is_off_in_the_app_by_default():
    one = broadcast(everyone=True, default_in_app=False)
    assert sight(one, user()).rule == "category_default"
    assert sight(one, user(prefer={"categories": {"posts": {"in_app": True}}}))


def test_what_does_not_use_the_app_is_shown_to_nobody():
    assert sight(broadcast(everyone=True, in_app=False, critical=True), user()).rule == "not_in_app"


@pytest.mark.req("R18")
@pytest.mark.parametrize(
    ("zone", "berlin", "rest"),
    [
        ("Europe/Berlin", True, False), ("Asia/Seoul", False, False), ("UTC", False, True), (None, False, True),
        ("America/Lima", False, True),
    ],
)  # fmt: skip
def test_parts_of_a_local_event_are_for_their_zones(zone, berlin, rest):
    one = broadcast(everyone=True, timezones=("Europe/Berlin",))
    other = broadcast(everyone=True, timezones=("UTC",), other_than=("Asia/Seoul", "Europe/Berlin"))
    assert sight(one, user(timezone=zone)).visible is berlin
    assert sight(other, user(timezone=zone)).visible is rest


@pytest.mark.req("R16")
@pytest.mark.parametrize(("locale", "shown"), [("ko-KR", "ko"), ("KO", "ko"), ("de", ""), (None, "")])
def test_it_is_shown_in_the_closest_language(locale, shown):
    one = broadcast(everyone=True, locales=("", "ko"))
    assert sight(one, user(locale=locale)).locale == shown


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [
        ({}, False),
        ({"channels": {"email": False, "in_app": True}}, False),
        ({"categories": {"posts": True, "x": {"email": False}}}, False),
        ({"quiet_hours": {"start": "22:00", "end": "07:00"}}, False),
        ({"channels": {"in_app": False}}, True),
        ({"categories": {"posts": False}}, True),
        ({"categories": {"posts": {"in_app": False}}}, True),
        ({"categories": {"posts": {"in_app": True}}}, True),
        ({"muted": {"actors": ["bob"]}}, True),
        ({"muted": {"topics": ["t"]}}, True),
        ({"only": {"categories": {"posts": {"actors": ["bob"]}}}}, True),
    ],
)
def test_whose_connections_may_share_frames(prefer, expected):
    assert restricts(user(prefer=prefer)) is expected


def test_a_broadcast_survives_the_wire():
    one = broadcast(topics=("t",), everyone=True, timezones=("UTC",), other_than=(), actor="bob")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Broadcast) == one
