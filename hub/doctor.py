"""`clarion doctor`: looks at every part and says, in a sentence each, whether it can carry what is promised.

It changes nothing. A part that cannot be examined is `bad`, with the reason.
"""

from collections.abc import Awaitable, Callable
from typing import Literal

from msgspec import Struct

from hub.config import Settings
from hub.config_sources import unknown_variables
from hub.errors import BusUnavailable, ClarionError, QueueUnavailable, StoreUnavailable
from hub.wiring import embedded_redis, open_store, redis_health, waiting_events

Level = Literal["ok", "weak", "bad"]


class Finding(Struct, frozen=True):
    """What was found out about one part."""

    part: str
    level: Level
    sentence: str


async def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order in which one would repair them."""
    findings = [_settings()]
    for part, look in (("database", _database), ("redis", _redis), ("queue", _queue)):
        findings.append(await _guarded(part, look, settings))
    return findings


async def _guarded(part: str, look: Callable[[Settings], Awaitable[Finding]], settings: Settings) -> Finding:
    try:
        return await look(settings)
    except ClarionError as error:
        return Finding(part, "bad", advised(error))


def advised(error: ClarionError) -> str:
    """An error's sentence, with what to look at when a part is away. Also what commands say that end because of it."""
    sentence = str(error).replace("; the outcome is unknown", "").rstrip(".")
    if type(error) is StoreUnavailable:
        return f"{sentence}; check the database and CLARION_DATABASE_URL."
    if isinstance(error, QueueUnavailable | BusUnavailable):
        return f"{sentence}; check Redis and CLARION_REDIS_URL."
    return str(error)


def _settings() -> Finding:
    hints = unknown_variables(Settings.model_fields)
    if hints:
        return Finding("settings", "weak", " ".join(hints))
    return Finding("settings", "ok", "Every CLARION_ variable is known and has a value that can work.")


async def _database(settings: Settings) -> Finding:
    if settings.database_url is None and not (settings.data_dir / "clarion.db").exists():
        return Finding(
            "database",
            "bad",
            f"There is no database in {str(settings.data_dir)!r} yet: run `clarion migrate` or `clarion up`.",
        )
    store = await open_store(settings)
    try:
        faults = await store.ledger()
    finally:
        await store.close()
    if faults:
        return Finding(
            "database", "bad", f"The ledger does not balance in {len(faults)} places; see `clarion verify`."
        )
    return Finding("database", "ok", "The schema fits this program and the ledger balances.")


async def _redis(settings: Settings) -> Finding:
    if _sleeps(settings):
        return Finding(
            "redis",
            "bad",
            f"The embedded Valkey of {str(settings.data_dir)!r} does not run: `clarion up` starts it.",
        )
    health = await redis_health(settings)
    if health.weakness:
        return Finding("redis", "weak", health.weakness)
    whose = "The embedded Valkey" if settings.is_embedded_redis else "Your own Redis"
    return Finding("redis", "ok", f"{whose} {health.version} puts every append on disk before it answers.")


async def _queue(settings: Settings) -> Finding:
    if _sleeps(settings):
        return Finding("queue", "bad", "How many events wait is not known while Valkey does not run.")
    waiting = {name: count for name, count in (await waiting_events(settings)).items() if count}
    total = sum(waiting.values())
    if total and (left := await _without_owner(settings, list(waiting))):
        events = sum(waiting[name] for name in left)
        return Finding(
            "queue", "bad", f"{events} events wait and nobody works on them: start `clarion generate`."
        )
    if total >= settings.queue_limit:
        return Finding(
            "queue",
            "bad",
            f"{total} events wait, so publishing gets 503 (CLARION_QUEUE_LIMIT is {settings.queue_limit}): "
            "start more generators with `clarion generate`.",
        )
    return Finding("queue", "ok", f"{total} events wait (limit {settings.queue_limit}).")


async def _without_owner(settings: Settings, partitions: list[str]) -> list[str]:
    """Those of the partitions whose lease nobody holds."""
    store = await open_store(settings)
    try:
        return await store.free_leases(partitions)
    finally:
        await store.close()


def _sleeps(settings: Settings) -> bool:
    return settings.is_embedded_redis and not embedded_redis(settings).is_answering()
