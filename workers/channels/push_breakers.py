"""Breakers of push services: one that is down is left alone for a while, and the others do not notice.

The engine's breaker is for a provider as a whole, and `web_push` is one provider with a handful of services behind
it. Only what a service does to everybody counts here (no connection, no answer, 5xx), never what it says about one
subscription: anybody can register one that is always refused.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

FAILURES: Final = 5  # in a row
PAUSES_SECONDS: Final = (5, 15, 60, 120)
TRIAL_SECONDS: Final = 30  # how long one message tries for all; longer than any attempt lasts
ORIGINS: Final = 500


@dataclass(slots=True)
class _Breaker:
    failures: int = 0
    open_until_us: int = 0


class Breakers:
    """One breaker per origin, closed until it failed often enough."""

    def __init__(self) -> None:
        self._by_origin: OrderedDict[str, _Breaker] = OrderedDict()

    def wait_seconds(self, origin: str, now_us: int) -> float | None:
        """How long the origin must be left alone; None: ask it now (and tell how it went)."""
        breaker = self._by_origin.get(origin)
        if breaker is None or breaker.failures < FAILURES:
            return None
        if now_us < breaker.open_until_us:
            return (breaker.open_until_us - now_us) / 1_000_000
        breaker.open_until_us = now_us + TRIAL_SECONDS * 1_000_000  # half open: the others go on waiting
        return None

    def worked(self, origin: str) -> None:
        """It answered: closed."""
        self._by_origin.pop(origin, None)

    def failed(self, origin: str, now_us: int) -> bool:
        """It did not work. True: that opened its breaker."""
        breaker = self._by_origin.setdefault(origin, _Breaker())
        self._by_origin.move_to_end(origin)
        if len(self._by_origin) > ORIGINS:
            self._by_origin.popitem(last=False)
        breaker.failures += 1
        if breaker.failures < FAILURES:
            return False
        pause = PAUSES_SECONDS[min(breaker.failures - FAILURES, len(PAUSES_SECONDS) - 1)]
        breaker.open_until_us = now_us + pause * 1_000_000
        return breaker.failures == FAILURES
