"""Server-sent events: how an event is written, and the cursor that stands in its `id`. Sans-I/O.

The cursor is opaque to clients: the positions on the personal channel and on `broadcasts`. Whatever else a client
sends as one decodes to None, which means "unknown": the client is told to refetch. Texts with line breaks stay whole.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_EPOCH = r"[A-Za-z0-9._~+=-]{0,64}"
_CURSOR = re.compile(rf"1!({_EPOCH}):(\d{{1,16}})!({_EPOCH}):(\d{{1,16}})", re.ASCII)
_LINE_BREAKS = re.compile(rb"\r\n|\n|\r")
_MAX_OFFSET = 2**53 - 1


class Place(NamedTuple):
    """A position on one channel."""

    epoch: str
    offset: int


class Cursor(NamedTuple):
    """Where a client is on both of its channels."""

    personal: Place
    broadcasts: Place


def place_text(epoch: str, offset: int) -> bytes:
    """One half of a cursor."""
    return b"%b:%d" % (epoch.encode(), offset)


def encode_cursor(cursor: Cursor) -> str:
    """The text of a cursor: ASCII, without spaces and line breaks."""
    personal, broadcasts = place_text(*cursor.personal), place_text(*cursor.broadcasts)
    return (b"1!%b!%b" % (personal, broadcasts)).decode()


def decode_cursor(text: str) -> Cursor | None:
    """The inverse of `encode_cursor`; None for what we did not write."""
    found = _CURSOR.fullmatch(text) if len(text) <= 200 else None
    if found is None:
        return None
    personal, broadcasts = Place(found[1], int(found[2])), Place(found[3], int(found[4]))
    if max(personal.offset, broadcasts.offset) > _MAX_OFFSET:
        return None
    return Cursor(personal, broadcasts)


def event(kind: str, data: bytes, retry_ms: int | None = None) -> bytes:
    """One event without its `id:` line; put `id_line` before it."""
    lines = b"\ndata: ".join(_LINE_BREAKS.split(data)) if b"\n" in data or b"\r" in data else data
    retry = b"retry: %d\n" % retry_ms if retry_ms is not None else b""
    return b"%bevent: %b\ndata: %b\n\n" % (retry, kind.encode(), lines)


def id_line(personal: bytes, broadcasts: bytes) -> bytes:
    """The line that makes the browser remember a cursor, given its halves."""
    return b"id: 1!%b!%b\n" % (personal, broadcasts)


def chunk_around_place(events: Sequence[tuple[bytes, bytes]], length: int) -> list[bytes]:
    """The pieces of one chunk of (place on `broadcasts`, event), to be joined by a place of this length.

    Connections differ in their place on the personal channel alone, so one `join` makes the chunk for each.
    """
    pieces = [b""]
    for place, text in events:
        pieces[-1] += b"id: 1!"
        pieces.append(b"!%b\n%b" % (place, text))
    size = sum(map(len, pieces)) + len(events) * length
    pieces[0] = b"%x\r\n%b" % (size, pieces[0])
    pieces[-1] += b"\r\n"
    return pieces


def comment(text: str = "") -> bytes:
    """A line that browsers ignore."""
    return b": %b\n\n" % text.encode()


def ready(connection_id: str, counts: bytes) -> bytes:
    """The first event: the connection's id, and the members of `counts` (a JSON object, or empty)."""
    members = counts.strip()[1:-1].strip()
    comma = b"," if members else b""
    return event(
        "ready", b'{"kind":"ready","connection":"%b"%b%b}' % (connection_id.encode(), comma, members)
    )


def gap() -> bytes:
    """Something was missed for good: refetch."""
    return event("gap", b'{"kind":"gap"}')


def reconnect(reason: str, retry_ms: int | None = None) -> bytes:
    """The server ends the stream; the browser comes back by itself after `retry_ms`."""
    word = re.sub(r"[^a-z0-9_]+", "_", reason.lower())[:64]
    return event("reconnect", b'{"kind":"reconnect","reason":"%b"}' % word.encode(), retry_ms)


def chunk(data: bytes) -> bytes:
    """One chunk of HTTP/1.1's chunked coding (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
