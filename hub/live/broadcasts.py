"""The payload of the live channel `broadcasts`, and its publications as nodes hold them.

MessagePack of the kind, the broadcast without its texts, and one JSON body per locale, cut in two at the value of
`topic`: a node splices the topic that brought it to a user and never parses a body. What cannot be decoded becomes
a publication that nobody may see, so that offsets stay whole.
"""

from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hub.live.seam import Frame
from hub.model.events import BroadcastAudience
from hub.model.notifications import (
    Broadcast,
    LiveNotification,
    LiveRetracted,
    encode_live,
    wire_broadcast,
)
from hub.model.vocabulary import BROADCASTS
from hub.ports import Message

_CUT: Final = b'"topic":null'  # a quote inside a JSON string is escaped, so no text can contain this
_KEPT_FRAMES: Final = 8


class BroadcastMessage(Struct, frozen=True, array_like=True):
    """One message of the channel. `bodies`: per locale ("" = the type's own texts) the JSON before and after the topic."""

    kind: str  # "notification" or "retracted"
    broadcast: Broadcast  # contents and reasons are left out
    bodies: dict[str, tuple[bytes, bytes]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(BroadcastMessage)
_topic_encoder = msgspec.json.Encoder()


def encode_broadcast(broadcast: Broadcast) -> bytes:
    """The payload that shows a broadcast to everyone who may see it."""
    bodies: dict[str, tuple[bytes, bytes]] = {}
    for locale in broadcast.contents:
        body = encode_live(LiveNotification(wire_broadcast(broadcast, locale, None, None)))
        head, _, tail = body.partition(_CUT)
        bodies[locale] = (head + b'"topic":', tail)
    return _encoder.encode(BroadcastMessage("notification", _meta(broadcast), bodies))


def encode_broadcast_retracted(broadcast: Broadcast) -> bytes:
    """The payload that takes a broadcast back, for those who could see it."""
    body = encode_live(LiveRetracted((broadcast.id,), None, None))
    return _encoder.encode(BroadcastMessage("retracted", _meta(broadcast), {"": (body, b"")}))


def decode(payload: bytes) -> BroadcastMessage:
    """The inverse of both. Raises `msgspec.MsgspecError` for what is not one."""
    return _decoder.decode(payload)


def _meta(broadcast: Broadcast) -> Broadcast:
    return replace(broadcast, contents={}, reasons=(), slice_key="")


_NOTHING: Final = BroadcastMessage(
    "notification",
    Broadcast(
        id="",
        seq=0,
        event_id="",
        type="",
        category="",
        contents={},
        created_at_us=0,
        audience=BroadcastAudience(),
        in_app=False,
    ),
    {},
)


class BroadcastEntry:
    """A publication on `broadcasts` as a node holds it: decoded once; frames are shared by locale and topic."""

    __slots__ = (
        "_frames",
        "accepted_at_us",
        "bodies",
        "broadcast",
        "epoch",
        "excluded",
        "kind",
        "offset",
        "report_id",
        "sequence",
        "size",
    )

    def __init__(self, message: Message, report_id: str = "", accepted_at_us: int = 0) -> None:
        try:
            content = decode(message.payload)
        except msgspec.MsgspecError:
            content = _NOTHING
        self.epoch = message.epoch
        self.offset = message.offset
        self.kind = content.kind
        self.broadcast = content.broadcast
        self.bodies = content.bodies
        self.excluded = frozenset(content.broadcast.audience.exclude)
        self.report_id = report_id
        self.accepted_at_us = accepted_at_us
        self.sequence = 0  # the node's own count of what it fanned out; given when it does
        self.size = len(message.payload)
        self._frames: dict[tuple[str, str | None], Frame] = {}

    def frame(self, locale: str, topic: str | None) -> Frame:
        """The frame in one of the bodies' locales, with the topic that brought it."""
        if self.kind != "notification":
            locale, topic = "", None
        key = (locale, topic)
        frame = self._frames.get(key)
        if frame is None:
            head, tail = self.bodies[locale]
            payload = head if self.kind != "notification" else head + _topic_encoder.encode(topic) + tail
            frame = Frame(BROADCASTS, self.epoch, self.offset, self.kind, payload, self.report_id)
            self._frames[key] = frame
        return frame

    def forget_frames(self) -> None:
        """Keep only a few for those who come back; a sweep over many topics and locales makes many."""
        while len(self._frames) > _KEPT_FRAMES:
            self._frames.popitem()
