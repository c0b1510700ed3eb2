"""An SMTP server as a provider of e-mail: a few kept connections, each used by one message at a time.

Connections open when they are first needed, stay for the next message, and close when they idle. One that the server
closed meanwhile is replaced and the message tried once more on a fresh one, only while nothing of it has been sent. A
failure after the message went out is `Unclear`. No connection with a half-done message is ever used again.
"""

import asyncio
import ssl
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import aiosmtplib
from aiosmtplib import SMTPException, SMTPResponseException, SMTPServerDisconnected, SMTPTimeoutError

from hub.model.addresses import ascii_domain
from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Unclear
from hub.model.outgoing import Target
from hub.origins import is_loopback_host
from hub.provider_urls import ProviderUrl
from workers.channels.mail_message import Mail
from workers.channels.smtp_answers import Answer, read_answer, to_data, to_message, to_recipient, to_sender
from workers.channels.smtp_wire import SmtpWire

CONNECTIONS: Final = 4
TIMEOUT_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 60.0
SLOWEST_BYTES_PER_SECOND: Final = 65_536  # a large message may take longer by its size

_FAILURES: Final = (SMTPException, OSError, asyncio.IncompleteReadError, EOFError)
T = TypeVar("T")


class NotOpen(Exception):
    """No connection came about; the outcome says why."""

    def __init__(self, outcome: RetryAfter) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


class Stale(Exception):
    """A kept connection was of no use any more, and nothing of the message has been sent on it."""


class Connection:
    """One connection to a server, greeted, secured and logged in. `may_be_kept`: it waits for the next message."""

    def __init__(self, client: aiosmtplib.SMTP) -> None:
        self._client = client
        self._wire: SmtpWire | None = None
        self._seconds = client.timeout or TIMEOUT_SECONDS
        self._together = False
        self.may_be_kept = True
        self.idle: asyncio.TimerHandle | None = None

    async def opened(self) -> None:
        """It is ready for messages: from now on they have the wire. Raises `SMTPServerDisconnected`."""
        transport: Any = self._client.transport
        if transport is None or transport.is_closing():
            raise SMTPServerDisconnected("Connection lost")
        self._together = self._client.supports_extension("pipelining")
        self._wire = SmtpWire(transport)

    @property
    def is_alive(self) -> bool:
        """Whether the other side has not closed it, as far as is known."""
        return self._wire is not None and self._wire.is_open

    async def carry(self, mail: Mail, address: str, *, is_kept: bool) -> Outcome:
        """One message. Raises `Stale` when a kept connection turns out to be dead before it was sent."""
        if mail.needs_utf8 and not self._client.supports_extension("smtputf8"):
            return GiveUp(
                "no_smtputf8", "The address is not ASCII before its @, and the server takes only such."
            )
        assert self._wire is not None
        commands = [
            b" ".join((b"MAIL FROM:<%b>" % mail.sender.encode(), *self._options(mail))),
            b"RCPT TO:<%b>" % address.encode(),
            b"DATA",
        ]
        try:
            self._wire.ask(*(commands if self._together else commands[:1]))
            begun = await self._wire.answer(self._seconds)
        except _FAILURES as error:
            self.drop()
            if is_kept:
                raise Stale from error
            return _failed(error)
        if begun.code == 421 and is_kept:
            self.drop()
            raise Stale
        try:
            return await self._carry_on(self._wire, begun, commands[1:], mail)
        except _FAILURES as error:
            self.drop()
            return _failed(error)

    async def _carry_on(self, wire: SmtpWire, begun: Answer, commands: list[bytes], mail: Mail) -> Outcome:
        outcome = to_sender(begun)
        if outcome is None:
            outcome = to_recipient(await self._next(wire, commands))
        if outcome is None:
            outcome = to_data(answer := await self._next(wire, commands))
            if outcome is None:
                return await self._send(wire, mail.content)
            if answer.code < 400:
                self.drop()  # nobody knows what it takes the next line for
        await self._reset(wire, len(commands) if self._together else 0)
        return outcome

    async def _next(self, wire: SmtpWire, commands: list[bytes]) -> Answer:
        """The answer to the first of these commands, which is taken out; asked only now if not all went out together."""
        command = commands.pop(0)
        if not self._together:
            wire.ask(command)
        return await wire.answer(self._seconds)

    async def _send(self, wire: SmtpWire, content: bytes) -> Outcome:
        stuffed = content.replace(b"\r\n.", b"\r\n..")  # RFC 5321 §4.5.2
        wire.write(stuffed + b".\r\n")
        try:
            found = await wire.answer(self._seconds + len(stuffed) / SLOWEST_BYTES_PER_SECOND)
        except _FAILURES as error:
            self.drop()
            return Unclear(*_words_of(error))
        outcome = to_message(found)
        if found.code == 421 or isinstance(outcome, Unclear):
            self.drop()
        return outcome

    async def _reset(self, wire: SmtpWire, left: int) -> None:
        """Forget the refused message, so that the connection can take another. `left`: answers to what was asked with it."""
        try:
            for _ in range(left):
                # RFC 2920 §3.1: DATA may have been accepted although nobody gets it. Nothing is sent to nobody.
                if (await wire.answer(self._seconds)).code == 354:
                    self.drop()
            if not self.is_alive:
                self.may_be_kept = False
                return
            wire.ask(b"RSET")
            answer = await wire.answer(self._seconds)
        except _FAILURES:
            self.drop()
        else:
            if not 200 <= answer.code < 300:
                self.drop()

    def _options(self, mail: Mail) -> list[bytes]:
        options = []
        if self._client.supports_extension("size"):
            options.append(b"SIZE=%d" % len(mail.content))
        if mail.needs_utf8:
            options += [b"BODY=8BITMIME", b"SMTPUTF8"]
        return options

    def drop(self) -> None:
        """Cut it off: what is not on the wire yet is not sent."""
        self.may_be_kept = False
        transport: Any = self._client.transport
        if transport is not None:
            transport.abort()
        self._client.close()

    def part(self) -> None:
        """Take leave and close, without waiting for the answer."""
        self.may_be_kept = False
        if self._wire is not None:
            with suppress(SMTPException):
                self._wire.ask(b"QUIT")
        self._client.close()


class SmtpProvider:
    """`workers.channels.base.Provider` over SMTP."""

    def __init__(self, url: ProviderUrl, greeting: str, idle_seconds: float = IDLE_SECONDS) -> None:
        """`greeting`: the host name that we say with EHLO."""
        self.name = url.name
        self.connections = int(url.number("connections", CONNECTIONS))
        self.per_second = url.number("per_second", 0) or None
        self._url = url
        self._greeting = greeting
        self._timeout = url.number("timeout_seconds", TIMEOUT_SECONDS)
        self._idle_seconds = idle_seconds
        self._idle: list[Connection] = []
        self._context: ssl.SSLContext | None = None
        self._closed = False

    async def send(self, message: Any, target: Target) -> Outcome:
        """Carry one message to one address. What the server says and how it fails are outcomes."""
        assert isinstance(message, Mail)
        local, _, domain = target.address.rpartition("@")
        address = f"{local}@{ascii_domain(domain)}"
        while (kept := self._take()) is not None:
            try:
                return await self._use(kept, message, address, is_kept=True)
            except Stale:
                continue
        try:
            fresh = await self._open()
        except NotOpen as error:
            return error.outcome
        return await self._use(fresh, message, address, is_kept=False)

    async def _use(self, connection: Connection, mail: Mail, address: str, *, is_kept: bool) -> Outcome:
        try:
            outcome = await connection.carry(mail, address, is_kept=is_kept)
        except BaseException:
            connection.drop()
            raise
        self._give_back(connection)
        return outcome

    # ------------------------------------------------------------ kept connections

    def _take(self) -> Connection | None:
        """A kept connection that still lives, the one used last first."""
        while self._idle:
            connection = self._idle.pop()
            if connection.idle is not None:
                connection.idle.cancel()
            if connection.is_alive:
                return connection
            connection.drop()
        return None

    def _give_back(self, connection: Connection) -> None:
        if not (connection.may_be_kept and connection.is_alive):
            connection.drop()
        elif self._closed or len(self._idle) >= self.connections:
            connection.part()
        else:
            loop = asyncio.get_running_loop()
            connection.idle = loop.call_later(self._idle_seconds, self._expire, connection)
            self._idle.append(connection)

    def _expire(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
            connection.part()

    async def close(self) -> None:
        """Close what idles now, and what is in use when its message is done."""
        self._closed = True
        while (connection := self._take()) is not None:
            connection.part()
        await asyncio.sleep(0)  # lets transports close

    # ------------------------------------------------------------ opening

    async def _open(self) -> Connection:
        """A connection that is ready for messages. Raises `NotOpen`."""
        client = aiosmtplib.SMTP(
            hostname=self._url.host,
            port=self._url.port,
            local_hostname=self._greeting,
            timeout=self._timeout,
            use_tls=self._url.scheme == "smtps",
            start_tls=False,
            tls_context=await self._tls() if self._url.scheme == "smtps" else None,
        )
        connection = Connection(client)
        try:
            await self._step("connect", client.connect())
            await self._step("connect", self._greet(client))
            if self._url.scheme == "smtp":
                await self._secure(client)
            await self._log_in(client)
            await self._step("connect", connection.opened())
        except BaseException:
            connection.drop()
            raise
        return connection

    async def _greet(self, client: aiosmtplib.SMTP) -> None:
        try:
            await client.ehlo()
        except aiosmtplib.SMTPHeloError:
            if not client.is_connected:
                raise
            await client.helo()

    async def _secure(self, client: aiosmtplib.SMTP) -> None:
        """STARTTLS: required with starttls=1, never with 0, else when it is offered."""
        offered = client.supports_extension("starttls")
        if self._url.options.get("starttls") == "0":
            return
        if not offered:
            if self._url.is_on("starttls", default=False):
                raise NotOpen(
                    RetryAfter("tls", "The server does not offer STARTTLS, which starttls=1 requires.")
                )
            if self._url.user is not None and not is_loopback_host(self._url.host):
                detail = "The server does not offer STARTTLS; without it no password is sent, unless starttls=0 is set."
                raise NotOpen(RetryAfter("tls", detail))
            return
        await self._step("tls", client.starttls(tls_context=await self._tls()))
        await self._step("tls", self._greet(client))

    async def _log_in(self, client: aiosmtplib.SMTP) -> None:
        if self._url.user is not None:
            await self._step("login", client.login(self._url.user, self._url.password or ""))

    async def _step(self, name: str, work: Awaitable[T]) -> T:
        """One step on the way to a connection. Whatever goes wrong is the provider's fault."""
        try:
            return await work
        except SMTPResponseException as error:
            answer = read_answer(error.code, str(error.message))
            code = name if name == "login" or answer.code < 0 else str(answer.code)
            raise NotOpen(RetryAfter(code, answer.detail)) from error
        except (*_FAILURES, ValueError) as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError from error  # Python 3.11's wait_for may have swallowed it
            code, detail = _words_of(error)
            raise NotOpen(RetryAfter(name if code == "lost" else code, detail)) from error

    async def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = await asyncio.to_thread(self._make_context)
        return self._context

    def _make_context(self) -> ssl.SSLContext:
        ca = self._url.options.get("ca")
        context = ssl.create_default_context(cafile=str(Path(ca).expanduser()) if ca else None)
        if not self._url.is_on("verify", default=True):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _failed(error: Exception) -> RetryAfter:
    """A failure before the message was sent."""
    return RetryAfter(*_words_of(error))


def _words_of(error: BaseException) -> tuple[str, str]:
    """Code and detail of a failure that is no answer."""
    if isinstance(error, SMTPResponseException):
        return (
            "nonsense",
            f"The server's answer is not SMTP: {read_answer(error.code, str(error.message)).detail}",
        )
    if isinstance(error, SMTPTimeoutError | TimeoutError):
        return "timeout", "The server did not answer in time."
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "tls", read_answer(0, f"TLS did not come about: {cause.reason or cause}").detail
        cause = cause.__cause__
    return "lost", read_answer(0, str(error)).detail or "The connection was lost."
