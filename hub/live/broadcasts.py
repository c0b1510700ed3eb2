"""The payload of the live channel `broadcasts`, and its publications as nodes hold them.

MessagePack of the kind, the broadcast without its texts, and one JSON body per locale, cut in two at the value of
`topic`: a node splices the topic that brought it to a user and never parses a body. What cannot be decoded becomes
a publication that nobody may see, so that offsets stay whole.
"""

from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from hub.live.frames import parse_header
from hub.live.seam import Frame
from hub.model.events import BroadcastAudience
from hub.model.notifications import (
    Broadcast,
    LiveNotification,
    LiveRetracted,
    encode_live,
    wire_broadcast,
)
from hub.model.preferences import pick_locale
from hub.model.vocabulary import BROADCASTS
from hub.ports import Message

_CUT: Final = b'"topic":null'  # a quote inside a JSON string is escaped, so no text can contain this
_KEPT_FRAMES: Final = 8
_KEPT_LOCALES: Final = 64


class BroadcastMessage(Struct, frozen=True, array_like=True):
    """One message of the channel. `bodies`: per locale ("" = the type's own texts) the JSON before and after the topic."""

    kind: str  # "notification" or "retracted"
    broadcast: Broadcast  # contents and reasons are left out
    bodies: dict[str, tuple[bytes, bytes]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(BroadcastMessage)
_json = msgspec.json.Encoder()


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
        "_locales",
        "accepted_at_us",
        "bodies",
        "broadcast",
        "epoch",
        "everyone",
        "excluded",
        "expires_at_us",
        "is_gap",
        "kind",
        "offset",
        "report_id",
        "sequence",
        "size",
        "uniform",
    )

    def __init__(self, message: Message) -> None:
        try:
            content = decode(message.payload)
        except msgspec.MsgspecError:
            content = _NOTHING
        header = parse_header(message.header)
        self.epoch = message.epoch
        self.offset = message.offset
        self.kind = content.kind
        self.broadcast = content.broadcast
        self.bodies = content.bodies
        self.report_id = header.report_id
        self.accepted_at_us = header.accepted_at_us or content.broadcast.created_at_us
        self.size = len(message.payload)
        self.sequence = 0  # the node's own count of what it fanned out; given when it does
        self.is_gap = False
        # What has expired is in nobody's inbox; that something was taken back is told for ever.
        self.expires_at_us = content.broadcast.expires_at_us if content.kind == "notification" else None
        audience = content.broadcast.audience
        self.everyone = audience.everyone
        self.excluded = frozenset(audience.exclude)
        # Whether all who have no rules of their own get the same, but for who is excluded.
        self.uniform = (
            audience.everyone
            and not audience.topics
            and audience.timezones is None
            and self.expires_at_us is None
            and content.broadcast.in_app
            and (content.broadcast.default_in_app or content.broadcast.critical)
        )
        self._frames: dict[tuple[str, str | None], Frame] = {}
        self._locales: dict[str | None, str] = {}

    @classmethod
    def gap(cls, epoch: str, offset: int, sequence: int = 0) -> "BroadcastEntry":
        """Not a publication, but the place where some are missing."""
        entry = cls(Message(BROADCASTS, epoch, offset, "", b""))
        entry.is_gap = entry.everyone = True
        entry.sequence = sequence
        return entry

    def frame_in(self, locale: str | None, topic: str | None) -> Frame:
        """The frame for users with this locale, with the topic that brought it (None: everyone)."""
        if self.kind != "notification":
            return self._frame("", None)
        picked = self._locales.get(locale)
        if picked is None:
            picked = self._locales[locale] = pick_locale(self.bodies, locale)
        return self._frame(picked, topic)

    def _frame(self, locale: str, topic: str | None) -> Frame:
        frame = self._frames.get((locale, topic))
        if frame is None:
            head, tail = self.bodies[locale]
            payload = head + _json.encode(topic) + tail if self.kind == "notification" else head
            frame = Frame(BROADCASTS, self.epoch, self.offset, self.kind, payload, self.report_id)
            self._frames[locale, topic] = frame
        return frame

    def forget_frames(self) -> None:
        """Keep only a few for those who come back; a sweep over many topics and locales makes many."""
        while len(self._frames) > _KEPT_FRAMES:
            self._frames.popitem()
        if len(self._locales) > _KEPT_LOCALES:
            self._locales.clear()
