"""Server-sent events: cursors that survive hostile clients, events that survive any text."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.live import sse
from hub.live.sse import Cursor, Place

epochs = st.text("abcXYZ019._-", max_size=64)
places = st.builds(Place, epochs, st.integers(0, 2**53 - 1))


def parse(block: bytes) -> dict[str, str]:
    """One event, read by the rules of the WHATWG for event streams."""
    fields: dict[str, list[str]] = {}
    text = block.decode()
    assert text.endswith("\n\n")
    assert "\n\n" not in text[:-2]
    for line in text[:-2].split("\n"):
        name, _, value = line.partition(":")
        fields.setdefault(name, []).append(value.removeprefix(" "))
    return {name: "\n".join(values) for name, values in fields.items()}


@given(st.builds(Cursor, places, places))
def test_a_cursor_comes_back_as_it_was(cursor):
    text = sse.encode_cursor(cursor)
    assert sse.decode_cursor(text) == cursor
    assert text.isascii()
    assert not set(text) & set(" \r\n\0")


@pytest.mark.req("R35")
@given(st.one_of(st.text(max_size=300), st.from_regex(r"\A1![0-9a-z:!.-]*\Z")))
def test_a_hostile_cursor_is_unknown_or_one_that_we_could_have_written(text):
    cursor = sse.decode_cursor(text)
    assert cursor is None or (len(text) <= 200 and all(0 <= place.offset < 2**53 for place in cursor))


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "1!a:1",
        "1!a:1!b:2!c:3",
        "1!a:-1!b:2",
        "1!a:1!b:²",
        "1!a:1!b:2\n",
        "2!a:1!b:2",
        "1!a:9999999999999999!b:1",
        "1!a b:1!b:2",
        "1!" + "a" * 65 + ":1!b:2",
        "9" * 10_000,
        "../../etc/passwd",
        "\ud800",
    ],
)
def test_what_is_no_cursor_is_unknown(text):
    assert sse.decode_cursor(text) is None


@given(st.text().map(lambda text: text.replace("\0", "")))
def test_an_event_keeps_text_with_any_line_breaks_in_one_event(text):
    fields = parse(sse.event("notification", text.encode()))
    assert fields["event"] == "notification"
    assert fields["data"] == text.replace("\r\n", "\n").replace("\r", "\n")


def test_pretty_json_is_still_the_same_json():
    document = {"a": [1, 2, {"b": "line\nbreak"}]}
    fields = parse(sse.event("mark", json.dumps(document, indent=2).encode()))
    assert json.loads(fields["data"]) == document


def test_the_id_line_goes_before_its_event():
    block = sse.id_line(b"a:1", b"b:2") + sse.event("gap", b"{}")
    assert parse(block) == {"id": "1!a:1!b:2", "event": "gap", "data": "{}"}


@pytest.mark.parametrize("counts", [b'{"unread":2,"unseen":3}', b"{}", b"", b' { "unread" : 2 } '])
def test_ready_names_the_connection_and_the_counts(counts):
    fields = parse(sse.ready("abc", counts))
    expected = {"kind": "ready", "connection": "abc"} | (json.loads(counts) if counts.strip() else {})
    assert fields["event"] == "ready"
    assert json.loads(fields["data"]) == expected


@pytest.mark.parametrize(
    ("reason", "word"),
    [("shutdown", "shutdown"), ('x"\n\ndata: evil', "x_data_evil"), ("Token revoked", "token_revoked")],
)
def test_reconnect_says_why_in_one_word(reason, word):
    fields = parse(sse.reconnect(reason, 1500))
    assert json.loads(fields["data"]) == {"kind": "reconnect", "reason": word}
    assert fields["retry"] == "1500"


def test_a_chunk_has_its_length_in_hexadecimal():
    assert sse.chunk(b"x" * 255) == b"ff\r\n" + b"x" * 255 + b"\r\n"


def test_events_around_a_place_are_what_one_chunk_of_them_would_be() -> None:
    events = [(b"e:%d" % number, sse.event("notification", b'{"n":%d}' % number)) for number in range(1, 12)]
    for personal in (b":0", b"epoch.of-17:123456"):
        plain = b"".join(sse.id_line(personal, place) + text for place, text in events)
        assert personal.join(sse.chunk_around_place(events, len(personal))) == sse.chunk(plain)
        assert personal.join(sse.chunk_around_place(events[:1], len(personal))) == sse.chunk(
            sse.id_line(personal, b"e:1") + events[0][1]
        )
