"""Segments of SMS and cutting, against a second telling of the rules and the figures of 3GPP TS 23.038."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hub.model.sms import BASIC, EXTENSION, GSM_7, UCS_2, boundary, fit, segments

pytestmark = pytest.mark.req("R7")

FAMILY = "👩‍👩‍👧‍👦"
PIECES = ["a", "€", "[", "é", "ç", "ж", "😀", FAMILY, "👍🏽", "🇰🇷", "e\u0301", "\n", " ", "…", "word "]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=400).map("".join)


def told_again(text: str) -> tuple[str, int]:
    """Encoding and segments, by packing character after character."""
    gsm = all(one in BASIC or one in EXTENSION for one in text)
    sizes = [(2 if one in EXTENSION else 1) if gsm else len(one.encode("utf-16-be")) // 2 for one in text]
    single, part = (160, 153) if gsm else (70, 67)
    if sum(sizes) <= single:
        return (GSM_7 if gsm else UCS_2), 1
    bins = [0]
    for size in sizes:
        if bins[-1] + size > part:
            bins.append(0)
        bins[-1] += size
    return (GSM_7 if gsm else UCS_2), len(bins)


@pytest.mark.parametrize(
    ("text", "encoding", "units", "count"),
    [
        ("", GSM_7, 0, 1),
        ("a" * 160, GSM_7, 160, 1),
        ("a" * 161, GSM_7, 161, 2),
        ("a" * 306, GSM_7, 306, 2),
        ("a" * 307, GSM_7, 307, 3),
        ("€" * 80, GSM_7, 160, 1),
        ("€" * 81, GSM_7, 162, 2),
        ("a" * 152 + "€" + "a" * 152, GSM_7, 306, 3),  # no escape is torn: one septet stays free
        ("@£$¥èéùìòÇØøÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ¤¡ÄÖÑÜ§¿äöñüà", GSM_7, 42, 1),
        ("ç", UCS_2, 1, 1),  # only the capital is in the alphabet
        ("`", UCS_2, 1, 1),
        ("ж" * 70, UCS_2, 70, 1),
        ("ж" * 71, UCS_2, 71, 2),
        ("ж" * 134, UCS_2, 134, 2),
        ("😀" * 35, UCS_2, 70, 1),
        ("ж" * 66 + "😀" + "ж" * 66, UCS_2, 134, 3),  # no surrogate pair is torn
        ("안녕하세요", UCS_2, 5, 1),
    ],
)
def test_segments(text: str, encoding: str, units: int, count: int) -> None:
    found = segments(text)
    assert (found.encoding, found.units, found.count) == (encoding, units, count)


def test_the_alphabet_is_whole() -> None:
    assert len(set(BASIC)) == 127  # and the escape
    assert len(set(EXTENSION)) == 10
    assert not set(BASIC) & set(EXTENSION)


@given(TEXTS)
def test_segments_are_counted_as_they_are_packed(text: str) -> None:
    found = segments(text)
    assert (found.encoding, found.count) == told_again(text)


@given(TEXTS, TEXTS, TEXTS, st.integers(1, 10))
@example("a" * 2000, "", "https://example.com/", 10)
@example("", "x" * 100_000, "", 1)
def test_what_is_cut_fits_and_keeps_as_much_as_it_can(before: str, body: str, after: str, limit: int) -> None:
    whole = before + body + after
    cut = fit(before, body, after, limit)
    assert told_again(cut)[1] <= limit
    if told_again(whole)[1] <= limit:
        assert cut == whole
    elif told_again(before + after)[1] <= limit:
        assert cut.startswith(before)
        assert cut.endswith(after)
        kept = cut[len(before) : len(cut) - len(after)]
        assert kept == "" or kept.endswith("...")
        assert body.startswith(kept.removesuffix("..."))
        # One piece more (the longest is eleven units) and blanks at the end are all that is given away.
        longer = body[: len(kept.removesuffix("...").rstrip()) + 40]
        assert len(longer) == len(body) or told_again(f"{before}{longer}...{after}")[1] >= limit
    else:
        assert before.startswith(cut.removesuffix("...")) or cut.startswith(before)


@given(TEXTS, st.integers(0, 1200))
def test_no_character_is_torn(text: str, place: int) -> None:
    cut = boundary(text, place)
    assert cut <= place or cut == len(text)
    first, rest = text[:cut], text[cut:]
    if rest and first:
        assert not unicodedata.combining(rest[0])
        assert rest[0] not in "\u200d\ufe0f🏽"
        assert not first.endswith("\u200d")
    if text and set(text) <= set("🇰🇷"):
        assert len(first) % 2 == 0 or not rest


def test_a_text_of_nothing_but_marks_does_not_vanish() -> None:
    assert boundary("a" + "\u0301" * 500, 300) == 300
