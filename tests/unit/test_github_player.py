"""The player of the demo, against a small hub that only remembers what it was told."""

import io
import json
from collections import Counter
from typing import Any

import httpx2
import pytest
from rich.console import Console

from hub.demo.github import recorded_events
from hub.demo.player import Player, PlayFailed, play
from tests.support.github_rules import expected_inboxes

EVENTS = list(recorded_events())
BATCH, ONE = "/v1/events/batch", "/v1/events"


class RememberingHub(httpx2.AsyncBaseTransport):
    """Answers as CONTRACT says; `troubles` are answers (or errors) that come first for publishing calls."""

    def __init__(self, *troubles: httpx2.Response | Exception) -> None:
        self.troubles = list(troubles)
        self.calls: list[tuple[str, str, Any]] = []
        self.accepted: dict[str, dict[str, Any]] = {}
        self.refused_type = ""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(await request.aread() or "null")
        path = request.url.raw_path.decode()
        self.calls.append((request.method, path, body))
        if request.headers["Authorization"] != "Bearer right":
            return httpx2.Response(401, json={"code": "unauthorized", "detail": "this API key is unknown."})
        if path in (BATCH, ONE):
            if self.troubles:
                trouble = self.troubles.pop(0)
                if isinstance(trouble, Exception):
                    self.publish(path, body, request)  # it arrived, only the answer is lost
                    raise trouble
                return trouble
            return self.publish(path, body, request)
        return httpx2.Response(200, json={})

    def publish(self, path: str, body: Any, request: httpx2.Request) -> httpx2.Response:
        if path == ONE:
            result = self.accept(request.headers["Idempotency-Key"], body)
            return httpx2.Response(422 if "error" in result else 202, json=result.get("error", result))
        results = [
            self.accept(item["idempotency_key"], {k: v for k, v in item.items() if k != "idempotency_key"})
            for item in body
        ]
        return httpx2.Response(202, json={"results": results})

    def accept(self, key: str, event: dict[str, Any]) -> dict[str, Any]:
        if event["type"] == self.refused_type:
            return {"error": {"code": "unknown_type", "detail": "the type is unknown."}}
        assert self.accepted.setdefault(key, event) == event
        return {"id": f"evt_{key}", "status": "accepted"}

    def paths(self, method: str, prefix: str) -> list[str]:
        return [path for made, path, _ in self.calls if made == method and path.startswith(prefix)]


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def quiet() -> Console:
    return Console(file=io.StringIO(), width=100)


def player(hub: RememberingHub, time: Time) -> Player:
    client = httpx2.AsyncClient(
        base_url="http://hub", headers={"Authorization": "Bearer right"}, transport=hub
    )
    return Player(client, quiet(), "run", clock=time, sleep=time.sleep)


async def played(hub: RememberingHub, **options: Any) -> dict[str, Any]:
    return await play("http://hub", "right", run_id="run", console=quiet(), transport=hub, **options)


async def test_everything_is_defined_subscribed_and_published_in_order():
    hub = RememberingHub()
    report = await played(hub)
    assert (report["accepted"], report["rejected"], report["refusals"]) == (329, 0, [])
    assert list(hub.accepted.values()) == EVENTS
    assert len(hub.paths("PUT", "/v1/types/")) == 161
    assert len(hub.paths("PUT", "/v1/categories/")) == 11
    assert "/v1/topics/repo%3ACodertocat%3AHello-World/users/bob" in hub.paths("PUT", "/v1/topics/")
    wishes = {path: body for method, path, body in hub.calls if method == "PATCH"}
    assert wishes["/v1/users/bob/preferences"]["only"]["categories"]["issues"] == {"actors": ["Codertocat"]}
    assert not any("alice" in path for path in wishes)
    categories = [place for place, call in enumerate(hub.calls) if "/categories/" in call[1]]
    types = [place for place, call in enumerate(hub.calls) if "/types/" in call[1]]
    assert max(categories) < min(types)


async def test_the_watchers_would_find_what_the_rules_say():
    hub = RememberingHub()
    await played(hub)
    subscriptions: dict[str, set[str]] = {}
    for path in hub.paths("PUT", "/v1/topics/"):
        _, _, _, topic, _, user = path.replace("%3A", ":").split("/")
        subscriptions.setdefault(user, set()).add(topic)
    definitions = {p.split("/")[-1]: b for m, p, b in hub.calls if m == "PUT" and "/types/" in p}
    wishes = {path.split("/")[3]: body for method, path, body in hub.calls if method == "PATCH"}
    found = expected_inboxes(
        EVENTS, {name: one["category"] for name, one in definitions.items()}, subscriptions, wishes
    )
    assert Counter(EVENTS[place].get("actor") for place in found["bob"]) == {"Codertocat": 262}


async def test_the_same_run_again_changes_nothing():
    hub = RememberingHub()
    await played(hub)
    report = await played(hub)
    assert report["accepted"] == 329
    assert len(hub.accepted) == 329


async def test_another_run_and_a_repetition_are_new_events():
    hub = RememberingHub()
    await played(hub)
    report = await play("http://hub", "right", repeat=2, console=quiet(), transport=hub)
    assert report["accepted"] == 2 * 329
    assert list(hub.accepted.values()) == EVENTS * 3


async def test_a_quiet_run_prints_nothing(capsys: pytest.CaptureFixture[str]):
    await play("http://hub", "right", quiet=True, transport=RememberingHub())
    assert capsys.readouterr() == ("", "")


async def test_a_rate_holds_and_keeps_the_order():
    hub, time = RememberingHub(), Time()
    report = await player(hub, time).publish(EVENTS, rate=200)
    assert list(hub.accepted.values()) == EVENTS
    assert report.seconds == pytest.approx(328 / 200, abs=0.05)
    assert {path for _, path, _ in hub.calls} <= {ONE, BATCH}
    assert hub.paths("POST", ONE)


async def test_a_slow_hub_gets_what_is_due_together():
    time = Time()

    class Slow(RememberingHub):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            time.now += 0.05
            return await super().handle_async_request(request)

    hub = Slow()
    report = await player(hub, time).publish(EVENTS, rate=200)
    assert list(hub.accepted.values()) == EVENTS
    assert report.per_second > 180
    assert len(hub.calls) < 60


async def test_a_busy_hub_and_a_lost_answer_lose_and_double_nothing():
    busy = httpx2.Response(503, headers={"Retry-After": "2"}, json={"detail": "the queue is full."})
    hub, time = RememberingHub(busy, httpx2.ReadTimeout("no answer"), busy), Time()
    report = await player(hub, time).publish(EVENTS, rate=None)
    assert (report.accepted, report.rejected) == (329, 0)
    assert list(hub.accepted.values()) == EVENTS
    assert time.slept.count(2.0) == 2


async def test_a_hub_that_stays_busy_is_left_with_a_sentence():
    busy = [httpx2.Response(503, json={"detail": "the queue is full."}) for _ in range(100)]
    time = Time()
    with pytest.raises(PlayFailed, match=r"^the hub at http://hub/? does not answer: the queue is full\.$"):
        await player(RememberingHub(*busy), time).publish(EVENTS, rate=None)
    assert sum(time.slept) <= 30


async def test_rejected_events_are_counted_and_named():
    hub = RememberingHub()
    hub.refused_type = "github.push"
    console = Console(file=io.StringIO(), width=200)
    report = await play("http://hub", "right", run_id="run", console=console, transport=hub)
    assert (report["accepted"], report["rejected"]) == (322, 7)
    assert report["refusals"] == [{"type": "github.push", "reason": "the type is unknown.", "events": 7}]
    shown = console.file.getvalue()
    assert "322 events accepted, 7 rejected" in shown
    assert shown.count("github.push was rejected: the type is unknown.") == 1


async def test_a_wrong_key_is_told_at_once():
    with pytest.raises(PlayFailed, match="the API key is not accepted: this API key is unknown"):
        await play("http://hub", "wrong", run_id="run", console=quiet(), transport=RememberingHub())


@pytest.mark.parametrize("address", ["nonsense", "ftp://hub", "http://[", ""])
async def test_an_address_that_is_none(address: str):
    with pytest.raises(PlayFailed) as caught:
        await play(address, "right", run_id="run", console=quiet())
    assert "\n" not in str(caught.value)


async def test_nobody_at_the_address(unused_tcp_port: int):
    time = Time()
    client = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{unused_tcp_port}", trust_env=False)
    lonely = Player(client, quiet(), "run", clock=time, sleep=time.sleep)
    with pytest.raises(PlayFailed, match="does not answer"):
        await lonely.publish(EVENTS[:1], rate=None)
    assert sum(time.slept) <= 3


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 1e9])
async def test_a_rate_that_is_none(rate: float):
    with pytest.raises(PlayFailed, match="is not possible"):
        await play("http://hub", "right", run_id="run", rate=rate, console=quiet())
