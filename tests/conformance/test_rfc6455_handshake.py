"""RFC 6455 §4.2 on a real socket: which requests open a WebSocket, and what the others are told."""

import base64
import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tests.support.conversation import closing, echoed, text
from tests.support.echo_server import LOOPS, EchoServer, echo_server
from tests.support.live_node import make_token
from tests.support.peer import Peer
from tests.support.raw_client import CLOSE

pytestmark = pytest.mark.req("R35")

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # with its answer, of RFC 6455 §1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
Headers = list[tuple[str, str]]
GOOD: Headers = [
    ("Host", "localhost"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
]


@pytest.fixture(scope="module", params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    with echo_server(request.param) as server:
        yield server
        server.errors[:] = [error for error in server.errors if not error.startswith("Unsupported upgrade")]


def request_of(headers: Headers, line: str = "GET /echo HTTP/1.1") -> bytes:
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")


def without(name: str) -> Headers:
    return [pair for pair in GOOD if pair[0] != name]


def with_(name: str, *values: str) -> Headers:
    return without(name) + [(name, value) for value in values]


def answer_to(server: EchoServer, request: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers."""
    with Peer.dial(server) as peer:
        peer.send(request)
        first, *lines = peer.read_until(b"\r\n\r\n").decode("latin-1").strip().split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    names = [name.lower() for name, _ in pairs]
    assert len(names) == len(set(names)), "each header once"
    return int(first.split(" ")[1]), {name.lower(): value for name, value in pairs}


# ---------------------------------------------------------------- what opens one


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(GOOD, id="as in the RFC"),
        pytest.param([(name.lower(), value) for name, value in GOOD], id="small letters"),
        pytest.param([(name.upper(), value) for name, value in GOOD], id="capitals"),
        pytest.param(with_("Upgrade", "WebSocket"), id="Upgrade: WebSocket"),
        pytest.param(with_("Connection", "keep-alive, Upgrade"), id="a list of options, as of Firefox"),
        pytest.param(with_("Connection", "upgrade,foo"), id="small letters and no blank"),
        pytest.param(
            [*GOOD, ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")],
            id="extensions",
        ),
        pytest.param([*GOOD, ("Sec-WebSocket-Protocol", "chat, superchat")], id="subprotocols"),
        pytest.param([*GOOD, ("Cookie", "a=b"), ("X-Other", "ü")], id="other headers"),
    ],
)
def test_what_opens_a_websocket(server: EchoServer, headers: Headers) -> None:
    status, answer = answer_to(server, request_of(headers))
    assert status == 101
    assert answer["sec-websocket-accept"] == ACCEPT
    assert answer["upgrade"].lower() == "websocket"
    assert answer["connection"].lower() == "upgrade"
    # Nothing was agreed on: the route selects no subprotocol, and there are no extensions.
    assert "sec-websocket-extensions" not in answer
    assert "sec-websocket-protocol" not in answer
    assert "content-length" not in answer
    assert "transfer-encoding" not in answer


@settings(max_examples=50)
@given(st.binary(min_size=16, max_size=16))
def test_every_key_is_answered(server: EchoServer, raw: bytes) -> None:
    key = base64.b64encode(raw).decode()
    _, answer = answer_to(server, request_of(with_("Sec-WebSocket-Key", key)))
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    assert answer["sec-websocket-accept"] == base64.b64encode(digest).decode()


# ---------------------------------------------------------------- what does not


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(without("Sec-WebSocket-Key"), id="no key"),
        pytest.param(with_("Sec-WebSocket-Key", KEY, KEY), id="two keys"),
        pytest.param(with_("Sec-WebSocket-Key", ""), id="an empty key"),
        pytest.param(with_("Sec-WebSocket-Key", "short"), id="no base64"),
        pytest.param(with_("Sec-WebSocket-Key", base64.b64encode(b"x" * 15).decode()), id="15 bytes"),
        pytest.param(with_("Sec-WebSocket-Key", base64.b64encode(b"x" * 17).decode()), id="17 bytes"),
        pytest.param(with_("Sec-WebSocket-Key", KEY[:-2]), id="no padding"),
        pytest.param(with_("Sec-WebSocket-Key", f"{KEY[:5]}*{KEY[5:]}"), id="a character that is no base64"),
        pytest.param(with_("Sec-WebSocket-Key", "ü" + KEY), id="Latin-1"),
        pytest.param(without("Sec-WebSocket-Version"), id="no version"),
        pytest.param(with_("Sec-WebSocket-Version", "8"), id="version 8"),
        pytest.param(with_("Sec-WebSocket-Version", "8, 13"), id="two versions in one line"),
        pytest.param(with_("Sec-WebSocket-Version", "13", "13"), id="two version lines"),
        pytest.param(with_("Sec-WebSocket-Version", "14"), id="version 14"),
    ],
)
def test_a_request_that_is_wrong_is_refused(server: EchoServer, headers: Headers) -> None:
    status, answer = answer_to(server, request_of(headers))
    assert status == 400
    assert answer["connection"] == "close"
    if [value for name, value in headers if name == "Sec-WebSocket-Version"] != ["13"]:
        assert answer["sec-websocket-version"] == "13"  # §4.4


@pytest.mark.parametrize(
    ("line", "statuses"),
    [
        ("POST /echo HTTP/1.1", {400, 405}),
        ("HEAD /echo HTTP/1.1", {400, 405}),
        ("GET /echo HTTP/1.0", {400, 426, 505}),
        ("GET /elsewhere HTTP/1.1", {403, 404}),
    ],
)
def test_other_methods_versions_and_places(server: EchoServer, line: str, statuses: set[int]) -> None:
    assert answer_to(server, request_of(GOOD, line))[0] in statuses


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(without("Upgrade"), id="no Upgrade"),
        pytest.param(without("Connection"), id="no Connection"),
        pytest.param(with_("Upgrade", "h2c"), id="Upgrade: h2c"),
        pytest.param(with_("Connection", "keep-alive"), id="Connection: keep-alive"),
        pytest.param(with_("Connection", "close"), id="Connection: close"),
    ],
)
def test_what_asks_for_no_websocket_is_an_ordinary_request(server: EchoServer, headers: Headers) -> None:
    status, answer = answer_to(server, request_of(headers))
    assert status in (400, 404, 426)
    assert "sec-websocket-accept" not in answer


HEADER = st.sampled_from(
    [
        *GOOD,
        ("Upgrade", "h2c"),
        ("Connection", "close"),
        ("Connection", "upgrade, keep-alive"),
        ("Sec-WebSocket-Key", "AAAA"),
        ("Sec-WebSocket-Version", "12"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
    ]
)


@settings(max_examples=80)
@given(
    headers=st.lists(HEADER, max_size=8).filter(lambda given: sum(name == "Upgrade" for name, _ in given) < 2)
)
def test_nothing_opens_one_that_the_library_refuses(server: EchoServer, headers: Headers) -> None:
    raw = request_of([("Host", "localhost"), *headers])
    library = ServerProtocol()
    library.receive_data(raw)
    (request,) = library.events_received()
    assert isinstance(request, Request)
    status, _ = answer_to(server, raw)
    assert (status == 101) <= (library.accept(request).status_code == 101)


# ---------------------------------------------------------------- around it


def test_the_request_may_come_in_pieces(server: EchoServer) -> None:
    with Peer.dial(server) as peer:
        for byte in request_of(GOOD):
            peer.send(bytes([byte]))
        assert peer.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        peer.send(text("hello"), closing(1000))
        assert peer.frames_to_the_end(answer_close=False)[0] == echoed("hello")


def test_frames_before_the_answer_are_not_lost_in_silence(server: EchoServer) -> None:
    """§4.1: a client must wait for the answer. One that does not is refused: the bytes are gone with the request."""
    status, answer = answer_to(server, request_of(GOOD) + text("too early"))
    assert status == 400
    assert answer["connection"] == "close"


def test_a_websocket_on_a_kept_connection(server: EchoServer) -> None:
    with Peer.dial(server) as peer:
        for _ in range(2):
            peer.send(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = peer.read_until(b"\r\n\r\n").decode().lower()
            peer.read_exactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
        peer.send(request_of(GOOD))
        assert peer.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        peer.send(text("hello"), closing(1000))
        assert [one[0] for one in peer.frames_to_the_end(answer_close=False)] == [1, CLOSE]


@pytest.mark.parametrize(
    "first", ["/nowhere", f"/v1/me/stream?token={make_token('alice')}"], ids=["short", "long"]
)
def test_a_request_whose_answer_is_to_come_keeps_its_connection(server: EchoServer, first: str) -> None:
    """A request and an upgrade in one segment: the answer would get into the frames, and two would own the connection."""
    with Peer.dial(server) as peer:
        peer.send(request_of([("Host", "localhost")], f"GET {first} HTTP/1.1") + request_of(GOOD))
        answer = b""
        while data := peer.socket.recv(65_536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b" 101 " not in answer
    server.until(lambda: len(server.edge) == 0 and not server.node.wires)


@pytest.mark.parametrize("again", [GOOD, [("Host", "localhost")]], ids=["an upgrade", "a request"])
def test_after_a_stream_began_its_connection_takes_no_requests(server: EchoServer, again: Headers) -> None:
    with Peer.dial(server) as peer:
        token = make_token("alice")
        peer.send(request_of([("Host", "localhost")], f"GET /v1/me/stream?token={token} HTTP/1.1"))
        peer.read_until(b"ready")
        peer.send(request_of(again))
        server.call(server.node.publish, "#alice", {"n": 1})
        peer.read_until(b'{"n":1}')
        assert b"HTTP/1.1" not in peer.buffer
        assert len(server.edge) == 1
    server.until(lambda: len(server.edge) == 0)
