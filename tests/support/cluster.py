"""Real processes of one deployment: Valkey, nodes and generators, to be killed, frozen and started again."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from hub import children
from hub.adapters.embedded_valkey import EmbeddedValkey
from hub.children import Launch
from hub.clock import SystemClock
from hub.config import load_settings
from hub.supervisor import http_ready
from hub.tokens import Tokens
from hub.wiring import migrate_database, open_store

API_KEY = "test-key-0123456789abcdef"
SECRET = "0123456789abcdef0123456789abcdef"
READY_SECONDS = 30.0


def take_port() -> int:
    """A TCP port on the loopback that nobody used a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class Member:
    """One node or generator process."""

    def __init__(self, command: str, environment: dict[str, str], log: Path, port: int | None) -> None:
        self.command = command
        self.port = port
        self._environment = environment
        self._log = log
        self.process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where a node listens."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the process; a node is waited for."""
        with self._log.open("ab") as log:
            self.process = await children.spawn(
                Launch((sys.executable, "-m", "hub", self.command), self._environment), log
            )
        if self.port is not None:
            await self.ready()

    async def ready(self) -> None:
        """Return when a node answers."""
        assert self.port is not None
        check = http_ready("127.0.0.1", self.port, "/healthz")
        async with asyncio.timeout(READY_SECONDS):
            while not await check():
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


class Cluster:
    """A deployment in one folder."""

    def __init__(self, folder: Path, database_url: str, nodes: int, generators: int, **settings: str) -> None:
        self.valkey = EmbeddedValkey(folder)
        self.folder = folder
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
        )
        self.nodes = [self._member("node", number, take_port()) for number in range(nodes)]
        self.generators = [self._member("generate", number, None) for number in range(generators)]
        self.client = httpx2.AsyncClient(timeout=10.0)

    def _member(self, command: str, number: int, port: int | None) -> Member:
        environment = {**self.environment, **({"CLARION_PORT": str(port)} if port else {})}
        return Member(command, environment, self.folder / f"{command}-{number}.log", port)

    @property
    def members(self) -> list[Member]:
        """All processes but Valkey."""
        return [*self.nodes, *self.generators]

    async def start(self) -> None:
        """Start everything and wait until it answers."""
        await self.valkey.start()
        await migrate_database(self.settings)
        await asyncio.gather(*(member.start() for member in self.members))

    async def stop(self) -> None:
        """End everything."""
        await self.client.aclose()
        for member in self.members:
            member.signal(signal.SIGCONT)
            await member.kill()
        await self.valkey.stop()

    async def call(self, method: str, path: str, node: int = 0, **options: Any) -> Any:
        """A call with the API key; its JSON. Raises httpx2 errors."""
        headers = {"Authorization": f"Bearer {API_KEY}", **options.pop("headers", {})}
        response = await self.client.request(method, self.nodes[node].url + path, headers=headers, **options)
        response.raise_for_status()
        return response.json()

    async def publish_surely(self, key: str, event: dict[str, Any], node: int = 0) -> str:
        """Publish and repeat with the same key until there is a 202: what a careful backend does."""
        while True:
            try:
                answer = await self.call(
                    "POST",
                    "/v1/events",
                    node,
                    content=json.dumps(event),
                    headers={"Idempotency-Key": key, "Content-Type": "application/json"},
                )
                return str(answer["id"])
            except httpx2.HTTPStatusError as error:
                assert error.response.status_code == 503, error.response.text
            except httpx2.HTTPError:
                pass
            await asyncio.sleep(0.05)

    def token(self, user: str) -> str:
        """A token for a user."""
        return Tokens((SECRET.encode(),), SystemClock()).issue(user, 3600)

    async def inbox(self, user: str, node: int = 0) -> list[dict[str, Any]]:
        """A user's whole inbox, oldest first."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = None
        headers = {"Authorization": f"Bearer {self.token(user)}"}
        while True:
            query = {"limit": "100", **({"cursor": cursor} if cursor else {})}
            page = await self.call("GET", "/v1/me/notifications", node, params=query, headers=headers)
            rows += page["notifications"]
            cursor = page["next"]
            if cursor is None:
                return rows[::-1]

    async def drained(self, timeout_seconds: float = 60.0) -> None:
        """Return when no event waits in the queue."""
        from hub.wiring import waiting_events

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

    def logs(self) -> str:
        """The ends of all logs, for a failing test's report."""
        return "\n".join(
            f"== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in sorted(self.folder.glob("*.log"))
        )


class Listener:
    """An EventSource: reconnects with its last id for ever, keeps what it got and whether it was told of a gap."""

    def __init__(self, cluster: Cluster, user: str, node: int = 0) -> None:
        self.titles: list[str] = []
        self.gaps = 0
        self.connects = 0
        self._cluster = cluster
        self._user = user
        self._node = node
        self._cursor: str | None = None
        self._task = asyncio.create_task(self._run())
        self.connected = asyncio.Event()

    async def _run(self) -> None:
        while True:
            try:
                await self._once()
            except httpx2.HTTPError:
                pass
            self.connected.clear()
            await asyncio.sleep(0.1)

    async def _once(self) -> None:
        headers = {"Authorization": f"Bearer {self._cluster.token(self._user)}"}
        if self._cursor:
            headers["Last-Event-ID"] = self._cursor
        url = self._cluster.nodes[self._node].url + "/v1/me/stream"
        async with self._cluster.client.stream("GET", url, headers=headers) as response:
            if response.status_code != 200:
                return
            self.connects += 1
            event = ""
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                elif name == "id":
                    self._cursor = value
                elif name == "data":
                    self._take(event, value)

    def _take(self, event: str, data: str) -> None:
        if event == "ready":
            self.connected.set()
        elif event == "gap":
            self.gaps += 1
        elif event == "notification":
            self.titles.append(json.loads(data)["notification"]["title"])

    async def close(self) -> None:
        """Go away."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def running_cluster(
    folder: Path, database_url: str, *, nodes: int = 1, generators: int = 1, **settings: str
) -> AsyncIterator[Cluster]:
    """A cluster that is gone at the end; its logs are printed when the test fails."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder, database_url, nodes, generators, **settings)
    try:
        await cluster.start()
        yield cluster
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        await cluster.stop()
