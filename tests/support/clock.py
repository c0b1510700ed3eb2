"""A clock that stands still until a test moves it (`hub.ports.Clock`)."""


class FakeClock:
    """Starts on 2026-01-05 (a Monday), 12:00 UTC."""

    def __init__(self, now_us: int = 1_767_614_400_000_000) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        return self._now_us

    def advance(self, seconds: float) -> int:
        """Move on; returns the new moment."""
        self._now_us += round(seconds * 1_000_000)
        return self._now_us

    def set(self, now_us: int) -> None:
        self._now_us = now_us
