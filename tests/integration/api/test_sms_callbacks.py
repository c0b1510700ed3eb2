"""What SMS gateways call back about: only what they signed counts, in any order and any number of times."""

import asyncio
from pathlib import Path
from urllib.parse import urlencode

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from hub.adapters.sql_store import SqlStore
from hub.adapters.sql_store.tables import deliveries
from hub.model.vocabulary import Channel
from hub.ports import LogQuery
from hub.sms_receipts import SmsReceipts, callback_id
from tests.support.api import ORIGIN, Api, open_api
from tests.support.clock import FakeClock
from tests.support.sms_gateway import SmsGateway
from tests.support.stores import Partition

pytestmark = [pytest.mark.req("R7"), pytest.mark.req("I16")]

NUMBER = "+821012345678"
GATEWAY = SmsGateway()  # it signs; nothing listens in these tests
GATEWAY.port = 8025
PROVIDER = GATEWAY.provider()
PATH = f"/v1/callbacks/sms/{callback_id(PROVIDER)}"
MESSAGE = {"sid": "SM1", "To": NUMBER}


@pytest.fixture
async def api(servers: dict[str, object], tmp_path: Path, clock: FakeClock):
    async with open_api(tmp_path, clock, sms_providers=SecretStr(GATEWAY.address()), **servers) as one:
        yield one


async def call(
    api: Api,
    fields: dict[str, str],
    *,
    token: str | None = None,
    query: str = "",
    sent: dict[str, str] | None = None,
) -> int:
    signature = GATEWAY.signature(f"{ORIGIN}{PATH}{query}", fields, token)
    answer = await api.call(
        "POST", PATH + query, data=sent or fields, headers={"x-twilio-signature": signature}
    )
    return answer.status_code


async def sent_one(api: Api, state: str = "sent") -> None:
    """A delivery as a sender leaves it."""
    store = api.hub.store
    assert isinstance(store, SqlStore)
    partition = await Partition.take(store, "of this test")
    await partition.publish("evt_1", ["alice"], channels=[Channel.SMS])
    async with store._db._writer.connect() as connection:
        values = {"state": state, "provider": PROVIDER.name, "reference": "SM1"}
        await connection.execute(update(deliveries).values(**values))
        await connection.commit()


async def state_of(api: Api) -> tuple[str, str | None]:
    store = api.hub.store
    assert isinstance(store, SqlStore)
    async with store._db.read() as connection:
        row = (await connection.execute(select(deliveries))).one()
    return row.state, row.reason


async def stopped(api: Api) -> bool:
    address = (Channel.SMS, NUMBER)
    return address in await api.hub.store.suppressed_among([address])


async def test_a_receipt_of_delivery(api: Api) -> None:
    await sent_one(api)
    for status in ("queued", "sent", "delivered", "sent", "delivered", "failed", "read"):
        assert await call(api, GATEWAY.receipt(MESSAGE, status)) == 204
    assert await state_of(api) == ("delivered", "delivered")
    lines = [one.state for one in await api.hub.store.log(LogQuery(20, event_id="evt_1"))]
    assert lines.count("delivered") == 1
    assert "dead" not in lines


async def test_a_receipt_of_failure_has_its_code(api: Api) -> None:
    await sent_one(api)
    assert await call(api, GATEWAY.receipt(MESSAGE, "undelivered", 30003)) == 204
    assert await call(api, GATEWAY.receipt(MESSAGE, "delivered")) == 204  # too late: it was told as dead
    assert await state_of(api) == ("dead", "30003")
    assert not await stopped(api)


async def test_a_failure_because_of_a_stop_suppresses_the_number(api: Api) -> None:
    await sent_one(api)
    assert await call(api, GATEWAY.receipt(MESSAGE, "failed", 21610)) == 204
    assert await state_of(api) == ("dead", "21610")
    assert await stopped(api)


@pytest.mark.parametrize(
    ("status", "state"), [("sent", "sent"), ("delivered", "delivered"), ("failed", "dead")]
)
async def test_what_was_unknown_is_known_then(api: Api, status: str, state: str) -> None:
    await sent_one(api, "unknown")
    assert await call(api, GATEWAY.receipt(MESSAGE, status)) == 204
    assert (await state_of(api))[0] == state


async def test_the_query_of_the_address_is_signed_too(api: Api) -> None:
    await sent_one(api)
    assert await call(api, GATEWAY.receipt(MESSAGE, "delivered"), query="?from=a%2Bb&x=") == 204
    assert (await state_of(api))[0] == "delivered"


async def test_forged_calls_are_refused_and_change_nothing(api: Api) -> None:
    await sent_one(api)
    good = GATEWAY.receipt(MESSAGE, "delivered")
    stop = GATEWAY.incoming(NUMBER, "STOP")
    assert await call(api, good, token="another-token") == 403
    assert await call(api, good, sent={**good, "MessageStatus": "failed"}) == 403
    assert await call(api, good, sent={**good, "ErrorCode": "21610"}) == 403
    assert await call(api, stop, token="another-token") == 403
    assert await call(api, stop, sent={**stop, "From": "+4915112345678"}) == 403
    for headers in ({}, {"x-twilio-signature": ""}, {"x-twilio-signature": "AAAA"}):
        answer = await api.call("POST", PATH, data=good, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "invalid_signature")
        assert GATEWAY.token not in answer.text
    right = GATEWAY.signature(f"{ORIGIN}{PATH}", good)
    elsewhere = await api.call("POST", f"{PATH}?x=1", data=good, headers={"x-twilio-signature": right})
    assert elsewhere.status_code == 403
    assert await state_of(api) == ("sent", None)
    assert not await stopped(api)


async def test_other_addresses_and_bodies(api: Api) -> None:
    other = await api.call("POST", "/v1/callbacks/sms/twilio-api.twilio.com", data={"MessageSid": "SM1"})
    assert (other.status_code, other.json()["code"]) == (404, "not_found")
    assert (await api.call("POST", PATH, json={"MessageSid": "SM1"})).status_code == 400
    assert (await api.call("POST", PATH, content=b"a=%ff")).status_code == 400
    assert (await api.call("GET", PATH)).status_code == 405
    large = await api.call("POST", PATH, data={"Body": "x" * 300_000})
    assert large.status_code == 413


@pytest.mark.parametrize("body", ["STOP", " stop \r\n", "Stop.", "UNSUBSCRIBE", "stop all", "Quit!"])
async def test_stop_and_start(api: Api, body: str) -> None:
    for _ in range(2):
        assert await call(api, GATEWAY.incoming(NUMBER, body)) == 204
    assert await stopped(api)
    [row] = await api.hub.store.suppressions(None, 10)
    assert (row.channel, row.address, row.reason) == (Channel.SMS, NUMBER, "stop")
    for _ in range(2):
        assert await call(api, GATEWAY.incoming(NUMBER, "start")) == 204
    assert not await stopped(api)
    lines = [(one.state, one.reason) for one in await api.hub.store.log(LogQuery(20))]
    assert lines == [("restarted", "start"), ("stopped", "stop")]


@pytest.mark.parametrize("body", ["", "please stop by", "Don't STOP", "HELP", "stop\x07it", "STOP " * 400])
async def test_other_answers_stop_nothing(api: Api, body: str) -> None:
    assert await call(api, GATEWAY.incoming(NUMBER, body)) == 204
    assert not await stopped(api)


async def test_what_the_gateway_made_of_an_answer_counts(api: Api) -> None:
    assert await call(api, GATEWAY.incoming(NUMBER, "알림 그만", OptOutType="STOP")) == 204
    assert await stopped(api)
    assert await call(api, GATEWAY.incoming("not a number", "STOP")) == 204


async def test_a_receipt_that_overtakes_its_message_finds_it(api: Api) -> None:
    receipts = SmsReceipts([PROVIDER], ORIGIN, api.hub.store, api.clock, [0.005] * 10_000)
    fields = GATEWAY.receipt(MESSAGE, "delivered")
    signature = GATEWAY.signature(ORIGIN + PATH, fields)
    early = asyncio.create_task(
        receipts.receive(callback_id(PROVIDER), "", signature, urlencode(fields).encode())
    )
    await asyncio.sleep(0)
    await sent_one(api)
    await early
    assert (await state_of(api))[0] == "delivered"


async def test_receipts_of_strangers_are_taken_and_forgotten(api: Api) -> None:
    for fields in (
        GATEWAY.receipt({"sid": "SM9", "To": NUMBER}, "delivered"),
        GATEWAY.receipt({"sid": "", "To": NUMBER}, "delivered"),
        GATEWAY.receipt({"sid": "SM" + "9" * 500, "To": NUMBER}, "failed", 21610),
        GATEWAY.receipt(MESSAGE, "vanished"),
        {"MessageSid": "SM1"},
        {},
    ):
        assert await call(api, fields) == 204
