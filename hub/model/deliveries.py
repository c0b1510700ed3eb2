"""Deliveries: one notification on one addressed channel for one user, and the one table of their allowed moves.

A delivery waits (`held` for a reason that may go away, `queued` because it is due, `failed` until it is tried again),
is `sending` while an attempt runs, and ends. Every move is a conditional change of its row.
"""

from typing import Final

from msgspec import Struct

from hub.model.vocabulary import Channel


class Delivery(Struct, frozen=True, omit_defaults=True):
    """A planned delivery. `condition` says what cancels it while it waits.

    `attempts`: how often it was begun. `lapses`: how often a process that had it died or froze. `served`: targets (of
    several) that took it already. `throttled`: it counts against its type's throttle. `tried_at_us`: the first attempt.
    """

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
    throttled: bool = False
    attempts: int = 0
    lapses: int = 0
    tried_at_us: int | None = None
    served: tuple[str, ...] = ()
    slice_key: str = ""
    reason: str | None = None  # why it is in its state, as far as there is more to say
    provider: str | None = None  # who decided last


MOVES: Final[dict[str, frozenset[str]]] = {
    "held": frozenset({"queued", "cancelled", "expired", "dead"}),
    "queued": frozenset({"sending", "held", "cancelled", "expired", "failed", "dead"}),
    "sending": frozenset({"sent", "failed", "dead", "unknown", "queued", "expired"}),
    "failed": frozenset({"queued", "sending", "cancelled", "expired", "dead"}),
    "sent": frozenset({"delivered", "failed", "dead"}),
    "unknown": frozenset({"sent", "delivered", "dead", "queued"}),
    "delivered": frozenset(),
    "cancelled": frozenset(),
    "expired": frozenset(),
    "dead": frozenset({"queued"}),
}
"""Every move that a delivery may make. A state without moves is final; `dead` is left only by an operator's replay.

So is `unknown`, other than by what its provider reports: whoever replays it accepts that it may arrive twice.
"""

CANCEL_REASONS: Final = frozenset({"reached", "seen", "retracted", "erased", "collapsed", "preferences"})


def may_move(state: str, to: str) -> bool:
    """Tell whether the table allows this move. Raises KeyError for a state that does not exist."""
    return to in MOVES[state]
