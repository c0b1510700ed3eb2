"""The world of the stories: sinks that can fall, and a stage that notices what is missing, came twice or came astray."""

import asyncio
import io
import json
import smtplib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pywebpush import WebPusher
from rich.console import Console

from hub.demo.deployment import Deployment
from hub.demo.people import Person
from hub.demo.sinks.arrivals import Arrivals, Arrived
from hub.demo.sinks.mail import MailSink
from hub.demo.sinks.push import PushSink
from hub.demo.sinks.sms import SmsSink
from hub.demo.stage import Sinks, Stage
from hub.demo.teller import Teller
from hub.model.vocabulary import Channel
from hub.provider_urls import parse_provider
from tests.support.sms_gateway import SmsGateway
from tests.support.web_server import WebServer

pytestmark = pytest.mark.req("R36", "R37")


def mail(number: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"] = "shop@example.com", "ada@people.example"
    message["Subject"], message["Message-ID"] = f"Order {number}", f"<{number}@example.com>"
    message.set_content("Danke, dein Päckchen ist unterwegs.")
    message.add_alternative("<p>Danke</p>", subtype="html")
    return message


# ---------------------------------------------------------------- mail


async def test_a_mail_server_falls_and_comes_back_on_its_port() -> None:
    sink = MailSink("mail server A", arrivals := Arrivals())
    await sink.gate.open()
    port = parse_provider(Channel.EMAIL, sink.address).port
    assert sink.name == f"smtp://127.0.0.1:{port}"
    kept = await asyncio.to_thread(smtplib.SMTP, "127.0.0.1", port)
    await asyncio.to_thread(kept.send_message, mail("S-1"))
    [arrived] = arrivals.all
    assert (arrived.to, arrived.title, arrived.id) == ("ada@people.example", "Order S-1", "<S-1@example.com>")
    assert (arrived.says("Päckchen"), arrived.says("<p>Danke</p>"), arrived.says("S-2")) == (
        True,
        True,
        False,
    )

    await sink.gate.shut()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        await asyncio.to_thread(kept.noop)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(smtplib.SMTP, "127.0.0.1", port)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))  # nobody takes the port meanwhile

    await sink.gate.open()
    again = await asyncio.to_thread(smtplib.SMTP, "127.0.0.1", port)
    await asyncio.to_thread(again.send_message, mail("S-2"))
    await asyncio.to_thread(again.quit)
    assert [one.title for one in arrivals.all] == ["Order S-1", "Order S-2"]
    await sink.gate.close()


# ---------------------------------------------------------------- SMS


class Hub(WebServer):
    """Takes receipts."""

    def __init__(self) -> None:
        super().__init__()
        self.receipts: list[tuple[dict[str, str], str]] = []
        self.arrived = asyncio.Event()
        self.add("POST", "/receipts", self._take)

    async def _take(self, request: web.Request) -> web.Response:
        fields = {name: str(value) for name, value in (await request.post()).items()}
        self.receipts.append((fields, request.headers["X-Twilio-Signature"]))
        if len(self.receipts) == 2:
            self.arrived.set()
        return web.Response(status=204)


async def test_the_gateway_checks_its_account_and_signs_its_receipts() -> None:
    sink = SmsSink(arrivals := Arrivals())
    await sink.open()
    url = parse_provider(Channel.SMS, sink.address)
    address = f"http://127.0.0.1:{url.port}/2010-04-01/Accounts/{url.user}/Messages.json"
    account, token = str(url.user), str(url.password)
    async with Hub() as hub, aiohttp.ClientSession() as session:
        callback = f"{hub.origin}/receipts"
        form = {"To": "+15005550101", "From": "+15005550006", "Body": "Hallo", "StatusCallback": callback}

        async def ask(password: str, form: dict[str, str]) -> int:
            headers = {"Authorization": aiohttp.encode_basic_auth(account, password)}
            async with session.post(address, data=form, headers=headers) as answer:
                return answer.status

        assert await ask("wrong", form) == 401
        assert await ask(token, {"To": "+15005550101"}) == 400
        assert arrivals.all == []
        assert await ask(token, form) == 201
        [arrived] = arrivals.all
        assert (arrived.to, arrived.text) == ("+15005550101", "Hallo")
        await asyncio.wait_for(hub.arrived.wait(), 20)
        assert [fields["MessageStatus"] for fields, _ in hub.receipts] == ["sent", "delivered"]
        theirs = SmsGateway(account, token)  # computes signatures by the published rule
        for fields, signature in hub.receipts:
            assert fields["MessageSid"] == arrived.id
            assert signature == theirs.signature(callback, fields)
    await sink.close()


# ---------------------------------------------------------------- push


async def test_browsers_read_what_is_encrypted_for_them() -> None:
    sink = PushSink(arrivals := Arrivals())
    await sink.open()
    browser, other = sink.new_browser(), sink.new_browser()
    text = json.dumps({"v": 1, "notification": {"id": "ntf_1", "title": "주문 17", "body": "Unterwegs"}})
    body = WebPusher(browser.subscription).encode(text.encode(), content_encoding="aes128gcm")["body"]
    good = {"TTL": "60", "Authorization": "vapid t=a.b.c, k=d", "Content-Encoding": "aes128gcm"}
    async with aiohttp.ClientSession() as session:

        async def post(endpoint: str, headers: dict[str, str]) -> int:
            async with session.post(endpoint, data=body, headers=headers) as answer:
                return answer.status

        assert await post(browser.endpoint, good) == 201
        assert await post(browser.endpoint, {"Authorization": good["Authorization"]}) == 400
        assert await post(browser.endpoint, {"TTL": "60"}) == 400
        assert await post(other.endpoint, good) == 400  # it cannot read it
        assert await post(f"http://{sink.host}/push/nobody", good) == 410
    assert [(one.to, one.title, one.text) for one in arrivals.all] == [
        (browser.endpoint, "주문 17", "Unterwegs")
    ]
    await sink.close()


# ---------------------------------------------------------------- the stage


@asynccontextmanager
async def stage_of(tmp_path: Path) -> AsyncIterator[Stage]:
    sinks = Sinks()
    deployment = Deployment(tmp_path, {})  # never started: the sums need no hub
    stage = Stage(deployment, sinks, Teller(Console(file=io.StringIO()), as_json=False))
    stage.introduce([Person("ada", "Ada", phone="+15005550101"), Person("ben", "Ben")])
    yield stage
    await sinks.close()
    await deployment.stop()


def came(to: str, title: str, channel: Channel = Channel.EMAIL) -> Arrived:
    return Arrived(channel, to, title, "", "mail server A", f"<{title}@example.com>")


async def test_a_stage_notices_what_is_missing_or_came_twice(tmp_path: Path) -> None:
    async with stage_of(tmp_path) as stage:
        for number in ("S-1", "S-2", "S-3"):
            stage.expect("ada", Channel.EMAIL, number)
        for title in ("Order S-1", "Order S-3", "Order S-3"):
            stage.sinks.arrivals.add(came("ada@people.example", title))
        assert list(stage.missing()) == [
            "Ada got 0 messages by email about S-2 instead of one.",
            "Ada got 2 messages by email about S-3 instead of one.",
        ]
        assert list(stage.strays()) == []


async def test_a_stage_notices_what_nobody_should_have_got(tmp_path: Path) -> None:
    async with stage_of(tmp_path) as stage:
        stage.expect("ada", Channel.EMAIL, "S-1")
        for arrived in (
            came("ada@people.example", "Order S-1"),
            came("ben@people.example", "Order S-1"),  # not his
            came("+15005550101", "Order S-1", Channel.SMS),  # not by this channel
            came("eve@elsewhere.example", "Order S-1"),  # a stranger's
        ):
            stage.sinks.arrivals.add(arrived)
        assert list(stage.missing()) == []
        assert [sentence.partition(" ")[0] for sentence in stage.strays()] == [
            "ben",
            "ada",
            "eve@elsewhere.example",
        ]


async def test_waiting_for_what_does_not_come_ends(tmp_path: Path) -> None:
    async with stage_of(tmp_path) as stage:
        assert await stage.arrives("ada", Channel.EMAIL, "S-1", 0.0, seconds=0.05) is None
        assert len(stage.faults) == 1


# ---------------------------------------------------------------- the teller


def tell(teller: Teller) -> None:
    teller.title("A shop", "It sells tea. " * 12)
    teller.act("An order", "What it shows. " * 12)
    teller.did("Ada pays order S-1. " * 8)
    mail = came("ada@people.example", "Your order S-1 is paid " * 6)
    teller.arrived("Ada", mail, 0.25, text=True)
    teller.shown("Eve", "A post " * 20)
    teller.logged({"state": "provider_out", "provider": "mail server A", "detail": "Refused. " * 20})
    teller.note("Why " * 40)
    teller.right("All is well. " * 10)
    teller.wrong("Something is not. " * 10)
    teller.table("Figures", ["", "ordinary", "sale"], [["events", "3", "60"]])


@pytest.mark.parametrize("width", [80, 120])
def test_a_story_fits_its_terminal(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    tell(Teller(console, as_json=False))
    told = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.rstrip() for line in told.splitlines()]
    assert max(map(len, lines)) <= width
    assert sum("Your order S-1 is paid" in line for line in lines) >= 1
    arrived = next(number for number, line in enumerate(lines) if line.startswith("  e-mail to Ada"))
    assert lines[arrived + 1].startswith(" " * 9)  # what does not fit hangs below its words


def test_programs_get_one_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Teller(Console(file=io.StringIO()), as_json=True))
    documents: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["kind"] for one in documents] == [
        "story", "act", "did", "arrived", "shown", "logged", "note", "checked", "checked", "figures",
    ]  # fmt: skip
    assert documents[3] | {"title": "", "text": ""} == {
        "kind": "arrived", "channel": "email", "user": "Ada", "to": "ada@people.example", "title": "", "text": "",
        "by": "mail server A", "seconds": 0.25,
    }  # fmt: skip
    assert [one["ok"] for one in documents if one["kind"] == "checked"] == [True, False]
    assert documents[-1] == {
        "kind": "figures",
        "title": "Figures",
        "figure": "events",
        "ordinary": "3",
        "sale": "60",
    }
