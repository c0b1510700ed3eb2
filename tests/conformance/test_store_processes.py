"""One database, several processes: nobody is told that it is locked, nothing is written twice, a frozen one is fenced."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

from hub.adapters.sql_store import SqlStore, migrate
from hub.adapters.sql_store.schema import SCHEMA_VERSION
from hub.adapters.sql_store.tables import settings
from hub.errors import LeaseLost, StoreUnavailable
from hub.ports import LogEntry, LogQuery
from tests.support.stores import NOW_US, Partition

WRITER = """
import asyncio, json, sys
from hub.adapters.sql_store import SqlStore
from hub.errors import LeaseLost, StoreUnavailable
from tests.support.stores import Partition

async def main(url, name, batches, owner):
    store = SqlStore(url)
    partition = await Partition.take(store, name, owner)
    print("ready", flush=True)
    sys.stdin.readline()
    done = 0
    try:
        for number in range(batches):
            while True:
                try:
                    await partition.publish(f"evt_{name}_{number}", [f"user-{name}-{n}" for n in range(50)])
                    break
                except StoreUnavailable:
                    pass  # as a generator does: again, until it is stored or lost
            done += 1
            if number == 2:
                print("going", flush=True)
    except LeaseLost:
        print(json.dumps({"lost": done}), flush=True)
    else:
        print(json.dumps({"done": done}), flush=True)
    await store.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
"""


async def start(url: str, name: str, batches: int, owner: str = "writer") -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, url, name, str(batches), owner,
        cwd=Path(__file__).parents[2], stdin=PIPE, stdout=PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


async def go(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    await process.stdin.drain()


async def line(process: Process) -> Any:
    assert process.stdout is not None
    read = await process.stdout.readline()
    return read.decode().strip() if not read.startswith(b"{") else json.loads(read)


@pytest.mark.req("R22", "I3")
async def test_processes_write_beside_each_other(database_url: str) -> None:
    await migrate(database_url)
    store = SqlStore(database_url)
    processes = [await start(database_url, str(number), 20) for number in range(3)]
    for process in processes:
        await go(process)
    latencies = []
    while any(process.returncode is None for process in processes):
        begun = time.monotonic()
        await store.write_log([LogEntry(NOW_US, "sent", "evt_small")])
        latencies.append(time.monotonic() - begun)
        done, _ = await asyncio.wait([asyncio.ensure_future(p.wait()) for p in processes], timeout=0.01)
        if len(done) == len(processes):
            break
    for process in processes:
        while (answer := await line(process)) == "going":
            pass
        assert answer == {"done": 20}
    assert len(await store.log(LogQuery(9_999, state="generated"))) == 3 * 20 * 50
    assert len(await store.log(LogQuery(9_999, state="sent"))) == len(latencies)
    assert max(latencies) < 5  # a small write waits for batches, not for all of them
    assert await store.ledger() == []
    await store.close()


@pytest.mark.req("R27", "I3")
async def test_a_frozen_owner_that_thaws_writes_nothing_more(postgres_url: str) -> None:
    await migrate(postgres_url)
    store = SqlStore(postgres_url)
    frozen = await start(postgres_url, "0", 100_000)
    await go(frozen)
    assert await line(frozen) == "going"

    # Taking the lease while it works (as if it had lapsed): from now on every batch of the other one must fail.
    async def lapse(connection: Any) -> None:
        await connection.execute(text("UPDATE leases SET expires_at_us = 0 WHERE name = '0'"))

    await store._db.write(lapse)
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        # It may have frozen within a statement: then its transaction is ended first, and taking is tried again.
        async with asyncio.timeout(60):
            while (lease := await store.take_lease("0", "other", 60)) is None:
                await asyncio.sleep(0.1)
        taken = Partition(store, lease)
        before = len(await store.log(LogQuery(99_999)))
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    answer = await line(frozen)
    assert "lost" in answer
    assert len(await store.log(LogQuery(99_999))) == before
    await taken.publish("evt_new", ["alice"])
    assert await store.ledger() == []
    await frozen.wait()
    await store.close()


async def test_a_lease_is_freed_from_an_owner_that_froze_within_a_statement(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.adapters.sql_store.leases.TAKE_WAIT_SECONDS", 1)
    monkeypatch.setattr("hub.adapters.sql_store.leases.STUCK_SECONDS", 0.5)
    await migrate(postgres_url)
    store = SqlStore(postgres_url)
    late = await Partition.take(store, "0", "one")
    frozen = SqlStore(postgres_url)
    inside = asyncio.Event()

    async def freeze(connection: Any) -> None:
        await connection.execute(text("UPDATE leases SET position = 'half', expires_at_us = expires_at_us"))
        inside.set()
        await connection.execute(text("SELECT pg_sleep(60)"))

    task = asyncio.create_task(frozen._db.write(freeze))
    await inside.wait()
    assert await store.take_lease("0", "two", 60) is None  # not lapsed: it only has to wait
    task.cancel()
    await asyncio.wait([task])
    await store.renew_leases([late.lease], -1)
    inside.clear()
    task = asyncio.create_task(frozen._db.write(freeze))
    await inside.wait()
    assert await store.take_lease("0", "two", 60) is None
    taken = await store.take_lease("0", "two", 60)
    assert taken is not None
    assert taken.position == ""
    with pytest.raises(StoreUnavailable):
        await task
    await frozen.close()
    await store.close()


@pytest.mark.req("R27", "I3")
@pytest.mark.parametrize("turn", range(3))
async def test_a_killed_writer_leaves_whole_batches_and_a_free_lock(sqlite_url: str, turn: int) -> None:
    await migrate(sqlite_url)
    store = SqlStore(sqlite_url)
    victim = await start(sqlite_url, "0", 100_000)
    await go(victim)
    assert await line(victim) == "going"
    await asyncio.sleep(0.05 * turn)
    victim.kill()
    await victim.wait()
    partition = await Partition.take(store, "1")
    await asyncio.wait_for(partition.publish("evt_after", ["alice"]), 10)
    assert len(await store.log(LogQuery(999_999, state="generated"))) % 50 == 1
    assert await store.ledger() == []
    await store.close()


async def test_a_lease_taken_in_one_process_is_lost_in_the_other(sqlite_url: str) -> None:
    await migrate(sqlite_url)
    store = SqlStore(sqlite_url)
    late = await Partition.take(store, "0", "here")
    await store.release_lease(late.lease)
    other = await start(sqlite_url, "0", 3, "there")
    await go(other)
    assert await line(other) == "going"
    assert await line(other) == {"done": 3}
    with pytest.raises(LeaseLost):
        await late.publish("evt_1", ["alice"])
    await other.wait()
    await store.close()


# ---------------------------------------------------------------- errors and cancellation


async def test_a_cancelled_writer_gives_the_lock_back(sqlite_url: str) -> None:
    await migrate(sqlite_url)
    store = SqlStore(sqlite_url)
    for number in range(20):
        partition = await Partition.take(store, "0")
        batch = partition.batch()
        partition.add(batch, f"evt_{number}", [f"u{n}" for n in range(20)])
        task = asyncio.create_task(partition.commit(batch))
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    # Whether a cancelled batch was stored is open; that it is whole, and that others can go on, is not.
    again = await Partition.take(store, "0")
    await asyncio.wait_for(again.publish("evt_last", ["u1"]), 10)
    assert len(await store.log(LogQuery(999))) % 20 == 1
    assert await store.ledger() == []
    await store.close()


async def test_cancelled_readers_and_writers_leave_a_store_in_memory_whole() -> None:
    store = SqlStore("sqlite://")
    await store.migrate()
    for number in range(30):
        tasks = [
            asyncio.create_task(store.setting(f"name-{number}", "value")),
            asyncio.create_task(store.list_users(None, 5)),
        ]
        for _ in range(number % 7):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert await store.setting("schema", "lost") == str(SCHEMA_VERSION)
    await store.close()


async def test_a_lock_that_another_process_holds_is_waited_for_and_then_named(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.adapters.sql_store.engine.LOCK_WAIT_SECONDS", 0.2)
    await migrate(sqlite_url)
    store = SqlStore(sqlite_url)
    path = Path(sqlite_url.removeprefix("sqlite:///")).parent / "write.lock"
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c",
        "import fcntl,sys; f=open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()",
        str(path), stdin=PIPE, stdout=PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    await holder.stdout.readline()
    with pytest.raises(StoreUnavailable, match=r"write\.lock"):
        await store.setting("a", "b")
    assert await store.list_users(None, 5) == []  # readers are free
    holder.kill()
    await holder.wait()
    assert await store.setting("a", "b") == "b"
    await store.close()


async def test_a_full_disk_is_unavailable_and_leaves_nothing_half_done(sqlite_url: str) -> None:
    await migrate(sqlite_url)
    store = SqlStore(sqlite_url, pool_size=1)
    partition = await Partition.take(store, "0")

    async def limit(connection: Any) -> None:
        pages = (await connection.execute(text("PRAGMA page_count"))).scalar_one()
        await connection.execute(text(f"PRAGMA max_page_count = {pages + 2}"))

    await store._db.write_inline(limit)
    with pytest.raises(StoreUnavailable, match="full"):
        await partition.publish("evt_1", [f"user-{n}" for n in range(500)])
    assert await store.event("evt_1") is None
    await store.close()
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


async def test_a_victim_of_a_deadlock_runs_again(postgres_url: str) -> None:
    await migrate(postgres_url)
    store = SqlStore(postgres_url)
    await store.setting("a", "0")
    await store.setting("b", "0")
    both_hold = asyncio.Barrier(2)
    runs: list[str] = []

    async def cross(connection: Any, first: str, second: str) -> None:
        runs.append(first)
        await connection.execute(update(settings).where(settings.c.name == first).values(value=first))
        if len(runs) <= 2:
            await both_hold.wait()
        await connection.execute(update(settings).where(settings.c.name == second).values(value=first))

    await asyncio.gather(store._db.write(cross, "a", "b"), store._db.write(cross, "b", "a"))
    assert len(runs) == 3  # one was the victim, and did it again
    async with store._db.read() as connection:
        values = (
            await connection.scalars(select(settings.c.value).where(settings.c.name.in_(["a", "b"])))
        ).all()
    assert len(set(values)) == 1
    await store.close()


async def test_a_lost_connection_is_unavailable_once_and_then_replaced(postgres_url: str) -> None:
    await migrate(postgres_url)
    store = SqlStore(postgres_url, pool_size=1)
    killer = SqlStore(postgres_url, pool_size=1)
    await store.ping()

    async def kill(connection: Any) -> None:
        await connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                 "WHERE datname = current_database() AND pid != pg_backend_pid()")
        )  # fmt: skip

    await killer._db.write(kill)
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await store.ping()
    await store.close()
    await killer.close()
