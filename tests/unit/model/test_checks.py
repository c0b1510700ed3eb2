"""Definitions and deliveries: what can be stored, how a delivery moves."""

import msgspec
import pytest

from hub.model.checks import category_errors, type_errors
from hub.model.deliveries import CANCEL_REASONS, MOVES, may_move
from hub.model.rules import RULES
from hub.model.types import MESSAGE, CategoryDefinition, ChannelRule, TypeDefinition
from hub.model.vocabulary import Channel


def of_type(body):
    definition = msgspec.convert({"category": "c"} | body, TypeDefinition)
    return [(error.pointer, error.code) for error in type_errors(definition)]


@pytest.mark.req("R14")
def test_a_whole_definition_can_be_stored():
    definition = {
        "title": "Order {{ data.number }}",
        "url": "/orders/{{ data.number }}",
        "icon": "https://x/y.png",
        "actions": [{"title": "Show", "url": "/orders"}],
        "schema": {"type": "object"},
        "expose": ["number"],
        "channels": {
            "in_app": {},
            "email": {"when": "unseen", "fallback": ["sms"], "subject": "{{ data.number }}"},
        },
        "digest": {"channels": ["email"], "window_seconds": 60},
        "locales": {"ko-KR": {"title": "주문", "channels": {"email": {"subject": "주문"}}}},
    }
    assert of_type(definition) == []
    assert type_errors(MESSAGE.definition) == []


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"title": "{{"}, "/title", "invalid_template"),
        ({"title": "a\x00"}, "/title", "invalid_text"),
        ({"url": "javascript:x"}, "/url", "invalid_url"),
        ({"actions": [{"title": "x", "url": "data:x"}]}, "/actions/0/url", "invalid_url"),
        ({"schema": {"type": 1}}, "/schema", "invalid_schema"),
        ({"expose": ["a\x00"]}, "/expose/0", "invalid_text"),
        ({"channels": {"in_app": {"when": "offline"}}}, "/channels/in_app/when", "invalid_policy"),
        (
            {"channels": {"email": {"fallback": ["sms", "email"]}}},
            "/channels/email/fallback/1",
            "invalid_fallback",
        ),
        ({"channels": {"email": {"fallback": ["in_app"]}}}, "/channels/email/fallback/0", "invalid_fallback"),
        (
            {"channels": {"email": {"fallback": ["sms", "sms"]}}},
            "/channels/email/fallback/1",
            "invalid_fallback",
        ),
        ({"digest": {"channels": ["in_app"], "window_seconds": 1}}, "/digest/channels/0", "invalid_digest"),
        (
            {"digest": {"channels": ["sms"], "window_seconds": 9, "extend": True}},
            "/digest/max_seconds",
            "invalid_digest",
        ),
        (
            {"digest": {"channels": ["sms"], "window_seconds": 9, "max_seconds": 8}},
            "/digest/max_seconds",
            "invalid_digest",
        ),
        ({"locales": {"x_y": {}}}, "/locales/x_y", "invalid_locale"),
        ({"locales": {"a/b": {"title": "{{"}}}, "/locales/a~1b/title", "invalid_template"),
        (
            {"locales": {"ko": {"channels": {"email": {"header": "x"}}}}},
            "/locales/ko/channels/email/header",
            "unknown_field",
        ),
    ],
)
def test_what_cannot_be_stored_is_told_with_its_place(body, pointer, code):
    assert (pointer, code) in of_type(body)


@pytest.mark.req("R14")
@pytest.mark.parametrize("given", [{}, {"channels": {}}])
def test_a_type_that_names_no_channels_is_shown_in_the_app(given):
    made = msgspec.convert({"category": "c", **given}, TypeDefinition)
    assert made == TypeDefinition("c") == TypeDefinition("c", channels={Channel.IN_APP: ChannelRule()})
    assert made.channels == {Channel.IN_APP: ChannelRule("always")}
    stored = msgspec.json.encode(made)
    assert msgspec.json.decode(stored)["channels"] == {"in_app": {}}, "and says so when it is read"
    assert msgspec.json.decode(stored, type=TypeDefinition) == made
    nobody = TypeDefinition("c", channels={Channel.IN_APP: ChannelRule("never")})
    assert msgspec.json.decode(msgspec.json.encode(nobody), type=TypeDefinition) == nobody


def test_a_place_in_a_larger_document():
    definition = TypeDefinition(category="c", title="{{", schema={"type": 1})
    assert [error.pointer for error in type_errors(definition, "/types/t")] == [
        "/types/t/schema",
        "/types/t/title",
    ]


def test_categories_are_checked_too():
    good = {"title": "Orders", "locales": {"ko": {"title": "주문"}}, "defaults": {"sms": False}}
    assert category_errors(msgspec.convert(good, CategoryDefinition)) == []
    bad = {"title": "a\x00", "locales": {"k_o": {"description": "\x00"}}}
    errors = category_errors(msgspec.convert(bad, CategoryDefinition), "/categories/c")
    assert {error.pointer for error in errors} == {
        "/categories/c/title",
        "/categories/c/locales/k_o",
        "/categories/c/locales/k_o/description",
    }


# ---------------------------------------------------------------- deliveries


def test_every_move_leads_to_a_state_and_every_state_can_end():
    final = {state for state, moves in MOVES.items() if not moves}
    assert final == {"delivered", "cancelled", "expired"}
    assert MOVES["dead"] == {"queued"}  # an operator's replay
    for state in MOVES:
        assert MOVES[state] <= MOVES.keys()
        reached = {state}
        while more := {to for one in reached for to in MOVES[one]} - reached:
            reached |= more
        assert reached & final, state


@pytest.mark.parametrize(
    ("state", "to", "allowed"),
    [
        ("held", "queued", True),
        ("queued", "sending", True),
        ("sending", "sent", True),
        ("sent", "delivered", True),
        ("held", "sending", False),
        ("held", "cancelled", True),
        ("sending", "cancelled", False),
        ("sent", "queued", False),
        ("unknown", "queued", True),  # an operator who says that it may arrive twice
        ("delivered", "sent", False),
        ("cancelled", "queued", False),
    ],
)
def test_moves_of_a_delivery(state, to, allowed):
    assert may_move(state, to) is allowed


def test_a_state_that_does_not_exist_is_told_loudly():
    with pytest.raises(KeyError):
        may_move("lost", "queued")
    assert not CANCEL_REASONS & MOVES.keys()
    assert "erased" in RULES
