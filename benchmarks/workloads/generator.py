"""The generator alone: a full queue is worked off by one generator, everything recorded and published.

The queue is filled first; the generator is started, and the clock runs from the first event that leaves the queue to the
last. Once on SQLite, once on PostgreSQL where its programs exist.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.servers import clarion
from benchmarks.servers.candidate import ServerFailed
from benchmarks.servers.postgres import postgres
from hub.wiring import waiting_events

ONE, MANY, TYPED = "one recipient", "100 recipients", "type with templates and preferences"
ALONE = "Clarion, generator alone"
USERS = 1_000
AUDIENCE = 100
TYPE = "bench.paid"
_POLL_SECONDS = 0.02
TYPE_DEFINITION = {
    "category": "bench",
    "title": "Order {{ data.number }} is paid",
    "body": "{% if data.amount > 100 %}A large one: {% endif %}{{ data.amount }} by {{ recipient.name or 'you' }}",
    "url": "/orders/{{ data.number }}",
    "schema": {"type": "object", "required": ["number", "amount"]},
    "expose": ["number"],
    "channels": {"in_app": {"when": "always"}},
    "locales": {"ko": {"title": "주문 {{ data.number }} 결제 완료"}},
}
PREFERENCES = {
    "categories": {"other": False, "more": {"email": False}},
    "muted": {"actors": ["mallory"], "topics": ["noise"]},
    "quiet_hours": {"start": "22:00", "end": "07:00"},
}


@dataclass(frozen=True, slots=True)
class _Scene:
    """What fills the queue: so many events, each with so many recipients."""

    events: int
    recipients: int = 1
    is_typed: bool = False

    def event(self, number: int) -> dict[str, object]:
        users = [f"u{(number * self.recipients + index) % USERS}" for index in range(self.recipients)]
        to: object = users[0] if self.recipients == 1 else users
        if self.is_typed:
            return {
                "type": TYPE,
                "to": to,
                "actor": "shop",
                "data": {"number": number, "amount": number % 200},
            }
        return {"to": to, "title": "Paid", "body": "x" * 100, "data": {"number": number}}


async def run(bench: Bench) -> None:
    """Both databases, three kinds of events."""
    scenes = {
        ONE: _Scene(bench.much(20_000, 2_000)),
        MANY: _Scene(bench.much(400, 40), AUDIENCE),
        TYPED: _Scene(bench.much(10_000, 1_000), is_typed=True),
    }
    async with AsyncExitStack() as stack:
        places = {"SQLite": await _prepared(stack, None, [])}
        found = await postgres(stack)
        if found:
            url, pid = found
            places["PostgreSQL"] = await _prepared(stack, url, [pid])
        for number in range(bench.rounds):
            for name, scene in scenes.items():
                for database, (hub, others) in places.items():
                    bench.say(f"generator: {database}, {name}, round {number + 1}")
                    await _one(bench, hub, others, f"{database}, {name}", scene)
                if not found:
                    bench.results.lacks("generator", f"PostgreSQL, {name}", clarion.NAME, "not installed")


async def _prepared(
    stack: AsyncExitStack, url: str | None, others: Sequence[int]
) -> tuple[clarion.Deployment, Sequence[int]]:
    """A deployment with its node, which takes events in; its type, and users with preferences."""
    hub = await clarion.deployment(stack, 1, url, queue_limit="1000000000")
    await hub.start_node()
    await hub.call("PUT", "/v1/categories/bench", {"title": "Bench"})
    await hub.call("PUT", f"/v1/types/{TYPE}", TYPE_DEFINITION)
    users = [
        {"id": f"u{number}", "name": f"User {number}", "locale": "ko" if number % 3 == 0 else "en"}
        | {"preferences": PREFERENCES}
        for number in range(USERS)
    ]
    await hub.call("POST", "/v1/users/batch", users)
    return hub, others


async def _one(
    bench: Bench, hub: clarion.Deployment, others: Sequence[int], case: str, scene: _Scene
) -> None:
    size = 1_000 // scene.recipients  # the call's limit counts recipients as well
    for first in range(0, scene.events, size):
        numbers = range(first, min(first + size, scene.events))
        await hub.call("POST", "/v1/events/batch", [scene.event(number) for number in numbers])
    async with AsyncExitStack() as stack:
        await hub.start_generator(stack)
        rounds = {clarion.NAME: [hub.generator, hub.valkey], ALONE: [hub.generator]}
        await _timed(bench, hub, case, scene, rounds, others)


async def _timed(
    bench: Bench,
    hub: clarion.Deployment,
    case: str,
    scene: _Scene,
    views: Mapping[str, Sequence[int]],
    others: Sequence[int],
) -> None:
    full = left = await _waiting(hub)
    while left == full:  # until it has its leases and trimmed a first batch
        await asyncio.sleep(_POLL_SECONDS)
        left = await _waiting(hub)
    # The database's children come and go; they are looked up at both ends.
    members = {name: [*pids, *_all(others)] if name == clarion.NAME else pids for name, pids in views.items()}
    before = {name: machine.cpu_seconds(pids) for name, pids in members.items()}
    begun = time.monotonic()
    while await _waiting(hub):
        if time.monotonic() - begun > 300:
            raise ServerFailed(f"the generator did not work off its queue: {hub.last_words('generator')}")
        await asyncio.sleep(_POLL_SECONDS)
    seconds = time.monotonic() - begun
    planned = left * scene.events * scene.recipients / full  # a slice may hold several recipients
    for name, pids in members.items():
        cpu_us = (machine.cpu_seconds(pids) - before[name]) * 1e6 / planned
        rate = planned / seconds
        bench.results.add(
            "generator",
            case,
            name,
            notifications_per_s=rate,
            events_per_s=rate / scene.recipients,
            cpu_us=cpu_us,
        )


def _all(pids: Sequence[int]) -> list[int]:
    return [member for pid in pids for member in machine.family(pid)]


async def _waiting(hub: clarion.Deployment) -> int:
    return sum((await waiting_events(hub.settings)).values())
