"""What goes into the store and comes out of it, beyond the model's own structs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from msgspec import Struct

from hub.model.deliveries import Delivery
from hub.model.digests import DigestId, OpenDigest
from hub.model.events import NamedUser
from hub.model.expansion import Expansion
from hub.model.notifications import Broadcast, Marks, Notification
from hub.model.users import Preferences, User


@dataclass(frozen=True, slots=True)
class Lease:
    """Ownership of one named piece of work. The high-water marks are what the last committed batch left."""

    name: str  # "0".."P-1", "lane", "ingest", "scheduler"
    owner: str
    fence: int
    position: str = ""  # encoded Position planned and published up to, or an ingest entry id
    clock_us: int = 0  # the greatest created_at_us given on this partition
    broadcast_seq: int = 0  # the last one given (lane)


class LogEntry(Struct, frozen=True):
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


class PlannedSlice(Struct, frozen=True):
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
    expansion: Mapping[str, int] = {}  # broadcast: per channel:reason, counted


class EventRecord(Struct, frozen=True):
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


class Payload(Struct, frozen=True):
    """The whole event of a slice, kept because addressed channels render their texts when they are sent."""

    event_id: str
    slice_key: str
    raw: bytes  # an encoded slice without users


class DigestMove(Struct, frozen=True):
    """All that waits in a digest is due at another moment."""

    id: DigestId
    due_at_us: int


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
    payloads: list[Payload] = field(default_factory=list)
    digests: list[DigestMove] = field(default_factory=list)  # of what was stored before
    expansions: list[Expansion] = field(default_factory=list)  # of the broadcasts, on addressed channels
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
class Situation:
    """What planning a batch needs to know: all of it as it stood at one look."""

    planned: Mapping[tuple[str, str], StoredSlice]  # by event id and slice key: what is planned already
    retracted: frozenset[str]
    users: Mapping[str, User]  # those that are known
    catalog_version: int
    has_push: bool = True  # whether anybody ever registered a browser or a device


@dataclass(frozen=True, slots=True)
class Timing:
    """What digests and throttles of some users look at, as it stood at one look.

    `recent`: by user and type, how many notifications the type's throttle let through in its time.
    """

    digests: Mapping[DigestId, OpenDigest] = field(default_factory=dict)
    recent: Mapping[tuple[str, str], int] = field(default_factory=dict)


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


class Unread(NamedTuple):
    """What one user has not read: counts of addressed rows up to a cap, and broadcasts, newest first.

    Some of the broadcasts may not be for this user. `older`: from there (exclusive, in the inbox's order) there may be
    more; None: there are none.
    """

    user: User
    unread: int
    unseen: int
    broadcasts: Sequence[BroadcastRow] = ()
    older: tuple[int, str] | None = None


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


@dataclass(frozen=True, slots=True)
class UserMerge:
    """One merge: fields to set (None value: clear), optional preferences and topics to join."""

    id: str
    fields: Mapping[str, object] = field(default_factory=dict)  # of Profile, without id
    preferences: Preferences | None = None
    topics: Sequence[str] | None = None
