"""Outgoing: all that a channel needs to know to make one message of one delivery. Pure data.

`Outgoing` is put together by the sender right before an attempt, from rows of that moment; a channel's `compose`
turns it into the channel's own message (`workers.channels`).
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from hub.model.deliveries import Delivery
from hub.model.events import Event
from hub.model.notifications import Content
from hub.model.types import CategoryDefinition, TypeVersion
from hub.model.users import Profile, User


class Target(Struct, frozen=True):
    """Where one message goes: an e-mail address, a phone number, a browser's subscription, a device's token.

    `id` names it within its channel without saying what it is (for addresses they are the same). `keys`: what the
    channel needs beside the address (`p256dh` and `auth` of a subscription, `platform` of a device).
    """

    id: str
    address: str
    keys: Mapping[str, str] = {}


class Item(Struct, frozen=True):
    """One notification that a message tells of: as the app shows it, and its whole event."""

    notification_id: str
    content: Content
    event: Event
    created_at_us: int


class Outgoing(Struct, frozen=True):
    """One delivery (or a digest of several), ready to be composed. `items`: oldest first; more than one in a digest.

    `urls`: `preferences`, `unsubscribe` (signed, for this user and category), `receipt` (signed, for this delivery; push).
    `is_repeat`: an earlier attempt may have reached the provider (its process died in between).
    """

    delivery: Delivery
    user: User
    kind: TypeVersion
    category: CategoryDefinition | None
    items: tuple[Item, ...]
    targets: tuple[Target, ...]
    urls: Mapping[str, str] = {}
    actor: Profile | None = None
    is_repeat: bool = False

    @property
    def newest(self) -> Item:
        """The newest of the items: what a single message shows."""
        return self.items[-1]


def variables(outgoing: Outgoing) -> dict[str, Any]:
    """What templates of addressed channels get: those of the app, with all items of a digest and their number."""
    from hub.model.contents import template_variables  # templates take a while to load, and ports load this

    newest = outgoing.newest
    given = template_variables(
        newest.event, outgoing.kind, outgoing.user.profile, outgoing.actor, outgoing.urls
    )
    return {**given, "items": [item.event.data for item in outgoing.items], "count": len(outgoing.items)}
