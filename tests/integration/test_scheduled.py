"""Scheduled events: at a moment, at each recipient's local time, taken back in between, across restarts and clock changes."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from hub.errors import Refused
from tests.support.clock import FakeClock
from tests.support.cluster import Cluster, running_cluster
from tests.support.house import House, open_house
from tests.support.listener import listening
from tests.support.processes import eventually
from workers.scheduler import Scheduler

ZONES = {"anna": "Europe/Berlin", "kim": "Asia/Seoul", "joe": "America/New_York", "nobody": None}


def in_seconds(seconds: float) -> tuple[str, float]:
    """A moment as RFC 3339 text and as the clock will show it."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.isoformat(), moment.timestamp()


async def status_of(cluster: Cluster, event_id: str) -> str:
    return str((await cluster.call("GET", f"/v1/events/{event_id}"))["status"])


async def becomes(cluster: Cluster, event_id: str, wanted: str) -> None:
    async with asyncio.timeout(20):
        while (found := await status_of(cluster, event_id)) != wanted:
            assert found in ("accepted", "scheduled", wanted)
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.req("R18", "R27")
async def test_an_event_waits_for_its_time_and_can_be_taken_back(tmp_path: Path, database_url: str) -> None:
    async with (
        running_cluster(tmp_path / "data", database_url) as cluster,
        listening(cluster, "alice", "bob") as listeners,
    ):
        await cluster.call("PUT", "/v1/topics/t/users/alice")
        send_at, due = in_seconds(5)
        sent = await cluster.publish(to=["alice", {"topic": "t"}, "bob"], title="at five", send_at=send_at)
        everyone = await cluster.publish(to={"everyone": True}, title="to all at five", send_at=send_at)
        gone = await cluster.publish(to="alice", title="never", send_at=send_at)
        key = {"Idempotency-Key": "later"}
        later = {"to": "alice", "title": "later", "send_at": in_seconds(3600)[0]}
        first = await cluster.call("POST", "/v1/events", json=later, headers=key)
        assert await cluster.call("POST", "/v1/events", json=later, headers=key) == first
        for event_id in (sent, everyone, gone, first["id"]):
            await becomes(cluster, event_id, "scheduled")
        report = await cluster.call("GET", f"/v1/events/{sent}")
        assert datetime.fromisoformat(report["send_at"]).timestamp() == pytest.approx(due, abs=0.001)
        assert (await cluster.call("DELETE", f"/v1/events/{gone}"))["status"] == "retracted"
        assert await cluster.inbox("alice") == []

        await cluster.generators[0].kill()  # what waits is in the database
        await cluster.generators[0].start()
        for listener in listeners.values():
            # The topic and the address of one event are one notification.
            await eventually(lambda heard=listener: sorted(heard.titles) == ["at five", "to all at five"], 20)
            came = [time.time() - time.monotonic() + one.at for one in listener.of_kind("notification")]
            assert min(came) >= due
        for event_id in (sent, everyone):
            await becomes(cluster, event_id, "generated")
        assert await status_of(cluster, gone) == "retracted"
        assert await status_of(cluster, first["id"]) == "scheduled"
        assert sorted(await cluster.titles("alice")) == ["at five", "to all at five"]
        assert await cluster.ledger() == []

        # With nothing in its way it is on time; how late is printed: the scheduler looks twice a second.
        send_at, due = in_seconds(2)
        await cluster.publish(to="bob", title="on time", send_at=send_at)
        await eventually(lambda: "on time" in listeners["bob"].titles)
        came_at = time.time()
        assert due <= came_at
        print(f"late by {came_at - due:.2f} s")


@pytest.mark.req("R18")
async def test_moments_that_cannot_be_are_refused(clock: FakeClock) -> None:
    async with waiting_house(clock) as (house, _):
        for send_at in ("2026-12-01T09:00:00", "soon", "9999-01-01T00:00:00Z", {"local": "9:00"}, 7):
            with pytest.raises(Refused):
                await house.publish(to="alice", title="x", send_at=send_at)


@asynccontextmanager
async def waiting_house(clock: FakeClock) -> AsyncIterator[tuple[House, Scheduler]]:
    """A house whose scheduler the test drives, with people all over the world."""
    async with open_house(clock) as house:
        core = house.core
        scheduler = Scheduler(
            core.store, core.queue, clock, partitions=core.settings.partitions, retention_days=90
        )
        for user, zone in ZONES.items():
            if zone is not None:
                await house.say(to={"id": user, "timezone": zone}, title="welcome")
        yield house, scheduler


async def run_until(house: House, scheduler: Scheduler, until: datetime) -> None:
    """Let time pass in steps of ten minutes."""
    end_us = int(until.timestamp() * 1_000_000)
    while house.clock.now_us() < end_us:
        house.clock.advance(min(600.0, (end_us - house.clock.now_us()) / 1e6))
        while await scheduler.release_due():
            await house.settle()


async def when(house: House, user: str, title: str) -> list[str]:
    """The local times at which a user got notifications with this title."""
    zone = ZoneInfo(ZONES.get(user) or "UTC")
    return [
        datetime.fromisoformat(row["created_at"]).astimezone(zone).strftime("%d %H:%M")
        for row in await house.inbox(user)
        if row["title"] == title
    ]


def set_clock(clock: FakeClock, moment: datetime) -> None:
    clock.advance(moment.timestamp() - clock.now_us() / 1e6)


@pytest.mark.req("R18")
async def test_everybody_gets_it_at_their_own_nine_oclock(clock: FakeClock) -> None:
    set_clock(clock, datetime(2026, 11, 25, 6, 30, tzinfo=UTC))
    async with waiting_house(clock) as (house, scheduler):
        addressed = await house.publish(to=list(ZONES), title="to you", send_at={"local": "09:00"})
        broadcast = await house.publish(to={"everyone": True}, title="to all", send_at={"local": "09:00"})
        await house.settle()
        assert (await house.hub.events.status(addressed, "key_test"))["status"] == "scheduled"
        await run_until(house, scheduler, datetime(2026, 11, 26, 18, 0, tzinfo=UTC))
        for title in ("to you", "to all"):
            # In Seoul it was half past three in the afternoon already.
            assert await when(house, "anna", title) == ["25 09:00"]
            assert await when(house, "kim", title) == ["26 09:00"]
            assert await when(house, "joe", title) == ["25 09:00"]
            assert await when(house, "nobody", title) == ["25 09:00"]  # no zone: the deployment's
        for event_id in (addressed, broadcast):
            assert (await house.hub.events.status(event_id, "key_test"))["status"] == "generated"
        assert (await house.hub.events.status(addressed, "key_test"))["recipients"] == len(ZONES)
        assert await house.hub.store.ledger() == []


@pytest.mark.req("R18")
async def test_a_clock_change_moves_nobody_and_repeats_nothing(clock: FakeClock) -> None:
    # Berlin: on 29 March 2026 clocks go from 02:00 to 03:00, on 25 October from 03:00 back to 02:00.
    set_clock(clock, datetime(2026, 3, 28, 20, 0, tzinfo=UTC))
    async with waiting_house(clock) as (house, scheduler):
        await house.say(to="anna", title="skipped", send_at={"local": "02:30"})
        await house.say(to="anna", title="after it", send_at={"local": "09:00"})
        await run_until(house, scheduler, datetime(2026, 3, 30, 20, 0, tzinfo=UTC))
        assert await when(house, "anna", "skipped") == ["29 03:30"]
        assert await when(house, "anna", "after it") == ["29 09:00"]

        set_clock(clock, datetime(2026, 10, 24, 20, 0, tzinfo=UTC))
        await house.say(to="anna", title="twice", send_at={"local": "02:30"})
        await house.say(to={"everyone": True}, title="twice for all", send_at={"local": "02:30"})
        await run_until(house, scheduler, datetime(2026, 10, 26, 20, 0, tzinfo=UTC))
        assert await when(house, "anna", "twice") == ["25 02:30"]
        assert await when(house, "anna", "twice for all") == ["25 02:30"]


@pytest.mark.req("R18")
async def test_half_of_it_can_still_be_taken_back(clock: FakeClock) -> None:
    """Seoul has had it, New York has not: a retraction takes it from the one and keeps it from the other."""
    set_clock(clock, datetime(2026, 11, 24, 20, 0, tzinfo=UTC))
    async with waiting_house(clock) as (house, scheduler):
        event_id = await house.publish(
            to=[{"everyone": True}, "kim"], title="oops", send_at={"local": "09:00"}
        )
        await house.settle()
        await run_until(house, scheduler, datetime(2026, 11, 25, 5, 0, tzinfo=UTC))
        assert len(await when(house, "kim", "oops")) == 1
        assert await when(house, "joe", "oops") == []
        await house.hub.events.retract(event_id, "key_test")
        await run_until(house, scheduler, datetime(2026, 11, 26, 20, 0, tzinfo=UTC))
        for user in ZONES:
            assert await when(house, user, "oops") == []
        assert (await house.hub.events.status(event_id, "key_test"))["status"] == "retracted"
        assert await house.hub.store.ledger() == []
