"""The hub's frame reader and its whole WebSocket stack beside the `websockets` library, on random conversations.

Legal ones, cut anywhere, come back as an echo that the library's client accepts. Damaged ones never raise and end in a
code that RFC 6455 §7.4.1 allows; what the library's server refuses is refused here, and nothing else without a reason.
"""

import codecs
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode, Opcode
from websockets.frames import Frame as LibraryFrame
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.sync.client import connect
from websockets.uri import parse_uri

from hub.live.rfc6455 import Binary, Closing, FrameReader, Ping, Text, Violation
from tests.support.echo_server import LOOPS, EchoServer, echo_server
from tests.support.peer import Peer
from tests.support.raw_client import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame

pytestmark = pytest.mark.req("R35")
LIMIT = 65_536
ON_A_SOCKET = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SENT_BY_THE_HUB = {
    CloseCode.PROTOCOL_ERROR,
    CloseCode.UNSUPPORTED_DATA,
    CloseCode.INVALID_DATA,
    CloseCode.MESSAGE_TOO_BIG,
}
REFUSED_HERE_ALONE = {
    "invalid length",
    "message too big",
}  # lengths not in their shortest form, messages in fragments


@pytest.fixture(scope="module", params=LOOPS)
def server(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    with echo_server(request.param) as server:
        yield server


# ---------------------------------------------------------------- conversations


@dataclass
class Answers:
    """What a client gets: frames, and the code of the close frame (None: none came)."""

    frames: list[tuple[int, bytes]] = field(default_factory=list)
    code: int | None = None
    reason: str = ""


CONTROL = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
TEXTS = st.one_of(
    st.text(max_size=40), st.text(min_size=100, max_size=140), st.integers(0, 3_000).map(lambda n: "ü" * n)
)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[bytes], Answers]:
    """Legal frames of a client, and what it must get."""
    frames: list[bytes] = []
    answers = Answers()

    def control() -> None:
        for opcode, payload in draw(st.lists(CONTROL, max_size=2)):
            frames.append(frame(opcode, payload))
            if opcode == PING:
                answers.frames.append((PONG, payload))

    for message in draw(st.lists(TEXTS, max_size=5)):
        raw = message.encode()
        at = [0, *sorted(draw(st.lists(st.integers(0, len(raw)), max_size=3))), len(raw)]
        parts = [raw[a:b] for a, b in pairwise(at)]
        for number, part in enumerate(parts):
            control()
            frames.append(frame(CONT if number else TEXT, part, fin=number == len(parts) - 1))
        answers.frames.append((TEXT, raw))
    control()
    code = draw(st.sampled_from([1000, 1001, 1011, 3000, 4999, 1005]))
    reason = draw(st.text(max_size=40)).encode()[:100].decode(errors="ignore").encode()
    frames.append(frame(CLOSE, b"" if code == 1005 else struct.pack("!H", code) + reason))
    answers.code = code
    return frames, answers


@st.composite
def cut(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    """The same bytes in a few segments."""
    at = [0, *sorted(draw(st.lists(st.integers(0, len(whole)), max_size=6))), len(whole)]
    return [whole[a:b] for a, b in pairwise(at)]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A legal conversation in which bytes changed, came or went; or just bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    frames, _ = draw(conversations())
    if draw(st.booleans()):
        frames = draw(st.permutations(frames))
    if draw(st.booleans()):
        frames.insert(
            0, frame(draw(st.sampled_from([TEXT, BINARY, CONT, 3, 11])), draw(st.binary(max_size=20)))
        )
    wire = bytearray(b"".join(frames))
    for _ in range(draw(st.integers(0, 4))):
        # Heads are where it matters: most frames are short, so that low places are mostly heads.
        at = draw(st.integers(0, min(len(wire), draw(st.sampled_from([6, 60, 70_000])))))
        match draw(st.sampled_from(["flip", "insert", "delete"])):
            case "flip" if at < len(wire):
                wire[at] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                wire[at:at] = draw(st.binary(min_size=1, max_size=5))
            case _:
                del wire[at : at + draw(st.integers(1, 5))]
    return bytes(wire)


# ---------------------------------------------------------------- what is expected


def by_our_reader(pieces: list[bytes]) -> Answers:
    """What the echo route makes of the reader's events."""
    answers = Answers()
    reader = FrameReader(LIMIT)
    try:
        for piece in pieces:
            for event in reader.read(piece):
                match event:
                    case Text(text):
                        answers.frames.append((TEXT, text.encode()))
                    case Ping(payload):
                        answers.frames.append((PONG, payload))
                    case Binary():
                        answers.code = 1003
                        return answers
                    case Closing(code, _):
                        answers.code = code
                        return answers
    except Violation as violation:
        answers.code, answers.reason = violation.code, violation.reason
    return answers


def by_the_library(wire: bytes) -> Answers:
    """What an echo on the library's server would answer. It checks no texts; that is done here, fragment by fragment."""
    answers = Answers()
    protocol = ServerProtocol(state=State.OPEN, max_size=LIMIT)
    protocol.receive_data(wire)
    decoder = codecs.getincrementaldecoder("utf-8")()
    parts: list[str] = []
    for event in protocol.events_received():
        assert isinstance(event, LibraryFrame)
        match event.opcode:
            case Opcode.BINARY:
                answers.code = 1003
                return answers
            case Opcode.PING:
                answers.frames.append((PONG, bytes(event.data)))
            case Opcode.TEXT | Opcode.CONT:
                try:
                    parts.append(decoder.decode(bytes(event.data), event.fin))
                except UnicodeDecodeError:
                    answers.code = 1007
                    return answers
                if event.fin:
                    answers.frames.append((TEXT, "".join(parts).encode()))
                    parts.clear()
    if protocol.close_rcvd is not None:
        answers.code = int(protocol.close_rcvd.code)
    elif protocol.parser_exc is not None:
        assert protocol.close_sent is not None
        answers.code = int(protocol.close_sent.code)
    return answers


def on_the_wire(server: EchoServer, pieces: list[bytes]) -> Answers:
    """What really comes back, as the library's client reads it. The client says nothing more after these bytes."""
    client = ClientProtocol(parse_uri("ws://localhost"), state=State.OPEN, max_size=None)
    with Peer.connect(server) as peer:
        peer.send_apart(pieces)
        peer.stop_sending()
        while data := peer.socket.recv(65_536):
            client.receive_data(data)
            client.data_to_send()
    client.receive_eof()
    assert client.parser_exc is None or isinstance(client.parser_exc, EOFError), client.parser_exc
    answers = Answers()
    for event in client.events_received():
        assert isinstance(event, LibraryFrame)
        assert event.fin
        if event.opcode is Opcode.CLOSE:
            assert client.close_rcvd is not None
            answers.code, answers.reason = int(client.close_rcvd.code), client.close_rcvd.reason
        else:
            answers.frames.append((int(event.opcode), bytes(event.data)))
    return answers


# ---------------------------------------------------------------- properties


@given(conversations(), st.data())
def test_the_reader_understands_every_legal_conversation(
    conversation: tuple[list[bytes], Answers], data: st.DataObject
) -> None:
    frames, expected = conversation
    wire = b"".join(frames)
    assert by_our_reader(data.draw(cut(wire))) == expected
    assert by_the_library(wire) == expected


@ON_A_SOCKET
@given(conversation=conversations(), data=st.data())
def test_every_legal_conversation_is_echoed(
    server: EchoServer, conversation: tuple[list[bytes], Answers], data: st.DataObject
) -> None:
    frames, expected = conversation
    assert on_the_wire(server, data.draw(cut(b"".join(frames)))) == expected


@settings(max_examples=200, deadline=None)
@given(damaged(), st.data())
def test_the_reader_refuses_what_the_library_refuses(wire: bytes, data: st.DataObject) -> None:
    ours, theirs = by_our_reader(data.draw(cut(wire))), by_the_library(wire)
    if ours.code == theirs.code:
        assert ours.frames == theirs.frames
        return
    # The reader may have stopped earlier, never later.
    assert ours.code in (1002, 1007, 1009)
    assert ours.frames == theirs.frames[: len(ours.frames)]
    if theirs.code is None and ours.reason not in REFUSED_HERE_ALONE:
        # The library waits for the rest of a frame whose head is bad already.
        assert by_the_library(wire + bytes(LIMIT + 200)).code in (1002, 1009)
    elif theirs.code is not None and ours.reason not in REFUSED_HERE_ALONE:
        assert (ours.code, theirs.code) == (1002, 1009), "a bad head is worse than a long payload"


@ON_A_SOCKET
@given(wire=damaged(), data=st.data())
def test_damaged_bytes_end_in_a_code_that_is_allowed(
    server: EchoServer, wire: bytes, data: st.DataObject
) -> None:
    pieces = data.draw(cut(wire))
    expected = by_our_reader(pieces)
    while len(pieces) > 1 and by_our_reader(pieces[:-1]).code is not None:
        pieces[-2:] = [
            b"".join(pieces[-2:])
        ]  # what comes after the end comes with it: the server may be gone by then
    found = on_the_wire(server, pieces)
    assert (found.frames, found.code) == (expected.frames, expected.code)
    is_of_the_client = any(isinstance(event, Closing) for event in events_until_violation(pieces))
    assert is_of_the_client or found.code is None or found.code in SENT_BY_THE_HUB


def events_until_violation(pieces: list[bytes]) -> Iterator[object]:
    reader = FrameReader(LIMIT)
    try:
        for piece in pieces:
            yield from reader.read(piece)
    except Violation:
        return


# ---------------------------------------------------------------- the library's own client


def test_the_library_talks_to_the_hub(server: EchoServer) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/echo", compression=None, max_size=None) as client:
        for size in (0, 1, 125, 126, 65_535, LIMIT):
            client.send("x" * size)
            assert client.recv(timeout=5) == "x" * size
        client.send(iter(["frag", "men", "", "ts"]))
        assert client.recv(timeout=5) == "fragments"
        assert client.ping(b"hello").wait(5)
        assert client.protocol.extensions == []
        client.send("x" * (LIMIT + 1))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=5)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


def test_the_library_closes_and_is_answered(server: EchoServer) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/echo", compression=None) as client:
        client.close(4321, "tschüß")
    assert client.protocol.close_rcvd is not None
    assert client.protocol.close_rcvd.code == 4321
    assert not client.protocol.close_rcvd_then_sent
