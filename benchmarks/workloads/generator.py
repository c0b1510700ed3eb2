"""The generator alone: a full queue is worked off by one generator, everything recorded and published.

The queue is filled first; the generator is started, and the clock runs from its first batch to its last, by the counter
of its metrics, which moves when a batch is stored and announced. On SQLite, and on PostgreSQL where its programs exist.

The figure is one process' pace, so Valkey and PostgreSQL work on the load's core, where little else runs meanwhile. The
generator's committing thread stays on its core: with both cores the generator was slower in seven of nine rounds.
"""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import httpx2

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.servers import clarion
from benchmarks.servers.candidate import ServerFailed
from benchmarks.servers.postgres import postgres
from hub.supervisor import free_port

ONE, MANY, TYPED = "one recipient", "100 recipients", "type with templates and preferences"
ALONE = "Clarion, generator alone"
USERS = 1_000
AUDIENCE = 100
TYPE = "bench.paid"
_POLL_SECONDS = 0.1
_COUNTED = re.compile(r"^clarion_notifications_generated_total\{[^}]*\} (\S+)", re.MULTILINE)
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
        MANY: _Scene(bench.much(600, 60), AUDIENCE),
        TYPED: _Scene(bench.much(10_000, 1_000), is_typed=True),
    }
    async with AsyncExitStack() as stack:
        places = {"SQLite": await _prepared(stack, None, [])}
        found = await postgres(stack, machine.LOAD_CORE)
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
    hub.move_valkey(machine.LOAD_CORE)
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
    port = free_port()
    async with AsyncExitStack() as stack:
        await hub.start_generator(stack, port)
        client = await stack.enter_async_context(httpx2.AsyncClient())
        views = {clarion.NAME: [hub.generator, hub.valkey, *others], ALONE: [hub.generator]}
        await _timed(bench, hub, client, port, case, scene, views)


async def _timed(
    bench: Bench,
    hub: clarion.Deployment,
    client: httpx2.AsyncClient,
    port: int,
    case: str,
    scene: _Scene,
    views: Mapping[str, Sequence[int]],
) -> None:
    total = scene.events * scene.recipients
    first = 0
    while not first:  # until it has its leases and a first batch
        await asyncio.sleep(_POLL_SECONDS)
        first = await _generated(client, port)
    before = {name: _cpu(pids) for name, pids in views.items()}
    begun = time.monotonic()
    while (done := await _generated(client, port)) < total:
        if time.monotonic() - begun > 300:
            raise ServerFailed(f"{done} of {total} are planned: {hub.last_words('generator')}")
        await asyncio.sleep(_POLL_SECONDS)
    seconds = time.monotonic() - begun
    rate = (total - first) / seconds
    bench.results.note(
        "generator", case, "The generator has its core alone; Valkey and PostgreSQL are on the load's."
    )
    for name, pids in views.items():
        # Processes of the database that ended meanwhile are not counted.
        used = sum(cpu - before[name].get(pid, 0.0) for pid, cpu in _cpu(pids).items())
        bench.results.add(
            "generator",
            case,
            name,
            notifications_per_s=rate,
            events_per_s=rate / scene.recipients,
            cpu_us=used * 1e6 / (total - first),
        )


def _cpu(pids: Sequence[int]) -> dict[int, float]:
    return {member: machine.cpu_seconds([member]) for pid in pids for member in machine.family(pid)}


async def _generated(client: httpx2.AsyncClient, port: int) -> int:
    """How many notifications the generator has planned, stored and announced; 0 while it starts."""
    try:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    except httpx2.TransportError:
        return 0
    return sum(int(float(count)) for count in _COUNTED.findall(text))
