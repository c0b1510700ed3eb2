"""Headers with a grammar of their own: ETag, If-Match, Idempotency-Key, Content-Type."""

import re
from typing import Final

from hub.errors import Refused
from hub.versions import IfMatch

_ETAG: Final = re.compile(r'\s*(W/)?"([^"\x00-\x20]*)"\s*')
_KEY: Final = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")  # printable ASCII, no space at the ends
_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')  # RFC 8941 §3.3.3, a string


def etag_of(version: int) -> tuple[bytes, bytes]:
    """The ETag header of a version."""
    return b"etag", b'"%d"' % version


def if_match_of(given: bytes | None) -> IfMatch:
    """The versions of an If-Match header (RFC 9110 §13.1.1); a weak or foreign tag matches nothing."""
    if given is None or given.strip() == b"*":
        return None
    found = set()
    for one in given.decode("latin-1").split(","):
        tag = _ETAG.fullmatch(one)
        if tag is None:
            raise Refused(400, "malformed_request", 'If-Match must be * or ETags in quotes, as in "3".')
        if tag[1] is None and tag[2].isascii() and tag[2].isdecimal() and len(tag[2]) < 16:
            found.add(int(tag[2]))
    return frozenset(found)


def idempotency_key_of(given: bytes | None) -> str | None:
    """The key, bare or quoted. Raises `Refused(400)`."""
    if given is None:
        return None
    text = given.decode("latin-1").strip()
    if text.startswith('"'):
        quoted = _QUOTED.fullmatch(text)
        text = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
    if not _KEY.fullmatch(text):
        raise Refused(
            400, "invalid_idempotency_key", "Idempotency-Key must be 1 to 255 printable ASCII characters."
        )
    return text


def media_type_of(given: bytes | None) -> str:
    """The media type of the body without parameters, in lower case; "" when it is not said."""
    return given.decode("latin-1").partition(";")[0].strip().lower() if given else ""
