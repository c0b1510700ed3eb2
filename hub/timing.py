"""Timing: the digests and throttles of one batch's users, as they stand after each event that was planned.

Looked up once per batch, and only when one of its types collects or limits. What joins a digest moves all of it, so
due times of the batch itself are settled at the end, and those of what is stored already are handed to the commit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from hub.model.digests import DigestId, OpenDigest
from hub.model.events import Slice
from hub.model.planning import Plan
from hub.model.types import TypeVersion
from hub.ports import Batch, DigestMove, Store, Timing

_SECOND_US = 1_000_000
NOTHING = Timing()


async def look_at_timing(
    store: Store, parts: Iterable[Slice], types: Mapping[str, TypeVersion], now_us: int
) -> Timing:
    """What planning these slices needs to know of digests and throttles."""
    given = list(parts)
    paced = {
        kind.name: kind
        for name in {part.event.type for part in given}
        if (kind := types.get(name)) and is_paced(kind)
    }
    if not paced:
        return NOTHING
    digesting: set[str] = set()
    throttled: set[str] = set()
    for part in given:
        kind = paced.get(part.event.type)
        if kind is None:
            continue
        users = [named.id for named in part.users]
        if _collects(kind):
            digesting.update(users)
        if kind.definition.throttle is not None:
            throttled.update(users)
    if not digesting and not throttled:
        return NOTHING
    at_once = [
        kind.definition.digest.window_seconds
        for kind in paced.values()
        if kind.definition.digest and kind.definition.digest.first_at_once
    ]
    return await store.timing(
        sorted(digesting),
        now_us - max(at_once) * _SECOND_US if at_once else None,
        sorted(throttled),
        {kind.name: throttled_since_us(kind, now_us) for kind in paced.values() if kind.definition.throttle},
    )


def is_paced(kind: TypeVersion) -> bool:
    """Whether a type's deliveries depend on those of other events."""
    definition = kind.definition
    return not definition.critical and (definition.digest is not None or definition.throttle is not None)


def throttled_since_us(kind: TypeVersion, now_us: int) -> int:
    """Since when a type's throttle counts; now when it has none."""
    throttle = kind.definition.throttle
    return now_us - (throttle.per_seconds * _SECOND_US if throttle else 0)


def _collects(kind: TypeVersion) -> bool:
    throttle = kind.definition.throttle
    return kind.definition.digest is not None or (throttle is not None and throttle.then == "digest")


@dataclass(slots=True)
class _Group:
    """One digest: the batch's deliveries in it, by their places, and when it is due. `stored_us`: what the store says."""

    id: DigestId
    due_at_us: int
    stored_us: int | None = None
    places: list[int] = field(default_factory=list)


class Pace:
    """The digests and throttles of a batch, kept up to date while it is planned."""

    def __init__(self, timing: Timing) -> None:
        self.digests: dict[DigestId, OpenDigest] = dict(timing.digests)
        self.recent: dict[tuple[str, str], int] = dict(timing.recent)
        self._open: dict[DigestId, _Group] = {}
        self._groups: list[_Group] = []

    def note(self, batch: Batch, planned: Plan) -> None:
        """A plan of a paced type whose deliveries are the last ones of the batch."""
        if any(delivery.throttled for delivery in planned.deliveries):
            row = planned.notification
            self.recent[row.user_id, row.type] = self.recent.get((row.user_id, row.type), 0) + 1
        if not planned.digests:
            return
        first = len(batch.deliveries) - len(planned.deliveries)
        places = {delivery.channel: place for place, delivery in enumerate(planned.deliveries, first)}
        for id_, become in planned.digests:
            self._join(id_, become, places[id_.channel])

    def _join(self, id_: DigestId, become: OpenDigest, place: int) -> None:
        before = self.digests.get(id_)
        self.digests[id_] = become
        if not become.count:  # it goes out alone
            self._open.pop(id_, None)
            return
        group = self._open.get(id_)
        if group is None or become.count == 1:
            stored_us = before.due_at_us if before is not None and become.count > 1 else None
            group = self._open[id_] = _Group(id_, become.due_at_us, stored_us)
            self._groups.append(group)
        group.due_at_us = become.due_at_us
        group.places.append(place)

    def settle(self, batch: Batch) -> None:
        """Give everything that waits in one digest the same due time."""
        for group in self._groups:
            due_us = group.due_at_us
            for place in group.places:
                delivery = batch.deliveries[place]
                expires_us = delivery.expires_at_us
                # What would expire before keeps its own, and the digest is due with it.
                if delivery.due_at_us != due_us and (expires_us is None or expires_us > due_us):
                    batch.deliveries[place] = replace(delivery, due_at_us=due_us)
            if group.stored_us is not None and group.stored_us != due_us:
                batch.digests.append(DigestMove(group.id, due_us))
