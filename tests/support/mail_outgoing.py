"""Outgoing deliveries for tests of e-mails, with everything that needs no thought filled in."""

from collections.abc import Mapping, Sequence
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from hub.model.deliveries import Delivery
from hub.model.events import Event
from hub.model.notifications import Content
from hub.model.outgoing import Item, Outgoing, Target
from hub.model.types import ChannelRule, TypeDefinition, TypeVersion
from hub.model.users import Profile, User
from hub.model.vocabulary import Channel
from tests.support.stores import NOW_US
from workers.channels.email import email_sender
from workers.channels.mail_message import Mail

DELIVERY_ID = "dlv_01234567890123456789abcdef_0123456789ab_email"
PAID = Content("Order 7 is paid", "Thank you.\n\nIt ships tomorrow.", "https://shop.example.com/orders/7")
FROM = "Shop <shop@example.com>"
DOMAIN = "hub.example.com"
URLS = {
    "preferences": "https://hub.example.com/preferences",
    "unsubscribe": "https://hub.example.com/unsubscribe/" + "t" * 400,
}


def item(content: Content = PAID, number: int = 1, **data: Any) -> Item:
    """One notification."""
    event = Event(f"evt_{number}", "order.paid", NOW_US, "http:key", 1, data=data or {"number": number})
    return Item(f"ntf_{number}", content, event, NOW_US + number)


def outgoing(
    *items: Item,
    name: str | None = "Bob",
    address: str = "bob@example.com",
    locale: str | None = None,
    texts: Mapping[str, str] | None = None,
    urls: Mapping[str, str] = URLS,
    definition: TypeDefinition | None = None,
    is_repeat: bool = False,
    due_at_us: int = NOW_US,
) -> Outgoing:
    """A delivery of `order.paid` to Bob; `texts`: the e-mail templates of its type."""
    rule = ChannelRule(**(texts or {}))  # type: ignore[arg-type]
    definition = definition or TypeDefinition(
        "orders", title="t", body="b", channels={Channel.EMAIL: rule}, critical=False
    )
    return Outgoing(
        delivery=Delivery(
            DELIVERY_ID,
            "bob",
            "ntf_1",
            "evt_1",
            "order.paid",
            "orders",
            Channel.EMAIL,
            "sending",
            NOW_US,
            due_at_us,
        ),
        user=User(Profile("bob", name=name, email=address, locale=locale)),
        kind=TypeVersion("order.paid", 1, definition),
        category=None,
        items=items or (item(),),
        targets=(Target(address, address),),
        urls=urls,
        is_repeat=is_repeat,
    )


def compose(given: Outgoing, sender: str = FROM, domain: str = DOMAIN) -> Mail:
    """The message."""
    mail: Mail = email_sender((), sender, domain).compose(given)
    return mail


def parsed(given: Outgoing, **more: str) -> EmailMessage:
    """The message as the standard library reads it."""
    return parse(compose(given, **more).content)


def parse(content: bytes) -> EmailMessage:
    """A message as the standard library reads it; it must have no defects."""
    message = message_from_bytes(content, policy=default)
    assert isinstance(message, EmailMessage)
    assert not [defect for part in message.walk() for defect in part.defects]
    return message


def part(message: EmailMessage, kind: str) -> str:
    """The text or HTML of a message."""
    found = message.get_body((kind,))
    assert found is not None
    text: str = found.get_content()
    return text.replace("\r\n", "\n")


def lines_of(content: bytes) -> Sequence[bytes]:
    """The lines of a message, every one of which must end in CRLF."""
    assert content.endswith(b"\r\n")
    lines = content.split(b"\r\n")
    assert not [line for line in lines if b"\r" in line or b"\n" in line]
    return lines
