"""The clock: the only way by which the product knows what time it is."""

from typing import Protocol


class Clock(Protocol):
    """The wall clock. Tests move it."""

    def now_us(self) -> int:
        """Microseconds since 1970, UTC."""
        ...
