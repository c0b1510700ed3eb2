"""A browser before a hub: either one process on the memory adapters, or real processes of a whole deployment.

Everything that a page complains about (errors, dialogs, its own policy) fails the test at the end.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from playwright.async_api import Browser, Dialog, Page, async_playwright, expect
from starlette.types import ASGIApp, Receive, Scope, Send

from hub.api.app import create_app
from hub.api.live import live_routes
from hub.children import Launch, spawn
from hub.clock import SystemClock
from hub.live.server import listen, make_server
from hub.tokens import Tokens
from tests.support.cluster import API_KEY, SECRET, Cluster
from tests.support.house import open_house
from web.routes import page_routes


@dataclass
class Desk:
    """What a test does: call the API as a backend, open pages as a person."""

    base: str
    browser: Browser
    link: Callable[[], Awaitable[str]]
    client: httpx2.AsyncClient
    complaints: list[str] = field(default_factory=list)
    secrets: tuple[bytes, ...] = (SECRET.encode(),)

    async def call(self, method: str, path: str, token: str = API_KEY, **options: Any) -> Any:
        """A call of the API with the first key, or a user's token; its JSON."""
        headers = {"Authorization": f"Bearer {token}"}
        response = await self.client.request(method, self.base + path, headers=headers, **options)
        response.raise_for_status()
        return response.json() if response.content else None

    async def publish(self, **event: Any) -> None:
        await self.call("POST", "/v1/events", json=event)

    async def preferences(self, user: str) -> dict[str, Any]:
        return await self.call("GET", f"/v1/users/{user}/preferences")

    def token(self, user: str) -> str:
        return Tokens((SECRET.encode(),), SystemClock()).issue(user, 3600)

    async def page(self, **options: Any) -> Page:
        """A page in a browser profile of its own."""
        context = await self.browser.new_context(viewport={"width": 1440, "height": 900}, **options)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self._listen(said.text))
        page.on("dialog", self._dismiss)
        return page

    def _listen(self, text: str) -> None:
        if "Content Security Policy" in text or "Trusted" in text:
            self.complaints.append(text)

    async def _dismiss(self, dialog: Dialog) -> None:
        self.complaints.append(f"a dialog: {dialog.message}")
        await dialog.dismiss()

    async def operator(self) -> Page:
        """The dashboard, signed in and live."""
        page = await self.page()
        await page.goto(await self.link())
        await expect(page.locator("#log-state")).to_have_text("Live")
        await expect(page.locator("#inbox-state")).to_have_text("Live")
        return page


@asynccontextmanager
async def _sit(base: str, chromium: str, link: Callable[[], Awaitable[str]]) -> AsyncIterator[Desk]:
    async with async_playwright() as playwright, httpx2.AsyncClient(timeout=10.0) as client:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        desk = Desk(base, browser, link, client)
        try:
            yield desk
        finally:
            await browser.close()
        assert not desk.complaints


@asynccontextmanager
async def small_desk(port: int, chromium: str, path: str = "") -> AsyncIterator[Desk]:
    """A hub in this process; with a path, behind what a proxy does that has it at that path."""
    base = f"http://127.0.0.1:{port}{path}"
    async with open_house(SystemClock(), port=port, public_url=base) as house:  # type: ignore[arg-type]
        app = create_app(house.hub, [*live_routes(house.hub.edge), *page_routes(house.hub)])
        started = asyncio.Event()
        server = make_server(_below(path, app), house.hub.edge, on_started=started.set)
        running = asyncio.create_task(server._serve(listen("127.0.0.1", port)))
        await started.wait()

        async def link() -> str:
            return f"{base}/dashboard?link={await house.hub.sessions.create_link()}"

        try:
            async with _sit(base, chromium, link) as desk:
                yield desk
        finally:
            server.should_exit = True
            await running


def _below(path: str, app: ASGIApp) -> ASGIApp:
    async def stripped(scope: Scope, receive: Receive, send: Send) -> None:
        if "path" in scope:
            assert scope["path"].startswith(f"{path}/"), "a page asked for something above its path"
            scope = {**scope, "path": scope["path"].removeprefix(path)}
        await app(scope, receive, send)

    return stripped


@asynccontextmanager
async def whole_desk(cluster: Cluster, chromium: str) -> AsyncIterator[Desk]:
    """A deployment that runs; the link comes from the command."""

    async def link() -> str:
        environment = {**cluster.environment, "CLARION_PORT": str(cluster.nodes[0].port)}
        printed: Path = cluster.folder / "link.json"
        with printed.open("wb") as output:
            command = Launch((sys.executable, "-m", "hub", "dashboard", "--json"), environment)
            assert await (await spawn(command, output)).wait() == 0
        return str(json.loads(printed.read_text().splitlines()[-1])["link"])

    async with _sit(cluster.nodes[0].url, chromium, link) as desk:
        yield desk
