"""A sender's whole process on a real Valkey: the dispatcher, arq's jobs, and what happens when Redis forgets them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import func, select

from hub.adapters.embedded_valkey import EmbeddedValkey
from hub.adapters.sql_store.tables import deliveries
from hub.config import load_settings
from hub.livelog import LiveLog
from hub.model.vocabulary import Channel
from hub.ports import Wanted
from hub.wiring import Core, migrate_database, open_core
from tests.support.pigeons import Pigeon, PigeonPost, due_now, give_addresses, keep_payloads, states
from tests.support.processes import eventually
from tests.support.stores import Partition
from workers.dispatch import CHUNK, Dispatcher
from workers.jobs import CAREFUL, CHUNKS, LEASE_SECONDS, JobRunner, Jobs, Outstanding
from workers.role import SenderRole

pytestmark = [pytest.mark.req("R2"), pytest.mark.req("R9"), pytest.mark.req("R27")]

PATIENCE_SECONDS = 60.0
EMAIL, SMS = Channel.EMAIL, Channel.SMS


@asynccontextmanager
async def opened(folder: Path, redis_url: str, prefix: str) -> AsyncIterator[Core]:
    settings = load_settings(
        data_dir=folder / "data",
        redis_url=redis_url,
        redis_prefix=prefix,
        token_secret="0123456789abcdef0123456789abcdef",
    )
    await migrate_database(settings)
    async with open_core(settings, "sender") as core:
        yield core


@asynccontextmanager
async def at_work(core: Core, *posts: PigeonPost) -> AsyncIterator[SenderRole]:
    role = SenderRole(core, list(posts))
    stop = asyncio.Event()
    running = asyncio.create_task(role.run(stop))
    try:
        yield role
    finally:
        stop.set()
        await running


async def planned(core: Core, event_id: str, *users: str, **more: Any) -> None:
    partition = await Partition.take(core.store, owner=event_id)  # type: ignore[arg-type]
    channels = more.pop("channels", [EMAIL])
    await partition.publish(event_id, users, channels=channels, condition="always", **more)
    await keep_payloads(core.store, event_id)  # type: ignore[arg-type]
    await give_addresses(core.store, **{user: f"{user}@example.com" for user in users})  # type: ignore[arg-type]
    await core.store.release_lease(partition.lease)
    await due_now(core.store)  # type: ignore[arg-type]


async def all_sent(core: Core, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while list((await states(core.store)).values()) != ["sent sent"] * count:  # type: ignore[arg-type]
            await asyncio.sleep(0.02)


async def on_their_way(core: Core) -> int:
    """How many e-mails are out of the backlog: senders were told of them, or have them."""
    async with core.store._db.read() as connection:  # type: ignore[attr-defined]
        told = deliveries.c.handed_until_us.is_not(None) | deliveries.c.claim.is_not(None)
        waiting = deliveries.c.state.in_(("queued", "sending"))
        count = select(func.count()).where(deliveries.c.channel == EMAIL, waiting, told)
        return int(await connection.scalar(count))


class Desk:
    """Takes chunks where a dispatcher puts them: `workers.dispatch.JobQueue` without Redis."""

    def __init__(self) -> None:
        self.chunks: list[tuple[str, Any]] = []

    async def kick(self, channel: Channel, deliveries: Any, name: str) -> None:
        self.chunks.append((f"{channel}:{name}", deliveries))

    async def outstanding(self) -> Outstanding:
        return Outstanding(id_ for id_, _ in self.chunks)


@pytest.mark.parametrize(("backlog", "members", "sizes"), [
    (2_000, 1, [CHUNK] * CHUNKS),
    (2_000, 2, [CHUNK] * CHUNKS * 2),
    (300, 2, [150, 150]),  # everybody gets a part
    (50, 4, [20, 20, 10]),
    (1, 4, [1]),
])  # fmt: skip
async def test_a_backlog_is_handed_out_in_chunks_and_no_faster_than_it_is_worked_off(
    tmp_path: Path, redis_url: str, redis_prefix: str, backlog: int, members: int, sizes: list[int]
) -> None:
    async with opened(tmp_path, redis_url, redis_prefix) as core:
        await planned(core, "evt_1", *(f"user{number}" for number in range(backlog)))
        desk = Desk()
        dispatcher = Dispatcher(
            core.store,
            desk,
            core.clock,
            LiveLog(core.bus),
            channels=[EMAIL],
            repeating=[EMAIL],
            members=lambda: members,
        )
        assert await dispatcher.round() == sum(sizes)
        assert [len(chunk) for _, chunk in desk.chunks] == sizes
        assert await dispatcher.round() == 0  # nothing of it is done
        if sum(sizes) < backlog:
            desk.chunks.pop()
            assert await dispatcher.round() == CHUNK


async def test_a_chunk_costs_a_few_transactions_and_no_more_connections_than_allowed(
    tmp_path: Path, redis_url: str, redis_prefix: str
) -> None:
    async with opened(tmp_path, redis_url, redis_prefix) as core:
        count = 3 * CHUNK
        await planned(core, "evt_1", *(f"user{number}" for number in range(count)))
        pigeon = Pigeon("a", connections=8)
        record, steps = core.store.record, []

        async def counting(begins: Any, ends: Any) -> set[str]:
            steps.append((len(begins), len(ends)))
            return await record(begins, ends)

        core.store.record = counting  # type: ignore[method-assign]
        async with at_work(core, PigeonPost([pigeon])):
            await all_sent(core, count)
        assert pigeon.most_at_once <= pigeon.connections
        assert sum(begins for begins, _ in steps) == sum(ends for _, ends in steps) == count
        assert max(begins for begins, _ in steps) <= pigeon.connections  # so many are in doubt after a crash
        assert len(steps) < count / 2  # what begins and ends together is written together


async def test_what_falls_due_is_delivered(tmp_path: Path, redis_url: str, redis_prefix: str) -> None:
    async with opened(tmp_path, redis_url, redis_prefix) as core:
        pigeon = Pigeon("a")
        async with at_work(core, PigeonPost([pigeon])):
            await planned(core, "evt_1", "alice", "bob")
            await all_sent(core, 2)
    assert len(pigeon.carried) == 2


async def test_a_backlog_stays_in_sql_and_other_channels_pass_it(
    tmp_path: Path, redis_url: str, redis_prefix: str
) -> None:
    async with opened(tmp_path, redis_url, redis_prefix) as core:
        stuck, free = Pigeon("a"), Pigeon("sms")
        stuck.gate.clear()
        await planned(core, "evt_1", *(f"user{number}" for number in range(5 * CHUNKS * CHUNK // 2)))
        jobs = Jobs(redis_url, redis_prefix)
        async with at_work(core, PigeonPost([stuck]), PigeonPost([free], SMS)):
            while not stuck.asked:
                await asyncio.sleep(0.01)
            await planned(core, "evt_2", "alice", channels=[SMS])
            await give_addresses(core.store, alice="+4915112345678")  # type: ignore[arg-type]
            await due_now(core.store)  # type: ignore[arg-type]

            await eventually(lambda: len(free.carried) == 1)
            assert (await jobs.outstanding()).chunks[EMAIL] <= CHUNKS
            assert await on_their_way(core) <= CHUNKS * CHUNK
            assert len(stuck.asked) <= stuck.connections
            stuck.gate.set()
            most = 0
            while len(stuck.carried) < 5 * CHUNKS * CHUNK // 2:
                most = max(most, await on_their_way(core))
                await asyncio.sleep(0.02)
            assert most <= CHUNKS * CHUNK  # memory does not know how much there is
            assert stuck.most_at_once <= stuck.connections
        await jobs.close()


async def test_chunks_are_shared_by_those_who_have_room(redis_url: str, redis_prefix: str) -> None:
    """A fast process leaves the others their part, and what a dead one took is free again in seconds."""
    jobs = Jobs(redis_url, redis_prefix)
    over = asyncio.Event()
    taken: list[list[str]] = [[], []]

    def working(mine: list[str]) -> Any:
        async def deliver(_channel: Channel, deliveries: Any) -> None:
            mine.append(deliveries[0][1])
            await over.wait()

        return deliver

    for number in range(2 * CHUNKS):
        await jobs.kick(EMAIL, [Wanted("alice", f"dlv_{number}")], f"chunk{number}")
    await jobs.kick(EMAIL, [Wanted("alice", "dlv_careful")], f"{CAREFUL}chunk")
    runners = [JobRunner(redis_url, redis_prefix, working(mine)) for mine in taken]
    running = [asyncio.create_task(runners[0].run())]
    await eventually(lambda: len(taken[0]) == CHUNKS + 1)
    running.append(asyncio.create_task(runners[1].run()))
    await eventually(lambda: len(taken[1]) == CHUNKS)
    assert sorted(id_ for mine in taken for id_ in mine) == sorted(
        [f"dlv_{number}" for number in range(2 * CHUNKS)] + ["dlv_careful"]
    )
    async with Redis.from_url(redis_url) as client:
        leases = [
            await client.pttl(key) async for key in client.scan_iter(match="arq:in-progress:email:*chunk*")
        ]
    assert len(leases) == 2 * CHUNKS + 1
    assert max(leases) <= LEASE_SECONDS * 1000
    over.set()
    await asyncio.gather(*(runner.drain(10) for runner in runners))
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await jobs.close()


async def test_wiping_redis_loses_no_delivery(tmp_path: Path, own_valkey: EmbeddedValkey) -> None:
    async with opened(tmp_path, own_valkey.url, "wiped") as core:
        pigeon = Pigeon("a")
        pigeon.gate.clear()
        await planned(core, "evt_1", *(f"user{number:03}" for number in range(300)))
        async with at_work(core, PigeonPost([pigeon])), Redis.from_url(own_valkey.url) as client:
            while not pigeon.asked:
                await asyncio.sleep(0.01)
            await client.flushall()
            pigeon.gate.set()
            await due_now(core.store)  # type: ignore[arg-type]  # those that were kicked and forgotten: their time comes
            await all_sent(core, 300)
    assert len(pigeon.carried) == 300


async def test_a_restart_of_redis_is_survived(tmp_path: Path, own_valkey: EmbeddedValkey) -> None:
    async with opened(tmp_path, own_valkey.url, "restarted") as core:
        pigeon = Pigeon("a")
        async with at_work(core, PigeonPost([pigeon])):
            await planned(core, "evt_1", "alice")
            await all_sent(core, 1)
            await own_valkey.stop()
            await own_valkey.start()
            await planned(core, "evt_2", "bob")
            await all_sent(core, 2)
    assert len(pigeon.carried) == 2


async def test_the_rate_of_a_provider_is_shared(tmp_path: Path, redis_url: str, redis_prefix: str) -> None:
    async with opened(tmp_path, redis_url, redis_prefix) as core:
        from workers.pace import RedisPace

        jobs = Jobs(redis_url, redis_prefix)
        one, other = (RedisPace(jobs, redis_prefix, core.clock) for _ in range(2))
        waits = [await pace.wait_seconds("smtp://a", 2.0) for pace in (one, other, one)]
        await jobs.close()
    assert waits[0] == 0.0
    assert 0.0 < waits[1] <= 0.5 < waits[2] <= 1.0
