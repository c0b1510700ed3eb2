"""The composition root: configuration in, ready parts out. The only importer of adapters.

Everything that settings choose is chosen here, once. `open_hub` and `open_generator` are the two roles; both share
`open_core`, which refuses a database, a Redis or a number of partitions that do not fit, with one sentence.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import msgspec

from hub.access import Access
from hub.adapters.embedded_valkey import EmbeddedValkey
from hub.adapters.memory_bus import MemoryBus
from hub.adapters.memory_queue import MemoryQueue
from hub.adapters.redis_bus import RedisBus
from hub.adapters.redis_health import Durability, RedisHealth, look_at_redis
from hub.adapters.redis_queue import RedisQueue
from hub.adapters.sql_store import SqlStore, memory_store, migrate
from hub.batches import PlanningRules
from hub.catalog import Catalog
from hub.clock import SystemClock
from hub.config import Settings
from hub.errors import ConfigError, QueueUnavailable
from hub.events import Events
from hub.explain import Explain
from hub.generator import Generator
from hub.inbox import Inbox
from hub.ingest import Ingest
from hub.intake import Intake
from hub.jwks import Jwks
from hub.keyfiles import make_private_folder
from hub.keys import Keys
from hub.live.edge import Edge
from hub.live.generation import Generation, Sight
from hub.live.node import LiveNode
from hub.live.viewers import Viewers
from hub.livelog import LiveLog
from hub.metrics import Metrics
from hub.model.ids import EventIds
from hub.people import People
from hub.ports import Clock, EventQueue, LiveBus, Store
from hub.push import Push
from hub.ratelimit import RateLimiter
from hub.rpc import methods
from hub.sessions import Sessions
from hub.tokens import Tokens

_log = logging.getLogger(__name__)


def redis_url(settings: Settings) -> str:
    """The Redis to use: the given one, or the embedded one of the data folder."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return EmbeddedValkey(settings.data_dir).url


def embedded_redis(settings: Settings) -> EmbeddedValkey:
    """The embedded server of the data folder."""
    return EmbeddedValkey(settings.data_dir)


async def redis_health(settings: Settings) -> RedisHealth:
    """What Redis is worth. Raises `ConfigError` when it may evict events, `QueueUnavailable` when it is away."""
    return await look_at_redis(redis_url(settings))


async def waiting_events(settings: Settings) -> dict[str, int]:
    """How many events wait, per partition."""
    queue = RedisQueue(redis_url(settings), settings.redis_prefix, settings.partitions)
    try:
        return await queue.waiting()
    finally:
        await queue.close()


async def open_store(settings: Settings) -> Store:
    """The store, its schema checked. Raises `StoreUnavailable` or `SchemaMismatch`."""
    store = SqlStore(settings.sqlalchemy_url.get_secret_value())
    try:
        await store.check_schema()
    except BaseException:
        await store.close()
        raise
    return store


async def migrate_database(settings: Settings) -> None:
    """Bring the schema to this program's version. Repeating it, also at the same time, changes nothing."""
    if settings.database_url is None:
        make_private_folder(settings.data_dir)
    await migrate(settings.sqlalchemy_url.get_secret_value())


@dataclass(slots=True)
class Core:
    """What every role needs."""

    settings: Settings
    clock: Clock
    store: Store
    queue: EventQueue
    bus: LiveBus
    ids: EventIds
    definitions: Catalog
    metrics: Metrics
    deployment: str  # a name that says nothing, and that no other deployment has
    generation: Generation | None = None

    @property
    def rules(self) -> PlanningRules:
        """What planning needs of the settings."""
        return PlanningRules(
            self.settings.partitions, self.settings.available_channels, self.settings.timezone
        )

    def intake(self) -> Intake:
        """The way in for events."""
        return Intake(
            self.queue,
            self.definitions,
            self.ids,
            self.clock,
            partitions=self.settings.partitions,
            queue_limit=self.settings.queue_limit,
            metrics=self.metrics.intake,
        )


@asynccontextmanager
async def open_core(settings: Settings, role: str) -> AsyncIterator[Core]:
    """The parts that both roles share, closed at the end."""
    async with AsyncExitStack() as stack:
        clock = SystemClock()
        store = await open_store(settings)
        stack.push_async_callback(store.close)
        await _check_partitions(settings, store)
        queue = RedisQueue(redis_url(settings), settings.redis_prefix, settings.partitions)
        stack.push_async_callback(queue.close)
        bus = RedisBus(redis_url(settings), settings.redis_prefix, settings.partitions)
        stack.push_async_callback(bus.close)
        core = await core_of(settings, clock, store, queue, bus, role)
        core.generation = Generation(store, bus, partial(_look_at_redis, settings))
        if role != "node" and settings.metrics_port is not None:
            end = core.metrics.serve(settings.host, settings.metrics_port)
            stack.push_async_callback(asyncio.to_thread, end)
        yield core


async def core_of(
    settings: Settings, clock: Clock, store: Store, queue: EventQueue, bus: LiveBus, role: str
) -> Core:
    """The shared parts on given adapters."""
    key = await store.setting("event_id_key", secrets.token_hex(16))
    definitions = Catalog(store, clock)
    return Core(
        settings=settings,
        clock=clock,
        store=store,
        queue=queue,
        bus=bus,
        ids=EventIds(key.encode()),
        definitions=definitions,
        metrics=Metrics(role, settings.process_name),
        deployment=blake2b(key.encode(), digest_size=8, person=b"deployment").hexdigest(),
    )


async def _look_at_redis(settings: Settings) -> Sight:
    return sight_of(await redis_health(settings))


def sight_of(health: RedisHealth) -> Sight:
    """What the generation needs to know about the Redis that answers."""
    found = health.replication
    return Sight(found.run_id, found.replid, found.previous_replid != "", health.durability == "weak")


async def _check_partitions(settings: Settings, store: Store) -> None:
    stored = await store.setting("partitions", str(settings.partitions))
    if stored != str(settings.partitions):
        raise ConfigError(
            f"CLARION_PARTITIONS is {settings.partitions}, but this deployment began with {stored}; "
            "it is fixed at the first start."
        )


@dataclass(slots=True)
class Hub:
    """The ready parts of one hub node: what the API, the live routes and the pages use."""

    settings: Settings
    clock: Clock
    store: Store
    queue: EventQueue
    bus: LiveBus
    intake: Intake
    events: Events
    inbox: Inbox
    explain: Explain
    people: People
    definitions: Catalog
    keys: Keys
    push: Push
    access: Access
    sessions: Sessions
    limiter: RateLimiter
    durability: Durability
    metrics: Metrics
    deployment: str
    node: LiveNode
    edge: Edge


def push_of(core: Core, inbox: Inbox) -> Push:
    """The hub's half of web push. Raises `ConfigError` for a key that is none."""
    settings = core.settings
    key = settings.vapid_private_key
    return Push(
        core.store,
        core.clock,
        inbox,
        core.intake(),
        LiveLog(core.bus),
        vapid_private_key=key.get_secret_value() if key else None,
        secrets=settings.token_secrets,
        allowed_hosts=settings.push_allowed_hosts,
    )


def sessions_of(settings: Settings, store: Store, clock: Clock) -> Sessions:
    """Sessions of our own pages."""
    public = settings.public
    return Sessions(settings.token_secrets, store, clock, secure=public.is_https, path=public.path)


@asynccontextmanager
async def open_hub(core: Core, durability: Durability = "strong") -> AsyncIterator[Hub]:
    """A hub node at work on a core: it listens to the bus until the end."""
    hub = _hub_of(core, durability)
    await hub.node.start()
    watch = asyncio.create_task(_watch_queue(hub.intake), name="watch-queue")
    try:
        yield hub
    finally:
        watch.cancel()
        await asyncio.wait([watch])
        await hub.node.close()


async def _watch_queue(intake: Intake) -> None:
    while True:
        try:
            await intake.watch_queue()
        except QueueUnavailable as error:
            _log.warning("the queue's length is unknown: %s", error)
        await asyncio.sleep(1.0)


def _hub_of(core: Core, durability: Durability) -> Hub:
    settings, clock, store, bus = core.settings, core.clock, core.store, core.bus
    viewers = Viewers(store, clock)
    inbox = Inbox(store, bus, clock, settings.timezone, viewers.fresh)
    people = People(store, bus, clock, core.definitions, available=settings.available_channels)
    jwks = Jwks(settings.token_jwks_url, clock) if settings.token_jwks_url else None
    tokens = Tokens(
        settings.token_secrets,
        clock,
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        jwks=jwks,
    )
    sessions = sessions_of(settings, store, clock)
    limiter = RateLimiter(settings.rate_limit, clock)
    first = settings.api_key.get_secret_value() if settings.api_key else None
    access = Access(tokens, sessions, store, settings.origins)
    node = LiveNode(
        store,
        bus,
        clock,
        default_timezone=settings.timezone,
        methods=methods(inbox, people),
        calls_per_user=limiter,
        metrics=core.metrics.live,
        generation=core.generation,
        viewers=viewers,
    )
    return Hub(
        settings=settings,
        clock=clock,
        store=store,
        queue=core.queue,
        bus=bus,
        intake=core.intake(),
        events=Events(store=store, queue=core.queue, bus=bus, ids=core.ids, clock=clock, inbox=inbox),
        inbox=inbox,
        explain=Explain(store, core.definitions, settings.available_channels, settings.timezone, clock),
        people=people,
        definitions=core.definitions,
        keys=Keys(store, clock, first),
        push=push_of(core, inbox),
        access=access,
        sessions=sessions,
        limiter=limiter,
        durability=durability,
        metrics=core.metrics,
        deployment=core.deployment,
        node=node,
        edge=Edge(
            node, access.reading(viewers.check_in), clock, forward_presence=partial(_forward_presence, bus)
        ),
    )


async def _forward_presence(bus: LiveBus, user_id: str, connection_id: str, visible: bool) -> None:
    control = {"kind": "presence", "id": user_id, "connection": connection_id, "visible": visible}
    await bus.send_control(msgspec.json.encode(control))


def generator_of(core: Core) -> Generator:
    """A generator on a core."""
    return Generator(
        core.store,
        core.queue,
        core.bus,
        core.definitions,
        core.clock,
        core.rules,
        owner=owner_name(),
        metrics=core.metrics.generator,
    )


def ingest_of(core: Core) -> Ingest:
    """The mover of Redis ingest on a core."""
    return Ingest(
        intake=core.intake(),
        queue=core.queue,
        bus=core.bus,
        store=core.store,
        ids=core.ids,
        clock=core.clock,
    )


def owner_name() -> str:
    """A name for this process that no other has, also after a restart."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


async def memory_core(settings: Settings, clock: Clock) -> Core:
    """A core on the in-memory adapters, for tests and experiments. Nothing survives the process."""
    return await core_of(
        settings,
        clock,
        await memory_store(),
        MemoryQueue(clock, settings.partitions),
        MemoryBus(clock),
        "memory",
    )
