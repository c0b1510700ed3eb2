"""Web push: one provider, `web_push`, for all push services that browsers use (RFC 8030, 8188, 8291, 8292).

A user's targets are browsers, each with an endpoint at the push service of its maker. The services are told apart
here, not by the engine: one that is down has a breaker of its own, so that the others are asked as before. A message
that may have been taken is sent again under the same Topic, and shown under the same tag: people see it once.
"""

import logging
from collections.abc import Sequence
from ssl import SSLContext
from typing import Any, Final

from aiohttp.abc import AbstractResolver
from pywebpush import WebPusher, WebPushException
from yarl import URL

from hub.config import Settings
from hub.errors import ConfigError
from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent, Unclear
from hub.model.outgoing import Outgoing, Target
from hub.model.push_hosts import Endpoint, PushHosts
from hub.model.vocabulary import Channel
from hub.ports import Clock
from hub.push_keys import read_private_key
from workers.channels.base import Provider
from workers.channels.http import Answer, HttpClient, printable, retry_after_seconds
from workers.channels.push_addresses import PublicOnly
from workers.channels.push_breakers import Breakers
from workers.channels.push_message import PushMessage, compose_push
from workers.channels.push_vapid import VapidHeaders

CONNECTIONS: Final = 64
TIMEOUT_SECONDS: Final = 15.0
TEXT_LIMIT_BYTES: Final = 4_096  # of an answer, to look for what it means
UNREACHABLE: Final = "mailto:nobody@localhost"  # on a hub without a public address; Apple refuses it
LONGEST_TTL_SECONDS: Final = 4 * 7 * 86_400  # what the large push services keep at most
_TAKEN: Final = (200, 201, 202, 204)
_GONE: Final = (404, 410)  # RFC 8030 §7.3: the subscription has expired, or never was
_BUSY: Final = (408, 425, 429)
# What push services write about a subscription that was made with another key pair than the one that signs now.
_MISMATCH: Final = ("vapidpkhashmismatch", "do not correspond", "mismatch")
_BAD_TOKEN: Final = ("badjwttoken", "expiredjwttoken", "invalidjwt", "jwt", "vapid", "unauthorized")

_log = logging.getLogger(__name__)


def web_push_sender(
    vapid_private_key: str,
    vapid_subject: str,
    allowed_hosts: Sequence[str],
    clock: Clock,
    *,
    connections: int = CONNECTIONS,
    timeout_seconds: float = TIMEOUT_SECONDS,
    tls: SSLContext | None = None,
    resolver: AbstractResolver | None = None,
) -> "WebPushSender":
    """The channel. `allowed_hosts`: push services beside the known ones. Raises ConfigError for a key that is none.

    `timeout_seconds`: for a whole request. `tls` and `resolver` replace the system's trust and name service.
    """
    headers = VapidHeaders(read_private_key(vapid_private_key), vapid_subject, clock)
    hosts = PushHosts(allowed_hosts)
    http = HttpClient(tls=tls, resolver=lambda: PublicOnly(hosts.loopback_names, resolver))
    provider = WebPushProvider(hosts, headers, http, clock, connections, timeout_seconds)
    return WebPushSender(provider)


def web_push_of(settings: Settings, clock: Clock) -> "WebPushSender":
    """The channel as the settings say. Raises ConfigError for a key that is none."""
    key = settings.vapid_private_key
    if key is None:
        raise ConfigError(
            "CLARION_VAPID_PRIVATE_KEY is not set, and no key was generated into CLARION_DATA_DIR."
        )
    public = settings.public
    subject = settings.vapid_subject or (public.origin if public.is_https else UNREACHABLE)
    return web_push_sender(key.get_secret_value(), subject, settings.push_allowed_hosts, clock)


class WebPushSender:
    """`workers.channels.base.Sender` for browsers."""

    channel = Channel.WEB_PUSH
    repeats = True

    def __init__(self, provider: "WebPushProvider") -> None:
        self.providers: Sequence[Provider] = (provider,)

    def compose(self, outgoing: Outgoing) -> PushMessage:
        """The message, the same for every browser. Raises `ComposeError`."""
        return compose_push(outgoing)


class WebPushProvider:
    """`workers.channels.base.Provider`: encrypts for one browser and posts to its push service."""

    name = "web_push"
    per_second: float | None = None

    def __init__(
        self,
        hosts: PushHosts,
        vapid: VapidHeaders,
        http: HttpClient,
        clock: Clock,
        connections: int,
        timeout_seconds: float,
    ) -> None:
        self.connections = connections
        self._hosts = hosts
        self._vapid = vapid
        self._http = http
        self._http.hold()
        self._clock = clock
        self._timeout_seconds = timeout_seconds
        self._breakers = Breakers()

    async def send(self, message: Any, target: Target) -> Outcome:
        """Carry one message to one browser. A push service's trouble is its own: it is never the provider's fault."""
        assert isinstance(message, PushMessage)
        try:
            endpoint = self._hosts.endpoint(target.address)
        except ValueError as error:
            return GiveUp("forbidden_endpoint", str(error))
        try:
            body = encrypted(message.payload, target)
        except (WebPushException, ValueError, KeyError):
            return GiveUp("bad_keys", "The browser's keys cannot be used.", target_is_gone=True)
        origin, now_us = endpoint.origin, self._clock.now_us()
        wait_seconds = self._breakers.wait_seconds(origin, now_us)
        if wait_seconds is not None:
            return RetryAfter("service_down", f"{origin} did not work lately.", wait_seconds, False)
        answer = await self._http.post(
            URL(endpoint.url, encoded=True),  # as the browser said it
            body=body,
            headers=self._headers(endpoint, message, now_us),
            timeout_seconds=self._timeout_seconds,
        )
        if isinstance(answer, Answer):
            return self._outcome(origin, answer)
        lost = self._failed(origin, answer.code, answer.detail)
        if answer.may_have_arrived:
            return Unclear(lost.code, lost.detail, is_providers_fault=False)
        return lost

    def _headers(self, endpoint: Endpoint, message: PushMessage, now_us: int) -> dict[str, str]:
        ttl_seconds = LONGEST_TTL_SECONDS
        if message.expires_at_us is not None:
            left = (message.expires_at_us - now_us) // 1_000_000
            ttl_seconds = min(max(left, 0), LONGEST_TTL_SECONDS)
        urgency = message.urgency
        if urgency == "normal" and endpoint.host.endswith("push.apple.com"):
            urgency = "high"  # with less, iOS shows it when it is convenient
        return {
            "TTL": str(ttl_seconds),  # RFC 8030 §5.2: mandatory
            "Urgency": urgency,
            "Topic": message.topic,
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "Authorization": self._vapid.header(endpoint.origin),
        }

    def _failed(self, origin: str, code: str, detail: str, seconds: float | None = None) -> RetryAfter:
        if self._breakers.failed(origin, self._clock.now_us()):
            _log.warning(
                "the push service %s does not work and is left alone for a while: %s", origin, detail
            )
        return RetryAfter(code, f"{origin}: {detail}", seconds, is_providers_fault=False)

    def _outcome(self, origin: str, answer: Answer) -> Outcome:
        """What an answer means (RFC 8030 §5, §7, §8.4), in words that show no endpoint."""
        status, code = answer.status, str(answer.status)
        text = answer.body[:TEXT_LIMIT_BYTES].decode("utf-8", "replace")
        said = printable(text)
        detail = f"It answered {status}" + (f": {said}" if said else ".")
        seconds = retry_after_seconds(answer.headers.get("retry-after"), self._clock.now_us())
        if status >= 500:
            return self._failed(origin, code, detail, seconds)
        self._breakers.worked(origin)
        detail = f"{origin}: {detail}"
        if status in _TAKEN:
            return Sent(code)
        if status in _GONE:
            return GiveUp(code, detail, target_is_gone=True)
        if status in _BUSY:
            return RetryAfter(code, detail, seconds, is_providers_fault=False)
        if status in (400, 401, 403) and (refusal := self._vapid_refusal(origin, status, text, said)):
            return refusal
        if 300 <= status < 400:
            return GiveUp(code, f"{origin} answered with a redirect, which is not followed.")
        if 200 <= status < 300:
            return Unclear(code, detail, is_providers_fault=False)
        return GiveUp(code, detail)

    def _vapid_refusal(self, origin: str, status: int, text: str, said: str) -> RetryAfter | None:
        """The push service does not accept our signature: ours to put right, and the subscription lives on."""
        lowered = text.lower()
        if any(word in lowered for word in _MISMATCH):
            return RetryAfter(
                "vapid_mismatch",
                f"{origin} answered {status}: this browser subscribed with another key pair than "
                "CLARION_VAPID_PRIVATE_KEY is now. Bring the old key back, or let the browser subscribe again.",
                is_providers_fault=False,
            )
        if status == 400 and not any(word in lowered for word in _BAD_TOKEN):
            return None
        self._vapid.forget(origin)
        sentence = (
            f"{origin} answered {status} and does not accept our signature"
            + (f" ({said})" if said else "")
            + ". CLARION_VAPID_SUBJECT must name somebody who can be reached, and this machine's clock must be right."
        )
        _log.warning("%s", sentence)
        return RetryAfter("vapid_refused", sentence, is_providers_fault=False)

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.let_go()


def encrypted(payload: bytes, target: Target) -> bytes:
    """A payload for one browser, as aes128gcm (RFC 8291). Raises WebPushException or ValueError for keys that are none."""
    pusher = WebPusher({"endpoint": target.address, "keys": dict(target.keys)})
    body: bytes = pusher.encode(payload, "aes128gcm")["body"]
    return body
