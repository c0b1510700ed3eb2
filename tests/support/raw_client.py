"""Clients that speak bytes: a WebSocket one that may break every rule, and one that reads server-sent events."""

import asyncio
import base64
import json
import os
import struct
from typing import Any, Self

TEXT, BINARY, CLOSE, PING, PONG, CONT = 0x1, 0x2, 0x8, 0x9, 0xA, 0x0


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, mask: bool = True, rsv: int = 0) -> bytes:
    head = bytes([(0x80 if fin else 0) | (rsv << 4) | opcode])
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += bytes([bit | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", len(payload))
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


class RawWebSocket:
    """A client without manners."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> None:
        self.reader = reader
        self.writer = writer
        self.head = head
        self.lines: list[dict[str, Any]] = []
        self.number = 0

    @classmethod
    async def connect(cls, port: int, path: str = "/connection/websocket", **headers: str) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        given = {
            "Host": f"127.0.0.1:{port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items() if value)]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
        return cls(reader, writer, head)

    @property
    def status(self) -> int:
        return int(self.head.split(" ", 2)[1])

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    def say(self, *commands: dict[str, Any] | str) -> None:
        """Commands in one text frame."""
        lines = [one if isinstance(one, str) else json.dumps(one) for one in commands]
        self.send(frame(TEXT, "\n".join(lines).encode()))

    async def frame(self, seconds: float = 5) -> tuple[int, bytes]:
        async with asyncio.timeout(seconds):
            first, second = await self.reader.readexactly(2)
            assert first & 0xF0 == 0x80, "servers send whole frames without reserved bits"
            length = second
            if length == 126:
                (length,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(length)

    async def reply(self, seconds: float = 5) -> dict[str, Any]:
        """The next line of the protocol; pings included."""
        while not self.lines:
            opcode, payload = await self.frame(seconds)
            assert opcode == TEXT, (opcode, payload)
            self.lines = [json.loads(line) for line in payload.decode().split("\n")]
        return self.lines.pop(0)

    async def call(self, **command: Any) -> dict[str, Any]:
        """One command and the next line, which must be its reply."""
        self.number += 1
        self.say({"id": self.number, **command})
        reply = await self.reply()
        assert reply["id"] == self.number, reply
        return reply

    async def login(self, token: str, **request: Any) -> dict[str, Any]:
        result = (await self.call(connect={"token": token, **request}))["connect"]
        assert isinstance(result, dict)
        return result

    async def closed(self, seconds: float = 5) -> tuple[int, str]:
        """Read until the close frame; its code and reason. 1006: the connection ended without one."""
        try:
            while True:
                opcode, payload = await self.frame(seconds)
                if opcode == CLOSE:
                    code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                    return code, payload[2:].decode()
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1006, ""

    async def ended(self, seconds: float = 5) -> bool:
        """Whether the server ends the TCP connection."""
        async with asyncio.timeout(seconds):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionError:
                pass
            return True

    def abort(self) -> None:
        self.writer.transport.abort()


class RawStream:
    """Reads one EventSource response."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_over = False
        self.cursor = ""

    @classmethod
    async def open(
        cls, port: int, path: str = "/v1/me/stream", method: str = "GET", version: str = "1.1", **headers: str
    ) -> Self:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        given = {"Host": f"127.0.0.1:{port}"} | {n.replace("_", "-"): value for n, value in headers.items()}
        lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in given.items())]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        stream = cls(reader, writer)
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
        first, *rest = head.strip().split("\r\n")
        stream.status = int(first.split(" ")[1])
        stream.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in rest)}
        return stream

    async def _more(self) -> bool:
        if self.headers.get("transfer-encoding") == "chunked":
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
            self.body += data[:-2]
            return size > 0
        data = await self.reader.read(65536)
        self.body += data
        return bool(data)

    async def block(self, seconds: float = 5) -> str:
        """The next block (an event or comment) as text; "" at the end."""
        async with asyncio.timeout(seconds):
            while b"\n\n" not in self.body:
                try:
                    if not await self._more():
                        self.is_over = True
                        return ""
                except (asyncio.IncompleteReadError, ConnectionError):
                    return ""
            block, _, self.body = self.body.partition(b"\n\n")
            return block.decode()

    async def event(self, seconds: float = 5) -> tuple[str, Any, str]:
        """The next event: kind, data, id. Comments are skipped; ("", None, "") at the end."""
        while True:
            block = await self.block(seconds)
            if not block:
                return "", None, ""
            fields: dict[str, list[str]] = {}
            for line in block.split("\n"):
                name, _, value = line.partition(":")
                fields.setdefault(name, []).append(value.removeprefix(" "))
            if "data" in fields:
                data = json.loads("\n".join(fields["data"]))
                return fields.get("event", ["message"])[0], data, fields.get("id", [""])[0]

    def abort(self) -> None:
        self.writer.transport.abort()
