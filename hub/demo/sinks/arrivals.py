"""What arrived, in one list for all sinks, and how to wait for more of it."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hub.model.vocabulary import Channel


@dataclass(frozen=True, slots=True)
class Arrived:
    """One message as its recipient has it. `by`: the sink; `id`: the same for every repeat; `at`: seconds since 1970."""

    channel: Channel
    to: str  # an e-mail address, a phone number, a push endpoint
    title: str
    text: str
    by: str
    id: str
    html: str = ""
    at: float = field(default_factory=time.time)

    def says(self, mark: str) -> bool:
        """Whether a text stands in its title, its text or its HTML."""
        return mark in self.title or mark in self.text or mark in self.html


class Arrivals:
    """All that arrived, oldest first."""

    def __init__(self) -> None:
        self.all: list[Arrived] = []
        self._more = asyncio.Event()

    def add(self, arrived: Arrived) -> None:
        """One more."""
        self.all.append(arrived)
        self._more.set()

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the condition holds, asked again after each arrival; False: it did not within that time."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            return condition()
        return True
