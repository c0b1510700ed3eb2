"""The short way of an answer past ASGI: the same bytes, one write, and nothing left for the garbage collector."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from hub.live.server import listen, make_server
from tests.support.api import FIRST_KEY, Api, open_api
from tests.support.clock import FakeClock

KEY = {"authorization": f"Bearer {FIRST_KEY}"}


class Served:
    """A node's API on a real port."""

    def __init__(self, api: Api, port: int) -> None:
        self.api = api
        self.port = port

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=KEY)

    async def raw(self, *packets: bytes) -> bytes:
        """Everything that comes back for these packets until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for packet in packets:
            writer.write(packet)
            await writer.drain()
            await asyncio.sleep(0.02)
        found = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return found


@pytest.fixture
async def served(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Served]:
    async with open_api(tmp_path, clock) as api:
        server = make_server(api.app, api.hub.edge)
        (socket,) = listen("127.0.0.1", 0)
        port = socket.getsockname()[1]
        running = asyncio.create_task(server._serve([socket]))
        while not server.started:
            await asyncio.sleep(0.005)
        yield Served(api, port)
        server.should_exit = True
        await running


def request(title: str, *headers: str) -> bytes:
    body = b'{"to": "alice", "title": "%b"}' % title.encode()
    lines = [
        "POST /v1/events HTTP/1.1",
        "Host: hub",
        f"Authorization: {KEY['authorization']}",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.req("R7")
async def test_the_short_way_says_what_the_long_one_says(served: Served) -> None:
    async with served.client() as client:
        short = await client.post("/v1/events", json={"to": "alice"})
    long = await served.api.call("POST", "/v1/events", key="first", json={"to": "alice"})
    assert (short.status_code, long.status_code) == (202, 202)
    assert short.json().keys() == long.json().keys()
    own = {name: value for name, value in short.headers.items() if name not in ("date", "x-request-id")}
    assert own == {name: value for name, value in long.headers.items() if name != "x-request-id"}
    assert short.headers["x-request-id"].startswith("req_")


@pytest.mark.req("R7")
async def test_requests_in_one_packet_and_in_pieces_are_answered_in_order(served: Served) -> None:
    one, two, last = request("1"), request("2"), request("3", "Connection: close")
    whole = await served.raw(one + two + last)
    pieces = await served.raw(one[:20], one[20:-5], one[-5:] + two[:60], two[60:] + last)
    for found in (whole, pieces):
        assert found.count(b"HTTP/1.1 202 Accepted\r\n") == 3
        assert found.count(b'"status":"accepted"') == 3
        assert found.count(b"connection: close\r\n") == 1


async def test_answered_requests_leave_nothing_to_the_collector(served: Served) -> None:
    async with served.client() as client:
        await client.post("/v1/events", json={"to": "alice"})
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                assert (await client.post("/v1/events", json={"to": "alice"})).status_code == 202
            alive = sum(isinstance(one, RequestResponseCycle) for one in gc.get_objects())
        finally:
            gc.enable()
    assert alive <= 1  # the last one, which its connection still knows


async def test_good_publishing_leaves_no_access_line_and_everything_else_does(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with served.client() as client:
            await client.post("/v1/events", json={"to": "alice"})
            await client.post("/v1/events", content=b"nonsense")
            await client.get("/v1/keys")
    lines = [one.getMessage() for one in caplog.records if one.name == "uvicorn.access"]
    assert [line.partition('"')[2] for line in lines] == [
        'POST /v1/events HTTP/1.1" 400',
        'GET /v1/keys HTTP/1.1" 200',
    ]


@pytest.mark.req("I14")
async def test_a_body_too_large_is_refused_on_the_short_way_too(served: Served) -> None:
    found = await served.raw(request("x" * 66_000))
    assert found.startswith(b"HTTP/1.1 413 ")
    assert b"event_too_large" in found
