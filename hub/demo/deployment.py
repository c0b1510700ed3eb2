"""A whole hub of its own for a story: `clarion up` as a child process, in a folder that is gone at the end.

Nothing of the user's is touched or read: no setting of the environment, no `.env`, no data folder, no port but a free
one of the loopback. However the story ends, its processes end with it.
"""

import asyncio
import json
import os
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any, Final
from urllib.parse import quote

import httpx2

import hub
from hub import children
from hub.children import Launch
from hub.cli.client import words_of
from hub.clock import SystemClock
from hub.config_sources import PREFIX
from hub.definitions import Definitions
from hub.errors import ClarionError
from hub.supervisor import free_port, http_ready
from hub.tokens import Tokens

Json = dict[str, Any]
HOST: Final = "127.0.0.1"
START_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.1
PAGE: Final = 100


class StoryFailed(ClarionError):
    """The story cannot go on; the sentence says why."""


class Deployment:
    """A hub that runs, and its key: what a backend and its users ask of it."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        port, secret, key = free_port(), secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        self.url = f"http://{HOST}:{port}"
        self.folder = folder
        self._log = folder / "clarion.log"
        self._tokens = Tokens((secret.encode(),), SystemClock())
        self._ready = http_ready(HOST, port)
        self._process: asyncio.subprocess.Process | None = None
        own = {
            "DATA_DIR": str(folder / "data"),
            "HOST": HOST,
            "PORT": str(port),
            "API_KEY": key,
            "TOKEN_SECRET": secret,
            "LOG_FORMAT": "text",
            **settings,
        }
        # An empty variable counts as unset, so what the user's own hub is set to does not reach this one.
        others = {name: "" for name in os.environ if name.upper().startswith(PREFIX)}
        source = str(Path(hub.__file__).parent.parent)
        path = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._environment = {
            **others,
            **{PREFIX + name: value for name, value in own.items()},
            "PYTHONPATH": path,
        }
        self._client = httpx2.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=30,
            trust_env=False,
            limits=httpx2.Limits(max_connections=50),
        )

    # ------------------------------------------------------------ processes

    async def start(self) -> None:
        """Start everything and return when it answers. Raises `StoryFailed` with the hub's own last words."""
        with self._log.open("ab") as output:
            self._process = await children.spawn(self._launch("up"), output)
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._ready():
                    if self._process.returncode is not None:
                        raise StoryFailed(f"the demo's hub did not start: {self._last_words()}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise StoryFailed(
                f"the demo's hub did not start within {START_SECONDS:.0f} seconds: {self._last_words()}"
            ) from None

    async def stop(self) -> None:
        """End everything."""
        await self._client.aclose()
        if self._process is not None:
            await children.stop(self._process, DRAIN_SECONDS)

    def _launch(self, *words: str) -> Launch:
        return Launch((sys.executable, "-m", "hub", *words), self._environment, folder=self.folder)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("clarion: ") if lines else "it said nothing."

    async def verify(self) -> list[str]:
        """What `clarion verify` finds: sentences about sums that do not add up."""
        launch = self._launch("verify", "--json")
        process = await asyncio.create_subprocess_exec(
            *launch.command,
            env={**os.environ, **self._environment},
            cwd=self.folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, complaints = await process.communicate()
        try:
            faults: list[str] = json.loads(said)["faults"]
        except (ValueError, KeyError):
            raise StoryFailed(f"the ledger cannot be read: {complaints.decode(errors='replace')}") from None
        return faults

    # ------------------------------------------------------------ calls

    async def call(self, method: str, path: str, body: Any = None, *, user: str | None = None) -> Any:
        """A call as the backend, or as a user; the answer's JSON. Raises `StoryFailed` for any other answer."""
        headers = {"Authorization": f"Bearer {self.token(user)}"} if user is not None else {}
        content = {} if body is None else {"content": body} if isinstance(body, bytes) else {"json": body}
        try:
            answer = await self._client.request(method, path, headers=headers, **content)
        except httpx2.HTTPError as error:
            raise StoryFailed(
                f"the demo's hub does not answer: {str(error) or type(error).__name__}."
            ) from None
        if not answer.is_success:
            raise StoryFailed(f"{method} {path} was refused: {words_of(answer)}")
        return answer.json() if answer.content else None

    async def publish(self, event: Json) -> str:
        """Publish one event; returns its id."""
        answer = await self.call("POST", "/v1/events", event)
        return str(answer["id"])

    async def publish_many(self, events: list[Json]) -> None:
        """Publish in one call; each event brings its `idempotency_key`."""
        answer = await self.call("POST", "/v1/events/batch", events)
        if answer["rejected"]:
            wrong = next(one["error"]["detail"] for one in answer["results"] if "error" in one)
            raise StoryFailed(f"an event was refused: {wrong}")

    async def define(self, definitions: Definitions) -> None:
        """Define categories and types."""
        for name, category in definitions.categories.items():
            await self.call("PUT", f"/v1/categories/{quote(name)}", category)
        for name, kind in definitions.types.items():
            await self.call("PUT", f"/v1/types/{quote(name)}", kind)

    async def log(self, **filters: str) -> list[Json]:
        """The delivery log, newest first."""
        lines: list[Json] = []
        asked = {"limit": str(PAGE), **filters}
        while True:
            page = await self.call("GET", f"/v1/log?{httpx2.QueryParams(asked)}")
            lines += page["entries"]
            if page["next"] is None:
                return lines
            asked["cursor"] = page["next"]

    async def deliveries(self, event_id: str) -> list[Json]:
        """The deliveries of an event."""
        answer = await self.call("GET", f"/v1/events/{event_id}/deliveries?limit=100")
        return list(answer["deliveries"])

    async def until_logged(
        self, condition: Callable[[list[Json]], bool], seconds: float, **filters: str
    ) -> list[Json] | None:
        """Wait for the log to say something; returns its lines, or None when it did not within that time."""
        try:
            async with asyncio.timeout(seconds):
                while not condition(lines := await self.log(**filters)):  # noqa: ASYNC110 - HTTP gives no signal
                    await asyncio.sleep(POLL_SECONDS * 2)
        except TimeoutError:
            return None
        return lines

    def token(self, user: str) -> str:
        """A token for a user."""
        return self._tokens.issue(user)

    def stream(self, user: str) -> Any:
        """A user's live stream (SSE), as a context of httpx2."""
        headers = {"Authorization": f"Bearer {self.token(user)}"}
        return self._client.stream(
            "GET", "/v1/me/stream", headers=headers, timeout=httpx2.Timeout(30, read=None)
        )


@asynccontextmanager
async def deployed(settings: Mapping[str, str], *, keep: bool) -> AsyncIterator[Deployment]:
    """A deployment at work; at the end it is gone, and so is its folder unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="clarion-demo-"))
    deployment = Deployment(folder, settings)
    try:
        await deployment.start()
        yield deployment
    finally:
        try:
            await deployment.stop()
        finally:
            if not keep:
                rmtree(folder, ignore_errors=True)
