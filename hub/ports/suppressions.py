"""Suppressed addresses: those that bounced, whose owner complained, or that said STOP. No channel uses them any more."""

from collections.abc import Collection, Sequence
from typing import Protocol

from msgspec import Struct

from hub.model.vocabulary import Channel
from hub.ports.rows import LogEntry

Address = tuple[Channel, str]
"""A channel and an address on it. The store compares and keeps `hub.model.addresses.canonical_address`."""


class Suppression(Struct, frozen=True):
    """One address that is not used any more. `reason`: `bounce`, `complaint` or `stop`."""

    channel: Channel
    address: str
    reason: str
    detail: str | None
    at_us: int


class SuppressionStore(Protocol):
    """The list. An address stands in it once, with the first date; a wish of its owner replaces a bounce."""

    async def suppress(
        self, channel: Channel, address: str, reason: str, detail: str | None, at_us: int
    ) -> bool:
        """Take an address out. False: it was out already. Repeating it changes nothing."""
        ...

    async def suppress_all(
        self, rows: Sequence[Suppression], log: Sequence[LogEntry] = ()
    ) -> list[Suppression]:
        """Take many out, with their log lines, in one transaction; returns those that were not out before."""
        ...

    async def suppressions(
        self, after: Address | None, limit: int, channel: Channel | None = None
    ) -> list[Suppression]:
        """The list by channel and address."""
        ...

    async def unsuppress(self, channel: Channel, address: str) -> bool:
        """Use an address again. False: it was not out."""
        ...

    async def suppressed_among(self, pairs: Collection[Address]) -> set[Address]:
        """Those of the addresses, as they were given, that are out: one statement, or none while none ever was."""
        ...
