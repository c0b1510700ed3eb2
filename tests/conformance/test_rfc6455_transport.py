"""The hub's WebSocket stack when the network is unkind: tiny buffers, half-closed sockets, resets, TLS.

What was begun on the wire is never torn or overtaken: a client gets whole frames in order, as far as it gets any.
"""

import asyncio
import json
import struct
from collections.abc import Callable, Iterator
from http.client import HTTPResponse, HTTPSConnection
from socket import SHUT_WR

import pytest

from hub.live.limits import Limits
from hub.live.rfc6455 import text_frame
from hub.live.seam import Frame, Parcel
from tests.support.certificate import Certificate, self_signed
from tests.support.conversation import Case, check, closing, code_of, echoed, ping, ponged, table, text
from tests.support.echo_server import LOOPS, EchoConnection, EchoServer, echo_server, waiting_bytes
from tests.support.live_node import make_token
from tests.support.peer import Peer
from tests.support.raw_client import CLOSE, PING, TEXT, frame

TINY = 4_096  # the kernel doubles it, and takes no less
WRITE_BUFFER = 32_768
SIZES = [0, 1, 125, 126, 5_000, 65_535, 65_536, 70_000]
pytestmark = pytest.mark.req("I14")


@pytest.fixture(scope="module", params=LOOPS)
def narrow(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    """A server whose kernel takes little for a peer that does not read."""
    limits = Limits(
        connect_seconds=600, linger_seconds=600, queue_bytes=2_000_000, write_buffer_bytes=WRITE_BUFFER
    )
    with echo_server(request.param, limits, send_buffer_bytes=TINY) as server:
        yield server


def slow_peer(server: EchoServer) -> Peer:
    return Peer.connect(server, receive_buffer_bytes=TINY)


def backlog(server: EchoServer, peer: Peer) -> list[tuple[int, bytes]]:
    """Send more than the kernel, the transport and its limits take, in several turns of the loop."""
    sent = [bytes([97 + n % 26]) * size for n, size in enumerate(SIZES * 3)]
    for one in sent:
        server.call(peer.echo.send, text_frame(one))
    server.until(lambda: peer.echo._paused)
    assert server.call(waiting_bytes, peer.echo) > WRITE_BUFFER
    return [echoed(one) for one in sent]


# ---------------------------------------------------------------- partial writes


def test_a_slow_reader_gets_whole_frames_in_order(narrow: EchoServer) -> None:
    with slow_peer(narrow) as peer:
        transport = peer.echo._transport
        assert transport is not None
        assert transport.get_write_buffer_limits()[1] == WRITE_BUFFER
        sent = backlog(narrow, peer)
        assert [peer.frame() for _ in sent] == sent
        assert server_is_idle(narrow, peer.echo)
        peer.send(text("awake"), closing(1000))
        assert peer.frames_to_the_end(answer_close=False)[0] == echoed("awake")


def test_a_reader_of_single_bytes_gets_them_too(narrow: EchoServer) -> None:
    with slow_peer(narrow) as peer:
        peer.read_bytes = 1
        narrow.call(peer.echo.send, text_frame(b"x" * 20_000))
        narrow.call(peer.echo.send, text_frame(b"end"))
        assert [peer.frame(), peer.frame()] == [echoed(b"x" * 20_000), echoed("end")]


def test_a_reader_that_is_too_slow_never_costs_more_than_the_limits(narrow: EchoServer) -> None:
    """It reads now and then, so that the transport takes more now and then: the queue must not fill up behind itself."""
    limits = narrow.edge.limits
    most = 0
    with slow_peer(narrow) as peer:
        for number in range(500):
            narrow.call(peer.echo.send, text_frame(b"x" * 30_000))
            most = max(most, narrow.call(waiting_bytes, peer.echo))
            if peer.echo.left:
                break
            if number % 3 == 0:
                assert peer.frame()[0] == TEXT
        assert peer.echo.left
        assert limits.queue_bytes / 2 < most <= limits.queue_bytes + 2 * (limits.write_buffer_bytes + 30_010)


def server_is_idle(server: EchoServer, echo: EchoConnection) -> bool:
    server.until(lambda: waiting_bytes(echo) == 0)
    return not echo._paused and echo._reader is None


def publication(number: int) -> Frame:
    return Frame("broadcasts", "epoch", number, "notification", b'{"n":%d}' % number)


def push_one(echo: EchoConnection, number: int) -> None:
    echo.push(publication(number))


def push_joined(echo: EchoConnection, number: int) -> None:
    echo.push_parcel(Parcel([publication(number)]))


@pytest.mark.parametrize("push", [push_one, push_joined], ids=["one", "joined"])
@pytest.mark.parametrize("before", [0, 30_000], ids=["nothing waits", "the transport holds output"])
def test_what_was_queued_first_is_written_first(
    narrow: EchoServer, push: Callable[[EchoConnection, int], None], before: int
) -> None:
    """Pongs and echoes are queued for the end of the turn; a publication that is written at once must not pass them."""
    with slow_peer(narrow) as peer:
        echo = peer.echo
        if before:
            narrow.call(echo.send, text_frame(b"x" * before))
            assert narrow.call(waiting_bytes, echo) > 0
            assert not echo._paused

        def turn() -> None:
            echo.data_received(ping(b"1"))
            push(echo, 1)
            echo.data_received(text("2") + ping(b"3"))
            push(echo, 2)
            push(echo, 3)
            echo.data_received(ping(b"4"))

        narrow.call(turn)
        if before:
            assert peer.frame() == echoed(b"x" * before)
        found = [peer.frame() for _ in range(7)]
        told = [json.loads(raw)["push"]["pub"]["offset"] if b"push" in raw else raw for _, raw in found]
        assert told == [b"1", 1, b"2", b"3", 2, 3, b"4"]


def test_a_peer_that_does_not_read_gets_no_pongs_piled_up(narrow: EchoServer) -> None:
    with slow_peer(narrow) as peer:
        sent = backlog(narrow, peer)
        waiting = narrow.call(waiting_bytes, peer.echo)
        peer.send_apart([ping(b"x" * 125) * 100])
        assert narrow.call(waiting_bytes, peer.echo) <= waiting
        assert [peer.frame() for _ in sent] == sent
        assert server_is_idle(narrow, peer.echo)
        peer.send(ping(b"awake"))
        assert peer.frame() == ponged(b"awake")


def test_the_close_frame_comes_after_what_was_begun(narrow: EchoServer) -> None:
    with slow_peer(narrow) as peer:
        sent = backlog(narrow, peer)
        narrow.call(peer.echo.close, 3001, "shutdown")
        *found, (opcode, payload) = peer.frames_to_the_end()
        assert found == sent[: len(found)]
        assert (opcode, code_of(payload)) == (CLOSE, 3001)


def test_a_peer_that_closes_first_reads_the_answer_behind_the_backlog(narrow: EchoServer) -> None:
    with slow_peer(narrow) as peer:
        sent = backlog(narrow, peer)
        peer.send(closing(1001))
        narrow.until(lambda: peer.echo.left)
        *found, (opcode, payload) = peer.frames_to_the_end(answer_close=False)
        assert found == sent[: len(found)]
        assert (opcode, code_of(payload)) == (CLOSE, 1001)


def test_a_peer_that_breaks_the_rules_reads_the_code_behind_the_backlog(narrow: EchoServer) -> None:
    with slow_peer(narrow) as peer:
        sent = backlog(narrow, peer)
        peer.send(frame(TEXT, b"unmasked", mask=False) + b"\x00" * 10_000)
        narrow.until(lambda: peer.echo.left)
        *found, (opcode, payload) = peer.frames_to_the_end()
        assert found == sent[: len(found)]
        assert (opcode, code_of(payload)) == (CLOSE, 1002)


# ---------------------------------------------------------------- half-closed and reset


def test_a_half_closed_peer_reads_whole_frames_and_then_the_end(narrow: EchoServer) -> None:
    with slow_peer(narrow) as peer:
        sent = backlog(narrow, peer)
        peer.socket.shutdown(SHUT_WR)
        found = peer.frames_to_the_end()
        assert found
        assert found == sent[: len(found)]
        narrow.until(lambda: peer.echo.left and len(narrow.edge) == 0)


def test_a_half_closed_peer_that_does_not_read_costs_bounded_memory(narrow: EchoServer) -> None:
    with slow_peer(narrow) as peer:
        backlog(narrow, peer)
        peer.socket.shutdown(SHUT_WR)
        most = 0
        for _ in range(60):
            narrow.call(peer.echo.send, text_frame(b"x" * 60_000))
            most = max(most, narrow.call(waiting_bytes, peer.echo))
        limits = narrow.edge.limits
        assert most <= limits.queue_bytes + 2 * (limits.write_buffer_bytes + 70_010)


@pytest.mark.parametrize("when", ["in the middle of its frame", "with output waiting", "while it closes"])
def test_a_peer_that_resets_harms_nobody(narrow: EchoServer, when: str) -> None:
    with Peer.connect(narrow) as other, slow_peer(narrow) as peer:
        match when:
            case "in the middle of its frame":
                peer.send_apart([text("hello")[:-2]])
            case "with output waiting":
                backlog(narrow, peer)
            case _:
                backlog(narrow, peer)
                narrow.call(peer.echo.close, 3001, "shutdown")
        peer.reset()
        for number in range(20):  # publications go on until the reset is noticed, and after it
            narrow.call(push_one, peer.echo, number)
        narrow.until(lambda: peer.echo._transport is None and peer.echo.left)
        narrow.call(push_one, peer.echo, 1)
        assert narrow.call(waiting_bytes, peer.echo) == 0
        other.send(text("still here"))
        assert other.frame() == echoed("still here")


def test_a_transport_that_fails_takes_nobody_elses_turn(narrow: EchoServer) -> None:
    """Output of one turn of the loop is written together; what goes wrong with one must not stop those behind it."""
    with Peer.connect(narrow) as bad, Peer.connect(narrow) as good:
        transport = bad.echo._transport
        assert transport is not None

        def turn() -> None:
            bad.echo.send(text_frame(b"never seen"))
            good.echo.send(text_frame(b"one"))
            # uvloop's transports raise when they are closed; the connection does not know it yet.
            bad.echo._transport = BrokenTransport(transport)

        narrow.call(turn)
        assert good.frame() == echoed("one")
        good.send(text("two"))
        assert good.frame() == echoed("two")
        narrow.until(lambda: bad.echo._transport is None and bad.echo.left)
        assert len(narrow.errors) == 1
        assert "failed while it was written to" in narrow.errors.pop()


class BrokenTransport(asyncio.Transport):
    """Raises when it is written to."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self.transport = transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        raise RuntimeError("the handler is closed")

    def abort(self) -> None:
        self.transport.abort()


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return self_signed(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module", params=LOOPS)
def secure(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[EchoServer]:
    with echo_server(request.param, certificate=certificate, send_buffer_bytes=TINY) as server:
        yield server


@table(
    [
        *[Case(f"{n} bytes", [text(b"*" * n)], [echoed(b"*" * n)]) for n in (0, 125, 126, 65_535, 65_536)],
        Case("a ping", [ping(b"hello")], [ponged(b"hello")]),
        Case("many", [text("a")] * 100, [echoed("a")] * 100),
        Case("the client closes", [text("a"), closing(4000)], [echoed("a")], 4000),
    ]
)
def test_the_same_over_tls(secure: EchoServer, certificate: Certificate, case: Case) -> None:
    check(secure, case, tls=certificate.client_context())


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(frame(PING, b"x", mask=False), 1002, id="no mask"),
        pytest.param(text(b"\xff"), 1007, id="not UTF-8"),
        pytest.param(text(b"x" * 500_000), 1009, id="too big"),
    ],
)
def test_breaking_the_rules_over_tls(
    secure: EchoServer, certificate: Certificate, wire: bytes, code: int
) -> None:
    """TLS cannot be closed in one direction: the code is read, and the deadline of the closing handshake is the end."""
    with Peer.connect(secure, tls=certificate.client_context()) as peer:
        peer.send(text("good") + wire)
        assert peer.frame() == echoed("good")
        opcode, payload = peer.frame()
        assert (opcode, code_of(payload)) == (CLOSE, code)
        peer.answer_close(payload)
        secure.call(peer.echo.on_time, secure.edge.wheel.now())
        with pytest.raises((EOFError, OSError)):
            peer.frame()


def test_a_slow_reader_over_tls_gets_everything_in_order(
    secure: EchoServer, certificate: Certificate
) -> None:
    with Peer.connect(secure, receive_buffer_bytes=TINY, tls=certificate.client_context()) as peer:
        sent = [text_frame(bytes([97 + n % 26]) * 40_000) for n in range(20)]
        for one in sent:
            secure.call(peer.echo.send, one)
        secure.until(lambda: peer.echo._paused)
        assert b"".join(sent) == peer.read_exactly(sum(map(len, sent)))
        secure.until(lambda: not peer.echo._paused)
        peer.send(ping(b"awake"))
        assert peer.frame() == ponged(b"awake")


def test_large_broadcasts_over_tls_reach_websockets_and_streams(
    secure: EchoServer, certificate: Certificate
) -> None:
    context = certificate.client_context()
    with Peer.connect(secure, "/connection/websocket", tls=context) as peer:
        peer.send(text(json.dumps({"id": 1, "connect": {"token": make_token("alice")}})))
        assert "connect" in json.loads(peer.frame()[1])
        stream = HTTPSConnection("localhost", secure.port, timeout=5, context=context)
        stream.request("GET", "/v1/me/stream", headers={"Authorization": f"Bearer {make_token('bob')}"})
        response = stream.getresponse()
        for number in range(8):
            data = {"n": number, "text": "ü" * 100_000}
            secure.call(secure.node.publish, "broadcasts", data)
            assert json.loads(peer.frame()[1])["push"]["pub"]["data"] == data
            assert next_event(response) == data
        response.close()
        stream.close()
        peer.send(closing(1000))
        assert peer.frames_to_the_end(answer_close=False) == [(CLOSE, struct.pack("!H", 1000))]


def next_event(response: HTTPResponse) -> object:
    """The data of the next notification."""
    kind = b""
    while True:
        line = response.readline().rstrip(b"\n")
        name, _, value = line.partition(b": ")
        if name == b"event":
            kind = value
        elif name == b"data" and kind == b"notification":
            return json.loads(value)
