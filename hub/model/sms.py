"""Texts of SMS: how many segments one takes, and how it is cut to fit. Pure.

GSM-7 with its extension table (3GPP TS 23.038 §6.2.1) where every character is in it, else UCS-2 in 16-bit units. Costs
are those of the default alphabet: national shift tables, which some networks know, are not counted on.
"""

from functools import lru_cache
from typing import Final
from unicodedata import combining

from msgspec import Struct

BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
EXTENSION: Final = "\f^{}\\[~]|€"
"""Each is sent as an escape and a character: two septets, which never lie in two segments."""

_SEPTETS: Final = {**dict.fromkeys(BASIC, 1), **dict.fromkeys(EXTENSION, 2)}
GSM_7: Final = "GSM-7"
UCS_2: Final = "UCS-2"
_SIZES: Final = {GSM_7: (160, 153), UCS_2: (70, 67)}  # units of a single message, and of each of several

_JOINER: Final = "\u200d"
_VARIATIONS: Final = frozenset(map(chr, range(0xFE00, 0xFE10)))
_SKINS: Final = frozenset(map(chr, range(0x1F3FB, 0x1F400)))
_TAGS: Final = frozenset(map(chr, range(0xE0020, 0xE0080)))
_FLAG_LETTERS: Final = frozenset(map(chr, range(0x1F1E6, 0x1F200)))
_NO_START: Final = _VARIATIONS | _SKINS | _TAGS | {_JOINER, "\u20e3"}


class Segments(Struct, frozen=True):
    """What a text takes: its encoding, its units (septets or 16-bit units) and the number of segments."""

    encoding: str
    units: int
    count: int


def segments(text: str) -> Segments:
    """Count the segments of a text. An empty text is sent as one."""
    costs = [_SEPTETS.get(character, 0) for character in text]
    encoding = GSM_7
    if 0 in costs:
        encoding = UCS_2
        costs = [2 if ord(character) > 0xFFFF else 1 for character in text]
    units = sum(costs)
    single, part = _SIZES[encoding]
    if units <= single:
        return Segments(encoding, units, 1)
    return Segments(encoding, units, _parts(costs, part))


def _parts(costs: list[int], size: int) -> int:
    """How many parts of `size` units hold them, when neither an escape nor a surrogate pair may be torn."""
    count, filled = 1, 0
    for cost in costs:
        if filled + cost > size:
            count, filled = count + 1, 0
        filled += cost
    return count


def fit(before: str, body: str, after: str, limit: int) -> str:
    """`before`, as much of `body` as fits, and `after`, in at most `limit` segments.

    A body that does not fit ends with "...", since "…" would turn a GSM-7 text into UCS-2. When the rest alone is too
    long, `after` is left out, then `before` is cut.
    """
    if segments(before + after).count > limit:
        return fit(before, body, "", limit) if after else _cut("", before + body, "", limit)
    return _cut(before, body, after, limit)


def _cut(before: str, body: str, after: str, limit: int) -> str:
    # No text of more than 160 characters a segment fits, whatever its encoding: only so much has to be looked at.
    bound = limit * _SIZES[GSM_7][0] + 1
    if len(body) < bound and segments(before + body + after).count <= limit:
        return before + body + after
    low, high = 0, min(len(body), bound)
    while low < high:
        middle = (low + high + 1) // 2
        if segments(f"{before}{body[:middle]}...{after}").count <= limit:
            low = middle
        else:
            high = middle - 1
    kept = body[: boundary(body, low)].rstrip()
    whole = f"{before}{kept}...{after}"
    return whole if segments(whole).count <= limit else before + after


def boundary(text: str, place: int) -> int:
    """The last place up to `place` where a text may be cut without tearing what is seen as one character.

    That is: before no combining mark, no variation, skin tone or joiner, not after a joiner, not within a flag. Never
    further back than 32 places, so that a text of nothing but marks does not vanish.
    """
    if place >= len(text):
        return len(text)
    for one in range(place, max(place - 32, 0), -1):
        if not _is_torn(text, one):
            return one
    return 0 if place <= 32 else place


def _is_torn(text: str, place: int) -> bool:
    following = text[place]
    if following in _NO_START or _combines(following) or text[place - 1] == _JOINER:
        return True
    if following not in _FLAG_LETTERS:
        return False
    letters = 0
    while letters < place and text[place - 1 - letters] in _FLAG_LETTERS:
        letters += 1
    return letters % 2 == 1


@lru_cache(maxsize=512)
def _combines(character: str) -> bool:
    return combining(character) != 0
