"""Receipts: what a provider says of a message after it took it."""

from typing import Protocol


class ReceiptStore(Protocol):
    """Moves of deliveries by their provider's own name for the message."""

    async def settle(self, provider: str, reference: str, state: str, code: str, at_us: int) -> bool:
        """Move the delivery that this provider calls `reference` to `state`, if `MOVES` allows it from where it is.

        The line of the log (with `code` as its reason) and the counters are written in the same transaction. False: there
        is no such delivery, or it has moved on already; nothing was written. Repeating it changes nothing.
        """
        ...

    async def has_reference(self, provider: str, reference: str) -> bool:
        """Whether there is a delivery with this reference, whatever its state."""
        ...
