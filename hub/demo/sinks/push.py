"""A push service (RFC 8030) with its browsers: it takes encrypted messages, and each browser reads and shows its own.

Like a page that uses our `push.js`, a browser reports what it has shown.
"""

import json
import secrets
from base64 import urlsafe_b64encode
from typing import Any, Final

import http_ece
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hub.demo.sinks.arrivals import Arrivals, Arrived
from hub.demo.sinks.gate import HOST
from hub.demo.sinks.web import WebSink
from hub.model.vocabulary import Channel

BODY_LIMIT: Final = 4096  # RFC 8030 §7.2: what a service must take


class Browser:
    """A browser that somebody allowed to show notifications: a key pair, a secret and an address at the service."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._secret = secrets.token_bytes(16)

    @property
    def subscription(self) -> dict[str, Any]:
        """What `PushSubscription.toJSON()` says."""
        point = self._key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        keys = {"p256dh": _base64url(point), "auth": _base64url(self._secret)}
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": keys}

    def read(self, body: bytes) -> dict[str, Any]:
        """Decrypt a message (RFC 8291)."""
        plain = http_ece.decrypt(body, private_key=self._key, auth_secret=self._secret, version="aes128gcm")
        found: dict[str, Any] = json.loads(plain)
        return found


class PushSink(WebSink):
    """One push service."""

    label = "the push service"

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__()
        self._arrivals = arrivals
        self._browsers: dict[str, Browser] = {}
        self.app.router.add_post("/push/{browser}", self._take)

    @property
    def host(self) -> str:
        """Its part of CLARION_PUSH_ALLOWED_HOSTS."""
        return f"{HOST}:{self.gate.port}"

    def new_browser(self) -> Browser:
        """A browser that subscribed."""
        name = secrets.token_urlsafe(16)
        browser = self._browsers[name] = Browser(f"http://{self.host}/push/{name}")
        return browser

    async def _take(self, request: web.Request) -> web.Response:
        browser = self._browsers.get(request.match_info["browser"])
        if browser is None:
            return web.Response(status=410)
        if "TTL" not in request.headers or not request.headers.get("Authorization", "").startswith("vapid "):
            return web.Response(status=400, text="A message has a TTL and a VAPID signature.")
        body = await request.read()
        if len(body) > BODY_LIMIT:
            return web.Response(status=413)
        try:
            message = browser.read(body)
        except (http_ece.ECEException, ValueError) as error:
            return web.Response(status=400, text=f"The browser cannot read it: {error}")
        shown = message["notification"]
        self._arrivals.add(
            Arrived(
                Channel.WEB_PUSH,
                browser.endpoint,
                str(shown["title"]),
                str(shown.get("body", "")),
                self.label,
                str(shown["id"]),
            )
        )
        if receipt := message.get("receipt"):
            self.later(self._report(receipt))
        return web.Response(status=201, headers={"Location": f"http://{self.host}/message/{shown['id']}"})

    async def _report(self, address: str) -> None:
        async with self.session.post(address, json={"event": "shown"}) as answer:
            await answer.read()


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
