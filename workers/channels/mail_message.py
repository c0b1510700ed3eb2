"""One e-mail as bytes: headers that nobody can break out of, a text part and an HTML part (RFC 5322, 2045 to 2047).

Written by hand, since every delivery is one: what the standard library's generator does for a message takes many times
as long. All of it is ASCII in lines of at most 998 characters, unless the part of an address before the @ is not.
"""

import re
from base64 import b64encode, encodebytes
from binascii import b2a_qp
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Final
from unicodedata import category

from msgspec import Struct

NAME_LIMIT: Final = 100
LINE_LIMIT: Final = 78  # RFC 5322 §2.1.1: should; the limit is 998
_WORD_LIMIT: Final = 75  # RFC 2047 §2
_UNSENDABLE: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNING: Final = frozenset(
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)  # they reorder what stands beside
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9 !#$%&'*+/=?^_`{|}~.,@:;()<>\[\]\\\"-]+")


class Mail(Struct, frozen=True):
    """What goes over SMTP: the envelope's sender, and the message with CRLF at the end of each line.

    `needs_utf8`: an address is not ASCII before its @, so that the server must offer SMTPUTF8 (RFC 6531).
    """

    sender: str
    content: bytes
    needs_utf8: bool = False


def is_clean(text: str) -> bool:
    """Tell whether a text has no control characters, line ends, lone surrogates, or marks that turn the direction."""
    if text.isascii() and text.isprintable():
        return True
    return not any(char in _TURNING or category(char) in _UNSENDABLE for char in text)


def one_line(text: str, limit: int) -> str:
    """A text in one clean line of at most so many characters."""
    beginning = text[: limit * 10]
    if not is_clean(beginning):
        beginning = "".join(char if is_clean(char) else " " for char in beginning)
    line = " ".join(beginning.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def header(name: str, text: str) -> str:
    """An unstructured header, folded. `text` must be one clean line; beyond ASCII it becomes encoded words."""
    if text.isascii() and "=?" not in text:
        return _folded(f"{name}: {text}")
    return f"{name}: " + "\r\n ".join(_encoded_words(text, len(name) + 2)) + "\r\n"


def address_header(name: str, address: str, display: str | None = None) -> str:
    """A header with one address. The display name stands there only when it is clean and not absurdly long."""
    if not display or len(display) > NAME_LIMIT or not is_clean(display) or not display.strip():
        return f"{name}: <{address}>\r\n" if display else f"{name}: {address}\r\n"
    shown = display.strip()
    if _PLAIN_NAME.fullmatch(shown) and "=?" not in shown:
        quoted = re.sub(r'([\\"])', r"\\\1", shown)
        phrase = f'"{quoted}"'
    else:
        phrase = "\r\n ".join(_encoded_words(shown, len(name) + 2))
    last = len(f"{name}: {phrase}".rpartition("\r\n")[2])
    gap = " " if last + len(address) + 3 <= LINE_LIMIT else "\r\n "
    return f"{name}: {phrase}{gap}<{address}>\r\n"


def date_header(moment_us: int) -> str:
    """The Date header of a moment."""
    return _date_header(moment_us // 1_000_000)


@lru_cache(maxsize=256)
def _date_header(second: int) -> str:
    return f"Date: {format_datetime(datetime.fromtimestamp(second, UTC))}\r\n"


def alternatives(text: str, html: str | None, seed: str) -> bytes:
    """The MIME headers and the body: text and HTML of the same, or text alone. `seed` names the message."""
    first = "MIME-Version: 1.0\r\n"
    if html is None:
        return first.encode() + _part("plain", text)
    # No encoded text holds "=_": in quoted-printable two digits follow an equals sign.
    boundary = f"=_{blake2b(seed.encode(), digest_size=12).hexdigest()}"
    head = f'{first}Content-Type: multipart/alternative; boundary="{boundary}"\r\n\r\n'
    opening = f"--{boundary}\r\n".encode()
    parts = opening + _part("plain", text) + b"\r\n" + opening + _part("html", html)
    return head.encode() + parts + f"\r\n--{boundary}--\r\n".encode()


def _part(kind: str, text: str) -> bytes:
    raw = text.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace")
    if not raw.endswith(b"\n"):
        raw += b"\n"
    if raw.isascii() and max(map(len, raw.split(b"\n"))) <= 900:
        charset, coding, body = "us-ascii", "7bit", raw
    elif _beyond_ascii(raw) * 6 > len(raw):
        charset, coding, body = "utf-8", "base64", encodebytes(raw)
    else:
        charset, coding, body = "utf-8", "quoted-printable", b2a_qp(raw, istext=True)
    head = f"Content-Type: text/{kind}; charset={charset}\r\nContent-Transfer-Encoding: {coding}\r\n\r\n"
    return head.encode() + body.replace(b"\n", b"\r\n")


def _beyond_ascii(raw: bytes) -> int:
    return len(raw) - len(raw.decode("ascii", "ignore"))


def _folded(line: str) -> str:
    """A header in several lines, broken before spaces (RFC 5322 §2.2.3)."""
    lines = [""]
    for number, word in enumerate(line.split(" ")):
        piece = f" {word}" if number else word
        if number > 1 and len(lines[-1]) + len(piece) > LINE_LIMIT:  # never right after the header's name
            lines.append(piece)
        else:
            lines[-1] += piece
    return "\r\n".join(lines) + "\r\n"


def _encoded_words(text: str, indent: int) -> Iterator[str]:
    """Encoded words (RFC 2047 §2, "B"), each of whole characters. `indent`: what stands before the first."""
    room = _bytes_in(LINE_LIMIT - 2 - indent)
    chunk = b""
    for char in text:
        raw = char.encode("utf-8", "replace")
        if chunk and len(chunk) + len(raw) > room:
            yield f"=?utf-8?b?{b64encode(chunk).decode()}?="
            chunk, room = b"", _bytes_in(_WORD_LIMIT)
        chunk += raw
    yield f"=?utf-8?b?{b64encode(chunk).decode()}?="


def _bytes_in(characters: int) -> int:
    return max((characters - len("=?utf-8?b??=")) // 4 * 3, 9)
