"""What the API needs of the composition root: ready-made use cases, never adapters.

`hub.wiring` builds an object that has these attributes; tests build one on the memory adapters.
"""

from typing import Any, Literal, Protocol

from hub.access import Access
from hub.catalog import Catalog
from hub.config import Settings
from hub.events import Events
from hub.inbox import Inbox
from hub.intake import Intake
from hub.keys import Keys
from hub.metrics import Metrics
from hub.people import People
from hub.ports import Clock, EventQueue, LiveBus, Store
from hub.push import Push
from hub.ratelimit import RateLimiter


class Explaining(Protocol):
    """hub.explain."""

    async def explain(self, user_id: str, type: str, event_id: str | None) -> dict[str, Any]:  # noqa: A002
        """Why a user would get, did get or did not get something, rule by rule."""
        ...


class Parts(Protocol):
    """The ready parts of one hub node."""

    @property
    def settings(self) -> Settings: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def store(self) -> Store: ...
    @property
    def queue(self) -> EventQueue: ...
    @property
    def bus(self) -> LiveBus: ...
    @property
    def intake(self) -> Intake: ...
    @property
    def events(self) -> Events: ...
    @property
    def inbox(self) -> Inbox: ...
    @property
    def explain(self) -> Explaining: ...
    @property
    def people(self) -> People: ...
    @property
    def definitions(self) -> Catalog: ...
    @property
    def push(self) -> Push: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def access(self) -> Access: ...
    @property
    def limiter(self) -> RateLimiter: ...
    @property
    def durability(self) -> Literal["strong", "weak"]: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def deployment(self) -> str: ...
