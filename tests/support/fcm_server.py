"""A local FCM (HTTP v1) with its OAuth token server: it verifies the service account, checks messages strictly and
answers in the documented shapes, by plan.

`plan` holds what the next messages meet, `token_plan` what the next requests for a token meet; empty plans accept.
"""

import json
import re
from collections import deque
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from hub.model.vocabulary import Channel
from hub.provider_urls import ProviderUrl, parse_provider
from tests.support.web_server import WebServer

PROJECT = "clarion-Tests"
ACCOUNT = "sender@clarion-tests.iam.gserviceaccount.com"
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
AUDIENCE = "https://oauth2.googleapis.com/token"  # whatever the address: so the account signs it
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


@dataclass(frozen=True)
class Fail:
    """An error document. `code` is FCM's own; `fields` those that it complains of."""

    status: int
    word: str
    message: str
    code: str | None = None
    fields: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Say:
    """Any answer at all."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hang:
    """No answer."""


@dataclass(frozen=True)
class Drop:
    """The message is taken, and the connection cut."""


Plan = Fail | Say | Hang | Drop

UNREGISTERED = Fail(404, "NOT_FOUND", "Requested entity was not found.", "UNREGISTERED")
BAD_TOKEN = Fail(
    400,
    "INVALID_ARGUMENT",
    "The registration token is not a valid FCM registration token",
    "INVALID_ARGUMENT",
)
BAD_TOKEN_FIELD = Fail(
    400, "INVALID_ARGUMENT", "Request contains an invalid argument.", "INVALID_ARGUMENT", ("message.token",)
)
BAD_VALUE = Fail(
    400,
    "INVALID_ARGUMENT",
    "Invalid value at 'message.data[0].value' (TYPE_STRING), 12",
    None,
    ("message.data[0].value",),
)
TOO_BIG = Fail(400, "INVALID_ARGUMENT", "Message is too big", "INVALID_ARGUMENT")
OTHER_SENDER = Fail(403, "PERMISSION_DENIED", "SenderId mismatch", "SENDER_ID_MISMATCH")
NOT_ALLOWED = Fail(403, "PERMISSION_DENIED", "Permission 'cloudmessaging.messages.create' denied")
NO_PROJECT = Fail(404, "NOT_FOUND", "Project not found.")
APNS_REFUSES = Fail(
    401, "UNAUTHENTICATED", "Auth error from APNS or Web Push Service", "THIRD_PARTY_AUTH_ERROR"
)
QUOTA = Fail(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", "QUOTA_EXCEEDED")
UNAVAILABLE = Fail(503, "UNAVAILABLE", "The service is currently unavailable.", "UNAVAILABLE")
INTERNAL = Fail(500, "INTERNAL", "Internal error encountered.", "INTERNAL")


@lru_cache
def service_key(number: int = 0) -> rsa.RSAPrivateKey:
    """The key of a service account; making one takes a moment."""
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class FcmServer(WebServer):
    """`messages`: what was accepted; `requests`: all that came with a good access token."""

    def __init__(self, project: str = PROJECT) -> None:
        super().__init__()
        self.project = project
        self.plan: deque[Plan] = deque()
        self.token_plan: deque[Plan] = deque()
        self.messages: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.access_tokens: list[str] = []
        self.valid_tokens: set[str] = set()
        self.seconds = 3599
        self._numbers = count(1)
        self.add("POST", "/token", self._token)
        self.add("POST", "/v1/projects/{project}/messages:send", self._send)

    def credentials(self, folder: Path, key: rsa.RSAPrivateKey | None = None) -> Path:
        """A service account's file, as the console hands it out."""
        pem = (key or service_key()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        account = {
            "type": "service_account",
            "project_id": self.project,
            "private_key_id": "k1",
            "private_key": pem.decode(),
            "client_email": ACCOUNT,
            "client_id": "1",
            "token_uri": f"{self.origin}/token",
        }
        path = folder / "service-account.json"
        path.write_text(json.dumps(account))
        return path

    def address(self, credentials: Path, **options: str) -> str:
        """What `CLARION_MOBILE_PROVIDERS` says of it."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"fcm://{self.project}?credentials={credentials}&endpoint={self.origin}{more}"

    def provider(self, credentials: Path, **options: str) -> ProviderUrl:
        """The same, taken apart."""
        return parse_provider(Channel.MOBILE_PUSH, self.address(credentials, **options))

    # ------------------------------------------------------------ the token server (RFC 7523)

    async def _token(self, request: web.Request) -> web.StreamResponse:
        planned = self.token_plan.popleft() if self.token_plan else None
        if planned is not None:
            return await self._planned(planned, request)
        form = await request.post()
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return _oauth_error("unsupported_grant_type", "Invalid grant_type")
        try:
            claims = jwt.decode(
                str(form.get("assertion")),
                service_key().public_key(),
                algorithms=["RS256"],
                audience=AUDIENCE,
                options={"require": ["exp", "iat", "iss"]},
            )
        except jwt.InvalidTokenError:
            return _oauth_error("invalid_grant", "Invalid JWT Signature.")
        if claims["iss"] != ACCOUNT or claims.get("scope") != SCOPE:
            return _oauth_error("invalid_scope", "Invalid OAuth scope.")
        token = f"ya29.test-{next(self._numbers)}"
        self.access_tokens.append(token)
        self.valid_tokens.add(token)
        return web.json_response({"access_token": token, "expires_in": self.seconds, "token_type": "Bearer"})

    # ------------------------------------------------------------ messages:send

    async def _send(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.valid_tokens:
            return _error(Fail(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."))
        if request.match_info["project"] != self.project:
            return _error(NO_PROJECT)
        message = (await request.json())["message"]
        self.requests.append(message)
        if problem := wrong_field(message):
            return _error(Fail(400, "INVALID_ARGUMENT", f"Invalid value at {problem!r}", None, (problem,)))
        if self.plan:
            return await self._planned(self.plan.popleft(), request)
        self.messages.append(message)
        return web.json_response({"name": f"projects/{self.project}/messages/{next(self._numbers)}"})

    async def _planned(self, planned: Plan, request: web.Request) -> web.StreamResponse:
        match planned:
            case Fail():
                return _error(planned)
            case Say():
                return web.Response(status=planned.status, body=planned.body, headers=planned.headers)
            case Hang():
                return await self.hang()
            case Drop():
                return self.drop(request)


def wrong_field(message: dict[str, Any]) -> str | None:
    """The first field that FCM would not take: types and forms of its reference of `Message`."""
    if not isinstance(message.get("token"), str):
        return "message.token"
    if unknown := message.keys() - {"token", "notification", "data", "android", "apns", "webpush"}:
        return f"message.{min(unknown)}"
    if not all(isinstance(value, str) for value in message["notification"].values()):
        return "message.notification"
    reserved = re.compile(r"from|message_type|google\..*|gcm\..*")
    for name, value in message["data"].items():
        if not isinstance(value, str) or reserved.fullmatch(name):
            return f"message.data[{name}]"
    android = message["android"]
    if android["priority"] not in ("NORMAL", "HIGH") or not re.fullmatch(r"\d+s", android.get("ttl", "0s")):
        return "message.android"
    headers = message["apns"]["headers"]
    if not all(isinstance(value, str) for value in headers.values()):
        return "message.apns.headers"
    if headers["apns-priority"] not in ("1", "5", "10") or len(headers["apns-collapse-id"].encode()) > 64:
        return "message.apns.headers"
    sized = {name: part for name, part in message.items() if name in ("notification", "data")}
    return "message" if len(json.dumps(sized, ensure_ascii=False).encode()) > 4096 else None


def _error(fail: Fail) -> web.Response:
    details: list[dict[str, Any]] = []
    if fail.code is not None:
        details.append({"@type": FCM_ERROR, "errorCode": fail.code})
    if fail.fields:
        violations = [{"field": name, "description": fail.message} for name in fail.fields]
        details.append({"@type": BAD_REQUEST, "fieldViolations": violations})
    error = {"code": fail.status, "message": fail.message, "status": fail.word, "details": details}
    return web.json_response({"error": error}, status=fail.status, headers=fail.headers)


def _oauth_error(code: str, text: str) -> web.Response:
    return web.json_response({"error": code, "error_description": text}, status=400)
