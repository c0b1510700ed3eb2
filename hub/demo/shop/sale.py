"""A sale: an ordinary time of the shop, then twenty times its traffic, and what became of every single message."""

import asyncio
import random
from dataclasses import dataclass
from typing import Any, Final

from hub.demo.people import Person
from hub.demo.shop.orders import Shop
from hub.demo.stage import Stage, now
from hub.model.vocabulary import Channel

Json = dict[str, Any]
CUSTOMERS: Final = 200
ORDINARY_PER_SECOND: Final = 3.0  # events; two of three are paid orders
TIMES: Final = 20
TICK_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 60.0  # after the last event
ALL: Final = frozenset({Channel.EMAIL, Channel.WEB_PUSH})

# Of ten customers: what they want, and what they therefore may get.
CHOICES: Final[tuple[tuple[Json, frozenset[Channel]], ...]] = (
    *[({}, ALL)] * 6,
    *[({"channels": {"email": False}}, frozenset({Channel.WEB_PUSH}))] * 2,
    ({"channels": {"web_push": False}}, frozenset({Channel.EMAIL})),
    ({"categories": {"orders": {"email": False}, "parcels": False}}, frozenset()),
)


@dataclass(slots=True)
class Bought:
    """One event of the sale: who must get it by which channel (None: nobody), and when it was published."""

    customer: str
    number: str
    channel: Channel
    is_wanted: bool
    since: float

    @property
    def key(self) -> tuple[str, Channel, str]:
        """What tells its message from all others."""
        return self.customer, self.channel, self.number


class Sale:
    """Plays on a stage; its figures are told at the end."""

    def __init__(self, stage: Stage, shop: Shop, seconds: float) -> None:
        self._stage = stage
        self._shop = shop
        self._seconds = seconds
        self._dice = random.Random(20)

    async def play(self) -> None:
        """The ordinary time and the sale."""
        teller = self._stage.teller
        ordinary_seconds = max(self._seconds / 6, 2.0)
        per_second = ORDINARY_PER_SECOND * TIMES
        teller.act(
            "A sale",
            f"{CUSTOMERS} customers with choices of their own. First an ordinary time with {ORDINARY_PER_SECOND:.0f} "
            f"events a second for {ordinary_seconds:.0f} s, then the sale: {per_second:.0f} a second for "
            f"{self._seconds:.0f} s.",
        )
        crowd = [self._customer(number) for number in range(CUSTOMERS)]
        await self._stage.settle(crowd)
        ordinary = await self._busy(ordinary_seconds, ORDINARY_PER_SECOND)
        teller.did(f"The ordinary time is over: {len(ordinary)} events. The sale begins.")
        sale = await self._busy(self._seconds, per_second)
        published = now()
        teller.did(f"The sale is over: {len(sale)} events. Now the last messages arrive.")
        await self._all_arrived([*ordinary, *sale])
        teller.note(f"The last one came {max(now() - published, 0):.1f} s after the last event.")
        self._tell([("ordinary", ordinary_seconds, ordinary), ("sale", self._seconds, sale)])

    def _customer(self, number: int) -> Person:
        preferences, _ = CHOICES[number % len(CHOICES)]
        return Person(
            f"customer-{number:03}", f"Customer {number}", has_browser=True, preferences=preferences
        )

    async def _busy(self, seconds: float, per_second: float) -> list[Bought]:
        """Publish at a rate, in one call for each tick; what is due goes out together, so that the rate holds."""
        began, bought = now(), list[Bought]()
        total = round(seconds * per_second)
        while len(bought) < total:
            due = min(int((now() - began) * per_second) + 1, total) - len(bought)
            if due > 0:
                await self._publish([self._event(len(bought) + place) for place in range(due)], bought)
            await asyncio.sleep(TICK_SECONDS)
        return bought

    def _event(self, place: int) -> tuple[Bought, Json]:
        customer = self._dice.randrange(CUSTOMERS)
        user, number = f"customer-{customer:03}", self._shop.number()
        channel = Channel.WEB_PUSH if place % 3 == 2 else Channel.EMAIL
        event = (
            self._shop.shipped(user, number) if channel is Channel.WEB_PUSH else self._shop.paid(user, number)
        )
        wanted = channel in CHOICES[customer % len(CHOICES)][1]
        if wanted:
            self._stage.expect(user, channel, number)
        return Bought(user, number, channel, wanted, now()), {**event, "idempotency_key": number}

    async def _publish(self, chosen: list[tuple[Bought, Json]], bought: list[Bought]) -> None:
        await self._stage.hub.publish_many([event for _, event in chosen])
        bought += [one for one, _ in chosen]

    async def _all_arrived(self, bought: list[Bought]) -> None:
        """Wait until as many arrived as must; which ones is looked at afterwards."""
        wanted = sum(one.is_wanted for one in bought)
        users = {one.customer for one in bought}

        def enough() -> bool:
            return sum(self._stage.owner(one.to) in users for one in self._stage.sinks.arrivals.all) >= wanted

        await self._stage.sinks.arrivals.until(enough, PATIENCE_SECONDS)

    def _tell(self, times: list[tuple[str, float, list[Bought]]]) -> None:
        arrived = {
            (self._stage.owner(one.to), one.channel, mark): one.at
            for one in self._stage.sinks.arrivals.all
            for mark in self._stage.marks(one)
        }
        columns = [self._figures(*one, arrived) for one in times]
        names = (
            "events", "events per second", "e-mails", "pushes", "missing",
            "half of them within", "95 of 100 within", "the last within",
        )  # fmt: skip
        rows = [[name, *(column[place] for column in columns)] for place, name in enumerate(names)]
        self._stage.teller.table(
            "From the shop's call to the message's arrival", ["", *(name for name, _, _ in times)], rows
        )

    def _figures(
        self, _name: str, seconds: float, bought: list[Bought], arrived: dict[tuple[str, Channel, str], float]
    ) -> list[str]:
        wanted = [one for one in bought if one.is_wanted]
        waited = sorted(arrived[one.key] - one.since for one in wanted if one.key in arrived)
        return [
            f"{len(bought):,}",
            f"{len(bought) / seconds:.0f}",
            f"{sum(one.channel is Channel.EMAIL for one in wanted):,}",
            f"{sum(one.channel is Channel.WEB_PUSH for one in wanted):,}",
            f"{len(wanted) - len(waited):,}",
            *(f"{quantile(waited, part):.2f} s" for part in (0.5, 0.95, 1.0)),
        ]


def quantile(ordered: list[float], part: float) -> float:
    """The value below which this part of them lies; 0 when there are none."""
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0
