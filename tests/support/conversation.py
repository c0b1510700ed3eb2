"""Cases of a WebSocket conversation: what a client sends, what it must get, and how the connection ends.

`check` plays a case on a real socket in several cuts of the same bytes: all in one segment, frame by frame, and byte
by byte when that is short. The answers must be the same.
"""

import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.support.echo_server import EchoServer
from tests.support.peer import Peer, close_payload
from tests.support.raw_client import BINARY, CLOSE, CONT, PING, PONG, TEXT, frame

SHORT_BYTES = 700
NORMAL = frame(CLOSE, close_payload(1000))


def text(data: bytes | str, *, more: bool = False, rsv: int = 0, mask: bool = True) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return frame(TEXT, raw, fin=not more, rsv=rsv, mask=mask)


def cont(data: bytes | str, *, more: bool = False, rsv: int = 0) -> bytes:
    return frame(CONT, data.encode() if isinstance(data, str) else data, fin=not more, rsv=rsv)


def binary(data: bytes, *, more: bool = False) -> bytes:
    return frame(BINARY, data, fin=not more)


def ping(data: bytes = b"", *, more: bool = False, rsv: int = 0) -> bytes:
    return frame(PING, data, fin=not more, rsv=rsv)


def pong(data: bytes = b"", *, more: bool = False) -> bytes:
    return frame(PONG, data, fin=not more)


def closing(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else close_payload(code, reason))


def echoed(data: bytes | str) -> tuple[int, bytes]:
    return TEXT, data.encode() if isinstance(data, str) else data


def ponged(data: bytes = b"") -> tuple[int, bytes]:
    return PONG, data


@dataclass
class Case:
    """`ends` is the code of the server's close frame; None: nothing is wrong, so the client closes with 1000."""

    name: str
    sent: list[bytes]
    got: list[tuple[int, bytes]] = field(default_factory=list)
    ends: int | None = None


def table(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in cases])


def cuts(frames: list[bytes]) -> Iterator[list[bytes]]:
    """The same bytes in several cuts. What a client sends after its close frame comes with it, never apart: the
    server may have gone by then."""
    whole = b"".join(frames)
    last = next((i for i, one in enumerate(frames) if one[0] == 0x88), len(frames) - 1)
    before, after = frames[: last + 1], b"".join(frames[last + 1 :])
    yield [whole]
    if last:
        yield [*before[:-1], before[-1] + after]
    if len(whole) <= SHORT_BYTES:
        single = b"".join(before)
        yield [*(single[i : i + 1] for i in range(len(single) - 1)), single[-1:] + after]


def check(server: EchoServer, case: Case, tls: ssl.SSLContext | None = None) -> None:
    sent = case.sent if case.ends is not None else [*case.sent, NORMAL]
    has_closed = any(one[0] == 0x88 for one in sent)
    for pieces in cuts(sent):
        with Peer.connect(server, tls=tls) as peer:
            all_sent = peer.send_apart(pieces)
            closes = not (has_closed and all_sent)
            *answers, (opcode, payload) = peer.frames_to_the_end(answer_close=closes)
        assert answers == case.got
        assert opcode == CLOSE
        assert code_of(payload) == (case.ends or 1000)
        server.until(lambda: not len(server.edge))


def code_of(payload: bytes) -> int:
    """The code of a close frame, 1005 for none. Its reason must be text, and some codes are never sent (§7.4.1)."""
    if not payload:
        return 1005
    payload[2:].decode()
    code = int(struct.unpack("!H", payload[:2])[0])
    if code in (1004, 1005, 1006, 1015):
        raise AssertionError(f"{code} is not to be sent")
    return code
