"""The pages in a real browser: what an operator and a user can do there, and what they see when parts fall."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from tests.support.cluster import Cluster
from tests.support.desk import Desk, small_desk, whole_desk

ATTEMPTED = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1> \u202egnp.exe \u0007"
SECONDS = 5_000  # what "within seconds" means, in milliseconds


@pytest.fixture
async def desk(free_port: int, chromium: str) -> AsyncIterator[Desk]:
    async with small_desk(free_port, chromium) as opened:
        yield opened


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(tmp_path, f"sqlite:///{tmp_path / 'clarion.db'}", nodes=1, generators=1)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


async def send(page: Page, title: str, **fields: str) -> None:
    await page.fill("#title", title)
    for name, value in fields.items():
        await page.fill(f"#{name}", value)
    await page.click("#send")
    await expect(page.locator("#sent")).to_contain_text("Accepted")


@pytest.mark.req("R4", "R21", "R34")
async def test_an_operator_publishes_and_sees_it_in_the_log_and_in_the_inbox(
    cluster: Cluster, chromium: str
) -> None:
    """On real processes, with the link of `clarion dashboard`."""
    async with whole_desk(cluster, chromium) as desk:
        await _publish_and_see(desk)


async def _publish_and_see(desk: Desk) -> None:
    page = await desk.operator()
    assert page.url == f"{desk.base}/dashboard", "the secret has left the address"
    await expect(page.locator("#inbox-empty")).to_be_visible()
    assert (await page.context.cookies())[0]["httpOnly"]

    await send(page, "Your order was paid", body="It will be shipped tomorrow.", user="ada")
    row = page.locator("#log tr", has_text="generated")
    await expect(row).to_have_count(1, timeout=SECONDS)
    await expect(row).to_contain_text("ada")
    await expect(page.locator("#log tr", has_text="accepted")).to_have_count(1)
    item = page.locator("#inbox .item")
    await expect(item).to_have_count(1, timeout=SECONDS)
    await expect(item).to_contain_text("Your order was paid")
    await expect(page.locator("#inbox-user")).to_have_text("ada")
    await expect(page.locator("#unread")).to_have_text("1 unread")

    await item.get_by_role("button", name="Mark read").click()
    await expect(page.locator("#unread")).to_be_hidden()
    inbox = await desk.call("GET", "/v1/users/ada/notifications")
    assert inbox["notifications"][0]["read_at"] is not None

    await page.click("text=Take it back")
    await expect(item).to_have_count(0, timeout=SECONDS)
    await expect(page.locator("#log tr", has_text="retracted")).to_have_count(1)


@pytest.mark.req("R4", "R21")
async def test_what_others_publish_and_mark_shows_at_once(desk: Desk) -> None:
    page = await desk.operator()
    for number in range(3):
        await desk.publish(to="alice", title=f"number {number}")
    await desk.publish(to="bob", title="not here")
    items = page.locator("#inbox .item-title")
    await expect(items).to_have_text([f"Unread: number {number}" for number in (2, 1, 0)], timeout=SECONDS)

    everything = {"mark": "read", "all": True}
    await desk.call("POST", "/v1/me/notifications/marks", desk.token("alice"), json=everything)
    await expect(page.locator("#inbox .item.unread")).to_have_count(0, timeout=SECONDS)
    await expect(page.locator("#unread")).to_be_hidden()

    await page.fill("#filter", "bob generated")
    await expect(page.locator("#log tr")).to_have_count(1)
    await page.fill("#filter", "")
    await page.click("#pause")
    await desk.publish(to="alice", title="while paused")
    await expect(page.locator("#pause")).to_have_text("Go on (2 new)", timeout=SECONDS)
    await expect(page.locator("#log tr")).to_have_count(9)
    await page.click("#pause")
    await expect(page.locator("#log tr")).to_have_count(11)

    await page.locator("#log tr", has_text="bob").get_by_role("button").click()
    await expect(page.locator("#inbox .item")).to_contain_text(["not here"])


@pytest.mark.req("R4")
async def test_the_pages_work_below_a_path(free_port: int, chromium: str) -> None:
    async with small_desk(free_port, chromium, "/tools/hub") as desk:
        page = await desk.operator()
        assert page.url == f"{desk.base}/dashboard"
        await send(page, "Hello")
        await expect(page.locator("#inbox .item")).to_have_count(1, timeout=SECONDS)
        await page.click("#inbox-preferences")
        await page.get_by_role("switch", name="In the app, for Messages").click()
        await expect(page.locator("#saved")).to_contain_text("is off")
        await page.goto(f"{desk.base}/dashboard")
        await page.click("#leave")
        await expect(page.locator("h1")).to_have_text("You are not signed in")


@pytest.mark.req("R14", "R16", "R19")
async def test_the_form_reaches_topics_and_everyone_with_any_type(desk: Desk) -> None:
    definition = {
        "category": "orders",
        "title": "Order {{ data.number }} was paid",
        "channels": {"in_app": {"when": "always"}},
        "schema": {"type": "object", "required": ["number"]},
    }
    await desk.call("PUT", "/v1/types/order.paid", json=definition)
    page = await desk.operator()
    titles = page.locator("#inbox .item-title bdi")
    await page.check("text=everyone")
    await send(page, "For all")
    await expect(titles).to_have_text(["For all"], timeout=SECONDS)
    await page.check("text=a topic")
    await send(page, "On the topic", topic="news")
    await expect(titles).to_have_text(["On the topic", "For all"], timeout=SECONDS)

    await page.check("text=a user")
    await page.select_option("#type", "order.paid")
    await page.fill("#title", "")
    await page.fill("#body", "")
    await page.click("#send")
    await expect(page.locator("#sent.wrong")).to_contain_text("number")
    await page.click("summary")
    await page.fill("#data", "[1]")
    await page.click("#send")
    await expect(page.locator("#sent.wrong")).to_contain_text("not a JSON object")
    await page.fill("#data", '{"number": 17}')
    await page.click("#send")
    await expect(titles.first).to_have_text("Order 17 was paid", timeout=SECONDS)


@pytest.mark.req("R4", "R11", "R17")
async def test_a_category_that_is_switched_off_is_suppressed_from_the_next_event_on(desk: Desk) -> None:
    page = await desk.operator()
    await send(page, "before")
    await expect(page.locator("#inbox .item")).to_have_count(1, timeout=SECONDS)

    await page.click("#inbox-preferences")
    await expect(page.get_by_text("You are an operator.")).to_be_visible()
    switch = page.get_by_role("switch", name="In the app, for Messages")
    await expect(switch).to_be_checked()
    await switch.click()
    await expect(page.locator("#saved")).to_have_text("Saved. In the app, for Messages, is off.")
    assert (await desk.preferences("alice"))["categories"] == {"messages": {"in_app": False}}

    await page.goto(f"{desk.base}/dashboard")
    await expect(page.locator("#inbox .item")).to_have_count(1)
    await send(page, "after")
    row = page.locator("#log tr", has_text="suppressed")
    await expect(row).to_have_count(1, timeout=SECONDS)
    await expect(row).to_contain_text("category_channel")
    await expect(page.locator("#inbox .item")).to_have_count(1)


@pytest.mark.req("R35")
async def test_hostile_texts_stay_texts(desk: Desk) -> None:
    page = await desk.operator()
    await send(page, ATTEMPTED, body="\u202e" + "<b>x</b>" * 400)
    title = page.locator("#inbox .item-title bdi")
    await expect(title).to_have_text(ATTEMPTED.strip(), timeout=SECONDS)
    assert await page.locator("#inbox script, #inbox img, #inbox b").count() == 0
    assert await page.evaluate("window.hacked") is None
    assert len(await page.locator("#inbox .item-body").text_content() or "") <= 1_001
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    await page.fill("#title", "x" * 10_000)
    await page.click("#send")
    await expect(page.locator("#sent.wrong")).to_contain_text("title")
    links = await page.evaluate(
        """async (texts) => {
            const folder = document.querySelector('script[type=module]').src.replace(/[^/]*$/, '');
            const { linkTo } = await import(`${folder}dom.js`);
            return texts.map((text) => linkTo(text).tagName);
        }""",
        [
            "javascript:alert(1)",
            "JaVaScRiPt:alert(1)",
            "java\nscript:alert(1)",
            "data:text/html,x",
            "/orders/1",
            "https://example.com/",
        ],
    )
    assert links == ["CODE"] * 5 + ["A"]


@pytest.mark.req("R21", "I5")
async def test_both_panels_come_back_with_all_they_missed_when_the_node_falls(
    cluster: Cluster, chromium: str
) -> None:
    async with whole_desk(cluster, chromium) as desk:
        await _fall_and_come_back(desk, cluster)


async def _fall_and_come_back(desk: Desk, cluster: Cluster) -> None:
    page = await desk.operator()
    await send(page, "first")
    await expect(page.locator("#inbox .item")).to_have_count(1, timeout=SECONDS)
    node = cluster.nodes[0]
    await node.kill()
    await expect(page.locator("#log-state")).to_contain_text("No connection", timeout=SECONDS)
    await page.click("#send")
    await expect(page.locator("#sent.wrong")).to_contain_text("does not answer")

    await node.start()
    await desk.publish(to="alice", title="meanwhile")
    for chip in ("#log-state", "#inbox-state"):
        await expect(page.locator(chip)).to_have_text("Live", timeout=20_000)
    await expect(page.locator("#inbox .item-title bdi")).to_have_text(["meanwhile", "first"], timeout=SECONDS)
    await expect(page.locator("#log tr", has_text="generated")).to_have_count(2, timeout=SECONDS)
    await send(page, "third")
    await expect(page.locator("#inbox .item")).to_have_count(3, timeout=SECONDS)
    await expect(page.locator("#log tr", has_text="generated")).to_have_count(3)


@pytest.mark.req("R34")
async def test_a_session_that_ends_is_told_with_the_next_step(desk: Desk) -> None:
    page = await desk.operator()
    await desk.call("POST", "/v1/users/operator/revoke-tokens")
    await expect(page.locator("#banner")).to_contain_text("clarion dashboard", timeout=SECONDS)
    await page.reload()
    await expect(page.locator("h1")).to_have_text("You are not signed in")


@pytest.mark.req("R4", "R11", "R12", "R34")
async def test_a_user_signs_in_by_a_link_and_changes_everything_by_keyboard(desk: Desk) -> None:
    page = await desk.page(timezone_id="Europe/Berlin")
    await page.goto(f"{desk.base}/preferences#token={desk.token('carol')}")
    await expect(page.locator("h1")).to_have_text("Your notifications")
    assert page.url == f"{desk.base}/preferences", "the token has left the address"

    switch = page.get_by_role("switch", name="In the app, for Messages")
    await switch.focus()
    await page.keyboard.press("Space")
    await expect(page.locator("#saved")).to_contain_text("is off")
    await expect(switch).to_be_focused()
    whole = page.get_by_role("switch", name="In the app, for everything")
    await whole.focus()
    await page.keyboard.press("Space")
    await expect(page.locator("#saved")).to_contain_text("off for everything")
    await expect(switch).to_be_disabled()
    await whole.click()
    await expect(switch).to_be_enabled()

    await page.fill("#mute-id", "mallory")
    await page.keyboard.press("Enter")
    await expect(page.locator("#muted")).to_contain_text("mallory")
    await page.fill("#only-id", "dave")
    await page.keyboard.press("Enter")
    await expect(page.locator("#only")).to_contain_text("Messages: only what is caused by dave")
    await page.get_by_role("switch", name="Keep quiet").click()
    await expect(page.locator("#saved")).to_contain_text("Quiet from 22:00 to 07:00")
    await page.locator("#use-here").click()
    await expect(page.locator("#quiet-zone")).to_have_text("Europe/Berlin")

    kept = await desk.preferences("carol")
    assert kept["channels"] == {"in_app": True}
    assert kept["categories"] == {"messages": {"in_app": False}}
    assert kept["muted"] == {"actors": ["mallory"]}
    assert kept["only"] == {"categories": {"messages": {"actors": ["dave"]}}}
    assert kept["quiet_hours"] == {"start": "22:00", "end": "07:00"}
    assert (await desk.call("GET", "/v1/users/carol"))["timezone"] == "Europe/Berlin"

    await page.get_by_role("button", name="Hear again from the person mallory").click()
    await page.get_by_role("button", name="Remove: Messages, only dave").click()
    await expect(page.locator("#only")).to_contain_text("No category is narrowed")
    kept = await desk.preferences("carol")
    assert not any(kept["muted"].values())
    assert not kept["only"]
    await page.reload()
    await expect(switch).not_to_be_checked()

    await page.fill("#timezone", "Nowhere/Atlantis")
    await page.keyboard.press("Tab")
    await expect(page.locator("#failed")).to_contain_text("Not saved.")
    await expect(page.locator("#timezone")).to_have_value("Europe/Berlin")


@pytest.mark.req("R11")
async def test_what_cannot_be_saved_is_undone_and_what_somebody_else_changed_is_kept(desk: Desk) -> None:
    page = await desk.page()
    await page.goto(f"{desk.base}/preferences#token={desk.token('erin')}")
    switch = page.get_by_role("switch", name="In the app, for Messages")
    await expect(switch).to_be_checked()

    async def refuse(route: Route) -> None:
        await (route.abort() if route.request.method == "PATCH" else route.continue_())

    await page.route("**/v1/me/preferences", refuse)
    await switch.click()
    await expect(page.locator("#failed")).to_contain_text("Not saved. The hub does not answer.")
    await expect(switch).to_be_checked()
    await page.unroute("**/v1/me/preferences")

    await desk.call("PATCH", "/v1/users/erin/preferences", json={"muted": {"topics": ["noise"]}})
    await switch.click()
    await expect(page.locator("#saved")).to_contain_text("is off")
    await expect(page.locator("#failed")).to_be_hidden()
    await expect(page.locator("#muted")).to_contain_text("noise")
    kept = await desk.preferences("erin")
    assert (kept["categories"], kept["muted"]) == ({"messages": {"in_app": False}}, {"topics": ["noise"]})


@pytest.mark.req("I16")
async def test_a_link_of_somebody_else_asks_before_it_changes_the_session(desk: Desk) -> None:
    page = await desk.page()
    await page.goto(f"{desk.base}/preferences#token={desk.token('erin')}")
    await expect(page.locator(".who")).to_contain_text("erin")
    await page.goto(f"{desk.base}/preferences#token={desk.token('frank')}")
    await expect(page.locator("#other-link")).to_contain_text("is for frank")
    await expect(page.locator(".who")).to_contain_text("erin")
    await page.get_by_role("button", name="Sign in with it").click()
    await expect(page.locator(".who")).to_contain_text("frank")
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.locator("h1")).to_have_text("You are not signed in")
    await page.goto(f"{desk.base}/preferences#token=nonsense")
    await expect(page.locator("#sentence")).to_contain_text("does not work any more")


@pytest.mark.req("R4")
async def test_the_pages_fit_from_a_phone_to_a_wide_screen_in_light_and_dark(
    desk: Desk, tmp_path: Path
) -> None:
    page = await desk.operator()
    for title in ("Your order was paid", "x" * 900, ATTEMPTED):
        await send(page, title, body="It will be shipped tomorrow.")
    await expect(page.locator("#inbox .item")).to_have_count(3, timeout=SECONDS)
    for path, ready in (("dashboard", "#log tr"), ("preferences?user=alice", "#grid tbody tr")):
        await page.goto(f"{desk.base}/{path}")
        await expect(page.locator(ready).first).to_be_visible(timeout=SECONDS)
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            for width in (360, 768, 1440):
                await page.set_viewport_size({"width": width, "height": 900})
                assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                    path,
                    width,
                )
                ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert (ground == "rgb(17, 19, 26)") is (scheme == "dark")
                await page.screenshot(path=tmp_path / f"{path[:9]}-{width}-{scheme}.png", full_page=True)


@pytest.mark.req("R21", "R31")
async def test_a_flood_leaves_500_rows_and_a_page_that_answers(desk: Desk) -> None:
    page = await desk.operator()
    batch = [{"to": f"user{number}", "title": "flood"} for number in range(1_000)]
    await desk.call("POST", "/v1/events/batch", json=batch)
    await expect(page.locator("#log tr")).to_have_count(500, timeout=15_000)
    await page.evaluate("document.getElementById('log-scroll').scrollTop = 3000")
    row = await _row_at_the_top(page)
    await desk.publish(to="alice", title="one more")
    await expect(page.locator("#inbox .item")).to_have_count(1, timeout=SECONDS)
    await expect(page.locator("#log tr").first).to_contain_text("alice", timeout=SECONDS)
    assert await _row_at_the_top(page) == row, "what is being read stays where it is"
    assert await page.locator("#log tr").count() == 500


async def _row_at_the_top(page: Page) -> str:
    return await page.evaluate(
        """() => {
            const box = document.getElementById('log-scroll').getBoundingClientRect();
            return document.elementFromPoint(box.left + 60, box.top + 60).closest('tr').textContent;
        }"""
    )
