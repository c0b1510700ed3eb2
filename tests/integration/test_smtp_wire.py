"""What goes over the wire to a mail server, byte by byte: commands that come together, and answers however they come."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress

import pytest

from hub.model.outcomes import GiveUp, Outcome, RetryAfter, Sent, Unclear
from hub.model.outgoing import Target
from hub.model.vocabulary import Channel
from hub.provider_urls import parse_provider
from workers.channels.mail_message import Mail
from workers.channels.smtp import SmtpProvider

pytestmark = pytest.mark.req("R7", "I8")

MAIL = Mail("shop@example.com", b"Subject: hi\r\n\r\nhello\r\n")
TOGETHER = b"MAIL FROM:<shop@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n"
WHOLE = MAIL.content + b".\r\n"


class Script:
    """A server that says what its script says to each piece that comes. `heard`: the pieces, per connection."""

    def __init__(self, *answers: bytes, extensions: bytes = b"250-PIPELINING\r\n") -> None:
        self.answers = answers
        self.extensions = extensions
        self.heard: list[list[bytes]] = []
        self.say: Callable[[bytes], None] = lambda words: None
        self.port = 0
        self.ended = 0  # connections

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pieces: list[bytes] = []
        self.heard.append(pieces)
        self.say = writer.write
        writer.write(b"220 script\r\n")
        await reader.readuntil(b"\r\n")  # EHLO
        writer.write(b"250-script\r\n" + self.extensions + b"250 8BITMIME\r\n")
        answers: Iterator[bytes] = iter(self.answers)
        with suppress(ConnectionError):
            while piece := await reader.read(65_536):
                pieces.append(piece)
                for part in next(answers, b"250 fine\r\n").split(b"|"):  # in several segments
                    writer.write(part)
                    await asyncio.sleep(0.005)
        self.ended += 1
        writer.close()


@asynccontextmanager
async def playing(script: Script) -> AsyncIterator[SmtpProvider]:
    server = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.port = server.sockets[0].getsockname()[1]
    address = f"smtp://127.0.0.1:{script.port}?timeout_seconds=2"
    provider = SmtpProvider(parse_provider(Channel.EMAIL, address), "hub.example.com")
    try:
        yield provider
    finally:
        await provider.close()
        server.close()


async def send(provider: SmtpProvider, address: str = "bob@example.com") -> Outcome:
    return await provider.send(MAIL, Target(address, address))


async def test_what_belongs_to_a_message_is_asked_at_once_where_the_server_offers_it() -> None:
    script = Script(b"250 a\r\n250 b\r\n354 go\r\n", b"250 2.0.0 taken\r\n")
    async with playing(script) as provider:
        assert await send(provider) == Sent("250", "2.0.0 taken")
    assert script.heard[0][:2] == [TOGETHER, WHOLE]


async def test_without_that_offer_each_command_waits_for_its_answer() -> None:
    script = Script(b"250 a\r\n", b"250 b\r\n", b"354 go\r\n", b"250 taken\r\n", extensions=b"")
    async with playing(script) as provider:
        assert isinstance(await send(provider), Sent)
    assert script.heard[0][:4] == [*TOGETHER.splitlines(keepends=True), WHOLE]


@pytest.mark.parametrize(
    "answer",
    [
        b"2|5|0 a\r|\n250 b\r\n354 |go\r\n",
        b"250-a\r\n250-b|\r\n250 c\r\n250 b\n|354 go\n",
        b"250\r\n250\r\n354\r\n",
    ],
)
async def test_answers_are_read_however_they_are_cut(answer: bytes) -> None:
    async with playing(Script(answer, b"250-2.0.0 taken|\r\n250 2.0.0 really\r\n")) as provider:
        assert await send(provider) == Sent("250", "2.0.0 taken")


async def test_a_refused_recipient_gets_nothing_and_the_connection_is_used_again() -> None:
    script = Script(
        b"250 a\r\n550 5.1.1 nobody\r\n503 no recipients\r\n",
        b"250 forgotten\r\n",  # RSET
        b"250 a\r\n250 b\r\n354 go\r\n",
        b"250 taken\r\n",
    )
    async with playing(script) as provider:
        assert await send(provider) == GiveUp("550", "5.1.1 nobody", target_is_gone=True)
        assert isinstance(await send(provider), Sent)
    assert script.heard[0][:4] == [TOGETHER, b"RSET\r\n", TOGETHER, WHOLE]


async def test_a_server_that_wants_a_message_for_nobody_gets_none() -> None:
    """RFC 2920 §3.1: it may say 354 although it refused the recipient."""
    script = Script(b"250 a\r\n550 5.1.1 nobody\r\n354 go\r\n")
    async with playing(script) as provider:
        assert await send(provider) == GiveUp("550", "5.1.1 nobody", target_is_gone=True)
        assert script.heard == [[TOGETHER]]
        script.answers = (b"250 a\r\n250 b\r\n354 go\r\n", b"250 taken\r\n")
        assert isinstance(await send(provider), Sent)
    assert len(script.heard) == 2  # on another connection


async def test_a_refused_sender_is_the_providers_fault_and_nothing_is_left_on_the_wire() -> None:
    script = Script(
        b"451 4.3.0 later\r\n503 no\r\n503 no\r\n", b"250 forgotten\r\n", b"250 a\r\n250 b\r\n354 go\r\n"
    )
    async with playing(script) as provider:
        assert await send(provider) == RetryAfter("451", "4.3.0 later")
        assert isinstance(await send(provider), Sent)
    assert script.heard[0][1] == b"RSET\r\n"


async def test_who_says_goodbye_while_nobody_asks_is_not_used_again() -> None:
    script = Script(b"250 a\r\n250 b\r\n354 go\r\n", b"250 taken\r\n")
    async with playing(script) as provider:
        await send(provider)
        script.say(b"421 4.4.2 idle for too long\r\n")
        await asyncio.sleep(0.02)
        assert isinstance(await send(provider), Sent)
    assert len(script.heard) == 2


async def test_a_server_that_chatters_is_cut_off() -> None:
    script = Script(b"250 a\r\n250 b\r\n354 go\r\n", b"250 taken\r\n")
    async with playing(script) as provider:
        await send(provider)
        script.say(b"250 so\r\n" * 1_000)
        while not script.ended:
            await asyncio.sleep(0.01)
        assert isinstance(await send(provider), Sent)
    assert len(script.heard) == 2


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"what?\r\n", "nonsense"),
        (b"250 " + b"x" * 40_000, "nonsense"),
        (b"250-x\r\n" * 6_000, "nonsense"),
        (b"", "timeout"),
        (b"250 a\r\n250 b\r\n", "timeout"),
    ],
)
async def test_nonsense_and_silence_before_the_message_are_retried(said: bytes, code: str) -> None:
    async with playing(Script(said)) as provider:
        outcome = await send(provider)
    assert isinstance(outcome, RetryAfter)
    assert outcome.code == code


async def test_nonsense_after_the_message_is_doubt() -> None:
    async with playing(Script(b"250 a\r\n250 b\r\n354 go\r\n", b"what?\r\n")) as provider:
        assert isinstance(await send(provider), Unclear)
