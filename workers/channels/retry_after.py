"""The Retry-After header (RFC 9110 §10.2.3): a number of seconds or a date, as seconds from now."""

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_SECONDS: Final = 86_400.0  # whoever asks for more is not waited for longer


def retry_after_seconds(header: str | None, now_us: int) -> float | None:
    """How long the header asks to wait, from 0 to a day; None without one, or when it says nothing readable."""
    text = (header or "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_SECONDS)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now_us / 1_000_000
    return min(max(seconds, 0.0), LONGEST_SECONDS)
