"""A node's ear: keeps what a live bus says, and lets a test wait for it."""

import asyncio
from collections.abc import Callable

from hub.ports import Message


class Hearing:
    """A `BusReceiver` that remembers."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self.said: list[bytes] = []
        self.states: list[str] = []  # "lost", "restored"
        self._news = asyncio.Event()

    def receive_message(self, message: Message) -> None:
        self.heard.append(message)
        self._tell()

    def receive_control(self, body: bytes) -> None:
        self.said.append(body)
        self._tell()

    def bus_lost(self) -> None:
        self.states.append("lost")
        self._tell()

    def bus_restored(self) -> None:
        self.states.append("restored")
        self._tell()

    async def messages(self, count: int, timeout_seconds: float = 10.0) -> list[Message]:
        """The messages, once there are so many."""
        await self.until(lambda: len(self.heard) >= count, timeout_seconds)
        return self.heard

    async def controls(self, count: int) -> list[bytes]:
        """The control messages, once there are so many."""
        await self.until(lambda: len(self.said) >= count)
        return self.said

    async def until(self, condition: Callable[[], bool], timeout_seconds: float = 10.0) -> None:
        """Wait for a condition that something heard makes true."""
        async with asyncio.timeout(timeout_seconds):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
