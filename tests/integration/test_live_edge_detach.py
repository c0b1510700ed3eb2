"""The take-over from uvicorn, pinned: what of it is undocumented must break here first, not in production."""

import asyncio
import gc
import logging
import time
import tracemalloc
import weakref

import httpx2
import pytest

from hub.errors import ConfigError
from hub.live import detach
from hub.live.detach import DetachableHttp
from hub.live.server import listen
from tests.support.live_node import make_token
from tests.support.live_server import live_server
from tests.support.raw_client import RawStream, RawWebSocket


async def read_all(reader: asyncio.StreamReader, seconds: float = 5) -> bytes:
    async with asyncio.timeout(seconds):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@pytest.mark.req("R1")
async def test_no_task_and_nothing_of_uvicorn_stays_after_the_hand_over():
    async with live_server() as hub:
        # Objects of uvicorn's that were made for these connections must be collectable.
        alive: list[weakref.ref[object]] = []
        original = DetachableHttp.connection_made

        def remember(self, transport):
            alive.append(weakref.ref(self))
            original(self, transport)

        DetachableHttp.connection_made = remember
        try:
            clients = [await RawWebSocket.connect(hub.port) for _ in range(5)]
            for client in clients:
                await client.login(make_token("alice"))
            streams = [
                await RawStream.open(hub.port, Authorization=f"Bearer {make_token('alice')}")
                for _ in range(5)
            ]
        finally:
            DetachableHttp.connection_made = original
        await asyncio.sleep(0)
        assert hub.server.server_state.connections == set()
        assert hub.server.server_state.tasks == set()
        assert len(hub.edge) == 10
        gc.collect()
        assert [ref for ref in alive if ref() is not None] == []
        names = {task.get_coro().__qualname__ for task in asyncio.all_tasks()}
        assert not [name for name in names if "run_asgi" in name or "_answer" in name], names
        assert len(clients) + len(streams) == 10


async def test_the_hand_over_leaves_no_cycles_that_only_the_collector_finds():
    async with live_server() as hub:
        alive: list[weakref.ref[object]] = []
        original = DetachableHttp.connection_made

        def remember(self, transport):
            alive.append(weakref.ref(self))
            original(self, transport)

        gc.collect()
        gc.disable()
        DetachableHttp.connection_made = remember
        try:
            stream = await RawStream.open(hub.port, Authorization=f"Bearer {make_token('alice')}")
            await stream.event()
            for _ in range(5):
                await asyncio.sleep(0)
            left = [ref for ref in alive if ref() is not None]
        finally:
            DetachableHttp.connection_made = original
            gc.enable()
        assert left == []


@pytest.mark.req("I14")
async def test_a_connection_costs_a_few_kilobytes():
    async with live_server() as hub:
        token = make_token("alice")
        warm = await RawWebSocket.connect(hub.port)
        await warm.login(token)
        ports = [hub.port] * 50
        gc.collect()
        tracemalloc.start()
        try:
            clients = [await RawWebSocket.connect(port) for port in ports]
            for client in clients:
                await client.login(token)
            gc.collect()
            snapshot = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
        ours = snapshot.filter_traces([tracemalloc.Filter(True, "*/hub/live/*")])
        per_connection = sum(stat.size for stat in ours.statistics("filename")) / len(clients)
        assert per_connection < 3_000


async def test_ordinary_requests_pass_on_kept_connections_and_with_bodies():
    async with live_server() as hub, httpx2.AsyncClient(base_url=hub.http) as client:
        for size in (0, 10, 1_000_000):
            response = await client.post("/hello", content=b"x" * size)
            assert response.json() == {"hello": size}
        assert (await client.get("/nowhere")).status_code == 404
        assert len(hub.server.server_state.connections) == 1


@pytest.mark.req("I14")
@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"\r\n",
        b"GET",
        b"GET /hello HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"GET /hello HTTP/1.1\r\nHost: x\r\n",
    ],
    ids=["nothing", "line break", "method", "header", "no end"],
)
@pytest.mark.parametrize("kept", [False, True], ids=["first request", "second request"])
async def test_a_slow_head_is_cut_off(monkeypatch, start, kept):
    monkeypatch.setattr(detach, "HEAD_SECONDS", 0.4)
    async with live_server() as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        if kept:
            writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readuntil(b"}")
        started = time.monotonic()

        async def drip() -> None:
            while not writer.is_closing():
                writer.write(b"x")
                await asyncio.sleep(0.1)

        writer.write(start)
        dripping = asyncio.create_task(drip()) if start.endswith(b": ") else None
        left = await read_all(reader, 8)
        took = time.monotonic() - started
        assert left == b""
        # An idle kept connection has uvicorn's own five seconds.
        assert took < (6.5 if kept and not start else 2)
        writer.close()
        if dripping:
            await dripping
        assert hub.server.server_state.connections == set()


@pytest.mark.req("I14")
async def test_a_slow_body_is_cut_off(monkeypatch):
    monkeypatch.setattr(detach, "BODY_SECONDS", 0.4)
    async with live_server() as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
        started = time.monotonic()
        await read_all(reader)
        assert time.monotonic() - started < 30  # it would be 60 otherwise
        writer.close()


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "head",
    [
        b"GET /hello HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * 200_000,
        b"GET /" + b"x" * 200_000,
        b"GET /hello HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(300)) + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100,
        b"GET /hello HTTP/9.9\r\n\r\n",
    ],
    ids=["one huge header", "a huge address", "many headers", "TLS", "version"],
)
async def test_a_head_that_is_too_large_or_none_is_refused(head):
    async with live_server() as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(head)
        answer = await read_all(reader)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
        writer.close()
        async with httpx2.AsyncClient() as client:
            assert (await client.get(hub.http + "/hello")).status_code == 200


async def test_a_running_request_finishes_while_the_server_goes_down():
    async with live_server() as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nx")
        await asyncio.sleep(0.05)
        hub.server.should_exit = True
        await asyncio.sleep(0.3)
        writer.write(b"y")
        assert b'{"hello":2}' in await read_all(reader)
        writer.close()


@pytest.mark.req("R34")
async def test_no_token_in_the_access_log(caplog):
    token = make_token("alice")
    with caplog.at_level(logging.DEBUG):
        async with live_server() as hub:
            good = await RawStream.open(hub.port, f"/v1/me/stream?token={token}")
            bad = await RawStream.open(hub.port, f"/v1/me/stream?a=1&token={token[:-3]}zzz&b=2")
            socket = await RawWebSocket.connect(hub.port, f"/connection/websocket?token={token}")
            assert (good.status, bad.status, socket.status) == (200, 401, 101)
    lines = [record.getMessage() for record in caplog.records if record.name == "uvicorn.access"]
    assert len(lines) == 3
    assert token[:20] not in caplog.text
    assert any("/v1/me/stream?a=1&token=[redacted]&b=2" in line for line in lines)


async def test_an_address_in_use_is_one_sentence():
    (first,) = listen("127.0.0.1", 0, reuse_port=False)
    port = first.getsockname()[1]
    first.listen()
    with pytest.raises(ConfigError, match=f"CLARION_PORT {port}"):
        listen("127.0.0.1", port, reuse_port=False)
    first.close()
    with pytest.raises(ConfigError, match="CLARION_HOST"):
        listen("no.such.host.invalid", 0)


@pytest.mark.req("R22")
async def test_nodes_of_one_machine_share_a_port():
    (first,) = listen("127.0.0.1", 0)
    port = first.getsockname()[1]
    (second,) = listen("127.0.0.1", port)
    for one in (first, second):
        one.listen()
        one.close()
