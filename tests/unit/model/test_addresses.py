"""Shapes of addresses, links and texts: what is let in and what is not."""

import pytest

from hub.model.addresses import (
    JSON_DEPTH_LIMIT,
    is_email,
    is_link,
    is_locale,
    is_phone,
    json_fault,
    profile_errors,
)
from hub.model.schedule import is_timezone

pytestmark = pytest.mark.req("R35")


@pytest.mark.parametrize(
    "text",
    [
        "a@b",
        "alice@example.com",
        "a.b+c@mail.example.co.kr",
        "o'neil@example.com",
        "用户@例え.jp",
        "x" * 64 + "@b.c",
    ],
)
def test_addresses_that_mail_servers_know(text):
    assert is_email(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "alice", "@example.com", "alice@", "a@b@c", "a b@c.d", "a@b c", "alice@example.com\n", "a@-b.c", "a@b..c",
        ".a@b.c", "a.@b.c", "a..b@c.d", "Alice <a@b.c>", "a@b.c,d@e.f", "a\r\nBcc: x@y.z@b.c", "a@[127.0.0.1]",
        "x" * 65 + "@b.c", "a@" + "b" * 400, "a\x00@b.c", "a@b.c;d", '"a"@b.c',
    ],
)  # fmt: skip
def test_what_is_no_address(text):
    assert not is_email(text)


@pytest.mark.parametrize(("text", "known"), [
    ("+821012345678", True), ("+4915112345678", True), ("+1", False), ("010-1234-5678", False), ("+0123456789", False),
    ("+82 10 1234 5678", False), ("+8210123456789012345", False), ("+821012345678\n", False), ("+٨٢١٠١٢٣٤٥", False),
])  # fmt: skip
def test_phone_numbers_are_international(text, known):
    assert is_phone(text) is known


@pytest.mark.parametrize(("text", "known"), [
    ("en", True), ("ko-KR", True), ("zh-Hant-TW", True), ("sl-rozaj-biske", True), ("", False), ("e", False),
    ("en_US", False), ("en-", False), ("-en", False), ("english!", False), ("a" * 9, False), ("en\n", False),
    ("../../etc", False), ("en-" + "a" * 40, False),
])  # fmt: skip
def test_locales_are_language_tags(text, known):
    assert is_locale(text) is known


@pytest.mark.parametrize(("text", "known"), [
    ("Europe/Berlin", True), ("UTC", True), ("Asia/Kolkata", True), ("Mars/Base", False), ("", False), ("+09:00", False),
    ("../../../etc/passwd", False), ("/etc/localtime", False), ("europe/berlin", False), ("localtime", False),
    ("UTC\x00", False), ("Europe", False),
])  # fmt: skip
def test_time_zones_are_those_of_iana(text, known):
    assert is_timezone(text) is known


@pytest.mark.parametrize(
    "text",
    ["https://example.com", "http://x/y?z#w", "HTTPS://X", "/orders/1", "orders/1?a=b:c", "?q", "#top", "//cdn.example/x",
     "https://例え.jp/パス", "/a:b", "https://u@h/", "mailto"],
)  # fmt: skip
def test_links_to_pages(text):
    assert is_link(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\tscript:alert(1)", "java\nscript:x", " javascript:x",
        "\x01javascript:x", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "ftp://x", "http:", "http://",
        "https:///x", "https:x", "\\\\host\\share", "/\\host", "a b", "https://x/<script>", 'https://x/"onload=',
        "blob:https://x", "intent://x", "x\u2028y", "\u00a0javascript:x", "/a\x00", "/\ud800", "mailto:a@b.c",
    ],
)  # fmt: skip
def test_links_that_run_or_mislead_are_refused(text):
    assert not is_link(text)


@pytest.mark.parametrize(
    ("value", "pointer", "code"),
    [
        ({"a": ["x", "\x00"]}, "/a/1", "invalid_text"),
        ({"a": "\ud800"}, "/a", "invalid_text"),
        ({"a": {"b\x00": 1}}, "/a", "invalid_text"),
        ({"\udfff": 1}, "", "invalid_text"),
        ({"a/b": {"~": "\x00"}}, "/a~1b/~0", "invalid_text"),
        ({"n": 2**64}, "/n", "number_too_large"),
        ({"n": -(2**63) - 1}, "/n", "number_too_large"),
        ({"n": float("nan")}, "/n", "invalid_number"),
        ({"n": float("inf")}, "/n", "invalid_number"),
        ({"n": {1, 2}}, "/n", "invalid_value"),
        ({"n": b"x"}, "/n", "invalid_value"),
        ({1: "x"}, "", "invalid_text"),
    ],
)
def test_json_that_cannot_be_kept_is_told_with_its_place(value, pointer, code):
    fault = json_fault(value)
    assert fault is not None
    assert (fault.pointer, fault.code) == (pointer, code)


def test_json_that_can_be_kept():
    value = {"a": [1, -1.5, True, None, "x\t\n", "🎉", {"": []}], "max": 2**64 - 1, "min": -(2**63)}
    assert json_fault(value) is None


def nested(levels):
    value = "x"
    for _ in range(levels):
        value = [value]
    return value


def test_nesting_has_an_end():
    assert json_fault(nested(JSON_DEPTH_LIMIT)) is None
    assert json_fault(nested(JSON_DEPTH_LIMIT + 1)).code == "too_deep"
    assert json_fault(nested(500)).code == "too_deep"


@pytest.mark.req("R10")
def test_all_mistakes_of_a_profile_are_told_at_once():
    errors = profile_errors(
        {
            "name": "a\x00",
            "email": "nobody",
            "phone": "123",
            "locale": "x",
            "timezone": "Nowhere",
            "avatar": "javascript:x",
            "attributes": {"big": "x" * 20_000},
        },
        "/to/0",
    )
    assert [(error.pointer, error.code) for error in errors] == [
        ("/to/0/name", "invalid_text"),
        ("/to/0/email", "invalid_email"),
        ("/to/0/phone", "invalid_phone"),
        ("/to/0/locale", "invalid_locale"),
        ("/to/0/timezone", "unknown_timezone"),
        ("/to/0/avatar", "invalid_url"),
        ("/to/0/attributes", "too_large"),
    ]


def test_what_is_cleared_needs_no_check():
    assert profile_errors({"email": None, "phone": None, "attributes": {"vip": True}}) == []
