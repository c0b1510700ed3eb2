"""Lists whose order is one text: their page, and the cursor that begins the next one."""

from collections.abc import Sequence
from typing import TypeVar

from hub.paging import decode_cursor, encode_cursor

T = TypeVar("T")


def after_of(cursor: str | None) -> str | None:
    """The last key of the page before. Raises `Refused(422, "invalid_cursor")`."""
    return decode_cursor(cursor, 1)[0] if cursor is not None else None


def next_of(rows: Sequence[object], limit: int, last: str) -> str | None:
    """The cursor behind a page that was read with one row too many."""
    return encode_cursor(last) if len(rows) > limit else None


def page_of_names(names: Sequence[str], limit: int, cursor: str | None) -> tuple[Sequence[str], str | None]:
    """A page of names that are all at hand, and the cursor behind it."""
    after = after_of(cursor)
    left = [name for name in sorted(names) if after is None or name > after]
    return left[:limit], (encode_cursor(left[limit - 1]) if len(left) > limit else None)
