"""The story of a shop (R36), act by act: what is bought and sent, what falls and comes back, and a sale."""

import asyncio
import random
from itertools import count
from pathlib import Path
from typing import Any, Final

from hub.definitions import read_folder
from hub.demo.open_app import opened_app
from hub.demo.shop.orders import Shop, customers, utc_now
from hub.demo.shop.sale import Sale
from hub.demo.stage import ARRIVAL_SECONDS, Stage, now
from hub.model.vocabulary import Channel

Json = dict[str, Any]
FALLBACK_SECONDS: Final = 100.0  # the hub tries for a minute before SMS takes over
BACK_SECONDS: Final = 150.0
CROWD: Final = 6  # a breaker opens after five failures in a row
ORDER_PAUSE_SECONDS: Final = 1.0


class ShopStory:
    """Plays on a stage. Faults are told and kept by the stage."""

    def __init__(self, stage: Stage, sale_seconds: float) -> None:
        self._stage = stage
        self._teller = stage.teller
        self._sale_seconds = sale_seconds
        self._shop = Shop(random.Random(36))

    async def play(self) -> None:
        """The whole story."""
        await self._stage.hub.define(read_folder(Path(__file__).parent))
        people = customers(utc_now())
        await self._stage.settle(people)
        for person in people:
            self._teller.did(f"{person.name} {person.about}.")
        await self.everyday()
        await self.open_tab()
        await self.one_server_falls()
        await self.all_mail_falls()
        await self.mail_returns()
        await Sale(self._stage, self._shop, self._sale_seconds).play()
        self._teller.act("The sum")
        await self._stage.balance()

    # ------------------------------------------------------------ acts

    async def everyday(self) -> None:
        """Paid by e-mail, shipped by push, and what somebody does not want, not."""
        self._teller.act(
            "An order", "The type order.paid uses e-mail, order.shipped uses push; both show in the app."
        )
        number = self._shop.number()
        self._teller.did(f"Ada pays order {number}.")
        _, since = await self._publish(self._shop.paid("ada", number))
        await self._stage.arrives("ada", Channel.EMAIL, number, since, text=True)
        self._teller.did(f"The shop ships order {number}.")
        _, since = await self._publish(self._shop.shipped("ada", number))
        await self._stage.arrives("ada", Channel.WEB_PUSH, number, since, text=True)
        number = self._shop.number()
        self._teller.did(f"Ben pays order {number}, and the shop ships it at once.")
        await self._publish(self._shop.paid("ben", number))
        _, since = await self._publish(self._shop.shipped("ben", number))
        await self._stage.arrives("ben", Channel.WEB_PUSH, number, since)
        why = await self._stage.hub.call("GET", "/v1/explain?user=ben&type=order.paid")
        self._teller.note(f"No e-mail for Ben. Asked why (GET /v1/explain), the hub says: {_why(why)}")

    async def open_tab(self) -> None:
        """Whoever is there needs no e-mail; whoever sleeps is not woken."""
        self._teller.act(
            "Who is there, who is not, who sleeps",
            "The type parcel.waiting uses e-mail only for those whom the app did not reach within some seconds.",
        )
        there, away, asleep = self._shop.number(), self._shop.number(), self._shop.number()
        async with opened_app(self._stage.hub, "emil") as app:
            self._teller.did(
                f"Two parcels wait: Emil's ({there}), who has the shop open, and Dora's ({away})."
            )
            event, since = await self._publish(self._shop.waiting("emil", there))
            await self._publish(self._shop.waiting("dora", away))
            if await app.shows(there):
                self._teller.shown("Emil", app.shown[-1]["title"])
            else:
                self._stage.wrong("Emil's open tab did not show his parcel.")
            await self._stage.arrives("dora", Channel.EMAIL, away, since)
            lines = await self._stage.hub.until_logged(_has("cancelled"), ARRIVAL_SECONDS, event=event)
        if lines is None:
            self._stage.wrong("Emil's e-mail was not cancelled, though the app reached him.")
        else:
            self._teller.logged(next(line for line in lines if line["state"] == "cancelled"))
        self._teller.did(f"The shop ships Cleo's order {asleep}.")
        event, _ = await self._publish(self._shop.shipped("cleo", asleep))
        [push] = await self._stage.held(event)
        if push["state"] == "held":
            self._teller.note(
                f"Her push is held until her quiet hours end, at {push['due_at'][11:16]} UTC; we do not wait."
            )
        else:
            self._stage.wrong(f"Cleo's push is {push['state']}, though she has quiet hours.")

    async def one_server_falls(self) -> None:
        """Failover between providers."""
        first = self._stage.sinks.mail[0]
        self._teller.act(
            "A mail server falls",
            "The hub knows two. What the first one does not take, the second one gets, and after five failures in a "
            "row the first is left alone for a while.",
        )
        await first.gate.shut()
        away = self._shop.number()
        self._teller.did(
            f"{first.label[0].upper()}{first.label[1:]} refuses connections. A parcel waits for Dora ({away}), who is not there."
        )
        _, since = await self._publish(self._shop.waiting("dora", away))
        await self._stage.arrives("dora", Channel.EMAIL, away, since)
        numbers = [self._shop.number() for _ in range(CROWD)]
        self._teller.did(f"Ada pays {CROWD} orders at once.")
        since = now()
        await asyncio.gather(*(self._stage.hub.publish(self._shop.paid("ada", one)) for one in numbers))
        await self._stage.arrives("ada", Channel.EMAIL, numbers[0], since)
        for number in numbers[1:]:
            self._stage.expect("ada", Channel.EMAIL, number)
            if not await self._arrived("ada", Channel.EMAIL, number):
                self._stage.wrong(f"Ada got no e-mail about {number}.")
        self._teller.note(f"The other {CROWD - 1} came the same way. The delivery log says (GET /v1/log):")
        await self._tell_log("provider_failed", limit=1)
        await self._tell_log("provider_out", limit=1)

    async def all_mail_falls(self) -> None:
        """Fallback from channel to channel."""
        self._teller.act(
            "All mail servers fall",
            "Where no provider is left, the hub tries again for a minute. Then the next channel takes over, as the "
            'type says (fallback = ["sms"]).',
        )
        for sink in self._stage.sinks.mail:
            await sink.gate.shut()
        number = self._shop.number()
        self._teller.did(f"Both refuse connections. Dora pays order {number}.")
        event, since = await self._publish(self._shop.paid("dora", number))
        shipped = self._shop.number()
        self._teller.did(f"Meanwhile the shop ships Ben's order {shipped}: other channels do not notice.")
        _, then = await self._publish(self._shop.shipped("ben", shipped))
        await self._stage.arrives("ben", Channel.WEB_PUSH, shipped, then)
        self._teller.note("Now we wait for Dora's SMS; it takes up to a minute.")
        arrived = await self._stage.arrives("dora", Channel.SMS, number, since, seconds=FALLBACK_SECONDS)
        if arrived is not None and not await self._stage.hub.until_logged(
            _has("delivered"), ARRIVAL_SECONDS, event=event
        ):
            self._stage.wrong("The gateway's receipt for Dora's SMS did not count.")
        self._teller.note("What the log says of this order:")
        for line in reversed(await self._stage.hub.log(event=event)):
            if line.get("channel") not in (None, "in_app"):
                self._teller.logged(self._named(line))

    async def mail_returns(self) -> None:
        """A breaker closes."""
        self._teller.act(
            "The mail servers come back",
            "A server that was left alone gets one message on trial, in growing pauses. When it takes it, it is back.",
        )
        for sink in self._stage.sinks.mail:
            await sink.gate.open()
        self._teller.did("Both take connections again. Ada buys something every second.")
        deadline = now() + BACK_SECONDS
        for bought in count():
            number = self._shop.number()
            _, since = await self._publish(self._shop.paid("ada", number))
            if bought == 0:
                await self._stage.arrives("ada", Channel.EMAIL, number, since, seconds=BACK_SECONDS)
            else:
                self._stage.expect("ada", Channel.EMAIL, number)
            if not (away := await self._out()):
                break
            if now() > deadline:
                self._stage.wrong(f"{' and '.join(sorted(away))} did not come back.")
                break
            await asyncio.sleep(ORDER_PAUSE_SECONDS)
        await self._tell_log("provider_back", limit=2)

    # ------------------------------------------------------------ pieces

    async def _publish(self, event: Json) -> tuple[str, float]:
        """Publish; returns the id, and when that was."""
        since = now()
        return await self._stage.hub.publish(event), since

    async def _arrived(self, user: str, channel: Channel, mark: str) -> bool:
        return await self._stage.sinks.arrivals.until(
            lambda: bool(self._stage.of(user, channel, mark)), ARRIVAL_SECONDS
        )

    async def _out(self) -> set[str]:
        """The providers that are left alone now, by the log."""
        lines = [
            *await self._stage.hub.log(state="provider_out"),
            *await self._stage.hub.log(state="provider_back"),
        ]
        last = {line["provider"]: line["state"] for line in sorted(lines, key=lambda line: str(line["at"]))}
        return {self._stage.sinks.label_of(name) for name, state in last.items() if state == "provider_out"}

    async def _tell_log(self, state: str, *, limit: int) -> None:
        lines = await self._stage.hub.until_logged(_has(state), ARRIVAL_SECONDS, state=state)
        if lines is None:
            self._stage.wrong(f"The log has no line {state}.")
            return
        for line in lines[-limit:]:
            self._teller.logged(self._named(line))

    def _named(self, line: Json) -> Json:
        """A line with the sinks' names as the story knows them."""
        provider = line.get("provider")
        return {**line, "provider": self._stage.sinks.label_of(provider)} if provider else line


def _has(state: str) -> Any:
    return lambda lines: any(line["state"] == state for line in lines)


def _why(explanation: Json) -> str:
    """The rule that keeps e-mail away."""
    refused = (one for one in explanation["rules"] if one["channel"] == Channel.EMAIL and not one["allows"])
    return str(next(refused)["detail"])
