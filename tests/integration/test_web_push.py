"""The web push provider against a push service that checks everything, and against hostile ones."""

import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult

from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent, Unclear
from hub.model.outgoing import Target
from hub.ports import LogEntry
from tests.support.clock import FakeClock
from tests.support.push_service import SUBJECT, VAPID_KEY, Answer, Browser, PushService, open_push_service
from workers.carriers import Carriers
from workers.channels.push_breakers import FAILURES, PAUSES_SECONDS
from workers.channels.push_message import PushMessage
from workers.channels.web_push import LONGEST_TTL_SECONDS, WebPushProvider, web_push_sender

pytestmark = pytest.mark.req("R7")
HOUR = 3600
FCM_MISMATCH = (
    "the VAPID credentials in the authorization header do not correspond to the credentials used to "
    "create the subscriptions."
)


def message(text: str = '{"v":1}', **more: Any) -> PushMessage:
    return PushMessage(text.encode(), **{"urgency": "normal", "topic": "t" * 32, **more})


def target(browser: Browser) -> Target:
    return Target("psb_1", browser.endpoint, browser.subscription["keys"])


def provider_for(clock: FakeClock, *hosts: str, **options: Any) -> WebPushProvider:
    [provider] = web_push_sender(VAPID_KEY, SUBJECT, hosts, clock, **options).providers
    assert isinstance(provider, WebPushProvider)
    return provider


@pytest.fixture
async def service(clock: FakeClock) -> AsyncIterator[PushService]:
    async with open_push_service(clock) as one:
        yield one


@pytest.fixture
async def provider(clock: FakeClock, service: PushService) -> AsyncIterator[WebPushProvider]:
    one = provider_for(clock, service.host, timeout_seconds=0.3)
    yield one
    await one.close()


async def answered(provider: WebPushProvider, service: PushService, *plan: Answer) -> Outcome:
    """What the provider makes of the last of these answers."""
    service.plan = list(plan)
    browser = service.subscribe()
    for _ in plan:
        outcome = await provider.send(message(), target(browser))
    return outcome


# ---------------------------------------------------------------- what goes out


async def test_a_message_arrives_as_it_was_written(
    provider: WebPushProvider, service: PushService, clock: FakeClock
) -> None:
    browser = service.subscribe()
    text = '{"v":1,"notification":{"title":"주문 17"}}'
    sent = await provider.send(message(text, urgency="low"), target(browser))
    assert (sent, service.refused) == (Sent("201"), [])
    [received] = service.received
    assert (received.browser, received.text) == (browser, text)
    headers = received.headers
    assert (headers["ttl"], headers["urgency"], headers["topic"]) == (
        str(LONGEST_TTL_SECONDS),
        "low",
        "t" * 32,
    )
    assert headers["content-type"] == "application/octet-stream"
    assert received.claims == {
        "aud": service.origin,
        "sub": SUBJECT,
        "exp": clock.now_us() // 1_000_000 + 12 * HOUR,
    }


@pytest.mark.parametrize(
    ("seconds", "ttl"),
    [(60, 60), (0, 0), (-5, 0), (10 * 365 * 86_400, LONGEST_TTL_SECONDS), (None, LONGEST_TTL_SECONDS)],
)
async def test_a_message_is_kept_for_as_long_as_it_is_worth_something(
    provider: WebPushProvider, service: PushService, clock: FakeClock, seconds: int | None, ttl: int
) -> None:
    expires = None if seconds is None else clock.now_us() + seconds * 1_000_000
    await provider.send(message(expires_at_us=expires), target(service.subscribe()))
    assert service.received[0].headers["ttl"] == str(ttl)


async def test_one_signature_and_one_connection_serve_many_messages(
    provider: WebPushProvider, service: PushService, clock: FakeClock
) -> None:
    async def header() -> str:
        await provider.send(message(), target(service.subscribe()))
        return service.received[-1].headers["authorization"]

    first = await header()
    assert {await header() for _ in range(10)} == {first}
    assert len(service.connections) == 1
    clock.advance(5 * HOUR)
    assert await header() == first
    clock.advance(2 * HOUR)
    second = await header()
    assert second != first
    clock.advance(-100 * HOUR)  # a clock that was set back: the old signature would be good for too long
    assert await header() not in (first, second)
    assert service.refused == []


# ---------------------------------------------------------------- what comes back


@pytest.mark.req("I8")
@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_taken(provider: WebPushProvider, service: PushService, status: int) -> None:
    assert await answered(provider, service, Answer(status)) == Sent(str(status))


@pytest.mark.req("I8")
@pytest.mark.parametrize("status", [404, 410])
async def test_a_subscription_that_has_ended_is_gone(
    provider: WebPushProvider, service: PushService, status: int
) -> None:
    outcome = await answered(provider, service, Answer(status))
    assert isinstance(outcome, GiveUp)
    assert (outcome.code, outcome.target_is_gone) == (str(status), True)


@pytest.mark.req("I8")
@pytest.mark.parametrize("status", [203, 301, 302, 307, 308, 400, 402, 405, 413, 415, 422])
async def test_what_will_never_work_is_given_up_and_the_subscription_stays(
    provider: WebPushProvider, service: PushService, status: int
) -> None:
    elsewhere = {"Location": f"{service.origin}/elsewhere"}
    outcome = await answered(provider, service, Answer(status, elsewhere, "Bad\x00 \nRequest"))
    assert service.requests == 1, "no redirect is followed"
    if status == 203:
        assert isinstance(outcome, Unclear)
        return
    assert isinstance(outcome, GiveUp)
    assert not outcome.target_is_gone
    if status < 400:
        assert "redirect" in outcome.detail
    else:
        assert outcome.detail.endswith("Bad Request")
    assert "/push/" not in outcome.detail, "an endpoint is a secret"


@pytest.mark.req("I8")
@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (429, "17", 17),
        (429, None, None),
        (408, None, None),
        (500, None, None),
        (502, "x", None),
        (503, "120", 120),
    ],
)
async def test_what_may_work_later_is_tried_again_when_the_service_says(
    provider: WebPushProvider, service: PushService, status: int, header: str | None, seconds: float | None
) -> None:
    headers = {} if header is None else {"Retry-After": header}
    outcome = await answered(provider, service, Answer(status, headers))
    assert isinstance(outcome, RetryAfter)
    assert (outcome.code, outcome.seconds, outcome.is_providers_fault) == (str(status), seconds, False)


@pytest.mark.req("I8")
@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (403, '{"reason":"BadJwtToken"}', "vapid_refused"),  # Apple
        (403, '{"reason":"ExpiredJwtToken"}', "vapid_refused"),
        (
            401,
            '{"code":401,"errno":109,"error":"Unauthorized","message":"Invalid VAPID token"}',
            "vapid_refused",
        ),
        (403, "", "vapid_refused"),
        (
            403,
            FCM_MISMATCH,
            "vapid_mismatch",
        ),
        (400, '{"reason":"VapidPkHashMismatch"}', "vapid_mismatch"),
    ],
)
async def test_our_signatures_trouble_is_told_apart_from_a_dead_subscription(
    provider: WebPushProvider, service: PushService, status: int, body: str, code: str
) -> None:
    outcome = await answered(provider, service, *[Answer(status, {}, body)] * (FAILURES + 1))
    assert isinstance(outcome, RetryAfter)
    assert outcome.code == code
    assert "CLARION_VAPID_" in outcome.detail
    assert service.requests == FAILURES + 1, (
        "one browser that is always refused closes nothing for the others"
    )
    if code == "vapid_refused":
        assert isinstance(await answered(provider, service, Answer()), Sent)


@pytest.mark.req("I9")
async def test_garbage_hanging_and_hanging_up_may_have_arrived(
    provider: WebPushProvider, service: PushService
) -> None:
    for then, code in (("hang", "timeout"), ("drop", "connection_lost"), ("nonsense", "connection_lost")):
        outcome = await answered(provider, service, Answer(then=then))
        assert isinstance(outcome, Unclear), then
        assert (outcome.code, outcome.is_providers_fault) == (code, False)
    assert await answered(provider, service, Answer()) == Sent("201")


async def test_an_answer_of_any_size_is_read_to_a_bound(
    provider: WebPushProvider, service: PushService
) -> None:
    outcome = await answered(provider, service, Answer(400, {}, "x" * 5_000_000))
    assert isinstance(outcome, GiveUp)
    assert len(outcome.detail) < 400


async def test_keys_that_are_none_end_the_subscription(
    provider: WebPushProvider, service: PushService
) -> None:
    browser = service.subscribe()
    for keys in ({}, {"p256dh": "AAAA", "auth": "AAAA"}, {"p256dh": browser.subscription["keys"]["p256dh"]}):
        outcome = await provider.send(message(), Target("psb_1", browser.endpoint, keys))
        assert isinstance(outcome, GiveUp)
        assert (outcome.code, outcome.target_is_gone) == ("bad_keys", True)
    assert service.requests == 0


# ---------------------------------------------------------------- one service of several


@pytest.mark.req("I9")
async def test_a_service_that_is_down_is_left_alone_and_the_others_do_not_notice(clock: FakeClock) -> None:
    async with open_push_service(clock) as ill, open_push_service(clock) as well:
        provider = provider_for(clock, ill.host, well.host)
        ill.plan = [Answer(500)] * (FAILURES + 1)
        patient = target(ill.subscribe())
        for _ in range(FAILURES):
            assert isinstance(await provider.send(message(), patient), RetryAfter)
        resting = await provider.send(message(), patient)
        assert resting == RetryAfter(
            "service_down", f"{ill.origin} did not work lately.", PAUSES_SECONDS[0], is_providers_fault=False
        )
        assert ill.requests == FAILURES
        assert isinstance(await provider.send(message(), target(well.subscribe())), Sent)

        clock.advance(PAUSES_SECONDS[0])
        assert await provider.send(message(), patient) == RetryAfter(
            "500", f"{ill.origin}: It answered 500.", None, False
        )
        assert isinstance(await provider.send(message(), patient), RetryAfter)
        assert ill.requests == FAILURES + 1, "one message tried for all"
        clock.advance(PAUSES_SECONDS[1])
        assert isinstance(await provider.send(message(), patient), Sent)
        assert isinstance(await provider.send(message(), patient), Sent)
        await provider.close()


@pytest.mark.req("I9")
@pytest.mark.parametrize("answer", [Answer(500), Answer(then="hang"), Answer(403, {}, "BadJwtToken")])
async def test_the_channel_goes_on_whatever_one_service_does(clock: FakeClock, answer: Answer) -> None:
    """The engine's breaker, which is for the whole channel, stays closed."""
    told: list[LogEntry] = []

    async def tell(entry: LogEntry) -> None:
        told.append(entry)

    async with open_push_service(clock) as ill, open_push_service(clock) as well:
        sender = web_push_sender(VAPID_KEY, SUBJECT, (ill.host, well.host), clock, timeout_seconds=0.2)
        carriers = Carriers(sender, clock, Unhurried(), tell)
        ill.plan = [answer] * 30
        browsers = [target(ill.subscribe()) for _ in range(10)]
        await carriers.carry(message(), browsers, 1, is_repeat=False)
        carried = await carriers.carry(message(), [target(well.subscribe())], 2, is_repeat=False)
        assert carried.outcome == Sent("201")
        assert (carriers.closed(), told) == (None, [])
        await sender.providers[0].close()


class Unhurried:
    """No rate."""

    async def wait_seconds(self, name: str, per_second: float) -> float:
        return 0.0


async def test_a_service_that_cannot_be_reached(clock: FakeClock, free_port: int) -> None:
    provider = provider_for(clock, f"127.0.0.1:{free_port}")
    outcome = await provider.send(message(), target(Browser(f"http://127.0.0.1:{free_port}/x")))
    assert isinstance(outcome, RetryAfter)
    assert (outcome.code, outcome.is_providers_fault) == ("connect_failed", False)
    await provider.close()


# ---------------------------------------------------------------- where nothing may go


class Names(AbstractResolver):
    """A name service that lies as it is told."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        pass


@pytest.mark.req("R35")
async def test_a_name_that_leads_inside_is_not_followed(clock: FakeClock) -> None:
    """DNS rebinding: the endpoint's name is a known service's, and its address is ours."""
    async with open_push_service(clock) as inside:
        port = inside.host.partition(":")[2]
        names = Names("127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1")
        provider = provider_for(clock, f"push.example.com:{port}", resolver=names)
        outcome = await provider.send(message(), target(Browser(f"https://push.example.com:{port}/x")))
        assert isinstance(outcome, RetryAfter)
        assert "leads to no public address" in outcome.detail
        assert names.asked == ["push.example.com"]
        assert not inside.connections
        await provider.close()


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:{port}/x",
        "http://localhost:{port}/x",
        "https://10.0.0.1/x",
        "http://fcm.googleapis.com/x",
    ],
)
async def test_an_endpoint_that_is_not_allowed_any_more_is_not_asked(
    clock: FakeClock, service: PushService, endpoint: str
) -> None:
    """What was registered under other settings, or by hand in the database."""
    provider = provider_for(clock)
    url = endpoint.format(port=service.host.partition(":")[2])
    outcome = await provider.send(message(), target(Browser(url)))
    assert isinstance(outcome, GiveUp)
    assert (outcome.code, outcome.target_is_gone) == ("forbidden_endpoint", False)
    assert service.requests == 0
    await provider.close()


@pytest.mark.req("R35")
async def test_only_a_certificate_that_is_trusted_counts(clock: FakeClock) -> None:
    authority = trustme.CA()
    served, trusting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(served)
    authority.configure_trust(trusting)
    async with open_push_service(clock, served) as service:
        wary = provider_for(clock, service.host)
        outcome = await wary.send(message(), target(service.subscribe()))
        assert isinstance(outcome, RetryAfter)
        assert outcome.code == "tls"
        await wary.close()
        provider = provider_for(clock, service.host, tls=trusting)
        assert await provider.send(message(), target(service.subscribe())) == Sent("201")
        await provider.close()


async def test_nothing_secret_shows(provider: WebPushProvider, service: PushService) -> None:
    browser = service.subscribe()
    await provider.send(message(), target(browser))
    for shown in (repr(provider), repr(provider.__dict__)):
        assert VAPID_KEY not in shown
        assert browser.endpoint not in shown
