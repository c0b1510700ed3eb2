"""Deliveries: one notification on one addressed channel for one user, and the one table of their allowed moves."""

from typing import Final

from msgspec import Struct

from hub.model.vocabulary import Channel


class Delivery(Struct, frozen=True, omit_defaults=True):
    """A planned delivery. `condition` says what cancels it while it is held."""

    id: str
    user_id: str
    notification_id: str
    event_id: str
    type: str
    category: str
    channel: Channel
    state: str  # a key of MOVES
    created_at_us: int
    due_at_us: int
    condition: str = "always"  # "offline": cancelled by reached; "unseen": cancelled by seen
    digest_key: str | None = None
    expires_at_us: int | None = None
    fallback: tuple[Channel, ...] = ()


MOVES: Final[dict[str, frozenset[str]]] = {
    "held": frozenset({"queued", "cancelled", "expired"}),
    "queued": frozenset({"sending", "held", "cancelled", "expired"}),
    "sending": frozenset({"sent", "failed", "dead", "unknown", "queued", "expired"}),
    "failed": frozenset({"queued", "sending", "cancelled", "expired", "dead"}),
    "sent": frozenset({"delivered", "failed", "dead"}),
    "unknown": frozenset({"sent", "delivered", "dead"}),
    "delivered": frozenset(),
    "cancelled": frozenset(),
    "expired": frozenset(),
    "dead": frozenset(),
}
"""Every move that a delivery may make. A state without moves is final."""

CANCEL_REASONS: Final = frozenset({"reached", "seen", "retracted", "erased", "collapsed"})


def may_move(state: str, to: str) -> bool:
    """Tell whether the table allows this move. Raises KeyError for a state that does not exist."""
    return to in MOVES[state]
