"""What one node allows its clients."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """Bounds on connections."""

    connections: int = 100_000
    connections_per_user: int = 100


class Limiter(Protocol):
    """Counts calls by name, as `hub.ratelimit.RateLimiter` does."""

    def check(self, name: str, /) -> None:
        """Count one call. Raises `Refused(429)` with the seconds after which one more is allowed."""
        ...
