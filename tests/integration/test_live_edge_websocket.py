"""WebSocket connections with raw sockets: handshake, frames, the protocol's codes, pings, expiry, slow and rude clients."""

import asyncio
import json
import struct
import time

import pytest

from hub.errors import Refused, StoreUnavailable
from hub.live.limits import Limits
from tests.support.live_node import make_token
from tests.support.live_server import live_server
from tests.support.raw_client import BINARY, CLOSE, CONT, PING, PONG, TEXT, RawWebSocket, frame

FAST = Limits(
    ping_seconds=1, pong_seconds=0.4, connect_seconds=0.4, expiry_grace_seconds=0.4, linger_seconds=0.3
)


async def logged_in(port: int, user: str = "alice", **claims: object) -> RawWebSocket:
    client = await RawWebSocket.connect(port)
    await client.login(make_token(user, **claims))
    return client


# ---------------------------------------------------------------- handshake


async def test_a_handshake_without_subprotocol_is_answered_without_one():
    async with live_server() as hub:
        client = await RawWebSocket.connect(hub.port)
        assert client.status == 101
        assert "sec-websocket-protocol" not in client.head.lower()
        assert "sec-websocket-extensions" not in client.head.lower()


@pytest.mark.parametrize(
    "offered", ["centrifuge-json", "other, centrifuge-json", "centrifuge-protobuf, centrifuge-json"]
)
async def test_the_json_subprotocol_is_selected_when_it_is_offered(offered):
    async with live_server() as hub:
        client = await RawWebSocket.connect(hub.port, Sec_WebSocket_Protocol=offered)
        assert client.status == 101
        assert "sec-websocket-protocol: centrifuge-json" in client.head.lower()
        await client.login(make_token("alice"))


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("?cf_protocol=protobuf", {}, 400),
        ("?format=protobuf", {}, 400),
        ("", {"Sec_WebSocket_Protocol": "centrifuge-protobuf"}, 400),
        ("", {"Origin": "https://evil.example"}, 403),
        ("", {"Origin": "null"}, 403),
        ("", {"Sec_WebSocket_Key": "short"}, 400),
        ("", {"Sec_WebSocket_Key": ""}, 400),
        ("", {"Sec_WebSocket_Version": "8"}, 400),
        ("/elsewhere", {}, 403),
    ],
)
async def test_a_handshake_that_is_refused(path, headers, status):
    async with live_server() as hub:
        client = await RawWebSocket.connect(hub.port, "/connection/websocket" + path, **headers)
        assert client.status == status
        assert await client.ended()
        assert len(hub.edge) == 0


@pytest.mark.req("R34")
@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "http://localhost:3000", ""])
async def test_pages_of_allowed_origins_and_other_programs_may_connect(origin):
    async with live_server() as hub:
        client = await RawWebSocket.connect(hub.port, Origin=origin)
        assert client.status == 101


async def test_a_plain_request_is_told_to_upgrade():
    async with live_server() as hub:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 426 ")
        writer.close()


async def test_a_full_node_refuses_the_handshake():
    async with live_server(Limits(connections=1)) as hub:
        first = await RawWebSocket.connect(hub.port)
        second = await RawWebSocket.connect(hub.port)
        assert (first.status, second.status) == (101, 503)
        assert "retry-after" in second.head.lower()
        first.abort()
        await hub.node.until(lambda: True)
        async with asyncio.timeout(5):
            while len(hub.edge):
                await asyncio.sleep(0)
        assert (await RawWebSocket.connect(hub.port)).status == 101


# ---------------------------------------------------------------- frames


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(frame(TEXT, b"{}", mask=False), 1002, id="unmasked"),
        pytest.param(frame(TEXT, b"{}", rsv=4), 1002, id="reserved bit"),
        pytest.param(frame(0x3, b"x"), 1002, id="reserved opcode"),
        pytest.param(frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002, id="text inside a text"),
        pytest.param(frame(CLOSE, b"\x03"), 1002, id="half a close code"),
        pytest.param(frame(TEXT, b"\xff"), 1007, id="not UTF-8"),
        pytest.param(frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007, id="reason not UTF-8"),
        pytest.param(frame(TEXT, b"x" * 65_537), 1009, id="too big"),
        pytest.param(
            frame(TEXT, b"x" * 40_000, fin=False) + frame(CONT, b"x" * 40_000), 1009, id="too big in two"
        ),
        pytest.param(frame(BINARY, b"x"), 3501, id="binary"),
        pytest.param(frame(BINARY, b"x", fin=False), 3501, id="fragmented binary"),
        pytest.param(frame(TEXT, b""), 3501, id="empty"),
        pytest.param(frame(TEXT, b"[]"), 3501, id="no object"),
        pytest.param(frame(TEXT, b"{}"), 3501, id="unasked pong"),
    ],
)
async def test_what_breaks_the_rules_is_closed_with_its_code(wire, code):
    async with live_server() as hub:
        client = await logged_in(hub.port)
        other = await logged_in(hub.port, "bob")
        client.send(wire)
        assert (await client.closed())[0] == code
        client.send(frame(CLOSE, struct.pack("!H", code)))
        assert await client.ended()
        hub.node.publish("#bob", {"n": 1})
        assert (await other.reply())["push"]["pub"]["data"] == {"n": 1}
        assert hub.node.of("alice") == []


async def test_fragments_with_a_ping_between_them_are_one_message():
    async with live_server() as hub:
        client = await RawWebSocket.connect(hub.port)
        command = json.dumps({"id": 1, "connect": {"token": make_token("älice"[1:])}}).encode()
        client.send(frame(TEXT, command[:7], fin=False), frame(PING, b"now"), frame(CONT, command[7:]))
        assert await client.frame() == (PONG, b"now")
        assert (await client.reply())["connect"]["client"]


async def test_a_message_that_comes_byte_by_byte_is_understood():
    async with live_server() as hub:
        client = await RawWebSocket.connect(hub.port)
        for byte in frame(TEXT, json.dumps({"id": 1, "connect": {"token": make_token("alice")}}).encode()):
            client.writer.write(bytes([byte]))
            await client.writer.drain()
        assert (await client.reply())["connect"]["client"]


async def test_the_largest_message_passes():
    async with live_server() as hub:
        client = await logged_in(hub.port)
        command = {"id": 2, "rpc": {"method": "echo", "data": ""}}
        command["rpc"]["data"] = "x" * (65_536 - len(json.dumps(command)))
        client.say(command)
        assert (await client.reply())["rpc"]["data"] == command["rpc"]["data"]


@pytest.mark.parametrize(
    ("payload", "echoed"),
    [(struct.pack("!H", 1000) + b"bye", struct.pack("!H", 1000)), (b"", b"")],
    ids=["with a code", "without"],
)
async def test_a_client_that_closes_gets_its_code_back(payload, echoed):
    async with live_server() as hub:
        client = await logged_in(hub.port)
        client.send(frame(CLOSE, payload))
        assert await client.frame() == (CLOSE, echoed)
        assert await client.ended()
        await hub.node.until(lambda: not hub.node.wires)


@pytest.mark.parametrize("how", ["reset", "half-close"])
async def test_a_client_that_vanishes_is_noticed(how):
    async with live_server() as hub:
        client = await logged_in(hub.port)
        if how == "reset":
            client.abort()
        else:
            client.writer.write_eof()
        await hub.node.until(lambda: not hub.node.wires)
        assert len(hub.edge) == 0


# ---------------------------------------------------------------- connect


@pytest.mark.req("R34")
@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("", 3501),
        ("garbage", 3500),
        (make_token("alice")[:-5] + "aaaaa", 3500),
    ],
    ids=["none", "garbage", "badly signed"],
)
async def test_without_a_good_token_nobody_gets_in(token, code):
    async with live_server() as hub:
        client = await RawWebSocket.connect(hub.port)
        client.say({"id": 1, "connect": {"token": token}})
        assert (await client.closed())[0] == code
        assert hub.node.wires == {}


async def test_an_expired_token_is_error_109_and_then_the_end():
    async with live_server(FAST) as hub:
        client = await RawWebSocket.connect(hub.port)
        reply = await client.call(connect={"token": make_token("alice", -100)})
        assert reply["error"] == {"code": 109, "message": "token expired"}
        client.say({"id": 2, "connect": {"token": make_token("alice")}})
        client.say({"id": 3, "rpc": {"method": "unread_count"}})
        code, _ = await client.closed(2)
        assert 3000 <= code < 3500
        assert hub.node.calls == []


async def test_a_session_cookie_of_our_own_pages_is_enough():
    async with live_server() as hub:
        client = await RawWebSocket.connect(hub.port, Cookie="clarion_session=session-of-carol")
        result = (await client.call(connect={}))["connect"]
        assert set(result["subs"]) == {"#carol", "broadcasts"}
        assert "expires" not in result


@pytest.mark.req("I16")
async def test_a_cookie_does_not_count_for_pages_of_other_origins_and_a_token_wins_over_it():
    async with live_server() as hub:
        cookie = "clarion_session=session-of-carol"
        foreign = await RawWebSocket.connect(hub.port, Cookie=cookie, Origin="http://localhost:3000")
        foreign.say({"id": 1, "connect": {}})
        assert (await foreign.closed())[0] == 3501
        client = await RawWebSocket.connect(hub.port, Cookie=cookie)
        assert set((await client.login(make_token("alice")))["subs"]) == {"#alice", "broadcasts"}


async def test_a_second_connect_is_a_bad_request():
    async with live_server() as hub:
        client = await logged_in(hub.port)
        client.say({"id": 2, "connect": {"token": make_token("alice")}})
        assert (await client.closed())[0] == 3501


@pytest.mark.req("I14")
async def test_a_client_that_never_authenticates_is_closed_as_stale():
    async with live_server(FAST) as hub:
        started = time.monotonic()
        client = await RawWebSocket.connect(hub.port)
        assert await client.closed(3) == (3502, "stale")
        assert 0.3 < time.monotonic() - started < 2
        assert await client.ended(2)


@pytest.mark.req("I14")
async def test_a_user_has_so_many_connections_and_no_more():
    async with live_server(Limits(connections_per_user=2)) as hub:
        first, second = await logged_in(hub.port), await logged_in(hub.port)
        third = await RawWebSocket.connect(hub.port)
        third.say({"id": 1, "connect": {"token": make_token("alice")}})
        assert (await third.closed())[0] == 3504
        other = await logged_in(hub.port, "bob")
        first.abort()
        await hub.node.until(lambda: len(hub.node.of("alice")) == 1)
        fourth = await logged_in(hub.port)
        assert len(hub.edge) == len((second, other, fourth))


@pytest.mark.parametrize(
    ("failure", "code"),
    [(Refused(403, "revoked", "r"), 3500), (Refused(429, "too_many_connections", "r"), 3504)],
)
async def test_a_join_that_is_refused_for_good_closes(failure, code):
    async with live_server() as hub:
        hub.node.join_failure = failure
        client = await RawWebSocket.connect(hub.port)
        client.say({"id": 1, "connect": {"token": make_token("alice")}})
        assert (await client.closed())[0] == code


@pytest.mark.parametrize(
    "failure", [Refused(503, "bus_unavailable", "r"), StoreUnavailable("s"), ValueError("bug")]
)
async def test_a_join_that_fails_is_a_temporary_error(failure):
    async with live_server(FAST) as hub:
        hub.node.join_failure = failure
        client = await RawWebSocket.connect(hub.port)
        reply = await client.call(connect={"token": make_token("alice")})
        assert reply["error"] == {"code": 100, "message": "internal server error", "temporary": True}
        assert 3000 <= (await client.closed(2))[0] < 3500
        hub.node.join_failure = None
        await logged_in(hub.port)


async def test_a_client_that_goes_while_it_joins_leaves_nothing_behind():
    async with live_server() as hub:
        hub.node.join_gate = asyncio.Event()
        client = await RawWebSocket.connect(hub.port)
        client.say({"id": 1, "connect": {"token": make_token("alice")}})
        await hub.node.until(lambda: hub.node.wires)
        client.abort()
        await hub.node.until(lambda: hub.node.left)
        hub.node.join_gate.set()
        await asyncio.sleep(0.05)
        assert hub.node.wires == {}
        assert len(hub.edge) == 0


@pytest.mark.req("I5")
async def test_what_is_published_while_a_client_joins_comes_once_and_after_the_reply():
    async with live_server() as hub:
        hub.node.join_gate = asyncio.Event()
        for n in range(3):
            hub.node.publish("#alice", {"n": n})
        epoch = hub.node.streams["#alice"].epoch
        client = await RawWebSocket.connect(hub.port)
        subs = {"#alice": {"recover": True, "epoch": epoch, "offset": 1}}
        client.say({"id": 1, "connect": {"token": make_token("alice"), "subs": subs}})
        await hub.node.until(lambda: hub.node.wires)
        hub.node.publish("#alice", {"n": 3})
        hub.node.join_gate.set()
        sub = (await client.reply())["connect"]["subs"]["#alice"]
        assert (sub["was_recovering"], sub["recovered"], sub["offset"]) == (True, True, 1)
        assert [one["offset"] for one in sub["publications"]] == [2, 3, 4]
        hub.node.publish("#alice", {"n": 4})
        assert (await client.reply())["push"]["pub"]["offset"] == 5


@pytest.mark.req("I14")
async def test_more_missed_than_is_good_for_memory_counts_as_unrecoverable():
    async with live_server(Limits(recovery_bytes=10_000)) as hub:
        for _ in range(20):
            hub.node.publish("#alice", {"text": "x" * 1_000})
        epoch = hub.node.streams["#alice"].epoch
        client = await RawWebSocket.connect(hub.port)
        result = await client.login(make_token("alice"), subs={"#alice": {"recover": True, "epoch": epoch}})
        expected = {
            "recoverable": True,
            "positioned": True,
            "epoch": epoch,
            "offset": 20,
            "was_recovering": True,
        }
        assert result["subs"]["#alice"] == expected


# ---------------------------------------------------------------- commands


async def test_replies_of_a_frame_come_in_order():
    async with live_server() as hub:
        client = await RawWebSocket.connect(hub.port)
        token = make_token("root", operator=True)
        client.say(
            {"id": 1, "connect": {"token": token}},
            {"id": 2, "subscribe": {"channel": "log"}},
            {"id": 3, "rpc": {"method": "unread_count"}},
            {"id": 4, "unsubscribe": {"channel": "log"}},
            {"id": 5, "subscribe": {"channel": "#other"}},
        )
        replies = [await client.reply() for _ in range(5)]
        assert [reply["id"] for reply in replies] == [1, 2, 3, 4, 5]
        assert replies[1]["subscribe"]["recoverable"] is True
        assert replies[3] == {"id": 4, "unsubscribe": {}}
        assert replies[4]["error"]["code"] == 103


@pytest.mark.req("I16")
async def test_only_operators_hear_the_log():
    async with live_server() as hub:
        user, operator = await logged_in(hub.port), await logged_in(hub.port, "root", operator=True)
        client_reply = await user.call(subscribe={"channel": "log"})
        assert client_reply["error"] == {"code": 103, "message": "permission denied"}
        assert (await user.call(subscribe={"channel": "#root"}))["error"]["code"] == 103
        assert "subscribe" in await operator.call(subscribe={"channel": "log"})
        hub.node.publish("log", {"line": 1})
        assert (await operator.reply())["push"]["channel"] == "log"
        assert "unsubscribe" in await operator.call(unsubscribe={"channel": "log"})
        hub.node.publish("log", {"line": 2})
        hub.node.publish("#root", {"n": 1})
        assert (await operator.reply())["push"]["channel"] == "#root"


async def test_a_subscription_that_cannot_be_recovered_is_error_112_for_who_wants_it():
    async with live_server() as hub:
        client = await logged_in(hub.port, "root", operator=True)
        wish = {"channel": "log", "recover": True, "epoch": "old", "offset": 2, "flag": 3}
        assert (await client.call(subscribe=wish))["error"]["code"] == 112
        reply = await client.call(subscribe={**wish, "flag": 1})
        assert reply["subscribe"]["was_recovering"] is True
        assert "recovered" not in reply["subscribe"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ({"publish": {"channel": "#alice", "data": {}}}, 103),
        ({"presence": {"channel": "broadcasts"}}, 108),
        ({"presence_stats": {"channel": "broadcasts"}}, 108),
        ({"subscribe": {"channel": "#alice"}}, 105),
        ({"history": {"channel": "#bob", "limit": 1}}, 103),
        ({"rpc": {"method": "nope"}}, 104),
        ({"rpc": {"method": "refuse", "data": {"status": 422}}}, 107),
        ({"rpc": {"method": "refuse", "data": {"status": 429}}}, 111),
        ({"rpc": {"method": "refuse", "data": {"status": 503}}}, 100),
        ({"rpc": {"method": "fail"}}, 100),
    ],
)
async def test_a_command_that_fails_leaves_the_connection_alive(command, code):
    async with live_server() as hub:
        client = await logged_in(hub.port)
        assert (await client.call(**command))["error"]["code"] == code
        assert (await client.call(rpc={"method": "echo", "data": [1]}))["rpc"] == {"data": [1]}


async def test_send_is_not_available():
    async with live_server() as hub:
        client = await logged_in(hub.port)
        client.say({"send": {"data": 1}})
        assert (await client.closed())[0] == 3508


async def test_history():
    async with live_server() as hub:
        client = await logged_in(hub.port)
        for n in range(1, 6):
            hub.node.publish("#alice", {"n": n})
            await client.reply()
        epoch = hub.node.streams["#alice"].epoch

        async def offsets(**request):
            found = (await client.call(history={"channel": "#alice", **request}))["history"]
            assert (found["epoch"], found["offset"]) == (epoch, 5)
            return [one["offset"] for one in found["publications"]]

        assert await offsets() == []
        assert await offsets(limit=-1) == [1, 2, 3, 4, 5]
        assert await offsets(limit=2, reverse=True) == [5, 4]
        assert await offsets(limit=2, since={"offset": 2, "epoch": epoch}) == [3, 4]
        wrong = await client.call(
            history={"channel": "#alice", "limit": 1, "since": {"epoch": "x", "offset": 1}}
        )
        assert wrong["error"]["code"] == 112


async def test_publications_and_pongs_pass_while_a_command_is_awaited():
    async with live_server(FAST) as hub:
        hub.node.rpc_gate = asyncio.Event()
        client = await logged_in(hub.port)
        client.say({"id": 2, "rpc": {"method": "wait"}}, {"id": 3, "rpc": {"method": "echo", "data": 1}})
        hub.node.publish("#alice", {"n": 1})
        assert "push" in await client.reply()
        for _ in range(2):
            assert await client.reply(3) == {}
            client.say("{}")
        hub.node.rpc_gate.set()
        assert await client.reply() == {"id": 2, "rpc": {"data": {"waited": True}}}
        assert await client.reply() == {"id": 3, "rpc": {"data": 1}}


# ---------------------------------------------------------------- pings and expiry


async def test_pings_come_and_a_pong_proves_that_the_client_lives():
    async with live_server(FAST) as hub:
        client = await logged_in(hub.port)
        (wire,) = hub.node.of("alice")
        assert await client.reply(3) == {}
        client.say("{}")
        await hub.node.until(lambda: hub.node.alive == [wire])
        assert abs(hub.node.proven_us[0] - time.time_ns() // 1000) < 2_000_000
        assert await client.reply(3) == {}


PATIENT = Limits(ping_seconds=600, pong_seconds=5, proof_seconds=0.2)


@pytest.mark.req("R2")
async def test_what_is_to_be_reported_is_followed_by_a_ping_and_a_burst_by_one():
    async with live_server(PATIENT) as hub:
        client = await logged_in(hub.port)
        (wire,) = hub.node.of("alice")
        hub.node.publish("#alice", {"n": 0})
        for n in range(1, 40):
            hub.node.publish("#alice", {"n": n}, report_id=f"ntf_{n}")
        asked_us = time.time_ns() // 1000
        for n in range(2):
            assert (await client.reply())["push"]["pub"]["data"] == {"n": n}
        assert await client.reply() == {}  # behind the first; what came with it needs no ping of its own
        for n in range(2, 40):
            assert (await client.reply())["push"]["pub"]["data"] == {"n": n}
        assert hub.node.alive == []
        client.say("{}")
        await hub.node.until(lambda: hub.node.alive == [wire])
        assert hub.node.proven_us[0] <= asked_us, "a pong proves what was written before its ping, no more"
        client.say({"id": 2, "rpc": {"method": "echo", "data": 1}})
        assert (await client.reply())["id"] == 2, "no second ping while nobody asks"


@pytest.mark.req("I14")
async def test_the_next_such_ping_comes_after_a_pause():
    async with live_server(PATIENT) as hub:
        client = await logged_in(hub.port)
        hub.node.publish("#alice", {"n": 1}, report_id="ntf_1")
        assert "push" in await client.reply()
        assert await client.reply() == {}
        client.say("{}")
        await hub.node.until(lambda: len(hub.node.alive) == 1)
        hub.node.publish("#alice", {"n": 2}, report_id="ntf_2")
        hub.node.publish("#alice", {"n": 3}, report_id="ntf_3")
        client.say({"id": 2, "rpc": {"method": "echo", "data": 1}})
        assert [next(iter(await client.reply())) for _ in range(3)] == ["push", "push", "id"]
        assert await client.reply() == {}
        client.say("{}")
        await hub.node.until(lambda: len(hub.node.alive) == 2)
        assert hub.node.proven_us[1] - hub.node.proven_us[0] > 100_000


async def test_a_peer_that_does_not_answer_such_a_ping_is_closed():
    async with live_server(Limits(ping_seconds=600, pong_seconds=0.3)) as hub:
        client = await logged_in(hub.port)
        hub.node.publish("#alice", {"n": 1}, report_id="ntf_1")
        assert "push" in await client.reply()
        assert await client.reply() == {}
        assert await client.closed(3) == (3012, "no pong")


async def test_a_client_that_sends_no_pong_is_closed():
    async with live_server(FAST) as hub:
        client = await logged_in(hub.port)
        assert await client.reply(3) == {}
        assert await client.closed(3) == (3012, "no pong")
        await hub.node.until(lambda: not hub.node.wires)


async def test_an_unasked_pong_is_a_bad_request():
    async with live_server() as hub:
        client = await logged_in(hub.port)
        client.say("{}")
        assert (await client.closed())[0] == 3501


async def test_a_debug_tool_gets_websocket_pings_instead():
    async with live_server(FAST) as hub:
        client = await RawWebSocket.connect(hub.port, "/connection/websocket?cf_ws_frame_ping_pong=true")
        result = await client.login(make_token("alice"))
        assert "ping" not in result
        assert "pong" not in result
        for _ in range(2):
            assert await client.frame(3) == (PING, b"")
            client.send(frame(PONG))
        assert await client.frame(3) == (PING, b"")
        assert await client.closed(3) == (3012, "no pong")


async def test_a_token_that_is_not_refreshed_ends_the_connection_after_the_grace():
    async with live_server(Limits(expiry_grace_seconds=0.4, linger_seconds=0.3)) as hub:
        client = await RawWebSocket.connect(hub.port)
        assert (await client.login(make_token("alice", 0.6)))["ttl"] == 1
        assert await client.closed(4) == (3005, "connection expired")


async def test_a_token_in_its_leeway_still_gets_the_grace_to_refresh():
    async with live_server() as hub:
        client = await RawWebSocket.connect(hub.port)
        assert (await client.login(make_token("alice", -30)))["ttl"] == 1
        assert "refresh" in await client.call(refresh={"token": make_token("alice")})


async def test_a_refreshed_token_keeps_it():
    async with live_server(Limits(expiry_grace_seconds=0.3, linger_seconds=0.3)) as hub:
        client = await RawWebSocket.connect(hub.port)
        await client.login(make_token("alice", 0.6))
        reply = await client.call(refresh={"token": make_token("alice", 3600)})
        assert reply["refresh"]["expires"] is True
        assert 3590 < reply["refresh"]["ttl"] <= 3600
        await asyncio.sleep(1.5)
        assert (await client.call(rpc={"method": "echo", "data": 1}))["rpc"] == {"data": 1}


@pytest.mark.req("R34")
@pytest.mark.parametrize(
    ("token", "code"),
    [(make_token("alice", -100), 3005), (make_token("bob"), 3500), ("garbage", 3500)],
    ids=["expired", "of another user", "garbage"],
)
async def test_a_bad_refresh_closes(token, code):
    async with live_server() as hub:
        client = await logged_in(hub.port)
        client.say({"id": 2, "refresh": {"token": token}})
        assert (await client.closed())[0] == code


async def test_a_refresh_that_cannot_be_checked_now_is_a_temporary_error():
    async with live_server() as hub:
        client = await logged_in(hub.port)
        hub.gate.failure = StoreUnavailable("away")
        error = (await client.call(refresh={"token": make_token("alice")}))["error"]
        assert (error["code"], error["temporary"]) == (100, True)


@pytest.mark.req("I16")
async def test_an_operator_whose_new_token_is_an_ordinary_one_comes_back_without_the_log():
    async with live_server() as hub:
        client = await logged_in(hub.port, "root", operator=True)
        client.say({"id": 2, "refresh": {"token": make_token("root")}})
        assert (await client.closed())[0] == 3010


# ---------------------------------------------------------------- what the node asks for


async def test_the_node_tells_of_gaps_and_closes():
    async with live_server() as hub:
        client = await logged_in(hub.port, "root", operator=True)
        await client.call(subscribe={"channel": "log"})
        (wire,) = hub.node.of("root")
        wire.gap("log")
        reason = {"code": 2500, "reason": "insufficient state"}
        assert await client.reply() == {"push": {"channel": "log", "unsubscribe": reason}}
        assert "subscribe" in await client.call(subscribe={"channel": "log"})
        wire.gap("#root")
        assert await client.closed() == (3010, "insufficient state")
        assert hub.node.of("root") == []


async def test_publications_of_one_turn_arrive_in_order_after_replies():
    async with live_server() as hub:
        client = await logged_in(hub.port)
        for n in range(500):
            hub.node.publish("#alice", {"n": n})
        assert [(await client.reply())["push"]["pub"]["data"]["n"] for n in range(500)] == list(range(500))


async def test_a_payload_with_line_breaks_is_still_one_line():
    async with live_server() as hub:
        client = await logged_in(hub.port)
        hub.node.publish("#alice", b'{\n  "text": "a\\nb"\r\n}')
        opcode, payload = await client.frame()
        assert (opcode, payload.count(b"\n"), payload.count(b"\r")) == (TEXT, 0, 0)
        assert json.loads(payload)["push"]["pub"]["data"] == {"text": "a\nb"}


# ---------------------------------------------------------------- slow and rude clients


@pytest.mark.req("I14")
async def test_a_stalled_reader_costs_bounded_memory_and_nobody_elses_time():
    async with live_server(Limits(queue_bytes=200_000, linger_seconds=0.3)) as hub:
        stalled, other = await logged_in(hub.port), await logged_in(hub.port, "bob")
        stalled.writer.transport.pause_reading()
        for n in range(400):
            hub.node.publish("#alice", {"n": n, "text": "x" * 50_000})
            hub.node.publish("#bob", {"n": n})
            assert (await other.reply())["push"]["pub"]["data"] == {"n": n}
            if not hub.node.of("alice"):
                break
        assert hub.node.of("alice") == [], "20 MB were published, far more than the limits hold"
        # The peer reads nothing, so the close frame cannot arrive: TCP goes after the linger.
        async with asyncio.timeout(5):
            while len(hub.edge) > 1:
                await asyncio.sleep(0.02)
        stalled.writer.transport.resume_reading()
        assert await stalled.ended()


@pytest.mark.req("I14")
async def test_a_slow_reader_who_wakes_up_reads_the_slow_code():
    async with live_server(Limits(queue_bytes=200_000, linger_seconds=10)) as hub:
        client = await logged_in(hub.port)
        client.writer.transport.pause_reading()
        for n in range(600):
            hub.node.publish("#alice", {"n": n, "text": "x" * 50_000})
            await asyncio.sleep(0)
            if not hub.node.of("alice"):
                break
        client.writer.transport.resume_reading()
        assert await client.closed(10) == (3008, "slow")


@pytest.mark.req("I14")
async def test_a_flood_of_commands_ends_its_own_connection_alone():
    async with live_server() as hub:
        client, other = await logged_in(hub.port), await logged_in(hub.port, "bob")
        for number in range(2, 1_000):
            client.say({"id": number, "rpc": {"method": "echo", "data": 1}})
        assert await client.closed() == (3013, "too many requests")
        assert len(hub.node.calls) <= 200
        assert (await other.call(rpc={"method": "echo", "data": 2}))["rpc"] == {"data": 2}


@pytest.mark.req("I14")
@pytest.mark.parametrize("rude", [frame(PING, b"x" * 100), frame(PONG)], ids=["pings", "pongs"])
async def test_a_flood_of_control_frames_ends_its_connection(rude):
    async with live_server() as hub:
        client = await logged_in(hub.port)
        client.send(*[rude] * 1_000)
        assert await client.closed() == (3013, "too many requests")


@pytest.mark.req("I14")
async def test_a_flood_behind_a_slow_command_ends_too():
    async with live_server() as hub:
        hub.node.rpc_gate = asyncio.Event()
        client = await logged_in(hub.port)
        client.say({"id": 2, "rpc": {"method": "wait"}})
        for number in range(3, 20):
            client.say({"id": number, "rpc": {"method": "echo", "data": "x" * 60_000}})
        assert (await client.closed())[0] == 3013
        hub.node.rpc_gate.set()
        assert [method for method, _ in hub.node.calls] == ["wait"]


@pytest.mark.req("I14")
async def test_a_flood_without_any_login_ends_too():
    async with live_server() as hub:
        client = await RawWebSocket.connect(hub.port)
        client.send(*[frame(PING)] * 1_000)
        assert (await client.closed())[0] == 3013


# ---------------------------------------------------------------- shutdown


@pytest.mark.req("I15")
async def test_a_shutdown_tells_clients_to_come_back_elsewhere_and_is_quick():
    async with live_server() as hub:
        clients = [await logged_in(hub.port, f"u{n}") for n in range(30)]
        silent = await RawWebSocket.connect(hub.port)
        hub.server.should_exit = True
        started = time.monotonic()
        assert {await client.closed() for client in clients} == {(3001, "shutdown")}
        assert await silent.closed() == (3001, "shutdown")
        await hub.running
        assert time.monotonic() - started < 2
        assert hub.node.wires == {}
