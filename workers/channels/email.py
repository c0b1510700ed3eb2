"""E-mail: one message of one delivery, made from its type's templates or from what the app shows; SMTP carries it.

Whatever texts and names hold, headers stay what they are. The Message-ID is the delivery's: every attempt has the same,
so that a repeat can be told. What cannot become a message is a `ComposeError` with a sentence.
"""

from collections.abc import Sequence
from email.utils import parseaddr
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

from hub.errors import TemplateError
from hub.model.addresses import ascii_domain, is_email, is_link
from hub.model.contents import channel_texts
from hub.model.mjml import compile_mjml
from hub.model.outgoing import Outgoing, variables
from hub.model.templates import render
from hub.model.vocabulary import Channel
from hub.origins import is_loopback_host
from hub.provider_urls import ProviderUrl
from workers.channels.base import ComposeError, Provider, Sender
from workers.channels.mail_content import (
    default_html,
    default_subject,
    default_text,
    framed,
    language_of,
    with_preview,
)
from workers.channels.mail_message import (
    Mail,
    address_header,
    alternatives,
    date_header,
    header,
    is_clean,
    one_line,
)
from workers.channels.mail_text import html_of, text_of
from workers.channels.smtp import SmtpProvider

SIZE_LIMIT_BYTES: Final = 1024 * 1024
SUBJECT_LIMIT: Final = 250
DELIVERY_HEADER: Final = "X-Clarion-Delivery"
REPEAT_HEADER: Final = "X-Clarion-Repeat"


def email_sender(urls: Sequence[ProviderUrl], sender: str, message_domain: str) -> Sender:
    """The e-mail channel. `sender`: CLARION_EMAIL_FROM; `message_domain`: ours, for Message-IDs and for EHLO."""
    domain = _domain(message_domain)
    return EmailSender([SmtpProvider(url, domain) for url in urls], sender, domain)


class EmailSender:
    """`workers.channels.base.Sender` for e-mail."""

    channel = Channel.EMAIL
    repeats = True

    def __init__(
        self,
        providers: Sequence[Provider],
        sender: str,
        domain: str,
        *,
        size_limit_bytes: int = SIZE_LIMIT_BYTES,
    ) -> None:
        self.providers = providers
        self._domain = domain
        self._size_limit_bytes = size_limit_bytes
        name, address = parseaddr(sender)
        self._address = _sendable(address)
        self._from = address_header("From", self._address, name or None)

    def compose(self, outgoing: Outgoing) -> Mail:
        """The message, the same for every target. Raises `ComposeError`."""
        if not outgoing.targets:
            raise ComposeError("There is no address to write to.")
        address = _sendable(outgoing.targets[0].address)
        try:
            subject, text, html = _texts(outgoing)
        except TemplateError as error:
            raise ComposeError(str(error)) from None
        id_ = outgoing.delivery.id
        moment_us = max(outgoing.delivery.due_at_us, outgoing.newest.created_at_us)
        head = [
            self._from,
            address_header("To", address, outgoing.user.profile.name),
            header("Subject", subject),
            date_header(moment_us),
            f"Message-ID: <{id_}@{self._domain}>\r\n",
            *_unsubscribing(outgoing.urls.get("unsubscribe")),
            "Auto-Submitted: auto-generated\r\n",  # RFC 3834: absence notes do not answer it
            f"{DELIVERY_HEADER}: {id_}\r\n",
            *([f"{REPEAT_HEADER}: 1\r\n"] if outgoing.is_repeat else ()),
        ]
        content = "".join(head).encode() + alternatives(text, html, id_)
        if len(content) > self._size_limit_bytes:
            limit = self._size_limit_bytes
            raise ComposeError(f"The e-mail would have {len(content)} bytes; at most {limit} are sent.")
        return Mail(self._address, content, not (address.isascii() and self._address.isascii()))


def _texts(outgoing: Outgoing) -> tuple[str, str, str]:
    """Subject, text and HTML. Raises `TemplateError` whose sentence begins with the template's name."""
    sources = channel_texts(outgoing.kind, Channel.EMAIL, outgoing.user.profile.locale)
    given = variables(outgoing) if sources else {}
    own_subject = _rendered("subject", sources["subject"], given) if "subject" in sources else ""
    subject = one_line(own_subject, SUBJECT_LIMIT) or one_line(default_subject(outgoing), SUBJECT_LIMIT)
    text = _rendered("text", sources["text"], given) if "text" in sources else None
    if "html" in sources:
        html = with_preview(_rendered("html", sources["html"], given), outgoing, subject)
    elif "mjml" in sources:
        html = _from_mjml(sources["mjml"], given, outgoing, subject)
    elif text is not None:
        html = framed(html_of(text), outgoing, subject, language_of(outgoing))
    else:
        return subject, default_text(outgoing), default_html(outgoing, subject)
    return subject, text if text is not None else text_of(html), html


def _from_mjml(source: str, given: dict[str, Any], outgoing: Outgoing, subject: str) -> str:
    try:
        compiled = compile_mjml(source)
    except TemplateError as error:
        raise TemplateError(f"mjml: {error}") from None
    html = _rendered("mjml", compiled.html, given)
    return html if compiled.has_preview else with_preview(html, outgoing, subject)


def _rendered(name: str, source: str, given: dict[str, Any]) -> str:
    try:
        return render(source, given, html=name in ("html", "mjml"))
    except TemplateError as error:
        raise TemplateError(f"{name}: {error}") from None


def _unsubscribing(url: str | None) -> list[str]:
    """List-Unsubscribe (RFC 2369) and, where a click may do it, List-Unsubscribe-Post (RFC 8058 §3.1: https)."""
    if url is None or not url.isascii() or not is_link(url):
        return []
    headers = [f"List-Unsubscribe: <{url}>\r\n"]
    if _takes_clicks("/".join(url.split("/", 3)[:3])):
        headers.append("List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n")
    return headers


@lru_cache(maxsize=64)
def _takes_clicks(origin: str) -> bool:
    """Whether mail programs may post to an address of this origin."""
    parts = urlsplit(origin)
    return parts.scheme == "https" or is_loopback_host(parts.hostname or "")


@lru_cache(maxsize=1024)
def _sendable(address: str) -> str:
    """An address as it is sent. Raises `ComposeError`."""
    local, _, domain = address.rpartition("@")
    if not is_email(address) or not is_clean(address):
        raise ComposeError("The address is not one that an e-mail can be sent to.")
    try:
        return f"{local}@{ascii_domain(domain)}"
    except ValueError:
        raise ComposeError("The address has a domain that cannot be sent to.") from None


def _domain(text: str) -> str:
    """A host name that can stand in headers and greet servers; `localhost` for what is none."""
    try:
        name = ascii_domain(text.strip().rstrip("."))
    except ValueError:
        return "localhost"
    return name if is_email(f"x@{name}") else "localhost"
