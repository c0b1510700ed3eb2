"""Server-sent events with raw sockets: head, cursors and recovery, credentials, heartbeats, expiry, slow clients."""

import asyncio
import json
import socket
import sys
import time

import httpx2
import pytest

from hub.errors import Refused, StoreUnavailable
from hub.live.eventstream import unconfirmed
from hub.live.limits import Limits
from tests.support.live_node import make_token
from tests.support.live_server import LiveServer, live_server
from tests.support.raw_client import RawStream

PATH = "/v1/me/stream"


def bearer(user: str = "alice", seconds: float = 3600) -> str:
    return f"Bearer {make_token(user, seconds)}"


async def opened(hub: LiveServer, user: str = "alice", **headers: str) -> RawStream:
    """A stream whose `ready` was read."""
    stream = await RawStream.open(hub.port, PATH, Authorization=bearer(user), **headers)
    assert stream.status == 200
    kind, _, stream.cursor = await stream.event()
    assert kind == "ready"
    return stream


# ---------------------------------------------------------------- head and credentials


async def test_the_head_fits_browsers_and_proxies():
    async with live_server() as hub:
        stream = await RawStream.open(hub.port, PATH, Authorization=bearer())
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["cache-control"] == "private, no-cache, no-store, must-revalidate, max-age=0"
        assert stream.headers["x-accel-buffering"] == "no"
        assert stream.headers["connection"] == "close"
        assert stream.headers["transfer-encoding"] == "chunked"
        assert stream.headers["vary"] == "Origin"
        assert "date" in stream.headers
        assert "server" not in stream.headers


async def test_http_1_0_gets_a_stream_without_chunks():
    async with live_server() as hub:
        stream = await RawStream.open(hub.port, PATH, version="1.0", Authorization=bearer())
        assert stream.headers["connection"] == "close"
        assert "transfer-encoding" not in stream.headers
        assert (await stream.event())[0] == "ready"
        hub.node.publish("#alice", {"n": 1})
        assert (await stream.event())[1] == {"n": 1}


@pytest.mark.req("R34")
async def test_a_token_in_the_query_or_a_session_of_our_own_pages_opens_a_stream():
    async with live_server() as hub:
        one = await RawStream.open(hub.port, f"{PATH}?token={make_token('alice')}")
        two = await RawStream.open(hub.port, PATH, Cookie="clarion_session=session-of-bob")
        three = await RawStream.open(
            hub.port, f"{PATH}?token={make_token('carol')}", Cookie="clarion_session=session-of-bob"
        )
        assert (one.status, two.status, three.status) == (200, 200, 200)
        assert sorted(wire.identity.user_id for wire in hub.node.wires) == ["alice", "bob", "carol"]


@pytest.mark.req("R34")
@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("", {}, 401, "unauthorized"),
        ("?token=garbage", {}, 401, "unauthorized"),
        (f"?token={make_token('alice', -100)}", {}, 401, "token_expired"),
        ("", {"Authorization": "Basic abc"}, 401, "unauthorized"),
        ("", {"Cookie": "clarion_session=garbage"}, 401, "unauthorized"),
        (
            "",
            {"Cookie": "clarion_session=session-of-bob", "Origin": "http://localhost:3000"},
            403,
            "cross_origin",
        ),
        (
            "",
            {"Cookie": "clarion_session=session-of-bob", "Sec-Fetch-Site": "cross-site"},
            403,
            "cross_origin",
        ),
        (f"?token={make_token('alice')}", {"Origin": "https://evil.example"}, 403, "forbidden"),
    ],
    ids=[
        "none",
        "garbage",
        "expired",
        "basic",
        "bad cookie",
        "foreign page",
        "foreign site",
        "foreign origin",
    ],
)
async def test_a_stream_that_is_refused_is_a_problem_document(path, headers, status, code):
    async with live_server() as hub:
        async with httpx2.AsyncClient() as client:
            response = await client.get(hub.http + PATH + path, headers=headers)
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == code
        assert hub.node.wires == {}
        assert len(hub.edge) == 0


async def test_another_origin_reads_with_a_token_and_without_credentials():
    async with live_server() as hub:
        stream = await RawStream.open(hub.port, PATH, Authorization=bearer(), Origin="http://localhost:3000")
        assert stream.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert "access-control-allow-credentials" not in stream.headers


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", 200), ("OPTIONS", 204), ("POST", 405), ("DELETE", 405)]
)
async def test_other_methods(method, status):
    async with live_server() as hub, httpx2.AsyncClient() as client:
        response = await client.request(method, hub.http + PATH, headers={"Authorization": bearer()})
        assert response.status_code == status
        if method == "HEAD":
            assert response.headers["content-type"].startswith("text/event-stream")
        assert len(hub.edge) == 0


@pytest.mark.req("I14")
async def test_limits_for_a_user_and_for_the_node():
    async with live_server(Limits(connections_per_user=1, connections=2)) as hub:
        streams = [await opened(hub)]
        assert (await RawStream.open(hub.port, PATH, Authorization=bearer())).status == 429
        streams.append(await opened(hub, "bob"))
        assert (await RawStream.open(hub.port, PATH, Authorization=bearer("carol"))).status == 503
        streams[0].abort()
        await hub.node.until(lambda: not hub.node.of("alice"))
        assert (await RawStream.open(hub.port, PATH, Authorization=bearer())).status == 200


@pytest.mark.parametrize(
    ("failure", "status"),
    [(Refused(503, "bus_unavailable", "away"), 503), (Refused(403, "forbidden", "revoked"), 403)],
    ids=["away", "revoked"],
)
async def test_a_join_that_fails_has_its_status_and_leaves_nothing_behind(failure, status):
    async with live_server() as hub:
        hub.node.join_failure = failure
        assert (await RawStream.open(hub.port, PATH, Authorization=bearer())).status == status
        assert len(hub.edge) == 0
        hub.node.join_failure = None
        await opened(hub)


async def test_a_gate_that_is_away_is_503():
    async with live_server() as hub:
        hub.gate.failure = StoreUnavailable("away")
        assert (await RawStream.open(hub.port, PATH, Authorization=bearer())).status == 503


# ---------------------------------------------------------------- cursors


@pytest.mark.req("I5")
async def test_a_stream_that_comes_back_gets_what_it_missed_in_order_then_live():
    async with live_server() as hub:
        stream = await opened(hub)
        hub.node.publish("#alice", {"n": 1})
        cursor = (await stream.event())[2]
        stream.abort()
        await hub.node.until(lambda: not hub.node.wires)
        for n in (2, 3):
            hub.node.publish("#alice", {"n": n})
        hub.node.publish("broadcasts", {"n": 4})
        again = await opened(hub, Last_Event_ID=cursor)
        hub.node.publish("#alice", {"n": 5})
        events = [await again.event() for _ in range(4)]
        assert [data["n"] for _, data, _ in events] == [2, 3, 4, 5]


@pytest.mark.req("I5")
async def test_each_cursor_leads_on_exactly_from_there():
    async with live_server() as hub:
        stream = await opened(hub)
        cursors = [stream.cursor]
        expected = []
        for n in range(6):
            channel = "broadcasts" if n % 3 == 2 else "#alice"
            hub.node.publish(channel, {"n": n})
            expected.append(n)
            cursors.append((await stream.event())[2])
        for number, cursor in enumerate(cursors):
            late = await opened(hub, Last_Event_ID=cursor)
            missed = {(await late.event())[1]["n"] for _ in expected[number:]}
            assert missed == set(expected[number:])
            hub.node.publish("#alice", {"n": -1})
            assert (await late.event())[1] == {"n": -1}
            late.abort()
            await hub.node.until(lambda: len(hub.node.wires) == 1)
            hub.node.streams["#alice"].frames.pop()
            hub.node.streams["#alice"].top -= 1


@pytest.mark.req("I5")
async def test_the_header_wins_over_the_query():
    async with live_server() as hub:
        stream = await opened(hub)
        hub.node.publish("#alice", {"n": 1})
        one = (await stream.event())[2]
        hub.node.publish("#alice", {"n": 2})
        two = (await stream.event())[2]
        by_query = await RawStream.open(hub.port, f"{PATH}?last_event_id={one}", Authorization=bearer())
        assert (await by_query.event())[0] == "ready"
        assert (await by_query.event())[1] == {"n": 2}
        both = await RawStream.open(
            hub.port, f"{PATH}?last_event_id={one}", Authorization=bearer(), Last_Event_ID=two
        )
        assert (await both.event())[0] == "ready"
        hub.node.publish("#alice", {"n": 3})
        assert (await both.event())[1] == {"n": 3}


@pytest.mark.req("I5")
@pytest.mark.req("R35")
@pytest.mark.parametrize("cursor", ["garbage", "1!x:1!y:2", "0", "1!" + "9" * 5_000, "%00", "1!a:99!b:99"])
async def test_a_cursor_that_leads_nowhere_is_told_as_a_gap_once(cursor):
    async with live_server() as hub:
        hub.node.publish("#alice", {"n": 1})
        stream = await opened(hub, Last_Event_ID=cursor)
        kind, data, position = await stream.event()
        assert (kind, data, position) == ("gap", {"kind": "gap"}, "")
        hub.node.publish("#alice", {"n": 2})
        assert (await stream.event())[1] == {"n": 2}
        again = await opened(hub, Last_Event_ID=stream.cursor)
        assert (await again.event())[1] == {"n": 2}, "the cursor of `ready` after a gap is a good one"


@pytest.mark.req("I5")
async def test_what_is_no_longer_held_is_told_as_a_gap():
    async with live_server() as hub:
        stream = await opened(hub)
        hub.node.publish("#alice", {"n": 1})
        hub.node.streams["#alice"].trim()
        again = await opened(hub, Last_Event_ID=stream.cursor)
        assert (await again.event())[0] == "gap"


@pytest.mark.req("I14")
async def test_more_missed_than_is_good_for_memory_is_a_gap():
    async with live_server(Limits(recovery_bytes=10_000)) as hub:
        stream = await opened(hub)
        for n in range(20):
            hub.node.publish("#alice", {"n": n, "text": "x" * 1_000})
        late = await opened(hub, Last_Event_ID=stream.cursor)
        assert (await late.event())[0] == "gap"
        hub.node.publish("#alice", {"n": 20})
        assert (await late.event())[1] == {"n": 20}


async def test_what_is_published_while_a_stream_joins_comes_once():
    async with live_server() as hub:
        first = await opened(hub)
        hub.node.join_gate = asyncio.Event()
        opening = asyncio.create_task(opened(hub, Last_Event_ID=first.cursor))
        await hub.node.until(lambda: len(hub.node.wires) == 2)
        hub.node.publish("#alice", {"n": 1})
        hub.node.join_gate.set()
        stream = await opening
        hub.node.publish("#alice", {"n": 2})
        assert [(await stream.event())[1]["n"] for _ in range(2)] == [1, 2]


async def test_a_client_that_goes_while_it_joins_leaves_nothing_behind():
    async with live_server() as hub:
        hub.node.join_gate = asyncio.Event()
        _, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer()}\r\n\r\n".encode())
        await hub.node.until(lambda: hub.node.wires)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        hub.node.join_gate.set()
        await hub.node.until(lambda: not hub.node.wires)
        assert len(hub.edge) == 0


# ---------------------------------------------------------------- events


async def test_payloads_with_line_breaks_stay_one_event():
    async with live_server() as hub:
        stream = await opened(hub)
        document = {"text": "a\n\ndata: evil\r\n", "more": [1, 2]}
        hub.node.publish("#alice", json.dumps(document, indent=2).encode())
        assert (await stream.event())[1] == document


async def test_a_gap_that_comes_later_is_told():
    async with live_server() as hub:
        stream = await opened(hub)
        (wire,) = hub.node.of("alice")
        wire.gap("#alice")
        assert (await stream.event())[:2] == ("gap", {"kind": "gap"})


async def test_heartbeats_are_comments():
    async with live_server(Limits(heartbeat_seconds=0.3)) as hub:
        stream = await opened(hub)
        for _ in range(2):
            assert (await stream.block(2)).startswith(":")


async def test_broadcasts_since_the_last_heartbeat_take_its_place():
    async with live_server() as hub:
        stream = await opened(hub)
        (wire,) = hub.node.of("alice")
        moments = (hub.edge.wheel.now() + 100 * number for number in range(1, 9))
        for n in range(3):
            hub.node.publish("broadcasts", {"n": n})
            assert (await stream.block()).startswith("id:"), "no comment came between"
            wire.on_time(next(moments))
        wire.on_time(next(moments))  # nothing came since the last one
        assert (await stream.block()).startswith(":")


async def test_what_is_written_counts_as_read_after_a_grace():
    async with live_server(Limits(alive_seconds=0.3)) as hub:
        stream = await opened(hub)
        (wire,) = hub.node.of("alice")
        hub.node.publish("#alice", {"n": 1})
        assert (await stream.event())[1] == {"n": 1}
        hub.node.publish("#alice", {"n": 2}, report_id="ntf_2")
        assert hub.node.alive == []
        started = time.monotonic()
        await hub.node.until(lambda: hub.node.alive == [wire])
        assert time.monotonic() - started > 0.2
        assert abs(hub.node.proven_us[0] - time.time_ns() // 1000) < 2_000_000


async def test_a_reader_that_takes_nothing_proves_nothing_until_it_does():
    async with live_server(Limits(alive_seconds=0.1, queue_bytes=10**9)) as hub:
        stalled, other = await opened(hub), await opened(hub, "bob")
        stalled.writer.transport.pause_reading()
        for n in range(200):
            hub.node.publish("#alice", {"n": n, "text": "x" * 50_000})
        hub.node.publish("#alice", {"n": 200}, report_id="ntf_1")
        hub.node.publish("#bob", {"n": 1}, report_id="ntf_2")
        (wire,) = hub.node.of("bob")
        await hub.node.until(lambda: hub.node.alive == [wire])
        assert (await other.event())[1] == {"n": 1}
        stalled.writer.transport.resume_reading()
        await hub.node.until(lambda: hub.node.alive == [wire, *hub.node.of("alice")])


def test_what_the_other_end_has_not_taken_is_unconfirmed():
    ours, theirs = socket.socketpair()

    class Holder(asyncio.BaseTransport):
        def get_extra_info(self, name: str, default: object = None) -> object:
            return ours if name == "socket" else default

    with ours, theirs:
        assert unconfirmed(Holder()) == 0
        ours.send(b"x" * 100)
        assert unconfirmed(Holder()) > 0 or sys.platform != "linux"
        theirs.recv(100)
        assert unconfirmed(Holder()) == 0
    assert unconfirmed(asyncio.BaseTransport()) == 0


@pytest.mark.parametrize("how", ["reset", "half-close"])
async def test_a_client_that_vanishes_is_noticed(how):
    async with live_server() as hub:
        stream = await opened(hub)
        if how == "reset":
            stream.abort()
        else:
            stream.writer.write_eof()
        await hub.node.until(lambda: not hub.node.wires)
        assert len(hub.edge) == 0


async def test_what_a_client_sends_on_a_stream_is_ignored():
    async with live_server() as hub:
        stream = await opened(hub)
        stream.writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 100_000)
        await stream.writer.drain()
        hub.node.publish("#alice", {"n": 1})
        assert (await stream.event())[1] == {"n": 1}


# ---------------------------------------------------------------- the end


async def test_a_stream_ends_with_its_token():
    async with live_server() as hub:
        stream = await RawStream.open(hub.port, PATH, Authorization=bearer(seconds=0.5))
        assert (await stream.event())[0] == "ready"
        assert (await stream.event(3))[:2] == ("reconnect", {"kind": "reconnect", "reason": "token_expired"})
        assert (await stream.event())[0] == ""
        assert stream.is_over, "the response ends as a whole one"
        assert hub.node.wires == {}


async def test_the_node_ends_a_stream_and_says_why():
    async with live_server() as hub:
        stream = await opened(hub)
        (wire,) = hub.node.of("alice")
        wire.close(3500, "token revoked")
        assert (await stream.event())[1] == {"kind": "reconnect", "reason": "token_revoked"}
        assert (await stream.event())[0] == ""


@pytest.mark.req("I15")
async def test_a_shutdown_tells_streams_to_come_back_at_different_moments():
    async with live_server() as hub:
        streams = [await opened(hub, f"u{n}") for n in range(20)]
        hub.server.should_exit = True
        started = time.monotonic()
        waits = set()
        for stream in streams:
            block = await stream.block()
            assert '{"kind":"reconnect","reason":"shutdown"}' in block
            waits.add(block.split("retry: ")[1].split("\n")[0])
            assert (await stream.event())[0] == ""
        await hub.running
        print(f"drained in {time.monotonic() - started:.2f} s")
        assert len(waits) > 5


@pytest.mark.req("I14")
async def test_a_stalled_reader_is_cut_off_and_costs_nobody_else_anything():
    async with live_server(Limits(queue_bytes=200_000)) as hub:
        stalled, other = await opened(hub), await opened(hub, "bob")
        stalled.writer.transport.pause_reading()
        for n in range(400):
            hub.node.publish("#alice", {"n": n, "text": "x" * 50_000})
            hub.node.publish("#bob", {"n": n})
            assert (await other.event())[1] == {"n": n}
            if not hub.node.of("alice"):
                break
        assert hub.node.of("alice") == []
        assert len(hub.edge) == 1


@pytest.mark.req("I14")
async def test_a_reader_that_takes_nothing_for_two_heartbeats_is_cut_off():
    async with live_server(Limits(heartbeat_seconds=0.3, queue_bytes=10**9)) as hub:
        stalled = await opened(hub)
        stalled.writer.transport.pause_reading()
        for n in range(200):
            hub.node.publish("#alice", {"n": n, "text": "x" * 50_000})
        await hub.node.until(lambda: not hub.node.wires, 5)


# ---------------------------------------------------------------- presence


async def presence(hub: LiveServer, body: object, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient() as client:
        return await client.post(hub.http + "/v1/me/presence", json=body, headers=headers)


async def test_a_stream_says_whether_its_page_is_in_front():
    async with live_server() as hub:
        stream = await opened(hub)
        (wire,) = hub.node.of("alice")
        for visible in (False, True):
            body = {"connection": wire.connection_id, "visible": visible}
            assert (await presence(hub, body, Authorization=bearer())).status_code == 204
            assert wire.visible is visible
        stream.abort()


@pytest.mark.req("I16")
async def test_nobody_sets_the_presence_of_others():
    async with live_server() as hub:
        stream = await opened(hub)
        (wire,) = hub.node.of("alice")
        body = {"connection": wire.connection_id, "visible": False}
        assert (await presence(hub, body, Authorization=bearer("bob"))).status_code == 404
        assert (await presence(hub, body)).status_code == 401
        cookie = {"Cookie": "clarion_session=session-of-alice"}
        assert (await presence(hub, body, **cookie, Origin="http://localhost:3000")).status_code == 403
        assert wire.visible is True
        assert (await presence(hub, body, **cookie, Origin=hub.http)).status_code == 204
        stream.abort()


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([], 422),
        ({}, 422),
        ({"connection": 1, "visible": True}, 422),
        ({"connection": "x", "visible": "yes"}, 422),
    ],
)
async def test_presence_that_makes_no_sense(body, status):
    async with live_server() as hub:
        assert (await presence(hub, body, Authorization=bearer())).status_code == status


@pytest.mark.req("R3")
async def test_presence_of_a_connection_on_another_node_is_passed_on():
    told = []

    async def forward(user_id: str, connection_id: str, visible: bool) -> None:
        told.append((user_id, connection_id, visible))

    async with live_server(forward=forward) as hub:
        body = {"connection": "elsewhere", "visible": False}
        assert (await presence(hub, body, Authorization=bearer())).status_code == 202
        assert told == [("alice", "elsewhere", False)]
        too_long = {"connection": "x" * 100, "visible": False}
        assert (await presence(hub, too_long, Authorization=bearer())).status_code == 404
