"""Digests: when what is collected under one key is due.

Pure, over a given clock. The first notification opens a window, later ones join it; what waits for one user, channel
and key is due at one moment and sent as one message. A digest that is due already is closed, whether or not it was
sent: whoever comes then opens the next one. A clock that is set back never makes a digest wait longer than its window.
"""

from typing import Final, NamedTuple

from msgspec import Struct

from hub.model.types import Digest
from hub.model.vocabulary import Channel

_SECOND_US: Final = 1_000_000
_AHEAD_US: Final = (
    60 * _SECOND_US
)  # moments of a partition run ahead of its clock by less, unless it was set back


class DigestId(NamedTuple):
    """What is collected together."""

    user_id: str
    channel: Channel
    key: str


class OpenDigest(Struct, frozen=True):
    """What is known of one digest: how many wait, since when and until when. `sent_at_us`: its key last went out then."""

    count: int = 0
    opened_at_us: int = 0
    due_at_us: int = 0
    sent_at_us: int | None = None


class Place(Struct, frozen=True):
    """Where one more notification stands: with whom it is due (`joins` an open digest, or opens one), or alone, at once."""

    due_at_us: int
    joins: bool = False
    at_once: bool = False


def find_place(
    digest: Digest, known: OpenDigest | None, now_us: int, own_due_us: int, soonest_us: int
) -> Place:
    """The place of one more notification, before quiet hours.

    `own_due_us`: when it would be due alone; `soonest_us`: the earliest moment that its policy can take (`offline` has
    to wait for its grace), which a full digest falls to.
    """
    window_us = digest.window_seconds * _SECOND_US
    if known is None or not known.count or known.due_at_us <= now_us:
        if digest.first_at_once and not _went_out_lately(known, now_us - window_us):
            return Place(own_due_us, at_once=True)
        return Place(max(own_due_us, now_us + window_us))
    due_us = known.due_at_us
    if digest.extend:
        longest_us = (digest.max_seconds or digest.window_seconds) * _SECOND_US
        due_us = max(due_us, min(now_us + window_us, known.opened_at_us + longest_us))
    if known.opened_at_us > now_us + _AHEAD_US:
        due_us = min(due_us, now_us + window_us)
    if digest.max_items is not None and known.count + 1 >= digest.max_items:
        due_us = min(due_us, soonest_us)
    return Place(due_us, joins=True)


def _went_out_lately(known: OpenDigest | None, since_us: int) -> bool:
    if known is None:
        return False
    moments = [known.sent_at_us] if known.sent_at_us is not None else []
    if known.count:  # due, so it is being sent
        moments.append(known.due_at_us)
    return any(moment > since_us for moment in moments)


def with_one_more(
    known: OpenDigest | None, place: Place, due_at_us: int, now_us: int, *, waits: bool
) -> OpenDigest:
    """The digest after a notification took its place; `due_at_us`: after quiet hours; `waits`: it is held until then."""
    if place.joins and known is not None:
        return OpenDigest(known.count + 1, known.opened_at_us, due_at_us, known.sent_at_us)
    sent_at_us = known.sent_at_us if known else None
    if known and known.count:
        sent_at_us = max(sent_at_us or known.due_at_us, known.due_at_us)
    if not waits:
        return OpenDigest(sent_at_us=now_us)
    return OpenDigest(1, now_us, due_at_us, sent_at_us)
