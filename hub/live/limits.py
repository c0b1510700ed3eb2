"""What one node allows its clients: bounds and times of connections, and calls per name."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds and times of live connections; the defaults are the protocol's."""

    connections: int = 100_000  # on this node
    connections_per_user: int = 100
    message_bytes: int = 64 * 1024
    queue_bytes: int = 1024 * 1024  # waiting for one slow client
    write_buffer_bytes: int = 32 * 1024
    recovery_bytes: int = 1024 * 1024  # of missed publications in one answer; beyond it the client refetches
    connect_seconds: float = 10.0  # until it is authenticated
    ping_seconds: int = 25
    pong_seconds: float = 8.0
    heartbeat_seconds: float = 15.0  # SSE comments
    proof_seconds: float = (
        0.5  # between pings that ask whether a notification was read; their pongs count as commands
    )
    alive_seconds: float = 1.0  # SSE: all that was written has left after this long: counts as read
    expiry_grace_seconds: float = 25.0  # WebSocket: to refresh a token that expired
    linger_seconds: float = 2.0  # for the closing handshake
    drain_seconds: float = 0.3


class Limiter(Protocol):
    """Counts calls by name, as `hub.ratelimit.RateLimiter` does."""

    def check(self, name: str, /) -> None:
        """Count one call. Raises `Refused(429)` with the seconds after which one more is allowed."""
        ...
