"""Push to phones: what a message shows, kept within 4,096 bytes, and the providers that carry it.

A message that may have arrived is sent again: it carries the same tag, so the device shows it once.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Struct

from hub.model.outgoing import Outgoing
from hub.model.sms import boundary
from hub.model.vocabulary import Channel
from hub.ports import Clock
from hub.provider_urls import ProviderUrl
from workers.channels.base import ComposeError, Provider
from workers.channels.fcm import FcmProvider
from workers.channels.http import HttpClient
from workers.channels.texts import line, own_texts, short_text

MESSAGE_LIMIT_BYTES: Final = 4096  # Firebase, "About FCM messages": the largest payload
TITLE_LIMIT: Final = 200
COLLAPSE_LIMIT_BYTES: Final = 64  # Apple, "Sending notification requests to APNs": apns-collapse-id

_ANDROID: Final = {
    "low": ("NORMAL", "PRIORITY_LOW"),
    "normal": ("HIGH", "PRIORITY_DEFAULT"),
    "high": ("HIGH", "PRIORITY_HIGH"),
}
_APNS: Final = {"low": "5", "normal": "10", "high": "10"}
_encode = msgspec.json.Encoder().encode


class MobilePush(Struct, frozen=True):
    """A message of FCM HTTP v1 without its token and its time to live. `expires_at_us`: when it is worth nothing."""

    content: dict[str, Any]
    expires_at_us: int | None


class MobilePushSender:
    """The mobile push channel (`workers.channels.base.Sender`)."""

    channel = Channel.MOBILE_PUSH
    repeats = True

    def __init__(self, providers: Sequence[Provider]) -> None:
        self.providers: Sequence[Provider] = list(providers)

    def compose(self, outgoing: Outgoing) -> MobilePush:
        """The message. A body that is too long is cut, then the address goes. Raises `ComposeError`."""
        own, short = own_texts(outgoing, Channel.MOBILE_PUSH), short_text(outgoing)
        title = line(own.get("subject", short.title))
        title = title[: boundary(title, TITLE_LIMIT)]
        body = own.get("text", short.body)
        if not title and not body:
            raise ComposeError(f"The text of type {outgoing.kind.name!r} came out empty.")
        url = outgoing.newest.content.url
        for one in dict.fromkeys((url, None)):
            content = _content(outgoing, title, "", one)
            room = MESSAGE_LIMIT_BYTES - len(_encode(content))
            if room >= 0:
                content["notification"]["body"] = trimmed(body, room)
                return MobilePush(content, outgoing.delivery.expires_at_us)
        raise ComposeError(f"The message of type {outgoing.kind.name!r} does not fit into 4096 bytes.")


def _content(outgoing: Outgoing, title: str, body: str, url: str | None) -> dict[str, Any]:
    newest = outgoing.newest
    event = newest.event
    tag = short_tag(event.collapse_key or newest.notification_id)
    priority, shown = _ANDROID[event.priority]
    android: dict[str, Any] = {
        "priority": priority,
        "notification": {"tag": tag, "notification_priority": shown},
    }
    if (
        event.collapse_key is not None
    ):  # devices hold messages of four keys only, so no key for what replaces nothing
        android["collapse_key"] = tag
    data = {
        "kind": "notification",
        "notification_id": newest.notification_id,
        "event_id": event.id,
        "type": outgoing.kind.name,
        "category": outgoing.delivery.category,
        "url": url,
    }
    return {
        "notification": {"title": title, "body": body},
        "data": {name: value for name, value in data.items() if value is not None},
        "android": android,
        "apns": {"headers": {"apns-priority": _APNS[event.priority], "apns-collapse-id": tag}},
        "webpush": {"headers": {"Urgency": event.priority}},
    }


def short_tag(text: str) -> str:
    """A name of at most 64 bytes: the text itself, or a hash of it."""
    whole = text.encode()
    if len(whole) <= COLLAPSE_LIMIT_BYTES and text.isascii() and text.isprintable():
        return text
    return blake2b(whole, digest_size=32).hexdigest()


def trimmed(body: str, room: int) -> str:
    """As much of a text as takes at most `room` bytes within JSON, cut between two characters as people see them."""
    if len(_encode(body)) - 2 <= room:
        return body
    ellipsis = "…"
    room -= len(ellipsis.encode())
    if room < 0:
        return ""
    low, high = 0, min(len(body), room)
    while low < high:
        middle = (low + high + 1) // 2
        if len(_encode(body[:middle])) - 2 <= room:
            low = middle
        else:
            high = middle - 1
    return body[: boundary(body, low)].rstrip() + ellipsis


def mobile_push_sender(
    urls: Sequence[ProviderUrl], clock: Clock, http: HttpClient | None = None
) -> MobilePushSender:
    """The channel on its configured providers. Raises `ConfigError` for credentials that cannot be used."""
    shared = http or HttpClient()
    return MobilePushSender([FcmProvider(url, clock, shared) for url in urls])
