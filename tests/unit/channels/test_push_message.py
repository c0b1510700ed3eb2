"""What a web push says: small enough for every service, whatever the type's texts and the user's language."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model.deliveries import Delivery
from hub.model.events import Action, Event
from hub.model.notifications import Content
from hub.model.outgoing import Item, Outgoing
from hub.model.types import CategoryDefinition, CategoryTexts, ChannelRule, Texts, TypeDefinition, TypeVersion
from hub.model.users import Profile, User
from hub.model.vocabulary import Channel
from workers.channels.base import ComposeError
from workers.channels.push_message import PLAINTEXT_LIMIT_BYTES, compose_push, fit, topic_of

pytestmark = pytest.mark.req("R7")
NOW_US = 1_767_614_400_000_000
RECEIPT = "https://hub.example.com/v1/push/receipts/" + "x" * 400


def outgoing(
    *contents: Content,
    definition: TypeDefinition | None = None,
    category: CategoryDefinition | None = None,
    locale: str | None = None,
    **event: Any,
) -> Outgoing:
    made = Event("evt_1", "order.paid", NOW_US, "http:key", 1, **event)
    items = tuple(
        Item(f"ntf_{number}", content, made, NOW_US + number)
        for number, content in enumerate(contents or (Content("Paid", "Order 17"),))
    )
    delivery = Delivery(
        "dlv_1", "alice", items[-1].notification_id, "evt_1", "order.paid", "orders", Channel.WEB_PUSH, "sending",
        NOW_US, NOW_US, expires_at_us=event.get("expires_at_us"),
    )  # fmt: skip
    kind = TypeVersion("order.paid", 1, definition or TypeDefinition(category="orders"))
    user = User(Profile("alice", locale=locale))
    return Outgoing(delivery, user, kind, category, items, (), {"receipt": RECEIPT})


def shown(one: Outgoing) -> dict[str, Any]:
    payload = json.loads(compose_push(one).payload)
    assert payload["v"] == 1
    assert payload["receipt"] == RECEIPT
    found: dict[str, Any] = payload["notification"]
    return found


def test_it_shows_what_the_app_shows() -> None:
    content = Content("Paid", "Order 17", "/orders/17", "/i.png", (Action("Track", "/t"),), {"number": 17})
    assert shown(outgoing(content)) == {
        "id": "ntf_0",
        "title": "Paid",
        "body": "Order 17",
        "tag": "ntf_0",
        "type": "order.paid",
        "category": "orders",
        "created_at": "2026-01-05T12:00:00.000Z",
        "url": "/orders/17",
        "icon": "/i.png",
        "actions": [{"title": "Track", "url": "/t"}],
        "data": {"number": 17},
    }
    assert shown(outgoing(Content("", "only a body")))["title"] == "order.paid"
    assert shown(outgoing(Content("x", actor_avatar="/bob.png")))["icon"] == "/bob.png"
    assert shown(outgoing(Content("gpj.\u202eexe\x07", "a\r\nb\x00")))["title"] == "gpj.exe"


def test_topic_and_tag_follow_the_collapse_key_else_the_delivery() -> None:
    first, second = (
        compose_push(outgoing(collapse_key="k")),
        compose_push(outgoing(Content("y"), collapse_key="k")),
    )
    assert first.topic == second.topic == shown(outgoing(collapse_key="k"))["tag"]
    assert shown(outgoing(collapse_key="k"))["renotify"] is True
    assert compose_push(outgoing(collapse_key="other")).topic != first.topic
    assert compose_push(outgoing()).topic == topic_of("dlv_1"), "a repeat replaces what still waits"


@given(st.text(max_size=300))
def test_a_topic_is_what_push_services_take(text: str) -> None:
    topic = topic_of(text)
    assert len(topic) == 32
    assert set(topic) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize(("priority", "critical", "urgency"), [
    ("low", False, "low"), ("normal", False, "normal"), ("high", False, "high"), ("low", True, "high"),
])  # fmt: skip
def test_urgency_follows_priority_and_what_is_critical_is_urgent(
    priority: Any, critical: bool, urgency: str
) -> None:
    definition = TypeDefinition(category="orders", critical=critical)
    assert compose_push(outgoing(definition=definition, priority=priority)).urgency == urgency


def test_the_channels_own_texts_count_in_the_users_language() -> None:
    rule = ChannelRule(subject="Order\n{{ data.number }}", text="{{ count }} paid")
    ko = Texts(channels={Channel.WEB_PUSH: {"subject": "주문 {{ data.number }}"}})
    definition = TypeDefinition(category="orders", channels={Channel.WEB_PUSH: rule}, locales={"ko": ko})
    assert shown(outgoing(definition=definition, data={"number": 17}))["title"] == "Order 17"
    there = shown(outgoing(definition=definition, data={"number": 17}, locale="ko-KR"))
    assert (there["title"], there["body"]) == ("주문 17", "1 paid")
    with pytest.raises(ComposeError, match=r"subject template of type .order\.paid. failed"):
        compose_push(outgoing(definition=definition, data={}))


def test_a_digest_says_what_and_how_many_and_lists_the_newest_first() -> None:
    contents = [Content(f"n{number}", actions=(Action("x", "/x"),)) for number in range(7)]
    one = shown(outgoing(*contents))
    assert one["title"] == "order.paid (7)"
    assert one["body"].split("\n") == ["- n6", "- n5", "- n4", "- n3", "- n2", "+2"]
    assert "actions" not in one
    assert one["id"] == "ntf_6"
    category = CategoryDefinition(title="Orders", locales={"ko": CategoryTexts(title="주문")})
    assert shown(outgoing(*contents[:2], category=category))["title"] == "Orders (2)"
    assert shown(outgoing(*contents[:2], category=category, locale="ko"))["title"] == "주문 (2)"


# ---------------------------------------------------------------- what fits


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40).map(lambda text: text * 60)


@given(TEXT, TEXT, st.dictionaries(st.text(max_size=10), TEXT, max_size=3), st.integers(0, 10))
def test_whatever_it_says_it_fits_and_keeps_id_and_receipt(
    title: str, body: str, data: dict[str, str], actions: int
) -> None:
    notification = {
        "id": "ntf_1", "title": title[:1000], "body": body, "tag": "t", "url": "/" + body[:2000], "icon": body[:2000],
        "actions": [{"title": title[:200], "url": "/x"}] * actions, "data": data,
    }  # fmt: skip
    payload = fit(notification, RECEIPT)
    assert len(payload) <= PLAINTEXT_LIMIT_BYTES
    made = json.loads(payload)
    assert made["receipt"] == RECEIPT
    assert made["notification"]["id"] == "ntf_1"
    kept = made["notification"]["body"]
    assert kept == body or (kept == "" and len(body) > 0) or body.startswith(kept.removesuffix("…").rstrip())


def test_the_body_is_cut_first_then_data_then_buttons() -> None:
    base = {"id": "n", "title": "t", "body": "ü" * 5000, "url": "/u"}
    long_body = json.loads(fit({**base, "data": {"x": 1}, "actions": [{"title": "a", "url": "/a"}]}, RECEIPT))
    assert long_body["notification"]["data"] == {"x": 1}
    assert long_body["notification"]["actions"]
    assert long_body["notification"]["body"].endswith("ü…")
    assert len(fit(base, RECEIPT)) >= PLAINTEXT_LIMIT_BYTES - 3, "as much of it as there is room for"

    long_data = json.loads(
        fit({**base, "data": {"x": "y" * 4000}, "actions": [{"title": "a", "url": "/a"}]}, RECEIPT)
    )
    assert "data" not in long_data["notification"]
    assert long_data["notification"]["actions"]
    assert len(long_data["notification"]["body"]) > 1000, "what data leaves free is the body's again"

    long_actions = json.loads(
        fit({**base, "actions": [{"title": "a" * 200, "url": "/" + "b" * 2000}] * 3}, RECEIPT)
    )
    assert "actions" not in long_actions["notification"]
    assert long_actions["notification"]["url"] == "/u"


def test_what_cannot_be_made_to_fit_is_said() -> None:
    with pytest.raises(ComposeError, match="does not fit"):
        fit({"id": "n" * 4000, "title": "t", "body": ""}, RECEIPT)
