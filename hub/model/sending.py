"""Sending: what is decided about a delivery at the moment when it is about to be sent, and when it cannot be.

Pure. Hours may lie between planning and sending, so everything that can change is asked again: whether the user has
seen it, still allows the channel, still has an address, is asleep. A delivery is never sent on yesterday's word.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from hub.model.deliveries import Delivery
from hub.model.ids import delivery_id
from hub.model.outgoing import Item, Target
from hub.model.preferences import allows
from hub.model.schedule import quiet_until
from hub.model.types import CategoryDefinition, TypeVersion
from hub.model.users import User
from hub.model.vocabulary import Channel

LAPSES: Final = 3  # a delivery that had so many processes die under it is set aside
CAREFUL: Final = (10, 1)  # how many of those go together that had one process die under them, and two


def together(lapses: int) -> int:
    """How many deliveries may share a chunk that had so many (1 or more) processes die under them."""
    return CAREFUL[min(lapses, len(CAREFUL)) - 1]


class Facts(Struct, frozen=True):
    """What is true of a delivery right now. `item` is None when its event is not kept any more.

    `hidden`: why its notification is gone (retracted, collapsed), if it is. `targets`: per channel, without those that
    are suppressed; `suppressed`: channels with an address that is. `is_broadcast`: its id carries its user.
    """

    delivery: Delivery
    user: User
    kind: TypeVersion
    category: CategoryDefinition | None
    item: Item | None
    targets: Mapping[Channel, tuple[Target, ...]] = {}
    suppressed: frozenset[Channel] = frozenset()
    hidden: str | None = None
    reached_at_us: int | None = None
    seen_at_us: int | None = None
    is_broadcast: bool = False


class Go(Struct, frozen=True):
    """Send it, to these targets."""

    targets: tuple[Target, ...]


class Wait(Struct, frozen=True):
    """Not now: it is held until then."""

    due_at_us: int
    reason: str


class Stop(Struct, frozen=True):
    """It ends: `cancelled`, `expired` or `dead`. Whoever is dead may fall back to another channel."""

    state: str
    reason: str


Decision = Go | Wait | Stop


def decide(facts: Facts, default_timezone: str, now_us: int) -> Decision:
    """What becomes of a delivery that is due. The first reason that speaks against sending counts."""
    delivery = facts.delivery
    if delivery.expires_at_us is not None and delivery.expires_at_us <= now_us:
        return Stop("expired", "expired")
    if reason := _over(facts):
        return Stop("cancelled", reason)
    if facts.item is None:
        return Stop("dead", "no_payload")
    targets = facts.targets.get(delivery.channel, ())
    if not targets:
        return Stop("dead", "suppressed_address" if delivery.channel in facts.suppressed else "no_address")
    if facts.kind.definition.critical:
        return Go(_unserved(targets, delivery))
    zone = facts.user.profile.timezone or default_timezone
    quiet_us = quiet_until(facts.user.preferences.quiet_hours, zone, now_us)
    if quiet_us is None:
        return Go(_unserved(targets, delivery))
    if delivery.expires_at_us is not None and quiet_us >= delivery.expires_at_us:
        return Stop("expired", "quiet_hours")
    return Wait(quiet_us, "quiet_hours")


def _unserved(targets: tuple[Target, ...], delivery: Delivery) -> tuple[Target, ...]:
    """Those that did not take it yet; all of them when all did (only a record of it was lost)."""
    return tuple(target for target in targets if target.id not in delivery.served) or targets


def _over(facts: Facts) -> str | None:
    """Why nobody needs this delivery any more."""
    delivery = facts.delivery
    if facts.hidden is not None:
        return facts.hidden
    if delivery.condition != "always" and facts.seen_at_us is not None:
        return "seen"
    if delivery.condition == "offline" and facts.reached_at_us is not None:
        return "reached"
    return None if _allowed(facts, delivery.channel) else "preferences"


def _allowed(facts: Facts, channel: Channel) -> bool:
    definition = facts.kind.definition
    return allows(
        facts.user.preferences,
        facts.delivery.category,
        facts.category.defaults if facts.category else {},
        channel,
        actor=facts.item.event.actor if facts.item else None,
        critical=definition.critical,
    ).allowed


def fall_back(facts: Facts, available: frozenset[Channel], now_us: int) -> Delivery | None:
    """The delivery that follows a dead one: on the first of its other channels that can be used. None: there is none."""
    dead = facts.delivery
    for place, channel in enumerate(dead.fallback):
        if channel not in available or not facts.targets.get(channel) or not _allowed(facts, channel):
            continue
        user_id = dead.user_id if facts.is_broadcast else None
        return replace(
            dead,
            id=delivery_id(dead.notification_id, channel, user_id),
            channel=channel,
            state="queued",
            due_at_us=now_us,
            fallback=dead.fallback[place + 1 :],
            digest_key=None,
            throttled=False,
            attempts=0,
            lapses=0,
            tried_at_us=None,
            served=(),
        )
    return None
