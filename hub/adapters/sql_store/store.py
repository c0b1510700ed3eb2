"""`SqlStore`: every part of the store over one database."""

from hub.adapters.sql_store.dead_letters import DeadLetters
from hub.adapters.sql_store.definitions import Definitions
from hub.adapters.sql_store.devices import Devices
from hub.adapters.sql_store.engine import Database
from hub.adapters.sql_store.erasure import Erasure
from hub.adapters.sql_store.events import EventRows
from hub.adapters.sql_store.expansions import Expansions
from hub.adapters.sql_store.inbox import InboxPages
from hub.adapters.sql_store.keys import Keys
from hub.adapters.sql_store.leases import Leases
from hub.adapters.sql_store.ledger import Ledger
from hub.adapters.sql_store.marks import MarkWriter
from hub.adapters.sql_store.operations import Operations
from hub.adapters.sql_store.planning import Planning
from hub.adapters.sql_store.push_subscriptions import PushSubscriptions
from hub.adapters.sql_store.reached import ReachWriter
from hub.adapters.sql_store.receipts import Receipts
from hub.adapters.sql_store.schema import Schema
from hub.adapters.sql_store.sending import Sending
from hub.adapters.sql_store.suppressions import Suppressions
from hub.adapters.sql_store.timing import Timings
from hub.adapters.sql_store.topics import Topics
from hub.adapters.sql_store.unread import UnreadCounts
from hub.adapters.sql_store.users import Users
from hub.ports import Store


class SqlStore(
    Leases,
    Planning,
    Timings,
    UnreadCounts,
    Expansions,
    Users,
    Topics,
    Erasure,
    Suppressions,
    InboxPages,
    MarkWriter,
    ReachWriter,
    EventRows,
    DeadLetters,
    Definitions,
    Keys,
    Receipts,
    Devices,
    Ledger,
    Sending,
    Schema,
    Operations,
    PushSubscriptions,
):
    """`hub.ports.Store` on `sqlite://` (in memory), `sqlite:///path` or `postgresql://…`. Belongs to one event loop.

    Tables come from `migrate`; call `check_schema` before use. `close` when done.
    """

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        super().__init__(Database(url, pool_size=pool_size))


async def migrate(url: str) -> None:
    """Bring the schema of a database to this program's version; several at once wait for each other."""
    store = SqlStore(url, pool_size=1)
    try:
        await store.migrate()
    finally:
        await store.close()


async def memory_store() -> SqlStore:
    """A store in memory, ready to use."""
    store = SqlStore("sqlite://")
    await store.migrate()
    return store


def _fits(store: SqlStore) -> Store:
    return store  # the type checker compares every signature with the port
