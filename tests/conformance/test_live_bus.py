"""What every `LiveBus` promises, on Redis and in memory alike."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from hub.adapters.embedded_valkey import EmbeddedValkey
from hub.adapters.memory_bus import MemoryBus
from hub.adapters.redis_bus import RedisBus
from hub.adapters.redis_link import LinkTiming
from hub.model.vocabulary import BROADCASTS, LOG
from hub.ports import LiveBus, Message, Position, Publication, Published
from tests.support.clock import FakeClock
from tests.support.hearing import Hearing

PARTITIONS = 3
# A disk that is busy holds a server up for seconds. What a lost link means is the subject of test_redis_link.py.
PATIENT = LinkTiming(silence=60.0, subscribe=60.0)
HOUR = 3_600
DAY = 24 * HOUR
Bus = RedisBus | MemoryBus
Location = tuple[str, str] | None


@pytest.fixture(params=["memory", "redis"])
def location(request: pytest.FixtureRequest) -> Location:
    """Address and prefix of the Redis to use, if any. Not asynchronous, since starting a server is not."""
    if request.param == "memory":
        return None
    return request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")


@pytest.fixture
async def new_bus(location: Location, clock: FakeClock) -> AsyncIterator[Callable[[], Bus]]:
    """Makes buses that see the same channels: one for each process, as it were."""
    buses: list[Bus] = []

    def make() -> Bus:
        if location is None:
            first = buses[0] if buses else None
            assert first is None or isinstance(first, MemoryBus)
            buses.append(MemoryBus(clock, beside=first))
        else:
            buses.append(RedisBus(*location, PARTITIONS, link_timing=PATIENT))
        return buses[-1]

    yield make
    for bus in reversed(buses):
        await bus.close()


@pytest.fixture
def bus(new_bus: Callable[[], Bus]) -> Bus:
    return new_bus()


@pytest.fixture
async def hearing(bus: Bus) -> Hearing:
    hearing = Hearing()
    await bus.start(hearing)
    return hearing


@pytest.fixture
def pass_time(location: Location, clock: FakeClock) -> Callable[[float], Awaitable[None]]:
    """Let time pass: on Redis by shortening what the keys still have to live."""

    async def pass_seconds(seconds: float) -> None:
        clock.advance(seconds)
        if location is None:
            return
        url, prefix = location
        async with Redis.from_url(url) as client:
            async for key in client.scan_iter(f"{prefix}:*"):
                left = await client.pttl(key)
                if left >= 0:
                    await client.pexpire(key, max(0, left - round(seconds * 1000)))

    return pass_seconds


def at(number: int) -> Position:
    return Position(1_767_614_400_000, number // 10, number % 10)


def said(number: int, channel: str = "#alice") -> Publication:
    return Publication(channel, b"%d" % number, at(number))


async def nobody_listens(bus: Bus, channel: str) -> None:
    """Wait until the end of a subscription took effect, which `unsubscribe` does not wait for."""
    async with asyncio.timeout(60):
        while (await bus.publish([Publication(channel, b"anybody?")]))[0].listeners:
            await asyncio.sleep(0)


def bodies(messages: list[Message]) -> list[bytes]:
    return [message.payload for message in messages]


# ---------------------------------------------------------------- offsets and repeats


@pytest.mark.req("I4")
async def test_publications_get_offsets_in_order_per_channel(bus: Bus) -> None:
    published = await bus.publish([said(1), said(2, "#bob"), said(3), Publication("#alice", b"mark")])
    assert [one.offset for one in published] == [1, 1, 2, 3]
    assert await bus.publish([]) == []

    history = await bus.history("#alice", 0, None)
    assert [(one.channel, one.offset, one.payload) for one in history.messages] == [
        ("#alice", 1, b"1"),
        ("#alice", 2, b"3"),
        ("#alice", 3, b"mark"),
    ]
    assert {one.epoch for one in history.messages} == {history.epoch}
    assert (history.top, history.complete) == (3, True)


@pytest.mark.req("I4", "R27")
async def test_a_repeat_of_a_position_changes_nothing(bus: Bus) -> None:
    await bus.publish([said(1), said(2), said(3)])
    again = await bus.publish([said(1), said(3), said(4), Publication("#alice", b"older", at(2))])
    assert [one.offset for one in again] == [0, 0, 4, 0]
    assert bodies((await bus.history("#alice", 0, None)).messages) == [b"1", b"2", b"3", b"4"]


@pytest.mark.req("I4")
async def test_marks_without_a_position_do_not_disturb_the_positions(bus: Bus) -> None:
    mark = Publication("#alice", b"mark")
    offsets = [
        one.offset for one in await bus.publish([mark, said(5), mark, said(5), mark, said(4), said(6)])
    ]
    assert offsets == [1, 2, 3, 0, 4, 0, 5]


@pytest.mark.req("I4")
async def test_position_zero_is_a_position(bus: Bus) -> None:
    first = Publication("#alice", b"x", Position(0, 0, 0))
    assert [one.offset for one in await bus.publish([first, first])] == [1, 0]


async def test_payload_and_header_come_back_untouched(bus: Bus, hearing: Hearing) -> None:
    payload = bytes(range(256)) * 300 + b"\n\n 1 2 3\n"
    await bus.subscribe("#alice")
    await bus.publish(
        [Publication("#alice", payload, None, "reach=ntf_1 x"), Publication("#alice", b"", None, "")]
    )
    live = await hearing.messages(2)
    held = (await bus.history("#alice", 0, None)).messages
    assert live == held
    assert [(one.header, one.payload) for one in held] == [("reach=ntf_1 x", payload), ("", b"")]


async def test_a_large_batch_keeps_its_order(bus: Bus, hearing: Hearing) -> None:
    """More than one round trip takes."""
    channels = [f"#user{number}" for number in range(7)]
    for channel in channels:
        await bus.subscribe(channel)
    publications = [said(number, channels[number % 7]) for number in range(1, 702)]
    published = await bus.publish(publications)
    assert [one.offset for one in published] == [(number - 1) // 7 + 1 for number in range(1, 702)]
    assert {one.listeners for one in published} == {1}

    heard = await hearing.messages(701)
    for channel in channels:
        expected = [one.payload for one in publications if one.channel == channel]
        assert [one.payload for one in heard if one.channel == channel] == expected
        assert bodies((await bus.history(channel, 0, None)).messages) == expected[-100:]


# ---------------------------------------------------------------- history


async def test_history_after_an_offset(bus: Bus) -> None:
    await bus.publish([said(number) for number in range(1, 6)])
    epoch = (await bus.history("#alice", 0, None)).epoch

    later = await bus.history("#alice", 3, epoch)
    assert (bodies(later.messages), later.top, later.complete) == ([b"4", b"5"], 5, True)
    up_to_date = await bus.history("#alice", 5, epoch)
    assert (up_to_date.messages, up_to_date.complete) == ([], True)


@pytest.mark.req("I5")
async def test_what_history_does_not_hold_is_told(
    bus: Bus, pass_time: Callable[[float], Awaitable[None]]
) -> None:
    await bus.publish([said(number) for number in range(1, 106)])
    epoch = (await bus.history("#alice", 0, None)).epoch

    trimmed = await bus.history("#alice", 4, epoch)
    assert (trimmed.complete, len(trimmed.messages), trimmed.top) == (False, 100, 105)
    whole = await bus.history("#alice", 5, epoch)
    assert (whole.complete, len(whole.messages)) == (True, 100)
    more_than_asked = await bus.history("#alice", 50, epoch, limit=10)
    assert (more_than_asked.complete, bodies(more_than_asked.messages)) == (
        False,
        [b"%d" % number for number in range(51, 61)],
    )
    none_wanted = await bus.history("#alice", 50, epoch, limit=0)
    assert (none_wanted.complete, none_wanted.messages, none_wanted.top) == (False, [], 105)
    beyond = await bus.history("#alice", 106, epoch)
    assert (beyond.complete, beyond.messages, beyond.top) == (False, [], 105)
    other_epoch = await bus.history("#alice", 100, "0.00000000")
    assert (other_epoch.complete, other_epoch.messages, other_epoch.epoch) == (False, [], epoch)

    await pass_time(HOUR + 1)
    expired = await bus.history("#alice", 104, epoch)
    assert (expired.complete, expired.messages, expired.top, expired.epoch) == (False, [], 105, epoch)
    assert (await bus.history("#alice", 105, epoch)).complete


@pytest.mark.req("I5")
async def test_another_generation_is_another_epoch(bus: Bus) -> None:
    await bus.publish([said(1), said(2)])
    before = await bus.history("#alice", 0, None)
    assert before.epoch.startswith("0.")

    bus.generation = "1"
    after = await bus.history("#alice", 1, before.epoch)
    assert (after.complete, after.messages, after.top) == (False, [], 2)
    assert after.epoch == "1." + before.epoch.removeprefix("0.")
    assert bodies((await bus.history("#alice", 1, after.epoch)).messages) == [b"2"]
    assert (await bus.tops(["#alice"]))["#alice"] == (after.epoch, 2)


@pytest.mark.req("I5")
async def test_a_channel_that_was_silent_for_long_gets_a_new_epoch(
    bus: Bus, pass_time: Callable[[float], Awaitable[None]]
) -> None:
    await bus.publish([said(1)])
    epoch = (await bus.history("#alice", 0, None)).epoch
    await pass_time(HOUR + 7 * DAY - 60)
    assert (await bus.history("#alice", 1, epoch)).complete
    await pass_time(120)
    begun_anew = await bus.history("#alice", 1, epoch)
    assert (begun_anew.complete, begun_anew.top) == (False, 0)
    assert begun_anew.epoch != epoch
    assert [one.offset for one in await bus.publish([said(1)])] == [1]


async def test_a_channel_that_was_never_used_has_an_epoch_that_stays(
    bus: Bus, new_bus: Callable[[], Bus]
) -> None:
    history = await bus.history("#new", 0, None)
    assert (history.top, history.messages, history.complete) == (0, [], True)
    assert await new_bus().tops(["#new"]) == {"#new": (history.epoch, 0)}
    await bus.publish([said(1, "#new")])
    assert (await bus.history("#new", 0, history.epoch)).complete


async def test_broadcasts_and_log_are_kept_by_their_own_rules(
    bus: Bus, pass_time: Callable[[float], Awaitable[None]]
) -> None:
    for channel, kept in ((BROADCASTS, 1_000), (LOG, 200)):
        await bus.publish([Publication(channel, b"%d" % number) for number in range(1_005)])
        history = await bus.history(channel, 0, None, limit=2_000)
        assert (len(history.messages), history.top) == (kept, 1_005)
        assert history.messages[-1].payload == b"1004"
    await pass_time(HOUR + 1)
    assert len((await bus.history(LOG, 0, None, limit=2_000)).messages) == 0
    assert len((await bus.history(BROADCASTS, 0, None, limit=2_000)).messages) == 1_000
    await pass_time(DAY)
    assert len((await bus.history(BROADCASTS, 0, None, limit=2_000)).messages) == 0


async def test_tops_of_many_channels(bus: Bus) -> None:
    channels = [f"#user{number}" for number in range(450)]
    await bus.publish([said(1, channel) for channel in channels[::2]])
    tops = await bus.tops(channels)
    assert list(tops) == channels
    assert [offset for _, offset in tops.values()] == [1, 0] * 225
    assert await bus.tops(channels) == tops
    assert await bus.tops([]) == {}
    assert (await bus.history(channels[1], 0, None)).epoch == tops[channels[1]][0]


# ---------------------------------------------------------------- fan-out


@pytest.mark.req("R3")
async def test_every_node_gets_what_any_process_published(new_bus: Callable[[], Bus]) -> None:
    nodes = [new_bus() for _ in range(3)]
    hearings = [Hearing() for _ in nodes]
    for node, hearing in zip(nodes, hearings, strict=True):
        await node.start(hearing)
    await nodes[0].subscribe("#alice")
    await nodes[1].subscribe("#alice")
    await nodes[1].subscribe("#bob")

    generator = new_bus()
    assert await generator.publish([said(1), said(2, "#bob"), said(3, "#carol"), said(1)]) == [
        Published(1, 2),
        Published(1, 1),
        Published(1, 0),
        Published(0, 0),
    ]
    assert bodies(await hearings[0].messages(1)) == [b"1"]
    assert bodies(await hearings[1].messages(2)) == [b"1", b"2"]
    assert await hearings[0].messages(1) == (await generator.history("#alice", 0, None)).messages
    assert hearings[2].heard == []


@pytest.mark.req("R3")
async def test_control_messages_reach_every_process_that_listens(new_bus: Callable[[], Bus]) -> None:
    nodes = [new_bus() for _ in range(2)]
    hearings = [Hearing() for _ in nodes]
    for node, hearing in zip(nodes, hearings, strict=True):
        await node.start(hearing)
    await new_bus().send_control(b'{"kind": "catalog"}')
    for hearing in hearings:
        assert await hearing.controls(1) == [b'{"kind": "catalog"}']


async def test_subscriptions_are_counted(bus: Bus, hearing: Hearing) -> None:
    await bus.subscribe("#alice")
    await bus.subscribe("#alice")
    await bus.unsubscribe("#alice")
    await bus.publish([said(1)])
    assert bodies(await hearing.messages(1)) == [b"1"]

    await bus.unsubscribe("#alice")
    await bus.unsubscribe("#alice")
    await bus.unsubscribe("#never")
    await nobody_listens(bus, "#alice")
    assert len(hearing.heard) == 1
    await bus.subscribe("#alice")
    await bus.publish([said(3)])
    assert bodies(await hearing.messages(2)) == [b"1", b"3"]


async def test_many_who_come_and_go_at_once(bus: Bus, hearing: Hearing) -> None:
    """Who stays hears everything from the moment its subscription was confirmed."""

    async def come_and_go(times: int) -> None:
        for _ in range(times):
            await bus.subscribe("#alice")
            await bus.unsubscribe("#alice")

    async def come_and_stay(number: int) -> None:
        await asyncio.sleep(0.001 * number)
        await bus.subscribe("#alice")
        await bus.publish([said(number)])

    await asyncio.gather(
        *(come_and_go(20) for _ in range(10)), *(come_and_stay(number) for number in range(1, 11))
    )
    published = bodies((await bus.history("#alice", 0, None)).messages)
    assert len(published) <= 10
    heard = bodies(await hearing.messages(len(published)))
    assert heard == published
    for _ in range(10):
        await bus.unsubscribe("#alice")
    await nobody_listens(bus, "#alice")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["join", "leave", "publish"])), max_size=30
    )
)
async def test_subscriptions_against_a_plain_count(
    bus: Bus, hearing: Hearing, steps: list[tuple[str, str]]
) -> None:
    """Joins and leaves are not waited for, so that they overlap; a publication comes after a confirmed join."""
    counts = dict.fromkeys("abc", 0)
    joins: list[asyncio.Task[None]] = []
    expected = 0
    already = len(hearing.heard)
    for name, step in steps:
        if step == "join":
            counts[name] += 1
            joins.append(asyncio.create_task(bus.subscribe(f"#{name}")))
        elif step == "leave" and counts[name]:
            await asyncio.sleep(0)  # the join was called before
            counts[name] -= 1
            await bus.unsubscribe(f"#{name}")
        elif step == "publish":
            await asyncio.gather(*(asyncio.wait_for(join, 60) for join in joins))
            joins.clear()
            [published] = await bus.publish([Publication(f"#{name}", b"x")])
            if counts[name]:
                assert published.listeners == 1
                expected += 1
    await asyncio.gather(*joins)
    await hearing.messages(already + expected, 60)
    for name, count in counts.items():
        for _ in range(count):
            await bus.unsubscribe(f"#{name}")
        await nobody_listens(bus, f"#{name}")
    assert len(hearing.heard) == already + expected


# ---------------------------------------------------------------- Redis alone


@pytest.mark.req("I4")
async def test_lost_scripts_disturb_nothing(redis_url: str, redis_prefix: str) -> None:
    """Somebody flushes Redis' scripts all the time while batches of several round trips are published."""
    bus = RedisBus(redis_url, redis_prefix, PARTITIONS)
    async with Redis.from_url(redis_url) as client:
        stop = asyncio.Event()

        async def flush() -> None:
            while not stop.is_set():
                await client.script_flush()

        flushing = asyncio.create_task(flush())
        for batch in range(5):
            published = await bus.publish(
                [said(1_000 * batch + number, BROADCASTS) for number in range(1, 301)]
            )
            assert [one.offset for one in published] == list(range(300 * batch + 1, 300 * batch + 301))
        stop.set()
        await flushing
    await bus.close()


@pytest.mark.req("I5", "R27")
async def test_histories_survive_a_kill(own_valkey: EmbeddedValkey) -> None:
    bus = RedisBus(own_valkey.url, "kill", PARTITIONS)
    await bus.publish([said(1), said(2)])
    before = await bus.history("#alice", 0, None)
    await own_valkey.kill()
    await own_valkey.start()
    assert await bus.history("#alice", 0, before.epoch) == before
    assert [one.offset for one in await bus.publish([said(2), said(3)])] == [0, 3]
    await bus.close()


@pytest.mark.req("I5")
async def test_a_wiped_redis_is_told(own_valkey: EmbeddedValkey) -> None:
    bus = RedisBus(own_valkey.url, "wipe", PARTITIONS)
    await bus.publish([said(1), said(2)])
    before = await bus.history("#alice", 0, None)
    async with Redis.from_url(own_valkey.url) as client:
        await client.flushall()
    after = await bus.history("#alice", 2, before.epoch)
    assert (after.complete, after.top) == (False, 0)
    assert after.epoch != before.epoch
    await bus.close()


@pytest.mark.req("R35")
async def test_what_others_publish_on_a_live_channel_is_ignored(redis_url: str, redis_prefix: str) -> None:
    bus: LiveBus = RedisBus(redis_url, redis_prefix, PARTITIONS)
    hearing = Hearing()
    await bus.start(hearing)
    await bus.subscribe(BROADCASTS)
    async with Redis.from_url(redis_url) as client:
        for body in (b"", b"hello", b"x y z\n", b"\xff \xff \xff\npayload"):
            assert await client.publish(f"{redis_prefix}:{{lane}}:live:broadcasts", body) == 1
    await bus.publish([Publication(BROADCASTS, b"ours")])
    assert bodies(await hearing.messages(1)) == [b"ours"]
    await bus.close()
