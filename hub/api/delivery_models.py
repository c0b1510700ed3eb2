"""What the calls about deliveries answer: deliveries with their attempts, dead letters, replays."""

from typing import Literal

from msgspec import Struct

from hub.api.models import ExpansionShown, Moment
from hub.model.vocabulary import Channel


class AttemptShown(Struct, frozen=True):
    """One try of a delivery by one provider. `repeat`: an earlier one may have reached a provider."""

    number: int
    provider: str
    outcome: str
    code: str
    detail: str | None
    at: Moment | None
    duration_ms: float
    repeat: bool


class DeliveryShown(Struct, frozen=True):
    """One delivery on an addressed channel, with its attempts, oldest first."""

    id: str
    user: str
    notification: str
    channel: Channel
    state: str
    reason: str | None
    provider: str | None
    due_at: Moment | None
    created_at: Moment | None
    attempts: list[AttemptShown]


class Deliveries(Struct, frozen=True, omit_defaults=True):
    """A page of deliveries; the first one tells how far the expansions of broadcasts are."""

    deliveries: list[DeliveryShown]
    next: str | None
    expansions: list[ExpansionShown] = []


class DeadLetter(Struct, frozen=True, omit_defaults=True):
    """A delivery that is dead or unknown, or (a part of) an event that could not be planned."""

    kind: Literal["delivery", "event"]
    id: str
    event: str
    type: str
    state: Literal["dead", "unknown", "rejected"]
    reason: str | None
    created_at: Moment | None
    category: str | None = None
    user: str | None = None
    notification: str | None = None
    channel: Channel | None = None
    provider: str | None = None
    due_at: Moment | None = None
    attempts: list[AttemptShown] = []
    slice: str | None = None
    detail: str | None = None


class DeadLetters(Struct, frozen=True):
    """A page of dead letters, newest first."""

    dead_letters: list[DeadLetter]
    next: str | None


class Refusal(Struct, frozen=True):
    """Why one of them is not tried again."""

    id: str
    reason: str
    detail: str


class Replayed(Struct, frozen=True):
    """How many are tried again; how many are not, by reason, and the first 100 of those."""

    replayed: int
    refused: dict[str, int]
    refusals: list[Refusal]
