"""The engine: what is due is decided once more, carried by whoever works, tried again, and recorded as it was."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hub.adapters.sql_store import SqlStore, migrate
from hub.errors import StoreUnavailable
from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent, Unclear
from hub.model.outgoing import Outgoing
from hub.model.users import Preferences, QuietHours
from hub.model.vocabulary import Channel
from hub.ports import Begin, LogQuery, Wanted
from tests.support.clock import FakeClock
from tests.support.pigeons import (
    Loft,
    Pigeon,
    PigeonPost,
    due_now,
    give_addresses,
    keep_payloads,
    states,
    titles,
)
from tests.support.stores import Partition

pytestmark = [pytest.mark.req("R2"), pytest.mark.req("R8")]

EMAIL, SMS = Channel.EMAIL, Channel.SMS


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[SqlStore]:
    await migrate(sqlite_url)
    opened = SqlStore(sqlite_url)
    yield opened
    await opened.close()


@pytest.fixture
async def partition(store: SqlStore) -> Partition:
    return await Partition.take(store)


async def planned(partition: Partition, event_id: str, *users: str, **more: Any) -> None:
    more.setdefault("condition", "always")
    await partition.publish(event_id, users, channels=[EMAIL], **more)
    await keep_payloads(partition.store, event_id)
    await give_addresses(partition.store, **{user: f"{user}@example.com" for user in users})
    await due_now(partition.store)


def refusing(outcome: Outcome) -> Any:
    return lambda message, target: outcome


async def test_what_is_due_is_sent(store: SqlStore, partition: Partition, clock: FakeClock) -> None:
    await planned(partition, "evt_1", "alice", "bob")
    pigeon = Pigeon("a")
    loft = Loft(store, clock, PigeonPost([pigeon]))
    assert await loft.round() == 2
    assert sorted(titles(pigeon)) == ["evt_1 for alice", "evt_1 for bob"]
    assert set((await states(store)).values()) == {"sent sent"}
    assert loft.tally.ends == ["sent", "sent"]
    assert await store.ledger() == []
    assert await loft.round() == 0


@pytest.mark.req("R9")
async def test_no_more_are_on_their_way_than_there_are_connections(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    await planned(partition, "evt_1", *(f"user{number}" for number in range(50)))
    pigeon = Pigeon("a", connections=3)
    await Loft(store, clock, PigeonPost([pigeon])).round()
    assert len(pigeon.carried) == 50
    assert pigeon.most_at_once == 3


@pytest.mark.req("I9")
async def test_one_server_down_the_other_one_sends(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    await planned(partition, "evt_1", "alice")
    first, second = Pigeon("a", refusing(RetryAfter("refused", "No connection."))), Pigeon("b")
    await Loft(store, clock, PigeonPost([first, second])).round()
    assert titles(second) == ["evt_1 for alice"]
    assert await states(store) == {"alice email": "sent sent"}
    failed = await store.log(LogQuery(10, state="provider_failed"))
    assert [(line.provider, line.reason) for line in failed] == [("a", "refused")]
    sent = await store.log(LogQuery(10, state="sent"))
    assert [line.provider for line in sent] == ["b"]


@pytest.mark.req("I9")
async def test_a_server_that_never_works_is_left_alone_and_let_back(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    works = False

    def plan(message: Any, target: Any) -> Outcome:
        return Sent("250") if works else RetryAfter("refused", "No connection.")

    first, second = Pigeon("a", plan, connections=1), Pigeon("b", connections=1)
    loft = Loft(store, clock, PigeonPost([first, second]))
    await planned(partition, "evt_1", *(f"user{number:02}" for number in range(20)))
    await loft.round()
    assert len(first.asked) == 5  # then the breaker opened
    assert len(second.carried) == 20
    assert [line.provider for line in await store.log(LogQuery(10, state="provider_out"))] == ["a"]
    works = True
    clock.advance(6)
    await planned(partition, "evt_2", "alice", "bob", "carol")
    await loft.round()
    assert len(first.carried) == 3
    assert [line.provider for line in await store.log(LogQuery(10, state="provider_back"))] == ["a"]


@pytest.mark.req("I9")
async def test_a_server_that_only_hangs_is_left_alone_too(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    hung = Pigeon("a", refusing(Unclear("timeout", "No answer.")), connections=1)
    await planned(partition, "evt_1", *(f"user{number:02}" for number in range(20)))
    await Loft(store, clock, PigeonPost([hung, Pigeon("b", connections=1)], repeats=False)).round()
    assert len(hung.asked) == 5
    assert [line.provider for line in await store.log(LogQuery(10, state="provider_out"))] == ["a"]


@pytest.mark.req("I8")
async def test_a_transient_failure_is_tried_again_later(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    outcomes: list[Outcome] = [RetryAfter("451", "Later.", is_providers_fault=False), Sent("250")]
    pigeon = Pigeon("a", lambda message, target: outcomes.pop(0))
    loft = Loft(store, clock, PigeonPost([pigeon]))
    await planned(partition, "evt_1", "alice")
    await loft.round()
    assert await states(store) == {"alice email": "failed 451"}
    await due_now(store)
    await loft.round()
    assert await states(store) == {"alice email": "sent sent"}
    (line,) = await store.log(LogQuery(10, state="retried"))
    assert (line.reason, line.detail, line.provider) == ("451", "Later.", "a")


@pytest.mark.req("I8")
async def test_a_permanent_refusal_takes_the_address_out(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    pigeon = Pigeon("a", refusing(GiveUp("550", "No such user.", target_is_gone=True)))
    loft = Loft(store, clock, PigeonPost([pigeon]))
    await planned(partition, "evt_1", "alice")
    await loft.round()
    await planned(partition, "evt_2", "alice")
    await loft.round()
    assert len(pigeon.asked) == 1
    assert sorted((await states(store)).values()) == ["dead suppressed_address"]  # the newer one's
    assert {line.reason for line in await store.log(LogQuery(10, state="failed"))} == {
        "550",
        "suppressed_address",
    }


@pytest.mark.req("I9")
async def test_when_everything_is_down_another_channel_takes_over(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    pigeon = Pigeon("a", refusing(RetryAfter("refused", "No connection.")))
    mails = Loft(store, clock, PigeonPost([pigeon]), SMS)
    texts = Pigeon("sms")
    phones = Loft(store, clock, PigeonPost([texts], SMS, repeats=False), EMAIL)
    await planned(partition, "evt_1", "alice")
    await give_addresses(store, alice="+4915112345678")
    for _ in range(30):
        await mails.round()
        if "alice sms" in await states(store):
            break
        clock.advance(20)
        await due_now(store)
    await phones.round()
    assert await states(store) == {"alice email": "dead exhausted", "alice sms": "sent sent"}
    assert [target.address for _, target in texts.carried] == ["+4915112345678"]
    (line,) = await store.log(LogQuery(10, state="fell_back"))
    assert line.detail == "sms takes over."
    assert await store.ledger() == []


async def test_what_the_user_saw_meanwhile_is_not_sent(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    await planned(partition, "evt_1", "alice", condition="unseen")
    due = await store.queue_due(EMAIL, 10, 60)  # on its way to a sender
    (row,) = await partition.publish("evt_2", ["bob"])
    assert row
    await store.mark_all("alice", "seen", None, 0, 7)
    pigeon = Pigeon("a")
    loft = Loft(store, clock, PigeonPost([pigeon]))
    await loft.delivering.chunk([Wanted(one.user_id, one.id) for one in due])
    await loft.recorder.close()
    assert pigeon.asked == []
    assert await states(store) == {"alice email": "cancelled seen"}


@pytest.mark.req("R11")
async def test_preferences_are_asked_again_at_the_moment_of_sending(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    await planned(partition, "evt_1", "alice", "bob")
    await store.save_preferences("alice", Preferences(channels={EMAIL: False}), None)
    pigeon = Pigeon("a")
    await Loft(store, clock, PigeonPost([pigeon])).round()
    assert titles(pigeon) == ["evt_1 for bob"]
    assert await states(store) == {"alice email": "cancelled preferences", "bob email": "sent sent"}


@pytest.mark.req("R13")
async def test_whoever_sleeps_now_gets_it_when_they_wake(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    await planned(partition, "evt_1", "alice")
    await store.save_preferences("alice", Preferences(quiet_hours=QuietHours("11:00", "13:30")), None)
    pigeon = Pigeon("a")
    loft = Loft(store, clock, PigeonPost([pigeon]))
    await loft.round()  # it is 12:00
    assert await states(store) == {"alice email": "held quiet_hours"}
    assert (await store.next_due([EMAIL]))[EMAIL] == clock.now_us() + 90 * 60 * 1_000_000


async def test_a_digest_is_one_message(store: SqlStore, partition: Partition, clock: FakeClock) -> None:
    from sqlalchemy import update

    from hub.adapters.sql_store.tables import deliveries

    for number in range(3):
        await planned(partition, f"evt_{number}", "alice")

    async def join(connection: Any) -> None:
        await connection.execute(update(deliveries).values(digest_key="posts"))

    await store._db.write(join)
    pigeon = Pigeon("a")
    await Loft(store, clock, PigeonPost([pigeon])).round()
    assert [message for message, _ in pigeon.carried] == [("evt_2 for alice", 3, False)]
    async with store._db.read() as connection:
        from sqlalchemy import select

        rows = (await connection.execute(select(deliveries.c.state, deliveries.c.attempts))).all()
    assert [tuple(row) for row in rows] == [("sent", 1)] * 3


async def test_what_cannot_be_composed_costs_the_others_nothing(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    await planned(partition, "evt_unfit", "alice")
    await planned(partition, "evt_1", "bob")
    pigeon = Pigeon("a")
    await Loft(store, clock, PigeonPost([pigeon])).round()
    assert titles(pigeon) == ["evt_1 for bob"]
    assert await states(store) == {"alice email": "dead not_composed", "bob email": "sent sent"}


@pytest.mark.req("I7")
async def test_an_answer_of_the_store_that_nobody_heard_costs_nothing(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    """The step is on disk, and whoever asked does not know: asked again, it is the same step."""
    await planned(partition, "evt_1", "alice", "bob")
    pigeon = Pigeon("a", connections=1)
    record, unheard = store.record, []

    async def losing(*step: Any) -> set[str]:
        held = await record(*step)
        if held and held not in unheard:
            unheard.append(held)
            raise StoreUnavailable("The connection was lost.")
        return held

    store.record = losing  # type: ignore[method-assign]
    await Loft(store, clock, PigeonPost([pigeon])).round()
    assert len(unheard) >= 2
    assert sorted(titles(pigeon)) == ["evt_1 for alice", "evt_1 for bob"]
    assert set((await states(store)).values()) == {"sent sent"}


@pytest.mark.parametrize(
    "said",
    [
        Sent("250", "taken \x00 \ud800", "ref\x00"),
        GiveUp("550\x00", "no \udfff"),
        RetryAfter("4\x00", "\x00"),
    ],
)
async def test_whatever_a_provider_says_can_be_kept(
    store: SqlStore, partition: Partition, clock: FakeClock, said: Outcome
) -> None:
    await planned(partition, "evt_1", "alice")
    await Loft(store, clock, PigeonPost([Pigeon("a", refusing(said))])).round()
    (line,) = await store.log(LogQuery(10, user_id="alice", channel=EMAIL))
    assert "?" in (line.detail or "")


async def test_a_step_that_cannot_be_written_does_not_take_others_along(
    store: SqlStore, partition: Partition, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    people = [f"user{number}" for number in range(8)]
    await planned(partition, "evt_1", *people)
    record = store.record

    async def choosy(begins: Any, ends: Any) -> set[str]:
        if any(end.delivery.user_id == "user3" for end in ends):
            raise ValueError("no database can keep this")
        return await record(begins, ends)

    store.record = choosy  # type: ignore[method-assign]
    pigeon = Pigeon("a", connections=4)
    await Loft(store, clock, PigeonPost([pigeon])).round()
    assert "no database can keep this" in caplog.text
    found = await states(store)
    assert found.pop("user3 email") == "sending"
    assert set(found.values()) == {"sent sent"}
    assert len(pigeon.carried) == len(people)


@pytest.mark.req("I10")
async def test_what_fails_in_a_way_that_nobody_foresaw_is_set_aside_in_the_end(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    class Odd(PigeonPost):
        def compose(self, outgoing: Outgoing) -> Any:
            if outgoing.user.profile.id == "alice":
                raise RuntimeError("a mistake of ours")
            return super().compose(outgoing)

    await planned(partition, "evt_1", "alice", "bob")
    pigeon = Pigeon("a")
    loft = Loft(store, clock, Odd([pigeon]))
    for _ in range(3):
        await loft.round()
        await store.recover([EMAIL])
    assert titles(pigeon) == ["evt_1 for bob"]
    assert await states(store) == {"alice email": "dead kills_senders", "bob email": "sent sent"}


async def test_a_recorder_does_not_wait_for_ever_for_a_database(
    store: SqlStore, partition: Partition, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(*_: Any) -> set[str]:
        raise StoreUnavailable("It is away.")

    store.record = away  # type: ignore[method-assign]
    loft = Loft(store, clock, PigeonPost([Pigeon("a")]))
    step = loft.recorder.step([], [Begin("one", "alice", "dlv_1", 5)])
    await loft.recorder.close(0.01)
    assert "may be sent once more" in caplog.text
    assert step.cancelled() or not step.done()


@pytest.mark.req("I7")
async def test_an_sms_that_may_have_gone_out_is_not_sent_again(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    await planned(partition, "evt_1", "alice")
    doubt = Unclear("timeout", "No answer after the request was written.")
    await Loft(store, clock, PigeonPost([Pigeon("a", refusing(doubt))], repeats=False)).round()
    assert await states(store) == {"alice email": "unknown timeout"}


@pytest.mark.req("I7")
async def test_a_claim_that_is_taken_during_a_renewal_is_kept(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    loft = Loft(store, clock, PigeonPost([Pigeon("a")]))
    await planned(partition, "evt_1", "alice")
    await planned(partition, "evt_2", "bob")
    first, second = [Wanted(one.user_id, one.id) for one in await store.queue_due(EMAIL, 10, 60)]
    renew, second_taken = store.renew_claims, asyncio.Event()

    async def slow_renewal(*asked: Any) -> set[str]:
        await second_taken.wait()
        return await renew(*asked)

    store.renew_claims = slow_renewal  # type: ignore[method-assign]
    async with loft.claims.on([first]) as (one, _):
        renewing = asyncio.create_task(loft.claims.renew())
        await asyncio.sleep(0)
        async with loft.claims.on([second]) as (other, _):
            second_taken.set()
            await renewing
            assert loft.claims._held == {one, other}


async def test_a_sender_that_stops_gives_back_what_it_did_not_begin(
    store: SqlStore, partition: Partition, clock: FakeClock
) -> None:
    await planned(partition, "evt_1", *(f"user{number}" for number in range(10)))
    pigeon = Pigeon("a", connections=1)
    pigeon.gate.clear()
    loft = Loft(store, clock, PigeonPost([pigeon]))
    working = asyncio.create_task(loft.round())
    while not pigeon.asked:
        await asyncio.sleep(0.01)
    loft.delivering.stopping = True
    pigeon.gate.set()
    await working
    assert sorted((await states(store)).values()) == ["queued"] * 9 + ["sent sent"]
    other = Pigeon("b")
    await Loft(store, clock, PigeonPost([other])).round()
    assert len(other.carried) == 9
