"""An SMS gateway that speaks Twilio's REST API: it takes messages and reports that they were delivered, signed."""

import asyncio
import secrets
from collections.abc import Mapping
from itertools import count
from typing import Final

import aiohttp
from aiohttp import web

from hub.demo.sinks.arrivals import Arrivals, Arrived
from hub.demo.sinks.gate import HOST
from hub.demo.sinks.web import WebSink
from hub.model.vocabulary import Channel
from hub.sms_receipts import sign

NUMBER: Final = "+15005550006"  # Twilio's own number for trying
REPORTS: Final = ("sent", "delivered")


class SmsSink(WebSink):
    """One gateway with one account."""

    label = "the gateway"

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__()
        self._arrivals = arrivals
        self._account = "AC" + secrets.token_hex(16)
        self._token = secrets.token_hex(16)
        self._numbers = count(1)
        self.app.router.add_post("/2010-04-01/Accounts/{account}/Messages.json", self._take)

    @property
    def name(self) -> str:
        """What the hub calls it in its log."""
        return f"twilio+http://{HOST}:{self.gate.port}"

    @property
    def address(self) -> str:
        """Its part of CLARION_SMS_PROVIDERS."""
        account = f"{self._account}:{self._token}"
        return f"twilio+http://{account}@{HOST}:{self.gate.port}?from={NUMBER}"

    async def _take(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if request.headers.get("Authorization") != aiohttp.encode_basic_auth(self._account, self._token):
            return _problem(401, 20003, "Authenticate")
        if not form.get("To") or not form.get("Body"):
            return _problem(400, 21602, "Message body is required.")
        sid = f"SM{next(self._numbers):032x}"
        self._arrivals.add(Arrived(Channel.SMS, form["To"], "", form["Body"], self.label, sid))
        if callback := form.get("StatusCallback"):
            self.later(self._report(callback, sid, form))
        made = {"sid": sid, "to": form["To"], "body": form["Body"], "status": "queued", "error_code": None}
        return web.json_response(made, status=201)

    async def _report(self, address: str, sid: str, form: Mapping[str, str]) -> None:
        """What became of a message, state after state."""
        for status in REPORTS:
            fields = {
                "AccountSid": self._account,
                "From": form.get("From", ""),
                "To": form["To"],
                "MessageSid": sid,
                "MessageStatus": status,
            }
            signature = sign(self._token, address, list(fields.items()))
            async with self.session.post(
                address, data=fields, headers={"X-Twilio-Signature": signature}
            ) as answer:
                await answer.read()
            await asyncio.sleep(0.05)


def _problem(status: int, code: int, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message, "status": status}, status=status)
