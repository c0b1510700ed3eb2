"""The stage of a story: a hub of its own, the sinks around it, the people, and a ledger of what must arrive where.

Whatever arrives was either expected, once, or is a mistake that the story reports. So a story that ends well has proved
three things: all of it came, nothing came twice, and nobody got what they did not choose.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import msgspec

from hub.demo.deployment import Deployment, deployed
from hub.demo.people import Person
from hub.demo.sinks.arrivals import Arrivals, Arrived
from hub.demo.sinks.mail import MailSink
from hub.demo.sinks.push import PushSink
from hub.demo.sinks.sms import SmsSink
from hub.demo.teller import Teller
from hub.model.vocabulary import Channel

Json = dict[str, Any]
ARRIVAL_SECONDS: Final = 30.0
SETUP_AT_ONCE: Final = 8
VERIFY_ATTEMPTS: Final = 5


class Sinks:
    """The world around the hub: two mail servers, an SMS gateway, a push service."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self.mail = (MailSink("mail server A", self.arrivals), MailSink("mail server B", self.arrivals))
        self.sms = SmsSink(self.arrivals)
        self.push = PushSink(self.arrivals)

    def settings(self, sender: str) -> dict[str, str]:
        """What the hub must be told of them, without the prefix of the variables."""
        return {
            "EMAIL_PROVIDERS": " ".join(sink.address for sink in self.mail),
            "EMAIL_FROM": sender,
            "SMS_PROVIDERS": self.sms.address,
            "PUSH_ALLOWED_HOSTS": self.push.host,
        }

    def label_of(self, provider: str) -> str:
        """What the story calls a provider of the log."""
        named = {**{sink.name: sink.label for sink in self.mail}, self.sms.name: self.sms.label}
        return named.get(provider, provider)

    async def open(self) -> None:
        """Serve."""
        for sink in self.mail:
            await sink.gate.open()
        await self.sms.open()
        await self.push.open()

    async def close(self) -> None:
        """End."""
        for sink in self.mail:
            await sink.gate.close()
        await self.sms.close()
        await self.push.close()


class Stage:
    """Where a story is played."""

    def __init__(self, deployment: Deployment, sinks: Sinks, teller: Teller) -> None:
        self.hub = deployment
        self.sinks = sinks
        self.teller = teller
        self.people: dict[str, Person] = {}
        self.faults: list[str] = []
        self._owner: dict[str, str] = {}  # of an address, a number, an endpoint
        self._expected: dict[tuple[str, Channel], list[str]] = defaultdict(list)

    # ------------------------------------------------------------ people

    async def settle(self, people: Sequence[Person]) -> None:
        """Make them known to the hub, with their choices; their browsers subscribe to push."""
        self.introduce(people)
        lines = b"\n".join(msgspec.json.encode(person.to_json()) for person in people)
        answer = await self.hub.call("POST", "/v1/users/batch", lines)
        assert answer["rejected"] == 0, answer
        places = asyncio.Semaphore(SETUP_AT_ONCE)

        async def subscribe(person: Person) -> None:
            browser = self.sinks.push.new_browser()
            self._owner[browser.endpoint] = person.id
            async with places:
                await self.hub.call("POST", "/v1/me/push-subscriptions", browser.subscription, user=person.id)

        await asyncio.gather(*(subscribe(person) for person in people if person.has_browser))

    def name(self, user: str) -> str:
        """What the story calls somebody."""
        return self.people[user].name

    def introduce(self, people: Sequence[Person]) -> None:
        """Know them and their addresses by name."""
        self.people |= {person.id: person for person in people}
        for person in people:
            self._owner |= {one: person.id for one in (person.email, person.phone) if one}

    def owner(self, address: str) -> str:
        """Whose an address, a number or an endpoint is; "" for a stranger's."""
        return self._owner.get(address, "")

    # ------------------------------------------------------------ what must arrive

    def expect(self, user: str, channel: Channel, mark: str) -> None:
        """One message for this user on this channel must say `mark`."""
        self._expected[user, channel].append(mark)

    def of(self, user: str, channel: Channel, mark: str) -> list[Arrived]:
        """What arrived for this user on this channel and says `mark`."""
        return [
            one
            for one in self.sinks.arrivals.all
            if one.channel is channel and self.owner(one.to) == user and one.says(mark)
        ]

    def marks(self, arrived: Arrived) -> set[str]:
        """What was expected of a message that arrived."""
        expected = self._expected.get((self.owner(arrived.to), arrived.channel), ())
        return {mark for mark in expected if arrived.says(mark)}

    async def arrives(
        self,
        user: str,
        channel: Channel,
        mark: str,
        since: float,
        *,
        text: bool = False,
        seconds: float = ARRIVAL_SECONDS,
    ) -> Arrived | None:
        """Expect a message, wait for it and tell of it; `since`: when its cause was published."""
        self.expect(user, channel, mark)
        if not await self.sinks.arrivals.until(lambda: bool(self.of(user, channel, mark)), seconds):
            self.wrong(f"{self.name(user)} got no {channel} about {mark} within {seconds:.0f} seconds.")
            return None
        found = self.of(user, channel, mark)[0]
        self.teller.arrived(self.name(user), found, found.at - since, text=text)
        return found

    def wrong(self, what: str) -> None:
        """Tell of a fault; the story goes on, but does not end well."""
        self.faults.append(what)
        self.teller.wrong(what)

    async def held(self, event_id: str, seconds: float = ARRIVAL_SECONDS) -> list[Json]:
        """The deliveries of an event, as soon as it is planned."""
        async with asyncio.timeout(seconds):
            while not (found := await self.hub.deliveries(event_id)):  # noqa: ASYNC110 - HTTP gives no signal
                await asyncio.sleep(0.05)
        return found

    # ------------------------------------------------------------ the end

    def missing(self) -> Iterator[str]:
        """Sentences about what was expected and did not arrive, or arrived more than once."""
        arrived = Counter(
            (self.owner(one.to), one.channel, mark)
            for one in self.sinks.arrivals.all
            for mark in self.marks(one)
        )
        for (user, channel), marks in self._expected.items():
            for mark in marks:
                if (count := arrived[user, channel, mark]) != 1:
                    yield f"{self.name(user)} got {count} messages by {channel} about {mark} instead of one."

    def strays(self) -> Iterator[str]:
        """Sentences about what arrived and was not expected."""
        for one in self.sinks.arrivals.all:
            if not self.marks(one):
                whom = self.owner(one.to) or one.to
                yield f"{whom} got by {one.channel} what nobody should have sent: {one.title or one.text}"

    async def balance(self) -> None:
        """The end of every story: all came, once, to whom it was for, and the ledger of the hub balances."""
        for fault in (*self.missing(), *self.strays()):
            self.wrong(fault)
        if not self.faults:
            count = len(self.sinks.arrivals.all)
            self.teller.right(
                f"All {count:,} messages arrived, each once, and nobody got what they did not choose."
            )
        faults = await self.hub.verify()
        for _ in range(VERIFY_ATTEMPTS):
            if not faults:
                break
            await asyncio.sleep(1.0)  # what nobody gets a message about may still wait to be planned
            faults = await self.hub.verify()
        for fault in faults:
            self.wrong(fault)
        if not faults:
            self.teller.right(
                "The ledger balances (clarion verify): every event ended in states that add up."
            )


@asynccontextmanager
async def staged(teller: Teller, sender: str, *, keep: bool) -> AsyncIterator[Stage]:
    """A stage that is ready; at the end everything on it is gone."""
    async with AsyncExitStack() as stack:
        sinks = Sinks()
        stack.push_async_callback(sinks.close)
        await sinks.open()
        deployment = await stack.enter_async_context(deployed(sinks.settings(sender), keep=keep))
        yield Stage(deployment, sinks, teller)


def now() -> float:
    """The moment, in seconds since 1970, as arrivals have it."""
    return time.time()
