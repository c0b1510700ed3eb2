"""The whole node behind the real web server, spoken to over TCP: what only sockets can show."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import msgspec
import pytest
from typer.testing import CliRunner

import hub
from hub.api import body as body_module
from hub.api.live import live_routes
from hub.cli import define
from hub.definitions import read_folder
from hub.links import SignedLinks
from hub.live.server import listen, make_server
from hub.model.types import TypeDefinition
from hub.model.vocabulary import Channel
from hub.unsubscribe import PURPOSE
from tests.support.api import FIRST_KEY, Api

AUTHORISED = f"Host: hub.test\r\nAuthorization: Bearer {FIRST_KEY}\r\nContent-Type: application/json\r\n"


class Served:
    """A node on a port."""

    def __init__(self, api: Api, port: int) -> None:
        self.api = api
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    async def raw(self, *parts: bytes, patience_seconds: float = 0.1) -> tuple[bytes, bool]:
        """Send bytes; the answer, and whether the server closed the connection soon after it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            body = await asyncio.wait_for(reader.readexactly(int(fields.get(b"content-length", b"0"))), 10)
            try:
                closed = await asyncio.wait_for(reader.read(1), patience_seconds) == b""
            except (TimeoutError, ConnectionError) as error:
                closed = isinstance(error, ConnectionError)
            return head + body, closed
        finally:
            writer.close()


@pytest.fixture
async def served(api: Api) -> AsyncIterator[Served]:
    live = Api(api.hub, api.core, api.clock, live_routes(api.hub.edge))
    sockets = listen("127.0.0.1", 0)
    started = asyncio.Event()
    server = make_server(live.app, api.hub.edge, on_started=started.set)
    running = asyncio.create_task(server._serve(sockets))  # not `serve`: signals belong to the test runner
    await asyncio.wait_for(started.wait(), 10)
    yield Served(api, sockets[0].getsockname()[1])
    server.should_exit = True
    await running
    await live.client.aclose()


def request(method: str, path: str, *headers: str) -> bytes:
    extra = "".join(f"{one}\r\n" for one in headers)
    return f"{method} {path} HTTP/1.1\r\n{AUTHORISED}{extra}\r\n".encode()


@pytest.mark.req("R5")
async def test_an_event_goes_in_over_http_and_comes_out_live(served: Served) -> None:
    token = served.api.token("alice")
    async with httpx2.AsyncClient(base_url=served.url) as client:
        async with client.stream("GET", f"/v1/me/stream?token={token}") as stream:
            lines = stream.aiter_lines()
            assert await _event(lines, "ready")
            sent = await client.post(
                "/v1/events",
                headers={"authorization": f"Bearer {FIRST_KEY}"},
                json={"to": "alice", "title": "Live"},
            )
            assert sent.status_code == 202
            await served.api.settle()
            message = await _event(lines, "notification")
            assert message["notification"]["title"] == "Live"
            assert message["notification"]["event"] == sent.json()["id"]
        text = (await client.get("/metrics")).text
    assert 'clarion_accept_to_socket_seconds_count{kind="personal"} 1.0' in text


async def _event(lines: AsyncIterator[str], kind: str) -> dict[str, dict[str, str]]:
    async with asyncio.timeout(10):
        async for line in lines:
            if line == f"event: {kind}":
                data = await anext(lines)
                found: dict[str, dict[str, str]] = json.loads(data.removeprefix("data: "))
                return found
    raise AssertionError(f"the stream ended without {kind}")


@pytest.mark.req("R35")
async def test_a_body_announced_too_large_is_refused_before_it_comes(served: Served) -> None:
    answer, closed = await served.raw(
        request("POST", "/v1/events", "Content-Length: 10485760"), patience_seconds=5
    )
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"event_too_large"' in answer
    assert closed


@pytest.mark.req("R35")
async def test_a_chunked_flood_is_cut_off_at_the_limit(served: Served) -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer, closed = await served.raw(
        request("POST", "/v1/events", "Transfer-Encoding: chunked"), chunk, chunk, patience_seconds=5
    )
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert closed


@pytest.mark.req("R35")
@pytest.mark.req("I14")
async def test_a_body_that_never_ends_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "CHUNK_TIMEOUT_SECONDS", 0.05)
    answer, closed = await served.raw(
        request("POST", "/v1/events", "Transfer-Encoding: chunked"), b"2\r\n{ \r\n", patience_seconds=5
    )
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"did not arrive in time" in answer
    assert closed


@pytest.mark.req("R35")
async def test_nothing_of_a_body_is_read_for_a_stranger(served: Served) -> None:
    head = b"POST /v1/events HTTP/1.1\r\nHost: hub.test\r\nContent-Length: 1000\r\n\r\n"
    answer, _ = await served.raw(head)
    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.req("R35")
async def test_a_slash_in_an_id_is_no_way_around(served: Served) -> None:
    for path in (
        "/v1/users/%2F",
        "/v1/users/a%2Fpreferences",
        "/v1/users/" + "x" * 10_240,
        "/v1/users/..%2F..%2Fkeys",
    ):
        answer, _ = await served.raw(request("GET", path))
        assert answer.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 422 ")), path


@pytest.mark.req("I2")
async def test_fifty_racing_duplicates_are_one_event(served: Served) -> None:
    headers = {"authorization": f"Bearer {FIRST_KEY}", "idempotency-key": "race"}
    async with httpx2.AsyncClient(base_url=served.url, headers=headers) as client:
        answers = await asyncio.gather(
            *(client.post("/v1/events", json={"to": "alice", "title": "Once"}) for _ in range(50))
        )
    accepted = [one for one in answers if one.status_code == 202]
    assert {one.status_code for one in answers} <= {202, 409}
    assert len({one.json()["id"] for one in accepted}) == 1
    assert sum("idempotency-replayed" not in one.headers for one in accepted) == 1
    await served.api.settle()
    inbox = await served.api.call("GET", "/v1/me/notifications", token="alice")
    assert inbox.json()["unread"] == 1


async def test_connections_are_kept_after_refusals_that_read_their_body(served: Served) -> None:
    bad = b'{"to": 5}'
    answer, closed = await served.raw(request("POST", "/v1/events", f"Content-Length: {len(bad)}"), bad)
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert not closed


@pytest.mark.req("R11")
async def test_one_click_leaves_its_body_unread_and_the_connection_usable(served: Served) -> None:
    links = SignedLinks(served.api.hub.settings.token_secrets, PURPOSE)
    await served.api.call("PUT", "/v1/users/alice", key="first", json={"email": "alice@example.com"})
    body = b"List-Unsubscribe=One-Click"
    head = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    for category in (
        "orders",
        "news",
    ):  # a mailbox provider posts for several of its users over one connection
        path = "/unsubscribe/" + links.sign({"user": "alice", "category": category})
        writer.write(f"POST {path} HTTP/1.1\r\nHost: hub.test\r\n{head}".encode() + body)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert answer.startswith(b"HTTP/1.1 200 ")
        fields = dict(line.split(b": ", 1) for line in answer.lower().split(b"\r\n")[1:-2])
        assert b"set-cookie" not in fields
        await asyncio.wait_for(reader.readexactly(int(fields[b"content-length"])), 10)
    writer.close()
    user = (await served.api.hub.store.load_users(["alice"]))["alice"]
    off = {Channel.EMAIL: False}
    assert user.preferences.categories == {"orders": off, "news": off}


async def test_a_folder_goes_in_and_out_by_the_command_line(served: Served, tmp_path: Path) -> None:
    """The recorded webhooks' types: applied, applied again without a change, and exported as they were."""
    folder = Path(hub.__file__).parent / "demo"
    options = ["--url", served.url, "--key", FIRST_KEY, "--json"]

    async def clarion(*arguments: str) -> dict[str, dict[str, str]]:
        result = await asyncio.to_thread(CliRunner().invoke, define.app, [*arguments, *options])
        assert result.exit_code == 0, result.output
        found: dict[str, dict[str, str]] = json.loads(result.stdout)
        return found

    first = await clarion("apply", str(folder))
    assert set(first["types"].values()) == {"new"}
    again = await clarion("apply", str(folder))
    assert set(again["types"].values()) | set(again["categories"].values()) == {"unchanged"}
    await clarion("export", str(tmp_path / "out"))
    written, original = read_folder(tmp_path / "out"), read_folder(folder)
    assert written.types.keys() == original.types.keys()
    for name, definition in original.types.items():
        assert msgspec.convert(written.types[name], TypeDefinition) == msgspec.convert(
            definition, TypeDefinition
        )
