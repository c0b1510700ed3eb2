"""What a web push says: one JSON document for a user's browsers, small enough for every push service.

Pure. Push services must take 4,096 bytes of encrypted body (RFC 8030 §7.2), so 3,993 bytes of text are safe (RFC 8291
§4). What does not fit is cut in the order of its worth: the body first, then data, buttons, icon, title, link.
"""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hub.model.contents import cut
from hub.model.notifications import Content, rfc3339
from hub.model.outgoing import Outgoing
from hub.model.vocabulary import Channel
from hub.push_keys import encode_base64url
from workers.channels.base import ComposeError
from workers.channels.texts import line, own_texts, short_text

BODY_LIMIT_BYTES: Final = 4096
PLAINTEXT_LIMIT_BYTES: Final = BODY_LIMIT_BYTES - 103  # header of 86, tag of 16, delimiter of 1: RFC 8291 §4
TITLE_LIMIT: Final = 300
SHORT_BODY: Final = 120  # data and buttons are given up before the body gets shorter than this
URGENCIES: Final = {"low": "low", "normal": "normal", "high": "high"}  # RFC 8030 §5.3 has them by these names

_encode = msgspec.json.Encoder().encode


class PushMessage(Struct, frozen=True):
    """A message for each of a user's browsers. `topic`: replaces what waits under it at the push service."""

    payload: bytes
    urgency: str
    topic: str
    expires_at_us: int | None = None


def compose_push(outgoing: Outgoing) -> PushMessage:
    """The message of one delivery. Raises `ComposeError` when a template fails, or even the least does not fit."""
    newest = outgoing.newest
    event = newest.event
    topic = topic_of(event.collapse_key or outgoing.delivery.id)
    content = _content(outgoing)
    shown: dict[str, Any] = {
        "id": newest.notification_id,
        "title": content.title,
        "body": content.body,
        "tag": topic if event.collapse_key is not None else newest.notification_id,
        "type": outgoing.kind.name,
        "category": outgoing.delivery.category,
        "created_at": rfc3339(newest.created_at_us),
    }
    for name, value in (
        ("url", content.url),
        ("icon", content.icon or content.actor_avatar),
        ("actions", [{"title": one.title, "url": one.url} for one in content.actions]),
        ("data", content.data),
        ("renotify", event.collapse_key is not None),
    ):
        if value:
            shown[name] = value
    urgency = "high" if outgoing.kind.definition.critical else URGENCIES[event.priority]
    payload = fit(shown, outgoing.urls.get("receipt"))
    return PushMessage(payload, urgency, topic, outgoing.delivery.expires_at_us)


def topic_of(text: str) -> str:
    """A Topic header for a text: 32 characters of base64url, the most there may be (RFC 8030 §5.4)."""
    return encode_base64url(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=24).digest())


def fit(shown: Mapping[str, Any], receipt: str | None) -> bytes:
    """The JSON of a message, cut to what fits. Raises `ComposeError` when even title and id are too much."""
    for candidate, least in _shorter(shown):
        if (found := _with_longest_body(candidate, receipt, least)) is not None:
            return found
    raise ComposeError("The push message does not fit into 4,096 bytes, even without its texts.")


def _shorter(shown: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], int]]:
    """One candidate after the other, each smaller, with the length that its body must keep."""
    candidate = dict(shown)
    yield candidate, SHORT_BODY
    for name in ("data", "actions", "icon"):
        if candidate.pop(name, None) is not None:
            yield candidate, SHORT_BODY
    candidate["title"] = cut(candidate["title"], TITLE_LIMIT)
    yield candidate, 0
    if candidate.pop("url", None) is not None:
        yield candidate, 0


def _with_longest_body(shown: Mapping[str, Any], receipt: str | None, least: int) -> bytes | None:
    """The document with as much of its body as fits; None when that is less than `least` characters of it."""
    body = shown["body"]

    def encoded(length: int) -> bytes:
        text = body if length >= len(body) else body[:length].rstrip() + "…" if length else ""
        document: dict[str, Any] = {"v": 1, "notification": {**shown, "body": text}}
        if receipt is not None:
            document["receipt"] = receipt
        return _encode(document)

    def fits(length: int) -> bool:
        return len(encoded(length)) <= PLAINTEXT_LIMIT_BYTES

    if fits(len(body)):
        return encoded(len(body))
    short, long = min(least, len(body)), len(body)
    if not fits(short):
        return None
    while long - short > 1:
        middle = (short + long) // 2
        short, long = (middle, long) if fits(middle) else (short, middle)
    return encoded(short)


def _content(outgoing: Outgoing) -> Content:
    """What is shown: the channel's own texts where the type has them, else what the app shows; a digest in short."""
    own, short = own_texts(outgoing, Channel.WEB_PUSH), short_text(outgoing)
    title = line(own.get("subject", short.title)) or outgoing.kind.name
    content = replace(outgoing.newest.content, title=title, body=own.get("text", short.body))
    return content if len(outgoing.items) == 1 else replace(content, actions=(), data={})
