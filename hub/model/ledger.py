"""The ledger: sums that must hold for every slice, event and expansion, whatever crashed in between.

Pure arithmetic over what the tables hold; each function answers with sentences about what does not add up, and with
nothing when all does. `clarion verify` prints them.
"""

from collections.abc import Mapping
from typing import NamedTuple

from hub.model.deliveries import MOVES


class SliceSums(NamedTuple):
    """What was counted when a slice was planned. `key`: the slice's name within its event."""

    event_id: str
    key: str
    recipients: int
    in_app: int
    suppressed: int
    rejected: int = 0
    deliveries: int = 0


def check_slice(sums: SliceSums, states: Mapping[str, int]) -> list[str]:
    """Recipients = in-app + suppressed + rejected; deliveries = the sum over `states` (how many are in each now)."""
    where = f"Slice {sums.key} of {sums.event_id}"
    faults = [f"{where}: {name} is {count}." for name, count in sums._asdict().items() if _negative(count)]
    outcomes = sums.in_app + sums.suppressed + sums.rejected
    if sums.recipients != outcomes:
        faults.append(
            f"{where}: {sums.recipients} recipients, but {sums.in_app} in the app, {sums.suppressed} suppressed and "
            f"{sums.rejected} rejected make {outcomes}."
        )
    stored = sum(states.values())
    if sums.deliveries != stored:
        faults.append(f"{where}: {sums.deliveries} deliveries were planned, {stored} are stored.")
    faults += [
        f"{where}: {state!r} is not a state of deliveries." for state in sorted(states.keys() - MOVES.keys())
    ]
    return faults


def check_event(event_id: str, state: str, expected: int, planned: int, waiting_parts: int = 0) -> list[str]:
    """An event that counts as done has all its slices; none has more. `waiting_parts`: scheduled, not yet queued."""
    faults = []
    if planned > expected:
        faults.append(f"Event {event_id}: {planned} slices were planned, {expected} were cut.")
    if state == "generated" and (planned < expected or waiting_parts):
        faults.append(
            f"Event {event_id} counts as generated, but {planned} of {expected} slices are planned."
        )
    return faults


def check_expansion(
    broadcast_id: str, audience: int, deliveries: int, reasons: Mapping[str, int]
) -> list[str]:
    """A broadcast's audience on one channel = its deliveries + those left out, per reason."""
    total = deliveries + sum(reasons.values())
    if audience == total:
        return []
    return [f"Broadcast {broadcast_id}: an audience of {audience}, but {total} are accounted for."]


def _negative(count: object) -> bool:
    return isinstance(count, int) and count < 0
