"""What a push to a phone says: small enough, strings only, one tag for a notification and its repeats."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.model.notifications import Content
from hub.model.outgoing import Target
from hub.model.types import ChannelRule
from hub.model.vocabulary import Channel
from tests.support.outgoing import NOW_US, item_of, outgoing_of
from workers.channels.base import ComposeError
from workers.channels.fcm import addressed
from workers.channels.mobile_push import MobilePush, MobilePushSender, short_tag, trimmed
from workers.channels.texts import clean, line

pytestmark = pytest.mark.req("R7")

PHONE = Target("dev_1", "token-of-the-device", {"platform": "android"})


def composed(*items: object, **more: object) -> MobilePush:
    return MobilePushSender([]).compose(outgoing_of(Channel.MOBILE_PUSH, items, **more))  # type: ignore[arg-type]


def test_a_message_carries_text_ids_and_priority() -> None:
    content = Content(title="Paid", body="Order 7 is paid.", url="/orders/7")
    one = item_of(7, content, priority="high", collapse_key="order-7")
    message = composed(one)
    assert message.content == {
        "notification": {"title": "Paid", "body": "Order 7 is paid."},
        "data": {
            "kind": "notification",
            "notification_id": one.notification_id,
            "event_id": "evt_7",
            "type": "order.paid",
            "category": "orders",
            "url": "/orders/7",
        },
        "android": {
            "priority": "HIGH",
            "collapse_key": "order-7",
            "notification": {"tag": "order-7", "notification_priority": "PRIORITY_HIGH"},
        },
        "apns": {"headers": {"apns-priority": "10", "apns-collapse-id": "order-7"}},
        "webpush": {"headers": {"Urgency": "high"}},
    }


def test_without_a_collapse_key_a_repeat_replaces_itself_and_nothing_else() -> None:
    one, other = item_of(1, priority="low"), item_of(2)
    content = composed(one).content
    assert content["android"]["notification"]["tag"] == one.notification_id
    assert content["apns"]["headers"] == {"apns-priority": "5", "apns-collapse-id": one.notification_id}
    assert "collapse_key" not in content["android"]
    assert content["android"]["priority"] == "NORMAL"
    assert composed(one) == composed(one)
    assert composed(other).content["android"]["notification"]["tag"] != one.notification_id


def test_the_time_that_is_left_is_told_when_it_is_sent() -> None:
    message = composed(expires_at_us=NOW_US + 90_000_000)
    sent = addressed(message.content, PHONE, message.expires_at_us, NOW_US + 30_000_000)
    assert sent["token"] == "token-of-the-device"
    assert sent["android"]["ttl"] == "60s"
    assert sent["apns"]["headers"]["apns-expiration"] == str(NOW_US // 1_000_000 + 90)
    assert sent["webpush"]["headers"]["TTL"] == "60"
    assert addressed(message.content, PHONE, message.expires_at_us, NOW_US * 2)["android"]["ttl"] == "0s"
    assert addressed(message.content, PHONE, NOW_US * 2, NOW_US)["android"]["ttl"] == "2419200s"
    assert "ttl" not in addressed(message.content, PHONE, None, NOW_US)["android"]
    assert "ttl" not in message.content["android"]  # the message is shared by all devices


def test_templates_and_digests() -> None:
    rule = ChannelRule(subject="{{ count }} orders\r\n", text="Newest: {{ data.number }}")
    items = [item_of(number, data={"number": number}) for number in (1, 2, 3)]
    assert composed(*items, rule=rule).content["notification"] == {"title": "3 orders", "body": "Newest: 3"}
    listed = composed(*items).content["notification"]
    assert listed["title"] == "order.paid (3)"
    assert listed["body"].splitlines()[0] == "- Order 3 is paid"
    with pytest.raises(ComposeError):
        composed(rule=ChannelRule(subject="{{ nothing.at.all }}"))
    with pytest.raises(ComposeError, match="empty"):
        composed(rule=ChannelRule(subject=" ", text="\x07"))


@given(
    title=st.text(max_size=1500),
    body=st.text(max_size=3000) | st.sampled_from(["👩‍👩‍👧‍👦" * 400, '"\\' * 4000, "ж" * 9000, "a" * 10_000]),
    url=st.none()
    | st.sampled_from(["/x", "https://example.com/" + "y" * 2000, "https://example.com/" + "é" * 2000]),
    key=st.none() | st.text(min_size=1, max_size=255),
)
def test_every_message_fits(title: str, body: str, url: str | None, key: str | None) -> None:
    one = item_of(1, Content(title=title, body=body, url=url), collapse_key=key)
    if not line(title) and not clean(body):
        with pytest.raises(ComposeError, match="empty"):
            composed(one)
        return
    message = composed(one)
    content = message.content
    assert len(msgspec.json.encode(content)) <= 4096
    assert all(isinstance(value, str) for value in content["data"].values())
    assert len(content["apns"]["headers"]["apns-collapse-id"].encode()) <= 64
    assert content["data"]["notification_id"]
    shown = content["notification"]["body"]
    shown.encode()
    if len(body) > 6000:
        assert shown.endswith("…")


@given(st.text(max_size=300), st.integers(0, 400))
def test_a_trimmed_text_takes_no_more_room_than_it_has(text: str, room: int) -> None:
    text = text.encode("utf-8", "ignore").decode()
    cut = trimmed(text, room)
    assert len(msgspec.json.encode(cut)) - 2 <= room
    assert cut == text or text.startswith(cut.removesuffix("…").rstrip())


def test_tags() -> None:
    assert short_tag("a" * 64) == "a" * 64
    long = short_tag("a" * 65)
    assert (len(long), long) == (64, short_tag("a" * 65))
    assert short_tag("주문") != short_tag("주문들")
    assert short_tag("a\nb").isalnum()
