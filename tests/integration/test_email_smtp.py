"""SMTP against real servers: what each answer and each failure comes to, kept connections, TLS, login, cancelling."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent, Unclear
from hub.model.outgoing import Target
from hub.model.vocabulary import Channel
from hub.provider_urls import parse_provider
from hub.supervisor import free_port
from tests.support import smtp_sink as smtp_sink_module
from tests.support.smtp_sink import DROP, HANG, SmtpSink, smtp_sink
from workers.channels.mail_message import Mail
from workers.channels.smtp import SmtpProvider

pytestmark = pytest.mark.req("R7", "I8")

BOB = "bob@example.com"
MAIL = Mail("shop@example.com", b"Subject: hi\r\n\r\n.dot\r\n..dots\r\nend\r\n")


@pytest.fixture(params=[True, False], ids=["together", "one by one"], autouse=True)
def pipelining(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether servers offer that the commands of a message come together."""
    monkeypatch.setattr(smtp_sink_module, "PIPELINING", request.param)


@pytest.fixture
async def sink() -> AsyncIterator[SmtpSink]:
    async with smtp_sink() as one:
        yield one


def provider_at(address: str, **more: Any) -> SmtpProvider:
    return SmtpProvider(parse_provider(Channel.EMAIL, address), "hub.example.com", **more)


def target(address: str = BOB) -> Target:
    return Target(address, address)


async def carry(address: str, mail: Mail = MAIL, to: str = BOB) -> Outcome:
    """One message by a provider that is closed afterwards."""
    provider = provider_at(address)
    try:
        return await provider.send(mail, target(to))
    finally:
        await provider.close()


async def test_a_message_arrives_as_it_was_made(sink: SmtpSink) -> None:
    outcome = await carry(sink.url())
    assert outcome == Sent("250", "2.0.0 taken")
    [message] = sink.messages
    assert (message.sender, message.recipients, message.content) == (MAIL.sender, [BOB], MAIL.content)
    assert sink.greetings == ["hub.example.com"]
    assert f"SIZE={len(MAIL.content)}" in sink.commands[0]


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("stage", "answer", "wanted"),
    [
        ("greeting", "554 5.7.1 go away", RetryAfter("554", "5.7.1 go away")),
        ("greeting", "421 4.3.2 not now", RetryAfter("421", "4.3.2 not now")),
        ("mail", "421 4.7.0 too busy", RetryAfter("421", "4.7.0 too busy")),
        ("mail", "451 4.3.0 queue trouble", RetryAfter("451", "4.3.0 queue trouble")),
        ("mail", "553 5.7.1 not your sender", RetryAfter("553", "5.7.1 not your sender")),
        ("mail", "530 5.7.0 log in first", RetryAfter("530", "5.7.0 log in first")),
        ("mail", "552 5.3.4 too big", GiveUp("552", "5.3.4 too big")),
        ("rcpt", "421 4.3.2 closing", RetryAfter("421", "4.3.2 closing")),
        ("rcpt", "450 4.7.1 greylisted", RetryAfter("450", "4.7.1 greylisted", is_providers_fault=False)),
        ("rcpt", "451 later", RetryAfter("451", "later", is_providers_fault=False)),
        ("rcpt", "452 4.2.2 full", RetryAfter("452", "4.2.2 full", is_providers_fault=False)),
        ("rcpt", "550 5.1.1 no such user", GiveUp("550", "5.1.1 no such user", target_is_gone=True)),
        ("rcpt", "550 no such user here", GiveUp("550", "no such user here", target_is_gone=True)),
        ("rcpt", "551 5.1.6 moved away", GiveUp("551", "5.1.6 moved away", target_is_gone=True)),
        ("rcpt", "553 mailbox name", GiveUp("553", "mailbox name", target_is_gone=True)),
        ("rcpt", "556 5.1.10 takes no mail", GiveUp("556", "5.1.10 takes no mail", target_is_gone=True)),
        ("rcpt", "550 5.2.1 disabled", GiveUp("550", "5.2.1 disabled", target_is_gone=True)),
        ("rcpt", "552 5.2.2 full for good", GiveUp("552", "5.2.2 full for good")),
        ("rcpt", "550 5.7.1 policy", GiveUp("550", "5.7.1 policy")),
        ("rcpt", "554 5.7.1 relay access denied", GiveUp("554", "5.7.1 relay access denied")),
        ("rcpt", "550 relay not permitted", GiveUp("550", "relay not permitted")),
        ("rcpt", "554 no", GiveUp("554", "no")),
        ("data", "451 4.3.0 no disk", RetryAfter("451", "4.3.0 no disk")),
        ("data", "554 5.5.1 no valid recipients", GiveUp("554", "5.5.1 no valid recipients")),
        ("content", "421 4.3.2 closing", RetryAfter("421", "4.3.2 closing")),
        ("content", "452 4.3.1 no disk", RetryAfter("452", "4.3.1 no disk")),
        ("content", "451 4.7.1 later", RetryAfter("451", "4.7.1 later", is_providers_fault=False)),
        ("content", "550 5.7.1 this is spam", GiveUp("550", "5.7.1 this is spam")),
        ("content", "554 5.6.0 broken", GiveUp("554", "5.6.0 broken")),
        ("content", "666 what", Unclear("666", "what")),
        ("content", "299 well", Sent("299", "well")),
    ],
)
async def test_what_a_server_answers(sink: SmtpSink, stage: str, answer: str, wanted: Outcome) -> None:
    sink.plan(stage, answer)
    assert await carry(sink.url()) == wanted


async def test_an_answer_is_shown_in_one_bounded_printable_line(sink: SmtpSink) -> None:
    sink.plan("rcpt", "550-5.1.1 \x1b[31m" + "x" * 900 + "\r\n550 5.1.1 and more")
    outcome = await carry(sink.url())
    assert outcome.detail.startswith("5.1.1 [31mxxx")
    assert len(outcome.detail) <= 200
    assert outcome.detail.isprintable()


@pytest.mark.req("R35")
async def test_a_server_that_speaks_something_else(sink: SmtpSink) -> None:
    sink.plan("greeting", "HTTP/1.1 200 OK")
    outcome = await carry(sink.url())
    assert isinstance(outcome, RetryAfter)
    assert outcome.is_providers_fault
    assert outcome.code in ("nonsense", "connect")
    sink.steps.clear()
    sink.plan("rcpt", "what?")
    assert (await carry(sink.url())).code == "nonsense"
    sink.steps.clear()
    sink.plan("data", "250 fine, done")  # to a message that it never saw
    assert isinstance(await carry(sink.url()), RetryAfter)
    assert sink.messages == []


# ---------------------------------------------------------------- failures


async def test_nobody_listens() -> None:
    outcome = await carry(f"smtp://127.0.0.1:{free_port()}")
    assert isinstance(outcome, RetryAfter)
    assert (outcome.code, outcome.is_providers_fault) == ("connect", True)


@pytest.mark.parametrize("stage", ["greeting", "ehlo", "mail", "rcpt", "data"])
async def test_a_server_that_hangs_or_drops_before_the_message(sink: SmtpSink, stage: str) -> None:
    sink.plan(stage, HANG, times=1)
    outcome = await carry(sink.url("timeout_seconds=0.2"))
    assert isinstance(outcome, RetryAfter)
    assert (outcome.code, outcome.is_providers_fault) == ("timeout", True)
    sink.plan(stage, DROP, times=1)
    outcome = await carry(sink.url())
    assert isinstance(outcome, RetryAfter)
    assert outcome.code in ("lost", "connect")
    assert isinstance(await carry(sink.url()), Sent)
    await sink.settle(0)


@pytest.mark.req("I7")
async def test_after_the_message_nobody_knows(sink: SmtpSink) -> None:
    sink.plan("content", DROP, times=1)
    outcome = await carry(sink.url())
    assert isinstance(outcome, Unclear)
    assert outcome.code == "lost"
    assert len(sink.messages) == 1, "it was taken"
    sink.plan("content", HANG, times=1)
    outcome = await carry(sink.url("timeout_seconds=0.2"))
    assert isinstance(outcome, Unclear)
    assert outcome.code == "timeout"
    sink.plan("incoming", DROP, times=1)
    assert isinstance(await carry(sink.url()), Unclear)


# ---------------------------------------------------------------- kept connections


async def test_a_connection_is_kept_for_the_next_message(sink: SmtpSink) -> None:
    provider = provider_at(sink.url())
    sink.plan("rcpt", "550 5.1.1 no", to="nobody@example.com")
    sink.plan("content", "554 5.7.1 no", times=1)
    for to in (BOB, BOB, "nobody@example.com", BOB):
        await provider.send(MAIL, target(to))
    assert (len(sink.messages), sink.connections) == (2, 1)
    await provider.close()
    await sink.settle(0)


async def test_as_many_connections_as_are_needed_and_no_more_are_kept(sink: SmtpSink) -> None:
    provider = provider_at(sink.url("connections=3"))
    assert provider.connections == 3
    for _ in range(2):
        outcomes = await asyncio.gather(*(provider.send(MAIL, target()) for _ in range(3)))
        assert all(isinstance(outcome, Sent) for outcome in outcomes)
    assert sink.connections == 3
    await asyncio.gather(*(provider.send(MAIL, target()) for _ in range(5)))
    await sink.settle(3)
    await provider.close()
    await sink.settle(0)
    assert len(sink.messages) == 11


@pytest.mark.req("I7")
@pytest.mark.parametrize("how", ["cut", "421", "hang"])
async def test_a_connection_that_died_while_it_idled_costs_nothing(sink: SmtpSink, how: str) -> None:
    provider = provider_at(sink.url("timeout_seconds=0.3"))
    assert isinstance(await provider.send(MAIL, target()), Sent)
    if how == "cut":
        sink.drop_all()  # the other side may learn of it only when it writes
    else:
        sink.plan("mail", "421 4.4.2 idle for too long" if how == "421" else HANG, times=1)
    assert isinstance(await provider.send(MAIL, target()), Sent)
    assert (len(sink.messages), sink.connections) == (2, 2)
    await provider.close()


async def test_a_fresh_connection_that_fails_is_not_tried_again(sink: SmtpSink) -> None:
    sink.plan("mail", "421 4.7.0 no")
    assert isinstance(await carry(sink.url()), RetryAfter)
    assert sink.connections == 1


async def test_a_connection_closes_when_it_idles(sink: SmtpSink) -> None:
    provider = provider_at(sink.url(), idle_seconds=0.02)
    await provider.send(MAIL, target())
    await sink.settle(0)
    assert isinstance(await provider.send(MAIL, target()), Sent)
    assert sink.connections == 2
    await provider.close()


@pytest.mark.parametrize("stage", ["greeting", "mail", "rcpt", "content"])
async def test_cancelling_leaves_no_half_used_connection(sink: SmtpSink, stage: str) -> None:
    provider = provider_at(sink.url())
    await provider.send(MAIL, target()) if stage != "greeting" else None
    step = sink.plan(stage, HANG, times=1)
    task = asyncio.create_task(provider.send(MAIL, target()))
    async with asyncio.timeout(20):
        while step.times:  # until the server hangs there
            await asyncio.sleep(0.002)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await sink.settle(0)
    assert isinstance(await provider.send(MAIL, target("next@example.com")), Sent)
    assert sink.messages[-1].recipients == ["next@example.com"]
    await provider.close()


# ---------------------------------------------------------------- TLS and login


@pytest.mark.parametrize(("tls", "scheme"), [("starttls", "smtp"), ("implicit", "smtps")])
async def test_a_connection_is_encrypted_when_the_certificate_is_good(
    tmp_path: Path, tls: str, scheme: str
) -> None:
    async with smtp_sink(tls=tls, folder=tmp_path) as sink:
        provider = provider_at(sink.url(f"ca={sink.ca_file}", scheme=scheme))
        for _ in range(2):
            assert isinstance(await provider.send(MAIL, target()), Sent)
        await provider.close()
        assert [message.is_encrypted for message in sink.messages] == [True, True]
        assert sink.connections == 1
        untrusted = await carry(sink.url(scheme=scheme))
        assert isinstance(untrusted, RetryAfter)
        assert (untrusted.code, untrusted.is_providers_fault) == ("tls", True)
        assert "certificate" in untrusted.detail.lower()
        assert len(sink.messages) == 2
        assert isinstance(await carry(sink.url("verify=0", scheme=scheme)), Sent)


async def test_starttls_is_required_or_left_out_as_said(sink: SmtpSink, tmp_path: Path) -> None:
    required = await carry(sink.url("starttls=1"))
    assert isinstance(required, RetryAfter)
    assert required.code == "tls"
    assert sink.messages == []
    async with smtp_sink(tls="starttls", folder=tmp_path) as offering:
        assert isinstance(await carry(offering.url("starttls=0")), Sent)
        assert not offering.messages[0].is_encrypted
    plain = await carry(sink.url(scheme="smtps"))
    assert isinstance(plain, RetryAfter)
    assert plain.code in ("tls", "connect", "timeout")


@pytest.mark.req("R34")
async def test_a_login_and_a_wrong_one(tmp_path: Path) -> None:
    async with smtp_sink(
        tls="starttls", folder=tmp_path, users={"clarion": "s3cret & more"}, needs_tls=True
    ) as sink:
        good = sink.url(f"ca={sink.ca_file}", user="clarion", password="s3cret & more")
        assert isinstance(await carry(good), Sent)
        assert sink.messages[0].user == "clarion"
        wrong = await carry(sink.url(f"ca={sink.ca_file}", user="clarion", password="hunter2"))
        assert isinstance(wrong, RetryAfter)
        assert (wrong.code, wrong.is_providers_fault) == ("login", True)
        assert "hunter2" not in repr(wrong)
        without = await carry(sink.url(f"ca={sink.ca_file}"))
        assert isinstance(without, RetryAfter)
        assert without.is_providers_fault
    async with smtp_sink() as open_to_all:
        none = await carry(open_to_all.url(user="clarion", password="x"))
        assert isinstance(none, RetryAfter)
        assert none.code == "login"


@pytest.mark.req("R34", "R35")
async def test_no_password_goes_in_the_clear_over_a_network(tmp_path: Path) -> None:
    async with smtp_sink(users={"clarion": "s3cret"}) as sink:
        address = sink.url(user="clarion", password="s3cret").replace(
            "127.0.0.1", "127.1"
        )  # no name of this machine
        kept = await carry(address)
        assert isinstance(kept, RetryAfter)
        assert (kept.code, kept.is_providers_fault) == ("tls", True)
        assert "starttls=0" in kept.detail
        assert not [one for one in sink.commands if "AUTH" in one]
        assert isinstance(await carry(address + "?starttls=0"), Sent)


# ---------------------------------------------------------------- addresses


async def test_addresses_beyond_ascii_need_a_server_that_takes_them(sink: SmtpSink) -> None:
    mail = Mail(MAIL.sender, "To: jörg@example.com\r\n\r\nhallo\r\n".encode(), needs_utf8=True)
    refused = await carry(sink.url(), mail, "jörg@example.com")
    assert isinstance(refused, GiveUp)
    assert (refused.code, refused.target_is_gone) == ("no_smtputf8", False)
    async with smtp_sink(smtputf8=True) as modern:
        assert isinstance(await carry(modern.url(), mail, "jörg@bücher.example"), Sent)
        assert modern.messages[0].recipients == ["jörg@xn--bcher-kva.example"]
        assert {"SMTPUTF8", "BODY=8BITMIME"} <= set(modern.messages[0].options)
    assert isinstance(await carry(sink.url(), MAIL, "bob@Bücher.example"), Sent)
    assert sink.messages[0].recipients == ["bob@xn--bcher-kva.example"]


async def test_a_provider_is_named_without_its_secrets() -> None:
    provider = provider_at("smtp://clarion:s3cret@mail.example.com:2525?per_second=5&connections=7")
    assert (provider.name, provider.connections, provider.per_second) == (
        "smtp://mail.example.com:2525",
        7,
        5,
    )
    assert "s3cret" not in repr(vars(provider))
    assert provider_at("smtps://mail.example.com").per_second is None


async def test_a_large_message_goes_through_whole(sink: SmtpSink) -> None:
    lines: Sequence[bytes] = [b"%06d " % number + b"." * 60 for number in range(14_000)]
    mail = Mail(MAIL.sender, b"Subject: large\r\n\r\n" + b"\r\n".join(lines) + b"\r\n")
    assert isinstance(await carry(sink.url(), mail), Sent)
    assert sink.messages[0].content == mail.content
