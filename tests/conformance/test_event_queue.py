"""What every `EventQueue` promises, on Redis Streams and in memory alike."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from hub.adapters.embedded_valkey import EmbeddedValkey
from hub.adapters.memory_queue import MemoryQueue
from hub.adapters.redis_queue import RedisQueue
from hub.errors import QueueUnavailable
from hub.ports import (
    Append,
    Appended,
    EventQueue,
    Idempotency,
    IngestEntry,
    KeyReused,
    Position,
    QueuedSlice,
    RejectedEntry,
)
from tests.support.clock import FakeClock

PARTITIONS = 3
pytestmark = pytest.mark.req("R15")


class Publishers:
    """Those who write to Redis themselves."""

    def __init__(
        self,
        add: Callable[[Mapping[bytes, bytes]], Awaitable[str]],
        publish: Callable[[bytes], Awaitable[int]],
        rejected: Callable[[], Awaitable[list[RejectedEntry]]],
    ) -> None:
        self.add = add
        self.publish = publish
        self.rejected = rejected


@pytest.fixture(params=["memory", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def location(kind: str, request: pytest.FixtureRequest) -> tuple[str, str] | None:
    """Address and prefix of the Redis to use, if any. Not asynchronous, since starting a server is not."""
    if kind == "memory":
        return None
    return request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")


@pytest.fixture
async def queue_and_publishers(
    location: tuple[str, str] | None, clock: FakeClock
) -> AsyncIterator[tuple[EventQueue, Publishers]]:
    if location is None:
        memory = MemoryQueue(clock, PARTITIONS)

        async def add_to_memory(fields: Mapping[bytes, bytes]) -> str:
            return memory.add_ingest(fields)

        async def publish_to_memory(body: bytes) -> int:
            return memory.publish_ingest(body)

        async def rejected_in_memory() -> list[RejectedEntry]:
            return list(memory.rejected)

        yield memory, Publishers(add_to_memory, publish_to_memory, rejected_in_memory)
        return
    url, prefix = location
    queue = RedisQueue(url, prefix, PARTITIONS)
    async with Redis.from_url(url) as client:

        async def add(fields: Mapping[bytes, bytes]) -> str:
            return (await client.xadd(f"{prefix}:ingest", dict(fields))).decode()

        async def publish(body: bytes) -> int:
            return await client.publish(f"{prefix}:publish", body)

        async def rejected() -> list[RejectedEntry]:
            entries = await client.xrange(f"{prefix}:ingest:rejected")
            return [
                RejectedEntry(
                    entry[b"source_id"].decode(),
                    entry[b"event"],
                    entry[b"code"].decode(),
                    entry[b"detail"].decode(),
                )
                for _, entry in entries
            ]

        yield queue, Publishers(add, publish, rejected)
    await queue.close()


@pytest.fixture
def queue(queue_and_publishers: tuple[EventQueue, Publishers]) -> EventQueue:
    return queue_and_publishers[0]


@pytest.fixture
def publishers(queue_and_publishers: tuple[EventQueue, Publishers]) -> Publishers:
    return queue_and_publishers[1]


def keyed(event_id: str, key: str, digest: str = "d", partition: str = "0") -> Append:
    return Append(event_id, {partition: event_id.encode()}, Idempotency(key, digest))


async def raws(queue: EventQueue, partition: str = "0") -> list[bytes]:
    return [part.raw for part in await queue.read(partition, None, 1_000_000, 0)]


# ---------------------------------------------------------------- append and read


async def test_what_was_appended_is_read_in_order_from_its_partitions(queue: EventQueue) -> None:
    first = await queue.append([Append("e1", {"0": b"e1-0", "lane": b"e1-lane"})])
    second = await queue.append(
        [Append("e2", {"0": b"e2-0"}), Append("e3", {"0": b"", "2": b"\x00\r\n\xff"})]
    )

    assert (first, second) == ([Appended("e1")], [Appended("e2"), Appended("e3")])
    assert await raws(queue) == [b"e1-0", b"e2-0", b""]
    assert await raws(queue, "lane") == [b"e1-lane"]
    assert await raws(queue, "2") == [b"\x00\r\n\xff"]
    assert await raws(queue, "1") == []


async def test_nothing_is_appended_by_an_empty_call(queue: EventQueue) -> None:
    assert await queue.append([]) == []
    assert await queue.append([Append("e1", {})]) == [Appended("e1")]
    assert set((await queue.waiting()).values()) == {0}


async def test_positions_rise_and_survive_their_encoding(queue: EventQueue) -> None:
    for number in range(5):
        await queue.append([Append(f"e{number}{part}", {"0": b"x"}) for part in range(3)])

    positions = [part.position for part in await queue.read("0", None, 100, 0)]
    assert len(positions) == 15
    assert positions == sorted(set(positions))
    texts = [position.encode() for position in positions]
    assert texts == sorted(texts)
    assert [Position.decode(text) for text in texts] == positions


async def test_reading_takes_nothing_away_and_continues_after_a_position(queue: EventQueue) -> None:
    for number in range(4):
        await queue.append([Append(f"e{number}", {"0": b"%d" % number})])

    read = await queue.read("0", None, 2, 0)
    assert [part.raw for part in read] == [b"0", b"1"]
    assert [part.raw for part in await queue.read("0", read[-1].position, 10, 0)] == [b"2", b"3"]
    assert await raws(queue) == [b"0", b"1", b"2", b"3"]


async def test_a_call_is_read_whole_even_beyond_the_limit(queue: EventQueue) -> None:
    await queue.append([Append(f"e{number}", {"0": b"%d" % number}) for number in range(7)])
    await queue.append([Append("e7", {"0": b"7"})])

    read = await queue.read("0", None, 5, 0)
    assert [part.raw for part in read] == [b"%d" % number for number in range(7)]
    assert [part.raw for part in await queue.read("0", read[-1].position, 5, 0)] == [b"7"]


async def test_a_limit_of_a_long_backlog_is_roughly_kept(queue: EventQueue) -> None:
    for number in range(60):
        await queue.append([Append(f"e{number}-{part}", {"0": b"x" * 10}) for part in range(number % 7 + 1)])

    seen: list[QueuedSlice] = []
    while part := await queue.read("0", seen[-1].position if seen else None, 50, 0):
        assert len(part) < 50 + 7
        seen += part
    assert len(seen) == sum(number % 7 + 1 for number in range(60))
    assert [part.position for part in seen] == sorted({part.position for part in seen})


async def test_a_call_may_be_larger_than_one_entry(queue: EventQueue) -> None:
    events = [Append(f"e{number}", {"0": b"%d" % number}) for number in range(5_000)]
    assert await queue.append(events) == [Appended(event.event_id) for event in events]
    assert await raws(queue) == [b"%d" % number for number in range(5_000)]
    assert (await queue.waiting())["0"] == 5_000


async def test_several_partitions_are_read_at_once_each_from_its_own_place(queue: EventQueue) -> None:
    await queue.append([Append("a", {"0": b"a0", "1": b"a1"})])
    await queue.append([Append("b", {"0": b"b0"})])
    [first] = [part for part in await queue.read("0", None, 10, 0) if part.raw == b"a0"]
    found = await queue.read_many({"0": first.position, "1": None, "2": None}, 10, 0)
    assert {name: [part.raw for part in slices] for name, slices in found.items()} == {
        "0": [b"b0"],
        "1": [b"a1"],
    }
    assert found["1"] == await queue.read("1", None, 10, 0)


async def test_the_limit_holds_for_each_partition(queue: EventQueue) -> None:
    for number in range(60):
        await queue.append([Append(f"e{number}", {"0": b"%d" % number, "1": b"%d" % number})])
    found = await queue.read_many({"0": None, "1": None}, 40, 0)
    assert {name: [int(part.raw) for part in slices] for name, slices in found.items()} == {
        "0": list(range(40)),
        "1": list(range(40)),
    }


async def test_a_read_of_several_waits_for_the_first_news_of_any(queue: EventQueue) -> None:
    reading = asyncio.create_task(queue.read_many({"0": None, "1": None, "2": None}, 10, 20))
    while not reading.done():  # appended again should the first have come before the read
        await queue.append([Append("e", {"1": b"e"})])
        await asyncio.wait([reading], timeout=0.2)
    found = reading.result()
    assert {name: slices[0].raw for name, slices in found.items()} == {"1": b"e"}
    assert await queue.read_many({"0": None, "2": None}, 10, 0.05) == {}


async def test_a_reader_waits_for_the_next_event(queue: EventQueue) -> None:
    await queue.append([Append("e1", {"0": b"1"})])
    [first] = await queue.read("0", None, 10, 0)
    reading = asyncio.create_task(queue.read("0", first.position, 10, 20))
    elsewhere = asyncio.create_task(queue.read("1", None, 10, 20))
    await asyncio.sleep(0.05)
    assert not reading.done()

    # A blocked reader holds up nobody.
    await asyncio.wait_for(queue.append([Append("e2", {"0": b"2"})]), 5)
    assert [part.raw for part in await asyncio.wait_for(reading, 5)] == [b"2"]
    assert not elsewhere.done()
    elsewhere.cancel()
    await asyncio.gather(elsewhere, return_exceptions=True)


async def test_a_reader_comes_back_with_nothing_when_nothing_comes(queue: EventQueue) -> None:
    began = time.monotonic()
    assert await queue.read("0", None, 10, 0.2) == []
    assert 0.15 < time.monotonic() - began < 5


async def test_a_reader_that_was_cancelled_leaves_the_queue_usable(queue: EventQueue) -> None:
    for _ in range(3):
        reading = asyncio.create_task(queue.read("0", None, 10, 20))
        await asyncio.sleep(0.02)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    await queue.append([Append("e1", {"0": b"1"})])
    assert await raws(queue) == [b"1"]


# ---------------------------------------------------------------- many at once


async def test_calls_that_arrive_together_get_their_own_results(queue: EventQueue) -> None:
    results = await asyncio.gather(
        *(
            queue.append(
                [
                    Append(f"e{call}-{part}", {str(call % PARTITIONS): b"%d-%d" % (call, part)})
                    for part in range(3)
                ]
            )
            for call in range(100)
        )
    )
    assert results == [[Appended(f"e{call}-{part}") for part in range(3)] for call in range(100)]
    for partition in range(PARTITIONS):
        expected = [
            b"%d-%d" % (call, part) for call in range(partition, 100, PARTITIONS) for part in range(3)
        ]
        assert await raws(queue, str(partition)) == expected


async def test_a_cancelled_caller_does_not_disturb_the_others(queue: EventQueue) -> None:
    calls = [
        asyncio.create_task(queue.append([Append(f"e{number}", {"0": b"%d" % number})]))
        for number in range(20)
    ]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    for number, result in list(enumerate(results))[1::2]:
        assert result == [Appended(f"e{number}")]
    assert {b"%d" % number for number in range(1, 20, 2)} <= set(await raws(queue))


# ---------------------------------------------------------------- idempotency


@pytest.mark.req("I2")
async def test_the_same_key_and_body_is_one_event(queue: EventQueue) -> None:
    assert await queue.append([keyed("e1", "key")]) == [Appended("e1")]
    assert await queue.append([keyed("e2", "key")]) == [Appended("e1", replayed=True)]
    assert await raws(queue) == [b"e1"]
    assert await queue.find_key("key") == "e1"
    assert await queue.find_key("other") is None


@pytest.mark.req("I2")
async def test_the_same_key_with_another_body_is_refused(queue: EventQueue) -> None:
    await queue.append([keyed("e1", "key", "one body")])
    assert await queue.append([keyed("e2", "key", "another body"), keyed("e3", "key", "one body")]) == [
        KeyReused("e1"),
        Appended("e1", replayed=True),
    ]
    assert await raws(queue) == [b"e1"]


@pytest.mark.req("I2")
async def test_a_key_repeated_within_one_call_is_one_event(queue: EventQueue) -> None:
    events = [
        keyed("e1", "a"),
        keyed("e2", "a"),
        keyed("e3", "b"),
        keyed("e4", "a", "other"),
        Append("e5", {"0": b"e5"}),
    ]
    assert await queue.append(events) == [
        Appended("e1"),
        Appended("e1", replayed=True),
        Appended("e3"),
        KeyReused("e1"),
        Appended("e5"),
    ]
    assert await raws(queue) == [b"e1", b"e3", b"e5"]


@pytest.mark.req("I2")
async def test_fifty_racing_duplicates_are_one_event(queue: EventQueue) -> None:
    results = await asyncio.gather(*(queue.append([keyed(f"e{number}", "key")]) for number in range(50)))

    outcomes = [outcome for [outcome] in results]
    assert {outcome.event_id for outcome in outcomes} == {outcomes[0].event_id}
    assert sum(isinstance(outcome, Appended) and not outcome.replayed for outcome in outcomes) == 1
    assert await raws(queue) == [outcomes[0].event_id.encode()]


@pytest.mark.req("I2")
async def test_a_key_is_kept_for_its_time_only(
    queue: EventQueue, location: tuple[str, str] | None, clock: FakeClock
) -> None:
    event = Append("e1", {"0": b"e1"}, Idempotency('odd key "é\n', "d", keep_seconds=100))
    await queue.append([event])
    if location is None:
        clock.advance(101)
    else:
        url, prefix = location
        async with Redis.from_url(url) as client:
            [name] = [key async for key in client.scan_iter(f"{prefix}:idempotency:*")]
            assert 95 <= await client.ttl(name) <= 100
            await client.pexpire(name, 0)
    assert await queue.find_key('odd key "é\n') is None
    assert await queue.append([event]) == [Appended("e1")]


# ---------------------------------------------------------------- trim and count


async def test_trimming_removes_through_the_entry_of_a_position(queue: EventQueue) -> None:
    for number in range(4):
        await queue.append([Append(f"e{number}{part}", {"0": b"%d" % number}) for part in "ab"])
    read = await queue.read("0", None, 100, 0)

    await queue.trim("0", read[2].position)  # the first slice of the second entry
    assert await raws(queue) == [b"2", b"2", b"3", b"3"]


async def test_waiting_counts_slices_not_calls(queue: EventQueue) -> None:
    await queue.append([Append(f"e{number}", {"0": b"x", "lane": b"y"}) for number in range(5)])
    await queue.append([Append("e5", {"0": b"x"})])
    assert await queue.waiting() == {"0": 6, "1": 0, "2": 0, "lane": 5, "ingest": 0}

    read = await queue.read("0", None, 1, 0)
    await queue.trim("0", read[-1].position)
    assert await queue.waiting() == {"0": 1, "1": 0, "2": 0, "lane": 5, "ingest": 0}


@pytest.mark.req("R27")
async def test_a_late_repeat_of_an_old_trim_changes_nothing(queue: EventQueue) -> None:
    """A trimmer that was frozen and thawed, or died before it could report."""
    for number in range(4):
        await queue.append([Append(f"e{number}{part}", {"0": b"%d" % number}) for part in "abc"])
    read = await queue.read("0", None, 100, 0)
    old, newer = read[2].position, read[8].position

    await queue.trim("0", newer)
    before = await queue.waiting()
    for _ in range(3):
        await queue.trim("0", old)
        await queue.trim("0", newer)
    assert await queue.waiting() == before
    assert (await queue.waiting())["0"] == 3
    assert await raws(queue) == [b"3"] * 3


async def test_positions_go_on_rising_after_everything_was_trimmed(queue: EventQueue) -> None:
    await queue.append([Append("e1", {"0": b"1"})])
    [first] = await queue.read("0", None, 10, 0)
    await queue.trim("0", first.position)
    await queue.append([Append("e2", {"0": b"2"})])
    [second] = await queue.read("0", None, 10, 0)
    assert second.position > first.position
    assert (await queue.waiting())["0"] == 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(st.integers(1, 4), st.just("trim one"), st.just("trim all"), st.just("repeat")), max_size=25
    )
)
async def test_the_count_never_drifts(queue: EventQueue, steps: list[int | str]) -> None:
    """Against a plain list: whatever is appended and trimmed, also twice."""
    for part in await queue.read("1", None, 10_000, 0):
        await queue.trim("1", part.position)
    entries: list[int] = []
    last_trim: Position | None = None
    for step in steps:
        if isinstance(step, int):
            await queue.append([Append("e", {"1": b"x"}) for _ in range(step)])
            entries.append(step)
        elif step == "repeat":
            if last_trim:
                await queue.trim("1", last_trim)
        elif entries:
            read = await queue.read("1", None, 10_000, 0)
            last_trim = read[0].position if step == "trim one" else read[-1].position
            await queue.trim("1", last_trim)
            del entries[: 1 if step == "trim one" else None]
        assert (await queue.waiting())["1"] == sum(entries)


# ---------------------------------------------------------------- the public stream


@pytest.mark.req("R5")
async def test_publishers_write_a_stream_that_is_read_and_trimmed(
    queue: EventQueue, publishers: Publishers
) -> None:
    fields = [{b"event": b"%d" % number, b"source": b"shop"} for number in range(3)]
    ids = [await publishers.add(entry) for entry in fields]

    assert await queue.read_ingest(None, 10, 0) == [
        IngestEntry(entry_id, entry) for entry_id, entry in zip(ids, fields, strict=True)
    ]
    assert [entry.entry_id for entry in await queue.read_ingest(ids[0], 1, 0)] == [ids[1]]
    assert (await queue.waiting())["ingest"] == 3
    for _ in range(2):
        await queue.trim_ingest(ids[1])
        assert [entry.entry_id for entry in await queue.read_ingest(None, 10, 0)] == [ids[2]]
    assert (await queue.waiting())["ingest"] == 1


@pytest.mark.req("R5")
async def test_a_reader_of_the_public_stream_waits(queue: EventQueue, publishers: Publishers) -> None:
    reading = asyncio.create_task(queue.read_ingest(None, 10, 20))
    await asyncio.sleep(0.02)
    await publishers.add({b"event": b"{}"})
    assert [entry.fields for entry in await asyncio.wait_for(reading, 5)] == [{b"event": b"{}"}]


@pytest.mark.req("R5")
async def test_what_cannot_be_accepted_is_kept_aside(queue: EventQueue, publishers: Publishers) -> None:
    entries = [
        RejectedEntry("5-0", b"\xff{", "malformed", "It is not JSON."),
        RejectedEntry("6-0", b"", "invalid", "It has no event."),
    ]
    await queue.reject_ingest(entries)
    await queue.reject_ingest(entries[:1])
    assert await publishers.rejected() == [*entries, entries[0]]


@pytest.mark.req("R5")
async def test_what_is_published_is_heard_by_who_listens(queue: EventQueue, publishers: Publishers) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    listening = asyncio.create_task(queue.listen_ingest(heard.put))
    async with asyncio.timeout(10):
        while not await publishers.publish(b"knock"):
            await asyncio.sleep(0.01)
        await publishers.publish(b"1\n\xff")
        await publishers.publish(b"2")
        bodies = [body for _ in range(3) if (body := await heard.get())]
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert bodies == [b"knock", b"1\n\xff", b"2"]
    assert await publishers.publish(b"3") == 0


# ---------------------------------------------------------------- Redis alone


@pytest.mark.req("R35")
async def test_foreign_entries_are_handed_over_and_counted(redis_url: str, redis_prefix: str) -> None:
    """Somebody wrote into our stream by hand; the caller sets it aside, and it is trimmed like any other."""
    queue = RedisQueue(redis_url, redis_prefix, PARTITIONS)
    async with Redis.from_url(redis_url) as client:
        await client.xadd(f"{redis_prefix}:{{0}}:queue", {"who": "me", "why": "curious"})
    await queue.append([Append("e1", {"0": b"ours"})])
    read = await queue.read("0", None, 10, 0)
    assert [part.raw for part in read] == [b"me", b"curious", b"ours"]
    assert (await queue.waiting())["0"] >= 2
    await queue.trim("0", read[0].position)
    assert (await queue.waiting())["0"] == 1
    await queue.close()


@pytest.mark.req("I1", "R27")
async def test_what_was_confirmed_survives_a_kill(own_valkey: EmbeddedValkey) -> None:
    """Kill the server at random moments under load: every confirmed append is there, once."""
    queue = RedisQueue(own_valkey.url, "kill", PARTITIONS, timeout_seconds=2)
    confirmed: list[str] = []
    stop = asyncio.Event()

    async def publish(name: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            event_id = f"{name}-{number}"
            try:
                await queue.append([Append(event_id, {"0": event_id.encode()})])
                confirmed.append(event_id)
            except QueueUnavailable:
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        for name in "abcdefgh":
            tasks.create_task(publish(name))
        for _ in range(3):
            target = len(confirmed) + 200
            async with asyncio.timeout(20):
                while len(confirmed) < target:
                    await asyncio.sleep(0.005)
            await own_valkey.kill()
            await own_valkey.start()
        stop.set()

    kept = [part.raw.decode() for part in await queue.read("0", None, 10_000_000, 0)]
    assert set(confirmed) <= set(kept)
    assert len(kept) == len(set(kept))
    assert (await queue.waiting())["0"] == len(kept)
    for name in "abcdefgh":
        numbers = [int(event_id.split("-")[1]) for event_id in kept if event_id.startswith(f"{name}-")]
        assert numbers == sorted(numbers)
    await queue.close()


@pytest.mark.req("I2")
async def test_keys_hold_across_a_restart(own_valkey: EmbeddedValkey) -> None:
    queue = RedisQueue(own_valkey.url, "keys", PARTITIONS)
    await queue.append([keyed("e1", "key")])
    await own_valkey.kill()
    await own_valkey.start()
    assert await queue.append([keyed("e2", "key"), keyed("e3", "key", "other")]) == [
        Appended("e1", replayed=True),
        KeyReused("e1"),
    ]
    assert await raws(queue) == [b"e1"]
    await queue.close()
