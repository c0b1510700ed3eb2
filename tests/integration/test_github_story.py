"""The recorded webhooks through a real deployment, at once and at 200 a second: everybody has what the rules say."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from hub.demo.github import recorded_events
from hub.demo.player import demo_definitions, play, topics_of, watchers
from hub.ports import LogQuery
from hub.wiring import open_store
from tests.support.cluster import API_KEY, Cluster, running_cluster
from tests.support.github_rules import expected_inboxes, named_users
from tests.support.listener import Listener, listening
from tests.support.processes import eventually

EVENTS = list(recorded_events())
DEFINITIONS = demo_definitions()
WATCHERS = watchers(DEFINITIONS.categories)
CONNECTED = ("alice", "bob", "carol", "octocat")
NOT_HUMAN = re.compile(r"\{\{|\}\}|\{'|\bNone\b|\bundefined\b|\bnull\b|[\x00-\x1f]|github\.[a-z_]+\.|^\W*$")


async def play_all(cluster: Cluster, run: str, rate: float | None) -> None:
    console = Console(file=io.StringIO())
    report = await play(cluster.nodes[0].url, API_KEY, rate=rate, run_id=run, console=console)
    assert (report["accepted"], report["rejected"], report["refusals"]) == (len(EVENTS), 0, [])
    print(f"{report['per_second']:.0f} events a second")  # said, not asserted: the machine may be busy


def expected() -> dict[str, list[int]]:
    """For each user the events of one run that they must find, by a naive restatement of the rules."""
    topics = topics_of(EVENTS)
    return expected_inboxes(
        EVENTS,
        {name: definition["category"] for name, definition in DEFINITIONS.types.items()},
        {one.user: set(topics if one.topics is None else one.topics) for one in WATCHERS},
        {one.user: one.preferences for one in WATCHERS},
    )


async def event_ids(cluster: Cluster, runs: Sequence[str]) -> dict[str, int]:
    """The place of each event in all runs together, by its id."""
    found: dict[str, int] = {}
    for run in runs:
        for place in range(len(EVENTS)):
            status = await cluster.call("GET", f"/v1/events/key:demo-github-{run}-{place}")
            assert status["status"] == "generated"
            assert status["recipients"] == status["in_app"] + status["suppressed"]
            found[status["id"]] = len(found)
    return found


def check_inbox(user: str, rows: list[dict[str, Any]], places: dict[str, int], runs: int) -> None:
    wanted = [run * len(EVENTS) + place for run in range(runs) for place in expected()[user]]
    for addressed in (True, False):  # between the two no order is promised
        assert [
            places[row["event"]]
            for row in rows
            if (user in named_users(EVENTS[places[row["event"]] % len(EVENTS)])) is addressed
        ] == [place for place in wanted if (user in named_users(EVENTS[place % len(EVENTS)])) is addressed]
    assert len({row["id"] for row in rows}) == len(rows)


def check_live(listener: Listener, rows: list[dict[str, Any]]) -> None:
    """What came live is what the inbox lists: the same notifications, and each channel in the inbox's order."""
    assert listener.gaps == 0
    live = [one.data["notification"] for one in listener.of_kind("notification")]
    shown = {row["id"]: row for row in rows}
    assert [one["id"] for one in live if one["topic"]] == [row["id"] for row in rows if row["topic"]]
    assert [one["id"] for one in live if not one["topic"]] == [row["id"] for row in rows if not row["topic"]]
    marks = ("seen_at", "read_at", "archived_at")
    for one in live:
        assert one == {**shown[one["id"]], **{mark: one[mark] for mark in marks}}


def check_texts(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        title = row["title"]
        assert 8 <= len(title) <= 300, row
        assert " " in title, row
        assert not NOT_HUMAN.search(title), row
        assert not NOT_HUMAN.search(row["body"] or "fine"), row
        assert row["url"] is None or re.match(r"https?://", row["url"]), row


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.req("R5", "R12", "R14", "R16", "R19")
async def test_every_watcher_has_what_the_rules_say(tmp_path: Path, database_url: str) -> None:
    async with (
        running_cluster(tmp_path / "data", database_url) as cluster,
        listening(cluster, *CONNECTED) as listeners,
    ):
        await play_all(cluster, "fast", None)
        await play_all(cluster, "steady", 200.0)
        await cluster.drained()
        places = await event_ids(cluster, ["fast", "steady"])
        sizes = {}
        for user in expected():
            rows = await cluster.inbox(user)
            check_inbox(user, rows, places, runs=2)
            check_texts(rows)
            sizes[user] = len(rows)
            if listener := listeners.get(user):
                await eventually(
                    lambda listener=listener, rows=rows: len(listener.titles) >= len(rows), what=user
                )
                check_live(listener, rows)
        print(sizes)
        assert sizes["alice"] > sizes["bob"] > sizes["carol"] > 0
        assert sum(1 for user, size in sizes.items() if size and user not in {w.user for w in WATCHERS}) > 3
        await check_log(cluster)
        assert await cluster.ledger() == []


async def check_log(cluster: Cluster) -> None:
    store = await open_store(cluster.settings)
    try:
        entries = await store.log(LogQuery(limit=100_000))
    finally:
        await store.close()
    assert sum(entry.state == "accepted" for entry in entries) == 2 * len(EVENTS)
    assert {entry.state for entry in entries} == {"accepted", "generated"}
    problems = {
        (entry.type, entry.detail) for entry in entries if entry.state == "generated" and entry.detail
    }
    assert problems == set(), "a template could not be rendered as it is written"
