"""RFC 6455 on a real socket: lengths, pings, reserved bits and opcodes, masking, fragments, limits.

The groups are those of the Autobahn test suite. Every case runs on both event loops, in several cuts of the same bytes.
"""

import struct
from collections.abc import Iterator

import pytest

from hub.live.rfc6455 import MAX_FRAGMENTS
from tests.support.conversation import (
    Case,
    binary,
    check,
    closing,
    cont,
    echoed,
    ping,
    pong,
    ponged,
    table,
    text,
)
from tests.support.echo_server import LOOPS, EchoServer, echo_server
from tests.support.raw_client import CLOSE, CONT, PING, PONG, TEXT, frame

LIMIT = 65_536
pytestmark = pytest.mark.req("R35")


@pytest.fixture(scope="module", params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    with echo_server(request.param) as server:
        yield server


def long_form(opcode: int, length: int, form: int, payload: bytes = b"") -> bytes:
    """A frame whose length is written in the 16-bit (126) or 64-bit (127) form, needed or not."""
    written = struct.pack("!H" if form == 126 else "!Q", length)
    return bytes([0x80 | opcode, 0x80 | form]) + written + bytes(4) + payload


# ---------------------------------------------------------------- 1: lengths


@table(
    [
        Case(f"text of {size}", [text(b"*" * size)], [echoed(b"*" * size)])
        for size in (0, 1, 125, 126, 127, 128, 65_535, LIMIT)
    ]
    + [
        Case(f"binary of {size}", [binary(b"\xfe" * size)], ends=1003)
        for size in (0, 125, 126, 65_535, LIMIT)
    ]
    + [
        Case("binary in fragments", [binary(b"a", more=True), cont("b")], ends=1003),
        Case("binary and a close in one go", [binary(b"a"), closing(1000)], ends=1003),
        Case("text of the limit and one", [text(b"*" * (LIMIT + 1))], ends=1009),
        Case("binary of the limit and one", [binary(b"*" * (LIMIT + 1))], ends=1009),
        Case("4 GiB announced", [long_form(TEXT, 2**32, 127)], ends=1009),
        Case("2^63 - 1 announced", [long_form(TEXT, 2**63 - 1, 127)], ends=1009),
        Case("the highest bit of the length", [long_form(TEXT, 2**63, 127)], ends=1002),
        Case("all bits of the length", [long_form(TEXT, 2**64 - 1, 127)], ends=1002),
        Case("5 in 16 bits", [long_form(TEXT, 5, 126, b"hello")], ends=1002),
        Case("125 in 16 bits", [long_form(TEXT, 125, 126, b"x" * 125)], ends=1002),
        Case("126 in 16 bits", [long_form(TEXT, 126, 126, b"x" * 126)], [echoed(b"x" * 126)]),
        Case("0 in 64 bits", [long_form(TEXT, 0, 127)], ends=1002),
        Case("65,535 in 64 bits", [long_form(TEXT, 65_535, 127, b"x" * 65_535)], ends=1002),
        Case("a ping's length in 16 bits", [long_form(PING, 4, 126, b"ping")], ends=1002),
    ]
)
def test_lengths(server: EchoServer, case: Case) -> None:
    check(server, case)


# ---------------------------------------------------------------- 2: pings and pongs


@table(
    [
        Case("an empty ping", [ping()], [ponged()]),
        Case("a short ping", [ping(b"hello")], [ponged(b"hello")]),
        Case("bytes that are no text", [ping(b"\x00\xff\xfe\xfd\xfc")], [ponged(b"\x00\xff\xfe\xfd\xfc")]),
        *[Case(f"{size} bytes", [ping(b"\xfe" * size)], [ponged(b"\xfe" * size)]) for size in (1, 124, 125)],
        Case("126 bytes", [ping(b"\xfe" * 126)], ends=1002),
        Case("a pong of 126 bytes", [pong(b"\xfe" * 126)], ends=1002),
        Case("more bytes than any message may have", [ping(b"\xfe" * (LIMIT + 1))], ends=1002),
        Case("a pong that nobody asked for", [pong()]),
        Case("the same with a payload", [pong(b"hello")]),
        Case("a pong and then a ping", [pong(b"one"), ping(b"two")], [ponged(b"two")]),
        Case("ten pings", [ping(b"%d" % n) for n in range(10)], [ponged(b"%d" % n) for n in range(10)]),
        Case(
            "pings between texts",
            [text("a"), ping(b"1"), text("b"), ping(b"2")],
            [echoed("a"), ponged(b"1"), echoed("b"), ponged(b"2")],
        ),
    ]
)
def test_pings_and_pongs(server: EchoServer, case: Case) -> None:
    check(server, case)


# ---------------------------------------------------------------- 3 and 4: reserved bits, reserved opcodes, masking

RESERVED = (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)


@table(
    [Case(f"a text with bits {rsv:03b}", [text("hello", rsv=rsv)], ends=1002) for rsv in range(1, 8)]
    + [
        Case("after a good text", [text("a"), text("b", rsv=4), ping()], [echoed("a")], 1002),
        Case("a ping", [ping(b"x", rsv=2)], ends=1002),
        Case("a close", [frame(CLOSE, b"", rsv=7)], ends=1002),
        Case("a pong", [frame(PONG, b"x", rsv=1)], ends=1002),
        Case("a continuation", [text("a", more=True), cont("b", rsv=4)], ends=1002),
        Case("a binary", [frame(2, b"x", rsv=1)], ends=1002),
    ]
)
def test_reserved_bits(server: EchoServer, case: Case) -> None:
    check(server, case)


@table(
    [Case(f"{opcode}", [frame(opcode)], ends=1002) for opcode in RESERVED]
    + [Case(f"{opcode} with a payload", [frame(opcode, b"x" * 200)], ends=1002) for opcode in RESERVED]
    + [
        Case(f"{opcode} after a good text", [text("a"), frame(opcode, b"x"), ping()], [echoed("a")], 1002)
        for opcode in RESERVED
    ]
    + [
        Case(f"{opcode} in a message", [text("a", more=True), frame(opcode), cont("b")], ends=1002)
        for opcode in (3, 11)
    ]
)
def test_reserved_opcodes(server: EchoServer, case: Case) -> None:
    check(server, case)


@table(
    [
        Case("a text", [frame(TEXT, b"hello", mask=False)], ends=1002),
        Case("an empty text", [frame(TEXT, mask=False)], ends=1002),
        Case("a ping", [frame(PING, b"x", mask=False)], ends=1002),
        Case("a close", [frame(CLOSE, mask=False)], ends=1002),
        Case("a continuation", [text("a", more=True), frame(CONT, b"b", mask=False)], ends=1002),
        Case("after a good text", [text("a"), frame(TEXT, b"b", mask=False)], [echoed("a")], 1002),
    ]
)
def test_frames_without_a_mask(server: EchoServer, case: Case) -> None:
    check(server, case)


@pytest.mark.parametrize("key", [bytes(4), b"\xff" * 4, b"\x01\x02\x03\x04", b"\x00\x00\x00\x80"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 126, 1_000])
def test_every_mask_comes_off(server: EchoServer, key: bytes, size: int) -> None:
    plain = (b"0123456789abcdefghijklmnopqrstuvwxyz" * 30)[:size]
    masked = bytes(byte ^ key[i % 4] for i, byte in enumerate(plain))
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack("!H", size)
    check(server, Case("", [b"\x81" + length + key + masked], [echoed(plain)]))


# ---------------------------------------------------------------- 5: fragments


@table(
    [
        Case("in two", [text("a", more=True), cont("b")], [echoed("ab")]),
        Case("in five", [text("a", more=True), *[cont("b", more=True)] * 3, cont("c")], [echoed("abbbc")]),
        Case("all of them empty", [text("", more=True), cont("", more=True), cont("")], [echoed("")]),
        Case("the first is empty", [text("", more=True), cont("a")], [echoed("a")]),
        Case("the last is empty", [text("a", more=True), cont("")], [echoed("a")]),
        Case("one in the middle", [text("", more=True), cont("a", more=True), cont("")], [echoed("a")]),
        Case(
            "a ping in the middle",
            [text("a", more=True), ping(b"now"), cont("b")],
            [ponged(b"now"), echoed("ab")],
        ),
        Case(
            "pings everywhere",
            [
                ping(b"0"),
                text("a", more=True),
                ping(b"1"),
                ping(b"2"),
                cont("b", more=True),
                ping(b"3"),
                cont("c"),
                ping(b"4"),
            ],
            [ponged(b"0"), ponged(b"1"), ponged(b"2"), ponged(b"3"), echoed("abc"), ponged(b"4")],
        ),
        Case("a pong in the middle", [text("a", more=True), pong(b"x"), cont("b")], [echoed("ab")]),
        Case(
            "two messages",
            [text("a", more=True), cont("b"), text("c", more=True), cont("d")],
            [echoed("ab"), echoed("cd")],
        ),
        Case("a ping of two fragments", [ping(b"a", more=True), cont("b")], ends=1002),
        Case("a pong of two fragments", [pong(b"a", more=True), cont("b")], ends=1002),
        Case("a close of two fragments", [frame(CLOSE, b"\x03", fin=False), cont(b"\xe8")], ends=1002),
        Case("such a ping inside a message", [text("a", more=True), ping(b"x", more=True)], ends=1002),
        Case("a continuation of nothing", [cont("a")], ends=1002),
        Case("one that wants more", [cont("a", more=True), cont("b")], ends=1002),
        Case("one after a whole message", [text("a"), cont("b"), text("c")], [echoed("a")], 1002),
        Case(
            "one after a fragmented one", [text("a", more=True), cont("b"), cont("c")], [echoed("ab")], 1002
        ),
        Case("one after a ping", [ping(b"x"), cont("a")], [ponged(b"x")], 1002),
        Case("a new text within one", [text("a", more=True), text("b")], ends=1002),
        Case("a new fragmented text within one", [text("a", more=True), text("b", more=True)], ends=1002),
        Case("a binary within a text", [text("a", more=True), binary(b"b")], ends=1002),
        Case("a close within a message", [text("a", more=True), closing(1000)], ends=1000),
        Case(
            "the limit in two", [text(b"x" * 40_000, more=True), cont(b"x" * 25_536)], [echoed(b"x" * LIMIT)]
        ),
        Case(
            "a ping does not count",
            [text(b"x" * LIMIT, more=True), ping(b"p" * 125), cont("")],
            [ponged(b"p" * 125), echoed(b"x" * LIMIT)],
        ),
        Case("one more than it", [text(b"x" * 40_000, more=True), cont(b"x" * 25_537)], ends=1009),
        Case("the limit and then one", [text(b"x" * LIMIT, more=True), cont(b"x", more=True)], ends=1009),
        Case(
            "as many as are taken",
            [text("a", more=True), *[cont("", more=True)] * (MAX_FRAGMENTS - 2), cont("b")],
            [echoed("ab")],
        ),
        Case("without end", [text("", more=True), *[cont("", more=True)] * MAX_FRAGMENTS], ends=1009),
    ]
)
def test_fragments(server: EchoServer, case: Case) -> None:
    check(server, case)


# ---------------------------------------------------------------- 9: many and large ones


def test_many_messages_in_one_go(server: EchoServer) -> None:
    texts = [b"%d" % n * (n % 50) for n in range(500)]
    check(server, Case("", [text(one) for one in texts], [echoed(one) for one in texts]))


def test_large_messages_one_after_the_other(server: EchoServer) -> None:
    texts = [bytes([97 + n]) * (LIMIT - n) for n in range(20)]
    check(server, Case("", [text(one) for one in texts], [echoed(one) for one in texts]))


# ---------------------------------------------------------------- fail early


@pytest.mark.parametrize(
    ("head", "code"),
    [
        pytest.param(b"\xc1", 1002, id="a reserved bit"),
        pytest.param(b"\x83", 1002, id="a reserved opcode"),
        pytest.param(b"\x80", 1002, id="a continuation of nothing"),
        pytest.param(b"\x09", 1002, id="a fragmented ping"),
        pytest.param(b"\x81\x05", 1002, id="no mask"),
        pytest.param(b"\x89\xfe", 1002, id="a long ping"),
        pytest.param(b"\x88\xff", 1002, id="a long close"),
        pytest.param(b"\x88\x81", 1002, id="a close with half a code"),
        pytest.param(b"\x81\xfe\x00\x05", 1002, id="a length that is longer than it needs"),
        pytest.param(b"\x81\xff" + struct.pack("!Q", LIMIT + 1), 1009, id="a length beyond the limit"),
        pytest.param(text(b"x" * LIMIT, more=True) + b"\x80\x81", 1009, id="a fragment beyond the limit"),
        pytest.param(text("a", more=True) + b"\x81", 1002, id="a text within a text"),
    ],
)
def test_what_cannot_become_good_is_refused_before_its_payload_comes(
    server: EchoServer, head: bytes, code: int
) -> None:
    check(server, Case("", [head], ends=code))
