"""A pigeon post: a channel whose providers do what a test plans, and remember what they carried.

It stands at the port `workers.channels.base`, so that the engine is tested without any protocol.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, update

from hub.adapters.memory_bus import MemoryBus
from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import deliveries, payloads, users
from hub.catalog import Catalog
from hub.livelog import LiveLog
from hub.model.events import Event, Slice, encode_slice
from hub.model.outcomes import Outcome, Sent
from hub.model.outgoing import Outgoing, Target
from hub.model.vocabulary import Channel
from hub.ports import Clock, Wanted
from workers.carriers import Carriers
from workers.channels.base import ComposeError
from workers.claims import Claims
from workers.deliver import Delivering
from workers.recorder import Recorder

Plan = Callable[[Any, Target], Outcome]


class Pigeon:
    """A provider. `plan` says what becomes of a message; what it took is in `carried`."""

    def __init__(self, name: str, plan: Plan | None = None, *, connections: int = 2) -> None:
        self.name = name
        self.connections = connections
        self.per_second: float | None = None
        self.plan = plan or (lambda message, target: Sent("250", "", f"{name}-{len(self.carried)}"))
        self.asked: list[tuple[Any, Target]] = []
        self.carried: list[tuple[Any, Target]] = []
        self.at_once = self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, message: Any, target: Target) -> Outcome:
        self.asked.append((message, target))
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
            outcome = self.plan(message, target)
        finally:
            self.at_once -= 1
        if isinstance(outcome, Sent):
            self.carried.append((message, target))
        return outcome

    async def close(self) -> None:
        pass


@dataclass
class PigeonPost:
    """A channel of pigeons. A message is (title, number of items, is it a repeat)."""

    providers: Sequence[Pigeon]
    channel: Channel = Channel.EMAIL
    repeats: bool = True

    def compose(self, outgoing: Outgoing) -> Any:
        title = outgoing.newest.content.title
        if "unfit" in title:
            raise ComposeError("Pigeons do not carry this.")
        return title, len(outgoing.items), outgoing.is_repeat


@dataclass
class Tally:
    """Counts what the engine counts."""

    attempts: list[tuple[str, str]] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)

    def attempted(self, channel: Channel, provider: str, outcome: str, seconds: float) -> None:
        self.attempts.append((provider, outcome))

    def ended(self, channel: Channel, state: str, seconds_behind: float) -> None:
        self.ends.append(state)


class FreePace:
    """As fast as it goes."""

    async def wait_seconds(self, name: str, per_second: float) -> float:
        return 0.0


class Loft:
    """One sender process on a store: what `workers.role` makes, without jobs."""

    def __init__(self, store: SqlStore, clock: Clock, post: PigeonPost, *more: Channel) -> None:
        self.store = store
        self.post = post
        self.tally = Tally()
        livelog = LiveLog(MemoryBus(clock))
        self.recorder = Recorder(store, livelog)
        self.claims = Claims(store, "loft")

        async def tell(entry: Any) -> None:
            await store.write_log([entry])

        self.carriers = Carriers(post, clock, FreePace(), tell)
        self.delivering = Delivering(
            post,
            self.carriers,
            self.claims,
            self.recorder,
            Catalog(store, clock),
            clock,
            links=lambda claimed: {},
            available=frozenset({post.channel, *more}),
            default_timezone="UTC",
            metrics=self.tally,
        )

    async def round(self, limit: int = 1000) -> int:
        """Deliver what is due now."""
        due = await self.store.queue_due(self.post.channel, limit, 60)
        await self.delivering.chunk([Wanted(one.user_id, one.id, one.lapses) for one in due])
        await self.recorder.close()
        return len(due)


async def keep_payloads(store: SqlStore, *event_ids: str, slice_key: str = "0") -> None:
    """Keep the events of slices, as their planning does."""
    rows = []
    for event_id in event_ids:
        event = Event(
            id=event_id, type="order.paid", accepted_at_us=0, source="http:key", slices=1, data={"n": 1}
        )
        rows.append({"event_id": event_id, "slice_key": slice_key, "raw": encode_slice(Slice(event=event))})

    async def work(connection: Any) -> None:
        await connection.execute(store._db.insert(payloads).on_conflict_do_nothing(), rows)

    await store._db.write(work)


async def give_addresses(store: SqlStore, **emails: str) -> None:
    """Set users' e-mail addresses and phones: `alice="alice@example.com"`."""

    async def work(connection: Any) -> None:
        for user_id, address in emails.items():
            column = "phone" if address.startswith("+") else "email"
            await connection.execute(update(users).where(users.c.id == user_id).values({column: address}))

    await store._db.write(work)


async def due_now(store: SqlStore, *ids: str) -> None:
    """Let time pass for held deliveries."""

    async def work(connection: Any) -> None:
        which = [deliveries.c.id.in_(ids)] if ids else []
        await connection.execute(
            update(deliveries)
            .where(deliveries.c.state.in_(("held", "failed", "queued")), *which)
            .values(due_at_us=1, handed_until_us=None)
        )

    await store._db.write(work)


async def states(store: SqlStore) -> dict[str, str]:
    """Every delivery's state (and its reason), by user and channel."""
    async with store._db.read() as connection:
        rows = await connection.execute(
            select(deliveries).order_by(deliveries.c.user_id, deliveries.c.channel)
        )
        return {
            f"{row.user_id} {row.channel}": f"{row.state} {row.reason}" if row.reason else row.state
            for row in rows
        }


def titles(pigeon: Pigeon) -> list[str]:
    return [message[0] for message, _ in pigeon.carried]
