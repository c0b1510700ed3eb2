"""A mail server that keeps what it gets (SMTP, on aiosmtpd)."""

import asyncio
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

from hub.demo.sinks.arrivals import Arrivals, Arrived
from hub.demo.sinks.gate import HOST, Gate
from hub.model.vocabulary import Channel


class MailSink:
    """One mail server; `label` is what the story calls it."""

    def __init__(self, label: str, arrivals: Arrivals) -> None:
        self.label = label
        self._arrivals = arrivals
        self._sessions: set[_Session] = set()
        self.gate = Gate(self._session, self._transports)

    @property
    def name(self) -> str:
        """What the hub calls it in its log."""
        return f"smtp://{HOST}:{self.gate.port}"

    @property
    def address(self) -> str:
        """Its part of CLARION_EMAIL_PROVIDERS."""
        return f"{self.name}?starttls=0"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a message, once for each recipient. The name is aiosmtpd's."""
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=policy.default)
        for address in envelope.rcpt_tos:
            self._arrivals.add(
                Arrived(
                    Channel.EMAIL,
                    address,
                    str(message["Subject"] or ""),
                    _part(message, "plain"),
                    self.label,
                    str(message["Message-ID"] or ""),
                    _part(message, "html"),
                )
            )
        return "250 2.0.0 kept"

    def _session(self) -> SMTP:
        return _Session(self, self._sessions)

    def _transports(self) -> list[asyncio.BaseTransport]:
        return [one.transport for one in self._sessions if one.transport is not None]


class _Session(SMTP):
    """One connection, listed while it lasts."""

    def __init__(self, sink: MailSink, sessions: "set[_Session]") -> None:
        super().__init__(sink, hostname="sink.example", loop=asyncio.get_running_loop(), enable_SMTPUTF8=True)
        self._open = sessions

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's protocol."""
        self._open.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """Part of asyncio's protocol."""
        self._open.discard(self)
        super().connection_lost(error)


def _part(message: EmailMessage, kind: str) -> str:
    found: Any = message.get_body((kind,))
    return str(found.get_content()) if found is not None else ""
