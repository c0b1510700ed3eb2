"""The connections to Redis when the network or the server fails: losses are noticed, told and repaired."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop
from redis.asyncio import Redis

from hub.adapters.embedded_valkey import EmbeddedValkey
from hub.adapters.redis_bus import RedisBus
from hub.adapters.redis_health import RedisHealth, look_at_redis
from hub.adapters.redis_link import LinkTiming
from hub.adapters.redis_queue import RedisQueue
from hub.errors import BusUnavailable, ConfigError, QueueUnavailable
from hub.ports import Append, Appended, Idempotency, Publication
from hub.wiring import sight_of
from tests.support.certificate import self_signed
from tests.support.hearing import Hearing
from tests.support.proxy import Proxy

PARTITIONS = 2
QUICK = LinkTiming(ping=0.1, silence=0.3, connect=0.5, subscribe=2.0, first_retry=0.01, longest_retry=0.1)


@pytest.fixture
async def proxy(valkey: EmbeddedValkey) -> AsyncIterator[Proxy]:
    async with Proxy(path=str(valkey.socket_path)) as proxy:
        yield proxy


async def start(url: str, prefix: str, timing: LinkTiming = QUICK) -> tuple[RedisBus, Hearing]:
    bus = RedisBus(url, prefix, PARTITIONS, link_timing=timing)
    hearing = Hearing()
    await bus.start(hearing)
    return bus, hearing


# ---------------------------------------------------------------- the link of the bus


@pytest.mark.req("I6", "I5")
async def test_a_frozen_link_is_noticed_within_three_seconds_and_restored(
    proxy: Proxy, redis_url: str, redis_prefix: str
) -> None:
    """With the timing of production. The lost message is the last one: only the restoration brings it to light."""
    bus, hearing = await start(proxy.url, redis_prefix, LinkTiming())
    publisher = RedisBus(redis_url, redis_prefix, PARTITIONS)
    await bus.subscribe("#alice")
    await publisher.publish([Publication("#alice", b"1")])
    await hearing.messages(1)

    proxy.freeze()
    began = time.monotonic()
    [published] = await publisher.publish([Publication("#alice", b"2")])
    await hearing.until(lambda: hearing.states == ["lost"], 3.2)
    noticed = time.monotonic() - began
    assert 1.0 < noticed < 3.2

    proxy.thaw()
    await hearing.until(lambda: hearing.states == ["lost", "restored"], 2)
    assert len(hearing.heard) == 1
    missed = await publisher.history("#alice", 1, hearing.heard[0].epoch)
    assert (missed.top, [message.payload for message in missed.messages]) == (published.offset, [b"2"])
    await publisher.publish([Publication("#alice", b"3")])
    assert [message.payload for message in await hearing.messages(2)] == [b"1", b"3"]
    await publisher.close()
    await bus.close()


@pytest.mark.req("I6")
async def test_a_cut_link_is_noticed_at_once_and_every_subscription_comes_back(
    proxy: Proxy, redis_url: str, redis_prefix: str
) -> None:
    """More channels than one SUBSCRIBE carries."""
    bus, hearing = await start(proxy.url, redis_prefix)
    publisher = RedisBus(redis_url, redis_prefix, PARTITIONS)
    channels = [f"#user{number}" for number in range(1_201)]
    await asyncio.gather(*(bus.subscribe(channel) for channel in channels))
    for round_number in range(1, 4):
        proxy.cut()
        await hearing.until(lambda: len(hearing.states) == 2 * round_number, 5)  # noqa: B023 - awaited at once
        assert hearing.states == ["lost", "restored"] * round_number
        published = await publisher.publish([Publication(channel, b"x") for channel in channels])
        assert {one.listeners for one in published} == {1}
        await hearing.messages(1_201 * round_number)
    await publisher.send_control(b"still here")
    assert await hearing.controls(1) == [b"still here"]
    await publisher.close()
    await bus.close()


@pytest.mark.req("I6")
async def test_subscriptions_may_change_while_the_link_is_down(proxy: Proxy, redis_prefix: str) -> None:
    bus, hearing = await start(proxy.url, redis_prefix)
    await bus.subscribe("#stays")
    await bus.subscribe("#goes")
    proxy.refuse()
    await hearing.until(lambda: hearing.states == ["lost"])
    await bus.unsubscribe("#goes")
    coming = asyncio.create_task(bus.subscribe("#comes"))
    coming_and_going = asyncio.create_task(bus.subscribe("#cancelled"))
    await asyncio.sleep(0.05)
    assert not coming.done()
    coming_and_going.cancel()
    await asyncio.gather(coming_and_going, return_exceptions=True)

    proxy.admit()
    await asyncio.wait_for(coming, 5)
    await hearing.until(lambda: hearing.states == ["lost", "restored"])
    channels = ["#stays", "#goes", "#comes", "#cancelled"]
    published = await bus.publish([Publication(channel, b"x") for channel in channels])
    assert [one.listeners for one in published] == [1, 0, 1, 0]
    await bus.close()


@pytest.mark.req("I6")
async def test_links_that_fail_again_and_again_leave_nothing_behind(proxy: Proxy, redis_prefix: str) -> None:
    """Cut at random moments, also while subscriptions are being confirmed."""
    bus, hearing = await start(proxy.url, redis_prefix)
    stop = asyncio.Event()

    async def cut() -> None:
        for number in range(30):
            await asyncio.sleep(0.002 * (number % 7))
            proxy.cut()
        stop.set()

    async def come_and_go(name: str) -> None:
        while not stop.is_set():
            await bus.subscribe(name)
            await asyncio.sleep(0)
            await bus.unsubscribe(name)
        await bus.subscribe(name)

    await asyncio.gather(cut(), *(come_and_go(f"#user{number}") for number in range(20)))
    await hearing.until(lambda: hearing.states[-1] == "restored")
    async with asyncio.timeout(10):  # a cut that came last may not be noticed yet
        while True:
            try:
                published = await bus.publish([Publication(f"#user{number}", b"x") for number in range(20)])
            except BusUnavailable:
                continue
            if [one.listeners for one in published] == [1] * 20:
                break
            await asyncio.sleep(0.01)
    await bus.close()


async def test_a_hub_starts_while_redis_is_away(proxy: Proxy, redis_prefix: str) -> None:
    proxy.refuse()
    bus, hearing = await start(proxy.url, redis_prefix)
    assert hearing.states == ["lost"]
    with pytest.raises(BusUnavailable):
        await bus.publish([Publication("#alice", b"x")])
    with pytest.raises(BusUnavailable):
        await bus.history("#alice", 0, None)
    proxy.admit()
    await hearing.until(lambda: hearing.states == ["lost", "restored"])
    await bus.subscribe("#alice")
    assert (await bus.publish([Publication("#alice", b"x")]))[0].listeners == 1
    await bus.close()


async def test_who_waits_too_long_for_a_subscription_is_told(proxy: Proxy, redis_prefix: str) -> None:
    timing = LinkTiming(subscribe=0.2, silence=5)
    bus, hearing = await start(proxy.url, redis_prefix, timing)
    proxy.freeze()
    with pytest.raises(BusUnavailable, match="did not confirm"):
        await bus.subscribe("#alice")
    proxy.thaw()
    await bus.subscribe("#bob")
    assert [
        one.listeners for one in await bus.publish([Publication(name, b"x") for name in ("#alice", "#bob")])
    ] == [
        0,
        1,
    ]
    assert hearing.states == []
    await bus.close()


async def test_closing_is_not_a_loss_and_frees_who_waits(proxy: Proxy, redis_prefix: str) -> None:
    bus, hearing = await start(proxy.url, redis_prefix)
    proxy.freeze()
    waiting = asyncio.create_task(bus.subscribe("#alice"))
    await asyncio.sleep(0.01)
    await bus.close()
    with pytest.raises(BusUnavailable):
        await waiting
    assert hearing.states == []


@pytest.mark.req("R27")
async def test_a_killed_server_is_found_again(own_valkey: EmbeddedValkey) -> None:
    bus, hearing = await start(own_valkey.url, "kill")
    await bus.subscribe("#alice")
    await own_valkey.kill()
    await hearing.until(lambda: hearing.states == ["lost"])
    await own_valkey.start()
    await hearing.until(lambda: hearing.states == ["lost", "restored"])
    assert (await bus.publish([Publication("#alice", b"x")]))[0].listeners == 1
    await hearing.messages(1)
    await bus.close()


# ---------------------------------------------------------------- the queue


@pytest.mark.req("I1")
async def test_an_append_to_a_frozen_server_is_never_called_a_success(
    own_valkey: EmbeddedValkey,
) -> None:
    """The outcome is unknown; a retry with the key finds out, and makes one event of both."""
    queue = RedisQueue(own_valkey.url, "frozen", PARTITIONS, timeout_seconds=0.5)
    await queue.append([Append("before", {"0": b"before"})])
    event = Append("e1", {"0": b"e1"}, Idempotency("key", "d"))
    assert own_valkey.pid
    os.kill(own_valkey.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        results = await asyncio.gather(
            queue.append([event]),
            *(queue.append([Append(f"x{number}", {"0": b"x"})]) for number in range(10)),
            return_exceptions=True,
        )
        assert time.monotonic() - began < 3
        assert {type(result) for result in results} == {QueueUnavailable}
        with pytest.raises(QueueUnavailable):
            await queue.read("0", None, 10, 0.1)
        with pytest.raises(QueueUnavailable):
            await queue.waiting()
    finally:
        os.kill(own_valkey.pid, signal.SIGCONT)
    retry = Append("e1-again", {"0": b"e1"}, Idempotency("key", "d"))
    [outcome] = await queue.append([retry])
    assert isinstance(outcome, Appended)
    read = [part.raw for part in await queue.read("0", None, 100, 0)]
    assert read.count(b"e1") == 1
    assert read[0] == b"before"
    await queue.close()


@pytest.mark.req("I1", "R31")
async def test_what_waits_for_a_hanging_redis_is_bounded(
    proxy: Proxy, redis_url: str, redis_prefix: str
) -> None:
    """In bytes and in time; what was never sent is called so."""
    queue = RedisQueue(proxy.url, redis_prefix, PARTITIONS, timeout_seconds=0.3)
    await queue.append([Append("e1", {"0": b"e1"})])
    proxy.freeze()
    sent = asyncio.create_task(queue.append([Append("e2", {"0": b"e2"})]))
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    large = bytes(40 * 1024 * 1024)
    kept = asyncio.create_task(queue.append([Append("e3", {"0": large})]))
    await asyncio.sleep(0)
    with pytest.raises(QueueUnavailable, match="Too much waits"):
        await queue.append([Append("e4", {"0": large})])
    with pytest.raises(QueueUnavailable, match="unknown"):
        await sent
    with pytest.raises(QueueUnavailable, match="nothing was appended"):
        await kept
    proxy.thaw()
    assert await queue.append([Append("e5", {"0": b"e5"})]) == [Appended("e5")]
    read = [part.raw for part in await queue.read("0", None, 10, 0)]
    assert (read[0], read[-1]) == (b"e1", b"e5")
    assert large not in read
    await queue.close()


@pytest.mark.req("I6")
async def test_a_defect_of_the_node_does_not_make_it_deaf(proxy: Proxy, redis_prefix: str) -> None:
    class Clumsy(Hearing):
        def bus_restored(self) -> None:
            super().bus_restored()
            if self.states.count("restored") == 1:
                raise RuntimeError("a defect")

    bus = RedisBus(proxy.url, redis_prefix, PARTITIONS, link_timing=QUICK)
    hearing = Clumsy()
    await bus.start(hearing)
    await bus.subscribe("#alice")
    proxy.cut()
    await hearing.until(lambda: hearing.states == ["lost", "restored"] * 2)
    assert (await bus.publish([Publication("#alice", b"x")]))[0].listeners == 1
    await bus.close()


@pytest.mark.req("I1")
async def test_a_lost_answer_is_not_sent_again(proxy: Proxy, redis_url: str, redis_prefix: str) -> None:
    """The append happens, its answer is lost: told as unknown, and appended once."""
    queue = RedisQueue(proxy.url, redis_prefix, PARTITIONS)
    await queue.append([Append("e1", {"0": b"e1"})])
    proxy.hold_answers()
    appending = asyncio.create_task(queue.append([Append("e2", {"0": b"e2"})]))
    async with Redis.from_url(redis_url) as client, asyncio.timeout(5):
        while await client.xlen(f"{redis_prefix}:{{0}}:queue") < 2:
            await asyncio.sleep(0.005)
    proxy.cut()
    with pytest.raises(QueueUnavailable, match="unknown"):
        await appending

    proxy.thaw()
    assert await queue.append([Append("e3", {"0": b"e3"})]) == [Appended("e3")]
    assert [part.raw for part in await queue.read("0", None, 10, 0)] == [b"e1", b"e2", b"e3"]
    await queue.close()


@pytest.mark.req("I1", "R31")
async def test_a_full_memory_is_told_and_nothing_is_half_appended(own_valkey: EmbeddedValkey) -> None:
    queue = RedisQueue(own_valkey.url, "full", PARTITIONS)
    await queue.append([Append("e1", {"0": b"e1"})])
    async with Redis.from_url(own_valkey.url) as client:
        await client.config_set("maxmemory", "1mb")
        event = Append("e2", {"0": b"e2", "1": b"e2"}, Idempotency("key", "d"))
        with pytest.raises(QueueUnavailable, match="maxmemory"):
            await queue.append([event])
        assert await queue.find_key("key") is None
        await client.config_set("maxmemory", "0")
    assert await queue.waiting() == {"0": 1, "1": 0, "lane": 0, "ingest": 0}
    assert await queue.append([event]) == [Appended("e2")]
    await queue.close()


async def test_listening_to_the_publish_channel_survives_a_cut(
    proxy: Proxy, redis_url: str, redis_prefix: str
) -> None:
    queue = RedisQueue(proxy.url, redis_prefix, PARTITIONS, link_timing=QUICK)
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    listening = asyncio.create_task(queue.listen_ingest(heard.put))
    async with Redis.from_url(redis_url) as client, asyncio.timeout(10):
        for body in (b"1", b"2"):
            while not await client.publish(f"{redis_prefix}:publish", body):
                await asyncio.sleep(0.01)
            assert await heard.get() == body
            proxy.cut()
            while (await client.pubsub_numsub(f"{redis_prefix}:publish"))[0][1]:
                await asyncio.sleep(0.001)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await queue.close()


# ---------------------------------------------------------------- ways to connect, and what Redis is worth


@pytest.mark.req("R34")
async def test_passwords_and_databases_of_the_url_are_used(own_valkey: EmbeddedValkey) -> None:
    async with Redis.from_url(own_valkey.url) as client:
        await client.acl_setuser(
            "hub", enabled=True, passwords=["+s3cret/ü"], categories=["+@all"], keys=["*"], channels=["*"]
        )
        await client.acl_setuser("default", enabled=False)
    async with Proxy(path=str(own_valkey.socket_path)) as proxy:
        url = f"redis://hub:s3cret%2F%C3%BC@127.0.0.1:{proxy.port}/3"
        bus, hearing = await start(url, "acl")
        queue = RedisQueue(url, "acl", PARTITIONS)
        await bus.subscribe("#alice")
        assert (await bus.publish([Publication("#alice", b"x")]))[0].listeners == 1
        assert await queue.append([Append("e1", {"0": b"x"})]) == [Appended("e1")]
        assert hearing.states == []

        wrong = f"redis://hub:wrong@127.0.0.1:{proxy.port}/3"
        refused, unheard = await start(wrong, "acl")
        assert unheard.states == ["lost"]
        with pytest.raises(BusUnavailable) as caught:
            await refused.publish([Publication("#alice", b"x")])
        assert "wrong" not in str(caught.value)
        for part in (bus, queue, refused):
            await part.close()


@pytest.mark.req("R34")
async def test_tls_checks_certificate_and_name(
    valkey: EmbeddedValkey, redis_prefix: str, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    async with Proxy(path=str(valkey.socket_path), tls=certificate.server_context()) as proxy:
        good = f"rediss://localhost:{proxy.port}/0?ssl_ca_certs={certificate.authority}"
        bus, hearing = await start(good, redis_prefix)
        await bus.subscribe("#alice")
        assert (await bus.publish([Publication("#alice", b"x")]))[0].listeners == 1
        await hearing.messages(1)
        await bus.close()
        for bad in (
            f"rediss://127.0.0.1:{proxy.port}/0?ssl_ca_certs={certificate.authority}",  # another name
            f"rediss://localhost:{proxy.port}/0",  # nobody vouches for it
        ):
            refused, unheard = await start(bad, redis_prefix)
            assert unheard.states == ["lost"]
            with pytest.raises(BusUnavailable):
                await refused.publish([Publication("#alice", b"x")])
            await refused.close()


@pytest.mark.req("R1", "I6")
def test_everything_works_on_uvloop_as_well(valkey: EmbeddedValkey, redis_prefix: str) -> None:
    """Its transports are not those of asyncio."""

    async def cut_and_go_on() -> None:
        async with Proxy(path=str(valkey.socket_path)) as proxy:
            for url in (proxy.url, valkey.url):
                bus, hearing = await start(url, redis_prefix)
                queue = RedisQueue(url, redis_prefix, PARTITIONS)
                await bus.subscribe("#alice")
                if url == proxy.url:
                    proxy.cut()
                    await hearing.until(lambda: hearing.states == ["lost", "restored"])  # noqa: B023
                    proxy.freeze()
                    await hearing.until(lambda: len(hearing.states) == 3)  # noqa: B023
                    proxy.thaw()
                    await hearing.until(lambda: len(hearing.states) == 4)  # noqa: B023
                assert (await bus.publish([Publication("#alice", b"x")]))[0].listeners == 1
                await hearing.messages(1)
                assert await queue.append([Append("e1", {"1": b"x"})]) == [Appended("e1")]
                assert len(await queue.read("1", None, 10, 0.1)) > 0
                await queue.close()
                await bus.close()

    uvloop.run(cut_and_go_on())


@pytest.mark.req("I1")
async def test_the_embedded_server_is_strong(redis_url: str) -> None:
    health = await look_at_redis(redis_url)
    assert (health.durability, health.weakness) == ("strong", "")
    assert health.version
    assert health.replication.role == "master"


@pytest.mark.req("I1")
@pytest.mark.parametrize(
    ("setting", "value", "word"),
    [
        ("appendonly", "no", "appendonly"),
        ("appendfsync", "everysec", "everysec"),
        ("no-appendfsync-on-rewrite", "yes", "rewrite"),
        ("maxmemory-policy", "volatile-lru", "volatile-lru"),
    ],
)
async def test_less_is_weak_and_says_why(
    own_valkey: EmbeddedValkey, setting: str, value: str, word: str
) -> None:
    async with Redis.from_url(own_valkey.url) as client:
        await client.config_set(setting, value)
    health = await look_at_redis(own_valkey.url)
    assert health.durability == "weak"
    assert word in health.weakness


@pytest.mark.req("I1")
async def test_a_server_that_may_throw_events_away_is_refused(own_valkey: EmbeddedValkey) -> None:
    async with Redis.from_url(own_valkey.url) as client:
        await client.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(ConfigError, match=r"allkeys-lru.*noeviction"):
        await look_at_redis(own_valkey.url)


@pytest.mark.req("I1")
async def test_a_server_that_hides_its_settings_counts_as_weak(own_valkey: EmbeddedValkey) -> None:
    async with Redis.from_url(own_valkey.url) as client:
        await client.acl_setuser("default", enabled=True, nopass=True, commands=["-config"], reset=False)
    health = await look_at_redis(own_valkey.url)
    assert health.durability == "weak"
    assert "configuration" in health.weakness


async def test_a_server_that_is_away_is_told(tmp_path: Path) -> None:
    with pytest.raises(QueueUnavailable):
        await look_at_redis(f"unix://{tmp_path}/nothing.sock")


def may_lack_writes(now: RedisHealth, earlier: RedisHealth) -> bool:
    return sight_of(now).may_lack_writes(earlier.replication.run_id, earlier.replication.replid)


@pytest.mark.req("I5")
async def test_a_restart_is_no_promotion_but_a_promoted_replica_is(
    own_valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    before = await look_at_redis(own_valkey.url)
    await own_valkey.kill()
    await own_valkey.start()
    restarted = await look_at_redis(own_valkey.url)
    assert restarted.replication.run_id != before.replication.run_id
    assert not may_lack_writes(restarted, before)

    async with (
        Proxy(path=str(own_valkey.socket_path)) as primary,
        EmbeddedValkey(tmp_path / "replica") as replica,
    ):
        async with Redis.from_url(replica.url) as client:
            await client.replicaof("127.0.0.1", primary.port)
            async with asyncio.timeout(20):
                while (await client.info("replication"))["master_link_status"] != "up":
                    await asyncio.sleep(0.02)
            assert (await look_at_redis(replica.url)).replication.role == "slave"
            await client.replicaof("NO", "ONE")
        promoted = await look_at_redis(replica.url)
        assert may_lack_writes(promoted, restarted)
        assert not may_lack_writes(promoted, promoted)
