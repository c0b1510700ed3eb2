"""WebSocket frames: bytes to checked messages, and messages to bytes (RFC 6455, server side, no extensions).

Sans-I/O. A reader lives only while a frame or message is incomplete, and holds at most one message and one frame. What
cannot become good is refused as soon as that can be seen: a bad head before its payload, a bad text with the fragment
that spoils it. A peer that breaks the rules raises `Violation` with the code to close with.
"""

from codecs import getincrementaldecoder
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from websockets.exceptions import ProtocolError
from websockets.frames import Close

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel for this machine: slower, and the same
    from websockets.utils import apply_mask

MAX_FRAGMENTS: Final = 1_024
_FIN: Final = 0x80
_CONT: Final = 0x0
_CLOSE: Final = 0x8  # it and the opcodes above are control frames
_OPCODES: Final = frozenset((0x0, 0x1, 0x2, 0x8, 0x9, 0xA))
_Utf8: Final = getincrementaldecoder("utf-8")
_FIN_TEXT, _FIN_CLOSE, _FIN_PING, _FIN_PONG = b"\x81", b"\x88", b"\x89", b"\x8a"


class Violation(Exception):
    """The peer broke the protocol: close with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Text:
    """A whole text message."""

    text: str


@dataclass(frozen=True, slots=True)
class Binary:
    """A binary message began."""


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping frame; its payload goes back."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """A pong frame."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The peer's close frame; code 1005: it gave none."""

    code: int
    reason: str


Event = Text | Binary | Ping | Pong | Closing


class _Message:
    """A message in fragments. Of a binary one, which was refused at its start, only the size is kept."""

    __slots__ = ("_decoder", "_parts", "fragments", "size")

    def __init__(self, is_text: bool) -> None:
        self._decoder = _Utf8() if is_text else None
        self._parts: list[str] = []
        self.fragments = 0
        self.size = 0

    def add(self, payload: bytes, is_last: bool) -> None:
        """Take one fragment. Raises `Violation` when no text can come of it."""
        self.fragments += 1
        self.size += len(payload)
        if self._decoder is not None:
            try:
                self._parts.append(self._decoder.decode(payload, is_last))
            except UnicodeDecodeError:
                raise Violation(1007, "invalid UTF-8") from None

    def whole(self) -> Text | None:
        """The text; None for a binary message."""
        return None if self._decoder is None else Text("".join(self._parts))


class FrameReader:
    """Reads the frames of one client. Give it what arrives; drop it when it is `idle`, and after a `Violation`."""

    __slots__ = ("_buffer", "_limit", "_message")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._buffer = bytearray()
        self._message: _Message | None = None  # whose last fragment is still to come

    @property
    def idle(self) -> bool:
        """Whether nothing is pending: the next byte begins a message."""
        return self._message is None and not self._buffer

    def read(self, data: bytes) -> Iterator[Event]:
        """Yield what is complete with these bytes. Raises `Violation` after the events before it."""
        self._buffer += data
        while (frame := self._next_frame()) is not None:
            event = self._accept(*frame)
            if event is not None:
                yield event

    def _next_frame(self) -> tuple[int, bytes] | None:
        """The first byte and the payload of the next frame, or None while it is incomplete."""
        buffer = self._buffer
        if not buffer:
            return None
        first = buffer[0]
        self._check_first(first)
        if (found := self._lengths(first)) is None:
            return None
        head, end = found
        if len(buffer) < end:
            return None
        payload = apply_mask(buffer[head + 4 : end], buffer[head : head + 4])
        del buffer[:end]
        return first, payload

    def _check_first(self, first: int) -> None:
        """Fragmentation, reserved bits and opcodes (§5.2, §5.4, §5.5)."""
        opcode = first & 0x0F
        if first & 0x70:
            raise Violation(1002, "reserved bits must be 0")
        if opcode not in _OPCODES:
            raise Violation(1002, "invalid opcode")
        if opcode >= _CLOSE:
            if not first & _FIN:
                raise Violation(1002, "fragmented control frame")
        elif opcode != _CONT:
            if self._message is not None:
                raise Violation(1002, "expected a continuation frame")
        elif self._message is None:
            raise Violation(1002, "unexpected continuation frame")
        elif self._message.fragments >= MAX_FRAGMENTS:
            raise Violation(1009, "message too big")

    def _lengths(self, first: int) -> tuple[int, int] | None:
        """Where the mask and where the frame's end is; None before the head is complete."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        if not buffer[1] & 0x80:
            raise Violation(1002, "incorrect masking")
        head, length = 2, buffer[1] & 0x7F
        if first & 0x0F >= _CLOSE:
            if length > 125:
                raise Violation(1002, "control frame too long")
            if length == 1 and first & 0x0F == _CLOSE:
                raise Violation(1002, "close frame too short")
        elif length > 125:
            head, shortest = (4, 126) if length == 126 else (10, 65_536)
            if len(buffer) < head:
                return None
            length = int.from_bytes(buffer[2:head], "big")
            if length < shortest or length >> 63:  # §5.2: as short as possible, and the highest bit is 0
                raise Violation(1002, "invalid length")
        before = 0 if self._message is None or first & 0x0F >= _CLOSE else self._message.size
        if before + length > self._limit:
            raise Violation(1009, "message too big")
        return head, head + 4 + length

    def _accept(self, first: int, payload: bytes) -> Event | None:
        is_last = first & _FIN != 0
        match first & 0x0F:
            case 0x9:
                return Ping(payload)
            case 0xA:
                return Pong()
            case 0x8:
                return _closing(payload)
            case 0x1 if is_last:
                return Text(_decode(payload))
            case 0x2:
                if not is_last:
                    self._message = _Message(is_text=False)
                    self._message.add(payload, is_last)
                return Binary()
        message = self._message = self._message or _Message(is_text=True)
        message.add(payload, is_last)
        if not is_last:
            return None
        self._message = None
        return message.whole()


def _decode(data: bytes) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise Violation(1007, "invalid UTF-8") from None


def _closing(payload: bytes) -> Closing:
    try:
        close = Close.parse(payload)
    except ProtocolError as error:
        raise Violation(1002, str(error)) from None
    except UnicodeDecodeError:
        raise Violation(1007, "invalid UTF-8") from None
    return Closing(int(close.code), close.reason)


def text_frame(payload: bytes) -> bytes:
    """One unmasked text frame."""
    length = len(payload)
    if length < 126:
        return b"%b%c%b" % (_FIN_TEXT, length, payload)
    if length < 65_536:
        return b"%b\x7e%b%b" % (_FIN_TEXT, length.to_bytes(2, "big"), payload)
    return b"%b\x7f%b%b" % (_FIN_TEXT, length.to_bytes(8, "big"), payload)


def ping_frame() -> bytes:
    """An empty ping."""
    return _FIN_PING + b"\x00"


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping; the payload has at most 125 bytes."""
    return b"%b%c%b" % (_FIN_PONG, len(payload), payload)


def close_frame(code: int, reason: str) -> bytes:
    """A close frame; 1005 means without code. The reason is cut to what a control frame holds."""
    if code == 1005:
        return _FIN_CLOSE + b"\x00"
    text = reason.encode()[:123].decode("utf-8", "ignore").encode()
    return b"%b%c%b%b" % (_FIN_CLOSE, 2 + len(text), code.to_bytes(2, "big"), text)
