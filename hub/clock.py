"""The system's wall clock, behind the `Clock` port."""

import time


class SystemClock:
    """Microseconds since 1970, UTC, as the machine believes."""

    def now_us(self) -> int:
        """The moment."""
        return time.time_ns() // 1000
