"""WebSocket frames: what is complete comes out whole, however the bytes were cut; what breaks the rules has its code."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.live.rfc6455 import (
    Binary,
    Closing,
    FrameReader,
    Ping,
    Pong,
    Text,
    Violation,
    close_frame,
    ping_frame,
    pong_frame,
    text_frame,
)
from tests.support.raw_client import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame

LIMIT = 64 * 1024


def read(*chunks: bytes) -> list[object]:
    reader = FrameReader(LIMIT)
    events: list[object] = []
    for chunk in chunks:
        try:
            events.extend(reader.read(chunk))
        except Violation as violation:
            return [*events, violation.code]
    return events


def test_a_text_in_one_frame():
    assert read(frame(TEXT, "häl".encode())) == [Text("häl")]


@given(st.lists(st.text(max_size=300), min_size=1, max_size=5), st.data())
def test_texts_come_out_whole_however_they_are_fragmented_and_cut(texts, data):
    wire = b""
    expected: list[object] = []
    for text in texts:
        raw = text.encode()
        cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=3)))
        parts = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            wire += frame(CONT if number else TEXT, part, fin=last)
            if not last and data.draw(st.booleans()):
                wire += frame(PING, b"p")
                expected.append(Ping(b"p"))
        expected.append(Text(text))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    assert read(*(wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True))) == expected


@given(st.binary(max_size=400))
def test_any_bytes_give_events_or_a_violation(data):
    for event in read(data):
        assert isinstance(event, Text | Binary | Ping | Pong | Closing) or event in (1002, 1007, 1009)


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(frame(TEXT, b"x", mask=False), 1002, id="unmasked"),
        pytest.param(frame(TEXT, b"x", rsv=4), 1002, id="rsv1 (compressed)"),
        pytest.param(frame(TEXT, b"x", rsv=2), 1002, id="rsv2"),
        pytest.param(frame(TEXT, b"x", rsv=1), 1002, id="rsv3"),
        pytest.param(frame(0x3, b"x"), 1002, id="reserved data opcode"),
        pytest.param(frame(0xB, b"x"), 1002, id="reserved control opcode"),
        pytest.param(frame(CONT, b"x"), 1002, id="continuation of nothing"),
        pytest.param(
            frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002, id="text inside a fragmented text"
        ),
        pytest.param(
            frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"), 1002, id="binary inside a fragmented text"
        ),
        pytest.param(frame(PING, b"x", fin=False), 1002, id="fragmented ping"),
        pytest.param(frame(PING, b"x" * 126), 1002, id="long ping"),
        pytest.param(frame(CLOSE, b"x" * 126), 1002, id="long close"),
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="close with half a code"),
        pytest.param(frame(CLOSE, struct.pack("!H", 999)), 1002, id="close 999"),
        pytest.param(frame(CLOSE, struct.pack("!H", 1005)), 1002, id="close 1005"),
        pytest.param(frame(CLOSE, struct.pack("!H", 1006)), 1002, id="close 1006"),
        pytest.param(frame(CLOSE, struct.pack("!H", 1016)), 1002, id="close 1016"),
        pytest.param(frame(CLOSE, struct.pack("!H", 5000)), 1002, id="close 5000"),
        pytest.param(frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007, id="close with bad UTF-8"),
        pytest.param(frame(TEXT, b"\xff\xfe"), 1007, id="bad UTF-8"),
        pytest.param(frame(TEXT, "\ud800".encode("utf-8", "surrogatepass")), 1007, id="surrogate in UTF-8"),
        pytest.param(
            frame(TEXT, b"\xe2\x82", fin=False) + frame(CONT, b""), 1007, id="cut UTF-8, fragmented"
        ),
        pytest.param(frame(TEXT, b"x" * (LIMIT + 1)), 1009, id="too big"),
        pytest.param(
            frame(TEXT, b"x" * LIMIT, fin=False) + frame(CONT, b"y"), 1009, id="too big in fragments"
        ),
        pytest.param(b"\x81\xff\x7f" + b"\xff" * 7, 1009, id="64-bit length"),
        pytest.param(b"\x81\xff" + b"\xff" * 8, 1002, id="64-bit length with the highest bit"),
        pytest.param(
            frame(TEXT, b"", fin=False) + frame(CONT, b"", fin=False) * 2000, 1009, id="endless fragments"
        ),
    ],
)
def test_breaking_the_rules_has_its_code(wire, code):
    assert read(wire)[-1] == code
    assert read(*(wire[i : i + 1] for i in range(len(wire))))[-1] == code


def test_events_before_a_violation_are_not_lost():
    assert read(frame(TEXT, b"good") + frame(TEXT, b"bad", mask=False)) == [Text("good"), 1002]


def test_the_largest_message_passes():
    assert read(frame(TEXT, b"x" * LIMIT)) == [Text("x" * LIMIT)]
    half = b"x" * (LIMIT // 2)
    assert read(frame(TEXT, half, fin=False) + frame(CONT, half)) == [Text("x" * LIMIT)]


def test_control_frames():
    assert read(frame(PING, b"hi") + frame(PONG, b"") + frame(CLOSE)) == [
        Ping(b"hi"),
        Pong(),
        Closing(1005, ""),
    ]
    assert read(frame(CLOSE, struct.pack("!H", 1001) + "tschüß".encode())) == [Closing(1001, "tschüß")]
    assert read(frame(BINARY, b"\x00")) == [Binary()]


def test_the_reader_is_idle_only_between_messages():
    whole = frame(TEXT, b"hello", fin=False) + frame(CONT, b"!")
    for cut in range(1, len(whole)):
        reader = FrameReader(LIMIT)
        list(reader.read(whole[:cut]))
        assert not reader.idle
        assert list(reader.read(whole[cut:])) == [Text("hello!")]
        assert reader.idle


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
def test_text_frames_have_the_right_length(size):
    payload = b"x" * size
    wire = text_frame(payload)
    assert wire[0] == 0x81
    if size < 126:
        assert wire[1:] == bytes([size]) + payload
    elif size < 65_536:
        assert wire[1:] == b"\x7e" + struct.pack("!H", size) + payload
    else:
        assert wire[1:] == b"\x7f" + struct.pack("!Q", size) + payload


def test_close_reasons_are_cut_between_characters():
    wire = close_frame(3008, "ü" * 100)
    assert wire[1] <= 125
    assert len(wire) == 2 + wire[1]
    assert struct.unpack("!H", wire[2:4])[0] == 3008
    assert wire[4:].decode() == "ü" * 61
    assert close_frame(1005, "") == b"\x88\x00"
    assert pong_frame(b"abc") == b"\x8a\x03abc"
    assert ping_frame() == b"\x89\x00"
