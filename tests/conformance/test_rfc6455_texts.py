"""RFC 6455 §8.1 on a real socket: texts are UTF-8, whatever fragments and segments they come in, and nothing else is.

A bad text is refused with the fragment that spoils it, not with its last one.
"""

from collections.abc import Iterator

import pytest

from tests.support.conversation import Case, check, cont, echoed, ping, ponged, text
from tests.support.echo_server import LOOPS, EchoServer, echo_server

pytestmark = pytest.mark.req("R35")

GOOD = {
    "ASCII": b"Hello-\x00\x7f",
    "Greek": "Hello-µ@ßöäüàá-UTF-8!! κόσμε".encode(),
    "Korean": "안녕하세요".encode(),
    "one byte, first and last": b"\x00\x7f",
    "two bytes, first and last": b"\xc2\x80\xdf\xbf",
    "three bytes, first and last": b"\xe0\xa0\x80\xef\xbf\xbf",
    "four bytes, first and last": b"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
    "around the surrogates": b"\xed\x9f\xbf\xee\x80\x80",
    "the replacement character": b"\xef\xbf\xbd",
    "no characters": b"\xef\xbf\xbe\xef\xbf\xbf\xf0\x9f\xbf\xbe\xf3\xaf\xbf\xbf",
    "a byte order mark": b"\xef\xbb\xbfx",
    "emoji with joiners": "👩‍👩‍👧 e\u0301".encode(),
}

# What is bad, and where the byte is that spoils it: with None only the end shows that something lacks. (Python's
# decoder sees a surrogate with its third byte, the second would do.)
BAD: dict[str, tuple[bytes, int | None]] = {
    "a continuation byte": (b"\x80", 0),
    "the last continuation byte": (b"\xbf", 0),
    "continuation bytes after a letter": (b"a\x80\xbf", 1),
    "C0": (b"\xc0\x80", 0),
    "C1": (b"\xc1\xbf", 0),
    "FE": (b"\xfe", 0),
    "FF": (b"a\xff", 1),
    "F5": (b"\xf5\x80\x80\x80", 0),
    "five bytes": (b"\xf8\x88\x80\x80\x80", 0),
    "six bytes": (b"\xfc\x84\x80\x80\x80\x80", 0),
    "overlong slash in two": (b"\xc0\xaf", 0),
    "overlong slash in three": (b"\xe0\x80\xaf", 1),
    "overlong slash in four": (b"\xf0\x80\x80\xaf", 1),
    "overlong highest in three": (b"\xe0\x9f\xbf", 1),
    "overlong highest in four": (b"\xf0\x8f\xbf\xbf", 1),
    "beyond U+10FFFF": (b"\xf4\x90\x80\x80", 1),
    "first surrogate": (b"\xce\xba\xed\xa0\x80edited", 4),
    "last surrogate": (b"\xed\xbf\xbf", 2),
    "a pair of surrogates": (b"\xed\xa0\x80\xed\xb0\x80", 2),
    "two bytes, cut by a letter": (b"\xc3 ", 1),
    "three bytes, cut by a letter": (b"\xe2\x82 ", 2),
    "four bytes, cut by a letter": (b"\xf0\x9f\x92 ", 3),
    "two bytes, one lacks": (b"a\xc3", None),
    "three bytes, one lacks": (b"\xe2\x82", None),
    "three bytes, two lack": (b"\xe2", None),
    "four bytes, one lacks": (b"\xf0\x9f\x92", None),
    "four bytes, three lack": (b"\xf0", None),
    "Latin-1": ("fähig".encode("latin-1"), 2),
    "UTF-16": ("ä".encode("utf-16"), 0),
}


@pytest.fixture(scope="module", params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    with echo_server(request.param) as server:
        yield server


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD)
def test_a_good_text(server: EchoServer, raw: bytes) -> None:
    check(server, Case("", [text(raw)], [echoed(raw)]))


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD)
def test_a_good_text_in_two_fragments_wherever_it_is_cut(server: EchoServer, raw: bytes) -> None:
    halves = [(raw[:at], raw[at:]) for at in range(len(raw) + 1)]
    frames = [one for left, right in halves for one in (text(left, more=True), ping(b"p"), cont(right))]
    check(server, Case("", frames, [ponged(b"p"), echoed(raw)] * len(halves)))


@pytest.mark.parametrize("raw", GOOD.values(), ids=GOOD)
def test_a_good_text_of_fragments_of_one_byte(server: EchoServer, raw: bytes) -> None:
    check(server, Case("", byte_by_byte(raw), [echoed(raw)]))


@pytest.mark.parametrize("raw", [raw for raw, _ in BAD.values()], ids=BAD)
def test_a_bad_text(server: EchoServer, raw: bytes) -> None:
    check(server, Case("", [text("good"), text(raw), ping()], [echoed("good")], 1007))


@pytest.mark.parametrize(("raw", "bad_at"), BAD.values(), ids=BAD)
def test_a_bad_text_is_refused_with_the_fragment_that_spoils_it(
    server: EchoServer, raw: bytes, bad_at: int | None
) -> None:
    if bad_at is None:
        frames = [*byte_by_byte(raw + b"?")[:-1], ping(b"still good"), cont("")]
        check(server, Case("", frames, [ponged(b"still good")], 1007))
    else:
        until = byte_by_byte(raw + b"?")[: bad_at + 1]
        until.insert(bad_at, ping(b"still good"))
        check(server, Case("", until, [ponged(b"still good")], 1007))


def byte_by_byte(raw: bytes) -> list[bytes]:
    """Fragments of one byte each."""
    first, *rest = [raw[i : i + 1] for i in range(len(raw))]
    if not rest:
        return [text(first)]
    return [text(first, more=True), *[cont(one, more=True) for one in rest[:-1]], cont(rest[-1])]
