"""A headless Firefox, driven over WebDriver BiDi, and the push service of its maker's protocol.

Firefox gets its push messages over a WebSocket that it keeps open. `FirefoxPush` is the other end of it: it gives out
endpoints, takes messages at them as every push service does, and hands them on still encrypted.
"""

import asyncio
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any

from aiohttp import WSMsgType, web
from websockets.asyncio.client import ClientConnection, connect

from tests.support.push_service import Browser, PushService

START_SECONDS = 60.0
WAIT_SECONDS = 30.0
QUIET = {
    # The push service is ours, and it is reached without TLS.
    "dom.push.serverURL": "ws://127.0.0.1:{port}/",
    "dom.push.testing.allowInsecureServerURL": True,
    "dom.push.retryBaseInterval": 100,
    "dom.push.connection.enabled": True,
    # Nobody sits there to answer a question or to see a window of the desktop.
    "permissions.default.desktop-notification": 1,
    "alerts.useSystemBackend": False,
    # It asks nobody in the world for anything.
    "app.update.disabledForTesting": True,
    "app.normandy.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.topsites.contile.enabled": False,
    "browser.newtabpage.enabled": False,
    "browser.region.network.url": "",
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disableIPv6": True,
    "services.settings.server": "data:,",
    "toolkit.telemetry.server": "data:,",
    "toolkit.startup.max_resumed_crashes": -1,
}


class FirefoxPush(PushService):
    """Firefox's push service: hello, register, notification, ack, unregister."""

    def __init__(self) -> None:
        super().__init__()
        self.uaid = token_hex(16)
        self.acknowledged: list[str] = []
        self._channels: dict[str, str] = {}  # endpoint's path -> channel
        self._socket: web.WebSocketResponse | None = None
        self._numbers = count(1)

    def add_routes(self, app: web.Application) -> None:
        app.router.add_get("/", self.connected)
        super().add_routes(app)

    async def connected(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("push-notification",))
        await socket.prepare(request)
        self._socket = socket
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                said = json.loads(message.data)
                answer = self._answer(said)
                if answer is not None:
                    await socket.send_str(json.dumps(answer))
        return socket

    def _answer(self, said: dict[str, Any]) -> dict[str, Any] | None:
        match said.get("messageType"):
            case "hello":
                return {
                    "messageType": "hello",
                    "uaid": self.uaid,
                    "status": 200,
                    "use_webpush": True,
                    "broadcasts": {},
                }
            case "register":
                browser = self.subscribe("firefox")
                self._channels[browser.endpoint.removeprefix(self.origin)] = said["channelID"]
                found = {"channelID": said["channelID"], "status": 200, "pushEndpoint": browser.endpoint}
                return {"messageType": "register", **found}
            case "unregister":
                return {"messageType": "unregister", "channelID": said["channelID"], "status": 200}
            case "ack":
                self.acknowledged += [one["version"] for one in said["updates"]]
                return None
            case "broadcast_subscribe" | "nack":
                return None
        return {}  # a ping

    async def deliver(self, browser: Browser, body: bytes) -> str:
        """Hand it on as it came: only Firefox has the key."""
        assert self._socket is not None
        notification = {
            "messageType": "notification",
            "channelID": self._channels[browser.endpoint.removeprefix(self.origin)],
            "version": f"v{next(self._numbers)}",
            "data": urlsafe_b64encode(body).rstrip(b"=").decode(),
            "headers": {"encoding": "aes128gcm"},
        }
        await self._socket.send_str(json.dumps(notification))
        return "null"

    async def forget_everybody(self) -> None:
        """Lose all that is known of browsers: Firefox then changes its subscriptions (`pushsubscriptionchange`)."""
        self.uaid = token_hex(16)
        self._channels.clear()
        self._browsers.clear()
        assert self._socket is not None
        await self._socket.close()

    def let_go(self) -> None:
        super().let_go()
        if self._socket is not None and self._socket._writer is not None:
            self._socket._writer.transport.close()


class Firefox:
    """A session. Contexts are pages, by the ids that BiDi gives them."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.errors: list[str] = []

    async def listen(self) -> None:
        async for text in self._socket:
            said = json.loads(text)
            if said.get("method") == "log.entryAdded" and said["params"]["level"] == "error":
                self.errors.append(said["params"]["text"])
            future = self._waiting.pop(said.get("id", 0), None)
            if future is not None and not future.done():
                if said["type"] == "error":
                    future.set_exception(RuntimeError(f"{said['error']}: {said['message']}"))
                else:
                    future.set_result(said["result"])

    async def command(self, method: str, **parameters: Any) -> Any:
        id_ = next(self._ids)
        self._waiting[id_] = future = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": id_, "method": method, "params": parameters}))
        return await asyncio.wait_for(future, WAIT_SECONDS)

    async def open(self, url: str) -> str:
        """A new page."""
        page = str((await self.command("browsingContext.create", type="tab"))["context"])
        await self.command("browsingContext.navigate", context=page, url=url, wait="complete")
        return page

    async def close(self, page: str) -> None:
        await self.command("browsingContext.close", context=page)

    async def evaluate(self, page: str, expression: str) -> Any:
        """The JSON of what an expression (or its promise) comes to."""
        wrapped = f"(async () => JSON.stringify(await ({expression}) ?? null))()"
        said = await self.command(
            "script.evaluate", expression=wrapped, target={"context": page}, awaitPromise=True
        )
        if said["type"] == "exception":
            raise RuntimeError(said["exceptionDetails"]["text"])
        return json.loads(said["result"]["value"])

    async def until(self, page: str, expression: str) -> Any:
        """Return what an expression comes to as soon as that is true."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                try:
                    if found := await self.evaluate(page, expression):
                        return found
                except RuntimeError as error:  # the page is just being replaced by another
                    if not re.search(r"no such|AbortError|discarded|navigat", str(error)):
                        raise
                await asyncio.sleep(0.05)

    async def click(self, page: str, selector: str) -> None:
        """A real click in the middle of an element."""
        await self.until(page, f"document.querySelector({json.dumps(selector)})?.checkVisibility()")
        found = await self.command(
            "browsingContext.locateNodes", context=page, locator={"type": "css", "value": selector}
        )
        await self.evaluate(page, f"void document.querySelector({json.dumps(selector)}).scrollIntoView()")
        origin = {"type": "element", "element": {"sharedId": found["nodes"][0]["sharedId"]}}
        move = {"type": "pointerMove", "x": 0, "y": 0, "origin": origin}
        press = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        mouse = {"type": "pointer", "id": "mouse", "actions": [move, *press]}
        await self.command("input.performActions", context=page, actions=[mouse])


@asynccontextmanager
async def open_firefox(path: str, folder: Path, push_port: int) -> AsyncIterator[Firefox]:
    """A fresh profile, gone at the end."""
    profile = folder / "firefox"
    profile.mkdir()
    prefs = {
        name: value.format(port=push_port) if isinstance(value, str) else value
        for name, value in QUIET.items()
    }
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in prefs.items()]
    (profile / "user.js").write_text("\n".join(lines))
    process = await asyncio.create_subprocess_exec(
        path, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0", "about:blank",
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin", "MOZ_HEADLESS": "1", "LANG": "C.UTF-8"},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    listening: asyncio.Task[None] | None = None
    reading: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(START_SECONDS):
            address = await _address(process)
        assert process.stderr is not None
        reading = asyncio.create_task(_drain(process.stderr))
        async with connect(f"{address}/session", max_size=None) as socket:
            firefox = Firefox(socket)
            listening = asyncio.create_task(firefox.listen())
            await firefox.command("session.new", capabilities={})
            await firefox.command("session.subscribe", events=["log.entryAdded"])
            yield firefox
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        for task in (listening, reading):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])


async def _address(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = []
    while line := (await process.stderr.readline()).decode("utf-8", "replace"):
        said.append(line)
        if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
            return found[1]
    raise RuntimeError(f"Firefox did not start: {''.join(said[-20:])}")


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(65_536):
        pass
