"""Senders that die, freeze and lose what they stand on, in the middle of their work: nothing is lost, and little is sent twice.

What may arrive twice is one mail for each connection of a sender that ended or froze without a word, and nothing else.
"""

import asyncio
import fcntl
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from hub.adapters.sql_store.tables import deliveries
from tests.support.cluster import Member
from tests.support.mailing import Mailing, address_of, mailing, phone_of
from tests.support.processes import eventually
from tests.support.proxy import Proxy
from tests.support.sms_gateway import SmsGateway
from tests.support.smtp_sink import HANG, smtp_sink

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ROUNDS = int(os.environ.get("KILL_ROUNDS", "1"))  # `make faults` asks for more
CONNECTIONS = 2


def users(count: int) -> list[str]:
    return [f"user{number:04}" for number in range(count)]


@pytest.fixture(params=["postgresql"] if ROUNDS == 1 else ["sqlite", "postgresql"])
def one_database_url(request: pytest.FixtureRequest) -> str:
    """Where both are alike enough, one of them in a short run."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


# ---------------------------------------------------------------- dying


@pytest.mark.req("R2", "R27", "I3", "I7", "I10")
@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_senders_killed_in_the_middle_of_chunks_lose_nothing(
    tmp_path: Path, database_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    people = users(500)
    kills = 3 if ROUNDS == 1 else 8
    async with smtp_sink() as sink, mailing(tmp_path / "data", database_url, sink) as post:
        await post.plan(people)
        await post.start()
        for _ in range(kills):
            before = len(sink.messages)
            await post.came(min(before + chance.randint(20, 100), len(people)))
            await asyncio.sleep(chance.uniform(0, 0.02))
            victim = chance.choice(post.cluster.senders)
            await victim.kill()
            await post.start(victim)
        assert set(await post.over(len(people))) == {"sent"}
        await post.check(people, repeats=kills * CONNECTIONS)


@pytest.mark.req("I10", "R27")
async def test_a_mail_that_kills_its_sender_three_times_is_set_aside_alone(
    tmp_path: Path, sqlite_url: str
) -> None:
    """The test ends a sender whenever this mail is on its wire, as a crash in a library would."""
    people, poison = users(120), "user0007"
    async with (
        smtp_sink() as one,
        smtp_sink() as other,
        mailing(tmp_path / "data", sqlite_url, one, other) as post,
    ):
        deaths: asyncio.Queue[Member] = asyncio.Queue()

        def deadly_to(member: Member) -> Callable[[str, str | None], None]:
            def witness(stage: str, to: str | None) -> None:
                if stage == "rcpt" and to == address_of(poison):
                    member.signal(signal.SIGKILL)
                    deaths.put_nowait(member)

            return witness

        for member, sink in zip(post.cluster.senders, (one, other), strict=True):
            member.environment["CLARION_EMAIL_PROVIDERS"] = sink.url(f"connections={CONNECTIONS}")
            sink.witness = deadly_to(member)
        await post.plan(people)
        await post.start()
        for _ in range(3):
            async with asyncio.timeout(30):
                dead = await deaths.get()
            await dead.kill()  # and is waited for
            await post.let_lapse(dead.pid)
            await post.start(dead)
        states = await post.over(len(people))
        assert states == {"sent": len(people) - 1, "dead kills_senders": 1}
        assert {address for message in post.arrived for address in message.recipients} == {
            address_of(user) for user in people if user != poison
        }
        assert deaths.empty()
        await eventually(
            lambda: "is set aside" in "".join(one.log.read_text() for one in post.cluster.senders)
        )
        listed = await post.cluster.call("GET", "/v1/dead-letters")
        assert [(one["user"], one["state"], one["reason"]) for one in listed["dead_letters"]] == [
            (poison, "dead", "kills_senders")
        ]
        assert await post.cluster.ledger() == []


# ---------------------------------------------------------------- freezing


async def freeze(post: Mailing, member: Member, database_url: str) -> None:
    """Stop a process, but not while it has SQLite's one lock: then all would wait for it, as for a disk that hangs."""
    while True:
        member.signal(signal.SIGSTOP)
        if not database_url.startswith("sqlite"):
            return
        lock = Path(database_url.removeprefix("sqlite:///")).parent / "write.lock"
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pass
        member.signal(signal.SIGCONT)
        await asyncio.sleep(0.005)


@pytest.mark.req("R27", "I7", "I10")
async def test_a_sender_that_freezes_beyond_its_claims_is_fenced_off(
    tmp_path: Path, one_database_url: str
) -> None:
    people = users(300)
    async with smtp_sink() as sink, mailing(tmp_path / "data", one_database_url, sink) as post:
        await post.plan(people)
        first, second = post.cluster.senders
        await post.start(first)
        await post.came(30)
        await freeze(post, first, one_database_url)
        before = len(sink.messages)
        await post.start(second)
        if one_database_url.startswith("sqlite"):
            await post.let_lapse(first.pid)  # on PostgreSQL they lapse by themselves
        states = await post.over(len(people))
        assert set(states) == {"sent"}
        rows = await post.rows()

        first.signal(signal.SIGCONT)
        await eventually(lambda: "lost to another process" in first.log.read_text(), 15)
        await asyncio.sleep(0.5)  # what it might still do
        assert await post.rows() == rows, "who was late changed something"
        assert len(sink.messages) > before
        await post.check(people, repeats=CONNECTIONS)


# ---------------------------------------------------------------- leaving


@pytest.mark.req("R2", "R27", "I7", "I15")
async def test_a_rolling_restart_under_load_repeats_nothing(tmp_path: Path, one_database_url: str) -> None:
    people = users(300)
    async with smtp_sink() as sink, mailing(tmp_path / "data", one_database_url, sink) as post:
        await post.plan(people)
        await post.start()
        for number, member in enumerate(post.cluster.senders, 1):
            await post.came(number * 100)
            assert await member.terminate() == 0
            await post.start(member)
        assert set(await post.over(len(people))) == {"sent"}
        await post.check(people)


# ---------------------------------------------------------------- Redis


@pytest.mark.req("R2", "R27", "I7")
async def test_wiping_the_jobs_in_redis_loses_and_repeats_nothing(tmp_path: Path, sqlite_url: str) -> None:
    people = users(500)
    async with smtp_sink() as sink, mailing(tmp_path / "data", sqlite_url, sink) as post:
        await post.plan(people)
        await post.start()
        wiped = 0
        async with Redis.from_url(post.cluster.valkey.url) as client:
            for number in range(1, 6):
                await post.came(number * 80)
                keys = [key async for key in client.scan_iter(match="*jobs", count=1_000)]
                keys += [key async for key in client.scan_iter(match="arq:*", count=1_000)]
                wiped += len(keys)
                if keys:
                    await client.delete(*keys)
        assert wiped > 5
        await post.change(handed_until_us=None)  # the time comes for those whose job is lost
        assert set(await post.over(len(people))) == {"sent"}
        await post.check(people)


@pytest.mark.req("R27", "I7")
async def test_a_redis_that_dies_and_comes_back_does_not_end_what_is_on_its_way(
    tmp_path: Path, sqlite_url: str
) -> None:
    people = users(300)
    async with smtp_sink() as sink, mailing(tmp_path / "data", sqlite_url, sink) as post:
        await post.plan(people)
        await post.start()
        await post.came(50)
        await post.cluster.valkey.kill()
        await asyncio.sleep(0.5)
        await post.cluster.valkey.start()
        assert set(await post.over(len(people))) == {"sent"}
        await post.check(people)


# ---------------------------------------------------------------- the database


@pytest.mark.req("R2", "R27", "I7")
async def test_a_database_that_goes_away_and_comes_back_loses_nothing(
    tmp_path: Path, postgres_url: str
) -> None:
    people = users(350)
    socket = f"{postgres_url.partition('host=')[2]}/.s.PGSQL.5432"
    async with (
        Proxy(path=socket) as road,
        smtp_sink() as sink,
        mailing(tmp_path / "data", postgres_url, sink) as post,
    ):
        name = postgres_url.partition("@/")[2].partition("?")[0]
        for member in post.cluster.senders:
            member.environment["CLARION_DATABASE_URL"] = f"postgresql://postgres@127.0.0.1:{road.port}/{name}"
        await post.plan(people)
        await post.start()
        for number in range(1, 4):
            await post.came(number * 100)
            road.hold_answers()  # some commits happen, and nobody hears of it
            await asyncio.sleep(0.1)
            road.refuse()
            await asyncio.sleep(1.0)
            road.thaw()
            road.admit()
        assert set(await post.over(len(people))) == {"sent"}
        await post.check(people)  # shorter than claims last: nothing is in doubt


# ---------------------------------------------------------------- providers


@pytest.mark.req("R7", "R8", "I8", "I9")
async def test_mail_servers_that_hang_hold_nobody_up_and_their_mails_fall_back(
    tmp_path: Path, sqlite_url: str
) -> None:
    people = users(60)
    async with smtp_sink() as one, smtp_sink() as other, SmsGateway() as gateway:
        one.plan("greeting", HANG)
        other.plan("greeting", HANG)
        providers = {
            "email_providers": " ".join(sink.url("connections=2&timeout_seconds=1") for sink in (one, other)),
            "sms_providers": gateway.address(),
        }
        async with mailing(tmp_path / "data", sqlite_url, one, other, senders=1, **providers) as post:
            await post.define(email={"when": "always", "fallback": ["sms"]})
            await post.define("shop.code", sms={"when": "always"})
            await post.plan(people)
            await post.plan(people, "shop.code")
            await post.start()
            await eventually(lambda: len(gateway.messages) == len(people), 30, "texts wait for mails")
            mails = await post.rows(deliveries.c.channel == "email")
            assert {row.state for row in mails} <= {"queued", "sending", "failed"}

            while {row.state for row in await post.rows(deliveries.c.channel == "email")} != {"failed"}:
                await asyncio.sleep(0.1)
            await post.change(tried_at_us=1, due_at_us=1)  # two minutes later
            states = await post.over(3 * len(people))
            assert states == {"sent": 2 * len(people), "dead exhausted": len(people)}
            texts = Counter(message["To"] for message in gateway.messages)
            assert texts == {phone_of(user): 2 for user in people}
            log = await post.cluster.call("GET", "/v1/log", params={"state": "provider_out"})
            assert {line["provider"] for line in log["entries"]} == {
                f"smtp://127.0.0.1:{sink.port}" for sink in (one, other)
            }
            assert await post.cluster.ledger() == []
