"""Web push in a real Firefox: from the click on the page to the notification that is shown with the page closed.

Everything between is the product as its users run it: the API, the queue, the generator, the dispatcher, the sender.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.firefox import Firefox, FirefoxPush, open_firefox
from tests.support.machine import Machine, running_machine
from tests.support.push_service import open_push_service

pytestmark = [pytest.mark.req("R2"), pytest.mark.req("R7"), pytest.mark.req("R37")]
SECONDS = 30.0


@dataclass
class Story:
    machine: Machine
    service: FirefoxPush
    firefox: Firefox

    async def preferences(self, user: str) -> str:
        """The page of somebody who followed a link out of an app."""
        token = self.machine.as_user(user)["Authorization"].removeprefix("Bearer ")
        return await self.firefox.open(f"{self.machine.url}/preferences#token={token}")

    async def turn_on(self, page: str) -> None:
        """Click, be asked, allow."""
        await self.firefox.click(page, "#push-on")
        await self.firefox.until(
            page, "document.querySelector('#push-said').textContent.startsWith('It is on')"
        )

    async def publish(self, **event: Any) -> str:
        accepted = await self.machine.call(
            "POST", "/v1/events", json={"to": "alice", "channels": ["web_push"], **event}
        )
        assert accepted.status_code == 202, accepted.text
        return str(accepted.json()["id"])

    async def logged(self, state: str, event: str) -> dict[str, Any]:
        """The log's line about an event, as soon as it is there."""
        async with asyncio.timeout(SECONDS):
            while True:
                answer = await self.machine.call("GET", f"/v1/log?event={event}&state={state}")
                if lines := answer.json()["entries"]:
                    found: dict[str, Any] = lines[0]
                    return found
                await asyncio.sleep(0.05)

    async def browsers(self, user: str) -> set[str]:
        """The ids of somebody's registered browsers."""
        address, headers = f"{self.machine.url}/v1/me/push-subscriptions", self.machine.as_user(user)
        answer = (await self.machine.client.get(address, headers=headers)).json()
        return {one["id"] for one in answer["push_subscriptions"]}

    async def shown(self, page: str) -> list[str]:
        """What the browser shows of this site's notifications."""
        titles: list[str] = await self.firefox.evaluate(
            page,
            "(async () => (await (await navigator.serviceWorker.getRegistration()).getNotifications())"
            ".map(({ title, body }) => `${title}: ${body}`))()",
        )
        return titles


@pytest.fixture
async def story(tmp_path: Path, firefox: str) -> AsyncIterator[Story]:
    async with open_push_service(kind=FirefoxPush) as service:
        with running_machine(tmp_path, CLARION_PUSH_ALLOWED_HOSTS=service.host) as machine:
            port = int(service.host.partition(":")[2])
            async with open_firefox(firefox, tmp_path, port) as running:
                yield Story(machine, service, running)
            await machine.client.aclose()


@pytest.mark.slow
async def test_a_push_is_shown_with_the_page_closed_and_a_changed_subscription_renews_itself(
    story: Story,
) -> None:
    page = await story.preferences("alice")
    await story.turn_on(page)
    [tried] = await story.service.wait_for(1)
    assert tried.claims["aud"] == story.service.origin
    log = (await story.machine.call("GET", "/v1/log?user=alice&state=generated")).json()["entries"]
    await story.logged("shown", log[0]["event"])
    assert (await story.shown(page))[0].startswith("Browser notifications work: ")
    await story.firefox.close(page)

    event = await story.publish(
        title="Your order was shipped", body="It arrives tomorrow. 주문 17", url="/orders/17"
    )
    line = await story.logged("shown", event)
    assert (line["user"], line["channel"], line["provider"]) == ("alice", "web_push", "web_push")
    await story.logged("delivered", event)
    [delivery] = (await story.machine.call("GET", f"/v1/events/{event}/deliveries")).json()["deliveries"]
    assert delivery["state"] == "delivered"

    before = await story.browsers("alice")
    await story.service.forget_everybody()
    async with asyncio.timeout(SECONDS):
        while len(now := await story.browsers("alice")) != 1 or now == before:
            await asyncio.sleep(0.05)
    again = await story.publish(title="Still here")
    await story.logged("shown", again)
    assert story.service.received[-1].browser is not tried.browser

    page = await story.preferences("alice")
    await story.firefox.until(page, "document.querySelectorAll('#browsers li').length === 1")
    titles = await story.shown(page)
    assert "Your order was shipped: It arrives tomorrow. 주문 17" in titles
    assert story.service.refused == []
    assert len(story.service.acknowledged) == 3
