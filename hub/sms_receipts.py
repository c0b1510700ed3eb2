"""What SMS gateways call back about: receipts of messages that went out, and answers of people (STOP, START).

A call counts when it is signed with the gateway's own token over our public address and all of its fields; whatever
else comes is refused and changes nothing. Calls may be repeated and out of order: a delivery moves along
`hub.model.deliveries.MOVES` only. A receipt can come before its message is recorded, so an unknown one is looked for
again for a moment. Honest limit: what is recorded later than that stays `sent`.
"""

import asyncio
import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha1
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import structlog

from hub.errors import Refused
from hub.model.addresses import is_phone
from hub.model.vocabulary import Channel
from hub.ports import Clock, LogEntry, Store
from hub.provider_urls import ProviderUrl

PATH: Final = "/v1/callbacks/sms/"
FIELDS_LIMIT: Final = 200
PATIENCE_SECONDS: Final = (0.25, 0.75, 1.5)

# The words that carriers and gateways react to; a message counts when it is nothing but one of them.
STOP_WORDS: Final = frozenset({"STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "OPTOUT", "REVOKE"})
START_WORDS: Final = frozenset({"START", "UNSTOP", "YES"})

_DELIVERED: Final = frozenset({"delivered", "read"})
_FAILED: Final = frozenset({"failed", "undelivered", "canceled"})
_ON_ITS_WAY: Final = frozenset({"accepted", "scheduled", "queued", "sending", "sent"})
_STOPPED: Final = "21610"  # Twilio: the recipient has opted out

_log = structlog.get_logger(__name__)


class SmsReceipts:
    """The use case behind `POST /v1/callbacks/sms/{provider}`."""

    def __init__(
        self,
        providers: Sequence[ProviderUrl],
        public_url: str,
        store: Store,
        clock: Clock,
        patience_seconds: Sequence[float] = PATIENCE_SECONDS,
    ) -> None:
        self._providers = {callback_id(one): one for one in providers if one.inner is None}
        self._public_url = public_url
        self._store = store
        self._clock = clock
        self._patience_seconds = patience_seconds

    async def receive(self, provider_id: str, query: str, signature: str, body: bytes) -> None:
        """One call. `query`: of its address, undecoded. Raises `Refused` (400, 403, 404)."""
        provider = self._providers.get(provider_id)
        if provider is None:
            raise Refused(404, "not_found", "No configured SMS provider calls back here.")
        fields = fields_of(body)
        address = callback_url(provider, self._public_url) + (f"?{query}" if query else "")
        if not is_signed(provider.password or "", address, fields, signature):
            raise Refused(
                403, "invalid_signature", "The call is not signed with the token of this provider's account."
            )
        given = dict(fields)
        status = given.get("MessageStatus") or given.get("SmsStatus") or ""
        if status in ("received", "receiving") or (not status and "Body" in given):
            await self._answer(provider.name, given)
        else:
            await self._receipt(
                provider.name, given.get("MessageSid") or given.get("SmsSid") or "", status, given
            )

    async def _receipt(self, provider: str, reference: str, status: str, given: Mapping[str, str]) -> None:
        if status in _DELIVERED:
            state = "delivered"
        elif status in _FAILED:
            state = "dead"
        elif status in _ON_ITS_WAY:
            state = "sent"
        else:
            _log.info("sms_receipt_unknown", provider=provider, status=status[:40])
            return
        code = given.get("ErrorCode", "") if state == "dead" else ""
        code = code if code.isascii() and code.isdigit() and len(code) <= 10 else ""
        await self._settle(provider, reference, state, code or status)
        if code == _STOPPED and is_phone(given.get("To", "")):
            await self._stop(provider, given["To"], "The gateway says that the recipient opted out.")

    async def _settle(self, provider: str, reference: str, state: str, code: str) -> None:
        if not 0 < len(reference) <= 128:
            return
        for wait_seconds in (*self._patience_seconds, None):
            # Asked before it is moved: of a message that was known this is old news, one that was not may be on its way
            # into the store right now.
            known = await self._store.has_reference(provider, reference)
            moved = await self._store.settle(provider, reference, state, code, self._clock.now_us())
            if moved or known or state == "sent" or wait_seconds is None:
                return
            await asyncio.sleep(wait_seconds)

    async def _answer(self, provider: str, given: Mapping[str, str]) -> None:
        number = given.get("From", "")
        if not is_phone(number):
            return
        said = given.get("OptOutType") or "".join(given.get("Body", "").split()).strip(".!\"'").upper()
        if said in STOP_WORDS:
            await self._stop(provider, number, "The recipient wrote STOP.")
        elif said in START_WORDS and await self._store.unsuppress(Channel.SMS, number):
            await self._tell(
                "restarted", provider, "start", "A recipient wrote START and gets messages again."
            )

    async def _stop(self, provider: str, number: str, detail: str) -> None:
        if await self._store.suppress(Channel.SMS, number, "stop", detail, self._clock.now_us()):
            await self._tell("stopped", provider, "stop", detail)

    async def _tell(self, state: str, provider: str, reason: str, detail: str) -> None:
        now_us = self._clock.now_us()
        line = LogEntry(now_us, state, channel=Channel.SMS, provider=provider, reason=reason, detail=detail)
        await self._store.write_log([line])


def callback_id(provider: ProviderUrl) -> str:
    """What an address calls a provider: its name as one step of a path. twilio://api.twilio.com: twilio-api.twilio.com."""
    return provider.name.replace("+", ".").replace("://", "-", 1)


def callback_url(provider: ProviderUrl, public_url: str) -> str:
    """Where a provider reports to."""
    return f"{public_url}{PATH}{callback_id(provider)}"


def fields_of(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form (application/x-www-form-urlencoded). Raises `Refused(400)`."""
    try:
        fields = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_LIMIT, errors="strict"
        )
    except (UnicodeError, ValueError):
        raise Refused(400, "malformed_request", "The body must be a form, and this cannot be read.") from None
    if any("\0" in name or "\0" in value for name, value in fields):
        raise Refused(400, "malformed_request", "NUL characters cannot be used.")
    return fields


def is_signed(token: str, address: str, fields: Sequence[tuple[str, str]], signature: str) -> bool:
    """Whether X-Twilio-Signature fits: HMAC-SHA1 with the account's token over the address and the sorted fields.

    Gateways differ in whether they name a default port, so both spellings of the address count.
    """
    said = signature.encode("utf-8", "replace")
    fits = [hmac.compare_digest(sign(token, one, fields).encode(), said) for one in _spellings(address)]
    return bool(token) and any(fits)


def sign(token: str, address: str, fields: Sequence[tuple[str, str]]) -> str:
    """The signature of a call (Twilio, "Validating Signatures from Twilio")."""
    joined = address + "".join(name + value for name, value in sorted(set(fields)))
    return b64encode(hmac.new(token.encode(), joined.encode(), sha1).digest()).decode()


def _spellings(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    port = {"http": 80, "https": 443}[parts.scheme]
    host = parts.netloc
    other = host.removesuffix(f":{port}") if parts.port else f"{host}:{port}"
    return address, parts._replace(netloc=other).geturl()
