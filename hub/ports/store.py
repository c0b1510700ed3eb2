"""The store: everything that SQL keeps, in parts that each serve one use.

A method that raises `StoreUnavailable` wrote nothing, or all of it: the caller may repeat it.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from hub.model.deliveries import Delivery
from hub.model.notifications import Broadcast, Notification
from hub.model.types import CategoryDefinition, TypeVersion
from hub.model.users import Preferences, Profile, Subscription, User
from hub.model.vocabulary import Mark
from hub.ports.dead_letters import DeadLetterStore
from hub.ports.devices import DeviceStore
from hub.ports.expansions import ExpansionStore
from hub.ports.push_subscriptions import PushSubscriptionStore
from hub.ports.receipts import ReceiptStore
from hub.ports.rows import (
    ApiKey,
    Batch,
    BroadcastRow,
    Committed,
    EventRecord,
    InboxQuery,
    Lease,
    LogEntry,
    LogQuery,
    ScheduledPart,
    Situation,
    StoredSlice,
    Timing,
    Unread,
    UserMerge,
)
from hub.ports.sending import SendingStore
from hub.ports.suppressions import SuppressionStore


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


class PlanStore(Protocol):
    """What the generator reads and writes. `commit` is one fenced transaction; a slice is planned once."""

    async def situation(self, parts: Mapping[str, Sequence[str]], users: Sequence[str]) -> Situation:
        """What is known of these events' slices (event ids by slice key) and of these users: a few statements."""
        ...

    async def timing(
        self,
        digesting: Sequence[str],
        sent_since_us: int | None,
        throttled: Sequence[str],
        since_us: Mapping[str, int],
    ) -> Timing:
        """What waits in digests of the users `digesting`; how many notifications of types the users `throttled` got since
        a moment of each type's own. One statement each, none when no users are given.

        `sent_since_us`: digests of the same keys that went out since then are told too; None: nobody wants to know.
        """
        ...

    async def bring_forward(
        self, notifications: Sequence[tuple[str, str]], grace_us: int, now_us: int
    ) -> None:
        """(user id, notification id): nobody is there, so deliveries that wait for them to be reached, and for nothing else
        (no digest, no quiet hours: due within the grace after they were made), are due now."""
        ...

    async def planned(self, partition: str, event_ids: Sequence[str]) -> dict[str, StoredSlice]:
        """Those of the events whose slice with this key is planned already, with what was planned in it."""
        ...

    async def retracted(self, event_ids: Sequence[str]) -> set[str]:
        """Those of the events that were retracted."""
        ...

    async def commit(self, batch: Batch) -> Committed:
        """Write a batch. Begins with the UPDATE of the lease row on its fence; raises `LeaseLost` without writing.

        Log rows add to the minute counters (type, channel, state, provider) in the same transaction. Collapse keys
        replace older rows of the same user (or, for broadcasts, older broadcasts with the same key and audience).
        `digests` moves what is held already, except what would expire before: that digest is due before it does.
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

    async def merge_users(self, users: Sequence[UserMerge]) -> None:
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

    async def unread(self, user_ids: Sequence[str], cap: int, limit: int, now_us: int) -> dict[str, Unread]:
        """For each of these (different) users what is shown, alive, unarchived and unread, of one moment.

        Addressed rows are counted up to `cap`; of broadcasts the newest `limit` on topics of any of them or for everyone
        are looked at. Audience beyond that and preferences are not applied here. Known to the store or not, each user
        has an answer; without broadcasts its `user` may hold nothing but the id.
        """
        ...

    async def mark_ids(
        self, user_id: str, mark: Mark, addressed: Sequence[str], broadcasts: Sequence[Broadcast], now_us: int
    ) -> list[str]:
        """Mark rows; returns the ids that changed. `read` implies `seen`. Writes log.

        Deliveries that wait (held, queued, or for their next attempt) on condition that it is not seen are cancelled.
        """
        ...

    async def mark_all(
        self, user_id: str, mark: Mark, category: str | None, through_seq: int, now_us: int
    ) -> None:
        """Mark all that exists: addressed rows, and broadcasts up to `through_seq` by a watermark."""
        ...

    async def report_reached(self, reports: Sequence[tuple[str, str, int]]) -> list[LogEntry]:
        """(user id, notification id, written_at_us): cancels waiting `offline` deliveries; returns the lines of the log.

        `reached` is logged once for an addressed one. For a broadcast it is not: while an expansion on an `offline` channel
        goes on it is kept who was reached, and that expansion counts them.
        """
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

        Returns what it took back: notification ids per user, and broadcasts. Repeating it returns the same again, so
        that those who could not be told are told then.
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
    SuppressionStore,
    InboxStore,
    EventStore,
    ExpansionStore,
    DeadLetterStore,
    DefinitionStore,
    KeyStore,
    SendingStore,
    ReceiptStore,
    DeviceStore,
    OperationStore,
    PushSubscriptionStore,
    Protocol,
):
    """Everything that SQL keeps."""
