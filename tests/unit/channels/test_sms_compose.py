"""What an SMS says, and which numbers get one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import ConfigError
from hub.model.notifications import Content
from hub.model.outcomes import GiveUp
from hub.model.outgoing import Target
from hub.model.sms import segments
from hub.model.types import CategoryDefinition, CategoryTexts, ChannelRule, Texts
from hub.model.vocabulary import Channel
from hub.provider_urls import parse_providers
from tests.support.clock import FakeClock
from tests.support.outgoing import item_of, outgoing_of
from workers.channels.base import ComposeError
from workers.channels.sms import Sms, SmsSender, number_problem, sms_sender
from workers.channels.texts import clean, line

pytestmark = pytest.mark.req("R7")


def text_of(*items: object, **more: object) -> str:
    return SmsSender([]).compose(outgoing_of(Channel.SMS, items, **more)).text  # type: ignore[arg-type]


def shown(**content: object) -> object:
    return item_of(content=Content(**content))  # type: ignore[arg-type]


def test_title_body_and_address_in_one_text() -> None:
    one = shown(title="Paid", body="Order 7 is paid.", url="https://shop.example/orders/7")
    assert text_of(one) == "Paid\nOrder 7 is paid.\nhttps://shop.example/orders/7"
    assert text_of(shown(title="Paid")) == "Paid"
    assert text_of(shown(body="Order 7 is paid.")) == "Order 7 is paid."


def test_a_relative_address_leads_nowhere_from_a_phone() -> None:
    assert text_of(shown(title="Paid", url="/orders/7")) == "Paid"


def test_the_template_of_the_channel_goes_first_in_the_users_language() -> None:
    rule = ChannelRule(text="Hi {{ recipient.name }}: {{ data.number }}")
    locales = {"ko": Texts(channels={Channel.SMS: {"text": "{{ data.number }}번 주문"}})}
    one = item_of(data={"number": 7})
    assert text_of(one, rule=rule, locales=locales) == "Hi Alice: 7"
    assert text_of(one, rule=rule, locales=locales, locale="ko-KR") == "7번 주문"


def test_a_digest_lists_its_titles_the_newest_first() -> None:
    items = [item_of(number) for number in range(1, 8)]
    category = CategoryDefinition(title="Orders", locales={"ko": CategoryTexts(title="주문")})
    lines = text_of(*items, category=category).splitlines()
    assert lines == [
        "Orders (7)",
        *(f"- Order {number} is paid" for number in (7, 6, 5, 4, 3)),
        "+2",
    ]
    assert text_of(*items, category=category, locale="ko").startswith("주문 (7)\n")
    assert text_of(*items).startswith("order.paid (7)\n")


def test_a_long_body_is_cut_and_the_address_stays() -> None:
    one = shown(title="Paid", body="word " * 1000, url="https://shop.example/orders/7")
    text = text_of(one)
    assert segments(text).count == 10
    assert text.startswith("Paid\nword ")
    assert text.endswith("...\nhttps://shop.example/orders/7")
    assert segments(text_of(rule=ChannelRule(text="ж" * 5000))).count == 10


def test_controls_and_turned_texts_are_cleaned() -> None:
    one = shown(title="Pa\x00id\r\nnow", body="a\x1bb\r\nc\td\u202egpj.exe\x85e\u2028f\ud83d")
    assert text_of(one) == "Paid now\nab\nc dgpj.exe\ne\nf"
    two = item_of(data={"text": "x\x07\r\ny"})
    assert text_of(two, rule=ChannelRule(text="{{ data.text }}")) == "x\ny"


@given(st.text())
def test_what_is_clean_has_no_controls_but_line_breaks(text: str) -> None:
    found = clean(text)
    assert not {one for one in found if ord(one) < 32 or 127 <= ord(one) < 160} - {"\n"}
    assert clean(found) == found
    assert "\n" not in line(text)
    found.encode()


def test_nothing_to_say_and_broken_templates_are_told() -> None:
    with pytest.raises(ComposeError, match="came out empty"):
        text_of(item_of(data={"x": False}), rule=ChannelRule(text="{% if data.x %}x{% endif %}"))
    with pytest.raises(ComposeError, match=r"text template of type 'order\.paid' failed"):
        text_of(rule=ChannelRule(text="{{ data.missing.deeper }}"))


@pytest.mark.parametrize("number", ["+821012345678", "+4915112345678", "+15005550006", "+10000000000"])
def test_possible_numbers_pass_also_where_nobody_has_them_yet(number: str) -> None:
    assert number_problem(number) is None


@pytest.mark.parametrize(
    "number", ["+1234567", "+999123456789", "+49", "821012345678", "", "+82abc", "tel:+8210"]
)
async def test_impossible_numbers_are_never_asked_for(number: str) -> None:
    urls = parse_providers(Channel.SMS, "twilio+http://AC1:secret@127.0.0.1:1?from=+15005550006")
    [provider] = sms_sender(urls, "http://127.0.0.1:8000", FakeClock()).providers
    outcome = await provider.send(Sms("x"), Target(number, number))
    assert isinstance(outcome, GiveUp)
    assert (outcome.code, outcome.target_is_gone) == ("invalid_number", True)
    assert outcome.detail.startswith("The number ")
    assert not number or number not in outcome.detail
    await provider.close()


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("apprise+smseagel://tok3n@127.0.0.1/", "does not accept the apprise+smseagel:// address"),
        ("apprise+twilio://tok3n", "does not accept the apprise+twilio:// address"),
        ("apprise+json://tok3n@localhost/", "sends to no phone number"),
        ("apprise+smseagle://tok3n@127.0.0.1/+4915112345678", "must name no recipient"),
        ("apprise+smseagle://tok3n@127.0.0.1/?retry=2", "takes no retry="),
        ("apprise+smseagle://tok3n@127.0.0.1/?optional=yes", "takes no retry="),
    ],
)
def test_what_apprise_cannot_use_stops_the_start(address: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match="CLARION_SMS_PROVIDERS: ") as refused:
        sms_sender(parse_providers(Channel.SMS, address), "https://hub.example", FakeClock())
    assert sentence in str(refused.value)
    assert "tok3n" not in str(refused.value)
