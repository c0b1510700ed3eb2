"""Token buckets: how many calls a user may make. Per process; a bucket that is forgotten is a full one.

Memory is bounded by `MAX_BUCKETS`: beyond it the bucket that was used longest ago is forgotten.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Final

from hub.errors import Refused

if TYPE_CHECKING:  # settings hold limits, and are read before anything heavy is loaded
    from hub.ports import Clock

MAX_BUCKETS: Final = 100_000

_RATE = re.compile(r"(\d{1,9})/(?:(\d{1,6}))?([smhd])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many calls in so many seconds."""

    count: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> "RateLimit | None":
        """Read `600/m`, `10/s`, `100/5m`; `none` switches the limit off. Raises ValueError."""
        if text.strip().lower() == "none":
            return None
        match = _RATE.fullmatch(text.strip())
        if not match or int(match[1]) < 1 or (match[2] and int(match[2]) < 1):
            raise ValueError
        return cls(int(match[1]), int(match[2] or 1) * _UNIT_SECONDS[match[3]])


class RateLimiter:
    """Counts the calls of each user against one limit; None: no limit."""

    def __init__(self, limit: RateLimit | None, clock: "Clock") -> None:
        self._clock = clock
        self._limit = limit
        self._buckets: OrderedDict[str, tuple[float, int]] = OrderedDict()  # calls left, at which moment

    def check(self, user_id: str) -> None:
        """Count one call. Raises `Refused(429)` with the seconds after which one more is allowed."""
        if self._limit is None:
            return
        now_us = self._clock.now_us()
        per_us = self._limit.count / (self._limit.seconds * 1_000_000)
        left, at_us = self._buckets.pop(user_id, (float(self._limit.count), now_us))
        left = min(self._limit.count, left + max(0, now_us - at_us) * per_us)
        refused = left < 1
        self._buckets[user_id] = (left if refused else left - 1, now_us)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if refused:
            wait = max(1, ceil((1 - left) / per_us / 1_000_000))
            raise Refused(
                429,
                "rate_limited",
                f"At most {self._limit.count} calls in {self._limit.seconds} s; try again in {wait} s.",
                retry_after_seconds=wait,
            )
