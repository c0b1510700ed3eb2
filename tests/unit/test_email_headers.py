"""The headers of e-mails: nobody breaks out of them, names and subjects are clean, addresses travel as they must."""

from email import message_from_bytes
from email.header import decode_header, make_header
from email.utils import parseaddr, parsedate_to_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.model.addresses import ascii_domain, canonical_email
from hub.model.notifications import Content
from tests.support.mail_outgoing import (
    DELIVERY_ID,
    URLS,
    compose,
    item,
    lines_of,
    outgoing,
    parse,
    parsed,
)
from tests.support.stores import NOW_US
from workers.channels.base import ComposeError
from workers.channels.email import SUBJECT_LIMIT

HEADERS = sorted(
    [
        "from", "to", "subject", "date", "message-id", "list-unsubscribe", "list-unsubscribe-post", "auto-submitted",
        "x-clarion-delivery", "mime-version", "content-type",
    ]
)  # fmt: skip


# ---------------------------------------------------------------- headers


@pytest.mark.req("R7")
def test_the_headers_of_a_message() -> None:
    message = parsed(outgoing(due_at_us=NOW_US + 60_000_000))
    assert message["From"] == "Shop <shop@example.com>"
    assert message["To"] == "Bob <bob@example.com>"
    assert message["Subject"] == "Order 7 is paid"
    assert message["Message-ID"] == f"<{DELIVERY_ID}@hub.example.com>"
    assert message["X-Clarion-Delivery"] == DELIVERY_ID
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["X-Clarion-Repeat"] is None
    assert parsedate_to_datetime(message["Date"]).timestamp() * 1e6 == NOW_US + 60_000_000
    assert message.get_content_type() == "multipart/alternative"
    assert [one.get_content_type() for one in message.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.req("I7")
def test_every_attempt_has_the_same_message_id_and_a_repeat_is_marked() -> None:
    first, again = parsed(outgoing()), parsed(outgoing(is_repeat=True))
    assert first["Message-ID"] == again["Message-ID"]
    assert again["X-Clarion-Repeat"] == "1"
    assert compose(outgoing()) == compose(outgoing())


@pytest.mark.req("R11")
def test_one_click_unsubscribing_is_offered() -> None:
    raw = compose(outgoing()).content
    assert f"\r\nList-Unsubscribe: <{URLS['unsubscribe']}>\r\n".encode() in raw, "in one line: it is no text"
    message = parse(raw)
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert parsed(outgoing(urls={}))["List-Unsubscribe"] is None
    local = parsed(outgoing(urls={"unsubscribe": "http://127.0.0.1:8000/unsubscribe/x"}))
    assert local["List-Unsubscribe-Post"] is not None
    bare = parsed(outgoing(urls={"unsubscribe": "http://hub.example.com/unsubscribe/x"}))
    assert (bare["List-Unsubscribe"], bare["List-Unsubscribe-Post"]) == (
        "<http://hub.example.com/unsubscribe/x>",
        None,
    )
    for wrong in (
        "https://x/\r\nBcc: eve@example.com",
        "https://x/>, <mailto:eve@example.com",
        "javascript:x",
    ):
        message = parsed(outgoing(urls={"unsubscribe": wrong}))
        assert (message["List-Unsubscribe"], message["Bcc"]) == (None, None)


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "name",
    [
        "Bob\r\nBcc: eve@example.com",
        "Bob\nX: y",
        "Bob\x00",
        "Bob\x1b[31m",
        "\u202egpj.exe",
        "Bob\u2028X",
        "\ud800",
        "x" * 101,
    ],
)
def test_a_name_that_is_not_clean_is_left_out(name: str) -> None:
    message = parsed(outgoing(name=name))
    assert message["To"] == "bob@example.com"
    assert message["Bcc"] is None


@pytest.mark.parametrize(
    "name",
    [
        'Bob "the\\builder" O\'Neil',
        "Kim, Min-su",
        "김민수",
        "Jörg <jörg@example.com>",
        "=?utf-8?q?fake?=",
        "山" * 100,
        "👩‍👩‍👧‍👦 Family",
    ],
)
def test_a_clean_name_is_shown_whole(name: str) -> None:
    mail = compose(outgoing(name=name))
    # The newer parser of the standard library leaves the space between two encoded words (RFC 2047 §6.2: it is none).
    field = message_from_bytes(mail.content)["To"].replace("\r\n", "")
    shown, address = parseaddr(field)
    assert (str(make_header(decode_header(shown))), address) == (name, "bob@example.com")
    assert max(map(len, lines_of(mail.content)[:12])) <= 500
    assert mail.content.partition(b"\r\n\r\n")[0].isascii()


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Paid\r\nBcc: eve@example.com", "Paid Bcc: eve@example.com"),
        ("a\x00b\x07c\u2028d", "a b c d"),
        ("=?utf-8?b?ZXZpbA==?=", "=?utf-8?b?ZXZpbA==?="),
        ("주문 7번이 결제되었습니다", "주문 7번이 결제되었습니다"),
        ("  spread \t out ", "spread out"),
        ("word " * 30, ("word " * 30).strip()),
        ("x" * 999, "x" * (SUBJECT_LIMIT - 1) + "…"),
        ("새" * 999, "새" * (SUBJECT_LIMIT - 1) + "…"),
    ],
)
def test_a_subject_is_one_clean_bounded_line(title: str, shown: str) -> None:
    mail = compose(outgoing(item(Content(title))))
    message = parse(mail.content)
    assert message["Subject"] == shown
    assert message["Bcc"] is None
    assert all(len(line) <= 998 for line in lines_of(mail.content))


@pytest.mark.req("R35")
@settings(deadline=None)
@given(name=st.text(max_size=120), title=st.text(max_size=400), body=st.text(max_size=400))
def test_no_text_gets_out_of_its_place(name: str, title: str, body: str) -> None:
    mail = compose(outgoing(item(Content(title, body)), name=name))
    message = parse(mail.content)
    assert sorted(name.lower() for name in message.keys()) == HEADERS  # noqa: SIM118 - repeated ones too
    assert [address.addr_spec for address in message["To"].addresses] == ["bob@example.com"]
    assert all(len(line) <= 998 for line in lines_of(mail.content))
    assert mail.content.isascii()


def test_the_sender_is_what_the_setting_says() -> None:
    named = parsed(outgoing(), sender='"Kim\'s Läden" <laden@bücher.example>')
    [address] = named["From"].addresses
    assert (address.display_name, address.addr_spec) == ("Kim's Läden", "laden@xn--bcher-kva.example")
    mail = compose(outgoing(), "bare@example.com")
    assert mail.sender == "bare@example.com"
    assert parse(mail.content)["From"] == "bare@example.com"
    assert parsed(outgoing(), domain="bücher.example.")["Message-ID"].endswith("@xn--bcher-kva.example>")
    for nonsense in ("", "a b", "x\r\nBcc: y", "[::1]"):
        assert parsed(outgoing(), domain=nonsense)["Message-ID"] == f"<{DELIVERY_ID}@localhost>"


# ---------------------------------------------------------------- addresses


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("domain", "wanted"),
    [
        ("Example.COM", "example.com"),
        ("Bücher.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),  # IDNA 2008; the older rules lead to fass.example
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
    ],
)
def test_domains_travel_as_a_labels(domain: str, wanted: str) -> None:
    assert ascii_domain(domain) == wanted
    assert ascii_domain(wanted) == wanted
    assert canonical_email(f"Jörg@{domain}") == f"Jörg@{wanted}"
    assert parsed(outgoing(address=f"bob@{domain}"))["To"].addresses[0].addr_spec == f"bob@{wanted}"


def test_domains_without_a_form_are_refused() -> None:
    for wrong in ("x" * 64 + ".example", "ü" * 80 + ".example", "a..b", ""):
        with pytest.raises(ValueError):
            ascii_domain(wrong)
    assert canonical_email("a@" + "X" * 64) == "a@" + "x" * 64
    assert canonical_email("nonsense") == "nonsense"


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "address",
    [
        "",
        "bob",
        "bob@example.com\r\nRCPT TO:<eve@example.com>",
        "a b@x.example",
        "<a@b.example>",
        "a\x9b@b.example",
    ],
)
def test_no_message_goes_to_what_is_no_address(address: str) -> None:
    with pytest.raises(ComposeError) as refused:
        compose(outgoing(address=address))
    assert str(refused.value).endswith(".")
    assert "eve" not in str(refused.value)


def test_an_address_beyond_ascii_says_what_it_needs() -> None:
    mail = compose(outgoing(address="jörg@example.com"))
    assert mail.needs_utf8
    assert b"<j\xc3\xb6rg@example.com>" in mail.content
    assert not compose(outgoing(address="joerg@bücher.example")).needs_utf8
    assert compose(outgoing(), "jörg@example.com").needs_utf8
