"""WebSocket frames: bytes to checked messages, and messages to bytes (RFC 6455, server side, no extensions).

Sans-I/O. Single frames are parsed by `websockets`; fragments, sizes and texts are checked here. A reader lives only
while a frame or message is incomplete. A peer that breaks the rules raises `Violation` with the code to close with.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Close, Frame, Opcode
from websockets.streams import StreamReader

MAX_FRAGMENTS = 1_024
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


class FrameReader:
    """Reads the frames of one client. Give it what arrives; drop it when it is `idle`."""

    __slots__ = ("_fragments", "_limit", "_message", "_parser", "_stream")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._stream = StreamReader()
        self._parser: Generator[None, None, Frame] | None = None
        self._message: bytearray | None = None  # of a fragmented text message
        self._fragments = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is pending: the next byte begins a message."""
        return self._parser is None and self._message is None and not self._stream.buffer

    def read(self, data: bytes) -> Iterator[Event]:
        """Yield what is complete with these bytes. Raises `Violation` after the events before it."""
        self._stream.feed_data(data)
        while self._parser is not None or self._stream.buffer:
            frame = self._next_frame()
            if frame is None:
                return
            event = self._accept(frame)
            if event is not None:
                yield event

    def _next_frame(self) -> Frame | None:
        if self._parser is None:
            self._parser = Frame.parse(self._stream.read_exact, mask=True, max_size=self._limit)
        try:
            next(self._parser)
        except StopIteration as done:
            self._parser = None
            frame: Frame = done.value
            return frame
        except PayloadTooBig:
            raise Violation(1009, "message too big") from None
        except ProtocolError as error:
            raise Violation(1002, str(error)) from None
        return None

    def _accept(self, frame: Frame) -> Event | None:
        match frame.opcode:
            case Opcode.TEXT | Opcode.BINARY:
                if self._message is not None:
                    raise Violation(1002, "expected a continuation frame")
                if frame.opcode is Opcode.BINARY:
                    return Binary()
                if frame.fin:
                    return Text(_decode(frame.data))
                self._message = bytearray(frame.data)
                self._fragments = 1
                return None
            case Opcode.CONT:
                return self._continue(frame)
            case Opcode.PING:
                return Ping(bytes(frame.data))
            case Opcode.PONG:
                return Pong()
            case Opcode.CLOSE:
                return _closing(bytes(frame.data))

    def _continue(self, frame: Frame) -> Event | None:
        message = self._message
        if message is None:
            raise Violation(1002, "unexpected continuation frame")
        self._fragments += 1
        if len(message) + len(frame.data) > self._limit or self._fragments > MAX_FRAGMENTS:
            raise Violation(1009, "message too big")
        message += frame.data
        if not frame.fin:
            return None
        self._message = None
        return Text(_decode(message))


def _decode(data: bytes | bytearray | memoryview) -> str:
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
