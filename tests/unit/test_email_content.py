"""What e-mails say: both parts, templates, MJML, digests, previews, bounds, and the text of any HTML."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.errors import TemplateError
from hub.model.contents import channel_texts
from hub.model.events import Action
from hub.model.mjml import TAG_LIMIT, compile_mjml
from hub.model.notifications import Content
from hub.model.templates import compile_check
from hub.model.types import ChannelRule, Texts, TypeDefinition, TypeVersion
from hub.model.vocabulary import Channel
from tests.support.mail_outgoing import (
    compose,
    item,
    outgoing,
    parse,
    parsed,
    part,
)
from workers.channels.base import ComposeError
from workers.channels.email import SIZE_LIMIT_BYTES, EmailSender, email_sender
from workers.channels.mail_text import TEXT_LIMIT, html_of, text_of

MJML = """<mjml><mj-body><mj-section><mj-column>
<mj-text>Order {{ data["number"] }} {% if count < 2 %}alone{% endif %}</mj-text>
{% for one in items %}<mj-text>item {{ one.number }}</mj-text>{% endfor %}
<mj-button href="{{ urls["preferences"] }}">Go</mj-button>
</mj-column></mj-section></mj-body></mjml>"""

# ---------------------------------------------------------------- what it says


@pytest.mark.req("R16")
def test_without_templates_the_app_s_own_words_are_shown() -> None:
    content = Content(
        "Order <7> & co",
        "Thank you.\n\nIt ships\ntomorrow.",
        "https://shop.example.com/?a=1&b=2",
        actions=(Action("Track", "https://track.example.com/7"), Action("Nowhere", "/relative")),
    )
    message = parsed(outgoing(item(content)))
    text, html = part(message, "plain"), part(message, "html")
    for word in ("Order <7> & co", "It ships\ntomorrow.", content.url, "Track: https://track.example.com/7"):
        assert str(word) in text
    assert "Unsubscribe: https://hub.example.com/unsubscribe/" in text
    assert "Notification settings: https://hub.example.com/preferences" in text
    assert "/relative" not in text + html
    assert '<html lang="en">' in html
    assert "<h1" in html
    assert "Order &lt;7&gt; &amp; co</h1>" in html
    assert 'href="https://shop.example.com/?a=1&amp;b=2"' in html
    assert "It ships<br>tomorrow." in html
    assert ">Track</a>" in html
    assert re.search(r"display:none[^>]*>Thank you\. It ships tomorrow\.</div>", html), "the preview text"
    assert "<script" not in html
    assert "background-color:#fff" not in html.replace("#ffffff", ""), (
        "nothing that dark mode would turn over"
    )


@pytest.mark.req("R16")
@pytest.mark.parametrize(
    ("locale", "lang", "word"),
    [("ko-KR", "ko", "수신 거부"), ("de", "de", "Abbestellen"), ("fr", "en", "Unsubscribe")],
)
def test_the_message_is_in_the_recipient_s_language(locale: str, lang: str, word: str) -> None:
    definition = TypeDefinition(
        "orders", title="paid", locales={"ko": Texts(title="결제"), "de": Texts(title="bezahlt")}
    )
    message = parsed(outgoing(locale=locale, definition=definition))
    assert f'<html lang="{lang}">' in part(message, "html")
    assert word in part(message, "plain")


@pytest.mark.req("R18")
def test_a_digest_lists_its_items_oldest_first_with_their_number() -> None:
    items = [item(Content(f"Title {n}", f"Body {n}", f"https://x.example/{n}"), n) for n in range(1, 4)]
    message = parsed(outgoing(*items))
    assert message["Subject"] == "3 notifications: Title 3"
    for kind in ("plain", "html"):
        text = part(message, kind)
        places = [text.rindex(f"Title {n}") for n in (1, 2, 3)]
        assert places == sorted(places)
        assert "3 notifications" in text
        assert "Body 2" in text
        assert "https://x.example/1" in text
    own = outgoing(
        *items,
        texts={"subject": "{{ count }} new", "text": "{% for i in items %}{{ i.number }} {% endfor %}"},
    )
    assert parsed(own)["Subject"] == "3 new"
    assert part(parsed(own), "plain").strip() == "1 2 3"


@pytest.mark.req("R18", "R35")
def test_a_digest_of_very_many_is_bounded() -> None:
    items = [item(Content(f"Title {n}", "body " * 2_000), n) for n in range(1, 1001)]
    mail = compose(outgoing(*items))
    assert len(mail.content) < SIZE_LIMIT_BYTES // 2
    text = part(parse(mail.content), "plain")
    assert "Title 100" in text
    assert "Title 101\n" not in text
    assert "and 900 more" in text


# ---------------------------------------------------------------- templates


@pytest.mark.req("R16")
def test_templates_of_the_type_are_used() -> None:
    texts = {
        "subject": "No. {{ data.number }}",
        "html": "<p>Hi {{ recipient.name }}</p>",
        "text": "Hi {{ recipient.name }}",
    }
    message = parsed(outgoing(name="<Bob>", texts=texts))
    assert message["Subject"] == "No. 1"
    assert part(message, "plain").strip() == "Hi <Bob>"
    html = part(message, "html")
    assert "<p>Hi &lt;Bob&gt;</p>" in html
    assert html.startswith("<!doctype html>"), "a fragment becomes a document"
    assert '<html lang="en">' in html


def test_a_subject_that_comes_out_empty_is_replaced() -> None:
    assert parsed(outgoing(texts={"subject": "{{ '' }}"}))["Subject"] == "Order 7 is paid"


def test_html_alone_gets_its_text_and_text_alone_its_html() -> None:
    html = (
        "<html><head><title>no</title><style>p{}</style></head><body><h1>Paid</h1><p>See   <a href='https://x.example/1'>the"
        "\n order</a> &amp; more<br>now</p><ul><li>one</li><li>two</li></ul><div style='display:none'>hidden</div>"
        "<table><tr><td>a</td><td>b</td></tr></table><script>evil()</script><img alt='logo' src='x'></body></html>"
    )
    message = parsed(outgoing(texts={"html": html}))
    text = part(message, "plain")
    assert text.split("\n") == [
        "Paid", "", "See the order (https://x.example/1) & more", "now", "", "- one", "- two", "", "a b", "", "logo", "",
    ]  # fmt: skip
    message = parsed(outgoing(texts={"text": "Hello <b>\n\nsee https://x.example/?a=1&b=2."}))
    shown = part(message, "html")
    assert "Hello &lt;b&gt;" in shown
    assert '<a href="https://x.example/?a=1&amp;b=2">' in shown
    assert "Unsubscribe</a>" in shown


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "piece",
    [
        "<!--",
        "<a ",
        "<p style='",
        '<p ">',
        "&#",
        "<![CDATA[",
        "</",
        "<div>",
        "<",
        "<a href='x'>",
        "<?",
        "<body",
        "a=",
        "<td",
    ],
)
def test_no_html_takes_long_to_read(piece: str) -> None:
    for html in (piece * (65_000 // len(piece)), piece * (60_000 // len(piece)) + ">\"'>words"):
        text = text_of(html)
        assert len(text) <= TEXT_LIMIT + 1
        assert html_of(text)
        assert compose(outgoing(texts={"html": html})).content
        for broken in (f"<mjml>{html}", html.replace(piece, "{{")):
            with pytest.raises(TemplateError):
                compile_mjml(broken[:65_000])


@settings(deadline=None)
@given(st.text(alphabet="<>/!-a'\"= \n&;bdivp", max_size=300))
def test_any_html_has_a_text(html: str) -> None:
    text = text_of(html)
    assert text.endswith("\n")
    assert "\n\n\n" not in text


def test_a_preview_is_added_where_there_is_none() -> None:
    bare = "<html><body class='x'><p>words</p></body></html>"
    html = part(parsed(outgoing(texts={"html": bare})), "html")
    assert re.search(
        r"<body class='x'><div style=\"display:none[^>]*>Thank you\. It ships tomorrow\.</div><p>", html
    )
    own = "<html><body><div class='preheader'>mine</div><p>words</p></body></html>"
    assert part(parsed(outgoing(texts={"html": own})), "html").strip() == own
    nothing = part(parsed(outgoing(item(Content("title")), texts={"html": bare})), "html")
    assert nothing.strip() == bare


@pytest.mark.req("R16")
def test_mjml_becomes_html_whatever_its_templates_say() -> None:
    given = outgoing(item(number=1), item(number=2), texts={"mjml": MJML})
    html = part(parsed(given), "html")
    assert "Order 2" in html
    assert "alone" not in html
    assert html.index("item 1") < html.index("item 2")
    assert 'href="https://hub.example.com/preferences"' in html
    assert "<mj-" not in html
    assert "Order 2" in part(parsed(given), "plain")
    assert "display:none" in html.partition("<body")[2][:500], "the preview"
    with_own = MJML.replace(
        "<mj-body>", "<mj-head><mj-preview>Own {{ count }}</mj-preview></mj-head><mj-body>"
    )
    html = part(parsed(outgoing(texts={"mjml": with_own})), "html")
    assert "Own 1" in html
    assert "Thank you" not in html


def test_mjml_is_compiled_once() -> None:
    compile_mjml.cache_clear()
    for number in range(5):
        compose(outgoing(item(number=number), texts={"mjml": MJML}))
    assert compile_mjml.cache_info().misses == 1


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "source",
    [
        "<mjml>",
        "just text",
        "<mjml><mj-body><mj-include path='/etc/passwd' /></mj-body></mjml>",
        "<mjml><mj-body><mj-include path='http://127.0.0.1/x.mjml' /></mj-body></mjml>",
        "<mjml><mj-body>" + "<mj-section>" * 5_000,
        "<mjml><mj-body>" + "<mj-section a='/>'>" * 3_000,
        "<mjml><mj-body>" + "<mj-wrapper><!--</mj-wrapper>-->" * 2_000,
        "<mjml><mj-body>" + "<mj-section/>" * (TAG_LIMIT + 1) + "</mj-body></mjml>",
        "<mjml><mj-body>" + "<mj-section><mj-column/></mj-section>" * 150 + "</mj-body></mjml>",
        "jinja0kept",
    ],
)
def test_what_is_no_usable_mjml_is_named_when_the_type_is_saved(source: str) -> None:
    with pytest.raises(TemplateError) as refused:
        compile_mjml(source)
    assert str(refused.value).endswith(".")
    definition = TypeDefinition("orders", channels={Channel.EMAIL: ChannelRule(mjml=source)})
    [error] = compile_check(definition)
    assert (error.pointer, error.code) == ("/channels/email/mjml", "invalid_template")
    with pytest.raises(ComposeError):
        compose(outgoing(definition=definition))


def test_the_templates_within_mjml_are_checked_too() -> None:
    for wrong in ("{{ nobody }}", "{% if %}"):
        source = f"<mjml><mj-body><mj-section><mj-column><mj-text>{wrong}</mj-text></mj-column></mj-section></mj-body></mjml>"
        definition = TypeDefinition(
            "orders", locales={"ko": Texts(channels={Channel.EMAIL: {"mjml": source}})}
        )
        [error] = compile_check(definition)
        assert error.pointer == "/locales/ko/channels/email/mjml"
    assert compile_check(TypeDefinition("orders", channels={Channel.EMAIL: ChannelRule(mjml=MJML)})) == []


def test_a_locale_s_markup_replaces_that_of_the_type_in_either_form() -> None:
    definition = TypeDefinition(
        "orders",
        channels={Channel.EMAIL: ChannelRule(html="<p>en</p>", text="en", subject="en")},
        locales={"ko": Texts(channels={Channel.EMAIL: {"mjml": MJML}})},
    )
    texts = channel_texts(TypeVersion("order.paid", 1, definition), Channel.EMAIL, "ko-KR")
    assert texts == {"mjml": MJML, "text": "en", "subject": "en"}


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("texts", "word"),
    [
        ({"subject": "{{ data.nope }}"}, "subject: "),
        ({"html": "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}"}, "html: "),
        ({"text": "{{ 'x' * 99999999 }}"}, "text: "),
        ({"mjml": "<mjml></nope>"}, "mjml: "),
    ],
)
def test_what_a_template_cannot_say_is_a_sentence(texts: dict[str, str], word: str) -> None:
    with pytest.raises(ComposeError) as refused:
        compose(outgoing(texts=texts))
    assert str(refused.value).startswith(word)


@pytest.mark.req("R35")
def test_an_e_mail_has_a_size() -> None:
    given = outgoing(texts={"html": "<p>" + "😀" * 60_000, "text": "x" * 60_000})
    assert len(compose(given).content) < SIZE_LIMIT_BYTES
    small = EmailSender((), "shop@example.com", "hub.example.com", size_limit_bytes=100_000)
    with pytest.raises(ComposeError) as refused:
        small.compose(given)
    assert "at most 100000 are sent" in str(refused.value)


def test_the_channel_is_what_the_engine_expects() -> None:
    sender = email_sender((), "shop@example.com", "hub.example.com")
    assert isinstance(sender, EmailSender)
    assert (sender.channel, sender.repeats, list(sender.providers)) == (Channel.EMAIL, True, [])
    nobody = outgoing()
    with pytest.raises(ComposeError):
        sender.compose(
            type(nobody)(**{n: getattr(nobody, n) for n in nobody.__struct_fields__} | {"targets": ()})
        )
