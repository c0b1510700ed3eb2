"""Suppressed addresses: kept once, found as they were given, and known to whoever decides, at a constant price."""

import asyncio

import pytest

from hub.adapters.sql_store import SqlStore
from hub.model.users import Profile
from hub.model.vocabulary import Channel
from hub.ports import LogEntry, LogQuery, Suppression, UserMerge
from tests.conformance.test_store_statements import watched
from tests.support.stores import NOW_US

pytestmark = pytest.mark.req("I8")

EMAIL, SMS = Channel.EMAIL, Channel.SMS


async def suppressed(store: SqlStore, *users: str) -> dict[str, set[Channel]]:
    """What planning and what decisions about one user know; both must say the same."""
    situation = (await store.situation({}, list(users))).users
    loaded = await store.load_users(list(users))
    assert {id_: user.suppressed for id_, user in situation.items()} == {
        id_: user.suppressed for id_, user in loaded.items()
    }
    return {id_: set(user.suppressed) for id_, user in loaded.items() if user.suppressed}


async def test_an_address_is_taken_out_once_and_brought_back(store: SqlStore) -> None:
    assert await store.suppress(EMAIL, "bob@Example.COM", "bounce", "5.1.1 no such user", NOW_US)
    assert not await store.suppress(EMAIL, "bob@example.com", "bounce", "again", NOW_US + 1)
    [row] = await store.suppressions(None, 10)
    assert row == Suppression(EMAIL, "bob@example.com", "bounce", "5.1.1 no such user", NOW_US)
    assert await store.unsuppress(EMAIL, "bob@EXAMPLE.com")
    assert not await store.unsuppress(EMAIL, "bob@example.com")
    assert await store.suppressions(None, 10) == []


async def test_what_its_owner_wished_stands_above_a_bounce(store: SqlStore) -> None:
    await store.suppress(EMAIL, "a@example.com", "bounce", None, NOW_US)
    assert await store.suppress(EMAIL, "a@example.com", "complaint", "abuse", NOW_US + 1)
    assert not await store.suppress(EMAIL, "a@example.com", "bounce", None, NOW_US + 2)
    [row] = await store.suppressions(None, 10)
    assert (row.reason, row.at_us) == ("complaint", NOW_US + 1)


async def test_the_list_is_paged_by_channel_and_address(store: SqlStore) -> None:
    pairs = [(EMAIL, "B@x.example"), (EMAIL, "a@x.example"), (SMS, "+4930123456"), (EMAIL, "c@x.example")]
    for channel, address in pairs:
        await store.suppress(channel, address, "bounce", None, NOW_US)
    wanted = sorted((channel.value, address) for channel, address in pairs)
    found = []
    after = None
    while page := await store.suppressions(after, 2):
        found += [(row.channel.value, row.address) for row in page]
        after = page[-1].channel, page[-1].address
    assert found == wanted
    only = await store.suppressions((SMS, "+1"), 9, SMS)
    assert [row.address for row in only] == ["+4930123456"]


async def test_addresses_are_found_as_they_were_given(store: SqlStore) -> None:
    given = {
        (EMAIL, "a@Bücher.example"),
        (EMAIL, "b@x.example"),
        (SMS, "+4930123456"),
        (EMAIL, "+4930123456"),
    }
    assert await store.suppressed_among(given) == set()
    await store.suppress(EMAIL, "a@xn--bcher-kva.example", "bounce", None, NOW_US)
    await store.suppress(SMS, "+4930123456", "stop", None, NOW_US)
    assert await store.suppressed_among(given) == {(EMAIL, "a@Bücher.example"), (SMS, "+4930123456")}
    assert await store.suppressed_among([]) == set()
    hostile = (EMAIL, "x' OR 1=1 --@x.example")
    assert await store.suppressed_among([hostile]) == set()


async def test_many_go_out_with_their_log_in_one_transaction(store: SqlStore) -> None:
    rows = [Suppression(EMAIL, f"u{n}@x.example", "bounce", None, NOW_US) for n in range(20)]
    log = [LogEntry(NOW_US, "bounced", channel="email", reason="hard")]
    assert len(await store.suppress_all(rows, log)) == 20
    assert await store.suppress_all(rows[:5]) == []
    assert [line.state for line in await store.log(LogQuery(9))] == ["bounced"]
    both = await asyncio.gather(
        *(store.suppress_all([Suppression(EMAIL, f"v{n}@x.example", "bounce", None, NOW_US) for n in order])
          for order in (range(30), range(29, -1, -1)))
    )  # fmt: skip
    assert len(both[0]) + len(both[1]) == 30


async def test_decisions_know_whose_address_is_out(store: SqlStore) -> None:
    await store.save_profile(Profile("alice", email="Alice@EXAMPLE.com", phone="+4930123456"))
    await store.save_profile(Profile("bob", email="bob@example.com"))
    await store.save_profile(Profile("carol"))
    assert await suppressed(store, "alice", "bob", "carol", "stranger") == {}
    await store.suppress(EMAIL, "Alice@example.com", "bounce", None, NOW_US)
    await store.suppress(SMS, "+4930123456", "stop", None, NOW_US)
    assert await suppressed(store, "alice", "bob", "carol", "stranger") == {"alice": {EMAIL, SMS}}
    await store.merge_users([UserMerge("alice", {"email": "new@example.com"})])
    assert await suppressed(store, "alice", "bob") == {"alice": {SMS}}
    await store.unsuppress(SMS, "+4930123456")
    assert await suppressed(store, "alice", "bob") == {}


@pytest.mark.req("R25")
async def test_nothing_is_asked_before_the_first_and_one_statement_after_it(store: SqlStore) -> None:
    users = [f"user-{n}" for n in range(300)]
    await store.merge_users([UserMerge(id_, {"email": f"{id_}@example.com"}) for id_ in users])
    counts = []
    for _ in range(2):
        for some in (users[:1], users):
            for ask in (
                lambda some=some: store.situation({}, some),
                lambda some=some: store.load_users(some),
            ):
                with watched(store) as statements:
                    await ask()
                asked = [statement for statement in statements if "suppressions WHERE" in statement]
                counts.append((len(asked), len(statements)))
        await store.suppress(EMAIL, "user-7@example.com", "bounce", None, NOW_US)
    before, after = counts[:4], counts[4:]
    assert {asked for asked, _ in before} == {0}
    assert [(asked + 1, whole + 1) for asked, whole in before] == after
    assert await suppressed(store, *users) == {"user-7": {EMAIL}}


@pytest.mark.req("R10")
async def test_erasing_forgets_a_bounce_and_keeps_a_wish(store: SqlStore) -> None:
    await store.save_profile(Profile("alice", email="a@Example.com", phone="+4930123456"))
    await store.suppress(EMAIL, "a@example.com", "bounce", "a@example.com: no such user", NOW_US)
    await store.suppress(SMS, "+4930123456", "stop", "STOP please, Alice", NOW_US)
    await store.suppress(EMAIL, "b@example.com", "bounce", "of another", NOW_US)
    exported = await store.export_user("alice")
    assert exported is not None
    assert {row["channel"] for row in exported["suppressions"]} == {"email", "sms"}
    await store.erase_user("alice", NOW_US + 1)
    left = {(row.address, row.detail) for row in await store.suppressions(None, 9)}
    assert left == {("+4930123456", None), ("b@example.com", "of another")}
