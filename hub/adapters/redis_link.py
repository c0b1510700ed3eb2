"""A pub/sub connection that repairs itself for ever, as an `asyncio.Protocol` around hiredis' reader.

Promise: `subscribe` returns when Redis confirmed it; after a loss every subscription is confirmed again before
`link_restored`. What was published while the link was down is lost, and the listener is told. Silence counts as loss,
so a frozen peer is noticed. Messages of one connection keep their order.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from hub.adapters.redis_endpoint import Endpoint
from hub.adapters.redis_wire import Wire, WireError
from hub.errors import BusUnavailable

_log = logging.getLogger(__name__)
_CHUNK: Final = 500  # channels per SUBSCRIBE when all are asked for again


@dataclass(frozen=True, slots=True)
class LinkTiming:
    """How patient a link is, in seconds."""

    ping: float = 1.0
    silence: float = 2.0  # without a byte: lost
    connect: float = 2.0
    subscribe: float = 5.0  # how long a caller waits for a confirmation
    first_retry: float = 0.05
    longest_retry: float = 1.0


class LinkListener(Protocol):
    """Who hears a link. Called on the event loop; must not block."""

    def link_message(self, name: str, body: bytes) -> None:
        """A message of a subscribed channel."""
        ...

    def link_lost(self) -> None:
        """Messages are being missed from now on."""
        ...

    def link_restored(self) -> None:
        """All subscriptions are confirmed again."""
        ...


@dataclass(slots=True, eq=False)
class _Subscription:
    """One channel. `sent`: the last command for it on this connection was SUBSCRIBE. `unanswered`: commands in flight."""

    name: str
    count: int = 0
    sent: bool = False
    unanswered: int = 0
    waiters: tuple[asyncio.Future[None], ...] = ()  # a list for each channel would stay

    @property
    def confirmed(self) -> bool:
        return self.sent and self.unanswered == 0

    def release_waiters(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.waiters = ()


class RedisLink:
    """Subscriptions of one process to channels of one Redis."""

    def __init__(self, url: str, listener: LinkListener, timing: LinkTiming) -> None:
        self._endpoint = Endpoint.from_url(url)
        self._listener = listener
        self._deliver = listener.link_message
        self._timing = timing
        self._subscriptions: dict[bytes, _Subscription] = {}
        self._wire: Wire | None = None  # only while it is ready for SUBSCRIBE
        self._outbox: list[tuple[bytes, bytes]] = []
        self._flush_planned = False
        self._asked_for: set[bytes] = set()  # the chunk of `_ask_for_all` that is not confirmed yet
        self._all_confirmed: asyncio.Future[None] | None = None
        self._lost = False
        self._task: asyncio.Task[None] | None = None

    async def start(self, channels: Sequence[str] = ()) -> None:
        """Connect and subscribe; if Redis is away, tell the listener, return and go on trying."""
        for channel in channels:
            self._subscriptions[channel.encode()] = _Subscription(channel, count=1)
        loop = asyncio.get_running_loop()
        first: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._run(first), name="redis link")
        await asyncio.shield(first)

    async def subscribe(self, channel: str, name: str) -> None:
        """Count one more subscription; `name` is what the listener gets. Raises `BusUnavailable` when it takes too long."""
        key = channel.encode()
        subscription = self._subscriptions.get(key)
        if subscription is None:
            subscription = self._subscriptions[key] = _Subscription(name)
        subscription.count += 1
        self._settle(key, subscription)
        if subscription.confirmed:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        subscription.waiters += (waiter,)
        try:
            async with asyncio.timeout(self._timing.subscribe):
                await waiter
        except BaseException as error:
            self.unsubscribe(channel)
            if isinstance(error, TimeoutError):
                raise BusUnavailable("Redis did not confirm a subscription in time.") from error
            raise
        finally:
            if subscription.waiters:
                subscription.waiters = tuple([other for other in subscription.waiters if other is not waiter])

    def unsubscribe(self, channel: str) -> None:
        """Count one less; unknown channels change nothing."""
        key = channel.encode()
        subscription = self._subscriptions.get(key)
        if subscription is not None and subscription.count > 0:
            subscription.count -= 1
            self._settle(key, subscription)

    async def close(self) -> None:
        """Disconnect; callers that wait for a confirmation are refused."""
        self._lost = True  # a loss that is wanted is not reported
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        for subscription in list(self._subscriptions.values()):
            for waiter in subscription.waiters:
                if not waiter.done():
                    waiter.set_exception(BusUnavailable("The link was closed."))

    # ------------------------------------------------------------ subscriptions on the wire

    def _settle(self, key: bytes, subscription: _Subscription) -> None:
        """Bring the wire in line with the count."""
        wanted = subscription.count > 0
        if self._wire is None:
            if not wanted:
                self._end(key, subscription)
        elif wanted != subscription.sent:
            subscription.sent = wanted
            subscription.unanswered += 1
            self._send(b"SUBSCRIBE" if wanted else b"UNSUBSCRIBE", key)
        elif not wanted and subscription.unanswered == 0:
            self._end(key, subscription)

    def _end(self, key: bytes, subscription: _Subscription) -> None:
        """Nobody wants it any more; who gave it back before it was confirmed need not wait."""
        del self._subscriptions[key]
        subscription.release_waiters()

    def _send(self, verb: bytes, key: bytes) -> None:
        """Join what is asked for in one turn of the loop into few commands."""
        self._outbox.append((verb, key))
        if not self._flush_planned:
            self._flush_planned = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_planned = False
        outbox, self._outbox = self._outbox, []
        if self._wire is None:
            return
        run: list[bytes] = []
        for verb, key in outbox:
            if run and run[0] != verb:
                self._wire.send(*run)
                run = []
            run = run or [verb]
            run.append(key)
        if run:
            self._wire.send(*run)

    def _answered(self, key: bytes) -> None:
        """A (un)subscription took effect. Replies come in the order of the commands."""
        subscription = self._subscriptions.get(key)
        if subscription is None:
            return
        subscription.unanswered -= 1
        if subscription.unanswered > 0:
            return
        if subscription.sent:
            subscription.release_waiters()
        else:
            self._end(key, subscription)
        self._asked_for.discard(key)
        if self._all_confirmed is not None and not self._asked_for:
            self._all_confirmed.set_result(None)
            self._all_confirmed = None

    def _message(self, key: bytes, body: bytes) -> None:
        subscription = self._subscriptions.get(key)
        # Between the end of one subscription and the confirmation of the next nobody has been promised anything.
        if subscription is not None and subscription.sent and not subscription.unanswered:
            self._deliver(subscription.name, body)

    # ------------------------------------------------------------ connections, one after the other

    async def _run(self, first: asyncio.Future[None]) -> None:
        failures = 0
        while True:
            wire = None
            try:
                wire = await self._connect()
                await self._ask_for_all(wire)
                failures = 0
                self._report_restored()
                if not first.done():
                    first.set_result(None)
                await wire.closed
                _log.warning("The link to Redis was lost: %s", wire.reason)
            except (OSError, UnicodeError, WireError) as error:  # TimeoutError is an OSError
                level = logging.DEBUG if failures else logging.WARNING  # once per outage
                _log.log(level, "No link to Redis: %s", str(error) or type(error).__name__)
            except Exception:  # noqa: BLE001 - a defect of the listener must not make a node deaf for ever
                _log.exception("The link to Redis starts again")
            finally:
                self._forget(wire)
            if not first.done():
                first.set_result(None)
            longest = min(self._timing.first_retry * 2**failures, self._timing.longest_retry)
            failures = min(failures + 1, 16)
            await asyncio.sleep(random.uniform(longest / 2, longest))

    async def _connect(self) -> Wire:
        timing = self._timing
        async with asyncio.timeout(timing.connect):
            wire = await Wire.connect(self._endpoint, self._message, self._answered)
            try:
                await wire.handshake()
            except BaseException:
                wire.abort("the handshake failed")
                raise
        wire.watch(timing.ping, timing.silence)
        return wire

    async def _ask_for_all(self, wire: Wire) -> None:
        """Subscribe to everything, a chunk at a time; return when all of it is confirmed. Raises `WireError`."""
        self._wire = wire
        keys = list(self._subscriptions)
        for start in range(0, len(keys), _CHUNK):
            self._asked_for.clear()
            for key in keys[start : start + _CHUNK]:
                subscription = self._subscriptions.get(key)
                if subscription is not None:
                    self._settle(key, subscription)
                    if subscription.unanswered:
                        self._asked_for.add(key)
            if self._asked_for:
                self._all_confirmed = asyncio.get_running_loop().create_future()
                await wire.until(self._all_confirmed)

    def _forget(self, wire: Wire | None) -> None:
        """The connection is over: nothing is confirmed any more."""
        self._wire = None
        self._all_confirmed = None
        self._outbox.clear()
        for key, subscription in list(self._subscriptions.items()):
            subscription.sent = False
            subscription.unanswered = 0
            if subscription.count == 0:
                self._end(key, subscription)
        if wire is not None:
            wire.abort("closed")
        if not self._lost:
            self._lost = True
            self._listener.link_lost()

    def _report_restored(self) -> None:
        if self._lost:
            self._lost = False
            self._listener.link_restored()
