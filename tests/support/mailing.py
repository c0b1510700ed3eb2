"""A deployment that sends e-mail to sinks: many users, a mail for each, and what became of every one."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import attempts, claims, deliveries, leases, log
from tests.support.cluster import Cluster, Member, running_cluster
from tests.support.processes import eventually
from tests.support.smtp_sink import Received, SmtpSink

SENDER = "Shop <shop@example.com>"
OVER = frozenset({"sent", "delivered", "dead", "unknown", "cancelled", "expired"})
AT_ONCE = 100  # users of one event
TYPE = "order.paid"
_DEFINITION = {"category": "orders", "title": "Order {{ data.number }}"}
_MAIL = {"email": {"when": "always"}}


def address_of(user: str) -> str:
    """Where a user's mail goes."""
    return f"{user}@example.com"


def phone_of(user: str) -> str:
    """Where a user's texts go; users end in four digits."""
    return f"+491511234{user[-4:]}"


def _starts(sender: Member) -> int:
    return sender.log.read_text().count("sender started") if sender.log.exists() else 0


def delivery_in(message: Received) -> str:
    """The delivery that a mail says it is."""
    return str(message.parsed["X-Clarion-Delivery"])


class Mailing:
    """A running cluster and the sinks that its senders know."""

    def __init__(self, cluster: Cluster, sinks: Sequence[SmtpSink]) -> None:
        self.cluster = cluster
        self.sinks = sinks
        self.store = SqlStore(cluster.database_url)

    @property
    def arrived(self) -> list[Received]:
        """All mails that came in whole, at any sink."""
        return [message for sink in self.sinks for message in sink.messages]

    async def start(self, *senders: Member) -> None:
        """Start these senders, or all, and return when they work."""
        chosen = senders or self.cluster.senders
        before = {one: _starts(one) for one in chosen}
        await asyncio.gather(*(one.start() for one in chosen))
        for one in chosen:
            await eventually(lambda one=one: _starts(one) > before[one], 30, "a sender does not start")

    # ------------------------------------------------------------ what is sent

    async def define(self, type_: str = TYPE, **channels: object) -> None:
        """A type: e-mail for everybody, unless `channels` say otherwise."""
        await self.cluster.call("PUT", "/v1/categories/orders", json={"title": "Orders"})
        kind = {**_DEFINITION, "channels": {"in_app": {"when": "always"}, **(channels or _MAIL)}}
        await self.cluster.call("PUT", f"/v1/types/{type_}", json=kind)

    async def plan(self, users: Sequence[str], type_: str = TYPE) -> None:
        """Publish for each user, and wait until that is planned."""
        people = [{"id": user, "email": address_of(user), "phone": phone_of(user)} for user in users]
        for first in range(0, len(people), AT_ONCE):
            some = people[first : first + AT_ONCE]
            await self.cluster.publish(type=type_, to=some, data={"number": first})
        await self.cluster.drained()

    # ------------------------------------------------------------ what becomes of it

    async def states(self) -> Counter[str]:
        """How many deliveries are in which state, with its reason where they are dead."""
        async with self.store._db.read() as connection:
            rows = await connection.execute(
                select(deliveries.c.state, deliveries.c.reason, func.count()).group_by(
                    deliveries.c.state, deliveries.c.reason
                )
            )
            found: Counter[str] = Counter()
            for state, reason, count in rows:
                found[f"{state} {reason}" if state == "dead" else state] += count
            return found

    async def over(self, count: int, seconds: float = 60.0) -> Counter[str]:
        """Wait until so many deliveries are in a final state, and none is in another; their states."""
        states: Counter[str] = Counter()
        try:
            async with asyncio.timeout(seconds):
                while True:
                    states = await self.states()
                    done = sum(number for state, number in states.items() if state.split()[0] in OVER)
                    if done >= count and done == states.total():
                        return states
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"after {seconds} s the deliveries are {dict(states)}") from None

    async def came(self, count: int, seconds: float = 30.0) -> None:
        """Wait until so many mails have come in."""
        try:
            async with asyncio.timeout(seconds):
                while len(self.arrived) < count:
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"{len(self.arrived)} mails instead of {count}") from None

    async def marked(self) -> tuple[set[str], set[str]]:
        """The deliveries with an attempt that is a repeat, and the notifications whose log tells of one."""
        async with self.store._db.read() as connection:
            tried = await connection.scalars(
                select(attempts.c.delivery_id).where(attempts.c.is_repeat).distinct()
            )
            told = await connection.scalars(
                select(log.c.notification_id).where(log.c.reason == "repeated").distinct()
            )
            return set(tried.all()), set(told.all())

    async def rows(self, *which: Any) -> list[Any]:
        """Deliveries."""
        async with self.store._db.read() as connection:
            return list((await connection.execute(select(deliveries).where(*which))).all())

    async def check(self, users: Sequence[str], *, repeats: int = 0) -> None:
        """Every mail arrived, at most so many of them twice, repeats are marked, and all sums are right."""
        messages = self.arrived
        reached = Counter(recipient for message in messages for recipient in message.recipients)
        assert set(reached) == {address_of(user) for user in users}
        twice = {address: times for address, times in reached.items() if times > 1}
        assert sum(times - 1 for times in twice.values()) <= repeats, twice
        ids = Counter(delivery_in(message) for message in messages)
        fresh = Counter(
            delivery_in(message) for message in messages if "X-Clarion-Repeat" not in message.parsed
        )
        assert max(fresh.values()) == 1, "a repeat that does not say so"
        tried, told = await self.marked()
        again = {id_ for id_, times in ids.items() if times > 1}
        assert again <= tried
        assert again <= {row.id for row in await self.rows() if row.notification_id in told}
        assert await self.cluster.ledger() == []

    # ------------------------------------------------------------ time

    async def let_lapse(self, pid: int) -> None:
        """Let the claims and leases of a process end that is dead or frozen, as time would."""

        async def work(connection: Any) -> None:
            for table in (claims, leases):
                its = table.c.owner.like(f"%:{pid}:%")
                await connection.execute(update(table).where(its).values(expires_at_us=1))

        await self.store._db.write(work)

    async def change(self, **values: Any) -> None:
        """Change all deliveries that wait."""

        async def work(connection: Any) -> None:
            waiting = deliveries.c.state.in_(("held", "queued", "failed"))
            await connection.execute(update(deliveries).where(waiting).values(**values))

        await self.store._db.write(work)


@asynccontextmanager
async def mailing(
    folder: Path,
    database_url: str,
    *sinks: SmtpSink,
    senders: int = 2,
    connections: int = 2,
    **settings: str,
) -> AsyncIterator[Mailing]:
    """A cluster whose senders do not run yet; `connections` is each one's, to each sink."""
    given = {
        "email_providers": " ".join(sink.url(f"connections={connections}") for sink in sinks),
        "email_from": SENDER,
        **settings,
    }
    async with running_cluster(folder, database_url, senders=senders, asleep=True, **given) as cluster:
        made = Mailing(cluster, sinks)
        try:
            await asyncio.gather(*(member.start() for member in cluster.generators))
            await made.define()
            yield made
        finally:
            await made.store.close()
