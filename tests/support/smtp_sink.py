"""A real SMTP server that refuses, defers, hangs and drops by plan, and keeps what it was given.

    async with smtp_sink() as sink:
        sink.plan("rcpt", "550 5.1.1 no such user", to="nobody@example.com")
        sink.plan("content", DROP, times=1)  # taken, and nobody knows
        url = sink.url("connections=2")

Stages: `greeting`, `ehlo`, `mail`, `rcpt`, `data` (the answer to the command), `incoming` (while the message comes in) and
`content` (the answer to the message, which is kept unless it is refused). A step is the answer to give, or `HANG` (no
answer), or `DROP` (the connection is cut).
"""

# ruff: noqa: N802  (aiosmtpd names methods by the commands)

import asyncio
import logging
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any
from urllib.parse import quote

import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

HANG, DROP = "hang", "drop"
PIPELINING = True  # whether it offers that commands come together (RFC 2920), as most servers do
logging.getLogger("mail.log").setLevel(logging.ERROR)


@dataclass
class Step:
    """What happens at a stage: `times` times, or always; for one recipient, or for all."""

    stage: str
    action: str
    times: int | None = None
    to: str | None = None


@dataclass
class Received:
    """One message that came in whole."""

    sender: str
    recipients: list[str]
    content: bytes
    options: list[str]
    connection: int
    is_encrypted: bool
    user: str | None = None

    @property
    def parsed(self) -> EmailMessage:
        """The message as the standard library reads it."""
        message = message_from_bytes(self.content, policy=default)
        assert isinstance(message, EmailMessage)
        return message


@dataclass
class SmtpSink:
    """The server: its plan, and what came of it."""

    port: int = 0
    ca_file: Path | None = None
    steps: list[Step] = field(default_factory=list)
    messages: list[Received] = field(default_factory=list)
    greetings: list[str] = field(default_factory=list)  # the names that clients gave with EHLO
    commands: list[str] = field(default_factory=list)
    connections: int = 0  # how many there ever were
    sessions: set["_Session"] = field(default_factory=set)  # those that are open
    witness: Callable[[str, str | None], None] | None = None  # told of every stage and its recipient

    def plan(self, stage: str, action: str, *, times: int | None = None, to: str | None = None) -> Step:
        """Add a step; earlier ones come first."""
        step = Step(stage, action, times, to)
        self.steps.append(step)
        return step

    def next(self, stage: str, to: str | None) -> str | None:
        """What to do at a stage; None: what a server does that is well."""
        if self.witness is not None:
            self.witness(stage, to)
        for step in self.steps:
            if step.stage == stage and step.times != 0 and step.to in (None, to):
                if step.times is not None:
                    step.times -= 1
                return step.action
        return None

    def url(self, options: str = "", *, scheme: str = "smtp", user: str = "", password: str = "") -> str:
        """The address for `CLARION_EMAIL_PROVIDERS`."""
        login = f"{quote(user)}:{quote(password, safe='')}@" if user else ""
        return f"{scheme}://{login}127.0.0.1:{self.port}" + (f"?{options}" if options else "")

    def drop_all(self) -> None:
        """Cut all connections, as a server that restarts."""
        for session in list(self.sessions):
            session.cut()

    async def settle(self, connections: int) -> None:
        """Wait until so many connections are open."""
        async with asyncio.timeout(20):
            while len(self.sessions) != connections:
                await asyncio.sleep(0.002)


class _Session(SMTP):
    """One connection of the sink."""

    def __init__(self, sink: SmtpSink, **options: Any) -> None:
        with warnings.catch_warnings(
            action="ignore"
        ):  # it warns of passwords without TLS, which some tests are about
            super().__init__(_Messages(), **options)
        self.sink = sink
        self.number = 0
        self.is_implicit = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self not in self.sink.sessions:
            self.sink.connections += 1
            self.number = self.sink.connections
            self.sink.sessions.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.sink.sessions.discard(self)
        super().connection_lost(error)

    def cut(self) -> None:
        transport: Any = self._original_transport or self.transport
        if transport is not None:
            transport.abort()

    async def _act(self, stage: str, to: str | None = None) -> bool:
        """Do what the plan says; False: it says nothing."""
        action = self.sink.next(stage, to)
        if action is None:
            return False
        if action == DROP:
            self.cut()
        elif action == HANG:
            await asyncio.Event().wait()
        else:
            await self.push(action)
            if action.startswith("421") and self.transport is not None:
                self.transport.close()
        return True

    async def _handle_client(self) -> None:
        with suppress(ConnectionError):
            try:
                if await self._act("greeting"):
                    return
            except asyncio.CancelledError:  # the client went away
                self.cut()
                raise
            await super()._handle_client()

    async def smtp_EHLO(self, hostname: str) -> None:
        self.sink.greetings.append(hostname)
        if not await self._act("ehlo"):
            await super().smtp_EHLO(hostname)

    async def smtp_AUTH(self, arg: str) -> None:
        self.sink.commands.append(f"AUTH {arg.partition(' ')[0]}")
        await super().smtp_AUTH(arg)

    async def smtp_MAIL(self, arg: str | None) -> None:
        self.sink.commands.append(f"MAIL {arg}")
        if not await self._act("mail"):
            await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg: str | None) -> None:
        self.sink.commands.append(f"RCPT {arg}")
        to = (arg or "").partition("<")[2].partition(">")[0]
        if not await self._act("rcpt", to):
            await super().smtp_RCPT(arg)

    async def smtp_DATA(self, arg: str) -> None:
        to = self.envelope.rcpt_tos[0] if self.envelope is not None and self.envelope.rcpt_tos else None
        if await self._act("data", to):
            return
        if self.sink.next("incoming", to) is not None:
            await self.push("354 go on, I will not listen")
            await self._reader.readuntil(b"\r\n")
            self.cut()
            return
        await super().smtp_DATA(arg)

    async def content(self, envelope: Envelope) -> str:
        """The answer to a message that came in whole."""
        to = envelope.rcpt_tos[0]
        action = self.sink.next("content", to)
        if action is None or action in (DROP, HANG):
            assert isinstance(envelope.content, bytes)
            session = self.session
            assert session is not None
            user = getattr(session, "auth_data", None)
            self.sink.messages.append(
                Received(
                    envelope.mail_from or "",
                    list(envelope.rcpt_tos),
                    envelope.content,
                    list(envelope.mail_options),
                    self.number,
                    session.ssl is not None or self.is_implicit,
                    user.login.decode() if isinstance(user, LoginPassword) else None,
                )
            )
        if action is None:
            return "250 2.0.0 taken"
        if action == HANG:
            await asyncio.Event().wait()
        if action == DROP:
            self.cut()
            raise ConnectionResetError
        return action


class _Messages:
    """What aiosmtpd asks about messages."""

    async def handle_EHLO(
        self, server: _Session, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        session.host_name = hostname
        return [*responses[:-1], "250-PIPELINING", responses[-1]] if PIPELINING else responses

    async def handle_DATA(self, server: _Session, _session: Session, envelope: Envelope) -> str:
        return await server.content(envelope)


@asynccontextmanager
async def smtp_sink(
    *, tls: str | None = None, users: dict[str, str] | None = None, smtputf8: bool = False, host: str = "127.0.0.1",
    folder: Path | None = None, needs_tls: bool = False,
) -> AsyncIterator[SmtpSink]:  # fmt: skip
    """A sink at work. `tls`: `starttls` or `implicit`, with a certificate of 127.0.0.1 whose CA is in `ca_file`."""
    sink = SmtpSink()
    context: ssl.SSLContext | None = None
    if tls is not None:
        assert folder is not None
        context = _certificate(sink, folder)

    def check(
        _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
    ) -> AuthResult:
        good = (users or {}).get(data.login.decode()) == data.password.decode()
        return AuthResult(success=good, handled=False, auth_data=data)

    def session() -> _Session:
        made = _Session(
            sink,
            hostname="sink.test",
            loop=asyncio.get_running_loop(),
            enable_SMTPUTF8=smtputf8,
            tls_context=context if tls == "starttls" else None,
            require_starttls=needs_tls,
            authenticator=check if users else None,
            auth_required=bool(users),
            auth_require_tls=False,
        )
        made.is_implicit = tls == "implicit"
        return made

    loop = asyncio.get_running_loop()
    server = await loop.create_server(session, host, 0, ssl=context if tls == "implicit" else None)
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()
        working = [one._handler_coroutine for one in sink.sessions if one._handler_coroutine is not None]
        sink.drop_all()
        await sink.settle(0)
        await asyncio.gather(*working, return_exceptions=True)


def _certificate(sink: SmtpSink, folder: Path) -> ssl.SSLContext:
    ca = trustme.CA()
    sink.ca_file = folder / "ca.pem"
    ca.cert_pem.write_to_path(str(sink.ca_file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context
