"""The edge of a hub node: the registry of its live connections, their limits, and what they share.

Connections join and leave here; output of one turn of the event loop is flushed together; `drain` ends all of them,
spread over a moment, so that their clients do not come back as one wave.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from hub import __version__
from hub.errors import Refused
from hub.live.connection import NOBODY, Connection
from hub.live.limits import Limits
from hub.live.seam import Gate, Identity, Node
from hub.live.wheel import Wheel
from hub.ports import Clock

logger = logging.getLogger(__name__)

VERSION: Final = f"clarion {__version__}"

Forward = Callable[[str, str, bool], Awaitable[None]]
"""(user id, connection id, visible): tell the other nodes, one of which may hold the connection."""


class Edge:
    """All live connections of one node. Make it inside the running event loop."""

    def __init__(
        self,
        node: Node,
        gate: Gate,
        clock: Clock,
        limits: Limits | None = None,
        forward_presence: Forward | None = None,
    ) -> None:
        self.node = node
        self.gate = gate
        self.clock = clock
        self.limits = limits or Limits()
        self.forward_presence = forward_presence
        self._loop = asyncio.get_running_loop()
        self.wheel = Wheel(self._loop)
        self._connections: dict[str, Connection] = {}
        self._of_user: Counter[str] = Counter()
        self._unflushed: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    # ------------------------------------------------------------ who is here

    def __len__(self) -> int:
        return len(self._connections)

    def check_room(self) -> None:
        """Raise `Refused(503)` when this node takes no more connections."""
        if self._draining:
            raise Refused(503, "too_many_connections", "This node is shutting down.", retry_after_seconds=1)
        if len(self._connections) >= self.limits.connections:
            raise Refused(503, "too_many_connections", "This node is full; try again.", retry_after_seconds=5)

    def add(self, connection: Connection) -> None:
        """A connection begins; it is counted for its user by `claim`."""
        self._connections[connection.connection_id] = connection

    def claim(self, connection: Connection, identity: Identity) -> None:
        """Count a connection for its user. Raises `Refused(429)` when the user has too many."""
        if self._of_user[identity.user_id] >= self.limits.connections_per_user:
            raise Refused(
                429, "too_many_connections", "You have too many connections.", retry_after_seconds=5
            )
        self._of_user[identity.user_id] += 1
        connection.identity = identity

    def unclaim(self, connection: Connection) -> None:
        """A connection that was claimed does not count for its user (any more)."""
        user_id = connection.identity.user_id
        connection.identity = NOBODY
        if user_id:
            self._of_user[user_id] -= 1
            if self._of_user[user_id] <= 0:
                del self._of_user[user_id]

    def remove(self, connection: Connection) -> None:
        """A connection is over. Its identity stays readable."""
        if self._connections.pop(connection.connection_id, None) is not None:
            identity = connection.identity
            self.unclaim(connection)
            connection.identity = identity

    def set_presence(self, user_id: str, connection_id: str, visible: bool) -> bool:
        """Mark a user's own connection as visible or not; False when this node does not hold it."""
        connection = self._connections.get(connection_id)
        if connection is None or connection.identity.user_id != user_id or connection.is_closing():
            return False
        self.node.set_visible(connection, visible)
        return True

    # ------------------------------------------------------------ what they share

    def flush_soon(self, connection: Connection) -> None:
        """Flush this connection at the end of the current turn of the loop."""
        if not self._unflushed:
            self._loop.call_soon(self._flush)
        self._unflushed.append(connection)

    def _flush(self) -> None:
        unflushed = self._unflushed
        self._unflushed = []
        for connection in unflushed:
            try:
                connection.flush()
            except Exception:
                # Those behind it would never be flushed again.
                logger.exception("a connection failed while it was written to")
                connection.drop()

    def start(self, work: Awaitable[None]) -> asyncio.Task[None]:
        """Run the short work of one command."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ------------------------------------------------------------ the end

    async def drain(self) -> None:
        """End all connections with `shutdown`, spread over `drain_seconds`, and let go of them."""
        self._draining = True
        leaving = list(self._connections.values())
        random.shuffle(leaving)
        steps = max(1, min(len(leaving), 20))
        for step in range(steps):
            for connection in leaving[step::steps]:
                connection.close(3001, "shutdown")
            await asyncio.sleep(self.limits.drain_seconds / steps if leaving else 0)
        if self._tasks:  # commands that are being answered; their effects must not be cut in half
            await asyncio.wait(self._tasks, timeout=1.0)
        _drop_all(leaving)
        _drop_all(list(self._connections.values()))
        self.wheel.close()


def _drop_all(connections: Iterable[Connection]) -> None:
    for connection in connections:
        connection.drop()
