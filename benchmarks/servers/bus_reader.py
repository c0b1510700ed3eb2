"""Reads the live bus and counts: as the product does, or with redis-py's pub/sub, as it comes or tuned like the product.
Run as a child of the benchmarks.

It says `ready` when it is subscribed and `done` when it has all; whoever started it looks at its CPU.
"""

import asyncio
import json
import sys

from redis._parsers import BaseParser, _AsyncHiredisParser, _AsyncRESP2Parser
from redis.asyncio import ConnectionPool, Redis

from hub.adapters.redis_keys import RedisKeys
from hub.config import load_settings
from hub.loops import run
from hub.ports import Message
from hub.wiring import open_core

PARSERS: dict[str, type[BaseParser]] = {"library": _AsyncRESP2Parser, "tuned library": _AsyncHiredisParser}


class Counting:
    """A receiver that only counts. Implements `hub.ports.BusReceiver`."""

    def __init__(self, wanted: int) -> None:
        self.left = wanted
        self.done = asyncio.Event()

    def receive_message(self, message: Message) -> None:
        """One more."""
        del message
        self.left -= 1
        if not self.left:
            self.done.set()

    def receive_control(self, body: bytes) -> None:
        """Not counted."""

    def bus_lost(self) -> None:
        """Figures would be worthless."""
        sys.exit("the bus was lost")

    def bus_restored(self) -> None:
        """At the start."""


async def read_as_product(channels: list[str], wanted: int) -> None:
    """`LiveBus` with a receiver, parsing included."""
    receiver = Counting(wanted)
    async with open_core(load_settings(), "bench") as core:
        await core.bus.start(receiver)
        for channel in channels:
            await core.bus.subscribe(channel)
        print("ready", flush=True)  # noqa: T201 - the parent waits for it
        await receiver.done.wait()


async def read_with_redis_py(channels: list[str], wanted: int, parser: type[BaseParser]) -> None:
    """What the library offers: the raw bytes of each message."""
    settings = load_settings()
    assert settings.redis_url is not None
    keys = RedisKeys(settings.redis_prefix, settings.partitions)
    url = settings.redis_url.get_secret_value()
    redis = Redis.from_pool(ConnectionPool.from_url(url, parser_class=parser))
    async with redis, redis.pubsub() as pubsub:
        await pubsub.subscribe(*(keys.live(channel) for channel in channels))
        confirmed = 0
        async for message in pubsub.listen():
            if message["type"] == "subscribe":
                confirmed += 1
                if confirmed == len(channels):
                    print("ready", flush=True)  # noqa: T201 - the parent waits for it
                continue
            wanted -= 1
            if not wanted:
                return


async def main(how: str, channels: list[str], wanted: int) -> None:
    """Read, say so, and wait for the end of the input, so that the parent can look at the CPU."""
    if how == "product":
        await read_as_product(channels, wanted)
    else:
        await read_with_redis_py(channels, wanted, PARSERS[how])
    print("done", flush=True)  # noqa: T201 - the parent waits for it
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    start = asyncio.run if sys.argv[1] == "library" else run
    start(main(sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])))
