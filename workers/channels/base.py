"""What an addressed channel is made of: a `Sender` that composes messages, and `Provider`s that carry them.

A provider translates what its protocol answers into an `Outcome` and never raises for it; it is asked for one message
and one target at a time, by as many callers as it has `connections`. Retries, failover between providers, breakers,
rate limits, fallbacks and all records are the engine's (`workers.deliver`), alike for all channels.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from hub.errors import ClarionError
from hub.model.outcomes import Outcome
from hub.model.outgoing import Outgoing, Target
from hub.model.vocabulary import Channel


class ComposeError(ClarionError):
    """No message can be made of a delivery; the sentence says why. It is dead, and its fallback is asked."""


class Provider(Protocol):
    """One configured way to serve a channel. Made once per process; belongs to one event loop."""

    name: str  # for logs and metrics: scheme and host, never a secret; unique within its channel
    connections: int  # how many messages it carries at the same time, at most
    per_second: float | None  # the rate that all senders share; None: as fast as it goes

    async def send(self, message: Any, target: Target) -> Outcome:
        """Carry one message to one target, within a bounded time. Errors of the protocol are outcomes, not exceptions."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Sender(Protocol):
    """One channel: its providers in failover order, and how its messages are made."""

    channel: Channel
    repeats: bool  # whether a message that may have been taken is sent again (marked), or left as `unknown`
    providers: Sequence[Provider]

    def compose(self, outgoing: Outgoing) -> Any:
        """The message, the same for every target. Pure, bounded in time and size. Raises `ComposeError`."""
        ...
