"""The pace of providers with a rate: one clock in Redis for all senders (GCRA, as ITU-T I.371 calls it).

Each caller takes the next free moment and is told how far away it is. While Redis is away each process keeps the rate
by itself, so that a provider never gets more than `senders` times its rate.
"""

import logging
from typing import Final

from redis.exceptions import RedisError

from hub.errors import QueueUnavailable
from hub.ports import Clock
from workers.jobs import Jobs

_NEXT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local free = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
redis.call('SET', KEYS[1], string.format('%.0f', free + ARGV[1]), 'PX', ARGV[2])
return free - now
"""
_KEEP_MS: Final = 3_600_000
_log = logging.getLogger(__name__)


class RedisPace:
    """`workers.carriers.Pace` on Redis."""

    def __init__(self, jobs: Jobs, prefix: str, clock: Clock) -> None:
        self._jobs = jobs
        self._prefix = prefix
        self._clock = clock
        self._free_us: dict[str, int] = {}

    async def wait_seconds(self, name: str, per_second: float) -> float:
        """Take the next free moment of a provider; returns how long it is away."""
        step_us = round(1_000_000 / per_second)
        try:
            pool = await self._jobs.pool()
            key = f"{self._prefix}:pace:{name}"
            wait_us = int(await pool.eval(_NEXT, 1, key, str(step_us), str(_KEEP_MS)))  # type: ignore[misc]
        except (QueueUnavailable, RedisError, OSError) as error:
            _log.info("the rate of %s is kept by this process alone: %s", name, error)
            now_us = self._clock.now_us()
            free_us = max(self._free_us.get(name, 0), now_us)
            self._free_us[name] = free_us + step_us
            wait_us = free_us - now_us
        return wait_us / 1e6
