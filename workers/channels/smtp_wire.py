"""Commands and answers on a connection that aiosmtplib has opened, secured and logged in: several at a time.

What belongs to one message is written at once where the server offers that (PIPELINING, RFC 2920): one way to the server
and back instead of three, and as many system calls less. Errors are aiosmtplib's. After one the connection is of no use.
"""

import asyncio
import re
from collections import deque
from typing import Any, Final

from aiosmtplib import SMTPResponseException, SMTPServerDisconnected, SMTPTimeoutError

from workers.channels.smtp_answers import Answer, read_answer

LONGEST_ANSWER_BYTES: Final = 32_768
UNASKED_ANSWERS: Final = 16  # beside those that are read: a server that says so much is not to be listened to
_LINE_END: Final = re.compile(rb"[\r\n]")


class SmtpWire(asyncio.Protocol):
    """Takes over the transport of a connection on which nothing is on its way."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._lines: list[bytes] = []  # of an answer that is not complete
        self._answers: deque[Answer] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Whether it can be used, as far as is known. Who said something unasked (421, before it closes) is not."""
        return self._error is None and not self._answers and not self._transport.is_closing()

    def ask(self, *commands: bytes) -> None:
        """Write commands; each will have an answer. Raises `SMTPServerDisconnected`, ValueError for a line end within."""
        if any(_LINE_END.search(command) for command in commands):
            raise ValueError("an SMTP command holds a line end")
        self.write(b"\r\n".join(commands) + b"\r\n")

    def write(self, data: bytes) -> None:
        """Write as it is. Raises `SMTPServerDisconnected`."""
        if self._error is not None:
            raise self._error
        if self._transport.is_closing():
            raise SMTPServerDisconnected("Connection lost")
        self._transport.write(data)

    async def answer(self, seconds: float) -> Answer:
        """The next answer. Raises `SMTPTimeoutError`, `SMTPServerDisconnected` or, for nonsense, `SMTPResponseException`."""
        if not self._answers:
            await self._wait(seconds)
        return self._answers.popleft()

    async def _wait(self, seconds: float) -> None:
        if self._error is not None:
            raise self._error
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        # Cheaper than a timeout around it, which each of a hundred thousand mails would need twice.
        timer = loop.call_later(seconds, self._fail, SMTPTimeoutError("The server did not answer in time."))
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    # ------------------------------------------------------------ what the transport calls

    def data_received(self, data: bytes) -> None:
        """More of the answers."""
        if self._error is not None:
            return
        self._buffer += data
        try:
            while (end := self._buffer.find(b"\n")) >= 0:
                line = bytes(self._buffer[: end + 1])
                del self._buffer[: end + 1]
                self._take(line)
            if len(self._buffer) + sum(map(len, self._lines)) > LONGEST_ANSWER_BYTES:
                raise SMTPResponseException(-1, "Response too long")
            if len(self._answers) > UNASKED_ANSWERS:
                raise SMTPResponseException(-1, "Answers that nobody asked for")
        except SMTPResponseException as error:
            self._fail(error)
            self._transport.abort()

    def _take(self, line: bytes) -> None:
        if not line[:3].isdigit():
            raise SMTPResponseException(-1, f"Malformed SMTP response line: {line.decode('utf-8', 'ignore')}")
        self._lines.append(line)
        if line[3:4] == b"-":  # more of it follows: RFC 5321 §4.2.1
            return
        text = b"\n".join(one[4:].strip() for one in self._lines).decode("utf-8", "surrogateescape")
        self._lines.clear()
        self._answers.append(read_answer(int(line[:3]), text))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def eof_received(self) -> None:
        """The server ends it; the transport closes by itself."""
        self._fail(SMTPServerDisconnected("Unexpected EOF received"))

    def connection_lost(self, error: Exception | None) -> None:
        """It is over."""
        lost = SMTPServerDisconnected("Connection lost")
        lost.__cause__ = error
        self._fail(lost)

    def _fail(self, error: Exception) -> None:
        self._error = self._error or error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._error)
