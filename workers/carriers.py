"""Carriers: the providers of one channel in failover order, each behind its breaker and its rate.

One `carry` is one round: each provider that may be asked is asked once, until one of them takes the message or says
that nobody should try. Which providers are out is known per process and told in the log.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import Any, Final, Protocol

from hub.model.breaker import Breaker
from hub.model.outcomes import Outcome, RetryAfter, Unclear, joined, storable
from hub.model.outgoing import Target
from hub.model.vocabulary import Channel
from hub.ports import Attempt, Clock, LogEntry
from workers.channels.base import Provider, Sender

OUT: Final = "provider_out"
_NAMES: Final = {"Sent": "sent", "RetryAfter": "retry", "GiveUp": "gave_up", "Unclear": "unclear"}


class Pace(Protocol):
    """The rate of a provider, shared by all senders."""

    async def wait_seconds(self, name: str, per_second: float) -> float:
        """Take the next free moment; returns how long it is away."""
        ...


class Carried:
    """What one round came to: the outcome for all targets, which of them took it or are gone, and the tries."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[Target, str, Outcome]] = []  # with the provider that decided
        self.tries: dict[str, Attempt] = {}  # per provider

    @cached_property
    def outcome(self) -> Outcome:
        """What it came to, when all targets were asked."""
        return joined(outcome for _, _, outcome in self.outcomes)

    @cached_property
    def provider(self) -> str | None:
        """Who decided."""
        return next((name for _, name, outcome in self.outcomes if outcome == self.outcome and name), None)


class Carriers:
    """Asks the providers of one channel."""

    def __init__(
        self, sender: Sender, clock: Clock, pace: Pace, tell: Callable[[LogEntry], Awaitable[None]]
    ) -> None:
        self._channel: Channel = sender.channel
        self._providers: Sequence[Provider] = sender.providers
        self._clock = clock
        self._pace = pace
        self._tell = tell
        self._breakers = {provider.name: Breaker() for provider in sender.providers}
        self._places = {
            provider.name: asyncio.Semaphore(provider.connections) for provider in sender.providers
        }
        # Providers stand in for each other, so only one of them is busy: that many messages are on their way at once.
        self.connections = max((provider.connections for provider in sender.providers), default=1)
        self.hands = asyncio.Semaphore(self.connections)

    def closed(self) -> RetryAfter | None:
        """What to say while no provider may be asked; None: one may."""
        now_us = self._clock.now_us()
        until_us = min((breaker.opens_at_us(now_us) for breaker in self._breakers.values()), default=now_us)
        if until_us <= now_us:
            return None
        return RetryAfter(OUT, "Every provider of the channel is out.", (until_us - now_us) / 1e6)

    async def carry(
        self, message: Any, targets: Sequence[Target], number: int, *, is_repeat: bool
    ) -> Carried:
        """One round for one message; `number` is the round's."""
        carried = Carried()
        for target in targets:
            name, outcome = await self._carry_to(message, target, number, carried, is_repeat=is_repeat)
            carried.outcomes.append((target, name, outcome))
        return carried

    async def _carry_to(
        self, message: Any, target: Target, number: int, carried: Carried, *, is_repeat: bool
    ) -> tuple[str, Outcome]:
        last: tuple[str, Outcome] | None = None
        for provider in self._providers:
            if not self._breakers[provider.name].allows(self._clock.now_us()):
                continue
            started_us = self._clock.now_us()
            outcome = await self._ask(provider, message, target)
            took_us = self._clock.now_us() - started_us
            carried.tries[provider.name] = Attempt(
                number=number,
                provider=provider.name,
                outcome=_NAMES[type(outcome).__name__],
                code=outcome.code,
                detail=outcome.detail,
                started_at_us=started_us,
                duration_us=max(took_us, 0),
                is_repeat=is_repeat,
            )
            await self._judge(provider, outcome)
            last = provider.name, outcome
            if not isinstance(outcome, RetryAfter):
                break
        return last or ("", self.closed() or RetryAfter(OUT, "Every provider is on trial.", 1.0))

    async def _ask(self, provider: Provider, message: Any, target: Target) -> Outcome:
        async with self._places[provider.name]:
            if provider.per_second is not None:
                await asyncio.sleep(await self._pace.wait_seconds(provider.name, provider.per_second))
            return storable(await provider.send(message, target))

    async def _judge(self, provider: Provider, outcome: Outcome) -> None:
        breaker = self._breakers[provider.name]
        if isinstance(outcome, RetryAfter | Unclear) and outcome.is_providers_fault:
            if breaker.failed(self._clock.now_us()):
                await self._say(provider, "provider_out", f"{outcome.code}: {outcome.detail}")
        elif breaker.worked():
            await self._say(provider, "provider_back", "A trial went through.")

    async def _say(self, provider: Provider, state: str, detail: str) -> None:
        now_us = self._clock.now_us()
        await self._tell(
            LogEntry(now_us, state, channel=self._channel.value, provider=provider.name, detail=detail)
        )
