"""Expanding a broadcast, as pure code: everybody of a page gets a delivery, or is counted under one rule."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model.events import BroadcastAudience, Event
from hub.model.expansion import Expansion, Terms, expand, expansions_of
from hub.model.ids import delivery_id
from hub.model.notifications import Broadcast, Content
from hub.model.planning import OFFLINE_GRACE_SECONDS, Environment, plan_broadcast
from hub.model.rules import RULES
from hub.model.types import CategoryDefinition, ChannelRule, Digest, Throttle, TypeDefinition, TypeVersion
from hub.model.users import Muted, Only, OnlyRule, Preferences, Profile, QuietHours, Subscription, User
from hub.model.vocabulary import Channel

pytestmark = [pytest.mark.req("R2"), pytest.mark.req("R19")]

MAIL, SMS, PUSH = Channel.EMAIL, Channel.SMS, Channel.WEB_PUSH
NOW = 1_767_614_400_000_000  # 12:00 UTC
SECOND = 1_000_000
HOUR = 3600 * SECOND
EVERYONE = BroadcastAudience(everyone=True)


def broadcast(audience: BroadcastAudience = EVERYONE, **more: Any) -> Broadcast:
    fields = {"category": "news", "contents": {"": Content(title="News")}, **more}
    return Broadcast(
        id="ntf_1_b", seq=7, event_id="evt_1", type="news", created_at_us=NOW, audience=audience, **fields
    )


def terms(
    row: Broadcast, channel: Channel = MAIL, condition: str = "always", now_us: int = NOW, **more: Any
) -> Terms:
    expansion = Expansion(row.id, channel, row.seq, row.event_id, "lane", condition, now_us, **more)
    return Terms(row, expansion, CategoryDefinition(), frozenset({MAIL, SMS, PUSH}), "UTC", now_us)


def user(id_: str = "alice", **more: Any) -> User:
    profile = {name: more.pop(name) for name in ("email", "phone", "timezone") if name in more}
    return User(Profile(id_, **{"email": f"{id_}@example.com", **profile}), **more)


def outcome(asked: Terms, one: User, seen: bool = False) -> str:
    """`delivery`, or the rule that refused."""
    deliveries, counts = expand(asked, [one], frozenset({one.profile.id} if seen else ()))
    assert len(deliveries) + sum(counts.values()) == 1
    return "delivery" if deliveries else next(iter(counts))


# ---------------------------------------------------------------- the plan

KIND = TypeVersion(
    "news",
    1,
    TypeDefinition(
        category="news",
        channels={
            Channel.IN_APP: ChannelRule(),
            MAIL: ChannelRule(when="unseen", after_seconds=600, fallback=[SMS, PUSH]),
            SMS: ChannelRule(when="offline"),
            PUSH: ChannelRule(when="always"),
            Channel.MOBILE_PUSH: ChannelRule(when="always"),
        },
    ),
)


def planned(event: Event, kind: TypeVersion = KIND, **more: Any) -> list[Expansion]:
    env = Environment(now_us=NOW, created_at_us=NOW, available=frozenset({MAIL, SMS, PUSH}), **more)
    row = plan_broadcast(event, kind, None, EVERYONE, 7, env)
    return expansions_of(row, event, kind, env)


def event(**more: Any) -> Event:
    return Event(id="evt_1", type="news", accepted_at_us=NOW, source="http:k", slices=1, **more)


def test_each_addressed_channel_that_nothing_refuses_gets_an_expansion_with_its_moment() -> None:
    found = {one.channel: one for one in planned(event())}
    assert set(found) == {MAIL, SMS, PUSH}  # nobody serves mobile push, and the app needs none
    assert found[PUSH].due_at_us == NOW
    assert found[SMS].due_at_us == NOW + OFFLINE_GRACE_SECONDS * SECOND
    assert found[MAIL].due_at_us == NOW + 600 * SECOND
    assert [found[one].condition for one in (PUSH, SMS, MAIL)] == ["always", "offline", "unseen"]
    assert found[MAIL].fallback == (SMS, PUSH)
    assert (found[MAIL].seq, found[MAIL].state) == (7, "waiting")


def test_an_event_narrows_and_adds_channels() -> None:
    assert [one.channel for one in planned(event(channels=(PUSH, Channel.IN_APP)))] == [PUSH]
    message = TypeVersion("message", 0, TypeDefinition(category="messages", channels={}))
    assert [(one.channel, one.condition) for one in planned(event(channels=(MAIL,)), message)] == [
        (MAIL, "always")
    ]


def test_what_expires_before_it_is_due_is_never_expanded() -> None:
    soon = event(expires_at_us=NOW + 60 * SECOND)
    assert {one.channel for one in planned(soon)} == {PUSH, SMS}
    env = Environment(now_us=NOW, created_at_us=NOW, available=frozenset({MAIL}))
    rules = {
        reason.channel: reason.rule for reason in plan_broadcast(soon, KIND, None, EVERYONE, 7, env).reasons
    }
    assert rules[MAIL] == "expires_first"
    assert planned(event(expires_at_us=NOW)) == []


def test_broadcasts_are_neither_digested_nor_throttled() -> None:
    definition = TypeDefinition(
        category="news",
        channels={MAIL: ChannelRule()},
        digest=Digest(channels=[MAIL], window_seconds=600),
        throttle=Throttle(limit=1, per_seconds=60),
    )
    [expansion] = planned(event(), TypeVersion("news", 1, definition))
    assert expansion.due_at_us == NOW
    made = expand(terms(broadcast()), [user()], frozenset()).deliveries[0]
    assert (made.digest_key, made.throttled) == (None, False)


# ---------------------------------------------------------------- one user


def test_a_delivery_says_all_that_its_sender_needs() -> None:
    row = broadcast(expires_at_us=NOW + HOUR)
    asked = terms(row, condition="unseen", fallback=(MAIL, SMS, PUSH, Channel.IN_APP))
    no_sms = user(preferences=Preferences(channels={SMS: False}))
    [made] = expand(asked, [no_sms], frozenset()).deliveries
    assert made.id == delivery_id(row.id, MAIL, "alice") != delivery_id(row.id, MAIL, "bob")
    assert (made.user_id, made.notification_id, made.event_id) == ("alice", row.id, "evt_1")
    assert (made.state, made.due_at_us, made.created_at_us) == ("queued", NOW, NOW)
    assert (made.condition, made.expires_at_us, made.slice_key) == ("unseen", NOW + HOUR, "lane")
    assert made.fallback == (PUSH,)


@pytest.mark.req("R12")
@pytest.mark.parametrize(
    ("given_", "more", "wanted"),
    [
        ({}, {}, "delivery"),
        ({"exclude": ("alice",)}, {}, "excluded"),
        ({"timezones": ("Asia/Seoul",)}, {}, "other_timezone"),
        ({"timezones": ("UTC",)}, {}, "delivery"),
        (
            {"timezones": ("UTC",), "other_than": ("Asia/Seoul",)},
            {"timezone": "Asia/Seoul"},
            "other_timezone",
        ),
        ({}, {"email": None}, "no_address"),
        ({}, {"suppressed": frozenset({MAIL})}, "suppressed_address"),
        ({}, {"erased_at_us": NOW + 1}, "erased"),
        ({}, {"erased_at_us": NOW - 1}, "delivery"),
        ({}, {"preferences": Preferences(channels={MAIL: False})}, "channel"),
        ({}, {"preferences": Preferences(categories={"news": False})}, "category"),
        ({}, {"preferences": Preferences(categories={"news": {MAIL: False}})}, "category_channel"),
        ({}, {"preferences": Preferences(muted=Muted(actors=["bob"]))}, "muted_actor"),
        (
            {},
            {"preferences": Preferences(only=Only(categories={"news": OnlyRule(topics=["t"])}))},
            "only_topics",
        ),
    ],
)
def test_who_gets_nothing_is_counted_under_the_rule_that_decided(
    given_: dict[str, Any], more: dict[str, Any], wanted: str
) -> None:
    row = broadcast(BroadcastAudience(everyone=True, **given_), actor="bob")
    assert outcome(terms(row), user(**more)) == wanted


def test_a_category_may_be_off_by_default_and_a_critical_type_passes() -> None:
    off = CategoryDefinition(defaults={MAIL: False})
    asked = terms(broadcast())
    closed = Terms(asked.broadcast, asked.expansion, off, asked.available, "UTC", NOW)
    assert outcome(closed, user()) == "category_default"
    critical = terms(broadcast(critical=True))
    refusing = user(preferences=Preferences(channels={MAIL: False}, quiet_hours=QuietHours("11:00", "13:00")))
    [made] = expand(critical, [refusing], frozenset()).deliveries
    assert made.state == "queued"
    assert outcome(critical, user(suppressed=frozenset({MAIL}))) == "suppressed_address"


def test_topics_count_as_they_were_and_any_of_them_may_bring_it() -> None:
    row = broadcast(BroadcastAudience(topics=("t", "u")))
    joined_later = (Subscription("t", 8),)
    left_later = (Subscription("t", 1, 8),)
    left_before = (Subscription("t", 1, 7),)
    both = (Subscription("t", 1), Subscription("u", 1))
    muting = Preferences(muted=Muted(topics=["t"]))
    assert outcome(terms(row), user(subscriptions=joined_later)) == "not_in_audience"
    assert outcome(terms(row), user(subscriptions=left_later)) == "delivery"
    assert outcome(terms(row), user(subscriptions=left_before)) == "not_in_audience"
    assert outcome(terms(row), user(subscriptions=left_later, preferences=muting)) == "muted_topic"
    assert outcome(terms(row), user(subscriptions=both, preferences=muting)) == "delivery"
    everywhere = broadcast(BroadcastAudience(topics=("t",), everyone=True))
    assert outcome(terms(everywhere), user(subscriptions=left_later, preferences=muting)) == "delivery"


@pytest.mark.parametrize(
    ("condition", "wanted"), [("always", "delivery"), ("offline", "seen"), ("unseen", "seen")]
)
def test_who_saw_it_gets_nothing_but_what_is_always_sent(condition: str, wanted: str) -> None:
    assert outcome(terms(broadcast(), condition=condition), user(), seen=True) == wanted
    assert outcome(terms(broadcast(), condition=condition), user()) == "delivery"


@pytest.mark.req("R37")
def test_who_was_reached_gets_nothing_on_channels_for_those_who_were_not() -> None:
    both = [user("alice"), user("bob")]
    for condition, wanted in (("always", {}), ("offline", {"reached": 1}), ("unseen", {})):
        made, counts = expand(terms(broadcast(), condition=condition), both, frozenset(), frozenset({"bob"}))
        assert counts == wanted
        assert [one.user_id for one in made] == (["alice"] if wanted else ["alice", "bob"])
    looked, muting = frozenset({"alice"}), Preferences(channels={MAIL: False})
    asked = terms(broadcast(), condition="offline")
    assert expand(asked, [user()], looked, looked).counts == {"seen": 1}
    assert expand(asked, [user(preferences=muting)], looked, looked).counts == {"channel": 1}


@pytest.mark.req("R13")
def test_quiet_hours_hold_it_until_they_end_unless_it_expires_first() -> None:
    quiet = user(timezone="Asia/Seoul", preferences=Preferences(quiet_hours=QuietHours("20:00", "22:30")))
    [made] = expand(terms(broadcast()), [quiet], frozenset()).deliveries  # it is 21:00 in Seoul
    assert (made.state, made.due_at_us) == ("held", NOW + 90 * 60 * SECOND)
    assert outcome(terms(broadcast(expires_at_us=NOW + HOUR)), quiet) == "expires_first"
    assert outcome(terms(broadcast(expires_at_us=NOW)), quiet) == "expired"


def test_push_needs_no_address_in_the_profile() -> None:
    asked = terms(broadcast(), PUSH)
    assert outcome(asked, User(Profile("alice"), reachable=frozenset({PUSH}))) == "delivery"
    assert outcome(asked, User(Profile("alice"))) == "no_address"
    gone = Terms(asked.broadcast, asked.expansion, None, frozenset(), "UTC", NOW)
    assert outcome(gone, User(Profile("alice"), reachable=frozenset({PUSH}))) == "no_provider"


# ---------------------------------------------------------------- any audience

zones = st.sampled_from([None, "UTC", "Asia/Seoul"])
switches = st.dictionaries(st.sampled_from([MAIL, SMS]), st.booleans())
people = st.builds(
    User,
    profile=st.builds(
        Profile,
        id=st.uuids().map(str),
        email=st.sampled_from([None, "a@b.c", "a@b.c"]),
        timezone=zones,
    ),
    preferences=st.builds(
        Preferences,
        channels=switches,
        categories=st.dictionaries(st.just("news"), st.booleans() | switches, max_size=1),
        muted=st.builds(
            Muted,
            actors=st.lists(st.just("bob"), max_size=1),
            topics=st.lists(st.sampled_from(["t", "u"]), max_size=1),
        ),
        quiet_hours=st.none() | st.just(QuietHours("11:00", "13:00")),
    ),
    subscriptions=st.lists(
        st.builds(
            Subscription,
            topic=st.sampled_from(["t", "u", "v"]),
            from_seq=st.integers(1, 9),
            until_seq=st.none() | st.integers(2, 10),
        ),
        max_size=3,
    ).map(tuple),
    suppressed=st.frozensets(st.sampled_from([MAIL, SMS]), max_size=1),
    erased_at_us=st.none() | st.sampled_from([NOW - 1, NOW + 1]),
)
audiences = st.builds(
    BroadcastAudience,
    topics=st.lists(st.sampled_from(["t", "u"]), unique=True, max_size=2).map(tuple),
    everyone=st.booleans(),
    timezones=st.none() | st.just(("UTC",)),
)


@given(
    users=st.lists(people, max_size=12, unique_by=lambda one: one.profile.id),
    audience=audiences,
    condition=st.sampled_from(["always", "offline", "unseen"]),
    expires=st.none() | st.integers(-1, 3).map(lambda hours: NOW + hours * HOUR),
    critical=st.booleans(),
    data=st.data(),
)
def test_everybody_ends_in_exactly_one_place(
    users: list[User],
    audience: BroadcastAudience,
    condition: str,
    expires: int | None,
    critical: bool,
    data: st.DataObject,
) -> None:
    row = broadcast(audience, actor="bob", expires_at_us=expires, critical=critical)
    asked = terms(row, condition=condition, fallback=(SMS,))
    ids = [one.profile.id for one in users]
    seen = frozenset(data.draw(st.sets(st.sampled_from(ids)))) if ids else frozenset()
    reached = frozenset(data.draw(st.sets(st.sampled_from(ids)))) if ids else frozenset()
    deliveries, counts = expand(asked, users, seen, reached)

    assert len(deliveries) + sum(counts.values()) == len(users)
    assert counts.keys() <= RULES.keys()
    assert all(counts.values())
    assert len({one.id for one in deliveries}) == len(deliveries)
    # Alone or among others, in whatever order: the same becomes of each.
    alone = [expand(asked, [one], seen, reached) for one in users]
    assert [made for one in alone for made in one.deliveries] == deliveries
    total: Counter[str] = Counter()
    for one in alone:
        total.update(one.counts)
    assert dict(total) == counts
    reversed_ = expand(asked, users[::-1], seen, reached)
    assert (reversed_.deliveries[::-1], reversed_.counts) == (deliveries, counts)
    by_id = {one.profile.id: one for one in users}
    for made in deliveries:
        assert by_id[made.user_id].profile.email is not None
        assert MAIL not in by_id[made.user_id].suppressed
        assert made.user_id not in seen or condition == "always"
        assert made.user_id not in reached or condition != "offline"
        assert made.due_at_us >= NOW
        assert expires is None or made.due_at_us < expires
        assert made.state == ("held" if made.due_at_us > NOW else "queued")
        assert not critical or made.due_at_us == NOW


def test_a_channel_on_which_nobody_has_an_address_is_not_expanded() -> None:
    kind = TypeVersion(
        "news", 1, TypeDefinition(category="news", channels={Channel.WEB_PUSH: ChannelRule("offline")})
    )
    event = Event(id="evt_1", type="news", accepted_at_us=1, source="http:key", slices=1)
    env = Environment(1, 1, frozenset({Channel.WEB_PUSH}), unused=frozenset({PUSH}))
    row = plan_broadcast(event, kind, None, BroadcastAudience(everyone=True), 1, env)
    assert [(reason.verdict, reason.rule) for reason in row.reasons] == [("refuse", "no_address")]
    assert expansions_of(row, event, kind, env) == []
