"""`clarion tail`: the live log over WebSocket (Centrifuge protocol), or one user's stream over SSE, as lines.

A lost connection is made again with the last position, like a browser does; a gap is said.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx2
import msgspec
import websockets
from websockets.asyncio.client import connect

from hub.cli.client import CommandFailed, reachable
from hub.cli.output import print_json, stderr, stdout
from hub.clock import SystemClock
from hub.config import Settings
from hub.live.seam import Identity
from hub.sessions import COOKIE, Sessions
from hub.tokens import Tokens

RECONNECT_SECONDS: Final = 1.0
_STYLES: Final = {
    "generated": "green",
    "accepted": "cyan",
    "suppressed": "yellow",
    "rejected": "red",
    "dead": "red",
}


def base_url(settings: Settings, url: str | None) -> str:
    """Where the hub is."""
    return (url or f"http://{reachable(settings.host)}:{settings.port}").rstrip("/")


async def follow_log(settings: Settings, url: str | None, as_json: bool) -> None:
    """Print the live log until interrupted."""
    clock = SystemClock()
    sessions = Sessions(settings.token_secrets, None, clock, secure=False)  # type: ignore[arg-type]
    address = base_url(settings, url).replace("http", "ws", 1) + "/connection/websocket"
    first = True
    while True:
        session, _ = sessions.open(Identity("operator", None, clock.now_us(), operator=True))
        try:
            async with connect(address, additional_headers={"Cookie": f"{COOKIE}={session}"}) as socket:
                async for message in _publications(socket, "log"):
                    _print_log(message, as_json)
        except (OSError, websockets.WebSocketException) as error:
            if first:
                raise CommandFailed(
                    f"no hub answers at {address} ({error}); start one with `clarion up` or name it with --url."
                ) from None
            stderr.print(f"disconnected ({error}), trying again", style="yellow", markup=False)
        first = False
        await asyncio.sleep(RECONNECT_SECONDS)


async def _publications(socket: Any, channel: str) -> AsyncIterator[dict[str, Any]]:
    """Connect, subscribe and yield the data of a channel's publications; answers pings."""
    await socket.send(
        '{"id":1,"connect":{"name":"tail"}}\n{"id":2,"subscribe":{"channel":"' + channel + '"}}'
    )
    async for frame in socket:
        for line in frame.splitlines():
            reply = msgspec.json.decode(line)
            if not reply:
                await socket.send("{}")
            elif "error" in reply:
                raise CommandFailed(f"the hub refused the live log: {reply['error']['message']}.")
            elif (push := reply.get("push")) and push.get("channel") == channel and "pub" in push:
                yield push["pub"]["data"]


def _print_log(message: dict[str, Any], as_json: bool) -> None:
    for entry in message["entries"]:
        if as_json:
            print_json(entry)
            continue
        state = entry["state"]
        style = _STYLES.get(state, "")
        words = " ".join(
            str(entry[name])
            for name in ("user", "channel", "type", "reason", "detail", "event")
            if name in entry
        )
        stdout.print(f"[dim]{entry['at']}[/dim] [{style or 'default'}]{state:<11}[/] ", end="")
        stdout.print(words, markup=False)
    if message.get("dropped"):
        stdout.print(f"… and {message['dropped']} more lines in the stored log", style="dim")


async def follow_user(settings: Settings, url: str | None, user: str, as_json: bool) -> None:
    """Print what one user gets until interrupted."""
    tokens = Tokens(settings.token_secrets, SystemClock())
    cursor: str | None = None
    first = True
    async with httpx2.AsyncClient(
        base_url=base_url(settings, url), timeout=httpx2.Timeout(10, read=60)
    ) as client:
        while True:
            headers = {"Authorization": f"Bearer {tokens.issue(user, 3600)}"}
            if cursor:
                headers["Last-Event-ID"] = cursor
            try:
                async with client.stream("GET", "/v1/me/stream", headers=headers) as response:
                    if response.status_code != 200:
                        await response.aread()
                        raise CommandFailed(f"the hub refused the stream: {response.json()['detail']}")
                    async for event, event_id, data in _events(response):
                        cursor = event_id or cursor
                        _print_user(event, data, as_json)
            except httpx2.HTTPError as error:
                if first:
                    raise CommandFailed(
                        f"no hub answers at {client.base_url} ({error}); start one with `clarion up` or use --url."
                    ) from None
                stderr.print(f"disconnected ({error}), trying again", style="yellow", markup=False)
            first = False
            await asyncio.sleep(RECONNECT_SECONDS)


async def _events(response: httpx2.Response) -> AsyncIterator[tuple[str, str, str]]:
    """Server-sent events as (event, id, data), by the WHATWG rules for the fields that the hub sends."""
    event, event_id = "message", ""
    data: list[str] = []
    async for line in response.aiter_lines():
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield event, event_id, "\n".join(data)
            event, data = "message", []
        elif name == "event":
            event = value
        elif name == "id":
            event_id = value
        elif name == "data":
            data.append(value)


def _print_user(event: str, data: str, as_json: bool) -> None:
    message = msgspec.json.decode(data)
    if as_json:
        print_json({"event": event, "data": message})
    elif event == "notification":
        row = message["notification"]
        stdout.print(f"[dim]{row['created_at']}[/dim] [bold]", end="")
        stdout.print(f"{row['title']} ", markup=False, end="")
        stdout.print(row["body"], markup=False, style="dim")
    else:
        stdout.print(f"{event}: {data}", markup=False, style="dim")
