"""Opaque cursors of lists: small texts that only say where the next page begins. A foreign one is refused."""

import base64
import binascii
from typing import Final

from hub.errors import FieldError, Refused

_LIMIT: Final = 600


def encode_cursor(*parts: str | int) -> str:
    """A cursor from the sort key of the last row of a page."""
    return base64.urlsafe_b64encode("\n".join(map(str, parts)).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, parts: int) -> list[str]:
    """The inverse. Raises `Refused(422, "invalid_cursor")` for what was not given out by this list."""
    try:
        if len(cursor) > _LIMIT:
            raise ValueError
        found = (
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            .decode()
            .split("\n")
        )
        if len(found) != parts or not all(part.isprintable() for part in found):
            raise ValueError
    except (ValueError, binascii.Error):
        raise invalid_cursor() from None
    return found


def invalid_cursor() -> Refused:
    """The one refusal for every cursor that cannot be used."""
    return Refused(
        422,
        "invalid_cursor",
        "The cursor is not one that this list gave. Begin again without it.",
        [FieldError("/cursor", "invalid_cursor", "Not a cursor of this list.")],
    )
