"""Builders of what channels compose messages of."""

from collections.abc import Sequence
from typing import Any

from hub.model.deliveries import Delivery
from hub.model.events import Event
from hub.model.notifications import Content, notification_id
from hub.model.outgoing import Item, Outgoing, Target
from hub.model.types import CategoryDefinition, ChannelRule, TypeDefinition, TypeVersion
from hub.model.users import Profile, User
from hub.model.vocabulary import Channel

NOW_US = 1_767_614_400_000_000


def item_of(number: int = 1, content: Content | None = None, **event: Any) -> Item:
    """One notification, the `number`th of its event ids."""
    one = Event(f"evt_{number}", "order.paid", NOW_US + number, "http:key", 1, **event)
    shown = content or Content(title=f"Order {number} is paid", body=f"Thank you for order {number}.")
    return Item(notification_id(one.id, "alice"), shown, one, NOW_US + number)


def outgoing_of(
    channel: Channel,
    items: Sequence[Item] = (),
    *,
    rule: ChannelRule | None = None,
    category: CategoryDefinition | None = None,
    locale: str | None = None,
    targets: Sequence[Target] = (),
    expires_at_us: int | None = None,
    **definition: Any,
) -> Outgoing:
    """A delivery to alice, ready to be composed."""
    given = list(items) or [item_of()]
    newest = given[-1]
    delivery = Delivery(
        id=f"dlv_{newest.event.id}",
        user_id="alice",
        notification_id=newest.notification_id,
        event_id=newest.event.id,
        type="order.paid",
        category="orders",
        channel=channel,
        state="sending",
        created_at_us=NOW_US,
        due_at_us=NOW_US,
        expires_at_us=expires_at_us,
    )
    kind = TypeVersion(
        "order.paid",
        1,
        TypeDefinition(category="orders", channels={channel: rule or ChannelRule()}, **definition),
    )
    user = User(Profile("alice", name="Alice", phone="+821012345678", locale=locale))
    return Outgoing(delivery, user, kind, category, tuple(given), tuple(targets))
