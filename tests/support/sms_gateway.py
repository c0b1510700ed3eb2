"""An SMS gateway that speaks Twilio's REST API: it checks credentials and fields, answers by plan, and calls back.

`plan` holds what the next requests meet, one entry each; an empty plan accepts. Signatures are computed here a second
time, so that product and gateway only agree when both follow the published rule.
"""

import base64
import hashlib
import hmac
import ssl
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web

from hub.model.vocabulary import Channel
from hub.provider_urls import ProviderUrl, parse_provider
from tests.support.web_server import WebServer

SID = "AC00000000000000000000000000000001"
TOKEN = "gateway-token-of-the-tests"
FROM = "+15005550006"


@dataclass(frozen=True)
class Refuse:
    """An error document, as Twilio writes it."""

    status: int
    code: int | None = None
    message: str = "Refused."
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Say:
    """Any answer at all."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Born:
    """A message that is made, in this state."""

    status: str
    error_code: int | None = None


@dataclass(frozen=True)
class Hang:
    """No answer."""


@dataclass(frozen=True)
class Drop:
    """The message is taken, and the connection cut."""


Plan = Refuse | Say | Born | Hang | Drop


class SmsGateway(WebServer):
    """`messages`: what was accepted, as forms with their `sid`; `requests`: all that came."""

    def __init__(self, sid: str = SID, token: str = TOKEN, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.sid = sid
        self.token = token
        self.plan: deque[Plan] = deque()
        self.requests: list[dict[str, str]] = []
        self.messages: list[dict[str, str]] = []
        self._numbers = count(1)
        self.add("POST", "/2010-04-01/Accounts/{account}/Messages.json", self._message)

    def address(self, **options: str) -> str:
        """What `CLARION_SMS_PROVIDERS` says of it."""
        given = urlencode({"from": FROM, **options}, safe="+", quote_via=quote)
        return f"twilio+http://{self.sid}:{self.token}@127.0.0.1:{self.port}?{given}"

    def provider(self, **options: str) -> ProviderUrl:
        """The same, taken apart."""
        return parse_provider(Channel.SMS, self.address(**options))

    async def _message(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.requests.append(form)
        if request.headers.get("Authorization") != aiohttp.encode_basic_auth(self.sid, self.token):
            return _error(Refuse(401, 20003, "Authenticate"))
        if request.match_info["account"] != self.sid:
            return _error(Refuse(404, 20404, f"The requested resource {request.path} was not found"))
        if not form.get("Body") or not form.get("To"):
            return _error(Refuse(400, 21602, "Message body is required."))
        if not (form.get("From") or form.get("MessagingServiceSid", "").startswith("MG")):
            return _error(Refuse(400, 21603, "A 'From' phone number is required."))
        planned = self.plan.popleft() if self.plan else Born("queued")
        match planned:
            case Refuse():
                return _error(planned)
            case Say():
                return web.Response(status=planned.status, body=planned.body, headers=planned.headers)
            case Hang():
                self._keep(form)
                return await self.hang()
            case Drop():
                self._keep(form)
                return self.drop(request)
            case _:
                sid = self._keep(form)
                made = {
                    "sid": sid,
                    "account_sid": self.sid,
                    "to": form["To"],
                    "from": form.get("From"),
                    "body": form["Body"],
                    "status": planned.status,
                    "error_code": planned.error_code,
                    "error_message": None,
                }
                return web.json_response(made, status=201)

    def _keep(self, form: dict[str, str]) -> str:
        sid = f"SM{next(self._numbers):032x}"
        self.messages.append({**form, "sid": sid})
        return sid

    def signature(self, address: str, fields: dict[str, str], token: str | None = None) -> str:
        """X-Twilio-Signature of a call to an address."""
        text = address
        for name in sorted(fields):
            text += name + fields[name]
        digest = hmac.new((token or self.token).encode(), text.encode(), hashlib.sha1).digest()
        return base64.b64encode(digest).decode()

    def receipt(self, message: dict[str, str], status: str, error: int | None = None) -> dict[str, str]:
        """The fields of a status callback."""
        fields = {
            "AccountSid": self.sid,
            "ApiVersion": "2010-04-01",
            "From": message.get("From", ""),
            "To": message["To"],
            "MessageSid": message["sid"],
            "SmsSid": message["sid"],
            "MessageStatus": status,
            "SmsStatus": status,
        }
        return fields if error is None else {**fields, "ErrorCode": str(error)}

    def incoming(self, number: str, body: str, **more: str) -> dict[str, str]:
        """The fields of a message that a person sends to our number."""
        return {
            "AccountSid": self.sid,
            "MessageSid": "SM" + "f" * 32,
            "From": number,
            "To": FROM,
            "Body": body,
            "NumMedia": "0",
            "SmsStatus": "received",
            **more,
        }

    async def call_back(self, message: dict[str, str], status: str, error: int | None = None) -> int:
        """Report on an accepted message to the address that came with it; returns the answer's status."""
        address = message["StatusCallback"]
        fields = self.receipt(message, status, error)
        headers = {"X-Twilio-Signature": self.signature(address, fields)}
        async with (
            aiohttp.ClientSession() as session,
            session.post(address, data=fields, headers=headers) as answer,
        ):
            return answer.status


def _error(refuse: Refuse) -> web.Response:
    document = {
        "code": refuse.code,
        "message": refuse.message,
        "more_info": f"https://www.twilio.com/docs/errors/{refuse.code}",
        "status": refuse.status,
    }
    return web.json_response(document, status=refuse.status, headers=refuse.headers)
