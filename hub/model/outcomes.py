"""Outcomes: what one try by one provider came to, in the words that decide what happens next.

A provider's own codes are translated into these once, where its protocol is known (`workers.channels`). Nothing else
looks at codes: they are kept for people.
"""

from collections.abc import Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from hub.model.addresses import is_sound


class Sent(Struct, frozen=True):
    """The provider took it. `reference`: its own name for the message; receipts come back with it."""

    code: str = ""
    detail: str = ""
    reference: str | None = None


class RetryAfter(Struct, frozen=True):
    """It did not go out, and may later. `seconds`: how long the provider asks to wait (its Retry-After), if it does.

    `is_providers_fault`: the provider does not work (refused, hung, garbage, its own 5xx, a bad login), so its breaker
    counts this. Otherwise it works and only this message has to wait (greylisting, a full mailbox). Either way the next
    provider is asked at once.
    """

    code: str
    detail: str
    seconds: float | None = None
    is_providers_fault: bool = True


class GiveUp(Struct, frozen=True):
    """It will never go out like this. `target_is_gone`: the address or subscription is dead and must not be used again."""

    code: str
    detail: str
    target_is_gone: bool = False


class Unclear(Struct, frozen=True):
    """The provider may have taken it: the connection ended between our last byte and its answer.

    `is_providers_fault`: as of `RetryAfter`; whoever only hangs is to be left alone as well.
    """

    code: str
    detail: str
    is_providers_fault: bool = True


Outcome = Sent | RetryAfter | GiveUp | Unclear


def storable(outcome: Outcome) -> Outcome:
    """The same in words that every store can keep, whatever a provider said."""
    said = {name: getattr(outcome, name, None) for name in ("code", "detail", "reference")}
    odd = {name: text for name, text in said.items() if isinstance(text, str) and not is_sound(text)}
    cleaned: dict[str, Any] = {
        name: text.encode("utf-8", "replace").decode().replace("\x00", "?") for name, text in odd.items()
    }
    return replace(outcome, **cleaned) if cleaned else outcome


def joined(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of one delivery to several targets (a user's browsers or devices); at least one.

    What may still succeed somewhere is tried again there, so `RetryAfter` comes first; then success, then doubt.
    """
    given = list(outcomes)
    for kind in (RetryAfter, Sent, Unclear):
        if found := [one for one in given if isinstance(one, kind)]:
            return found[0]
    return given[0]
