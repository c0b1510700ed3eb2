"""The hub node: connections join here, and get what is published for them, in order, once.

The bus' messages are hints; each channel agrees with its history before anything goes out (`channels`). While the bus
is away nobody may join; afterwards every position is compared. All of it runs on one event loop, and nothing blocks.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any, Final

from hub.errors import BusUnavailable, QueueUnavailable, Refused, StoreUnavailable
from hub.live.broadcasts import BroadcastEntry
from hub.live.calls import Calls, Method, parse_presence
from hub.live.channels import Channel, ChannelKind
from hub.live.control import Control, parse_control
from hub.live.fanout import Fanout
from hub.live.frames import PersonalFrame
from hub.live.generation import Generation
from hub.live.joining import Joining
from hub.live.limits import Limiter, Limits
from hub.live.metrics import LiveMetrics, NoMetrics
from hub.live.pages import page
from hub.live.reached import Reached
from hub.live.registry import Member, Registry, Seat
from hub.live.roster import Roster
from hub.live.seam import Joined, StreamPosition, Wire
from hub.live.subscriptions import LINGER_SECONDS, Subscriptions
from hub.live.viewers import TTL_SECONDS, Viewers
from hub.livelog import LiveLog
from hub.model.vocabulary import BROADCASTS, LOG
from hub.ports import Clock, LiveBus, Message, Store

JOIN_SECONDS: Final = 4.0  # SDKs give up after 5
TICK_SECONDS: Final = 1.0
_SHUTDOWN: Final = (3001, "shutdown")
_DRAIN_STEPS: Final = 20

logger = logging.getLogger(__name__)


class LiveNode:
    """Implements `hub.live.seam.Node` for wires and `hub.ports.BusReceiver` for the bus."""

    def __init__(
        self,
        store: Store,
        bus: LiveBus,
        clock: Clock,
        *,
        default_timezone: str = "UTC",
        methods: Mapping[str, Method] | None = None,
        limits: Limits | None = None,
        calls_per_user: Limiter | None = None,
        calls_per_connection: Limiter | None = None,
        metrics: LiveMetrics | None = None,
        generation: Generation | None = None,
        linger_seconds: float = LINGER_SECONDS,
        viewers: Viewers | None = None,
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._limits = limits or Limits()
        self._metrics = metrics or NoMetrics()
        self._generation = generation
        self._calls = Calls(methods or {}, calls_per_user, calls_per_connection)
        self._registry = Registry()
        self._reached = Reached(store, clock, self._metrics, LiveLog(bus))
        self._fanout = Fanout(
            self._registry,
            self._reached,
            self._metrics,
            clock,
            default_timezone,
            self._reload,
            TTL_SECONDS,
        )
        self._roster = Roster(self._registry, viewers or Viewers(store, clock), clock, self._fanout.flush)
        self._channels = self._subscriptions(linger_seconds)
        self._joining = Joining(self._channels, self._roster, self._fanout)
        self._tasks: set[asyncio.Task[None]] = set()
        self._lost = False
        self._catching_up = True  # the generation and all positions are to be compared with the bus
        self._draining = False

    def _subscriptions(self, linger_seconds: float) -> Subscriptions:
        personal = ChannelKind(
            name="personal",
            bus=self._bus,
            make=PersonalFrame,
            publish=self._publish,
            lost=self._lose,
            failed=self._failed,
            repaired=self._metrics.repaired,
            cap=300,
            ring_entries=16,
            ring_bytes=65_536,
        )
        broadcasts = ChannelKind(
            name=BROADCASTS,
            bus=self._bus,
            make=BroadcastEntry,
            publish=lambda _, entry: self._fanout.broadcast(entry),
            lost=self._lose_broadcasts,
            failed=self._failed,
            repaired=self._metrics.repaired,
            cap=1_000,
            ring_entries=1_000,
            ring_bytes=32 * 1024 * 1024,
            shared=True,
        )
        log = replace(personal, name=LOG, ring_entries=300, ring_bytes=1024 * 1024, shared=True)
        return Subscriptions(self._bus, self._clock, personal, log, broadcasts, linger_seconds)

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Begin to listen. With the bus away it goes on trying; joins are refused until then."""
        await self._bus.start(self)
        await self._catch_up()
        self._spawn(self._run())

    async def drain(self, seconds: float = 0.5) -> None:
        """Take no more, and send everyone away to reconnect, spread over some time."""
        self._draining = True
        seats = list(self._registry.seats.values())
        for step in range(_DRAIN_STEPS):
            for seat in seats[step::_DRAIN_STEPS]:
                if not seat.left:
                    seat.wire.close(*_SHUTDOWN)
            await asyncio.sleep(seconds / _DRAIN_STEPS if seats else 0)

    async def close(self) -> None:
        """Stop; store the reports that wait. Close the bus after this."""
        self._draining = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._channels.close()
        await self._roster.close()
        await self._reached.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.tick()
            except BusUnavailable as error:
                logger.info("the live bus is away: %s", error)
            except Exception:
                logger.exception("upkeep of the hub node failed")

    async def tick(self) -> None:
        """Upkeep, every `TICK_SECONDS`: users' rows, failed repairs, idle channels, positions."""
        self._roster.refresh()
        if self._lost:
            return
        if self._catching_up:
            await self._catch_up()
            return
        await self._channels.drop_idle()
        await self._channels.retry()
        await self._channels.compare_some(TICK_SECONDS)

    async def _catch_up(self) -> None:
        """Compare the generation and every position with the bus; `tick` goes on with it when this fails."""
        self._catching_up = True
        if self._lost:
            return
        try:
            if self._generation is not None:
                await self._generation.check()
            await self._channels.broadcasts.ready()
            await self._channels.compare_all()
        except (BusUnavailable, QueueUnavailable, StoreUnavailable) as error:
            logger.info("positions are compared with the live bus later: %s", error)
        else:
            self._catching_up = self._lost

    # ------------------------------------------------------------ the bus' side

    def receive_message(self, message: Message) -> None:
        """See `BusReceiver.receive_message`."""
        kind = self._channels.receive(message)
        if kind is not None:
            self._metrics.received(kind, 1)

    def receive_control(self, body: bytes) -> None:
        """A user changed, tokens were revoked, or a page of an SSE client was hidden. The rest is for others."""
        match parse_control(body):
            case Control(kind="user", id=user_id):
                self._roster.changed(user_id)
            case Control(kind="revoked", id=user_id, before_us=before_us):
                self._roster.changed(user_id)
                self._roster.revoke(user_id, before_us)
            case Control(kind="presence", id=user_id, connection=connection_id, visible=visible):
                self.set_presence(user_id, connection_id, visible)

    def bus_lost(self) -> None:
        """See `BusReceiver.bus_lost`. Control messages are missed as well, so no row is trusted any more."""
        self._lost = True
        self._roster.all_changed(reload=False)

    def bus_restored(self) -> None:
        """See `BusReceiver.bus_restored`."""
        self._lost = False
        self._roster.all_changed(reload=True)
        self._spawn(self._catch_up())

    def _publish(self, channel: Channel[PersonalFrame], frame: PersonalFrame) -> None:
        if not channel.seats:
            return
        seats = channel.seats
        for seat in seats:
            self._fanout.deliver(seat, channel.name, frame)
        self._metrics.delivered(channel.kind.name, len(seats))
        if frame.accepted_at_us:
            self._metrics.latency(channel.kind.name, self._clock.now_us() - frame.accepted_at_us)

    def _lose(self, channel: Channel[PersonalFrame]) -> None:
        self._metrics.gapped(channel.kind.name, len(channel.seats))
        for seat in channel.seats:
            self._fanout.deliver(seat, channel.name, None)

    def _lose_broadcasts(self, channel: Channel[BroadcastEntry]) -> None:
        self._metrics.gapped(BROADCASTS, len(self._registry.seats))
        self._fanout.broadcast(BroadcastEntry.gap(channel.epoch, channel.last))

    def _failed(self, channel: Channel[Any]) -> None:
        self._channels.failed(channel)

    def _reload(self, member: Member) -> None:
        self._roster.reload(member)

    # ------------------------------------------------------------ joining

    async def join(self, wire: Wire, positions: dict[str, StreamPosition]) -> list[Joined]:
        """See `Node.join`."""
        self._admit(wire)
        seat = self._registry.add(wire)
        self._metrics.connections(wire.transport, 1)
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                return await self._joining.join(seat, positions)
        except (BusUnavailable, StoreUnavailable, TimeoutError) as error:
            self.leave(wire)
            raise self._away() from error
        except BaseException:
            self.leave(wire)
            raise

    def _admit(self, wire: Wire) -> None:
        if self._draining:
            raise self._refused(503, "shutdown", "This hub node is going away.")
        if self._lost:
            raise self._away()
        if len(self._registry.seats) >= self._limits.connections:
            raise self._refused(503, "too_many_connections", "This hub node is full.")
        member = self._registry.members.get(wire.identity.user_id)
        if member is not None and len(member.seats) >= self._limits.connections_per_user:
            raise self._refused(429, "too_many_connections", "You have too many connections.")

    def release(self, wire: Wire) -> None:
        """See `Node.release`."""
        seat = self._registry.seats.get(wire.connection_id)
        if seat is None or seat.held is None:
            return
        held, seat.held = seat.held, None
        replied, seat.replied = seat.replied, None
        for report_id in replied or ():
            self._reached.written(seat, report_id)
        for channel, frames in held.items():
            for frame in frames:
                self._fanout.deliver(seat, channel, frame)

    def leave(self, wire: Wire) -> None:
        """See `Node.leave`."""
        seat = self._registry.seats.get(wire.connection_id)
        if seat is None or seat.wire is not wire:
            return
        seat.left = True
        seat.held = None
        for channel in seat.channels:
            self._joining.quit(seat, channel)
        self._registry.remove(seat)
        self._metrics.connections(wire.transport, -1)

    # ------------------------------------------------------------ client-side subscriptions, history

    async def subscribe(self, wire: Wire, channel: str, position: StreamPosition | None) -> Joined:
        """See `Node.subscribe`. Raises `Refused`: 403, 409, 503."""
        seat = self._seat(wire)
        if channel != LOG or not wire.identity.operator:
            raise self._refused(403, "forbidden", "This channel is not yours to subscribe to.")
        if any(own.name == LOG for own in seat.channels):
            raise self._refused(409, "already_subscribed", "The connection is subscribed to this channel.")
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                return await self._joining.enter(seat, LOG, position)
        except (BusUnavailable, TimeoutError) as error:
            self.unsubscribe(wire, channel)
            raise self._away() from error
        except BaseException:
            self.unsubscribe(wire, channel)
            raise

    def unsubscribe(self, wire: Wire, channel: str) -> None:
        """See `Node.unsubscribe`."""
        seat = self._registry.seats.get(wire.connection_id)
        if seat is None or channel != LOG:
            return
        for own in [own for own in seat.channels if own.name == LOG]:
            self._joining.quit(seat, own)
        if seat.held is not None:
            seat.held.pop(channel, None)

    async def history(
        self, wire: Wire, channel: str, limit: int, since: StreamPosition | None, reverse: bool
    ) -> Joined:
        """See `Node.history`. In another epoch than the asked one the page is empty. Raises `Refused`: 400, 403, 429, 503."""
        seat = self._seat(wire)
        self._calls.admit(wire)
        try:
            if channel == BROADCASTS:
                await self._roster.wait(seat.member)
                broadcasts = self._channels.broadcasts
                return await page(
                    broadcasts, limit, since, reverse, lambda e: self._fanout.frame_for(seat.member, e)
                )
            for own in seat.channels:
                if own.name == channel:
                    return await page(own, limit, since, reverse, lambda frame: frame)
        except (BusUnavailable, StoreUnavailable) as error:
            raise self._away() from error
        raise self._refused(403, "forbidden", "The connection is not subscribed to this channel.")

    # ------------------------------------------------------------ calls and presence

    async def rpc(self, wire: Wire, method: str, data: Any) -> bytes:
        """See `Node.rpc`."""
        self._calls.admit(wire)
        if method == "presence.set":
            self.set_visible(wire, parse_presence(data))
            return b"{}"
        return await self._calls.call(wire.identity, method, data)

    def set_visible(self, wire: Wire, visible: bool) -> None:
        """See `Node.set_visible`."""
        wire.visible = visible
        seat = self._registry.seats.get(wire.connection_id)
        if seat is not None and not visible:
            self._reached.hidden(seat)

    def set_presence(self, user_id: str, connection_id: str, visible: bool) -> bool:
        """The same for who knows only the connection's id (SSE); False: the user has no such connection here."""
        seat = self._registry.seats.get(connection_id)
        if seat is None or seat.member.user_id != user_id:
            return False
        self.set_visible(seat.wire, visible)
        return True

    def proven_alive(self, wire: Wire, until_us: int) -> None:
        """See `Node.proven_alive`."""
        seat = self._registry.seats.get(wire.connection_id)
        if seat is not None:
            self._reached.proven(seat, until_us)

    def _seat(self, wire: Wire) -> Seat:
        seat = self._registry.seats.get(wire.connection_id)
        if seat is None:
            raise Refused(503, "connection_closed", "The connection has not joined.")
        return seat

    def _away(self) -> Refused:
        return self._refused(503, "unavailable", "Live delivery is away for a moment.")

    def _refused(self, status: int, code: str, detail: str) -> Refused:
        self._metrics.refused(code)
        return Refused(status, code, detail, retry_after_seconds=1 if status in (429, 503) else None)
