"""Small words of HTTP that senders read."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.channels.http import printable, retry_after_seconds

pytestmark = pytest.mark.req("I8")

NOW = 1_767_614_400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("99999999999999999999", 86_400.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        (formatdate(NOW + 10**8, usegmt=True), 86_400.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("Wed, 99 Foo 2026 12:00:00 GMT", None),
        ("٣", None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(text, NOW * 1_000_000) == seconds


@given(st.text())
def test_anybodys_retry_after_is_survived(text: str) -> None:
    found = retry_after_seconds(text, NOW * 1_000_000)
    assert found is None or 0 <= found <= 86_400


@given(st.text(max_size=2000))
def test_what_is_shown_is_one_bounded_line(text: str) -> None:
    shown = printable(text)
    assert len(shown) <= 200
    assert shown.isprintable()
