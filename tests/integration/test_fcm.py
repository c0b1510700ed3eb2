"""Mobile push over a local FCM: the service account's way in, and each documented answer."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path

import pytest

from hub.errors import ConfigError
from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent, Unclear
from hub.model.outgoing import Target
from hub.model.vocabulary import Channel
from hub.provider_urls import parse_provider
from tests.support import fcm_server as fcm
from tests.support.clock import FakeClock
from tests.support.fcm_server import Drop, FcmServer, Hang, Plan, Say
from tests.support.outgoing import NOW_US, item_of, outgoing_of
from workers.channels.base import Provider
from workers.channels.mobile_push import MobilePush, MobilePushSender, mobile_push_sender

pytestmark = [pytest.mark.req("R7"), pytest.mark.req("I8")]

PHONE = Target("dev_1", "registration-token:of_the-device", {"platform": "android"})


@pytest.fixture
async def server() -> AsyncIterator[FcmServer]:
    async with FcmServer() as one:
        yield one


def message_of(**more: object) -> MobilePush:
    return MobilePushSender([]).compose(outgoing_of(Channel.MOBILE_PUSH, [item_of(7)], **more))  # type: ignore[arg-type]


def provider_at(server: FcmServer, folder: Path, **options: str) -> Provider:
    url = server.provider(server.credentials(folder), **options)
    return mobile_push_sender([url], FakeClock()).providers[0]


async def test_a_message_is_taken_with_an_access_token_of_the_account(
    server: FcmServer, tmp_path: Path
) -> None:
    provider = provider_at(server, tmp_path)
    said = await provider.send(message_of(expires_at_us=NOW_US + 60_000_000), PHONE)
    assert isinstance(said, Sent)
    assert said.reference is not None
    assert said.reference.startswith("projects/clarion-Tests/messages/")
    [message] = server.messages
    assert message["token"] == PHONE.address
    assert message["notification"]["title"] == "Order 7 is paid"
    assert message["android"]["ttl"] == "60s"
    assert isinstance(await provider.send(message_of(), PHONE), Sent)
    assert len(server.access_tokens) == 1
    await provider.close()


async def test_many_at_once_get_one_access_token(server: FcmServer, tmp_path: Path) -> None:
    provider = provider_at(server, tmp_path)
    outcomes = await asyncio.gather(*(provider.send(message_of(), PHONE) for _ in range(20)))
    assert all(isinstance(one, Sent) for one in outcomes)
    assert len(server.access_tokens) == 1
    await provider.close()


async def test_an_access_token_that_ends_soon_or_is_refused_is_renewed(
    server: FcmServer, tmp_path: Path
) -> None:
    provider = provider_at(server, tmp_path)
    server.seconds = 60
    await provider.send(message_of(), PHONE)
    await provider.send(message_of(), PHONE)
    assert len(server.access_tokens) == 2
    server.seconds = 3599
    await provider.send(message_of(), PHONE)
    server.valid_tokens.clear()
    said = await provider.send(message_of(), PHONE)
    assert isinstance(said, RetryAfter)
    assert (said.code, said.is_providers_fault) == ("UNAUTHENTICATED", True)
    assert isinstance(await provider.send(message_of(), PHONE), Sent)
    assert len(server.access_tokens) == 4
    await provider.close()


@pytest.mark.parametrize(
    ("plan", "outcome", "code", "more"),
    [
        (fcm.UNREGISTERED, GiveUp, "UNREGISTERED", {"target_is_gone": True}),
        (fcm.BAD_TOKEN, GiveUp, "INVALID_ARGUMENT", {"target_is_gone": True}),
        (fcm.BAD_TOKEN_FIELD, GiveUp, "INVALID_ARGUMENT", {"target_is_gone": True}),
        (fcm.BAD_VALUE, GiveUp, "INVALID_ARGUMENT", {"target_is_gone": False}),
        (fcm.TOO_BIG, GiveUp, "INVALID_ARGUMENT", {"target_is_gone": False}),
        (fcm.OTHER_SENDER, GiveUp, "SENDER_ID_MISMATCH", {"target_is_gone": True}),
        (fcm.NOT_ALLOWED, RetryAfter, "PERMISSION_DENIED", {"is_providers_fault": True}),
        (fcm.NO_PROJECT, RetryAfter, "NOT_FOUND", {"is_providers_fault": True}),
        (fcm.APNS_REFUSES, RetryAfter, "THIRD_PARTY_AUTH_ERROR", {"is_providers_fault": False}),
        (fcm.QUOTA, RetryAfter, "QUOTA_EXCEEDED", {"seconds": 60.0, "is_providers_fault": False}),
        (
            replace(fcm.QUOTA, headers={"Retry-After": "5"}),
            RetryAfter,
            "QUOTA_EXCEEDED",
            {"seconds": 5.0, "is_providers_fault": False},
        ),
        (fcm.UNAVAILABLE, RetryAfter, "UNAVAILABLE", {"seconds": None, "is_providers_fault": True}),
        (
            replace(fcm.UNAVAILABLE, headers={"Retry-After": formatdate(NOW_US // 10**6 + 30, usegmt=True)}),
            RetryAfter,
            "UNAVAILABLE",
            {"seconds": 30.0},
        ),
        (fcm.INTERNAL, RetryAfter, "INTERNAL", {"is_providers_fault": True}),
        (Say(502, b"<html>"), RetryAfter, "http_502", {"is_providers_fault": True}),
        (Say(404, b"not here"), RetryAfter, "http_404", {"is_providers_fault": True}),
        (Say(400, b'{"error": "x"}'), GiveUp, "http_400", {"target_is_gone": False}),
        (Say(400, b'{"error": {"details": [{"@type": 7}, 8]}}'), GiveUp, "http_400", {}),
        (Say(302, headers={"Location": "/token"}), RetryAfter, "http_302", {}),
        (Say(200, b"OK"), Unclear, "nonsense", {}),
        (Say(200, b"{}"), Unclear, "nonsense", {}),
        (Say(200, b'{"name": 1}'), Unclear, "nonsense", {}),
        (Hang(), Unclear, "timeout", {}),
        (Drop(), Unclear, "connection_lost", {}),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_each_answer_is_told_apart(
    server: FcmServer,
    tmp_path: Path,
    plan: Plan,
    outcome: type[Outcome],
    code: str,
    more: dict[str, object],
) -> None:
    provider = provider_at(server, tmp_path, timeout_seconds="0.5" if isinstance(plan, Hang) else "10")
    server.plan.append(plan)
    said = await provider.send(message_of(), PHONE)
    assert isinstance(said, outcome), said
    assert said.code == code
    assert {name: getattr(said, name) for name in more} == more
    assert PHONE.address not in str(said)
    await provider.close()


@pytest.mark.parametrize(
    ("plan", "code"),
    [
        (
            Say(400, b'{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}'),
            "bad_credentials",
        ),
        (Say(403, b"no"), "bad_credentials"),
        (Say(200, b"{}"), "bad_credentials"),
        (Hang(), "token_failed"),
    ],
    ids=str,
)
async def test_without_an_access_token_nothing_is_sent(
    server: FcmServer, tmp_path: Path, plan: Plan, code: str
) -> None:
    provider = provider_at(server, tmp_path, timeout_seconds="0.5")
    server.token_plan.append(plan)
    said = await provider.send(message_of(), PHONE)
    assert isinstance(said, RetryAfter)
    assert (said.code, said.is_providers_fault) == (code, True)
    assert server.requests == []
    while not isinstance(await provider.send(message_of(), PHONE), Sent):
        pass  # the thread that waits for an answer gives up by itself
    assert len(server.messages) == 1
    await provider.close()


async def test_a_key_of_somebody_else_is_told(server: FcmServer, tmp_path: Path) -> None:
    url = server.provider(server.credentials(tmp_path, fcm.service_key(1)))
    [provider] = mobile_push_sender([url], FakeClock()).providers
    said = await provider.send(message_of(), PHONE)
    assert isinstance(said, RetryAfter)
    assert said.code == "bad_credentials"
    assert "Invalid JWT Signature" in said.detail
    await provider.close()


async def test_nobody_listens(server: FcmServer, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        credentials = server.credentials(tmp_path)
        address = f"fcm://{server.project}?credentials={credentials}&endpoint=http://127.0.0.1:{taken.getsockname()[1]}"
        [provider] = mobile_push_sender([parse_provider(Channel.MOBILE_PUSH, address)], FakeClock()).providers
        said = await provider.send(message_of(), PHONE)
    assert isinstance(said, RetryAfter)
    assert said.code == "connect_failed"
    await provider.close()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("not json", "are not the JSON of a service account"),
        ('{"type": "authorized_user", "refresh_token": "s3cret"}', "is missing or wrong"),
        (
            '{"client_email": "a@b.c", "token_uri": "https://x", "private_key": "s3cret"}',
            "is missing or wrong",
        ),
    ],
)
def test_credentials_that_cannot_be_used_stop_the_start(tmp_path: Path, content: str, sentence: str) -> None:
    path = tmp_path / "account.json"
    path.write_text(content)
    url = parse_provider(Channel.MOBILE_PUSH, f"fcm://project?credentials={path}")
    with pytest.raises(ConfigError, match="CLARION_MOBILE_PROVIDERS: ") as refused:
        mobile_push_sender([url], FakeClock())
    assert sentence in str(refused.value)
    assert "s3cret" not in str(refused.value)
