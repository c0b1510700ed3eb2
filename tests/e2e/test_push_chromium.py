"""The service worker in a real Chromium, on a site of another origin: it shows, replaces, opens, reports.

Chromium subscribes only at its maker's servers, so DevTools hands the messages to the worker; they are what a sender
composes, and the reports go to a real hub.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import CDPSession, Page, Worker, expect

from hub.links import SignedLinks
from hub.model.deliveries import Delivery
from hub.model.events import Event
from hub.model.notifications import Content
from hub.model.outgoing import Item, Outgoing
from hub.model.types import MESSAGE
from hub.model.users import Profile, User
from hub.model.vocabulary import Channel
from tests.support.desk import Desk, small_desk
from tests.support.push_service import Browser
from tests.support.site import open_site
from workers.channels.push_message import compose_push

pytestmark = [pytest.mark.req("R7"), pytest.mark.req("R37")]


@dataclass
class Shop:
    """A page of another site, with its worker at work."""

    desk: Desk
    url: str
    page: Page
    worker: Worker
    devtools: CDPSession
    registration: str
    secrets: tuple[bytes, ...]
    receipts: list[dict[str, Any]] = field(default_factory=list)

    async def event(self, **more: Any) -> dict[str, Any]:
        """An event of alice's; its delivery to her browser."""
        event = {"to": "alice", "title": "t", "channels": ["in_app", "web_push"], **more}
        address = f"/v1/events/{(await self.desk.call('POST', '/v1/events', json=event))['id']}/deliveries"
        while not (found := (await self.desk.call("GET", address))["deliveries"]):
            await self.page.wait_for_timeout(20)
        one: dict[str, Any] = found[0]
        return one

    async def push(self, delivery: dict[str, Any], content: Content, **event: Any) -> None:
        """Hand the worker what a sender makes of it."""
        says = {"delivery": delivery["id"], "user": "alice", "notification": delivery["notification"]}
        token = SignedLinks(self.secrets, "receipt").sign(says)
        made = Event("evt_1", "message", 1, "http:key", 1, **event)
        row = Delivery(
            delivery["id"], "alice", delivery["notification"], "evt_1", "message", "messages", Channel.WEB_PUSH, "sending", 1, 1
        )  # fmt: skip
        outgoing = Outgoing(
            row,
            User(Profile("alice")),
            MESSAGE,
            None,
            (Item(row.notification_id, content, made, 1_767_614_400_000_000),),
            (),
            {"receipt": f"{self.desk.base}/v1/push/receipts/{token}"},
        )
        await self.deliver(compose_push(outgoing).payload.decode())

    async def deliver(self, data: str) -> None:
        await self.devtools.send(
            "ServiceWorker.deliverPushMessage",
            {"origin": self.url, "registrationId": self.registration, "data": data},
        )

    async def shown(self, count: int) -> list[dict[str, Any]]:
        """What the browser shows, as soon as it is so many."""
        look = """async () => (await self.registration.getNotifications()).map(
            ({ title, body, tag, icon, data, actions }) => ({ title, body, tag, icon, data, actions }))"""
        while len(found := await self.worker.evaluate(look)) != count:
            await self.page.wait_for_timeout(20)
        return found

    async def happens(self, name: str, title: str = "") -> None:
        """The user clicks or closes what is shown (with this title). DevTools has no hand for it, so the event is made."""
        await self.worker.evaluate(
            """async ([name, wanted]) => {
                const shown = await self.registration.getNotifications();
                const notification = shown.find(({ title }) => !wanted || title === wanted);
                self.dispatchEvent(new NotificationEvent(name, { notification }));
            }""",
            [name, title],
        )

    async def logged(self, state: str, count: int = 1) -> list[dict[str, Any]]:
        while (
            len(found := (await self.desk.call("GET", f"/v1/log?user=alice&state={state}"))["entries"])
            < count
        ):
            await self.page.wait_for_timeout(20)
        return found


@pytest.fixture
async def shop(free_port: int, chromium: str) -> AsyncIterator[Shop]:
    async with small_desk(free_port, chromium) as desk, open_site(desk.base) as url:
        browser = Browser("https://fcm.googleapis.com/fcm/send/1").subscription
        await desk.call("POST", "/v1/me/push-subscriptions", desk.token("alice"), json=browser)
        page = await desk.page(permissions=["notifications"])
        await page.goto(url)
        devtools = await page.context.new_cdp_session(page)
        registrations: list[dict[str, Any]] = []
        devtools.on(
            "ServiceWorker.workerRegistrationUpdated",
            lambda said: registrations.extend(said["registrations"]),
        )
        await devtools.send("ServiceWorker.enable")
        async with page.context.expect_event("serviceworker") as started:
            await page.evaluate("navigator.serviceWorker.register('/sw.js')")
        worker = await started.value
        await page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        assert registrations
        yield Shop(desk, url, page, worker, devtools, registrations[-1]["registrationId"], desk.secrets)


async def test_a_message_is_shown_replaced_clicked_and_reported(shop: Shop) -> None:
    one = await shop.event()
    content = Content(
        "Order 17 <b>",
        "Shipped. 주문",
        f"{shop.url}/orders/17",
        "/i.png",
        data={"number": 17, "clarion": "mine"},
    )
    await shop.push(one, content, collapse_key="order-17")
    [shown] = await shop.shown(1)
    assert (shown["title"], shown["body"], shown["icon"]) == (
        "Order 17 <b>",
        "Shipped. 주문",
        f"{shop.url}/i.png",
    )
    assert shown["data"]["number"] == 17
    assert shown["data"]["clarion"]["id"] == one["notification"]
    [line] = await shop.logged("shown")
    assert (line["notification"], line["channel"]) == (one["notification"], "web_push")

    two = await shop.event()
    await shop.push(two, Content("Order 17", "Delivered."), collapse_key="order-17")
    await shop.logged("shown", 2)
    [shown] = await shop.shown(1)
    assert shown["body"] == "Delivered."

    await shop.happens("notificationclick")
    [clicked] = await shop.logged("clicked")
    assert clicked["notification"] == two["notification"]
    inbox = await shop.desk.call("GET", "/v1/me/notifications", shop.desk.token("alice"))
    read = {row["id"]: row["read_at"] is not None for row in inbox["notifications"]}
    assert read == {one["notification"]: False, two["notification"]: True}
    assert await shop.shown(0) == []


async def test_what_is_closed_is_reported_and_not_read(shop: Shop) -> None:
    one = await shop.event()
    await shop.push(one, Content("Order 18"))
    await shop.shown(1)
    await shop.happens("notificationclose")
    [closed] = await shop.logged("closed")
    assert closed["notification"] == one["notification"]
    inbox = await shop.desk.call("GET", "/v1/me/notifications", shop.desk.token("alice"))
    assert inbox["unread"] == 1


@pytest.mark.req("R35")
async def test_links_that_are_none_lead_nowhere_and_foreign_messages_are_left_alone(shop: Shop) -> None:
    opened: list[str] = []
    shop.page.context.on("page", lambda page: opened.append(page.url))
    for foreign in (
        "",
        "text",
        "[]",
        "{}",
        json.dumps({"v": 2, "notification": {"title": "x"}}),
        json.dumps({"v": 1}),
    ):
        await shop.deliver(foreign)
    one = await shop.event()
    await shop.push(one, Content("Bad", url="javascript:alert(1)", icon="data:text/html,x"))
    assert "x" not in await _titles(shop, "Bad")
    await shop.page.evaluate(
        """() => { self.told = new Promise((done) => {
            navigator.serviceWorker.addEventListener('message', (event) => done(event.data));
        }); }"""
    )
    await shop.happens("notificationclick", title="Bad")
    said = await shop.page.evaluate("self.told")
    assert said == {"type": "clarion:clicked", "id": one["notification"], "url": None}
    await shop.logged("clicked")
    assert len(await shop.logged("shown")) == 1
    assert opened == []


async def _titles(shop: Shop, until: str) -> list[str]:
    """The titles of what is shown, as soon as one of them is there."""
    look = "async () => (await self.registration.getNotifications()).map(({ title }) => title)"
    while until not in (found := await shop.worker.evaluate(look)):
        await shop.page.wait_for_timeout(20)
    titles: list[str] = found
    return titles


async def test_the_preferences_page_says_what_stands_in_the_way(free_port: int, chromium: str) -> None:
    async with small_desk(free_port, chromium) as desk:
        page = await desk.page()
        await page.goto(f"{desk.base}/preferences#token={desk.token('alice')}")
        await expect(page.locator("#push h2")).to_have_text("Browser notifications")
        await page.click("#push-on")
        await expect(page.locator("#push-said.wrong")).to_contain_text("are blocked", timeout=20_000)
        await page.context.grant_permissions(["notifications"])
        await page.reload()
        await page.click("#push-on")
        await expect(page.locator("#push-said.wrong")).to_contain_text("could not subscribe", timeout=20_000)

        browser = Browser("https://fcm.googleapis.com/fcm/send/1").subscription
        await desk.call("POST", "/v1/me/push-subscriptions", desk.token("alice"), json=browser)
        await page.reload()
        await page.get_by_role("button", name="Forget the browser at fcm.googleapis.com").click()
        await expect(page.locator("#push-said")).to_have_text("That browser is forgotten.")
        await expect(page.locator("#browsers li")).to_have_count(0)

        await page.goto(await desk.link())
        await page.goto(f"{desk.base}/preferences?user=alice")
        await expect(page.locator("h1")).to_contain_text("alice")
        await expect(page.locator("#push")).to_have_count(0)
