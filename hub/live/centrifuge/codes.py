"""The protocol's numbers (§10): errors, which answer a command, and disconnects, which end the connection."""

from dataclasses import dataclass
from typing import Final

from hub.errors import Refused

INTERNAL, PERMISSION, NO_METHOD, ALREADY_SUBSCRIBED, BAD_REQUEST = 100, 103, 104, 105, 107
NOT_AVAILABLE, TOKEN_EXPIRED, TOO_MANY, UNRECOVERABLE = 108, 109, 111, 112
ERRORS: Final = {
    INTERNAL: ("internal server error", True),
    PERMISSION: ("permission denied", False),
    NO_METHOD: ("method not found", False),
    ALREADY_SUBSCRIBED: ("already subscribed", False),
    BAD_REQUEST: ("bad request", False),
    NOT_AVAILABLE: ("not available", False),
    TOKEN_EXPIRED: ("token expired", False),
    TOO_MANY: ("too many requests", True),
    UNRECOVERABLE: ("unrecoverable position", False),
}
_OF_STATUS: Final = {
    400: BAD_REQUEST,
    401: PERMISSION,
    403: PERMISSION,
    404: NO_METHOD,
    422: BAD_REQUEST,
    429: TOO_MANY,
}


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection with this code and reason."""

    code: int
    reason: str


SHUTDOWN: Final = Disconnect(3001, "shutdown")
SERVER_ERROR: Final = Disconnect(3004, "internal server error")
EXPIRED: Final = Disconnect(3005, "connection expired")
SLOW: Final = Disconnect(3008, "slow")
GAP: Final = Disconnect(3010, "insufficient state")
NO_PONG: Final = Disconnect(3012, "no pong")
FLOOD: Final = Disconnect(3013, "too many requests")
INVALID_TOKEN: Final = Disconnect(3500, "invalid token")
BAD: Final = Disconnect(3501, "bad request")
STALE: Final = Disconnect(3502, "stale")
LIMIT: Final = Disconnect(3504, "connection limit")
UNAVAILABLE: Final = Disconnect(3508, "not available")


def error_code(refused: Refused) -> int:
    """The protocol's code for a refusal of the use cases."""
    return _OF_STATUS.get(refused.status, INTERNAL)
