"""A push service (RFC 8030) that takes nothing on trust: it checks VAPID, decrypts, and answers as its plan says.

It is written from the RFCs and shares no code with the sender: signatures are checked by PyJWT, keys by cryptography.
"""

import asyncio
import json
import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from secrets import token_bytes, token_urlsafe
from ssl import SSLContext
from typing import Any, TypeVar

import http_ece
import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

VAPID_KEY = (
    "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"  # the private key of RFC 8291 appendix A's user agent
)
SUBJECT = "mailto:ops@example.com"


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Browser:
    """A user agent: its key pair and its secret."""

    def __init__(self, endpoint: str, name: str = "") -> None:
        self.endpoint = endpoint
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = token_bytes(16)

    @property
    def subscription(self) -> dict[str, Any]:
        """PushSubscription.toJSON()."""
        point = self.key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        keys = {"p256dh": b64(point), "auth": b64(self.auth)}
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": keys}

    def decrypt(self, body: bytes) -> bytes:
        plain: bytes = http_ece.decrypt(
            body, private_key=self.key, auth_secret=self.auth, version="aes128gcm"
        )
        return plain


@dataclass
class Answer:
    """One planned answer. `then`: "answer", "hang" (after reading), "drop" (close without one), "nonsense" (no HTTP)."""

    status: int = 201
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    then: str = "answer"


@dataclass
class Received:
    """A message that was taken."""

    browser: Browser
    headers: dict[str, str]
    size: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def claims(self) -> dict[str, Any]:
        found: dict[str, Any] = jwt.decode(
            self.headers["authorization"].partition("t=")[2].partition(",")[0],
            options={"verify_signature": False},
        )
        return found


class PushService:
    """Serves on a free port of the loopback. `plan`: what to answer next; when it is used up, 201."""

    def __init__(self) -> None:
        self.origin = ""
        self.plan: list[Answer] = []
        self.received: list[Received] = []
        self.refused: list[str] = []  # why it did not take a message
        self.requests = 0
        self.connections: set[object] = set()
        self.arrived = asyncio.Event()
        self._browsers: dict[str, Browser] = {}
        self._let_go = asyncio.Event()

    def add_routes(self, app: web.Application) -> None:
        """What it serves."""
        app.router.add_post("/{path:.*}", self.take)

    @property
    def host(self) -> str:
        """As CLARION_PUSH_ALLOWED_HOSTS names it."""
        return self.origin.partition("://")[2]

    def subscribe(self, name: str = "") -> Browser:
        """A new browser."""
        id_ = token_urlsafe(24)
        browser = self._browsers[f"/push/{id_}"] = Browser(f"{self.origin}/push/{id_}", name)
        return browser

    def forget(self, browser: Browser) -> None:
        """Its subscription has ended: 410 from now on."""
        del self._browsers[browser.endpoint.removeprefix(self.origin)]

    async def wait_for(self, count: int, seconds: float = 20.0) -> list[Received]:
        """Return when so many messages were taken."""
        async with asyncio.timeout(seconds):
            while len(self.received) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.received

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.connections.add(request.transport)
        body = await request.read()
        answer = self.plan.pop(0) if self.plan else None
        if answer is not None and answer.then != "answer":
            return await self._misbehave(request, answer)
        if answer is not None and answer.status != 201:
            return web.Response(status=answer.status, headers=answer.headers, text=answer.body)
        browser = self._browsers.get(request.path)
        if browser is None:
            return web.Response(status=410)
        if why := self._refusal(request, body):
            self.refused.append(why)
            return web.Response(status=403 if "VAPID" in why else 400, text=why)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(browser, headers, len(body), await self.deliver(browser, body)))
        self.arrived.set()
        return web.Response(status=201, headers={"Location": f"{self.origin}/message/{token_urlsafe(8)}"})

    async def deliver(self, browser: Browser, body: bytes) -> str:
        """Hand a message to its browser; returns what it reads."""
        return browser.decrypt(body).decode()

    def _refusal(self, request: web.Request, body: bytes) -> str | None:
        headers = request.headers
        if not re.fullmatch(r"[0-9]+", headers.get("TTL", "")):
            return "no TTL (RFC 8030 §5.2)"
        if headers.get("Urgency", "normal") not in ("very-low", "low", "normal", "high"):
            return "no such urgency (RFC 8030 §5.3)"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", headers.get("Topic", "x")):
            return "no topic (RFC 8030 §5.4)"
        if headers.get("Content-Encoding") != "aes128gcm" or len(body) > 4096:
            return f"not aes128gcm, or {len(body)} bytes (RFC 8291 §4)"
        return self._vapid_refusal(headers.get("Authorization", ""))

    def _vapid_refusal(self, header: str) -> str | None:
        parts = re.fullmatch(r"vapid t=([^,\s]+), ?k=([A-Za-z0-9_-]+)", header)
        if parts is None:
            return "VAPID: not `vapid t=…, k=…` (RFC 8292 §3)"
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), unb64(parts[2]))
        try:
            claims = jwt.decode(
                parts[1], key, algorithms=["ES256"], audience=self.origin, options={"verify_exp": False}
            )
        except jwt.InvalidTokenError as error:
            return f"VAPID: {error}"
        if not self.now() < claims["exp"] <= self.now() + 86_400:
            return f"VAPID: expires at {claims['exp']} (RFC 8292 §2)"
        return None if re.match(r"(mailto:|https://)", claims.get("sub", "")) else "VAPID: no subject"

    def now(self) -> float:
        """Its clock; a test may have another one."""
        return time.time()

    async def _misbehave(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        assert request.transport is not None
        if answer.then == "hang":
            await self._let_go.wait()
        if answer.then == "nonsense":
            request.transport.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        request.transport.close()
        return web.Response(status=500)

    def let_go(self) -> None:
        """End what hangs."""
        self._let_go.set()


Service = TypeVar("Service", bound=PushService)


@asynccontextmanager
async def open_push_service(
    clock: Any = None,
    tls: SSLContext | None = None,
    kind: type[Service] = PushService,  # type: ignore[assignment]
) -> AsyncIterator[Service]:
    """A service at work. With a `clock` (`now_us`) it lives in that time; with `tls` it speaks HTTPS."""
    service = kind()
    if clock is not None:
        service.now = lambda: clock.now_us() / 1_000_000  # type: ignore[method-assign]
    app = web.Application()
    service.add_routes(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    port = runner.addresses[0][1]
    service.origin = f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    try:
        yield service
    finally:
        service.let_go()
        await runner.cleanup()
