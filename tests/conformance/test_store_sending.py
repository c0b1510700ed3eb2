"""The sending half of the store: who may send what, and what counts of what they say. On every kind of store."""

from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import select, update

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.rows import delivery_values
from hub.adapters.sql_store.tables import attempts, claims, deliveries, suppressions
from hub.model.notifications import Content, Notification
from hub.model.outgoing import Target
from hub.model.retries import Move
from hub.model.vocabulary import Channel
from hub.ports import Attempt, Begin, Claimed, End, LogEntry, LogQuery, UserMerge, Wanted
from tests.support.pigeons import due_now, give_addresses, keep_payloads, states
from tests.support.stores import Partition, delivery_of

pytestmark = [pytest.mark.req("R2"), pytest.mark.req("R27")]

EMAIL, SMS = Channel.EMAIL, Channel.SMS


async def planned(partition: Partition, event_id: str, *users: str, **more: Any) -> None:
    """An event with a mail for each user, due now."""
    await partition.publish(event_id, users, channels=[EMAIL], **more)
    await keep_payloads(partition.store, event_id)
    await give_addresses(partition.store, **{user: f"{user}@example.com" for user in users})
    await due_now(partition.store)


async def taken(store: SqlStore, claim: str = "one", ttl_seconds: float = 60) -> list[Claimed]:
    due = await store.queue_due(EMAIL, 100, 60)
    return await store.claim(
        claim, "owner", [Wanted(one.user_id, one.id, one.lapses) for one in due], ttl_seconds
    )


def begin(one: Claimed, claim: str = "one") -> Begin:
    return Begin(claim, one.delivery.user_id, one.delivery.id, 5)


def end(one: Claimed, state: str = "sent", claim: str = "one", **more: Any) -> End:
    reason = more.pop("reason", state)
    return End(claim, one.delivery, Move(state, reason, more.pop("due_at_us", None)), 6, **more)


async def lapse(store: SqlStore) -> None:
    """All claims end, as they do when nobody renews them."""

    async def work(connection: Any) -> None:
        await connection.execute(update(claims).values(expires_at_us=1))

    await store._db.write(work)


async def rows(store: SqlStore) -> list[Any]:
    async with store._db.read() as connection:
        found = await connection.execute(select(deliveries).order_by(deliveries.c.user_id))
        return list(found.all())


async def test_when_it_was_due_stays_what_it_was(store: SqlStore, partition: Partition) -> None:
    """What waited longest is first in line, whatever happened to it, and a message carries that moment."""
    await planned(partition, "evt_1", "alice")
    (one,) = await taken(store)
    assert one.delivery.due_at_us == 1
    await store.release_claim("one")
    (again,) = await taken(store, "two")
    assert again.delivery.due_at_us == 1
    await lapse(store)
    await store.recover([EMAIL])
    assert [row.due_at_us for row in await rows(store)] == [1]
    assert await store.next_due([EMAIL]) == {EMAIL: 1}


async def test_what_is_due_is_handed_out_once(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice", "bob")
    assert set(await store.next_due([EMAIL, SMS])) == {EMAIL}
    due = await store.queue_due(EMAIL, 100, 60)
    assert {one.user_id for one in due} == {"alice", "bob"}
    assert await store.queue_due(EMAIL, 100, 60) == []
    assert await store.queue_due(SMS, 100, 60) == []


async def test_what_nobody_came_for_is_handed_out_again(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice")
    assert len(await store.queue_due(EMAIL, 100, 0)) == 1  # no time to come: it is due again at once
    assert len(await store.queue_due(EMAIL, 100, 60)) == 1


async def test_a_claim_brings_all_that_sending_needs(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice")
    (one,) = await taken(store)
    assert one.user.profile.email == "alice@example.com"
    assert one.content is not None
    assert one.content.title == "evt_1 for alice"
    assert one.event is not None
    assert one.event.data == {"n": 1}
    assert one.targets[EMAIL] == (Target("alice@example.com", "alice@example.com"),)
    assert one.hidden is None


async def test_a_delivery_belongs_to_one_claim(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice")
    (one,) = await taken(store)
    key = Wanted(one.delivery.user_id, one.delivery.id)
    assert await store.claim("two", "other", [key], 60) == []
    assert await store.record([begin(one, "two")], []) == set()
    assert await store.record([begin(one)], []) == {one.delivery.id}


async def test_a_beginning_that_is_written_twice_is_one(store: SqlStore, partition: Partition) -> None:
    """Whoever lost the database's answer asks again; the delivery must not hang between two states."""
    await planned(partition, "evt_1", "alice")
    (one,) = await taken(store)
    assert await store.record([begin(one)], []) == {one.delivery.id}
    assert await store.record([begin(one)], []) == {one.delivery.id}
    assert [row.attempts for row in await rows(store)] == [1]
    await store.record([], [end(one)])
    assert await store.record([begin(one)], []) == set()  # it is over


async def test_an_end_is_written_with_its_attempts_and_its_lines(
    store: SqlStore, partition: Partition
) -> None:
    await planned(partition, "evt_1", "alice")
    (one,) = await taken(store)
    await store.record([begin(one)], [])
    tried = Attempt(1, "smtp://a", "sent", "250", "ok", 5, 7)
    line = LogEntry(9, "sent", "evt_1", "alice", one.delivery.notification_id, "email", provider="smtp://a")
    held = await store.record(
        [], [end(one, provider="smtp://a", reference="r1", attempts=(tried,), log=(line,))]
    )
    assert held == {one.delivery.id}
    assert await states(store) == {"alice email": "sent sent"}
    async with store._db.read() as connection:
        (row,) = (await connection.execute(select(attempts))).all()
        (sent,) = (await connection.execute(select(deliveries))).all()
    assert (row.number, row.provider, row.outcome, row.event_id) == (1, "smtp://a", "sent", "evt_1")
    assert (sent.attempts, sent.claim, sent.provider, sent.reference) == (1, None, "smtp://a", "r1")
    assert sent.tried_at_us is not None
    assert len(await store.log(LogQuery(10, state="sent"))) == 1


async def test_begin_and_end_of_several_are_one_step(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice", "bob")
    first, second = await taken(store)
    await store.record([begin(first)], [])
    held = await store.record([begin(second)], [end(first)])
    assert held == {first.delivery.id, second.delivery.id}
    assert sorted((await states(store)).values()) == ["sending", "sent sent"]


async def test_whoever_lost_the_claim_records_nothing(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice")
    (one,) = await taken(store)
    await store.record([begin(one)], [])
    await lapse(store)
    line = LogEntry(9, "sent", "evt_1", "alice", one.delivery.notification_id, "email")
    assert await store.record([], [end(one, log=(line,))]) == set()
    assert await states(store) == {"alice email": "sending"}
    assert await store.log(LogQuery(10, state="sent")) == []
    assert await store.renew_claims(["one"], 60) == set()


async def test_what_was_on_its_way_is_repeated_and_marked(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice", "bob")
    first, second = await taken(store)
    await store.record([begin(first)], [])
    assert await store.recover([EMAIL]) == []  # the claim still lives
    await lapse(store)
    (line,) = await store.recover([EMAIL])
    assert (line.state, line.reason, line.user_id) == ("retried", "repeated", first.delivery.user_id)
    again = {one.delivery.id: one.delivery for one in await taken(store, "two")}
    assert (again[first.delivery.id].lapses, again[second.delivery.id].lapses) == (1, 0)
    assert (again[first.delivery.id].attempts, again[second.delivery.id].attempts) == (1, 0)


async def test_on_a_channel_that_does_not_repeat_it_is_unknown(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice")
    (one,) = await taken(store)
    await store.record([begin(one)], [])
    await lapse(store)
    (line,) = await store.recover([])
    assert (line.state, line.reason) == ("unknown", "sender_died")
    assert await states(store) == {"alice email": "unknown sender_died"}


@pytest.mark.req("I10")
async def test_what_kills_three_processes_is_set_aside(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice")
    for number in range(3):
        (one,) = await taken(store, f"claim{number}")
        assert one.delivery.lapses == number
        await lapse(store)
        lines = await store.recover([EMAIL])
    assert [(line.state, line.reason) for line in lines] == [("dead", "kills_senders")]
    assert await states(store) == {"alice email": "dead kills_senders"}
    assert await store.queue_due(EMAIL, 10, 60) == []


@pytest.mark.req("I10")
async def test_who_shared_a_process_with_a_killer_is_not_set_aside(
    store: SqlStore, partition: Partition
) -> None:
    """Each death leaves fewer suspects: those on their way, then a few of them, then one."""
    await planned(partition, "evt_1", *(f"user{number:02}" for number in range(30)))
    sizes = []
    for number in range(3):
        given = await taken(store, f"claim{number}")
        careful = [one for one in given if one.delivery.lapses]
        sizes.append(len(careful))
        await store.record([begin(one, f"claim{number}") for one in careful or given[:12]], [])
        await store.release_claim(f"claim{number}")
        await lapse(store)
        await store.recover([EMAIL])
    assert sizes == [0, 10, 1]
    assert sorted(row.lapses for row in await rows(store)) == [0] * 18 + [1] * 2 + [2] * 9 + [3]
    assert [row.lapses for row in await rows(store) if row.state == "dead"] == [3]


async def test_who_was_not_begun_is_no_suspect_of_another_chunk_either(
    store: SqlStore, partition: Partition
) -> None:
    await planned(partition, "evt_1", "alice", "bob", "carol")
    due = await store.queue_due(EMAIL, 100, 60)
    keys = [Wanted(one.user_id, one.id, one.lapses) for one in due]
    (first,) = await store.claim("one", "owner", keys[:1], 60)
    await store.claim("two", "owner", keys[1:2], 60)
    await store.claim("three", "other", keys[2:], 60)
    await store.record([begin(first)], [])
    await lapse(store)
    await store.recover([EMAIL])
    lapses = {row.id: row.lapses for row in await rows(store)}
    assert [lapses[key.id] for key in keys] == [1, 0, 1]  # of the other process nobody knows what it was at


async def test_a_job_that_is_older_than_a_death_claims_nothing_of_it(
    store: SqlStore, partition: Partition
) -> None:
    """It would bring suspects together that are to go apart."""
    await planned(partition, "evt_1", "alice", "bob")
    due = await store.queue_due(EMAIL, 100, 60)
    job = [Wanted(one.user_id, one.id, one.lapses) for one in due]
    assert len(await store.claim("one", "owner", job, 60)) == 2
    await lapse(store)
    await store.recover([EMAIL])
    await store.queue_due(EMAIL, 100, 60)
    assert await store.claim("two", "other", job, 60) == []


async def test_one_careful_chunk_at_a_time(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice", "bob")
    await taken(store)
    await lapse(store)
    await store.recover([EMAIL])
    await planned(partition, "evt_2", "carol")
    fresh = await store.queue_due(EMAIL, 100, 60, careful=False)
    assert [(one.user_id, one.lapses) for one in fresh] == [("carol", 0)]
    careful = await store.queue_due(EMAIL, 0, 60)
    assert sorted((one.user_id, one.lapses) for one in careful) == [("alice", 1), ("bob", 1)]


async def test_what_was_begun_and_not_ended_lapses_with_its_release(
    store: SqlStore, partition: Partition
) -> None:
    """Something that nobody foresaw ended the work on it: it must not stay on its way for ever."""
    await planned(partition, "evt_1", "alice")
    (one,) = await taken(store)
    await store.record([begin(one)], [])
    await store.release_claim("one")
    assert await store.record([], [end(one)]) == set()
    (line,) = await store.recover([EMAIL])
    assert line.reason == "repeated"
    (again,) = await taken(store, "two")
    assert again.delivery.lapses == 1


async def test_a_digest_that_lapsed_goes_out_whole(store: SqlStore, partition: Partition) -> None:
    for number in range(15):
        await planned(partition, f"evt_{number:02}", "alice")

    async def join(connection: Any) -> None:
        await connection.execute(update(deliveries).values(digest_key="posts"))

    await store._db.write(join)
    given = await taken(store)
    await store.record([begin(one) for one in given], [])
    await lapse(store)
    await store.recover([EMAIL])
    assert len(await taken(store, "two")) == 15


async def test_what_was_not_begun_is_given_back_at_once(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice", "bob")
    first, second = await taken(store)
    await store.record([begin(first)], [])
    await store.release_claim("one")
    (again,) = await taken(store, "two")
    assert (again.delivery.id, again.delivery.lapses) == (second.delivery.id, 0)


async def test_seen_in_between_is_not_begun(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice")
    (one,) = await taken(store)
    await store.retract("evt_1", 7)
    assert await store.record([begin(one)], []) == set()
    assert await states(store) == {"alice email": "cancelled retracted"}


async def test_what_was_cancelled_under_a_claim_stays_cancelled(
    store: SqlStore, partition: Partition
) -> None:
    await planned(partition, "evt_1", "alice")
    await taken(store)
    await store.retract("evt_1", 7)
    await lapse(store)
    assert await store.recover([EMAIL]) == []
    assert await states(store) == {"alice email": "cancelled retracted"}


async def test_the_first_of_a_digest_goes_out_without_the_others(
    store: SqlStore, partition: Partition
) -> None:
    await planned(partition, "evt_1", "alice")
    await planned(partition, "evt_2", "alice")

    async def collect(connection: Any) -> None:
        await connection.execute(update(deliveries).values(digest_key="posts"))
        first = select(deliveries.c.id).order_by(deliveries.c.created_at_us).limit(1).scalar_subquery()
        rest = deliveries.c.id != first
        await connection.execute(update(deliveries).where(rest).values(due_at_us=9_000_000_000_000_000))
        await connection.execute(update(deliveries).where(~rest).values(state="queued"))

    await store._db.write(collect)
    assert len(await store.queue_due(EMAIL, 10, 60)) == 1


async def test_a_fallback_takes_over_and_the_ledger_counts_it(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice")
    (one,) = await taken(store)
    await store.record([begin(one)], [])
    other = replace(
        one.delivery, id=f"{one.delivery.id}_sms", channel=SMS, state="queued", attempts=0, due_at_us=1
    )
    await store.record([], [end(one, "dead", reason="exhausted", fallback=other)])
    assert await states(store) == {"alice email": "dead exhausted", "alice sms": "queued"}
    assert await store.ledger() == []


async def test_an_address_that_is_gone_is_not_used_again(store: SqlStore, partition: Partition) -> None:
    await planned(partition, "evt_1", "alice")
    await planned(partition, "evt_2", "alice")
    first, second = await taken(store)
    await store.record([begin(first)], [])
    target = first.targets[EMAIL][0]
    await store.record([], [end(first, "dead", reason="550", gone=(target,))])
    await store.release_claim("one")
    async with store._db.read() as connection:
        (row,) = (await connection.execute(select(suppressions))).all()
    assert (row.channel, row.address, row.reason) == ("email", "alice@example.com", "bounce")
    (again,) = await taken(store, "two")
    assert again.delivery.id == second.delivery.id
    assert again.targets == {}
    assert again.suppressed == frozenset({EMAIL})


async def test_a_digest_goes_out_whole(store: SqlStore, partition: Partition) -> None:
    for number in range(3):
        await planned(partition, f"evt_{number}", "alice")

    async def join(connection: Any) -> None:
        await connection.execute(
            update(deliveries).values(digest_key="posts", due_at_us=9_000_000_000_000_000)
        )
        first = select(deliveries.c.id).order_by(deliveries.c.created_at_us).limit(1).scalar_subquery()
        await connection.execute(update(deliveries).where(deliveries.c.id == first).values(due_at_us=1))

    await store._db.write(join)
    due = await store.queue_due(EMAIL, 1, 60)
    assert len(due) == 3
    assert {one.digest_key for one in due} == {"posts"}


async def test_a_broadcast_comes_in_the_users_language_with_their_marks(
    store: SqlStore, lane: Partition
) -> None:
    row = await lane.broadcast("evt_b")
    emails = {user_id: {"email": f"{user_id}@example.com"} for user_id in ("alice", "bob")}
    await store.merge_users([UserMerge(user_id, fields) for user_id, fields in emails.items()])
    await keep_payloads(store, "evt_b", slice_key="lane")

    async def add(connection: Any) -> None:
        for user_id in ("alice", "bob"):
            one = delivery_of(_as_notification(row, user_id), EMAIL, "always")
            values = dict(zip(deliveries.columns.keys(), delivery_values(one, "lane", "held"), strict=True))
            await connection.execute(deliveries.insert().values(values))

    await store._db.write(add)
    await store.mark_all("bob", "seen", None, row.seq, 77)
    await due_now(store)
    found = {one.delivery.user_id: one for one in await taken(store)}
    assert found["alice"].content == Content(title="evt_b")
    assert (found["alice"].seen_at_us, found["bob"].seen_at_us) == (None, 77)
    assert found["bob"].is_broadcast


def _as_notification(row: Any, user_id: str) -> Any:
    return Notification(
        row.id, user_id, row.event_id, row.type, row.category, Content(), row.created_at_us, True
    )
