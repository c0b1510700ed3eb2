"""`clarion tail`: the live log over WebSocket (Centrifuge protocol), or one user's stream over SSE, as lines.

A lost connection is made again with the last position, like a browser does; a gap is said. A refusal ends it.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import httpx2
import msgspec
import websockets
from websockets.asyncio.client import connect

from hub.cli.client import CommandFailed, base_url, is_near, no_hub, words_of
from hub.cli.output import print_json, stderr, stdout
from hub.clock import SystemClock
from hub.live.seam import Identity
from hub.sessions import COOKIE, Sessions
from hub.tokens import Tokens

if TYPE_CHECKING:
    from hub.config import Settings

RECONNECT_SECONDS: Final = 1.0
TOKEN_SECONDS: Final = 3600
_FINAL_CODES: Final = range(3500, 4000)  # of the client protocol: trying again would not help
_STYLES: Final = {
    "accepted": "cyan",
    "generated": "green",
    "reached": "green",
    "seen": "blue",
    "read": "blue",
    "suppressed": "yellow",
    "cancelled": "yellow",
    "collapsed": "yellow",
    "retracted": "yellow",
    "failed": "red",
    "rejected": "bold red",
    "dead": "bold red",
}


# ---------------------------------------------------------------- the live log


async def follow_log(settings: "Settings", url: str | None, as_json: bool) -> None:
    """Print the live log until interrupted."""
    async with aclosing(_log_for_ever(settings, base_url(settings, url))) as messages:
        async for message in messages:
            _print_log(message, as_json)


async def _log_for_ever(settings: "Settings", hub: str) -> AsyncGenerator[dict[str, Any], None]:
    clock = SystemClock()
    sessions = Sessions(settings.token_secrets, None, clock, secure=False)  # type: ignore[arg-type]
    address = hub.replace("http", "ws", 1) + "/connection/websocket"
    was_there = False
    while True:
        session, _ = sessions.open(Identity("operator", None, clock.now_us(), operator=True))
        headers = {"Cookie": f"{COOKIE}={session}"}
        try:
            async with connect(
                address, additional_headers=headers, proxy=None if is_near(hub) else True
            ) as socket:
                async for message in _log_messages(socket):
                    if message is None:
                        _note(f"following the live log of {hub}")
                        was_there = True
                    else:
                        yield message
                code, reason = socket.close_code or 0, socket.close_reason or "closed"
        except websockets.ConnectionClosed as error:
            code, reason = (error.rcvd.code, error.rcvd.reason) if error.rcvd else (0, "the connection broke")
        except websockets.InvalidStatus as error:
            raise CommandFailed(
                f"{hub} refused the live log with {error.response.status_code}; is this a hub?"
            ) from None
        except (OSError, TimeoutError, websockets.WebSocketException) as error:
            if not was_there:
                raise no_hub(hub, error) from None
            code, reason = 0, "nobody answers"
        if code in _FINAL_CODES:
            raise CommandFailed(f"the hub ended the live log: {reason}.")
        await _pause(reason)


async def _log_messages(socket: Any) -> AsyncGenerator[dict[str, Any] | None, None]:
    """Connect, subscribe (None: done) and yield what the channel `log` says; answers pings."""
    await socket.send('{"id":1,"connect":{"name":"tail"}}\n{"id":2,"subscribe":{"channel":"log"}}')
    async for frame in socket:
        for line in frame.splitlines():
            reply = msgspec.json.decode(line)
            if not reply:
                await socket.send("{}")
            elif "error" in reply:
                raise CommandFailed(
                    f"the hub refused the live log ({reply['error']['message']}); does it have the same CLARION_TOKEN_SECRET?"
                )
            elif reply.get("id") == 2:
                yield None
            elif (push := reply.get("push")) and push.get("channel") == "log" and "pub" in push:
                yield push["pub"]["data"]


def _print_log(message: dict[str, Any], as_json: bool) -> None:
    for entry in message["entries"]:
        if as_json:
            print_json(entry)
            continue
        state = entry["state"]
        stdout.print(
            f"[dim]{_time(entry['at'])}[/dim]  [{_STYLES.get(state, 'default')}]{state:<10}[/]  ", end=""
        )
        words = [
            f"{entry[name]}"
            for name in ("user", "channel", "type", "provider", "reason", "detail")
            if entry.get(name)
        ]
        stdout.print("  ".join(words), markup=False, end="  ")
        stdout.print(entry.get("event", ""), markup=False, style="dim")
    if message.get("dropped"):
        if as_json:
            print_json({"dropped": message["dropped"]})
        else:
            stdout.print(f"… and {message['dropped']} more lines, which only the stored log has", style="dim")


# ---------------------------------------------------------------- one user's stream


async def follow_user(settings: "Settings", url: str | None, user: str, as_json: bool) -> None:
    """Print what one user gets until interrupted."""
    hub = base_url(settings, url)
    try:
        client = httpx2.AsyncClient(
            base_url=hub, timeout=httpx2.Timeout(10, read=60), trust_env=not is_near(hub)
        )
    except httpx2.InvalidURL as error:
        raise no_hub(hub, error) from None
    async with client, aclosing(_stream_for_ever(client, hub, settings, user)) as events:
        async for event, data in events:
            _print_user(event, data, user, as_json)


async def _stream_for_ever(
    client: httpx2.AsyncClient, hub: str, settings: "Settings", user: str
) -> AsyncGenerator[tuple[str, str], None]:
    tokens = Tokens(
        settings.token_secrets, SystemClock(), issuer=settings.token_issuer, audience=settings.token_audience
    )
    cursor: str | None = None
    was_there = False
    while True:
        headers = {"Authorization": f"Bearer {tokens.issue(user, TOKEN_SECONDS)}"}
        if cursor:
            headers["Last-Event-ID"] = cursor
        reason = "the stream ended"
        try:
            async with client.stream("GET", "/v1/me/stream", headers=headers) as response:
                if response.status_code != 200:
                    await response.aread()
                    if response.status_code not in (429, 503) or not was_there:
                        raise CommandFailed(words_of(response), response.status_code)
                    reason = words_of(response)
                async for event, event_id, data in _events(response):
                    was_there = True
                    cursor = event_id or cursor
                    yield event, data
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            if not was_there:
                raise no_hub(hub, error) from None
            reason = "the connection broke"
        await _pause(reason)


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


def _print_user(event: str, data: str, user: str, as_json: bool) -> None:
    message = msgspec.json.decode(data)
    if as_json:
        print_json({"event": event, "data": message})
        return
    match event:
        case "notification":
            row = message["notification"]
            stdout.print(f"[dim]{_time(row['created_at'])}[/dim]  ", end="")
            stdout.print(row["title"], markup=False, style="bold", end="  ")
            stdout.print(row["body"], markup=False, end="  " if row["body"] else "")
            stdout.print(
                f"{row['category']}{' · ' + row['topic'] if row['topic'] else ''}", markup=False, style="dim"
            )
        case "ready":
            _note(
                f"listening as {user}: {message.get('unread', '?')} unread, {message.get('unseen', '?')} unseen"
            )
        case "gap":
            _note("something was missed and is not held any more; the inbox has it")
        case "reconnect":
            _note(f"the hub ends the stream ({message.get('reason', '')})")
        case _:
            about = {
                name: value
                for name, value in message.items()
                if name not in ("kind", "mark") and value is not None
            }
            words = "  ".join(f"{name}={value}" for name, value in about.items())
            stdout.print(f"{message.get('mark', event)}  {words}", markup=False, style="dim")


# ---------------------------------------------------------------- both


def _time(moment: str) -> str:
    """A moment of the hub on the clock of this machine."""
    return datetime.fromisoformat(moment).astimezone().strftime("%H:%M:%S")


def _note(words: str) -> None:
    """What is no data goes to standard error."""
    stderr.print(words, style="dim", markup=False)


async def _pause(reason: str) -> None:
    stderr.print(f"disconnected ({reason}), trying again", style="yellow", markup=False)
    await asyncio.sleep(RECONNECT_SECONDS)
