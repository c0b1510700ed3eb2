"""RFC 6455 §7 on a real socket: the closing handshake, its codes and reasons, and connections that end without one."""

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.support.conversation import (
    Case,
    binary,
    check,
    closing,
    code_of,
    cont,
    echoed,
    ping,
    ponged,
    table,
    text,
)
from tests.support.echo_server import LOOPS, EchoServer, echo_server
from tests.support.peer import Peer
from tests.support.raw_client import CLOSE, frame

pytestmark = pytest.mark.req("R35")

ALLOWED = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
FORBIDDEN = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535)


@pytest.fixture(scope="module", params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    with echo_server(request.param) as server:
        yield server


# ---------------------------------------------------------------- the client closes


@table(
    [Case(f"{code}", [closing(code)], ends=code) for code in ALLOWED]
    + [Case(f"{code} with a reason", [closing(code, "tschüß".encode())], ends=code) for code in ALLOWED]
    + [Case(f"{code} is no code to send", [closing(code)], ends=1002) for code in FORBIDDEN]
    + [
        Case("without a code", [closing()], ends=1005),
        Case("half a code", [frame(CLOSE, b"\x03")], ends=1002),
        Case("the longest reason", [closing(1000, b"x" * 123)], ends=1000),
        Case("a longer one", [closing(1000, b"x" * 124)], ends=1002),
        Case("a reason that is not UTF-8", [closing(1000, b"\xff")], ends=1007),
        Case("a reason that is cut", [closing(1000, "ü".encode()[:1])], ends=1007),
        Case("a forbidden code and such a reason", [closing(1005, b"\xff")], ends=1007),
        Case("after a text", [text("a"), closing(1000)], [echoed("a")], 1000),
        Case("after a ping", [ping(b"x"), closing(1001)], [ponged(b"x")], 1001),
        Case("before the last fragment", [text("a", more=True), closing(1000)], ends=1000),
        Case("and then a text", [closing(1000), text("a")], ends=1000),
        Case("and then a ping", [closing(1000), ping()], ends=1000),
        Case("and then what breaks the rules", [closing(1000), b"\xff" * 100], ends=1000),
        Case("and then the rest of a message", [text("a", more=True), closing(1000), cont("b")], ends=1000),
        Case("twice", [closing(1000), closing(1001)], ends=1000),
        Case("after breaking the rules", [text("a", rsv=1), closing(1000)], ends=1002),
    ]
)
def test_the_client_closes(server: EchoServer, case: Case) -> None:
    check(server, case)


def test_a_large_answer_comes_before_the_end(server: EchoServer) -> None:
    large = [text(bytes([97 + n]) * 60_000) for n in range(10)]
    check(
        server, Case("", [*large, closing(4000)], [echoed(bytes([97 + n]) * 60_000) for n in range(10)], 4000)
    )


# ---------------------------------------------------------------- the server closes


def close_from_here(server: EchoServer, peer: Peer) -> None:
    server.call(peer.echo.close, 3001, "shutdown")


def test_the_server_closes_and_waits_for_the_answer(server: EchoServer) -> None:
    with Peer.connect(server) as peer:
        close_from_here(server, peer)
        opcode, payload = peer.frame()
        assert (opcode, payload) == (CLOSE, struct.pack("!H", 3001) + b"shutdown")
        assert len(server.edge) == 0, "nobody publishes to it any more …"
        assert peer.echo._transport is not None, "… but the connection lives until the client has closed, too"
        peer.answer_close(payload)
        assert peer.frames_to_the_end() == []


@pytest.mark.parametrize(
    "before",
    [
        [],
        [text("too late")],
        [ping(b"too late")],
        [text("too", more=True), ping(), cont(" late")],
        [binary(b"too late", more=True), cont("too")],
        [text("too", more=True)],
    ],
    ids=["nothing", "a text", "a ping", "fragments", "a binary", "half a message"],
)
def test_what_comes_between_both_close_frames_is_read_and_not_answered(
    server: EchoServer, before: list[bytes]
) -> None:
    for pieces in ([b"".join(before) + closing(3001)], [*before, closing(3001)]):
        with Peer.connect(server) as peer:
            close_from_here(server, peer)
            for piece in pieces:
                peer.send(piece)
            ((opcode, payload),) = peer.frames_to_the_end(answer_close=False)
            assert (opcode, code_of(payload)) == (CLOSE, 3001)


def test_both_close_at_once(server: EchoServer) -> None:
    with Peer.connect(server) as peer:
        peer.send(closing(1001))
        close_from_here(server, peer)
        ((opcode, payload),) = peer.frames_to_the_end(answer_close=False)
        assert (opcode, code_of(payload)) in ((CLOSE, 1001), (CLOSE, 3001)), (
            "one close frame, whoever was first"
        )


def test_a_close_frame_that_was_half_here_when_the_server_closed(server: EchoServer) -> None:
    with Peer.connect(server) as peer:
        whole = closing(1001, b"bye")
        peer.send_apart([whole[:5]])
        close_from_here(server, peer)
        peer.send(whole[5:])
        ((opcode, payload),) = peer.frames_to_the_end(answer_close=False)
        assert (opcode, code_of(payload)) == (CLOSE, 3001)


def test_closing_twice_sends_one_close_frame(server: EchoServer) -> None:
    with Peer.connect(server) as peer:
        close_from_here(server, peer)
        close_from_here(server, peer)
        assert len(peer.frames_to_the_end()) == 1


def test_a_client_that_never_answers_is_cut_off(server: EchoServer) -> None:
    with Peer.connect(server) as peer:
        close_from_here(server, peer)
        assert peer.frame()[0] == CLOSE
        server.call(peer.echo.on_time, server.edge.wheel.now())  # the deadline of the closing handshake
        with pytest.raises((EOFError, ConnectionError)):
            peer.frame()


# ---------------------------------------------------------------- no close frame


@pytest.mark.parametrize(
    "sent",
    [b"", b"\x81", text("a", more=True), text("hello")[:-1]],
    ids=["nothing", "half a head", "half a message", "half a frame"],
)
@pytest.mark.parametrize("how", ["ends", "half-closes", "resets"])
def test_a_connection_that_just_ends_is_over(server: EchoServer, sent: bytes, how: str) -> None:
    with Peer.connect(server) as peer:
        peer.send_apart([sent])
        if how == "half-closes":
            peer.socket.shutdown(socket.SHUT_WR)
            assert peer.frames_to_the_end() == []
        elif how == "resets":
            peer.reset()
        else:
            peer.socket.close()
        server.until(lambda: peer.echo._transport is None and peer.echo.left and len(server.edge) == 0)


@pytest.mark.parametrize(
    "good",
    [text("a"), ping(b"a"), text("a", more=True) + ping(b"a")],
    ids=["a text", "a ping", "half a text and a ping"],  # masks are random, and names must not be
)
def test_what_was_said_before_a_half_close_is_answered(server: EchoServer, good: bytes) -> None:
    with Peer.connect(server) as peer:
        with server.busy():  # so that it finds the bytes and the end of the stream together
            peer.send(good)
            peer.socket.shutdown(socket.SHUT_WR)
        assert [payload for _, payload in peer.frames_to_the_end()] == [b"a"]
