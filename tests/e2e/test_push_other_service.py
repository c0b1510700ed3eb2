"""A second opinion: what we send is read by a push service that others wrote, in another language."""

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from hub.clock import SystemClock
from hub.model.outcomes import GiveUp, Sent
from hub.model.outgoing import Target
from hub.push_keys import application_server_key, is_p256_point, read_private_key
from tests.conftest import JS_FOLDER
from tests.support.push_service import SUBJECT, VAPID_KEY, unb64
from workers.channels.push_message import PushMessage
from workers.channels.web_push import web_push_sender

pytestmark = pytest.mark.req("R7")


@pytest.fixture
async def service(node: str, free_port: int) -> AsyncIterator[str]:
    if not (JS_FOLDER / "node_modules" / "web-push-testing").is_dir():
        pytest.skip("npm's web-push-testing is missing; run make test")
    process = await asyncio.create_subprocess_exec(
        node, "push-service.mjs", str(free_port), cwd=JS_FOLDER, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        assert b"running" in line
        yield f"localhost:{free_port}"
    finally:
        process.kill()
        await process.wait()


async def test_it_reads_what_we_send_and_says_when_a_subscription_ends(service: str) -> None:
    [provider] = web_push_sender(VAPID_KEY, SUBJECT, [service], SystemClock()).providers
    async with httpx2.AsyncClient(base_url=f"http://{service}", timeout=10.0) as client:

        async def ask(path: str, **body: str) -> dict[str, object]:
            found: dict[str, object] = (await client.post(path, json=body)).json()["data"]
            return found

        key = application_server_key(read_private_key(VAPID_KEY))
        browser = await ask("/subscribe", applicationServerKey=key, userVisibleOnly="true")
        keys = browser["keys"]
        assert isinstance(keys, dict)
        assert is_p256_point(unb64(keys["p256dh"]))
        target = Target("psb_1", str(browser["endpoint"]), keys)
        for text in ('{"v":1,"notification":{"title":"주문 17"}}', "x" * 3_993):
            outcome = await provider.send(PushMessage(text.encode(), "high", "t" * 32), target)
            assert outcome == Sent("201")
        hash_ = str(browser["clientHash"])
        read = await ask("/get-notifications", clientHash=hash_)
        assert read["messages"] == ['{"v":1,"notification":{"title":"주문 17"}}', "x" * 3_993]

        await client.post(f"/expire-subscription/{hash_}")
        ended = await provider.send(PushMessage(b"x", "high", "t" * 32), target)
        assert isinstance(ended, GiveUp)
        assert ended.target_is_gone
    await provider.close()
