"""R36 on real processes: paid orders go out by e-mail, shipping by push, each as the customer chose; servers fall; a sale.

What arrives is read from the servers that the tests own; what is said of it, from the delivery log.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import hub.demo.shop
from tests.support.command import ROOT, Running
from tests.support.listener import listening
from tests.support.processes import is_alive
from tests.support.town import Town, open_town, says

pytestmark = [pytest.mark.req("R36", "I7", "I8", "I9"), pytest.mark.slow]

SHOP = Path(hub.demo.shop.__file__).parent
NUMBER = r"S-\d+"
FALLBACK_SECONDS = 120.0  # retries for a minute, and then the other channel


def paid(user: str, number: str) -> dict[str, Any]:
    items = [
        {"name": "Teapot <green>", "count": 1, "price": "24.90 EUR"},
        {"name": "Cup", "count": 4, "price": "27.60 EUR"},
    ]
    return {
        "type": "order.paid",
        "to": user,
        "data": {"number": number, "items": items, "total": "52.50 EUR"},
    }


def shipped(user: str, number: str) -> dict[str, Any]:
    data = {"number": number, "carrier": "Parcel Bikes", "day": "tomorrow"}
    return {"type": "order.shipped", "to": user, "data": data}


def waiting(user: str, number: str) -> dict[str, Any]:
    data = {"number": number, "place": "the bakery", "until": "Friday"}
    return {"type": "parcel.waiting", "to": user, "data": data}


async def settle(town: Town) -> None:
    now = datetime.now(UTC)
    quiet = {"start": f"{now - timedelta(hours=2):%H:%M}", "end": f"{now + timedelta(hours=2):%H:%M}"}
    await town.define(SHOP)
    await town.settle("ada", name="Ada", email="ada@example.com", phone="+15005550101", browsers=2)
    await town.settle(
        "ben", name="Ben", email="ben@example.com", phone="+15005550102", browsers=1,
        preferences={"channels": {"email": False, "sms": False}},
    )  # fmt: skip
    await town.settle("cleo", browsers=1, preferences={"quiet_hours": quiet})
    await town.settle("dora", name="Dora", email="dora@example.com", phone="+15005550104")
    await town.settle("emil", email="emil@example.com")


@pytest.mark.timeout(420)
async def test_the_whole_story(tmp_path: Path, database_url: str) -> None:
    async with open_town(tmp_path / "data", database_url, mark=NUMBER) as town:
        await settle(town)
        expected: Counter[tuple[str, str, str]] = Counter()
        await everyday(town, expected)
        await as_they_chose(town, expected)
        await who_is_there(town, expected)
        await one_server_falls(town, expected)
        await all_mail_falls(town, expected)
        town.rise()
        await an_address_is_gone(town, expected)
        await mail_returns(town, expected)

        # Nobody got what they did not choose, and nothing came twice.
        assert town.everything() == expected
        assert town.count() == sum(expected.values())
        ids = Counter((one.channel, one.user, one.id) for one in town.came() if one.channel != "web_push")
        assert set(ids.values()) == {1}
        assert town.push.refused == []
        assert [line for line in await town.log() if line["state"] in ("rejected", "unknown")] == []
        await town.cluster.drained()
        assert await town.cluster.ledger() == []


async def everyday(town: Town, expected: Counter[tuple[str, str, str]]) -> None:
    """Paid by e-mail, shipped by push to both of her browsers."""
    event = await town.cluster.publish(**paid("ada", "S-101"))
    await town.until(lambda: town.got("ada", "email", "S-101"))
    [mail] = town.got("ada", "email", "S-101")
    assert (mail.title, mail.by) == ("Your order S-101 is paid: 52.50 EUR", "A")
    assert "4 x Cup" in mail.text
    assert "Teapot &lt;green&gt;" in mail.text  # what a customer's data holds is no HTML
    assert town.mail["A"].messages[0].parsed["To"] == "Ada <ada@example.com>"
    lines = await town.logged(says("sent"), event=event)
    [sent] = [line for line in lines if line["state"] == "sent"]
    assert (sent["user"], sent["channel"], sent["provider"]) == ("ada", "email", town.provider("A"))

    event = await town.cluster.publish(**shipped("ada", "S-101"))
    await town.until(lambda: len(town.got("ada", "web_push", "S-101")) == 2)
    assert {one.title for one in town.got("ada", "web_push", "S-101")} == {"Order S-101 is on its way"}
    assert len({received.browser for received in town.push.received}) == 2
    assert says("sent")(await town.logged(says("sent"), event=event))
    expected += Counter({("ada", "email", "S-101"): 1, ("ada", "web_push", "S-101"): 2})


async def as_they_chose(town: Town, expected: Counter[tuple[str, str, str]]) -> None:
    """Push only: push only. Quiet hours: held until they end."""
    event = await town.cluster.publish(**paid("ben", "S-102"))
    await town.cluster.publish(**shipped("ben", "S-102"))
    await town.until(lambda: town.got("ben", "web_push", "S-102"))
    expected["ben", "web_push", "S-102"] += 1
    [planned] = (await town.cluster.call("GET", f"/v1/events/{event}/notifications"))["notifications"]
    reasons = {one["channel"]: (one["verdict"], one["rule"]) for one in planned["reasons"]}
    assert reasons["email"] == ("refuse", "channel")
    assert planned["in_app"]

    event = await town.cluster.publish(**shipped("cleo", "S-103"))
    [push] = await town.deliveries(event)
    end = (await town.cluster.call("GET", "/v1/users/cleo/preferences"))["quiet_hours"]["end"]
    assert (push["state"], push["due_at"][11:16]) == ("held", end)


async def who_is_there(town: Town, expected: Counter[tuple[str, str, str]]) -> None:
    """`offline`: an e-mail for who is away, none for who has the shop open."""
    async with listening(town.cluster, "emil") as listeners:
        there = await town.cluster.publish(**waiting("emil", "S-104"))
        await town.cluster.publish(**waiting("dora", "S-105"))
        await town.until(lambda: town.got("dora", "email", "S-105"))
        lines = await town.logged(says("cancelled"), event=there)
        assert listeners["emil"].titles == ["Your parcel waits: order S-104"]
    assert [line["reason"] for line in lines if line["state"] == "cancelled"] == ["reached"]
    expected["dora", "email", "S-105"] += 1


async def one_server_falls(town: Town, expected: Counter[tuple[str, str, str]]) -> None:
    """User offline, mail server A down: through B, and the log says so."""
    town.fall("A")
    event = await town.cluster.publish(**waiting("dora", "S-106"))
    await town.until(lambda: town.got("dora", "email", "S-106"))
    assert [one.by for one in town.got("dora", "email", "S-106")] == ["B"]
    lines = await town.logged(says("sent", "provider_failed"), event=event)
    [failed] = [line for line in lines if line["state"] == "provider_failed"]
    [sent] = [line for line in lines if line["state"] == "sent"]
    assert (failed["provider"], sent["provider"]) == (town.provider("A"), town.provider("B"))
    expected["dora", "email", "S-106"] += 1

    numbers = [f"S-{number}" for number in range(110, 118)]
    await town.cluster.publish_many([paid("ada", number) for number in numbers])
    for number in numbers:
        await town.until(lambda number=number: town.got("ada", "email", number))
        expected["ada", "email", number] += 1
    assert {one.by for number in numbers for one in town.got("ada", "email", number)} == {"B"}
    [out] = await town.logged(says("provider_out"), state="provider_out")
    assert out["provider"] == town.provider("A")


async def all_mail_falls(town: Town, expected: Counter[tuple[str, str, str]]) -> None:
    """All e-mail down: by SMS, and the log tells the whole way. Other channels do not notice."""
    town.fall("A", "B")
    event = await town.cluster.publish(**paid("dora", "S-120"))
    await town.cluster.publish(**shipped("ben", "S-121"))
    await town.until(lambda: town.got("ben", "web_push", "S-121"))
    await town.until(lambda: town.got("dora", "sms", "S-120"), FALLBACK_SECONDS)
    assert [one.text for one in town.got("dora", "sms", "S-120")] == [
        "Shop: your order S-120 is paid, 52.50 EUR. We pack it now."
    ]
    expected += Counter({("ben", "web_push", "S-121"): 1, ("dora", "sms", "S-120"): 1})
    [message] = town.sms.messages
    assert await town.sms.call_back(message, "delivered") == 204
    lines = await town.logged(says("delivered"), event=event)
    story = [
        (line["channel"], line["state"], line.get("reason"))
        for line in lines
        if line.get("channel") in ("email", "sms")
    ]
    assert [one for one in story if one[1] not in ("retried", "provider_failed")] == [
        ("email", "failed", "exhausted"),
        ("email", "fell_back", "exhausted"),
        ("sms", "sent", "sent"),
        ("sms", "delivered", "delivered"),
    ]
    tried = {line["provider"] for line in lines if line["state"] in ("retried", "provider_failed", "failed")}
    assert town.provider("B") in tried
    deliveries = {one["channel"]: one["state"] for one in await town.deliveries(event)}
    assert deliveries == {"email": "dead", "sms": "delivered"}


async def an_address_is_gone(town: Town, expected: Counter[tuple[str, str, str]]) -> None:
    """A mailbox that does not exist is asked for once; from then on, as for who never had one, the SMS goes out at once."""
    await town.settle("fay", email="fay@example.com", phone="+15005550109")
    await town.settle("gil", phone="+15005550110")
    for sink in town.mail.values():
        sink.plan("rcpt", "550 5.1.1 no such user", to="fay@example.com")
    event = await town.cluster.publish(**paid("fay", "S-140"))
    await town.until(lambda: town.got("fay", "sms", "S-140"), FALLBACK_SECONDS)  # a breaker may still be open
    lines = await town.logged(says("fell_back"), event=event)
    assert "5.1.1 no such user" in [line.get("detail") for line in lines if line["state"] == "failed"]
    found = await town.cluster.call("GET", "/v1/suppressions")
    assert [(one["address"], one["reason"]) for one in found["suppressions"]] == [
        ("fay@example.com", "bounce")
    ]
    asked = sum("RCPT" in line and "fay@" in line for sink in town.mail.values() for line in sink.commands)
    assert asked == 1
    for user, number in (("fay", "S-141"), ("gil", "S-142")):
        await town.cluster.publish(**paid(user, number))
        await town.until(lambda user=user, number=number: town.got(user, "sms", number))
    assert asked == sum(
        "RCPT" in line and "fay@" in line for sink in town.mail.values() for line in sink.commands
    )
    expected += Counter({("fay", "sms", "S-140"): 1, ("fay", "sms", "S-141"): 1, ("gil", "sms", "S-142"): 1})


async def mail_returns(town: Town, expected: Counter[tuple[str, str, str]]) -> None:
    """Back up: the breaker closes, and A gets the mail again."""
    town.rise()
    number = 130
    async with asyncio.timeout(150):
        while True:
            await town.cluster.publish(**paid("ada", f"S-{number}"))
            await town.until(lambda: town.got("ada", "email", f"S-{number}"), 120)  # noqa: B023
            expected["ada", "email", f"S-{number}"] += 1
            if town.provider("A") in {line["provider"] for line in await town.log(state="provider_back")}:
                break
            number += 1
            await asyncio.sleep(0.5)
    await town.cluster.publish(**paid("ada", "S-199"))
    await town.until(lambda: town.got("ada", "email", "S-199"))
    expected["ada", "email", "S-199"] += 1
    assert [one.by for one in town.got("ada", "email", "S-199")] == ["A"]


CHOICES: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"email", "web_push"}),
    ({"channels": {"email": False}}, {"web_push"}),
    ({"channels": {"web_push": False}}, {"email"}),
    ({"categories": {"orders": False, "parcels": {"web_push": False}}}, set()),
]


@pytest.mark.timeout(240)
async def test_a_sale_is_delivered_whole_by_two_senders(tmp_path: Path, database_url: str) -> None:
    """Twenty times the traffic at once: each message once, to whom it is for, whichever sender has it."""
    async with open_town(tmp_path / "data", database_url, mark=NUMBER, senders=2) as town:
        await town.define(SHOP)
        wants = {f"c{number}": CHOICES[number % 4] for number in range(24)}
        for user, (preferences, _) in wants.items():
            await town.settle(user, email=f"{user}@example.com", browsers=1, preferences=preferences)
        expected: Counter[tuple[str, str, str]] = Counter()
        events = []
        for number in range(600):
            user = f"c{number * 7 % 24}"
            is_paid = number % 3 > 0
            mark = f"S-{10_000 + number}"
            events.append(paid(user, mark) if is_paid else shipped(user, mark))
            if (channel := "email" if is_paid else "web_push") in wants[user][1]:
                expected[user, channel, mark] += 1
        for first in range(0, 600, 50):
            await town.cluster.publish_many(events[first : first + 50])
        await town.until(lambda: town.count() >= sum(expected.values()), 90)
        await town.cluster.drained()
        assert await town.cluster.ledger() == []
        assert town.everything() == expected
        assert town.count() == sum(expected.values())


# ---------------------------------------------------------------- clarion demo shop


@pytest.fixture
def home() -> Iterator[Path]:
    """Where somebody tries the demo. Its path is short, for the name of a Unix socket may be no longer than 100 bytes."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


def surroundings(folder: Path) -> dict[str, str]:
    """What a demo must not care about: a hub of the user's own, set in the environment and in `.env`."""
    (folder / ".env").write_text("CLARION_DATABASE_URL=postgresql://nobody@127.0.0.1:1/none\n")
    (folder / "t").mkdir()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("CLARION_")},
        "CLARION_REDIS_URL": "redis://127.0.0.1:1",
        "CLARION_DATA_DIR": str(folder / "mine"),
        "CLARION_PORT": "1",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(folder / "t"),
        "COLUMNS": "80",
        "LC_ALL": "C.UTF-8",
    }


@pytest.mark.timeout(420)
def test_the_demo_plays_it_for_a_newcomer(home: Path) -> None:
    environment = surroundings(home)
    done = subprocess.run(
        [sys.executable, "-m", "hub", "demo", "shop", "--fast", "--json"],
        cwd=home, env=environment, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    arrived = [line for line in lines if line["kind"] == "arrived"]
    first = [(line["user"], line["channel"], line["by"]) for line in arrived[:2]]
    assert first == [("Ada", "email", "mail server A"), ("Ada", "web_push", "the push service")]
    assert "Total: " in arrived[0]["text"]
    assert ("Dora", "sms", "the gateway") in [(line["user"], line["channel"], line["by"]) for line in arrived]
    assert {line["channel"] for line in arrived if line["user"] == "Ben"} == {"web_push"}
    said = [line["line"]["state"] for line in lines if line["kind"] == "logged"]
    assert {"provider_out", "fell_back", "delivered", "provider_back"} <= set(said)
    assert [line["ok"] for line in lines if line["kind"] == "checked"] == [True, True]
    [missing] = [line for line in lines if line["kind"] == "figures" and line["figure"] == "missing"]
    assert missing["sale"] == "0"
    assert list((home / "t").iterdir()) == []
    assert sorted(path.name for path in home.iterdir()) == [".env", "t"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_that_is_stopped_leaves_nothing(home: Path, number: int) -> None:
    environment = surroundings(home)
    command = [sys.executable, "-m", "hub", "demo", "shop", "--json"]
    with Running(command, environment, home) as demo:
        demo.line('"kind":"arrived"')
        children = _descendants(demo.process.pid)
        assert len(children) >= 4  # the supervisor, Valkey, node, generator, sender
        demo.process.send_signal(number)
        assert demo.end() == 130
        assert "Traceback" not in demo.said
    assert [pid for pid in children if is_alive(pid)] == []
    assert list((home / "t").iterdir()) == []


def _descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *_descendants(int(child))]
    return found
