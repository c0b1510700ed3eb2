"""The browsers that take web push, and what their service workers report: a part of the store.

A subscription belongs to whoever used its endpoint last. Saving, removing and reporting may be repeated.
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, Protocol

from msgspec import Struct

from hub.ports.rows import LogEntry

PushEvent = Literal["shown", "clicked", "closed"]


class PushSubscription(Struct, frozen=True):
    """A browser's subscription. `id` follows from the endpoint; `p256dh` and `auth` are its keys in base64url."""

    id: str
    user_id: str
    endpoint: str
    p256dh: str
    auth: str
    created_at_us: int
    used_at_us: int

    def __repr__(self) -> str:
        """Without the endpoint and the keys, which only browser and hub know."""
        return f"PushSubscription({self.id!r}, {self.user_id!r})"


class PushReceipt(NamedTuple):
    """What a report changed: the lines that were logged. `is_early`: the delivery is still being sent."""

    entries: Sequence[LogEntry]
    is_early: bool = False


class PushSubscriptionStore(Protocol):
    """Subscriptions, and receipts of what was sent to them."""

    async def save_subscription(self, subscription: PushSubscription, keep: int) -> None:
        """Keep it (creating the user). A known id moves to this user, as if new. Of a user's, the `keep` used last stay."""
        ...

    async def subscriptions_of(self, user_ids: Collection[str]) -> dict[str, list[PushSubscription]]:
        """The subscriptions of each of these users that has any, the one used last first."""
        ...

    async def remove_subscription(self, subscription_id: str, user_id: str | None = None) -> bool:
        """Remove it, if it is this user's (None: whosever it is). False: there was none."""
        ...

    async def note_receipt(
        self, user_id: str, delivery_id: str, event: PushEvent, at_us: int
    ) -> PushReceipt | None:
        """Log what a service worker reported, and move the delivery to `delivered` where it may move there.

        One that still is `sending` is left alone (`is_early`, nothing is logged): report it again in a moment. None:
        the user has no such delivery (any more).
        """
        ...
