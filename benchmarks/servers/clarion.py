"""The product itself: real processes with everything on, in a temporary folder, all on the server's core.

Valkey writes each append to disk before it answers, the store is SQLite unless an address of PostgreSQL is given,
each client is a user of its own with a token.
"""

import asyncio
import os
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import msgspec
from redis.asyncio import Redis

from benchmarks import machine
from benchmarks.load import Clients, Publishers
from benchmarks.servers.candidate import Candidate, ServerFailed, folder, start
from hub.children import Launch
from hub.clock import SystemClock
from hub.config import Settings, load_settings
from hub.supervisor import free_port
from hub.tokens import Tokens
from hub.wiring import embedded_redis, migrate_database, waiting_events

NAME = "Clarion"
NODE = "Clarion, node alone"
API_KEY = "bench-key-0123456789abcdef"
SECRET = "bench-secret-0123456789abcdef0123456789abcdef"
TOKEN_SECONDS = 6 * 3_600
TOPIC = "bench"
EVERYONE = '{"to":{"everyone":true},"title":"News","body":"{pad}","data":{"ts":{ts}}}'
TO_TOPIC = '{"to":{"topic":"bench"},"title":"News","body":"{pad}","data":{"ts":{ts}}}'
TO_USER = '{"to":"u{i}","title":"Paid","body":"{pad}","data":{"ts":{ts}}}'
LONG = '{"to":{"everyone":true},"title":"News","data":{"ts":{ts},"pad":"{pad}"}}'
BODIES = (EVERYONE, TO_TOPIC, TO_USER, LONG)
BODY_EVERYONE, BODY_TOPIC, BODY_USER, BODY_LONG = range(4)

_CONNECT = '{"id":1,"connect":{"token":"{t}"}}'
_RETURN = (
    '{"id":1,"connect":{"token":"{t}","subs":{"#u{i}":{"recover":true,"offset":{offset0},"epoch":"{epoch0}"},'
    '"broadcasts":{"recover":true,"offset":{offset1},"epoch":"{epoch1}"}}}}'
)
_WARM_UP = [{"to": f"warm-{number}", "title": "Hello"} for number in range(100)]


def inherited() -> dict[str, str]:
    """This process' environment without settings of the product."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CLARION_")}


def write_tokens(path: Path, count: int) -> Path:
    """One token a line, for the users u0, u1, …"""
    tokens = Tokens((SECRET.encode(),), SystemClock())
    path.write_text("".join(tokens.issue(f"u{number}", TOKEN_SECONDS) + "\n" for number in range(count)))
    return path


def _missed(number: int) -> dict[str, object]:
    return {"to": f"u{number}", "title": "Paid", "body": "x" * 100, "data": {"ts": 1}}


@dataclass(slots=True)
class Deployment:
    """Valkey, a node and a generator (those that were started)."""

    settings: Settings
    environment: dict[str, str]
    home: Path
    port: int
    tokens: Path
    client: httpx2.AsyncClient
    stack: AsyncExitStack
    node: int = 0
    generator: int = 0
    valkey: int = 0

    @property
    def pids(self) -> list[int]:
        """All processes that run."""
        return [pid for pid in (self.node, self.generator, self.valkey) if pid]

    def move_valkey(self, core: int) -> None:
        """Let Valkey work on this core."""
        for pid in machine.family(self.valkey):
            machine.pin(pid, core)

    async def start_node(self, module: str | None = None, stack: AsyncExitStack | None = None) -> None:
        """Start the node (`module`: a program of ours instead of `clarion node`) and wait until it serves.

        `stack` may end it before the rest.
        """
        arguments = ("-m", "hub", "node") if module is None else ("-m", module)
        launch = Launch((sys.executable, *arguments), {**self.environment, "CLARION_PORT": str(self.port)})
        self.node = await start(stack or self.stack, launch, self.home, "node", self.port)

    async def start_generator(self, stack: AsyncExitStack | None = None, metrics_port: int = 0) -> None:
        """Start a generator; `stack` may end it before the rest."""
        own = {"CLARION_METRICS_PORT": str(metrics_port)} if metrics_port else {}
        launch = Launch((sys.executable, "-m", "hub", "generate"), self.environment | own)
        self.generator = await start(stack or self.stack, launch, self.home, "generator", None)

    async def start_sender(self, stack: AsyncExitStack, module: str | None = None, **own: str) -> int:
        """Start a sender (`module`: a program of ours instead of `clarion work`) and wait until it works.

        `stack` ends it. Returns its process id.
        """
        arguments = ("-m", "hub", "work") if module is None else ("-m", module)
        port = free_port()
        environment = {**self.environment, **own, "CLARION_METRICS_PORT": str(port)}
        return await start(
            stack, Launch((sys.executable, *arguments), environment), self.home, "sender", port
        )

    async def warm_up(self) -> None:
        """Return when events of all partitions, the lane and the public stream are worked off."""
        await self.call("POST", "/v1/events/batch", _WARM_UP)
        await self.call("POST", "/v1/events", {"to": {"topic": "warm"}, "title": "Hello"})
        async with self.redis() as redis:
            await redis.xadd(
                f"{self.settings.redis_prefix}:ingest", {"event": msgspec.json.encode(_WARM_UP[0])}
            )
        await self.drained()

    async def drained(self, limit_seconds: float = 120.0) -> None:
        """Return when no event waits. Raises `ServerFailed` when that takes too long."""
        deadline = time.monotonic() + limit_seconds
        while sum((await waiting_events(self.settings)).values()):
            if time.monotonic() > deadline:
                raise ServerFailed(f"events are still waiting: {self.last_words('generator')}")
            await asyncio.sleep(0.05)

    def last_words(self, name: str) -> str:
        """The end of a process' log."""
        return (self.home / f"{name}.log").read_text(errors="replace")[-2000:]

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """One call of a backend. Raises httpx2 errors."""
        content = None if body is None else msgspec.json.encode(body)
        headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
        answer = await self.client.request(
            method, f"http://127.0.0.1:{self.port}{path}", content=content, headers=headers
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    async def subscribe(self, users: Iterable[str]) -> None:
        """Subscribe users to the topic of the broadcasts."""
        listed = list(users)
        for first in range(0, len(listed), 10_000):
            await self.call("POST", f"/v1/topics/{TOPIC}/users", {"add": listed[first : first + 10_000]})

    async def publish_to_each(self, first: int, count: int) -> None:
        """One notification to each of these users; returns when all are stored and announced."""
        for start_at in range(first, first + count, 1_000):
            users = range(start_at, min(start_at + 1_000, first + count))
            await self.call("POST", "/v1/events/batch", [_missed(number) for number in users])
        await self.drained()

    def redis(self) -> Redis:
        """A connection to the Valkey. Close it with `async with`."""
        assert self.settings.redis_url is not None
        connection: Redis = Redis.from_url(self.settings.redis_url.get_secret_value())
        return connection

    async def redis_bytes(self) -> int:
        """What Valkey keeps in memory."""
        async with self.redis() as redis:
            return int((await redis.info("memory"))["used_memory"])

    def candidate(self, publishers: int = 8) -> Candidate:
        """The deployment beside its competitors: the whole of it, and the node alone."""
        views = {NAME: self.pids, NODE: [self.node]}
        sse = Clients(
            self.port, "/v1/me/stream?token={t}", is_sse=True, ready="event: ready", tokens=self.tokens
        )
        return Candidate(NAME, views, self.websocket(), sse, self.publishers(publishers))

    def node_alone(self) -> Candidate:
        """A deployment of which only the node counts."""
        whole = self.candidate()
        return Candidate(NODE, {NODE: [self.node]}, whole.websocket, whole.sse, whole.publishers)

    def websocket(self) -> Clients:
        """How an SDK connects and comes back."""
        return Clients(
            self.port,
            "/connection/websocket",
            init=_CONNECT,
            return_init=_RETURN,
            ready='"connect":{',
            marks=('"#u', '"broadcasts":{'),
            tokens=self.tokens,
        )

    def publishers(self, count: int) -> Publishers:
        """Backends that publish over HTTP, one by one or in batches, and one that uses XADD."""
        assert self.settings.redis_url is not None
        return Publishers(
            BODIES,
            "/v1/events",
            "/v1/events/batch",
            [f"Authorization: Bearer {API_KEY}"],
            count,
            socket=unquote(self.settings.redis_url.get_secret_value().removeprefix("unix://")),
            stream=f"{self.settings.redis_prefix}:ingest",
        )


async def deployment(
    stack: AsyncExitStack, users: int, database_url: str | None = None, **settings: str
) -> Deployment:
    """An installation with its Valkey and schema; nodes and generators are started by the caller."""
    home = folder(stack)
    given = {
        "data_dir": str(home),
        "database_url": database_url or f"sqlite:///{home / 'clarion.db'}",
        "api_key": API_KEY,
        "token_secret": SECRET,
        "log_format": "text",
        "log_level": "warning",
        "rate_limit": "none",
        **settings,
    }
    bare = load_settings(**given)
    valkey = embedded_redis(bare)
    await stack.enter_async_context(valkey)
    assert valkey.pid is not None
    given["redis_url"] = valkey.url
    read = load_settings(**given)
    await migrate_database(read)
    environment = {f"CLARION_{name.upper()}": value for name, value in given.items()}
    path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
    client = await stack.enter_async_context(httpx2.AsyncClient(timeout=60.0))
    tokens = write_tokens(home / "tokens", users)
    made = Deployment(
        read, {**environment, "PYTHONPATH": path}, home, free_port(), tokens, client, stack, valkey=valkey.pid
    )
    made.move_valkey(machine.SERVER_CORE)
    return made


async def running(
    stack: AsyncExitStack, users: int, settings: Mapping[str, str] | None = None, module: str | None = None
) -> Deployment:
    """A whole deployment at work."""
    made = await deployment(stack, users, **(settings or {}))
    await made.start_node(module)
    await made.start_generator()
    await made.warm_up()
    return made
