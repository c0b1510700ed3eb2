"""The REST API of Twilio for SMS, and of gateways that speak it (`POST /2010-04-01/Accounts/{SID}/Messages.json`).

It knows no idempotency key, so a request that may have arrived is never repeated: no answer in time, a lost connection,
an answer that nobody can read, and 502 or 504, with which something in front says that it lost the answer. Twilio calls
those two retryable "generally"; a second text is worse than one that is listed as unknown. 500 and 503 are retried: the
API itself says that it did not do it.
"""

from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent, Unclear
from hub.model.outgoing import Target
from hub.ports import Clock
from hub.provider_urls import ProviderUrl
from workers.channels.http import Answer, HttpClient, Lost, printable, retry_after_seconds

CONNECTIONS: Final = 4
TIMEOUT_SECONDS: Final = 10.0
BUSY_SECONDS: Final = 1.0

# Twilio's error codes (its error dictionary). It advises to decide by statuses where one can: what is not listed here is.
STOPPED: Final = frozenset({21610})
NO_SUCH_NUMBER: Final = frozenset({21211, 21217, 21265, 21268, 21421, 21614, 21635})
BAD_SETTINGS: Final = frozenset({21212, 21603, 21606, 21609, 21659, 21660, 21661, 21701, 21703, 21704, 21705})
OTHER_ROUTE: Final = frozenset(
    {21408, 21608, 21612}
)  # this account does not reach the number, another one may
BUSY: Final = frozenset({14107, 20429, 21611})
LOST_BEHIND: Final = frozenset({502, 504})


class TwilioProvider:
    """One account at one gateway (`workers.channels.base.Provider`)."""

    def __init__(self, url: ProviderUrl, callback: str | None, clock: Clock, http: HttpClient) -> None:
        """`callback`: where the gateway reports what became of a message; None where it could not reach us."""
        self.name = url.name
        self.connections = int(url.number("connections", CONNECTIONS))
        self.per_second = url.number("per_second", 0) or None
        self._timeout_seconds = url.number("timeout_seconds", TIMEOUT_SECONDS)
        scheme = "http" if url.scheme == "twilio+http" else "https"
        host = f"[{url.host}]" if ":" in url.host else url.host
        account = quote(url.user or "", safe="")
        self._address = f"{scheme}://{host}:{url.port}/2010-04-01/Accounts/{account}/Messages.json"
        self._auth = (url.user or "", url.password or "")
        sender = url.options["from"]
        service = sender.startswith("MG") and len(sender) == 34
        self._fields = {"MessagingServiceSid" if service else "From": sender}
        if callback is not None:
            self._fields["StatusCallback"] = callback
        self._clock = clock
        self._http = http
        self._holds = True
        http.hold()

    async def send(self, message: Any, target: Target) -> Outcome:
        """Carry one `Sms` to one number."""
        fields = {**self._fields, "To": target.address, "Body": message.text}
        said = await self._http.post(
            self._address,
            body=urlencode(fields).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            timeout_seconds=self._timeout_seconds,
            auth=self._auth,
        )
        if isinstance(said, Lost):
            if said.may_have_arrived:
                return Unclear(said.code, said.detail)
            return RetryAfter(said.code, said.detail)
        return outcome_of(said, self._clock.now_us())

    async def close(self) -> None:
        """Let go of the shared session."""
        if self._holds:
            self._holds = False
            await self._http.let_go()


def outcome_of(answer: Answer, now_us: int) -> Outcome:
    """What an answer means."""
    said = _document(answer.body)
    if 200 <= answer.status < 300:
        sid = said.get("sid")
        if not isinstance(sid, str) or not 0 < len(sid) <= 128:
            return Unclear("nonsense", f"The gateway answered {answer.status} without the id of a message.")
        return _accepted(said, sid)
    number = said.get("code")
    code = str(number) if isinstance(number, int) else f"http_{answer.status}"
    detail = _sentence(answer.status, number, said.get("message"))
    wait_seconds = retry_after_seconds(answer.headers.get("retry-after"), now_us)
    if answer.status == 429 or number in BUSY:
        return RetryAfter(code, detail, wait_seconds or BUSY_SECONDS, is_providers_fault=False)
    if answer.status in LOST_BEHIND or answer.status >= 520:
        return Unclear(code, detail)
    if answer.status in (400, 413, 422):
        return _refused(number, code, detail)
    return RetryAfter(code, detail, wait_seconds)


def _accepted(said: dict[str, Any], sid: str) -> Outcome:
    """Made, and usually queued; a message can be born failed (for example without credit)."""
    if said.get("status") not in ("failed", "undelivered", "canceled"):
        return Sent(str(said.get("status") or "accepted")[:40], "", sid)
    number = said.get("error_code")
    code = str(number) if isinstance(number, int) else "failed"
    return _refused(number, code, _sentence(201, number, said.get("error_message")))


def _refused(number: object, code: str, detail: str) -> Outcome:
    if number in STOPPED:
        return GiveUp("stop", detail, target_is_gone=True)
    if number in NO_SUCH_NUMBER:
        return GiveUp("invalid_number", detail, target_is_gone=True)
    if number in BAD_SETTINGS:
        return RetryAfter(code, detail)
    if number in OTHER_ROUTE:
        return RetryAfter(code, detail, is_providers_fault=False)
    return GiveUp(code, detail)


def _document(body: bytes) -> dict[str, Any]:
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return said if isinstance(said, dict) else {}


def _sentence(status: int, number: object, message: object) -> str:
    """The answer in words. The gateway's own are shown without digits in a row: they repeat the number."""
    words = printable(message) if isinstance(message, str) else ""
    shown = "".join("#" if one.isdigit() else one for one in words)
    named = f", code {number}" if isinstance(number, int) else ""
    return f"The gateway answered {status}{named}{': ' if shown else '.'}{shown}"
