"""The small words that everyone shares: channels, moments, live channels, partitions.

Moments are whole microseconds since 1970 in UTC (`…_us`), in memory and in SQL; RFC 3339 appears only at the edges.
"""

import re
from enum import StrEnum
from typing import Final, Literal
from zlib import crc32


class Channel(StrEnum):
    """A way by which a notification reaches a user."""

    IN_APP = "in_app"
    EMAIL = "email"
    SMS = "sms"
    WEB_PUSH = "web_push"
    MOBILE_PUSH = "mobile_push"


PUSH: Final = frozenset({Channel.WEB_PUSH, Channel.MOBILE_PUSH})


When = Literal["always", "offline", "unseen", "never"]
Priority = Literal["low", "normal", "high"]
Mark = Literal["seen", "read", "unread", "archive", "unarchive"]

# `$` alone would let a final newline pass; the look-ahead is the same in Python and in ECMA 262 (OpenAPI).
ID_PATTERN: Final = r"^[A-Za-z0-9._:@+|~=\-]{1,128}(?!\n)$"
CLOCK_TIME_PATTERN: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9](?!\n)$"
_ID: Final = re.compile(ID_PATTERN)

LANE: Final = "lane"  # the partition of broadcasts
EXPANSION: Final = "expansion"  # the lease of who expands them on addressed channels
BROADCASTS: Final = "broadcasts"  # their live channel
LOG: Final = "log"  # the operators' live channel


def is_id(text: str) -> bool:
    """Tell whether a text may name a user, topic, type or category."""
    return _ID.fullmatch(text) is not None


def partition_of(user_id: str, partitions: int) -> int:
    """The partition, 0 to `partitions` - 1, that plans everything addressed to this user."""
    return crc32(user_id.encode()) % partitions


def personal_channel(user_id: str) -> str:
    """The live channel of one user."""
    return "#" + user_id
