"""The sender's role (`clarion work`): jobs, claims, the dispatcher and the scheduler's sisters, in one process.

Any number of processes share the work. On SIGTERM a process takes nothing more, lets what is on its way arrive, gives
the rest back and ends; what dies otherwise is found by the others within seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from hub.config import Settings
from hub.leases import LeaseKeeper
from hub.livelog import LiveLog
from hub.model.vocabulary import Channel
from hub.ports import LogEntry
from hub.wiring import Core, owner_name, redis_url
from workers.carriers import Carriers
from workers.channels.base import Sender
from workers.channels.registry import senders_of
from workers.claims import Claims
from workers.deliver import Delivering
from workers.dispatch import Dispatcher
from workers.expansion import LEASE, Expansions
from workers.jobs import Deliveries, JobRunner, Jobs
from workers.links import DeliveryLinks
from workers.pace import RedisPace
from workers.recorder import Recorder

DRAIN_SECONDS: Final = 12.0
RECORD_SECONDS: Final = 5.0  # for a database that is away when we end


class SenderRole:
    """Everything that one sender process runs."""

    def __init__(self, core: Core, senders: Sequence[Sender] | None = None) -> None:
        settings: Settings = core.settings
        url = redis_url(settings)
        self._core = core
        self._senders = list(senders_of(settings, core.clock)) if senders is None else list(senders)
        self._livelog = LiveLog(core.bus)
        self._recorder = Recorder(core.store, self._livelog)
        self._claims = Claims(core.store, owner_name())
        self._jobs = Jobs(url, settings.redis_prefix)
        self._runner = JobRunner(url, settings.redis_prefix, self._deliver)
        pace = RedisPace(self._jobs, settings.redis_prefix, core.clock)
        links = DeliveryLinks(settings.public.url, settings.token_secrets)
        channels = frozenset(sender.channel for sender in self._senders)
        self._delivering = {
            sender.channel: Delivering(
                sender,
                Carriers(sender, core.clock, pace, self._tell),
                self._claims,
                self._recorder,
                core.definitions,
                core.clock,
                links=links,
                available=channels,
                default_timezone=settings.timezone,
                metrics=core.metrics.senders,
            )
            for sender in self._senders
        }
        dispatcher = Dispatcher(
            core.store,
            self._jobs,
            core.clock,
            self._livelog,
            channels=sorted(channels),
            repeating=[sender.channel for sender in self._senders if sender.repeats],
            members=lambda: self.keepers[0].members,
        )
        expansions = Expansions(
            core.store,
            core.definitions,
            core.clock,
            available=channels,
            default_timezone=settings.timezone,
            livelog=self._livelog,
        )
        self.keepers = [
            LeaseKeeper(core.store, owner_name(), "sender", ["dispatch"], dispatcher.work),
            LeaseKeeper(core.store, owner_name(), "expansion", [LEASE], expansions.work),
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then drain. Raises what ends a part of it for good."""
        runs: list[Callable[[], Awaitable[None]]] = [self._claims.keep, self._runner.run]
        tasks = [asyncio.ensure_future(run()) for run in (*runs, *(keeper.run for keeper in self.keepers))]
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*tasks, stopped], return_when=asyncio.FIRST_COMPLETED)
            for delivering in self._delivering.values():
                delivering.stopping = True
            await self._runner.drain(DRAIN_SECONDS)
        finally:
            stopped.cancel()
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _deliver(self, channel: Channel, deliveries: Deliveries) -> None:
        if (delivering := self._delivering.get(channel)) is not None:
            await delivering.chunk(deliveries)

    async def _tell(self, entry: LogEntry) -> None:
        """What concerns no delivery: providers that are out, or back."""
        with suppress(
            Exception
        ):  # the log's store is away: the senders go on, metrics and our own log have it
            await self._core.store.write_log([entry])
        await self._livelog.tell([entry])

    async def _close(self) -> None:
        await self._recorder.close(RECORD_SECONDS)
        for sender in self._senders:
            for provider in sender.providers:
                await provider.close()
        await self._jobs.close()
