"""SMS through Apprise, against a local server that speaks SMSEagle's API: yes, no, and what is neither."""

import logging
from collections import deque
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from hub.model.outcomes import RetryAfter, Sent, Unclear
from hub.model.outgoing import Target
from hub.model.vocabulary import Channel
from hub.provider_urls import parse_providers
from tests.support.clock import FakeClock
from tests.support.web_server import WebServer
from workers.channels import apprise_sms
from workers.channels.sms import Sms, sms_sender

pytestmark = pytest.mark.req("R7")

ALICE = Target("+821012345678", "+821012345678")
TAKEN = {"result": [{"status": "ok", "message_id": "748"}]}


class Eagle(WebServer):
    """Takes messages; `plan` says what the next ones meet: a status, or a hang."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: deque[int] = deque()
        self.messages: list[dict[str, object]] = []
        self.add("POST", "/jsonrpc/sms", self._take)

    async def _take(self, request: web.Request) -> web.StreamResponse:
        self.messages.append((await request.json())["params"])
        status = self.plan.popleft() if self.plan else 200
        return await self.hang() if status == 0 else web.json_response(TAKEN, status=status)


@pytest.fixture
async def eagle() -> AsyncIterator[Eagle]:
    async with Eagle() as one:
        yield one


def sender_at(eagle: Eagle) -> tuple[apprise_sms.AppriseProvider, object]:
    address = f"apprise+smseagle://s3cret@127.0.0.1:{eagle.port}/"
    sender = sms_sender(parse_providers(Channel.SMS, address), "https://hub.example", FakeClock())
    [provider] = sender.providers
    return provider, sender  # type: ignore[return-value]


async def test_each_message_goes_to_its_own_number(eagle: Eagle) -> None:
    provider, _ = sender_at(eagle)
    assert provider.name == "apprise+smseagle"
    text = "Zeile 1\nline 2 \\n {{ x }} & 안녕"
    for number in ("+821012345678", "+4915112345678"):
        said = await provider.send(Sms(text), Target(number, number))
        assert said == Sent("yes", "Apprise answers only yes or no: yes.")
    assert [(one["to"], one["message"]) for one in eagle.messages] == [
        ("+821012345678", text),
        ("+4915112345678", text),
    ]
    await provider.close()


async def test_a_no_says_nothing_more(eagle: Eagle, caplog: pytest.LogCaptureFixture) -> None:
    provider, _ = sender_at(eagle)
    with caplog.at_level(logging.DEBUG):
        for status in (400, 401, 503):
            eagle.plan.append(status)
            said = await provider.send(Sms("x"), ALICE)
            assert said == RetryAfter("no", "Apprise answers only yes or no: no.")
    assert "s3cret" not in caplog.text
    assert "821012345678" not in caplog.text
    await provider.close()


async def test_a_no_after_a_time_out_may_have_been_a_yes(
    eagle: Eagle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apprise_sms, "READ_SECONDS", 0.3)
    provider, _ = sender_at(eagle)
    eagle.plan.append(0)
    said = await provider.send(Sms("x"), ALICE)
    assert isinstance(said, Unclear)
    assert said.code == "no_in_the_end"
    assert len(eagle.messages) == 1
    await provider.close()


async def test_nobody_listens(eagle: Eagle) -> None:
    provider, _ = sender_at(eagle)
    await eagle.__aexit__(None, None, None)
    assert isinstance(await provider.send(Sms("x"), ALICE), RetryAfter)
    await provider.close()
    await eagle.__aenter__()
