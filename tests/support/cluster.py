"""Real processes of one deployment: Valkey, nodes, generators and senders, to be killed, frozen and started again."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from sqlalchemy import select

from hub import children
from hub.adapters.embedded_valkey import EmbeddedValkey
from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import leases
from hub.children import Launch
from hub.clock import SystemClock
from hub.config import load_settings
from hub.supervisor import USAGE_EXIT_CODE, free_port, http_ready
from hub.tokens import Tokens
from hub.wiring import migrate_database, open_store, waiting_events

API_KEY = "test-key-0123456789abcdef"
SECRET = "0123456789abcdef0123456789abcdef"
READY_SECONDS = 60.0
DRAIN_SECONDS = 20.0


class Member:
    """One node, generator or sender process."""

    def __init__(self, command: str, environment: dict[str, str], log: Path, port: int | None) -> None:
        self.command = command
        self.port = port
        self.log = log
        self.environment = environment
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where a node listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id; the process must have been started."""
        assert self.process
        return self.process.pid

    async def start(self) -> None:
        """Start the process; a node is waited for."""
        await self._spawn()
        if self.port is not None:
            await self.ready()

    async def _spawn(self) -> None:
        with self.log.open("ab") as log:
            self.process = await children.spawn(
                Launch((sys.executable, "-m", "hub", self.command), self.environment), log
            )

    async def ready(self) -> None:
        """Return when a node answers. One that ends (Redis is away) is started again, as `clarion up` does."""
        assert self.port is not None
        check = http_ready("127.0.0.1", self.port, "/healthz")
        async with asyncio.timeout(READY_SECONDS):
            while not await check():
                assert self.process, "it was not started"
                if self.process.returncode is not None:
                    assert self.process.returncode != USAGE_EXIT_CODE, self.log.read_text()[-2000:]
                    await self._spawn()
                await asyncio.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send a signal to a process that runs."""
        if self.process and self.process.returncode is None:
            self.process.send_signal(number)

    async def kill(self) -> None:
        """End it as a crash would."""
        self.signal(signal.SIGKILL)
        if self.process:
            await self.process.wait()

    async def terminate(self) -> int:
        """Ask it to end (SIGTERM) and return its exit code."""
        assert self.process
        self.signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), DRAIN_SECONDS)


class Cluster:
    """A deployment in one folder. `settings` are those of all processes; `redis_of_node` leads single nodes elsewhere."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        *,
        nodes: int = 1,
        generators: int = 1,
        senders: int = 0,
        redis_of_node: Mapping[int, str] | None = None,
        **settings: str,
    ) -> None:
        self.valkey = EmbeddedValkey(folder)
        self.folder = folder
        self.database_url = database_url
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CLARION_")},
            "CLARION_DATA_DIR": str(folder),
            "CLARION_DATABASE_URL": database_url,
            "CLARION_REDIS_URL": self.valkey.url,
            "CLARION_API_KEY": API_KEY,
            "CLARION_TOKEN_SECRET": SECRET,
            "CLARION_LOG_FORMAT": "text",
            **{f"CLARION_{name.upper()}": value for name, value in settings.items()},
        }
        self.settings = load_settings(
            data_dir=folder,
            database_url=database_url,
            redis_url=self.valkey.url,
            api_key=API_KEY,
            token_secret=SECRET,
            **settings,
        )
        self.nodes = [self._member("node", number, free_port()) for number in range(nodes)]
        self.generators = [self._member("generate", number, None) for number in range(generators)]
        self.senders = [self._member("work", number, None) for number in range(senders)]
        for sender in self.senders:  # the links in their messages lead to the first node
            sender.environment["CLARION_PORT"] = str(self.nodes[0].port)
        for number, url in (redis_of_node or {}).items():
            self.nodes[number].environment["CLARION_REDIS_URL"] = url
        self.client = httpx2.AsyncClient(timeout=10.0, limits=httpx2.Limits(max_connections=1_000))

    def _member(self, command: str, number: int, port: int | None) -> Member:
        environment = {**self.environment, **({"CLARION_PORT": str(port)} if port else {})}
        return Member(command, environment, self.folder / f"{command}-{number}.log", port)

    # ------------------------------------------------------------ processes

    @property
    def members(self) -> list[Member]:
        """All processes but Valkey."""
        return [*self.nodes, *self.generators, *self.senders]

    async def start(self, members: Iterable[Member] | None = None) -> None:
        """Start Valkey and (all) members, and wait until they answer."""
        await self.valkey.start()
        await migrate_database(self.settings)
        await asyncio.gather(*(member.start() for member in (self.members if members is None else members)))

    async def stop(self) -> None:
        """End everything."""
        await self.client.aclose()
        for member in self.members:
            member.signal(signal.SIGCONT)
            await member.kill()
        await self.valkey.stop()

    # ------------------------------------------------------------ calls

    async def ask(self, method: str, path: str, node: int = 0, **options: Any) -> httpx2.Response:
        """A call with the API key (unless `headers` say otherwise). Raises httpx2 errors of the transport."""
        headers = {"Authorization": f"Bearer {API_KEY}", **options.pop("headers", {})}
        return await self.client.request(method, self.nodes[node].url + path, headers=headers, **options)

    async def call(self, method: str, path: str, node: int = 0, **options: Any) -> Any:
        """The same; its JSON. Raises httpx2 errors, also for refusals."""
        response = await self.ask(method, path, node, **options)
        response.raise_for_status()
        return response.json() if response.content else None

    async def call_surely(self, method: str, path: str, node: int = 0, **options: Any) -> Any:
        """Repeat a harmless call, at another node each time, until it is answered: what a careful backend does."""
        while True:
            try:
                return await self.call(method, path, node % len(self.nodes), **options)
            except httpx2.HTTPStatusError as error:
                if error.response.status_code != 503:
                    raise AssertionError(error.response.text) from error
            except httpx2.HTTPError:
                pass
            node += 1
            await asyncio.sleep(0.05)

    async def publish(self, *, node: int = 0, **event: Any) -> str:
        """Publish one event and return its id."""
        answer = await self.call("POST", "/v1/events", node, json=event)
        return str(answer["id"])

    async def publish_many(self, events: Sequence[Mapping[str, Any]], node: int = 0) -> list[str]:
        """Publish in one request and return the ids."""
        answer = await self.call("POST", "/v1/events/batch", node, json=list(events))
        return [one["id"] for one in answer["results"]]

    async def publish_surely(self, key: str, event: dict[str, Any], node: int = 0) -> str:
        """Publish and repeat with the same key until there is a 202."""
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        answer = await self.call_surely(
            "POST", "/v1/events", node, content=json.dumps(event), headers=headers
        )
        return str(answer["id"])

    def token(self, user: str, seconds: float = 3600) -> str:
        """A token for a user."""
        return Tokens((SECRET.encode(),), SystemClock()).issue(user, int(seconds))

    def as_user(self, user: str) -> dict[str, str]:
        """The headers of a user's call."""
        return {"Authorization": f"Bearer {self.token(user)}"}

    async def inbox(self, user: str, node: int = 0, **query: str) -> list[dict[str, Any]]:
        """A user's whole inbox, oldest first."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        headers = self.as_user(user)
        while True:
            page = await self.call(
                "GET",
                "/v1/me/notifications",
                node,
                params={"limit": "100", **query, **({"cursor": cursor} if cursor else {})},
                headers=headers,
            )
            rows += page["notifications"]
            cursor = page["next"]
            if cursor is None:
                return rows[::-1]

    async def titles(self, user: str, node: int = 0) -> list[str]:
        """The titles of a user's whole inbox, oldest first."""
        return [row["title"] for row in await self.inbox(user, node)]

    # ------------------------------------------------------------ what it is doing

    async def drained(self, timeout_seconds: float = 60.0) -> None:
        """Return when no event waits in the queue."""
        async with asyncio.timeout(timeout_seconds):
            while sum((await waiting_events(self.settings)).values()):
                await asyncio.sleep(0.1)

    async def ledger(self) -> list[str]:
        """What does not add up."""
        store = await open_store(self.settings)
        try:
            return await store.ledger()
        finally:
            await store.close()

    async def owners(self) -> dict[str, int]:
        """Who holds which lease now: the process id by the lease's name. Lapsed leases are left out."""
        store = SqlStore(self.database_url)
        try:
            async with store._db.read() as connection:
                rows = await connection.execute(
                    select(leases.c.name, leases.c.owner).where(leases.c.expires_at_us > store._db.now_us())
                )
                return {row.name: int(row.owner.split(":")[-2]) for row in rows}
        finally:
            await store.close()

    async def wait_for_owners(self, *members: Member, timeout_seconds: float = 20.0) -> None:
        """Return when these generators share all partitions among them, each its fair part."""
        pids = {member.pid for member in members}
        partitions = [*(str(number) for number in range(self.settings.partitions)), "lane"]
        most = -(-len(partitions) // len(pids))
        owners: dict[str, int] = {}
        try:
            async with asyncio.timeout(timeout_seconds):
                while True:
                    owners = await self.owners()
                    held = [owners.get(name, 0) for name in partitions]
                    if set(held) == pids and all(held.count(pid) <= most for pid in pids):
                        return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{pids} do not share the partitions: {owners}") from None

    def logs(self) -> str:
        """The ends of all logs, for a failing test's report."""
        return "\n".join(
            f"== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in sorted(self.folder.glob("*.log"))
        )


@asynccontextmanager
async def running_cluster(
    folder: Path,
    database_url: str,
    *,
    nodes: int = 1,
    generators: int = 1,
    senders: int = 0,
    redis_of_node: Mapping[int, str] | None = None,
    asleep: bool = False,
    **settings: str,
) -> AsyncIterator[Cluster]:
    """A cluster that is gone at the end; its logs are printed when the test fails. `asleep`: without generators yet."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(
        folder,
        database_url,
        nodes=nodes,
        generators=generators,
        senders=senders,
        redis_of_node=redis_of_node,
        **settings,
    )
    try:
        await cluster.start(cluster.nodes if asleep else None)
        yield cluster
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        await cluster.stop()
