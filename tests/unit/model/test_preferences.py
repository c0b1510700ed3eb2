"""Preferences: every rule of them, the grid of switches, and how they are changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import Refused
from hub.model.preferences import (
    PREFERENCES_LIMIT_BYTES,
    Cause,
    allows,
    grid,
    judge,
    locale_chain,
    merge_patch,
    parse_preferences,
    patch_preferences,
    pick_locale,
)
from hub.model.rules import RULES
from hub.model.types import CategoryDefinition, CategoryTexts, ChannelRule, TypeDefinition, TypeVersion
from hub.model.users import Preferences
from hub.model.vocabulary import Channel

IN_APP, EMAIL, SMS, PUSH = Channel.IN_APP, Channel.EMAIL, Channel.SMS, Channel.WEB_PUSH


def decide(document, channel=EMAIL, defaults=None, category="orders", **cause):
    verdict = allows(parse_preferences(document), category, defaults or {}, channel, **cause)
    assert verdict.rule in RULES
    return verdict.allowed, verdict.rule


@pytest.mark.req("R11")
@pytest.mark.parametrize(
    ("document", "defaults", "expected"),
    [
        ({}, {}, (True, "allowed")),
        ({}, {EMAIL: False}, (False, "category_default")),
        ({}, {EMAIL: True, SMS: False}, (True, "allowed")),
        ({"channels": {"email": False}}, {}, (False, "channel")),
        ({"channels": {"email": True}}, {EMAIL: False}, (False, "category_default")),
        ({"channels": {"sms": False}}, {}, (True, "allowed")),
        ({"categories": {"orders": False}}, {}, (False, "category")),
        ({"categories": {"orders": True}}, {EMAIL: False}, (False, "category_default")),
        ({"categories": {"other": False}}, {}, (True, "allowed")),
        ({"categories": {"orders": {"email": False}}}, {}, (False, "category_channel")),
        ({"categories": {"orders": {"email": True}}}, {EMAIL: False}, (True, "allowed")),
        ({"categories": {"orders": {"sms": True}}}, {EMAIL: False}, (False, "category_default")),
        ({"channels": {"email": False}, "categories": {"orders": {"email": True}}}, {}, (False, "channel")),
    ],
)
def test_channels_and_categories(document, defaults, expected):
    assert decide(document, EMAIL, defaults) == expected


@pytest.mark.req("R11")
def test_push_only_when_push_only_was_chosen():
    chosen = {
        "channels": {"in_app": False, "email": False, "sms": False, "mobile_push": False, "web_push": True}
    }
    assert [channel for channel in Channel if decide(chosen, channel)[0]] == [PUSH]


@pytest.mark.req("R12")
@pytest.mark.parametrize(
    ("document", "cause", "expected"),
    [
        ({"muted": {"actors": ["bob"]}}, {"actor": "bob"}, (False, "muted_actor")),
        ({"muted": {"actors": ["bob"]}}, {"actor": "carol"}, (True, "allowed")),
        ({"muted": {"actors": ["bob"]}}, {}, (True, "allowed")),
        ({"muted": {"topics": ["t"]}}, {"topic": "t"}, (False, "muted_topic")),
        ({"muted": {"topics": ["t"]}}, {"topic": "u"}, (True, "allowed")),
        ({"muted": {"topics": ["t"]}}, {}, (True, "allowed")),
        ({"only": {"categories": {"orders": {"actors": ["carol"]}}}}, {"actor": "carol"}, (True, "allowed")),
        (
            {"only": {"categories": {"orders": {"actors": ["carol"]}}}},
            {"actor": "bob"},
            (False, "only_actors"),
        ),
        ({"only": {"categories": {"orders": {"actors": ["carol"]}}}}, {}, (False, "only_actors")),
        ({"only": {"categories": {"orders": {"actors": []}}}}, {"actor": "bob"}, (False, "only_actors")),
        ({"only": {"categories": {"other": {"actors": ["carol"]}}}}, {"actor": "bob"}, (True, "allowed")),
        ({"only": {"categories": {"orders": {}}}}, {"actor": "bob"}, (True, "allowed")),
        ({"only": {"categories": {"orders": {"topics": ["t"]}}}}, {"topic": "t"}, (True, "allowed")),
        ({"only": {"categories": {"orders": {"topics": ["t"]}}}}, {"topic": "u"}, (False, "only_topics")),
        ({"only": {"categories": {"orders": {"topics": ["t"]}}}}, {}, (False, "only_topics")),
        (
            {"only": {"categories": {"orders": {"actors": ["carol"], "topics": ["t"]}}}},
            {"actor": "carol", "topic": "u"},
            (False, "only_topics"),
        ),
        (
            {"only": {"categories": {"orders": {"actors": ["bob"]}}}, "muted": {"actors": ["bob"]}},
            {"actor": "bob"},
            (False, "muted_actor"),
        ),
    ],
)
def test_who_and_where(document, cause, expected):
    assert decide(document, **cause) == expected


@pytest.mark.req("R12")
def test_one_friends_posts_or_everyones():
    one_friend = {"only": {"categories": {"posts": {"actors": ["carol"]}}}}
    assert decide(one_friend, IN_APP, category="posts", actor="carol")[0]
    assert not decide(one_friend, IN_APP, category="posts", actor="dave")[0]
    assert decide({}, IN_APP, category="posts", actor="dave")[0]
    assert decide(one_friend, IN_APP, category="comments", actor="dave")[0]


@pytest.mark.req("R13")
@pytest.mark.parametrize(
    "document",
    [
        {"channels": {"email": False}},
        {"categories": {"orders": False}},
        {"categories": {"orders": {"email": False}}},
        {"muted": {"actors": ["bob"], "topics": ["t"]}},
        {"only": {"categories": {"orders": {"actors": [], "topics": []}}}},
    ],
)
def test_what_is_critical_passes_every_rule(document):
    assert decide(document, actor="bob", topic="t", critical=True) == (True, "critical")
    assert not decide(document, actor="bob", topic="t")[0]


def test_what_is_critical_and_allowed_needs_no_exception():
    assert decide({}, critical=True) == (True, "allowed")


@pytest.mark.req("R17")
def test_every_rule_that_applies_is_listed():
    document = {
        "channels": {"email": False},
        "categories": {"orders": {"email": False}},
        "muted": {"actors": ["bob"], "topics": ["t"]},
        "only": {"categories": {"orders": {"actors": [], "topics": []}}},
    }
    verdicts = list(judge(parse_preferences(document), "orders", {}, EMAIL, Cause("bob", "t")))
    rules = ["channel", "category_channel", "muted_actor", "muted_topic", "only_actors", "only_topics"]
    assert [verdict.rule for verdict in verdicts] == rules
    assert not any(verdict.allowed for verdict in verdicts)
    assert all(verdict.detail.endswith(".") for verdict in verdicts)


# ---------------------------------------------------------------- the grid


def type_of(category, *, critical=False, **channels):
    rules = {Channel(name): ChannelRule(when=when) for name, when in channels.items()}
    return TypeVersion(
        category + ".x", 1, TypeDefinition(category=category, critical=critical, channels=rules)
    )


CATEGORIES = {
    "orders": CategoryDefinition(
        title="Orders", locales={"ko": CategoryTexts(title="주문"), "ko-KR": CategoryTexts(description="상세")},
        defaults={SMS: False},
    ),
    "security": CategoryDefinition(title="Security"),
    "internal": CategoryDefinition(hidden=True),
}  # fmt: skip
TYPES = [
    type_of("orders", in_app="always", email="unseen", sms="offline"),
    type_of("security", critical=True, in_app="always", email="always"),
    type_of("internal", in_app="always"),
    type_of("untold", in_app="always", email="never"),
]


def rows(document, locale=None, available=frozenset({EMAIL, SMS})):
    found = grid(parse_preferences(document), CATEGORIES, TYPES, available, locale)
    return {row.category: row for row in found}


@pytest.mark.req("R11")
def test_the_grid_shows_what_holds_for_each_category_and_channel():
    table = rows({"categories": {"orders": {"email": False}}})
    assert list(table) == ["orders", "security", "untold"]
    cells = table["orders"].channels
    assert (cells[EMAIL].allowed, cells[EMAIL].default, cells[EMAIL].available) == (False, True, True)
    assert (cells[SMS].allowed, cells[SMS].default, cells[SMS].available) == (False, False, True)
    assert (cells[IN_APP].allowed, cells[IN_APP].available) == (True, True)
    assert not cells[PUSH].available
    assert not table["untold"].channels[EMAIL].available
    assert not rows({}, available=frozenset())["orders"].channels[EMAIL].available


def test_a_category_of_critical_types_alone_is_locked():
    table = rows({"categories": {"security": False}, "channels": {"email": False}})
    assert all(cell.locked and cell.allowed for cell in table["security"].channels.values())
    assert not any(cell.locked for cell in table["orders"].channels.values())


@pytest.mark.parametrize(
    ("locale", "title", "description"),
    [
        (None, "Orders", None),
        ("ko", "주문", None),
        ("ko-KR", "주문", "상세"),
        ("KO-kr", "주문", "상세"),
        ("de", "Orders", None),
    ],
)
def test_the_grid_speaks_the_users_language(locale, title, description):
    row = rows({}, locale)["orders"]
    assert (row.title, row.description) == (title, description)


def test_a_category_that_nobody_described_has_its_name():
    assert rows({})["untold"].title == "untold"


@pytest.mark.req("R16")
@pytest.mark.parametrize(
    ("known", "locale", "picked"),
    [
        (["", "ko", "ko-KR"], "ko-KR", "ko-KR"),
        (["", "ko"], "ko-KR", "ko"),
        (["", "ko"], "KO-kr", "ko"),
        (["", "ko-KR"], "ko", ""),
        (["", "zh-Hant"], "zh-Hant-TW", "zh-Hant"),
        (["", "en"], "ko", ""),
        (["", "en"], None, ""),
        (["", "en"], "", ""),
        ([], "en", ""),
    ],
)
def test_the_closest_locale_is_picked(known, locale, picked):
    assert pick_locale(known, locale) == picked
    assert "" not in locale_chain(known, locale)


# ---------------------------------------------------------------- changing


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_as_the_rfc_says(target, patch, result):
    assert merge_patch(target, patch) == result


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)


@given(JSON, JSON)
def test_merging_the_same_patch_again_changes_nothing(target, patch):
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once


def test_a_patch_switches_one_thing_and_keeps_the_rest():
    before = parse_preferences({"channels": {"email": False}, "muted": {"actors": ["bob"]}})
    after = patch_preferences(
        before, {"channels": {"email": None, "sms": False}, "categories": {"orders": False}}
    )
    assert after == parse_preferences(
        {"channels": {"sms": False}, "muted": {"actors": ["bob"]}, "categories": {"orders": False}}
    )
    assert (
        patch_preferences(after, {"quiet_hours": {"start": "22:00", "end": "07:00"}}).quiet_hours.start
        == "22:00"
    )
    assert patch_preferences(before, {"channels": None, "muted": None}) == Preferences()


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"channels": {"fax": True}}, "/channels"),
        ({"channels": {"email": "yes"}}, "/channels"),
        ({"nonsense": 1}, ""),
        ({"quiet_hours": {"start": "25:00", "end": "07:00"}}, "/quiet_hours/start"),
        ({"quiet_hours": {"start": "22:00", "end": "07:00\n"}}, "/quiet_hours/end"),
        ({"quiet_hours": {"start": "22:00"}}, "/quiet_hours"),
        ({"muted": {"actors": ["a b"]}}, "/muted/actors"),
        ({"muted": {"actors": "bob"}}, "/muted/actors"),
        ({"categories": {"a/b": False}}, "/categories"),
        ({"categories": {"orders": 1}}, "/categories"),
        ([], ""),
        (None, ""),
        ({"categories": {f"c{number}": {"email": False} for number in range(2000)}}, ""),
    ],
)
def test_what_are_no_preferences(document, pointer):
    with pytest.raises(Refused) as caught:
        parse_preferences(document)
    assert (caught.value.status, caught.value.code) == (422, "invalid_preferences")
    assert [error.pointer for error in caught.value.errors] == [pointer]


def test_preferences_have_a_size():
    assert PREFERENCES_LIMIT_BYTES == 16_384
    parse_preferences({"muted": {"actors": [f"user-{number}" for number in range(1000)]}})
