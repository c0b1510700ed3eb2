"""R37 on real processes: posts, comments and messages; live with the app open, by push with it closed.

That a real browser shows the push is another test's; here the push service decrypts it.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import hub.demo.social
from tests.support.command import ROOT
from tests.support.listener import listening
from tests.support.processes import eventually
from tests.support.town import Town, open_town, says

pytestmark = [pytest.mark.req("R37", "I7"), pytest.mark.slow]

SOCIAL = Path(hub.demo.social.__file__).parent
MARK = r"[pcm]\d+"


def post(actor: str, text: str) -> dict[str, Any]:
    return {
        "type": "post.created",
        "to": {"topic": "club"},
        "actor": actor,
        "data": {"post": 1, "text": text},
    }


def comment(actor: str, to: str, text: str) -> dict[str, Any]:
    return {"type": "comment.created", "to": to, "actor": actor, "data": {"post": 1, "text": text}}


def message(actor: str, to: str, text: str) -> dict[str, Any]:
    return {"type": "message.sent", "to": to, "actor": actor, "data": {"text": text}}


@pytest.mark.timeout(240)
async def test_the_whole_story(tmp_path: Path, database_url: str) -> None:
    async with open_town(tmp_path / "data", database_url, mark=MARK) as town:
        await town.define(SOCIAL)
        only_carol = {"only": {"categories": {"posts": {"actors": ["carol"]}}}}
        await town.settle("carol", name="Carol", email="carol@example.com", topics=("club",))
        await town.settle("finn", name="Finn", topics=("club",))
        await town.settle(
            "dan", name="Dan", email="dan@example.com", browsers=1, preferences=only_carol, topics=("club",)
        )
        await town.settle("eve", name="Eve", email="eve@example.com", browsers=1, topics=("club",))
        await town.settle("gus", name="Gus", email="gus@example.com", browsers=1)  # follows nothing
        expected: Counter[tuple[str, str, str]] = Counter()
        await posts(town, expected)
        await messages(town, expected)
        await comments(town, expected)
        await opening_the_app(town)

        assert town.everything() == expected
        assert town.count() == sum(expected.values())
        assert town.push.refused == []
        await town.cluster.drained()
        assert await town.cluster.ledger() == []


async def posts(town: Town, expected: Counter[tuple[str, str, str]]) -> None:
    """Live to whoever has the app open; by push to whoever has not; to each only what they follow."""
    async with listening(town.cluster, "carol", "gus") as listeners:
        await town.cluster.publish(**post("finn", "p1"))
        await town.cluster.publish(**post("carol", "p2"))
        await town.until(lambda: town.got("eve", "web_push", "p1") and town.got("eve", "web_push", "p2"))
        await town.until(lambda: town.got("dan", "web_push", "p2"))
        assert listeners["carol"].titles == ["Finn: p1"]  # not her own
        assert listeners["gus"].titles == []
    expected += Counter(
        {("eve", "web_push", "p1"): 1, ("eve", "web_push", "p2"): 1, ("dan", "web_push", "p2"): 1}
    )
    assert await town.cluster.titles("dan") == ["Carol: p2"]
    assert await town.cluster.titles("eve") == ["Finn: p1", "Carol: p2"]

    async with listening(town.cluster, "dan", "eve") as listeners:
        events = [
            await town.cluster.publish(**post("finn", "p3")),
            await town.cluster.publish(**post("carol", "p4")),
        ]
        await eventually(lambda: listeners["eve"].titles == ["Finn: p3", "Carol: p4"])
        await eventually(lambda: listeners["dan"].titles == ["Carol: p4"])
        for event in events:
            await town.ended(event)  # and nothing was sent, as the end of the test shows


async def messages(town: Town, expected: Counter[tuple[str, str, str]]) -> None:
    """App open: live, no push. App closed: push."""
    async with listening(town.cluster, "eve") as listeners:
        event = await town.cluster.publish(**message("dan", "eve", "m1"))
        lines = await town.logged(says("cancelled"), event=event)
        assert listeners["eve"].titles == ["Dan wrote to you"]
        cancelled = [(line["channel"], line["reason"]) for line in lines if line["state"] == "cancelled"]
        assert cancelled == [("web_push", "reached")]
    await town.cluster.publish(**message("dan", "eve", "m2"))
    await town.until(lambda: town.got("eve", "web_push", "m2"))
    expected["eve", "web_push", "m2"] += 1


async def comments(town: Town, expected: Counter[tuple[str, str, str]]) -> None:
    """Many comments, one mail with all of them, oldest first."""
    for number in range(5):
        await town.cluster.publish(**comment("dan", "carol", f"c{number}"))
    await town.until(lambda: town.got("carol", "email", "c4"))
    [mail] = town.got("carol", "email", "c0")
    assert mail.title == "5 new comments"
    places = [mail.text.index(f"c{number}") for number in range(5)]
    assert places == sorted(places)
    expected["carol", "email", "c0"] += 1


async def opening_the_app(town: Town) -> None:
    """Marks over the API: nothing of what was seen is mailed."""
    events = [
        await town.cluster.publish(**comment("carol", "gus", "c8")),
        await town.cluster.publish(**comment("dan", "gus", "c9")),
    ]
    for event in events:
        assert [(one["channel"], one["state"]) for one in await town.deliveries(event)] == [("email", "held")]
    await mark_all_seen(town, "gus")
    for event in events:
        lines = await town.logged(says("cancelled"), event=event)
        assert [line["reason"] for line in lines if line["state"] == "cancelled"] == ["seen"]
        assert [one["state"] for one in await town.deliveries(event)] == ["cancelled"]


async def mark_all_seen(town: Town, user: str) -> None:
    await town.cluster.call(
        "POST",
        "/v1/me/notifications/marks",
        json={"mark": "seen", "all": True},
        headers=town.cluster.as_user(user),
    )


@pytest.mark.timeout(240)
def test_the_demo_plays_it_for_a_newcomer() -> None:
    with TemporaryDirectory() as home:  # a short path: names of Unix sockets must not be long
        plays_it_for_a_newcomer(Path(home))


def plays_it_for_a_newcomer(home: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CLARION_")},
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "80",
        "TMPDIR": str(home),
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        [sys.executable, "-m", "hub", "demo", "social", "--fast", "--json"],
        cwd=home, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    arrived = [(line["user"], line["channel"]) for line in lines if line["kind"] == "arrived"]
    assert arrived == [
        ("Dan", "web_push"),
        ("Eve", "web_push"),
        ("Eve", "web_push"),
        ("Carol", "email"),
        ("Eve", "web_push"),
    ]
    shown = [line["what"] for line in lines if line["kind"] == "shown"]
    assert shown[:2] == ["Finn: Rain again.", "Carol: Snow on the hills."]
    assert [line["ok"] for line in lines if line["kind"] == "checked"] == [True, True]
    assert list(home.iterdir()) == []
