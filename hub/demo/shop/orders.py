"""The shop's side: customers, what they buy, and the events that the shop publishes. Pure but for the dice."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

from hub.demo.people import Person

Json = dict[str, Any]
SENDER: Final = "The Shop <orders@shop.example>"
GOODS: Final = (
    ("Teapot", 2490),
    ("Cup", 690),
    ("Green tea, 100 g", 890),
    ("Tea strainer", 450),
    ("Honey", 720),
)
PLACES: Final = ("the station's kiosk", "the bakery", "the post office")


def customers(moment: datetime) -> list[Person]:
    """The customers of the story. `moment`: now, in UTC; somebody has quiet hours around it."""
    asleep = {
        "start": f"{moment - timedelta(hours=1):%H:%M}",
        "end": f"{moment + timedelta(hours=2):%H:%M}",
    }
    no_mail_nor_sms = {"channels": {"email": False, "sms": False}}
    return [
        Person("ada", "Ada", "takes e-mail, SMS and push", phone="+15005550101", has_browser=True),
        Person("ben", "Ben", "chose push and nothing else", phone="+15005550102", has_browser=True,
               preferences=no_mail_nor_sms),
        Person("cleo", "Cleo", f"has quiet hours until {asleep['end']} UTC", has_browser=True,
               preferences={"quiet_hours": asleep}),
        Person("dora", "Dora", "has e-mail and a phone, but no browser that takes push", phone="+15005550104"),
        Person("emil", "Emil", "has the shop open in a tab"),
    ]  # fmt: skip


class Shop:
    """Numbers its orders; `dice` decide what people buy."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._numbers: Iterator[int] = count(10_001)

    def number(self) -> str:
        """The number of a new order. All are equally long, so that none is a part of another."""
        return f"S-{next(self._numbers)}"

    def paid(self, customer: str, number: str) -> Json:
        """A customer paid."""
        bought = self._dice.sample(GOODS, self._dice.randint(1, 3))
        items, total = [], 0
        for name, cents in bought:
            pieces = self._dice.randint(1, 4)
            total += pieces * cents
            items.append({"name": name, "count": pieces, "price": money(pieces * cents)})
        data = {"number": number, "items": items, "total": money(total)}
        return {"type": "order.paid", "to": customer, "data": data}

    def shipped(self, customer: str, number: str) -> Json:
        """A parcel left the shop."""
        data = {"number": number, "carrier": "Parcel Bikes", "day": "tomorrow"}
        return {"type": "order.shipped", "to": customer, "data": data}

    def waiting(self, customer: str, number: str) -> Json:
        """A parcel waits to be picked up."""
        data = {"number": number, "place": self._dice.choice(PLACES), "until": "Friday"}
        return {"type": "parcel.waiting", "to": customer, "data": data}


def money(cents: int) -> str:
    """An amount."""
    return f"{cents / 100:.2f} EUR"


def utc_now() -> datetime:
    """The moment."""
    return datetime.now(UTC)
