"""The ports: what the use cases need of the outside, as contracts in prose.

Each says what may be lost, repeated or reordered. Every adapter of a port runs the same suite in tests/conformance.
Only `hub.wiring` chooses adapters.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from hub.model.deliveries import Delivery
from hub.model.events import NamedUser
from hub.model.notifications import Broadcast, Marks, Notification
from hub.model.types import CategoryDefinition, TypeVersion
from hub.model.users import Preferences, Profile, Subscription, User
from hub.model.vocabulary import Mark

# ---------------------------------------------------------------- clock


class Clock(Protocol):
    """The wall clock. Tests move it."""

    def now_us(self) -> int:
        """Microseconds since 1970, UTC."""
        ...


# ---------------------------------------------------------------- event queue


class Position(NamedTuple):
    """Where a slice stands in its partition: stream entry id and index within the entry. Ordered like the queue."""

    ms: int
    seq: int
    index: int  # type: ignore[assignment]  # a place, not tuple's search method

    def encode(self) -> str:
        """Fixed width, so that texts sort as positions do."""
        return f"{self.ms:015d}-{self.seq:010d}-{self.index:06d}"

    @classmethod
    def decode(cls, text: str) -> "Position":
        """The inverse of `encode`."""
        ms, seq, index = text.split("-")
        return cls(int(ms), int(seq), int(index))


START = Position(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's key (already scoped to the API key), the digest of the parsed body, and how long it is kept."""

    key: str
    digest: str
    keep_seconds: int = 86_400


@dataclass(frozen=True, slots=True)
class Append:
    """One accepted event on its way to the queue: encoded slices per partition name ("0".."P-1", "lane")."""

    event_id: str
    slices: Mapping[str, bytes]
    idempotency: Idempotency | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """The event is on disk. `replayed`: it was before, under the same key; `event_id` is the first one's."""

    event_id: str
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class KeyReused:
    """The idempotency key belongs to another body; nothing was appended for this event."""

    event_id: str


@dataclass(frozen=True, slots=True)
class QueuedSlice:
    """One slice as read; `raw` is what was appended."""

    position: Position
    raw: bytes


@dataclass(frozen=True, slots=True)
class IngestEntry:
    """One entry of the public ingest stream: raw fields as a publisher wrote them, and its entry id ("ms-seq")."""

    entry_id: str
    fields: Mapping[bytes, bytes]


class EventQueue(Protocol):
    """A durable log per partition. An append that returned is on disk; order within a partition is append order.

    An append that raised `QueueUnavailable` may or may not have happened. Reading takes nothing away: a new owner
    reads its partition from the start; only `trim` removes. Nothing is lost; appends may repeat (slices are planned once).
    """

    async def append(self, events: Sequence[Append]) -> list[Appended | KeyReused]:
        """Append all events of one call in order, atomically, grouped to one entry per partition.

        The check of idempotency keys and the append are one step. Results are in order. Calls that arrive together
        share one round trip (and one fsync). Raises `QueueUnavailable`.
        """
        ...

    async def find_key(self, key: str) -> str | None:
        """The event id that an idempotency key (scoped) was used for in the last 24 h."""
        ...

    async def read(
        self, partition: str, after: Position | None, limit: int, wait_seconds: float
    ) -> list[QueuedSlice]:
        """Up to about `limit` slices after a position (None: from the start); whole entries; waits when empty."""
        ...

    async def trim(self, partition: str, through: Position) -> None:
        """Remove all entries up to and including the one of `through`. Repeating it changes nothing."""
        ...

    async def waiting(self) -> dict[str, int]:
        """Waiting slices per partition, and "ingest"."""
        ...

    async def read_ingest(self, after: str | None, limit: int, wait_seconds: float) -> list[IngestEntry]:
        """Entries of the public stream `<prefix>:ingest` after an entry id (None: from the start)."""
        ...

    async def trim_ingest(self, through: str) -> None:
        """Remove entries of the public stream up to and including this id."""
        ...

    async def reject_ingest(self, entry_id: str, event: bytes, code: str, detail: str) -> None:
        """Append to `<prefix>:ingest:rejected`, which keeps the last 10,000. Repeating the same entry may repeat it."""
        ...

    async def listen_ingest(self, receive: Callable[[bytes], Awaitable[None]]) -> None:
        """Hand over what is PUBLISHed on `<prefix>:publish` until cancelled. At most once; lost while away."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


# ---------------------------------------------------------------- live bus


@dataclass(frozen=True, slots=True)
class Publication:
    """One live message for one live channel.

    `payload` is ready-made (the JSON of the live message; for `broadcasts` see hub.live.broadcasts). `header` is a
    short ASCII text for nodes (flags), without newline. With a `position` the append is refused when the channel
    already holds one not smaller: a repeat changes nothing.
    """

    channel: str
    payload: bytes
    position: Position | None = None
    header: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a publication: its offset (0: refused as a repeat) and how many nodes listened."""

    offset: int
    listeners: int


@dataclass(frozen=True, slots=True)
class Message:
    """A publication as nodes get it, live or from history."""

    channel: str
    epoch: str
    offset: int
    header: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class History:
    """A channel's state: its top, and the held messages after the asked offset, ascending.

    `complete` is False when some after the asked offset are not held any more (or the epoch is another).
    """

    epoch: str
    top: int
    messages: list[Message] = field(default_factory=list)
    complete: bool = True


class BusReceiver(Protocol):
    """A hub node, as the bus sees it. Called on the event loop; must not block."""

    def receive_message(self, message: Message) -> None:
        """A live message of a subscribed channel. May be lost, never reordered on one link; a hint."""
        ...

    def receive_control(self, body: bytes) -> None:
        """A control message (`send_control`) from any process."""
        ...

    def bus_lost(self) -> None:
        """The link is down (or silent for 2 s). Messages are being missed from now on."""
        ...

    def bus_restored(self) -> None:
        """The link is up again and every subscription is confirmed: compare offsets and repair now."""
        ...


class LiveBus(Protocol):
    """Histories of live channels (kept, ordered by offset) and their fan-out to nodes (a hint that may be lost).

    Append, offset and fan-out are one atomic step per publication. The epoch names one life of a channel's history;
    it begins with the generation, which is raised when a failover is seen.
    """

    async def publish(self, publications: Sequence[Publication]) -> list[Published]:
        """Append and fan out, in order, in one round trip. Raises `BusUnavailable`; repeat with the same positions."""
        ...

    async def history(self, channel: str, after: int, epoch: str | None, limit: int = 300) -> History:
        """What is held after an offset. `epoch` None or "": any. A channel never used gets its epoch here."""
        ...

    async def tops(self, channels: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Epoch and top offset of channels, in few round trips."""
        ...

    async def start(self, receiver: BusReceiver) -> None:
        """Begin to listen. The link repairs itself for ever; the receiver hears of it."""
        ...

    async def subscribe(self, channel: str) -> None:
        """Returns when the subscription is confirmed: what is published from now on arrives. Counted: pairs with unsubscribe."""
        ...

    async def unsubscribe(self, channel: str) -> None:
        """Give one subscription back; the last one ends it."""
        ...

    async def send_control(self, body: bytes) -> None:
        """Tell every process that listens something short (a user changed, a token was revoked). A hint."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


# ---------------------------------------------------------------- store


@dataclass(frozen=True, slots=True)
class Lease:
    """Ownership of one named piece of work. The high-water marks are what the last committed batch left."""

    name: str  # "0".."P-1", "lane", "ingest", "scheduler"
    owner: str
    fence: int
    position: str = ""  # encoded Position planned and published up to, or an ingest entry id
    clock_us: int = 0  # the greatest created_at_us given on this partition
    broadcast_seq: int = 0  # the last one given (lane)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of the delivery log: what happened to one notification (or event), when."""

    at_us: int
    state: str  # accepted, generated, suppressed, rejected, retracted, reached, seen, read, ... or a delivery state
    event_id: str | None = None
    user_id: str | None = None
    notification_id: str | None = None
    channel: str | None = None
    type: str | None = None
    category: str | None = None
    provider: str | None = None
    reason: str | None = None
    detail: str | None = None  # JSON or a sentence
    id: int = 0  # given by the store


@dataclass(frozen=True, slots=True)
class PlannedSlice:
    """The ledger row of one slice: recipients = in_app + suppressed + rejected.

    `partition` is the slice's key (`Slice.key`): the partition, with "@<zone>" for a part of a `local` schedule.
    """

    event_id: str
    partition: str
    recipients: int
    in_app: int
    suppressed: int
    rejected: int = 0
    deliveries: int = 0
    expansion: Mapping[str, int] = field(default_factory=dict)  # broadcast: per channel:reason, counted


@dataclass(frozen=True, slots=True)
class EventRecord:
    """An event as SQL knows it. `state`: accepted (some slices still wait), scheduled, generated, retracted, rejected."""

    id: str
    type: str
    category: str
    source: str
    actor: str | None
    accepted_at_us: int
    slices: int
    state: str = "generated"
    error: str | None = None
    raw: bytes | None = None  # the whole slice, kept when rejected
    send_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class ScheduledPart:
    """A part of a scheduled event that is due at one moment: cut and queued then, with the event's id."""

    event_id: str
    part: str  # "" or the time zone of a `local` time
    due_at_us: int
    raw: bytes  # the encoded schedule slice, its audience narrowed to this part


@dataclass(slots=True)
class Batch:
    """What one generator transaction writes. Everything or nothing."""

    lease: Lease  # with the new position, clock_us and broadcast_seq
    events: list[EventRecord] = field(default_factory=list)
    slices: list[PlannedSlice] = field(default_factory=list)
    users: list[NamedUser] = field(default_factory=list)  # to upsert: unknown ones are created
    notifications: list[Notification] = field(default_factory=list)
    broadcasts: list[Broadcast] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    scheduled: list[ScheduledPart] = field(default_factory=list)
    log: list[LogEntry] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit found out.

    `collapsed`: notifications that a collapse_key replaced, per user ("" for broadcasts). `left_out`: ids of the batch
    that are not shown (retracted or erased since it was planned, or replaced within it) and must not be announced.
    """

    collapsed: Mapping[str, Sequence[str]]
    left_out: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class StoredSlice:
    """A slice that was planned before: what is published again, in order."""

    event_id: str
    notifications: list[Notification]
    broadcast: Broadcast | None


@dataclass(frozen=True, slots=True)
class InboxQuery:
    """Filters of an inbox page. `before` is the (created_at_us, id) of the last row of the page before."""

    limit: int
    before: tuple[int, str] | None = None
    unread: bool = False
    category: str | None = None
    archived: Literal["exclude", "only", "include"] = "exclude"


@dataclass(frozen=True, slots=True)
class BroadcastRow:
    """A broadcast with one user's effective marks on it."""

    broadcast: Broadcast
    marks: Marks


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as stored: never its secret."""

    id: str
    name: str
    scopes: frozenset[str]
    created_at_us: int
    revoked_at_us: int | None = None
    expires_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Filters of the delivery log; newest first, `before` is the last id seen."""

    limit: int
    before: int | None = None
    user_id: str | None = None
    event_id: str | None = None
    channel: str | None = None
    state: str | None = None
    since_us: int | None = None


class LeaseStore(Protocol):
    """Leases with fences. All times are the database's clock. A lease that lapsed belongs to whoever takes it first."""

    async def heartbeat(self, owner: str, role: str, ttl_seconds: float) -> int:
        """Say that a process lives (with 0 seconds: that it goes); returns how many of its role do."""
        ...

    async def take_lease(self, name: str, owner: str, ttl_seconds: float) -> Lease | None:
        """Take a lease that is free or lapsed (fence + 1). None: somebody else holds it."""
        ...

    async def renew_leases(self, leases: Sequence[Lease], ttl_seconds: float) -> list[str]:
        """Extend those that still have this owner and fence; returns the names that were."""
        ...

    async def release_lease(self, lease: Lease) -> None:
        """Give it back at once (a later owner raises the fence)."""
        ...

    async def free_leases(self, names: Sequence[str]) -> list[str]:
        """Those of the names that anybody may take now."""
        ...

    async def save_lease_position(self, lease: Lease) -> None:
        """Store a lease's position outside a batch (ingest). Raises `LeaseLost`."""
        ...


class PlanStore(Protocol):
    """What the generator reads and writes. `commit` is one fenced transaction; a slice is planned once."""

    async def planned(self, partition: str, event_ids: Sequence[str]) -> dict[str, StoredSlice]:
        """Those of the events whose slice with this key is planned already, with what was planned in it."""
        ...

    async def retracted(self, event_ids: Sequence[str]) -> set[str]:
        """Those of the events that were retracted before they were planned."""
        ...

    async def commit(self, batch: Batch) -> Committed:
        """Write a batch. Begins with the UPDATE of the lease row on its fence; raises `LeaseLost` without writing.

        Log rows add to the minute counters (type, channel, state, provider) in the same transaction. Collapse keys
        replace older rows of the same user (or, for broadcasts, older broadcasts with the same key and audience).
        """
        ...

    async def due_scheduled(self, now_us: int, limit: int) -> list[ScheduledPart]:
        """Parts that are due and not queued yet, oldest first."""
        ...

    async def mark_scheduled_queued(self, parts: Sequence[ScheduledPart]) -> None:
        """They are in the queue now."""
        ...


class UserStore(Protocol):
    """Users, preferences, topics."""

    async def load_users(self, ids: Sequence[str], with_subscriptions: bool = False) -> dict[str, User]:
        """Known users by id; an erased one that is unknown since has a User with `erased_at_us` (version 0)."""
        ...

    async def list_users(self, after: str | None, limit: int) -> list[Profile]:
        """Profiles by id."""
        ...

    async def save_profile(self, profile: Profile) -> bool:
        """Create or replace; True when it was created."""
        ...

    async def merge_users(self, users: Sequence["UserMerge"]) -> None:
        """Upsert many: only the given fields change."""
        ...

    async def save_preferences(self, user_id: str, preferences: Preferences, if_version: int | None) -> int:
        """Replace them (creating the user); returns the new version. Raises `Refused(412)` when `if_version` is stale."""
        ...

    async def erase_user(self, user_id: str, now_us: int) -> bool:
        """Remove rows, subscriptions, addresses; deliveries `cancelled(erased)`; log gets a random pseudonym; tokens
        issued before now are refused; later-planned slices of earlier events skip the user. False: was unknown."""
        ...

    async def revoke_tokens(self, user_id: str, now_us: int) -> None:
        """Tokens issued before now are refused."""
        ...

    async def export_user(self, user_id: str) -> dict[str, object] | None:
        """Everything that is kept about a user, as JSON-able data."""
        ...

    async def timezones(self) -> list[str]:
        """The distinct zones of all users."""
        ...

    async def change_topic(self, topic: str, add: Sequence[str], remove: Sequence[str]) -> None:
        """Open and close subscription intervals at the lane's current broadcast_seq + 1; unknown users are created.

        Adding a subscriber or removing a stranger changes nothing. Raises `Refused(422, "too_many_topics")` beyond 500.
        """
        ...

    async def list_topics(self, after: str | None, limit: int) -> list[tuple[str, int]]:
        """Topics with their number of subscribers."""
        ...

    async def topic_users(self, topic: str, after: str | None, limit: int) -> list[str]:
        """Current subscribers by id."""
        ...

    async def user_topics(self, user_id: str) -> list[Subscription]:
        """Open and closed intervals of a user."""
        ...

    async def delete_topic(self, topic: str) -> int:
        """Close all open intervals; returns how many."""
        ...


@dataclass(frozen=True, slots=True)
class UserMerge:
    """One merge: fields to set (None value: clear), optional preferences and topics to join."""

    id: str
    fields: Mapping[str, object] = field(default_factory=dict)  # of Profile, without id
    preferences: Preferences | None = None
    topics: Sequence[str] | None = None


class InboxStore(Protocol):
    """Addressed rows, broadcast candidates, marks. Visibility of broadcasts is decided by the caller (`visible()`)."""

    async def inbox_page(
        self, user_id: str, query: InboxQuery, now_us: int | None = None
    ) -> list[Notification]:
        """Addressed rows that the inbox shows (in_app, not retracted, collapsed or expired), newest first.

        Without `now_us` the database's clock says what has expired.
        """
        ...

    async def broadcast_page(
        self, user_id: str, topics: Sequence[str], query: InboxQuery, now_us: int
    ) -> list[BroadcastRow]:
        """Candidates on these topics or for everyone, newest first, with effective marks. Filters of the query apply
        to the marks; audience beyond topic/everyone and preferences are not applied here."""
        ...

    async def find_notifications(
        self, user_id: str, ids: Sequence[str]
    ) -> tuple[list[Notification], list[BroadcastRow]]:
        """The addressed rows of this user and the broadcasts (anybody's) with these ids."""
        ...

    async def count_addressed(self, user_id: str, cap: int, now_us: int) -> tuple[int, int]:
        """(unread, unseen) among shown, unarchived addressed rows, counted up to `cap`."""
        ...

    async def mark_ids(
        self, user_id: str, mark: Mark, addressed: Sequence[str], broadcasts: Sequence[Broadcast], now_us: int
    ) -> list[str]:
        """Mark rows; returns the ids that changed. `read` implies `seen`. Cancels held deliveries (`seen`), writes log."""
        ...

    async def mark_all(
        self, user_id: str, mark: Mark, category: str | None, through_seq: int, now_us: int
    ) -> None:
        """Mark all that exists: addressed rows, and broadcasts up to `through_seq` by a watermark."""
        ...

    async def report_reached(self, reports: Sequence[tuple[str, str, int]]) -> None:
        """(user id, notification id, written_at_us): cancels held `offline` deliveries; log `reached` once."""
        ...

    async def top_broadcast_seq(self) -> int:
        """The last broadcast_seq that was given."""
        ...

    async def broadcasts_after(self, seq: int, limit: int) -> list[Broadcast]:
        """Stored broadcasts above a seq, ascending (repairs, checks)."""
        ...


class EventStore(Protocol):
    """Events after planning, and their retraction."""

    async def event(self, event_id: str) -> EventRecord | None:
        """What SQL knows of an event; `state` is computed from its slices, schedule and retraction."""
        ...

    async def event_sums(self, event_id: str) -> dict[str, int]:
        """recipients, in_app, suppressed, rejected, deliveries, seen, read."""
        ...

    async def event_notifications(self, event_id: str, after: str | None, limit: int) -> list[Notification]:
        """Rows of an event by user id."""
        ...

    async def event_broadcasts(self, event_id: str) -> list[Broadcast]:
        """The broadcast rows of an event."""
        ...

    async def event_deliveries(
        self, event_id: str, state: str | None, after: str | None, limit: int
    ) -> list[Delivery]:
        """Deliveries of an event by id."""
        ...

    async def retract(self, event_id: str, now_us: int) -> tuple[dict[str, list[str]], list[Broadcast]]:
        """Record the retraction (for what is still queued too), take rows out of inboxes, cancel waiting deliveries.

        Returns what was shown: notification ids per user, and broadcasts. Repeating it returns nothing new.
        """
        ...

    async def log(self, query: LogQuery) -> list[LogEntry]:
        """The delivery log, newest first."""
        ...

    async def write_log(self, entries: Sequence[LogEntry]) -> None:
        """Append log rows (and their minute counters) outside a batch."""
        ...

    async def explain(self, user_id: str, event_id: str) -> Notification | None:
        """The stored plan of one user's notification."""
        ...


class DefinitionStore(Protocol):
    """Types and categories, versioned. `catalog_version` rises with every change, so caches can check it."""

    async def catalog_version(self) -> int: ...
    async def types(self) -> dict[str, TypeVersion]: ...
    async def categories(self) -> dict[str, tuple[int, CategoryDefinition]]: ...
    async def save_type(self, name: str, definition: object, if_version: int | None) -> TypeVersion:
        """Store a new version (unchanged: the current one). Raises `Refused(412)`."""
        ...

    async def delete_type(self, name: str) -> bool: ...
    async def type_versions(self, name: str) -> list[tuple[TypeVersion, int]]:
        """All versions, newest first, with created_at_us."""
        ...

    async def save_category(
        self, name: str, definition: CategoryDefinition, if_version: int | None
    ) -> int: ...
    async def delete_category(self, name: str) -> bool: ...


class KeyStore(Protocol):
    """API keys (by hash), one-time dashboard links, small settings."""

    async def add_key(self, key: ApiKey, secret_hash: str) -> None: ...
    async def find_key(self, secret_hash: str) -> ApiKey | None: ...
    async def list_keys(self) -> list[ApiKey]: ...
    async def revoke_key(self, key_id: str, now_us: int) -> bool: ...
    async def expire_key(self, key_id: str, at_us: int) -> bool: ...
    async def add_login_link(self, secret_hash: str, subject: str, expires_at_us: int) -> None: ...
    async def redeem_login_link(self, secret_hash: str, now_us: int) -> str | None:
        """The subject, once; None when unknown, used or late."""
        ...

    async def setting(self, name: str, default: str) -> str:
        """A small deployment setting, stored as `default` when it is not there yet (first writer wins)."""
        ...

    async def change_setting(self, name: str, expected: str, value: str) -> bool:
        """Compare and set."""
        ...


class OperationStore(Protocol):
    """The store as a thing that is operated."""

    async def check_schema(self) -> None:
        """Raises `SchemaMismatch` with a sentence (N and N-1 are served), `StoreUnavailable` when it is away."""
        ...

    async def ledger(self) -> list[str]:
        """Sentences about every sum that does not add up; empty: it balances (`clarion verify`)."""
        ...

    async def counters(self, since_us: int) -> list[tuple[int, str, str, str, str, int]]:
        """(minute, type, channel, state, provider, count)."""
        ...

    async def drop_older(self, before_us: int) -> int:
        """Retention: remove inbox and log rows older than this, in bounded portions; returns how many."""
        ...

    async def prepare_log_days(self, now_us: int) -> None:
        """PostgreSQL: create the log's day partitions ahead. SQLite: nothing."""
        ...

    async def ping(self) -> None: ...
    async def close(self) -> None: ...


class Store(
    LeaseStore,
    PlanStore,
    UserStore,
    InboxStore,
    EventStore,
    DefinitionStore,
    KeyStore,
    OperationStore,
    Protocol,
):
    """Everything that SQL keeps."""
