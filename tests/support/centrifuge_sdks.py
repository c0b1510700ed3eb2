"""The public Centrifuge SDKs behind one face, and the stories that both must be able to tell.

A story takes a hub (its address, a token-maker, a way to publish) and a client of either SDK, so that it runs against
the edge alone and against a whole hub alike.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import centrifuge

JS_FOLDER = Path(__file__).parents[1] / "e2e" / "js"
Event = dict[str, Any]


@dataclass
class Hub:
    """A hub under test. `publish` makes a notification with this title for this user; `forget` loses all histories."""

    url: str
    token: Callable[[str, float], str]
    publish: Callable[[str, str], Awaitable[None]]
    forget: Callable[[], Awaitable[None]] | None = None


class Sdk:
    """One SDK client: orders go in, events come out in order."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.seen: list[Event] = []

    async def order(self, do: str, **fields: Any) -> None:
        raise NotImplementedError

    async def until(self, event: str, seconds: float = 10, **fields: Any) -> Event:
        """The next event of this kind (with these fields); others before it go to `seen`."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.events.get()
                    self.seen.append(found)
                    if found["event"] == event and fields.items() <= found.items():
                        return found
        except TimeoutError:
            raise AssertionError(f"no {event} {fields}; seen: {self.seen}") from None

    async def title(self) -> str:
        """The title of the next publication on the personal channel."""
        found = await self.until("publication")
        assert found["channel"].startswith("#"), found
        title = found["data"]["notification"]["title"]
        assert isinstance(title, str)
        return title


class JavaScript(Sdk):
    """The npm package `centrifuge` in Node.js."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self._process = process

    async def order(self, do: str, **fields: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        await self._process.stdin.drain()

    async def read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.events.put_nowait(json.loads(line))


@asynccontextmanager
async def javascript(url: str, token: str, asks: bool = False, node: str = "node") -> AsyncIterator[Sdk]:
    """A client of the JavaScript SDK; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        node,
        "driver.mjs",
        url,
        token,
        *(["ask"] if asks else []),
        cwd=JS_FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    client = JavaScript(process)
    reading = asyncio.create_task(client.read())
    try:
        yield client
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        await reading


class Python(Sdk, centrifuge.ClientEventHandler):
    """The PyPI package `centrifuge-python`."""

    def __init__(self, url: str, token: str, asks: bool) -> None:
        super().__init__()
        self._tokens: asyncio.Queue[str] = asyncio.Queue()
        self.client = centrifuge.Client(
            url,
            events=self,
            token=token,
            get_token=self._get_token if asks else None,
            min_reconnect_delay=0.05,
            max_reconnect_delay=0.2,
        )

    def tell(self, event: str, **fields: Any) -> None:
        self.events.put_nowait({"event": event, **fields})

    async def _get_token(self) -> str:
        self.tell("token_wanted")
        return await self._tokens.get()

    async def order(self, do: str, **fields: Any) -> None:
        match do:
            case "connect":
                await self.client.connect()
            case "disconnect":
                await self.client.disconnect()
            case "token":
                self._tokens.put_nowait(fields["token"])
            case "rpc":
                try:
                    self.tell("rpc", data=(await self.client.rpc(fields["method"], fields["data"])).data)
                except centrifuge.ReplyError as error:
                    self.tell("rpc_failed", code=error.code)
            case "subscribe":
                channel = fields["channel"]
                await self.client.new_subscription(channel, _Listener(self, channel)).subscribe()

    async def on_connecting(self, ctx: centrifuge.ConnectingContext) -> None:
        self.tell("connecting", code=ctx.code, reason=ctx.reason)

    async def on_connected(self, ctx: centrifuge.ConnectedContext) -> None:
        self.tell("connected", client=ctx.client)

    async def on_disconnected(self, ctx: centrifuge.DisconnectedContext) -> None:
        self.tell("disconnected", code=ctx.code, reason=ctx.reason)

    async def on_error(self, ctx: centrifuge.ErrorContext) -> None:
        self.tell("error", code=ctx.code, reason=str(ctx.error))

    async def on_subscribed(self, ctx: centrifuge.ServerSubscribedContext) -> None:
        self.tell(
            "subscribed", channel=ctx.channel, was_recovering=ctx.was_recovering, recovered=ctx.recovered
        )

    async def on_publication(self, ctx: centrifuge.ServerPublicationContext) -> None:
        self.tell("publication", channel=ctx.channel, data=ctx.pub.data, offset=ctx.pub.offset)


class _Listener(centrifuge.SubscriptionEventHandler):
    def __init__(self, client: Python, channel: str) -> None:
        self._client = client
        self._channel = channel

    async def on_subscribed(self, ctx: centrifuge.SubscribedContext) -> None:
        self._client.tell("client_subscribed", channel=self._channel)

    async def on_unsubscribed(self, ctx: centrifuge.UnsubscribedContext) -> None:
        self._client.tell("client_unsubscribed", channel=self._channel, code=ctx.code)

    async def on_publication(self, ctx: centrifuge.PublicationContext) -> None:
        self._client.tell("client_publication", channel=self._channel, data=ctx.pub.data)


@asynccontextmanager
async def python(url: str, token: str, asks: bool = False) -> AsyncIterator[Sdk]:
    """A client of the Python SDK; it ends with the block."""
    client = Python(url, token, asks)
    try:
        yield client
    finally:
        await client.client.disconnect()


SDKS = {"javascript": javascript, "python": python}
Make = Callable[..., Any]


class Cable:
    """A TCP relay before a hub that a test can cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def plug(self) -> None:
        """Let connections through (again), on the same port."""
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all connections and take no new ones."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        self._writers -= {writer, far_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


@asynccontextmanager
async def cable(hub: Hub) -> AsyncIterator[tuple[Cable, str]]:
    """A cable to a hub, and the address at its end."""
    parts = urlsplit(hub.url)
    assert parts.hostname is not None
    assert parts.port is not None
    relay = Cable(parts.hostname, parts.port)
    await relay.plug()
    try:
        yield relay, hub.url.replace(parts.netloc, f"127.0.0.1:{relay.port}")
    finally:
        await relay.cut()


# ---------------------------------------------------------------- the stories


async def gets_notifications_live(hub: Hub, make: Make, user: str) -> None:
    """Connects, is subscribed by the server to its two channels, gets what is published, calls."""
    async with make(hub.url, hub.token(user, 3600)) as client:
        await client.order("connect")
        await client.until("connected")
        subscribed = {(await client.until("subscribed"))["channel"] for _ in range(2)}
        assert subscribed == {f"#{user}", "broadcasts"}
        for title in ("one", "two", "three"):
            await hub.publish(user, title)
        assert [await client.title() for _ in range(3)] == ["one", "two", "three"]
        await client.order("rpc", method="unread_count", data=None)
        assert (await client.until("rpc"))["data"]["unread"] >= 0
        await client.order("rpc", method="no.such.method", data={})
        refused = await client.until("rpc_failed")
        assert refused["code"] == 104, refused
        await client.order("subscribe", channel="log")
        assert (await client.until("client_unsubscribed"))["code"] == 103
        await client.order("disconnect")
        assert (await client.until("disconnected"))["code"] == 0


async def recovers_what_it_missed(hub: Hub, make: Make, user: str) -> None:
    """Its connection breaks, notifications are published meanwhile: they come after the reconnect, in order, once."""
    async with cable(hub) as (relay, url), make(url, hub.token(user, 3600)) as client:
        await client.order("connect")
        await client.until("subscribed", channel=f"#{user}")
        await hub.publish(user, "before")
        assert await client.title() == "before"
        await relay.cut()
        await client.until("connecting")
        for title in ("missed 1", "missed 2"):
            await hub.publish(user, title)
        await relay.plug()
        found = await client.until("subscribed", channel=f"#{user}")
        assert (found["was_recovering"], found["recovered"]) == (True, True)
        await hub.publish(user, "after")
        assert [await client.title() for _ in range(3)] == ["missed 1", "missed 2", "after"]


async def is_told_of_a_gap(hub: Hub, make: Make, user: str) -> None:
    """What it missed is no longer held: it is told so, and goes on live."""
    assert hub.forget is not None
    async with cable(hub) as (relay, url), make(url, hub.token(user, 3600)) as client:
        await client.order("connect")
        await client.until("subscribed", channel=f"#{user}")
        await hub.publish(user, "before")
        assert await client.title() == "before"
        await relay.cut()
        await client.until("connecting")
        await hub.publish(user, "lost")
        await hub.forget()
        await relay.plug()
        found = await client.until("subscribed", channel=f"#{user}")
        assert (found["was_recovering"], found["recovered"]) == (True, False)
        await hub.publish(user, "after")
        assert await client.title() == "after"


async def refreshes_its_token(hub: Hub, make: Make, user: str) -> None:
    """Tokens that end soon are replaced without losing the connection."""
    async with make(hub.url, hub.token(user, 2), asks=True) as client:
        await client.order("connect")
        await client.until("connected")
        for _ in range(2):
            await client.until("token_wanted")
            await client.order("token", token=hub.token(user, 2))
        await client.until("token_wanted")
        await client.order("token", token=hub.token(user, 3600))
        await client.order("rpc", method="unread_count", data=None)
        await client.until("rpc")
        await hub.publish(user, "still here")
        assert await client.title() == "still here"
        assert not [event for event in client.seen if event["event"] in ("disconnected", "error")]
        assert len([event for event in client.seen if event["event"] == "connected"]) == 1


async def replaces_an_expired_token(hub: Hub, make: Make, user: str) -> None:
    """Error 109 on connect makes it ask for a new token."""
    async with make(hub.url, hub.token(user, -120), asks=True) as client:
        await client.order("connect")
        await client.until("token_wanted")
        await client.order("token", token=hub.token(user, 3600))
        await client.until("connected")
        await hub.publish(user, "hello")
        assert await client.title() == "hello"


async def gives_up_with_a_bad_token(hub: Hub, make: Make, user: str) -> None:
    """A terminal code ends it; it does not come back."""
    async with make(hub.url, hub.token(user, 3600)[:-6] + "aaaaaa") as client:
        await client.order("connect")
        assert (await client.until("disconnected"))["code"] == 3500


STORIES = [
    gets_notifications_live,
    recovers_what_it_missed,
    is_told_of_a_gap,
    refreshes_its_token,
    replaces_an_expired_token,
    gives_up_with_a_bad_token,
]
