"""static/client.js in a real browser: against the real edge, and against a scripted server where the edge behaves too well."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route, WebSocketRoute, async_playwright

from tests.support.live_node import make_token
from tests.support.live_server import live_server

CLIENT = Path(__file__).parents[2] / "static" / "client.js"
NOWHERE = "http://nowhere.test/"
BEGIN = """async ({ url, tokens, options, channels }) => {
    const { LiveClient } = await import('/client.js');
    window.tokens = tokens;
    const token = async () => {
        window.report({ event: 'token' });
        return tokens.length > 1 ? tokens.shift() : tokens[0];
    };
    window.client = new LiveClient(url, { token, ...options });
    for (const name of ['state', 'publication', 'gap', 'subscribed', 'refused']) {
        client.addEventListener(name, ({ detail }) => window.report({ event: name, ...detail }));
    }
    for (const channel of channels) client.subscribe(channel);
    client.open();
}"""


class Driver:
    """One LiveClient in a page: what it tells, in order."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.seen: list[dict[str, Any]] = []

    async def begin(self, url: str, *tokens: str, channels: tuple[str, ...] = (), **options: Any) -> None:
        """Open a connection, from a page of the server itself where there is one (browsers guard the loopback)."""
        home = (
            url.replace("ws:", "http:").replace("/connection/websocket", "/hello")
            if "127.0.0.1" in url
            else NOWHERE
        )
        if self.page.url != home:
            await self.page.goto(home)
        given = {"url": url, "tokens": list(tokens), "options": options, "channels": list(channels)}
        await self.page.evaluate(BEGIN, given)

    async def until(self, event: str, seconds: float = 10, **fields: Any) -> dict[str, Any]:
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.events.get()
                    self.seen.append(found)
                    if found["event"] == event and fields.items() <= found.items():
                        return found
        except TimeoutError:
            raise AssertionError(f"no {event} {fields}; seen: {self.seen}") from None

    async def number(self) -> int:
        return int((await self.until("publication"))["data"]["n"])


@asynccontextmanager
async def open_page(chromium: str) -> AsyncIterator[Driver]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page()
        driver = Driver(page)

        async def script(route: Route) -> None:
            await route.fulfill(body=CLIENT.read_text(), content_type="text/javascript")

        async def blank(route: Route) -> None:
            await route.fulfill(body="<!doctype html><title>test</title>", content_type="text/html")

        await page.route("**/client.js", script)
        await page.route(NOWHERE, blank)
        await page.expose_function("report", driver.events.put_nowait)
        yield driver
        await browser.close()


@pytest.fixture
async def driver(chromium: str) -> AsyncIterator[Driver]:
    async with open_page(chromium) as opened:
        yield opened


# ---------------------------------------------------------------- against the edge


@pytest.mark.req("R1", "I5")
async def test_it_comes_back_by_itself_with_all_that_it_missed(driver: Driver) -> None:
    async with live_server() as server:
        await driver.begin(server.websocket, make_token("alice"))
        await driver.until("state", state="live")
        server.node.publish("#alice", {"n": 1})
        assert await driver.number() == 1
        server.node.of("alice")[0].close(3001, "shutdown")
        await driver.until("state", state="waiting")
        server.node.publish("#alice", {"n": 2})
        server.node.publish("broadcasts", {"n": 3})
        await driver.until("state", state="live")
        assert {await driver.number(), await driver.number()} == {2, 3}
        server.node.publish("#alice", {"n": 4})
        assert await driver.number() == 4
        assert not [one for one in driver.seen if one["event"] == "gap"]


@pytest.mark.req("I5")
async def test_it_says_so_when_what_it_missed_is_gone(driver: Driver) -> None:
    async with live_server() as server:
        await driver.begin(server.websocket, make_token("alice"))
        await driver.until("subscribed", channel="#alice")
        server.node.of("alice")[0].close(3001, "shutdown")
        await driver.until("state", state="waiting")
        server.node.publish("#alice", {"n": 1})
        server.node.streams["#alice"].trim()
        assert (await driver.until("gap"))["channel"] == "#alice"
        server.node.publish("#alice", {"n": 2})
        assert await driver.number() == 2


@pytest.mark.req("R34")
async def test_a_bad_token_ends_it(driver: Driver) -> None:
    async with live_server() as server:
        await driver.begin(server.websocket, "nonsense")
        ended = await driver.until("state", state="ended")
        assert ended["code"] == 3500
        assert [one["event"] for one in driver.seen].count("token") == 1


async def test_an_expired_token_is_replaced(driver: Driver) -> None:
    async with live_server() as server:
        await driver.begin(server.websocket, make_token("alice", -100), make_token("alice"))
        await driver.until("state", state="live")


async def test_a_token_is_renewed_before_it_ends(driver: Driver) -> None:
    async with live_server() as server:
        await driver.begin(server.websocket, make_token("alice", 6.5), make_token("alice", 900))
        await driver.until("state", state="live")
        [wire] = server.node.of("alice")
        first = wire.identity.expires_at_us
        await driver.until("token")
        async with asyncio.timeout(5):
            while wire.identity.expires_at_us == first:
                await asyncio.sleep(0.02)
        assert server.node.of("alice") == [wire], "on the same connection"


async def test_who_only_watches_says_so_before_anything_can_come(driver: Driver) -> None:
    async with live_server() as server:
        await driver.begin(server.websocket, make_token("alice"), visible=False, recover=False)
        await driver.until("state", state="live")
        answer = await driver.page.evaluate("client.rpc('echo', {a: 1}).catch((error) => error.message)")
        assert answer
        assert [call for call in server.node.calls if call[0] == "presence.set"]
        server.node.publish("#alice", {"n": 1})
        assert await driver.number() == 1
        server.node.of("alice")[0].close(3001, "shutdown")
        await driver.until("subscribed", channel="#alice", recovered=False)


@pytest.mark.req("R21", "I16")
async def test_operators_follow_the_log_and_others_are_told_that_they_may_not(driver: Driver) -> None:
    async with live_server() as server:
        await driver.begin(server.websocket, make_token("root", operator=True), channels=("log",))
        await driver.until("subscribed", channel="log")
        server.node.publish("log", {"n": 1})
        assert await driver.number() == 1
        [wire] = server.node.of("root")
        wire.gap("log")
        await driver.until("subscribed", channel="log", recovered=True)
        server.node.publish("log", {"n": 2})
        assert await driver.number() == 2
        await driver.page.evaluate("client.close()")
        await driver.begin(server.websocket, make_token("alice"), channels=("log",))
        assert (await driver.until("refused"))["channel"] == "log"


# ---------------------------------------------------------------- against a script

CONNECTED = {"client": "c", "version": "1", "ping": 25, "pong": True}


async def script(driver: Driver, answer: Any) -> str:
    """Let `answer(ws, commands, how many connections)` be the server; returns its address."""
    count = 0

    def accept(ws: WebSocketRoute) -> None:
        nonlocal count
        count += 1
        mine = count
        ws.on_message(lambda text: answer(ws, [json.loads(line) for line in str(text).split("\n")], mine))

    await driver.page.route_web_socket("ws://script.test/", accept)
    return "ws://script.test/"


async def test_what_follows_a_reply_in_its_frame_finds_it_done(driver: Driver) -> None:
    """The position of the subscription counts before the publication behind it, so recovery asks from the right place."""
    asked: list[Any] = []

    def answer(ws: WebSocketRoute, commands: list[Any], count: int) -> None:
        if "connect" not in commands[0]:
            return
        asked.append(commands[0]["connect"].get("subs"))
        subs = {"#a": {"recoverable": True, "positioned": True, "epoch": "e", "offset": 6}}
        lines = [
            {"id": commands[0]["id"], "connect": {**CONNECTED, "subs": subs}},
            {"push": {"channel": "#a", "pub": {"data": {"n": 7}, "offset": 7}}},
            {"push": {"channel": "#a", "pub": {"data": {"n": 8}, "offset": 8}}},
        ]
        ws.send("\n".join(map(json.dumps, lines)))
        if count == 1:
            asyncio.get_running_loop().create_task(ws.close(code=3001, reason="shutdown"))

    await driver.begin(await script(driver, answer), "t")
    await driver.until("subscribed", channel="#a")
    assert [await driver.number(), await driver.number()] == [7, 8]
    await driver.until("state", state="waiting")
    await driver.until("state", state="live")
    assert asked == [{}, {"#a": {"recover": True, "epoch": "e", "offset": 8}}]


async def test_it_answers_pings_and_leaves_a_server_that_is_silent(driver: Driver) -> None:
    said: list[Any] = []

    def answer(ws: WebSocketRoute, commands: list[Any], count: int) -> None:
        said.append((count, commands))
        if "connect" in commands[0]:
            ws.send(json.dumps({"id": commands[0]["id"], "connect": {**CONNECTED, "subs": {}}}))
            ws.send("{}")

    await driver.page.clock.install()
    await driver.begin(await script(driver, answer), "t")
    await driver.until("state", state="live")
    async with asyncio.timeout(5):
        while (1, [{}]) not in said:
            await asyncio.sleep(0.02)
    await driver.page.clock.fast_forward(34_000)
    assert await driver.page.evaluate("client.state") == "live"
    await driver.page.clock.fast_forward(2_000)
    await driver.until("state", state="waiting")


@pytest.mark.parametrize("junk", ["no json", "[]", "null", '{"id":1}\n{"id"', '{"push":{}}'])
async def test_junk_breaks_nothing(driver: Driver, junk: str) -> None:
    def answer(ws: WebSocketRoute, commands: list[Any], count: int) -> None:
        if "connect" in commands[0]:
            if count == 1:
                ws.send(junk)
            ws.send(json.dumps({"id": commands[0]["id"], "connect": {**CONNECTED, "subs": {}}}))

    errors: list[str] = []
    driver.page.on("pageerror", lambda error: errors.append(str(error)))
    await driver.begin(await script(driver, answer), "t")
    await driver.until("state", state="live")
    assert not errors


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (1000, "waiting"),
        (3005, "waiting"),
        (3499, "waiting"),
        (3500, "ended"),
        (3999, "ended"),
        (4000, "waiting"),
        (4500, "ended"),
    ],
)
async def test_the_code_of_a_close_says_whether_it_comes_back(driver: Driver, code: int, state: str) -> None:
    def answer(ws: WebSocketRoute, commands: list[Any], count: int) -> None:
        if "connect" in commands[0]:
            asyncio.get_running_loop().create_task(ws.close(code=code, reason="why"))

    await driver.begin(await script(driver, answer), "t")
    await driver.until("state", state="connecting")
    assert (await driver.until("state"))["state"] == state
