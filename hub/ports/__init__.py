"""The ports: what the use cases need of the outside, as contracts in prose.

Each says what may be lost, repeated or reordered. Every adapter of a port runs the same suite in tests/conformance.
Only `hub.wiring` chooses adapters.
"""

from hub.ports.bus import BusReceiver, History, LiveBus, Message, Publication, Published
from hub.ports.clock import Clock
from hub.ports.dead_letters import DeadLetterStore, DeadQuery, DeadSlice, PastAttempt, Replay
from hub.ports.devices import DeviceStore
from hub.ports.expansions import AudiencePage, DueExpansion, ExpansionStore
from hub.ports.push_subscriptions import PushReceipt, PushSubscription, PushSubscriptionStore
from hub.ports.queue import (
    Append,
    Appended,
    EventQueue,
    Idempotency,
    IngestEntry,
    KeyReused,
    Position,
    QueuedSlice,
    RejectedEntry,
)
from hub.ports.receipts import ReceiptStore
from hub.ports.rows import (
    ApiKey,
    Batch,
    BroadcastRow,
    Committed,
    DigestMove,
    EventRecord,
    InboxQuery,
    Lease,
    LogEntry,
    LogQuery,
    Payload,
    PlannedSlice,
    ScheduledPart,
    Situation,
    StoredSlice,
    Timing,
    Unread,
    UserMerge,
)
from hub.ports.sending import Attempt, Begin, Claimed, Due, End, SendingStore
from hub.ports.store import (
    DefinitionStore,
    EventStore,
    InboxStore,
    KeyStore,
    LeaseStore,
    OperationStore,
    PlanStore,
    Store,
    UserStore,
)
from hub.ports.suppressions import Suppression, SuppressionStore

__all__ = [
    "ApiKey",
    "Append",
    "Appended",
    "Attempt",
    "AudiencePage",
    "Batch",
    "Begin",
    "BroadcastRow",
    "BusReceiver",
    "Claimed",
    "Clock",
    "Committed",
    "DeadLetterStore",
    "DeadQuery",
    "DeadSlice",
    "DefinitionStore",
    "DeviceStore",
    "DigestMove",
    "Due",
    "DueExpansion",
    "End",
    "EventQueue",
    "EventRecord",
    "EventStore",
    "ExpansionStore",
    "History",
    "Idempotency",
    "InboxQuery",
    "InboxStore",
    "IngestEntry",
    "KeyReused",
    "KeyStore",
    "Lease",
    "LeaseStore",
    "LiveBus",
    "LogEntry",
    "LogQuery",
    "Message",
    "OperationStore",
    "PastAttempt",
    "Payload",
    "PlanStore",
    "PlannedSlice",
    "Position",
    "Publication",
    "Published",
    "PushReceipt",
    "PushSubscription",
    "PushSubscriptionStore",
    "QueuedSlice",
    "ReceiptStore",
    "RejectedEntry",
    "Replay",
    "ScheduledPart",
    "SendingStore",
    "Situation",
    "Store",
    "StoredSlice",
    "Suppression",
    "SuppressionStore",
    "Timing",
    "Unread",
    "UserMerge",
    "UserStore",
]
