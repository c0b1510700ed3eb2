"""Backfill: a large backlog of held deliveries falls due at once, and one sender works it off into a sink.

The deliveries are planned by the product itself; then node and generator end, a sender starts, and the moment at which
all are due is set to now in the store. The sender has its core alone; sink, Valkey and PostgreSQL are on the load's.
Beside it a bare loop over as many connections: ready-made mails, or encryption and a POST for each push. It runs as fast
as it goes, and once more at the sender's pace: who never lets the other side fall asleep pays half for each message.
"""

import asyncio
import json
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.servers import clarion
from benchmarks.servers.bare_sender import SENDER, subscription
from benchmarks.servers.candidate import ServerFailed
from benchmarks.servers.postgres import postgres
from benchmarks.servers.sinks import Sink, sink
from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import deliveries
from hub.model.vocabulary import Channel
from hub.ports import PushSubscription
from workers.channels.smtp import CONNECTIONS as MAIL_CONNECTIONS
from workers.channels.web_push import CONNECTIONS as PUSH_CONNECTIONS

BARE_MAIL, BARE_PUSH = "bare loop (aiosmtplib)", "bare loop (pywebpush, aiohttp)"
ALONE, COUNTED = "Clarion, sender alone", "Clarion, counted"
LARGE, SOME = "100,000 e-mails", "20,000 e-mails"
PUSHES = "10,000 pushes"
SAME_PACE = ", at the sender's pace"
BARE_COUNT = 20_000
TO_COUNT = 2_000  # worked off by a sender that counts its statements
PATIENCE_SECONDS = 900.0
_SAMPLE_SECONDS = 0.2
_IDLE_SECONDS = 2.0
_LATER = {"when": "unseen", "after_seconds": 86_400}
_HTML = """<html><body><h1>Thank you, {{ recipient.name or 'friend' }}!</h1>
<p>Order {{ data.number }} over {{ data.amount }} is paid.</p>
<table>{% for line in data.lines %}<tr><td>{{ line }}</td></tr>{% endfor %}</table></body></html>"""
_TEXT = "Order {{ data.number }} over {{ data.amount }} is paid.\n{% for line in data.lines %}- {{ line }}\n{% endfor %}"
_MAIL = {**_LATER, "subject": "Order {{ data.number }} is paid", "html": _HTML, "text": _TEXT}
_LINES = ["A pair of shoes, brown, 42", "Laces, black", "A tin of polish"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A channel to measure: its sink, its type, and what stands beside it."""

    channel: Channel
    sink: str
    rule: Mapping[str, Any]
    bare: str
    bare_kind: str


_MAILS = _Kind(Channel.EMAIL, "smtp", _MAIL, BARE_MAIL, "mail")
_PUSH = _Kind(Channel.WEB_PUSH, "http", _LATER, BARE_PUSH, "push")


@dataclass(frozen=True, slots=True)
class Scene:
    """One case. `once`: in the first round only, because it takes minutes."""

    name: str
    kind: _Kind
    database: str
    connections: int
    full: int
    quick: int
    once: bool = False

    @property
    def case(self) -> str:
        """Its name in the tables."""
        over = "" if self.kind is _PUSH else f", {self.connections} connections"
        return f"{self.name}, {self.database}{over}"


MAIL_LARGE = Scene(LARGE, _MAILS, "SQLite", 16, 100_000, 10_000, once=True)
MAIL_SOME = Scene(SOME, _MAILS, "SQLite", 16, 20_000, 2_000)
MAIL_FEW = Scene(SOME, _MAILS, "SQLite", MAIL_CONNECTIONS, 20_000, 2_000)
MAIL_POSTGRESQL = Scene(SOME, _MAILS, "PostgreSQL", 16, 20_000, 2_000)
PUSH = Scene(PUSHES, _PUSH, "SQLite", PUSH_CONNECTIONS, 10_000, 2_000)
PUSH_POSTGRESQL = Scene(PUSHES, _PUSH, "PostgreSQL", PUSH_CONNECTIONS, 10_000, 2_000)
SCENES = (MAIL_LARGE, MAIL_SOME, MAIL_FEW, MAIL_POSTGRESQL, PUSH, PUSH_POSTGRESQL)


async def run(bench: Bench) -> None:
    """All scenes; PostgreSQL where its programs exist."""
    for number in range(bench.rounds):
        for scene in SCENES:
            if scene.once and number:
                continue
            bench.say(f"backfill: {scene.case}, round {number + 1}")
            async with AsyncExitStack() as stack:
                url, others = None, []
                if scene.database == "PostgreSQL":
                    found = await postgres(stack, machine.LOAD_CORE)
                    if not found:
                        bench.results.lacks("backfill", scene.case, clarion.NAME, "not installed")
                        continue
                    url, others = found[0], [found[1]]
                target = await sink(stack, scene.kind.sink)
                hub = await _deployed(stack, scene, target, url)
                await _Run(bench, scene, hub, target, others).all()


async def _deployed(stack: AsyncExitStack, scene: Scene, target: Sink, url: str | None) -> clarion.Deployment:
    if scene.kind is _PUSH:
        own = {"push_allowed_hosts": f"127.0.0.1:{target.port}"}
    else:
        provider = f"smtp://127.0.0.1:{target.port}?starttls=0&connections={scene.connections}"
        own = {"email_providers": provider, "email_from": SENDER}
    hub = await clarion.deployment(stack, 1, url, queue_limit="1000000000", **own)
    hub.move_valkey(machine.LOAD_CORE)
    return hub


class _Run:
    """One round of one case."""

    def __init__(
        self, bench: Bench, scene: Scene, hub: clarion.Deployment, target: Sink, others: list[int]
    ) -> None:
        self.bench = bench
        self.scene = scene
        self.kind = scene.kind
        self.case = scene.case
        self.hub = hub
        self.sink = target
        self.others = others
        self.count = bench.much(scene.full, scene.quick)
        self.size = self.pace = 0
        self.store = SqlStore(hub.environment["CLARION_DATABASE_URL"])

    async def all(self) -> None:
        """Plan, send, count, and the bare loop."""
        try:
            await self.plan({"bench.paid": self.count, "bench.counted": TO_COUNT})
            await self.measure()
            await self.count_statements()
            await self.measure_bare(self.kind.bare)
            await self.measure_bare(self.kind.bare + SAME_PACE, self.pace)
        finally:
            await self.store.close()

    # ------------------------------------------------------------ planning

    async def plan(self, types: Mapping[str, int]) -> None:
        """Deliveries of these types, held until tomorrow."""
        if self.kind is _PUSH:
            await self._subscribe(max(types.values()))
        async with AsyncExitStack() as stack:
            await self.hub.start_node(stack=stack)
            await self.hub.start_generator(stack)
            await self.hub.call("PUT", "/v1/categories/bench", {"title": "Bench"})
            for type_, count in types.items():
                channels = {"in_app": {"when": "always"}, str(self.kind.channel): self.kind.rule}
                definition = {
                    "category": "bench",
                    "title": "Order {{ data.number }} is paid",
                    "channels": channels,
                }
                await self.hub.call("PUT", f"/v1/types/{type_}", definition)
                for first in range(0, count, 1_000):
                    numbers = range(first, min(first + 1_000, count))
                    await self.hub.call("POST", "/v1/events/batch", [_event(type_, one) for one in numbers])
            await self.hub.drained(300)
        held = await self._states()
        if held != {"held": sum(types.values())}:
            raise ServerFailed(f"planned were {held}: {self.hub.last_words('generator')}")

    async def _subscribe(self, count: int) -> None:
        """A browser for each user; they share a pair of keys, which costs the same."""
        shared: Any = subscription("")["keys"]

        async def work(connection: Any, numbers: range) -> None:
            for one in numbers:
                endpoint = f"http://127.0.0.1:{self.sink.port}/push/{one}"
                browser = PushSubscription(
                    f"sub_{one}", f"u{one}", endpoint, shared["p256dh"], shared["auth"], 1, 1
                )
                await self.store._save_subscription(connection, browser, 10)  # noqa: SLF001 - thousands in one transaction

        for first in range(0, count, 1_000):
            await self.store._db.write(work, range(first, min(first + 1_000, count)))  # noqa: SLF001

    # ------------------------------------------------------------ sending

    async def measure(self) -> None:
        """One sender works off the backlog."""
        async with AsyncExitStack() as stack, self.hub.redis() as redis:
            pid = await self.hub.start_sender(stack)
            views = {ALONE: [pid], clarion.NAME: [pid, self.hub.valkey, *self.others]}
            await asyncio.sleep(_IDLE_SECONDS)
            at_start = machine.memory_bytes([pid])
            before = {name: _cpu(pids) for name, pids in views.items()}
            jobs, commands = await _jobs(redis)
            begun = time.monotonic()
            await self._fall_due("bench.paid")
            peak = await self._sent(self.count, pid)
            seconds = time.monotonic() - begun
            self.pace = max(round(self.count / seconds), 1)
            jobs, commands = (
                now - then for now, then in zip(await _jobs(redis), (jobs, commands), strict=True)
            )
            counts = await self.sink.counts()
            self.size = counts.bytes // max(counts.messages, 1)
            own = {
                "start_mb": at_start / 1e6,
                "peak_mb": peak / 1e6,
                "jobs": float(jobs),
                "connections": float(counts.most_at_once - 1),  # without the one that asks
                "redis_commands": commands / self.count,
            }
            for name, pids in views.items():
                used = sum(cpu - before[name].get(one, 0.0) for one, cpu in _cpu(pids).items())
                self.bench.results.add(
                    "backfill",
                    self.case,
                    name,
                    cpu_us=used * 1e6 / self.count,
                    messages_per_s=self.count / seconds,
                    **(own if name == ALONE else {}),
                )
            if counts.messages != self.count:
                raise ServerFailed(f"{counts.messages} messages came instead of {self.count}")

    async def count_statements(self) -> None:
        """Another sender, with a hook in its engines, works off a small backlog."""
        path = self.hub.home / "counts.json"
        async with AsyncExitStack() as stack:
            pid = await self.hub.start_sender(stack, "benchmarks.servers.counting_sender", COUNTS=str(path))
            await self._fall_due("bench.counted")
            await self._sent(self.count + TO_COUNT, pid)
        counts = json.loads(path.read_text())
        self.bench.results.add(
            "backfill",
            self.case,
            COUNTED,
            statements=counts["statements"] / TO_COUNT,
            transactions=counts["commits"] / TO_COUNT,
        )
        self.bench.results.note(
            "backfill",
            self.case,
            f"Statements, transactions and commands are for each message; {counts['chunks']} chunks of {TO_COUNT} counted "
            f"messages, the largest of {counts['largest_chunk']}.",
        )

    async def measure_bare(self, name: str, pace: int = 0) -> None:
        """The bare loop with messages of the same size, as fast as it goes or at a pace."""
        count = min(self.count, BARE_COUNT)
        arguments = map(str, (self.sink.port, count, self.scene.connections, self._bare_size(), pace))
        command = [sys.executable, "-m", "benchmarks.servers.bare_sender", self.kind.bare_kind, *arguments]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        machine.pin(process.pid, machine.SERVER_CORE)
        out, _ = await process.communicate()
        if process.returncode:
            raise ServerFailed("the bare loop failed")
        figures = json.loads(out)
        self.bench.results.add(
            "backfill",
            self.case,
            name,
            cpu_us=figures["cpu_us"],
            messages_per_s=figures["per_second"],
        )

    def _bare_size(self) -> int:
        # Of a push the HTTP head and what encryption adds are not payload.
        return self.size if self.kind is _MAILS else 400

    async def _fall_due(self, type_: str) -> None:
        async def work(connection: Any) -> None:
            await connection.execute(
                update(deliveries).where(deliveries.c.type == type_).values(due_at_us=self.store._db.now_us())  # noqa: SLF001
            )

        await self.store._db.write(work)  # noqa: SLF001

    async def _sent(self, count: int, pid: int) -> int:
        """Wait until so many came and all is recorded; the most memory of the sender meanwhile."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        peak = 0
        while True:
            came = (await self.sink.counts()).messages
            if not machine.is_running(pid):
                raise ServerFailed(f"the sender ended: {self.hub.last_words('sender')}")
            peak = max(peak, machine.memory_bytes([pid]))
            if came >= count and (await self._states()).get("sent") == count:
                return peak
            if time.monotonic() > deadline:
                raise ServerFailed(f"{came} of {count} messages came: {self.hub.last_words('sender')}")
            await asyncio.sleep(_SAMPLE_SECONDS)

    async def _states(self) -> dict[str, int]:
        async with self.store._db.read() as connection:  # noqa: SLF001
            rows = await connection.execute(
                select(deliveries.c.state, func.count()).group_by(deliveries.c.state)
            )
            return {row[0]: row[1] for row in rows}


def _event(type_: str, number: int) -> dict[str, object]:
    user = {"id": f"u{number}", "email": f"u{number}@example.com", "name": f"User {number}"}
    data = {"number": number, "amount": f"{number % 200}.00", "lines": _LINES}
    return {"type": type_, "to": [user], "data": data}


def _cpu(pids: list[int]) -> dict[int, float]:
    return {member: machine.cpu_seconds([member]) for pid in pids for member in machine.family(pid)}


async def _jobs(redis: Any) -> tuple[int, int]:
    """How often a job was taken up (each time is one INCRBY), and how many commands Redis has worked off."""
    stats = await redis.info("commandstats")
    made = stats.get("cmdstat_incrby", {}).get("calls", 0)
    return made, sum(one["calls"] for one in stats.values())
