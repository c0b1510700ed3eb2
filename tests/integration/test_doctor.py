"""What `clarion doctor` finds on a Redis that somebody else configured, and on what is not there."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from hub.adapters.embedded_valkey import EmbeddedValkey
from hub.adapters.redis_queue import RedisQueue
from hub.config import Settings, load_settings
from hub.doctor import Finding, examine
from hub.ports import Append
from hub.wiring import migrate_database, open_store


async def findings(settings: Settings) -> dict[str, Finding]:
    return {found.part: found for found in await examine(settings)}


@pytest.fixture
def patient(own_valkey: EmbeddedValkey, tmp_path: Path) -> Settings:
    """A deployment on a Redis of its own that somebody else configured."""
    return load_settings(data_dir=tmp_path, redis_url=own_valkey.url)


async def configure(own_valkey: EmbeddedValkey, *settings: str) -> None:
    async with Redis.from_url(own_valkey.url) as redis:
        await redis.config_set(*settings)


@pytest.mark.req("I1")
async def test_the_doctor_weighs_what_redis_is_worth(patient: Settings, own_valkey: EmbeddedValkey) -> None:
    await migrate_database(patient)
    found = await findings(patient)
    assert {one.level for one in found.values()} == {"ok"}, found
    for name, value, level in (
        ("appendfsync", "everysec", "weak"),
        ("appendfsync", "no", "weak"),
        ("appendfsync", "always", "ok"),
        ("maxmemory-policy", "volatile-lru", "weak"),
        ("maxmemory-policy", "allkeys-lru", "bad"),
        ("maxmemory-policy", "noeviction", "ok"),
        ("appendonly", "no", "weak"),
    ):
        await configure(own_valkey, name, value)
        found = await findings(patient)
        assert found["redis"].level == level, (name, value)
        assert level == "ok" or value in found["redis"].sentence or "append-only" in found["redis"].sentence


async def test_the_doctor_says_what_is_not_there(
    patient: Settings, own_valkey: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await findings(patient)
    assert found["database"].level == "bad"
    assert "clarion migrate" in found["database"].sentence
    assert not (tmp_path / "clarion.db").exists()
    (tmp_path / "clarion.db").touch()
    assert "clarion migrate" in (await findings(patient))["database"].sentence
    monkeypatch.setenv("CLARION_PROT", "8000")
    assert (await findings(patient))["settings"] == Finding(
        "settings", "weak", "CLARION_PROT is not a setting; did you mean CLARION_PORT?"
    )
    await own_valkey.stop()
    found = await findings(patient)
    assert (found["redis"].level, found["queue"].level) == ("bad", "bad")
    asleep = await findings(load_settings(data_dir=tmp_path / "other"))
    assert "clarion up" in asleep["redis"].sentence
    assert not (tmp_path / "other").exists()  # looking changes nothing


@pytest.mark.req("I12")
async def test_the_doctor_notices_events_that_nobody_works_on(
    patient: Settings, own_valkey: EmbeddedValkey
) -> None:
    await migrate_database(patient)
    queue = RedisQueue(own_valkey.url, patient.redis_prefix, patient.partitions)
    await queue.append([Append("evt_1", {"3": b"x"}), Append("evt_2", {"3": b"y", "lane": b"z"})])
    await queue.close()
    assert (await findings(patient))["queue"] == Finding(
        "queue", "bad", "3 events wait and nobody works on them: start `clarion generate`."
    )
    store = await open_store(patient)
    for name in ("3", "lane"):
        assert await store.take_lease(name, "somebody", 60)
    assert (await findings(patient))["queue"].level == "ok"
    small = load_settings(data_dir=patient.data_dir, redis_url=own_valkey.url, queue_limit=2)
    assert "CLARION_QUEUE_LIMIT is 2" in (await findings(small))["queue"].sentence
    await store.close()
