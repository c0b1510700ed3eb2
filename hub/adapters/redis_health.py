"""What the Redis in use is worth: whether an acknowledged append is on disk, and whether it is still the same Redis.

An eviction policy that may throw accepted events away is refused with a sentence; less than `appendfsync always` is
reported as weak, also when Redis does not let us look.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from hub.adapters.redis_connection import RedisCommands
from hub.errors import ConfigError, QueueUnavailable

Durability = Literal["strong", "weak"]
_NO_REPLICATION: Final = "0" * 40


@dataclass(frozen=True, slots=True)
class Replication:
    """Who this Redis is. `run_id` changes with every start, `replid` with every promotion and most restarts."""

    run_id: str
    replid: str
    previous_replid: str  # "" unless it was promoted from a replica
    role: str


@dataclass(frozen=True, slots=True)
class RedisHealth:
    """What was found. `weakness` is a sentence when `durability` is weak, else empty."""

    version: str
    durability: Durability
    weakness: str
    replication: Replication


async def look_at_redis(url: str, timeout_seconds: float = 5.0) -> RedisHealth:
    """Examine Redis. Raises `ConfigError` for a policy that may evict events, `QueueUnavailable` when it is away."""
    commands = RedisCommands(url, QueueUnavailable, timeout_seconds)
    try:
        info = _parse_info(await commands.call("INFO"))
        refuse_eviction(info.get("maxmemory_policy", ""))
        replies = await commands.try_all([("CONFIG", "GET", name) for name in _ASKED])
    finally:
        await commands.close()
    return _judge(info, _settings(replies))


_ASKED: Final = ("appendfsync", "no-appendfsync-on-rewrite")


def refuse_eviction(policy: str) -> None:
    """Raises `ConfigError` for the policies that may evict any key."""
    if policy.startswith("allkeys-"):
        raise ConfigError(
            f"The Redis of CLARION_REDIS_URL has maxmemory-policy {policy}, under which it may throw away accepted events; "
            "set it to noeviction."
        )


def _judge(info: Mapping[str, str], settings: Mapping[str, str] | None) -> RedisHealth:
    weakness = _weakness(info, settings)
    previous = info.get("master_replid2", _NO_REPLICATION)
    return RedisHealth(
        version=info.get("valkey_version") or info.get("redis_version", ""),
        durability="weak" if weakness else "strong",
        weakness=weakness,
        replication=Replication(
            run_id=info.get("run_id", ""),
            replid=info.get("master_replid", ""),
            previous_replid="" if previous == _NO_REPLICATION else previous,
            role=info.get("role", ""),
        ),
    )


def _weakness(info: Mapping[str, str], settings: Mapping[str, str] | None) -> str:
    if info.get("aof_enabled") != "1":
        return (
            "Redis keeps no append-only file: accepted events are lost when it stops; set appendonly to yes."
        )
    if settings is None:
        return "Redis does not let us read its configuration, so nobody knows whether an append is on disk at once."
    fsync = settings.get("appendfsync", "")
    if fsync != "always":
        return (
            f"Redis has appendfsync {fsync}: accepted events of the last moments are lost in a power cut; "
            "set it to always."
        )
    if settings.get("no-appendfsync-on-rewrite") == "yes":
        return "Redis does not fsync while it rewrites its log; set no-appendfsync-on-rewrite to no."
    policy = info.get("maxmemory_policy", "")
    if policy.startswith("volatile-"):
        return (
            f"Redis has maxmemory-policy {policy}: under pressure it forgets idempotency keys and live histories; "
            "set it to noeviction."
        )
    return ""


def _parse_info(raw: bytes) -> dict[str, str]:
    pairs = (
        line.partition(":") for line in raw.decode(errors="replace").splitlines() if not line.startswith("#")
    )
    return {name: value for name, separator, value in pairs if separator}


def _settings(replies: list[Any]) -> dict[str, str] | None:
    """CONFIG GET's pairs; None when it is not allowed (an ACL, or a provider that renamed the command)."""
    if any(isinstance(reply, Exception) or not reply for reply in replies[:1]):
        return None
    pairs = [reply for reply in replies if isinstance(reply, list) and len(reply) == 2]
    return {name.decode(): value.decode() for name, value in pairs}
