"""SMS over a real gateway that speaks Twilio's API: each class of answer, and what must never be sent twice."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from email.utils import formatdate

import pytest
import trustme

from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent, Unclear
from hub.model.outgoing import Target
from hub.model.vocabulary import Channel
from hub.provider_urls import parse_provider
from tests.support.clock import FakeClock
from tests.support.outgoing import item_of, outgoing_of
from tests.support.sms_gateway import FROM, Born, Drop, Hang, Plan, Refuse, Say, SmsGateway
from workers.channels.base import Provider
from workers.channels.http import HttpClient
from workers.channels.sms import Sms, sms_sender

pytestmark = [pytest.mark.req("R7"), pytest.mark.req("I8")]

ALICE = Target("+821012345678", "+821012345678")
PUBLIC = "https://hub.example"


@pytest.fixture
async def gateway() -> AsyncIterator[SmsGateway]:
    async with SmsGateway() as one:
        yield one


async def sent_by(gateway: SmsGateway, clock: FakeClock | None = None, **options: str) -> Outcome:
    sender = sms_sender([gateway.provider(**options)], PUBLIC, clock or FakeClock())
    [provider] = sender.providers
    try:
        return await provider.send(Sms("Order 7 is paid."), ALICE)
    finally:
        await provider.close()


async def test_a_message_is_taken_and_its_id_kept(gateway: SmsGateway) -> None:
    sender = sms_sender([gateway.provider()], PUBLIC, FakeClock())
    [provider] = sender.providers
    outcome = await provider.send(sender.compose(outgoing_of(Channel.SMS, [item_of(7)])), ALICE)
    [message] = gateway.messages
    assert outcome == Sent("queued", "", message["sid"])
    assert message == {
        "From": FROM,
        "To": "+821012345678",
        "Body": "Order 7 is paid\nThank you for order 7.",
        "StatusCallback": f"{PUBLIC}/v1/callbacks/sms/twilio.http-127.0.0.1:{gateway.port}",
        "sid": message["sid"],
    }
    await provider.close()


async def test_texts_arrive_as_they_are(gateway: SmsGateway) -> None:
    sender = sms_sender([gateway.provider()], PUBLIC, FakeClock())
    [provider] = sender.providers
    for text in ("a&To=+15005550009&x=1 %00+ =?", "안녕 👩‍👩‍👧‍👦\nzweite Zeile", "ü" * 700):
        await provider.send(Sms(text), ALICE)
        assert (gateway.messages[-1]["Body"], gateway.messages[-1]["To"]) == (text, "+821012345678")
    await provider.close()


async def test_a_messaging_service_and_other_senders(gateway: SmsGateway) -> None:
    service = "MG" + "0" * 32
    await sent_by(gateway, **{"from": service})
    await sent_by(gateway, **{"from": "MG Shop"})
    assert [one.get("MessagingServiceSid") for one in gateway.messages] == [service, None]
    assert [one.get("From") for one in gateway.messages] == [None, "MG Shop"]


async def test_a_gateway_elsewhere_is_not_told_to_call_this_machine(gateway: SmsGateway) -> None:
    there = parse_provider(Channel.SMS, f"twilio://AC1:t@sms.example?from={FROM}")
    public, alone = (
        sms_sender([there], url, FakeClock()).providers[0]._provider
        for url in (PUBLIC, "http://127.0.0.1:8000")
    )
    assert public._fields["StatusCallback"] == f"{PUBLIC}/v1/callbacks/sms/twilio-sms.example"
    assert "StatusCallback" not in alone._fields
    assert public._address == "https://sms.example:443/2010-04-01/Accounts/AC1/Messages.json"


STOP = Refuse(400, 21610, "Attempt to send to unsubscribed recipient +821012345678")


@pytest.mark.parametrize(
    ("plan", "outcome", "code", "more"),
    [
        (
            Refuse(400, 21211, "The 'To' number is not valid."),
            GiveUp,
            "invalid_number",
            {"target_is_gone": True},
        ),
        (Refuse(400, 21614), GiveUp, "invalid_number", {"target_is_gone": True}),
        (STOP, GiveUp, "stop", {"target_is_gone": True}),
        (Born("failed", 21610), GiveUp, "stop", {"target_is_gone": True}),
        (Refuse(400, 21617, "The body is too long."), GiveUp, "21617", {"target_is_gone": False}),
        (Say(400, b"<html>"), GiveUp, "http_400", {"target_is_gone": False}),
        (Refuse(400, 21606), RetryAfter, "21606", {"is_providers_fault": True}),
        (Refuse(400, 21408), RetryAfter, "21408", {"is_providers_fault": False}),
        (Refuse(401, 20003, "Authenticate"), RetryAfter, "20003", {"is_providers_fault": True}),
        (Refuse(403, 20005), RetryAfter, "20005", {"is_providers_fault": True}),
        (Refuse(404, 20404), RetryAfter, "20404", {"is_providers_fault": True}),
        (Refuse(429, 20429), RetryAfter, "20429", {"seconds": 1.0, "is_providers_fault": False}),
        (
            Refuse(429, 20429, headers={"Retry-After": "17"}),
            RetryAfter,
            "20429",
            {"seconds": 17.0, "is_providers_fault": False},
        ),
        (
            Refuse(503, 20503, headers={"Retry-After": formatdate(1_767_614_400 + 40, usegmt=True)}),
            RetryAfter,
            "20503",
            {"seconds": 40.0, "is_providers_fault": True},
        ),
        (Refuse(500, 20500), RetryAfter, "20500", {"seconds": None, "is_providers_fault": True}),
        (Say(302, headers={"Location": "/2010-04-01"}), RetryAfter, "http_302", {"is_providers_fault": True}),
        (Say(307, headers={"Location": "http://127.0.0.1:1/"}), RetryAfter, "http_307", {}),
        (Say(502, b"bad gateway"), Unclear, "http_502", {}),
        (Say(504), Unclear, "http_504", {}),
        (Say(520), Unclear, "http_520", {}),
        (Say(200, b"OK"), Unclear, "nonsense", {}),
        (Say(201, b"[]"), Unclear, "nonsense", {}),
        (Say(201, b'{"sid": 7}'), Unclear, "nonsense", {}),
        (Say(201, b'{"sid": ""}'), Unclear, "nonsense", {}),
        (Say(201, b"\xff\xfe{"), Unclear, "nonsense", {}),
        (Say(204), Unclear, "nonsense", {}),
        (Say(200, b'{"sid": "x", ' + b" " * 100_000 + b"}"), Unclear, "nonsense", {}),
        (Hang(), Unclear, "timeout", {}),
        (Drop(), Unclear, "connection_lost", {}),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_each_answer_is_told_apart(
    gateway: SmsGateway, plan: Plan, outcome: type[Outcome], code: str, more: dict[str, object]
) -> None:
    gateway.plan.append(plan)
    said = await sent_by(gateway, timeout_seconds="0.5" if isinstance(plan, Hang) else "10")
    assert isinstance(said, outcome), said
    assert said.code == code
    assert {name: getattr(said, name) for name in more} == more
    assert len(gateway.requests) == 1
    assert ALICE.address.lstrip("+") not in said.detail
    assert gateway.token not in str(said)


async def test_nobody_listens(gateway: SmsGateway) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and deaf
        gateway.port, port = taken.getsockname()[1], gateway.port
        said = await sent_by(gateway)
        gateway.port = port
    assert isinstance(said, RetryAfter)
    assert (said.code, said.is_providers_fault) == ("connect_failed", True)
    assert "AC0" not in said.detail


async def test_a_server_without_tls_where_tls_is_due(gateway: SmsGateway) -> None:
    url = parse_provider(Channel.SMS, f"twilio://AC1:t@127.0.0.1:{gateway.port}?from={FROM}")
    [provider] = sms_sender([url], PUBLIC, FakeClock()).providers
    said = await provider.send(Sms("x"), ALICE)
    assert isinstance(said, RetryAfter)
    assert gateway.requests == []
    await provider.close()


async def test_a_certificate_that_nobody_vouches_for_gets_no_secret() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    async with SmsGateway(tls=tls) as gateway:
        url = parse_provider(Channel.SMS, f"twilio://AC1:t@127.0.0.1:{gateway.port}?from={FROM}")
        [provider] = sms_sender([url], PUBLIC, FakeClock()).providers
        said = await provider.send(Sms("x"), ALICE)
        assert isinstance(said, RetryAfter)
        assert (said.code, said.is_providers_fault) == ("tls", True)
        assert gateway.requests == []
        await provider.close()


async def test_wrong_credentials_are_the_providers_fault(gateway: SmsGateway) -> None:
    for account, token in ((gateway.sid, "wrong"), ("AC9", gateway.token)):
        url = parse_provider(
            Channel.SMS, f"twilio+http://{account}:{token}@127.0.0.1:{gateway.port}?from={FROM}"
        )
        [provider] = sms_sender([url], PUBLIC, FakeClock()).providers
        said = await provider.send(Sms("x"), ALICE)
        assert isinstance(said, RetryAfter)
        assert (said.code, said.is_providers_fault) == ("20003", True)
        await provider.close()
    assert gateway.messages == []


async def test_senders_share_one_session_which_the_last_one_closes(gateway: SmsGateway) -> None:
    http = HttpClient()
    first, second = (
        sms_sender([gateway.provider()], PUBLIC, FakeClock(), http).providers[0] for _ in range(2)
    )
    await first.send(Sms("x"), ALICE)
    await first.close()
    await first.close()
    assert isinstance(await second.send(Sms("y"), ALICE), Sent)
    await second.close()
    assert http._session is None


async def test_many_at_once_and_what_is_cancelled_harms_no_other(gateway: SmsGateway) -> None:
    sender = sms_sender([gateway.provider(timeout_seconds="20")], PUBLIC, FakeClock())
    provider: Provider = sender.providers[0]
    gateway.plan.append(Hang())
    stuck = asyncio.create_task(provider.send(Sms("stuck"), ALICE))
    while not gateway.requests:
        await asyncio.sleep(0.005)
    stuck.cancel()
    await asyncio.wait([stuck])
    outcomes = await asyncio.gather(*(provider.send(Sms(f"{n}"), ALICE) for n in range(50)))
    assert all(isinstance(one, Sent) for one in outcomes)
    assert len({one.reference for one in outcomes if isinstance(one, Sent)}) == 50
    await provider.close()
