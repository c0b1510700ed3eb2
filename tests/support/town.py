"""A deployment with senders between the servers that the tests own: two mail servers, an SMS gateway, a push service.

    async with open_town(tmp_path, database_url, folder=SHOP) as town:
        await town.settle("ada", email="ada@example.com", browsers=1)
        event = await town.cluster.publish(type="order.paid", to="ada", data=…)
        await town.until(lambda: town.got("ada", "email", "S-1"))
        assert town.everything() == {("ada", "email", "S-1"): 1}

What arrived is read from the servers: mails as the standard library reads them, pushes after decrypting.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hub.definitions import read_folder
from tests.support.cluster import Cluster, running_cluster
from tests.support.push_service import PushService, open_push_service
from tests.support.sms_gateway import SmsGateway
from tests.support.smtp_sink import DROP, SmtpSink, smtp_sink

PATIENCE_SECONDS = 30.0
WAITING = {"held", "queued", "sending", "failed"}
SENDER = "The Shop <orders@example.com>"


class Came(NamedTuple):
    """One message as its recipient has it. `by`: `A` or `B` for mail servers. `id`: the same for every repeat."""

    user: str
    channel: str
    title: str
    text: str
    by: str
    id: str


class Town:
    """The deployment, the servers around it, and its people."""

    def __init__(
        self, cluster: Cluster, mail: tuple[SmtpSink, SmtpSink], sms: SmsGateway, push: PushService, mark: str
    ) -> None:
        self.cluster = cluster
        self.mail = dict(zip("AB", mail, strict=True))
        self.sms = sms
        self.push = push
        self._mark = re.compile(mark)
        self._users: dict[str, str] = {}  # by address or number

    # ------------------------------------------------------------ people

    async def settle(
        self, user: str, *, browsers: int = 0, preferences: Any = None, topics: tuple[str, ...] = (), **profile: str
    ) -> None:  # fmt: skip
        """A user with addresses, browsers and choices."""
        await self.cluster.call("PUT", f"/v1/users/{user}", json=profile)
        self._users |= {
            address: user for name in ("email", "phone") if (address := profile.get(name)) is not None
        }
        if preferences is not None:
            await self.cluster.call("PUT", f"/v1/users/{user}/preferences", json=preferences)
        for topic in topics:
            await self.cluster.call("PUT", f"/v1/topics/{topic}/users/{user}")
        for _ in range(browsers):
            subscription = self.push.subscribe(user).subscription
            await self.cluster.call(
                "POST",
                "/v1/me/push-subscriptions",
                json=subscription,
                headers=self.cluster.as_user(user),
            )

    async def define(self, folder: Path) -> None:
        """The types and categories of a folder, as `clarion apply` reads it."""
        found = read_folder(folder)
        for name, category in found.categories.items():
            await self.cluster.call("PUT", f"/v1/categories/{name}", json=category)
        for name, kind in found.types.items():
            await self.cluster.call("PUT", f"/v1/types/{name}", json=kind)

    # ------------------------------------------------------------ what arrived

    def came(self) -> list[Came]:
        """All that arrived anywhere, mails first."""
        found = []
        for by, sink in self.mail.items():
            for one in sink.messages:
                mail = one.parsed
                body = mail.get_body(("plain",))
                html = mail.get_body(("html",))
                text = "\n".join(part.get_content() for part in (body, html) if part is not None)
                user = self._users[one.recipients[0]]
                found.append(Came(user, "email", mail["Subject"], text, by, mail["Message-ID"]))
        found += [
            Came(self._users[sms["To"]], "sms", "", sms["Body"], "sms", sms["sid"])
            for sms in self.sms.messages
        ]
        for push in self.push.received:
            shown = push.json["notification"]
            found.append(
                Came(push.browser.name, "web_push", shown["title"], shown["body"], "push", shown["id"])
            )
        return found

    def count(self) -> int:
        """How many messages arrived."""
        mails = sum(len(sink.messages) for sink in self.mail.values())
        return mails + len(self.sms.messages) + len(self.push.received)

    def got(self, user: str, channel: str, mark: str) -> list[Came]:
        """What one user got about something."""
        return [
            one
            for one in self.came()
            if (one.user, one.channel) == (user, channel) and mark in one.title + one.text
        ]

    def everything(self) -> Counter[tuple[str, str, str]]:
        """How often each (user, channel, mark) arrived; the mark is what the pattern finds in title or text."""
        return Counter(
            (one.user, one.channel, found[0])
            for one in self.came()
            if (found := self._mark.search(one.title + "\n" + one.text)) is not None
        )

    async def until(
        self, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS, what: str = ""
    ) -> None:
        """Wait until something has arrived."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{what or 'it'} did not arrive; what did: {self.came()}") from None

    # ------------------------------------------------------------ mail servers

    def fall(self, *names: str) -> None:
        """Mail servers hang up on everybody."""
        for name in names:
            self.mail[name].plan("greeting", DROP)
            self.mail[name].drop_all()

    def rise(self) -> None:
        """All mail servers are well again."""
        for sink in self.mail.values():
            sink.steps.clear()

    def provider(self, name: str) -> str:
        """What the log calls a mail server."""
        return self.mail[name].url()

    # ------------------------------------------------------------ the log

    async def log(self, **filters: str) -> list[dict[str, Any]]:
        """The delivery log, oldest first."""
        lines: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.cluster.call("GET", "/v1/log", params={"limit": "100", **filters, **cursor})
            lines += page["entries"]
            if page["next"] is None:
                return lines[::-1]
            cursor = {"cursor": page["next"]}

    async def logged(
        self,
        condition: Callable[[list[dict[str, Any]]], bool],
        seconds: float = PATIENCE_SECONDS,
        **filters: str,
    ) -> list[dict[str, Any]]:
        """The log, as soon as it says something."""
        lines: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(seconds):
                while not condition(lines := await self.log(**filters)):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"the log never said it: {lines}") from None
        return lines

    async def deliveries(self, event: str) -> list[dict[str, Any]]:
        """The deliveries of an event, as soon as there are any."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                page = await self.cluster.call("GET", f"/v1/events/{event}/deliveries")
                if page["deliveries"]:
                    return list(page["deliveries"])
                await asyncio.sleep(0.05)

    async def ended(self, event: str) -> None:
        """Return when nothing of an event is still to be sent: its audience is looked through, its deliveries are final."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                status = await self.cluster.call("GET", f"/v1/events/{event}")
                page = await self.cluster.call("GET", f"/v1/events/{event}/deliveries")
                whole = all(one["state"] == "done" for one in status.get("expansions", []))
                waiting = WAITING & {one["state"] for one in page["deliveries"]}
                if status["status"] == "generated" and whole and not waiting:
                    return
                await asyncio.sleep(0.1)


def says(*states: str) -> Callable[[list[dict[str, Any]]], bool]:
    """A condition: the log has lines of all these states."""
    return lambda lines: set(states) <= {line["state"] for line in lines}


@asynccontextmanager
async def open_town(
    folder: Path, database_url: str, *, mark: str, senders: int = 1, **settings: str
) -> AsyncIterator[Town]:
    """A town at work. `mark`: a pattern that finds in each message what it is about."""
    async with (
        smtp_sink() as a,
        smtp_sink() as b,
        SmsGateway() as sms,
        open_push_service() as push,
        running_cluster(
            folder,
            database_url,
            senders=senders,
            email_providers=f"{a.url()} {b.url()}",
            email_from=SENDER,
            sms_providers=sms.address(),
            push_allowed_hosts=push.host,
            **settings,
        ) as cluster,
    ):
        yield Town(cluster, (a, b), sms, push, mark)
        push.let_go()
