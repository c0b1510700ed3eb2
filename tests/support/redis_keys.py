"""Leak guard: a key of the product either expires or is listed here as one that stays.

A key without a time to live that nobody listed would grow with the users for ever.
"""

import re

from redis.asyncio import Redis

# Patterns of the part behind the prefix. Add a line with its reason when a new kind of key has to stay.
PERMANENT = (
    r"ingest",  # the public stream; the intake trims it
    r"ingest:rejected",  # the last 10,000
    r"\{(\d+|lane)\}:queue",  # waiting slices; the generator trims them
    r"\{(\d+|lane)\}:queue:total",  # one counter per partition
    r"generation",
    r"jobs",  # waiting and running chunks of deliveries; a job that ends leaves it
    r"arq:.*",  # arq's own; it expires its jobs
)
_PERMANENT = re.compile("|".join(f"(?:{pattern})" for pattern in PERMANENT))


async def stray_keys(client: "Redis[bytes]", prefix: str) -> list[str]:
    """Keys under a prefix that neither expire nor are listed."""
    found = []
    async for raw in client.scan_iter(match=f"{prefix}:*", count=1_000):
        key = raw.decode() if isinstance(raw, bytes) else raw
        if not _PERMANENT.fullmatch(key.removeprefix(f"{prefix}:")) and await client.ttl(key) == -1:
            found.append(key)
    return sorted(found)
