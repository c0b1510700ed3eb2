"""A WebSocket client that is only a blocking socket: it sends bytes as a test cuts them, and reads frames to the end."""

import base64
import os
import socket
import ssl
import struct
import time
from collections.abc import Iterable
from typing import Self

from tests.support.echo_server import EchoConnection, EchoServer
from tests.support.raw_client import CLOSE, frame

PATIENCE_SECONDS = 3


def answer(opcode: int, payload: bytes = b"") -> bytes:
    """A frame as a server sends it."""
    return frame(opcode, payload, mask=False)


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


class Peer:
    """One connection to the echo route (or another one)."""

    def __init__(self, server: EchoServer, connection: socket.socket) -> None:
        self.server = server
        self.socket = connection
        self.buffer = b""
        self.read_bytes = 65_536  # at once
        self.echo: EchoConnection

    @classmethod
    def connect(
        cls,
        server: EchoServer,
        path: str = "/echo",
        *,
        receive_buffer_bytes: int | None = None,
        tls: ssl.SSLContext | None = None,
        early: bytes = b"",
    ) -> Self:
        """A WebSocket after the handshake; `early` bytes follow the request at once, before its answer."""
        peer = cls.dial(server, receive_buffer_bytes=receive_buffer_bytes, tls=tls)
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET {path} HTTP/1.1\r\nHost: localhost:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        peer.socket.sendall(request.encode() + early)
        head = peer.read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        if path == "/echo":
            local = peer.socket.getsockname()
            server.until(lambda: local in server.connections)
            peer.echo = server.connections[local]
        return peer

    @classmethod
    def dial(
        cls,
        server: EchoServer,
        *,
        receive_buffer_bytes: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """A bare connection."""
        raw = socket.socket()
        if receive_buffer_bytes is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        raw.settimeout(PATIENCE_SECONDS)
        raw.connect(("127.0.0.1", server.port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(server, raw if tls is None else tls.wrap_socket(raw, server_hostname="localhost"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # ------------------------------------------------------------ out

    def send(self, *pieces: bytes) -> None:
        """All in one segment, if it fits one."""
        self.socket.sendall(b"".join(pieces))

    def send_apart(self, pieces: Iterable[bytes]) -> bool:
        """Each piece when the server has read the one before. Stops, with False, when the server has closed."""
        expected = self.echo.received
        for piece in pieces:
            if self.echo.left:
                return False
            try:
                self.socket.sendall(piece)
            except ConnectionError:
                return False
            expected += len(piece)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while self.echo.received < expected and not self.echo.left:
                assert time.monotonic() < deadline, "the server does not read"
                time.sleep(0)
        return True

    def stop_sending(self) -> None:
        """Close one direction, unless the server has ended both."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def reset(self) -> None:
        """End the connection so that the server gets a reset, whatever was read."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # ------------------------------------------------------------ in

    def _more(self) -> bool:
        data = self.socket.recv(self.read_bytes)
        self.buffer += data
        return bool(data)

    def read_until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            assert self._more(), self.buffer
        head, _, self.buffer = self.buffer.partition(end)
        return head + end

    def read_exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self._more():
                raise EOFError
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def frame(self) -> tuple[int, bytes]:
        """One frame; EOFError at the end. Servers send whole frames, unmasked, lengths in their shortest form."""
        first, second = self.read_exactly(2)
        assert first & 0xF0 == 0x80, f"fragmented, or with reserved bits: {first:#x}"
        assert second < 128, "masked"
        length = second
        if second == 126:
            (length,) = struct.unpack("!H", self.read_exactly(2))
            assert length > 125
        elif second == 127:
            (length,) = struct.unpack("!Q", self.read_exactly(8))
            assert length > 65_535
        payload = self.read_exactly(length)
        assert first & 0x0F < 8 or length <= 125
        return first & 0x0F, payload

    def frames_to_the_end(self, *, answer_close: bool = True) -> list[tuple[int, bytes]]:
        """Read until the server ends the connection; a client that has not closed answers the close frame."""
        found: list[tuple[int, bytes]] = []
        try:
            while True:
                found.append(self.frame())
                if found[-1][0] == CLOSE and answer_close:
                    self.answer_close(found[-1][1])
        except EOFError:
            if self.buffer:
                raise AssertionError(f"half a frame at the end: {self.buffer!r}") from None
            return found

    def answer_close(self, payload: bytes) -> None:
        try:
            self.socket.sendall(frame(CLOSE, payload[:2]))
        except OSError:
            pass  # the server has gone already
