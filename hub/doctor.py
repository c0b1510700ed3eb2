"""`clarion doctor`: looks at every part and says, in a sentence each, whether it can carry what is promised."""

from collections.abc import Awaitable, Callable
from typing import Literal

from msgspec import Struct

from hub.config import Settings, unknown_variables
from hub.errors import ClarionError
from hub.wiring import open_store, redis_health, waiting_events

Level = Literal["ok", "weak", "bad"]


class Finding(Struct, frozen=True):
    """What was found out about one part."""

    part: str
    level: Level
    sentence: str


async def examine(settings: Settings) -> list[Finding]:
    """All findings; a part that cannot be examined is `bad` and says why."""
    findings = [_settings()]
    for part, look in (("database", _database), ("redis", _redis), ("queue", _queue)):
        findings.append(await _guarded(part, look, settings))
    return findings


async def _guarded(part: str, look: Callable[[Settings], Awaitable[Finding]], settings: Settings) -> Finding:
    try:
        return await look(settings)
    except ClarionError as error:
        return Finding(part, "bad", str(error))


def _settings() -> Finding:
    hints = unknown_variables()
    if hints:
        return Finding("settings", "weak", " ".join(hints))
    return Finding("settings", "ok", "Every CLARION_ variable is known and has a value that can work.")


async def _database(settings: Settings) -> Finding:
    store = await open_store(settings)
    try:
        await store.ping()
        faults = await store.ledger()
    finally:
        await store.close()
    if faults:
        return Finding(
            "database", "bad", f"The ledger does not balance in {len(faults)} places; see `clarion verify`."
        )
    return Finding("database", "ok", "The schema fits this program and the ledger balances.")


async def _redis(settings: Settings) -> Finding:
    health = await redis_health(settings)
    if health.weakness:
        return Finding("redis", "weak", health.weakness)
    kind = "embedded" if settings.is_embedded_redis else "your own"
    return Finding(
        "redis", "ok", f"The {kind} Redis {health.version} puts every append on disk before it answers."
    )


async def _queue(settings: Settings) -> Finding:
    waiting = await waiting_events(settings)
    total = sum(waiting.values())
    if total >= settings.queue_limit:
        return Finding("queue", "bad", f"{total} events wait, publishing gets 503; is a generator running?")
    return Finding("queue", "ok", f"{total} events wait (limit {settings.queue_limit}).")
