"""Ids that sort by time and carry a keyed checksum, so that one we gave can be told from a made-up one.

`evt_` + 26 digits of lower-case Crockford base32: 56 bits of microseconds, 44 bits that keep apart, 30 bits of
keyed checksum. The checksum is no secret's guard: it lets `GET /v1/events/{id}` answer 404 without a look-up table.
"""

import re
from hashlib import blake2b
from typing import Final

from hub.model.vocabulary import Channel

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford: no i, l, o, u
_PAIRS: Final = [high + low for high in _ALPHABET for low in _ALPHABET]  # ten bits at once
_VALUES: Final = {digit: value for value, digit in enumerate(_ALPHABET)}
_EVENT_ID: Final = re.compile(rf"evt_([{_ALPHABET}]{{20}})([{_ALPHABET}]{{6}})")
_TIME_BITS: Final = 56
_APART_BITS: Final = 44
_SEQ_LIMIT: Final = 1 << 24


class EventIds:
    """Makes and recognises event ids. Every process of a deployment uses the same key."""

    def __init__(self, key: bytes) -> None:
        # blake2b takes no more of the key. A copy has read it already.
        self._keyed = blake2b(key=key[:64], digest_size=8)
        self._front = (-1, "")  # of the ids made last: the bits of the moment that fill whole digits

    def new(self, now_us: int, random: bytes) -> str:
        """A fresh id. `random`: at least 6 random bytes. Sorts by `now_us`."""
        if len(random) < 6:
            raise ValueError("an event id needs at least 6 random bytes")
        return self._seal(now_us, int.from_bytes(random[:6], "big") >> 4)

    def several(self, now_us: int, random: bytes, count: int) -> list[str]:
        """Fresh ids for one batch, sorted. They share all but their last two digits, so that each costs half."""
        if count > len(_PAIRS):
            raise ValueError(f"at most {len(_PAIRS)} ids at once")
        front = self.new(now_us, random)[4:22]
        keyed = self._keyed.copy()
        keyed.update(front.encode())
        ids = []
        for back in _PAIRS[:count]:
            hasher = keyed.copy()
            hasher.update(back.encode())
            ids.append(f"evt_{front}{back}{_checksum(hasher.digest())}")
        return ids

    def for_ingest(self, ms: int, seq: int) -> str:
        """The id of the event in the ingest stream's entry `ms-seq`: always the same, and sorted like the stream."""
        digest = int.from_bytes(self._digest(b"ingest:%d-%d" % (ms, seq)), "big")
        if seq < _SEQ_LIMIT and ms * 1000 < 1 << _TIME_BITS:
            return self._seal(ms * 1000, seq << 20 | digest >> 44)
        return self._seal(ms * 1000, digest >> 20)  # a publisher chose an absurd entry id: unique, not sorted

    def is_ours(self, text: str) -> bool:
        """Tell whether this is an event id that was made with this key."""
        found = _EVENT_ID.fullmatch(text)
        return found is not None and self._checksum(found[1]) == found[2]

    def accepted_at_us(self, event_id: str) -> int:
        """The moment inside an id. Raises ValueError for a text that is not ours."""
        if not self.is_ours(event_id):
            raise ValueError(f"{event_id!r} is not an event id of this deployment")
        return _number(event_id[4:24]) >> _APART_BITS

    def _seal(self, moment_us: int, apart: int) -> str:
        moment = min(max(moment_us, 0), (1 << _TIME_BITS) - 1)
        if moment >> 6 != self._front[0]:
            self._front = (moment >> 6, _digits(moment >> 6))
        body = self._front[1] + _digits((moment & 63) << _APART_BITS | apart)
        return f"evt_{body}{self._checksum(body)}"

    def _checksum(self, body: str) -> str:
        return _checksum(self._digest(body.encode()))

    def _digest(self, text: bytes) -> bytes:
        hasher = self._keyed.copy()
        hasher.update(text)
        return hasher.digest()


def delivery_id(notification_id: str, channel: Channel, user_id: str | None = None) -> str:
    """The id of a notification's delivery on a channel. `user_id` only for broadcasts, which many users share."""
    who = f"_{blake2b(user_id.encode(), digest_size=6).hexdigest()}" if user_id else ""
    return f"dlv_{notification_id.removeprefix('ntf_')}{who}_{channel.value}"


def _checksum(digest: bytes) -> str:
    """Six digits of a digest: its first 30 bits."""
    number = int.from_bytes(digest[:4], "big") >> 2
    return f"{_PAIRS[number >> 20]}{_PAIRS[number >> 10 & 1023]}{_PAIRS[number & 1023]}"


def _digits(number: int) -> str:
    """The last ten digits of a number. Written out, since an event has twenty of them."""
    high = f"{_PAIRS[number >> 40 & 1023]}{_PAIRS[number >> 30 & 1023]}{_PAIRS[number >> 20 & 1023]}"
    return f"{high}{_PAIRS[number >> 10 & 1023]}{_PAIRS[number & 1023]}"


def _number(digits: str) -> int:
    number = 0
    for digit in digits:
        number = number << 5 | _VALUES[digit]
    return number
