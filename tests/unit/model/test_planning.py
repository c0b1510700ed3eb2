"""Planning: policies, addresses, moments, texts, and a reason for everything."""

import msgspec
import pytest

from hub.model.contents import BODY_LIMIT, TITLE_LIMIT
from hub.model.events import Action, BroadcastAudience, Event, NamedUser
from hub.model.explanation import explain_rules
from hub.model.notifications import notification_id
from hub.model.planning import OFFLINE_GRACE_SECONDS, Environment, Memo, plan, plan_broadcast
from hub.model.preferences import parse_preferences
from hub.model.rules import RULES
from hub.model.schedule import parse_moment
from hub.model.types import (
    MESSAGE,
    CategoryDefinition,
    ChannelRule,
    Digest,
    Texts,
    Throttle,
    TypeDefinition,
    TypeVersion,
)
from hub.model.users import Profile, User
from hub.model.vocabulary import Channel

IN_APP, EMAIL, SMS, PUSH, MOBILE = Channel
NOW = parse_moment("2026-06-01T20:30:00Z")
SECOND = 1_000_000
ALL = frozenset(Channel)
ALICE = NamedUser("alice")
EVERYONE = BroadcastAudience(everyone=True)


def env(**fields):
    return Environment(**({"now_us": NOW, "created_at_us": NOW, "available": ALL} | fields))


def event(**fields):
    return Event(
        **({"id": "evt_x", "type": "t", "accepted_at_us": NOW - SECOND, "source": "s", "slices": 1} | fields)
    )


def kind(channels=None, name="t", **fields):
    rules = {"in_app": "always"} if channels is None else channels
    made = {Channel(k): v if isinstance(v, ChannelRule) else ChannelRule(when=v) for k, v in rules.items()}
    return TypeVersion(name, 1, TypeDefinition(**({"category": "c", "channels": made} | fields)))


def person(prefer=None, *, reachable=(PUSH, MOBILE), suppressed=(), erased=None, **profile):
    fields = {"email": "a@b.c", "phone": "+821012345678"} | profile
    return User(
        Profile("alice", **fields),
        parse_preferences(prefer or {}),
        reachable=frozenset(reachable),
        suppressed=frozenset(suppressed),
        erased_at_us=erased,
    )


def planned(one=None, of=None, who=None, category=None, named=ALICE, **environment):
    made = plan(one or event(), of or kind(), category, who, named, env(**environment))
    assert {reason.rule for reason in made.notification.reasons} <= RULES.keys()
    assert made == plan(one or event(), of or kind(), category, who, named, env(**environment))
    return made


def verdicts(made):
    return {r.channel: (r.verdict, r.rule) for r in made.notification.reasons if r.verdict != "note"}


# ---------------------------------------------------------------- policies


@pytest.mark.req("R17")
def test_each_policy_has_its_moment_and_its_condition():
    of = kind(
        {
            "in_app": "always",
            "email": ChannelRule("unseen", 60),
            "sms": "always",
            "web_push": "offline",
            "mobile_push": "never",
        }
    )
    made = planned(of=of, who=person())
    assert verdicts(made) == {
        IN_APP: ("use", "always"),
        EMAIL: ("hold", "unseen"),
        SMS: ("use", "always"),
        PUSH: ("hold", "offline"),
        MOBILE: ("refuse", "never"),
    }
    by_channel = {delivery.channel: delivery for delivery in made.deliveries}
    assert [
        (by_channel[c].state, by_channel[c].condition, by_channel[c].due_at_us - NOW)
        for c in (EMAIL, SMS, PUSH)
    ] == [
        ("held", "unseen", 60 * SECOND),
        ("queued", "always", 0),
        ("held", "offline", OFFLINE_GRACE_SECONDS * SECOND),
    ]
    assert MOBILE not in by_channel


@pytest.mark.req("R17")
def test_the_notification_is_named_after_event_and_user():
    made = planned(of=kind({"in_app": "always", "email": "always"}), who=person())
    assert made.notification.id == notification_id("evt_x", "alice")
    assert made.deliveries[0].notification_id == made.notification.id
    assert made.deliveries[0].id.startswith("dlv_")
    assert (made.notification.user_id, made.notification.event_id) == ("alice", "evt_x")


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (None, {IN_APP: "always", EMAIL: "always"}),
        ((EMAIL,), {IN_APP: "not_in_event", EMAIL: "always"}),
        ((IN_APP,), {IN_APP: "always", EMAIL: "not_in_event"}),
        ((SMS,), {IN_APP: "not_in_event", EMAIL: "not_in_event", SMS: "not_in_type"}),
    ],
)
def test_an_events_own_channels_narrow_those_of_its_type(channels, expected):
    made = planned(event(channels=channels), kind({"in_app": "always", "email": "always"}), person())
    assert {channel: rule for channel, (_, rule) in verdicts(made).items()} == expected


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        (None, {IN_APP: "always", PUSH: "offline"}),
        ((IN_APP, EMAIL), {IN_APP: "always", EMAIL: "added_by_event", PUSH: "not_in_event"}),
        ((SMS,), {IN_APP: "not_in_event", SMS: "added_by_event", PUSH: "not_in_event"}),
        ((IN_APP, PUSH), {IN_APP: "always", PUSH: "offline"}),
        ((PUSH,), {IN_APP: "not_in_event", PUSH: "always"}),
    ],
)
def test_for_a_message_an_events_channels_also_add(channels, expected):
    made = planned(event(type="message", channels=channels), MESSAGE, person())
    assert {channel: rule for channel, (_, rule) in verdicts(made).items()} == expected


# ---------------------------------------------------------------- users and addresses


@pytest.mark.req("R19")
def test_an_unknown_user_gets_it_with_what_the_event_says_of_them():
    of = kind({"in_app": "always", "email": "always", "sms": "always"}, title="{{ recipient.name }}")
    made = planned(of=of, named=NamedUser("new", email="n@b.c", name="Newt"))
    assert verdicts(made) == {
        IN_APP: ("use", "always"),
        EMAIL: ("use", "always"),
        SMS: ("refuse", "no_address"),
    }
    assert made.notification.content.title == "Newt"


def test_an_events_own_fields_count_before_what_is_stored():
    of = kind(title="{{ recipient.name }} {{ recipient.email }}")
    made = planned(of=of, who=person(name="Old"), named=NamedUser("alice", name="New"))
    assert made.notification.content.title == "New a@b.c"


@pytest.mark.req("R17")
def test_a_channel_needs_a_provider_an_address_and_a_good_one():
    of = kind({"email": "always", "sms": "always", "web_push": "always", "mobile_push": "always"})
    who = person(email=None, reachable=(PUSH,), suppressed=(SMS,))
    assert verdicts(planned(of=of, who=who, available=ALL - {PUSH})) == {
        EMAIL: ("refuse", "no_address"),
        SMS: ("refuse", "suppressed_address"),
        PUSH: ("refuse", "no_provider"),
        MOBILE: ("refuse", "no_address"),
    }
    assert verdicts(planned(of=of, who=who))[PUSH] == ("use", "always")


@pytest.mark.req("R11")
def test_preferences_refuse_channel_by_channel():
    of = kind({"in_app": "always", "email": "always", "sms": "always", "web_push": "always"})
    who = person({"channels": {"sms": False}, "categories": {"c": {"in_app": False}}})
    made = planned(of=of, who=who, category=CategoryDefinition(defaults={PUSH: False}))
    assert verdicts(made) == {
        IN_APP: ("refuse", "category_channel"),
        EMAIL: ("use", "always"),
        SMS: ("refuse", "channel"),
        PUSH: ("refuse", "category_default"),
    }
    assert not made.notification.in_app


@pytest.mark.req("R12")
def test_whom_the_user_muted_is_not_heard_anywhere():
    made = planned(
        event(actor="bob"),
        kind({"in_app": "always", "email": "always"}),
        person({"muted": {"actors": ["bob"]}}),
    )
    assert verdicts(made) == {IN_APP: ("refuse", "muted_actor"), EMAIL: ("refuse", "muted_actor")}
    assert not made.deliveries


@pytest.mark.req("R13")
def test_critical_passes_preferences_but_never_a_missing_or_suppressed_address():
    of = kind({"in_app": "always", "email": "always", "sms": "always", "web_push": "always"}, critical=True)
    everything_off = {
        "channels": dict.fromkeys(Channel, False),
        "categories": {"c": False},
        "muted": {"actors": ["bob"]},
        "quiet_hours": {"start": "00:00", "end": "23:59"},
    }
    who = person(everything_off, email=None, suppressed=(SMS,))
    assert verdicts(planned(event(actor="bob"), of, who)) == {
        IN_APP: ("use", "always"),
        EMAIL: ("refuse", "no_address"),
        SMS: ("refuse", "suppressed_address"),
        PUSH: ("use", "always"),
    }


@pytest.mark.req("R10")
def test_who_was_erased_after_acceptance_gets_nothing_and_leaves_nothing():
    of = kind({"in_app": "always", "email": "always"}, title="{{ recipient.email }}")
    accepted = event().accepted_at_us
    made = planned(of=of, who=person(erased=accepted + 1), named=NamedUser("alice", email="a@b.c"))
    assert verdicts(made) == {IN_APP: ("refuse", "erased"), EMAIL: ("refuse", "erased")}
    assert (made.notification.in_app, made.deliveries) == (False, ())
    assert "a@b.c" not in str(made)
    assert planned(of=of, who=person(erased=accepted)).notification.in_app


def test_an_expired_event_is_suppressed_everywhere():
    made = planned(event(expires_at_us=NOW), kind({"in_app": "always", "email": "always"}), person())
    assert verdicts(made) == {IN_APP: ("refuse", "expired"), EMAIL: ("refuse", "expired")}


def test_a_delivery_that_would_come_too_late_is_not_made():
    one = event(expires_at_us=NOW + 60 * SECOND)
    made = planned(
        one,
        kind({"in_app": "always", "email": ChannelRule("unseen", 60), "sms": ChannelRule("unseen", 59)}),
        person(),
    )
    assert verdicts(made)[EMAIL] == ("refuse", "expires_first")
    assert [delivery.channel for delivery in made.deliveries] == [SMS]
    assert made.deliveries[0].expires_at_us == one.expires_at_us


# ---------------------------------------------------------------- when

QUIET = {"quiet_hours": {"start": "22:00", "end": "07:00"}}


@pytest.mark.req("R13")
def test_quiet_hours_in_the_users_zone_hold_addressed_channels_and_never_the_app():
    of = kind({"in_app": "always", "email": "always"})
    made = planned(of=of, who=person(QUIET, timezone="Europe/Berlin"))  # 22:30 there
    assert verdicts(made) == {IN_APP: ("use", "always"), EMAIL: ("hold", "quiet_hours")}
    [delivery] = made.deliveries
    assert (delivery.state, delivery.due_at_us) == ("held", parse_moment("2026-06-02T07:00:00+02:00"))
    assert verdicts(planned(of=of, who=person(QUIET)))[EMAIL] == ("use", "always")
    assert (
        verdicts(planned(of=of, who=person(QUIET), default_timezone="Europe/Berlin"))[EMAIL][1]
        == "quiet_hours"
    )


@pytest.mark.req("R13")
def test_quiet_hours_count_when_the_delivery_is_due_not_when_it_is_planned():
    of = kind({"email": ChannelRule("unseen", 2 * 3600)})
    [delivery] = planned(of=of, who=person(QUIET)).deliveries
    assert delivery.due_at_us == parse_moment("2026-06-02T07:00:00Z")
    assert delivery.condition == "unseen"


@pytest.mark.req("R18")
def test_a_digest_holds_addressed_channels_of_its_list():
    of = kind({"in_app": "always", "email": "always", "sms": "always"}, digest=Digest([EMAIL], 600))
    made = planned(event(digest_key="thread-7"), of, person())
    assert verdicts(made) == {IN_APP: ("use", "always"), EMAIL: ("hold", "digest"), SMS: ("use", "always")}
    held = made.deliveries[0]
    assert (held.state, held.digest_key, held.due_at_us) == ("held", "thread-7", NOW + 600 * SECOND)
    assert planned(of=of, who=person()).deliveries[0].digest_key == "t"


@pytest.mark.req("R18")
def test_a_throttle_drops_or_digests_what_is_too_much():
    recent = {("alice", "t"): 3}
    drop = kind({"in_app": "always", "email": "always"}, throttle=Throttle(3, 60))
    made = planned(of=drop, who=person(), recent=recent)
    assert verdicts(made) == {IN_APP: ("use", "always"), EMAIL: ("refuse", "throttled")}
    assert verdicts(planned(of=drop, who=person(), recent={("alice", "t"): 2}))[EMAIL] == ("use", "always")
    join = kind({"email": "always"}, throttle=Throttle(3, 60, "digest"))
    [held] = planned(of=join, who=person(), recent=recent).deliveries
    assert (held.state, held.digest_key, held.due_at_us) == ("held", "t", NOW + 60 * SECOND)
    critical = kind({"email": "always"}, throttle=Throttle(3, 60), critical=True)
    assert verdicts(planned(of=critical, who=person(), recent=recent))[EMAIL] == ("use", "always")


@pytest.mark.req("R17")
def test_fallbacks_are_those_that_the_user_allows():
    rule = ChannelRule("always", fallback=[SMS, PUSH, IN_APP, EMAIL])
    [delivery] = planned(of=kind({"email": rule}), who=person({"channels": {"sms": False}})).deliveries
    assert delivery.fallback == (PUSH,)


@pytest.mark.req("R17", "I9")
@pytest.mark.parametrize(
    ("who", "available", "rule"),
    [
        ({"email": None}, ALL, "no_address"),
        ({"suppressed": (EMAIL,)}, ALL, "suppressed_address"),
        ({}, ALL - {EMAIL}, "no_provider"),
    ],
)
def test_where_a_channel_cannot_be_used_its_fallback_takes_over_by_its_policy(who, available, rule):
    of = kind({"email": ChannelRule("unseen", 60, fallback=[SMS, PUSH]), "sms": "never"})
    made = planned(of=of, who=person(**who), available=available)
    assert verdicts(made) == {EMAIL: ("refuse", rule), SMS: ("hold", "takes_over")}
    [delivery] = made.deliveries
    assert (delivery.channel, delivery.condition, delivery.due_at_us) == (SMS, "unseen", NOW + 60 * SECOND)
    assert delivery.fallback == (PUSH,)
    said = explain_rules(of, None, person(**who), available)
    assert [(one.rule, one.allows) for one in said if one.channel is SMS and one.rule == "takes_over"] == [
        ("takes_over", True)
    ]
    assert [one.rule for one in said if one.channel is SMS and not one.allows] == []


@pytest.mark.req("R17", "R11")
def test_a_fallback_takes_over_only_where_it_is_wanted_and_not_used_anyway():
    of = kind({"email": ChannelRule("always", fallback=[SMS, PUSH]), "sms": "never"})
    # The user switched e-mail off: that is a wish, not a missing address.
    assert planned(of=of, who=person({"channels": {"email": False}})).deliveries == ()
    # The first of the chain that is wanted and has an address.
    no_sms = planned(of=of, who=person({"channels": {"sms": False}}, email=None))
    assert [one.channel for one in no_sms.deliveries] == [PUSH]
    no_phone = planned(of=of, who=person(email=None, phone=None))
    assert [one.channel for one in no_phone.deliveries] == [PUSH]
    nothing = planned(of=of, who=person(email=None, phone=None, reachable=()))
    assert nothing.deliveries == ()
    # On a channel that the type uses anyway there is one delivery, by its own policy.
    both = kind({"email": ChannelRule("always", fallback=[SMS]), "sms": ChannelRule("unseen", 60)})
    [delivery] = planned(of=both, who=person(email=None)).deliveries
    assert (delivery.channel, delivery.condition) == (SMS, "unseen")


# ---------------------------------------------------------------- texts

ORDER = kind(
    name="order.paid",
    title="Order {{ data.number }} paid",
    body="Thank you, {{ recipient.name or 'dear customer' }}",
    url="/orders/{{ data.number }}",
    actions=[Action("Show {{ data.number }}", "/orders/{{ data.number }}/show")],
    expose=["number", "absent"],
    locales={
        "ko": Texts(title="주문 {{ data.number }} 결제됨"),
        "ko-KR": Texts(body="{{ recipient.name }}님, 감사합니다"),
    },
)
PAID = event(type="order.paid", data={"number": 7, "card": "4111"}, actor="bob")


@pytest.mark.req("R16")
@pytest.mark.parametrize(
    ("locale", "title", "body", "chosen"),
    [
        (None, "Order 7 paid", "Thank you, Al", None),
        ("de", "Order 7 paid", "Thank you, Al", None),
        ("ko", "주문 7 결제됨", "Thank you, Al", "ko"),
        ("ko-KR", "주문 7 결제됨", "Al님, 감사합니다", "ko-KR"),
        ("KO-kr", "주문 7 결제됨", "Al님, 감사합니다", "ko-KR"),
    ],
)
def test_texts_speak_the_recipients_language_each_from_the_narrowest_that_has_it(locale, title, body, chosen):
    row = planned(PAID, ORDER, person(name="Al", locale=locale)).notification
    assert (row.content.title, row.content.body, row.locale) == (title, body, chosen)


@pytest.mark.req("R16")
def test_clients_get_what_is_exposed_and_who_it_was():
    content = planned(
        PAID, ORDER, person(), actors={"bob": Profile("bob", name="Bob", avatar="/b.png")}
    ).notification.content
    assert content.data == {"number": 7}
    assert (content.actor_name, content.actor_avatar) == ("Bob", "/b.png")
    assert content.url == "/orders/7"
    assert content.actions == (Action("Show 7", "/orders/7/show"),)
    assert "4111" not in str(content)
    assert planned(event(type="message", data={"all": 1}), MESSAGE).notification.content.data == {"all": 1}


def test_the_events_own_texts_replace_those_of_its_type():
    own = event(
        type="order.paid",
        data={"number": 7},
        title="{{ raw }}",
        body="own",
        url="/own",
        actions=(Action("a", "/a"),),
    )
    content = planned(own, ORDER, person()).notification.content
    assert (content.title, content.body, content.url) == ("{{ raw }}", "own", "/own")
    assert content.actions == (Action("a", "/a"),)


@pytest.mark.req("R16")
def test_an_undefined_name_is_told_and_a_stand_in_is_shown():
    made = planned(event(type="order.paid"), ORDER, person())
    assert made.notification.in_app
    assert made.notification.content.title == "order.paid"
    assert made.notification.content.body == "Thank you, dear customer"
    assert [problem.split(":")[0] for problem in made.problems] == [
        "title",
        "url",
        "actions/0/title",
        "actions/0/url",
    ]
    notes = [reason for reason in made.notification.reasons if reason.verdict == "note"]
    assert [note.rule for note in notes] == ["template_error"] * 4
    assert "number" in notes[0].detail


@pytest.mark.req("R35")
def test_a_template_that_explodes_costs_the_text_and_not_the_notification():
    made = planned(
        of=kind(
            title="{{ 'a' * 10**9 }}",
            body="{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        )
    )
    assert made.notification.content.title == "t"
    assert len(made.problems) == 2


@pytest.mark.req("R35")
@pytest.mark.parametrize("url", ["javascript:alert(1)", "{{ data.u }}", "https://x y", "x" * 3000])
def test_a_link_that_a_template_makes_is_looked_at_too(url):
    made = planned(event(data={"u": "javascript:alert(1)"}), kind(title="x", url=url))
    assert made.notification.content.url is None
    assert len(made.problems) == 1


@pytest.mark.req("R35")
def test_texts_are_cleaned_and_cut():
    made = planned(
        event(data={"x": "y" * 5000}), kind(title=" a\n\tb {{ '\x00' }}{{ data.x }}", body="{{ data.x * 3 }}")
    )
    content = made.notification.content
    assert content.title.startswith("a b y")
    assert (len(content.title), len(content.body)) == (TITLE_LIMIT, BODY_LIMIT)
    assert content.title.endswith("…")
    msgspec.json.encode(content)


def test_what_nobody_sees_is_not_rendered():
    made = planned(of=kind({"in_app": "never"}, title="{{ nope }}"))
    assert made.problems == ()
    assert made.notification.content.title == "t"


def test_a_title_is_never_missing():
    assert planned(event(type="message"), MESSAGE).notification.content.title == "message"
    assert planned(event(type="message", body="only"), MESSAGE).notification.content.title == ""


def test_texts_that_are_the_same_for_all_are_rendered_once():
    memo = Memo()
    same = kind(title="{{ data.n }}", locales={"ko": Texts(title="{{ recipient.name }}")})
    for id_, locale in (("a", None), ("b", "de"), ("c", "ko")):
        who = User(Profile(id_, name=id_, locale=locale))
        row = planned(event(data={"n": 1}), same, who, named=NamedUser(id_), memo=memo).notification
        assert row.content.title == (id_ if locale == "ko" else "1")
    assert len(memo.rendered) == 1


def test_what_was_decided_for_some_holds_for_nobody_else():
    """Whatever a batch remembers, each plan is the one that is made alone."""
    memo = Memo()
    chosen = [
        parse_preferences(prefer)
        for prefer in (
            {},
            {"muted": {"actors": ["zoe"]}},
            {"categories": {"c": False}},
            {"channels": {"sms": False}},
        )
    ]
    types = [
        kind({"in_app": "always", "email": "unseen"}),
        kind({"sms": "always"}, name="u", throttle=Throttle(limit=1, per_seconds=60)),
    ]
    events = [
        event(),
        event(actor="zoe"),
        event(expires_at_us=NOW - 1),
        event(channels=(Channel.IN_APP,)),
    ]
    people = [
        User(Profile("x", email=email), preferences, suppressed=suppressed, erased_at_us=erased)
        for preferences in chosen
        for email in (None, "a@b.c")
        for suppressed in (frozenset(), frozenset({EMAIL}))
        for erased in (None, NOW)
    ]
    for of in types:
        for one in events:
            for who in people * 2:
                alone = plan(one, of, None, who, NamedUser("x"), env())
                assert plan(one, of, None, who, NamedUser("x"), env(memo=memo)) == alone
    assert 0 < len(memo.decisions) < len(types) * len(events) * len(people)


# ---------------------------------------------------------------- broadcasts


def planned_broadcast(one, of, audience=EVERYONE, category=None, **environment):
    return plan_broadcast(one, of, category, audience, 5, env(**environment))


@pytest.mark.req("R19")
@pytest.mark.req("R16")
def test_a_broadcast_is_rendered_once_for_each_language_of_its_type():
    of = kind(title="Sale {{ data.p }}{{ recipient.name }}", locales={"ko": Texts(title="세일 {{ data.p }}")})
    row = planned_broadcast(event(data={"p": 5}), of)
    assert {locale: content.title for locale, content in row.contents.items()} == {
        "": "Sale 5",
        "ko": "세일 5",
    }
    assert (row.seq, row.in_app, row.default_in_app, row.critical) == (5, True, True, False)
    assert list(planned_broadcast(event(title="Own", body="x"), of).contents) == [""]


def test_a_broadcast_says_what_holds_for_everybody():
    category = CategoryDefinition(defaults={IN_APP: False})
    of = kind({"in_app": "always", "email": "unseen", "sms": "never"}, critical=True)
    row = planned_broadcast(event(), of, category=category, available=frozenset({SMS}))
    assert (row.default_in_app, row.critical) == (False, True)
    assert {r.channel: (r.verdict, r.rule) for r in row.reasons} == {
        IN_APP: ("use", "always"),
        EMAIL: ("refuse", "no_provider"),
        SMS: ("refuse", "never"),
    }


def test_a_broadcast_that_does_not_use_the_app_or_expired():
    assert not planned_broadcast(event(), kind({"email": "always"})).in_app
    assert not planned_broadcast(event(channels=(EMAIL,)), kind()).in_app
    assert not planned_broadcast(event(expires_at_us=NOW), kind()).in_app


def test_parts_of_a_local_broadcast_have_ids_of_their_own():
    parts = [BroadcastAudience(everyone=True, timezones=zones) for zones in (None, ("UTC",), ("Asia/Seoul",))]
    ids = {planned_broadcast(event(), kind(), part).id for part in parts}
    assert len(ids) == 3
    assert planned_broadcast(event(), kind(), parts[0]).id == planned_broadcast(event(), kind(), parts[0]).id


def test_a_broadcasts_broken_template_is_told_with_its_language():
    row = planned_broadcast(event(), kind(title="ok", locales={"ko": Texts(title="{{ nope }}")}))
    notes = [reason.detail for reason in row.reasons if reason.verdict == "note"]
    assert len(notes) == 1
    assert notes[0].startswith("ko: title:")
    assert row.contents["ko"].title == "t"


# ---------------------------------------------------------------- explaining


@pytest.mark.req("R17")
def test_an_explanation_lists_every_rule_not_only_the_first_that_refuses():
    of = kind({"in_app": "always", "email": "unseen"}, throttle=Throttle(3, 60))
    who = person({"channels": {"email": False}, "categories": {"c": False}} | QUIET, email=None)
    said = explain_rules(of, None, who, frozenset(), actor="bob", topic="t")
    assert {one.rule for one in said} <= RULES.keys()
    assert [(one.channel, one.rule, one.allows) for one in said] == [
        (IN_APP, "always", True),
        (IN_APP, "category", False),
        (EMAIL, "unseen", True),
        (EMAIL, "channel", False),
        (EMAIL, "category", False),
        (EMAIL, "no_provider", False),
        (EMAIL, "no_address", False),
        (EMAIL, "throttled", True),
        (EMAIL, "quiet_hours", True),
    ]
    msgspec.json.encode(said)


@pytest.mark.req("R17")
def test_an_explanation_of_a_critical_type_says_what_it_passes():
    said = explain_rules(kind(critical=True), None, person({"categories": {"c": False}}), ALL)
    assert [(one.rule, one.allows) for one in said] == [("always", True), ("critical", True)]
    assert "category" in said[1].detail


def test_every_rule_is_told_in_a_sentence():
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in RULES.values())
