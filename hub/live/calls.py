"""Calls of connected clients (RPC): a table of methods, with limits per user and per connection."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from hub.errors import BusUnavailable, QueueUnavailable, Refused, StoreUnavailable
from hub.live.limits import Limiter
from hub.live.seam import Identity, Wire

Method = Callable[[Identity, Any], Awaitable[Any]]
"""Gets who calls and the call's data as parsed JSON (None: absent); returns what JSON can say, or its bytes."""


class _Presence(Struct, frozen=True, forbid_unknown_fields=True):
    visible: bool


class Calls:
    """Finds the method and keeps the limits; None: no limit."""

    def __init__(
        self, methods: Mapping[str, Method], per_user: Limiter | None, per_connection: Limiter | None
    ) -> None:
        self._methods = methods
        self._per_user = per_user
        self._per_connection = per_connection

    def admit(self, wire: Wire) -> None:
        """Raises `Refused(429)` when the connection or its user calls too often."""
        if self._per_connection is not None:
            self._per_connection.check(wire.connection_id)
        if self._per_user is not None:
            self._per_user.check(wire.identity.user_id)

    async def call(self, identity: Identity, method: str, data: Any) -> bytes:
        """Call a method of the table; returns its JSON. Raises `Refused`."""
        handler = self._methods.get(method)
        if handler is None:
            raise Refused(404, "unknown_method", "There is no such method.")
        try:
            result = await handler(identity, parsed(data))
        except (StoreUnavailable, BusUnavailable, QueueUnavailable) as error:
            raise Refused(503, "unavailable", "Try again in a moment.", retry_after_seconds=1) from error
        return result if isinstance(result, bytes) else msgspec.json.encode(result)


def parsed(data: Any) -> Any:
    """Call data as parsed JSON, whether the wire parsed it or not. Raises `Refused(422)`."""
    if not isinstance(data, bytes | msgspec.Raw):
        return data
    raw = bytes(data)
    if not raw:
        return None
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        raise Refused(422, "invalid_data", "The call's data is not JSON.") from None


def parse_presence(data: Any) -> bool:
    """What `presence.set` says. Raises `Refused(422)`."""
    try:
        return msgspec.convert(parsed(data), _Presence).visible
    except msgspec.ValidationError as error:
        raise Refused(
            422, "invalid_data", f'presence.set wants {{"visible": true or false}}: {error}.'
        ) from None
