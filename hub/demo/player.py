"""Plays recorded GitHub webhooks against a running hub, over its public HTTP API alone.

`play` applies the demo's types and categories, lets a few watchers subscribe, and publishes every event in order, at
once or at a rate. Every event carries an idempotency key, so whatever is repeated (a lost answer, the same `run_id`
again) is one event. A hub that is busy or away is asked again for a while; then `PlayFailed` says so in one sentence.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import quote

import httpx2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeElapsedColumn
from rich.text import Text

from hub.definitions import Definitions, read_folder
from hub.demo.github import recorded_events
from hub.errors import ClarionError
from hub.origins import is_loopback_host

Json = dict[str, Any]
BATCH_EVENTS = 100  # of 1,000 allowed: small enough for the bar to move
BATCH_BYTES = 4 * 1024 * 1024  # of 8 MiB allowed
FIRST_PATIENCE_SECONDS = 3.0  # until the hub has answered once: a wrong address should be told soon
PATIENCE_SECONDS = 30.0
SETUP_AT_ONCE = 8


class PlayFailed(ClarionError):
    """The demo cannot be played against this hub."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """A demo user: the topics they subscribe to (None: all that occur) and what they change in their preferences."""

    user: str
    story: str
    topics: tuple[str, ...] | None = None
    preferences: Json = field(default_factory=dict)


def watchers(categories: Iterable[str]) -> list[Watcher]:
    """The users of the demo. `alice` keeps the preferences that she has."""
    follow = {"categories": {category: {"actors": ["Codertocat"]} for category in sorted(categories)}}
    return [
        Watcher("alice", "watches every repository and organization"),
        Watcher("bob", "follows only Codertocat", preferences={"only": follow}),
        Watcher(
            "carol",
            "watches Codertocat/Hello-World, without checks and projects",
            topics=("repo:Codertocat:Hello-World",),
            preferences={"categories": {"checks": False, "projects": False}},
        ),
        Watcher("dave", "has muted Codertocat", preferences={"muted": {"actors": ["Codertocat"]}}),
    ]


def topics_of(events: Iterable[Json]) -> list[str]:
    """All topics that these events go to, each once, in order of appearance."""
    found: dict[str, None] = {}
    for event in events:
        entries = event["to"] if isinstance(event["to"], list) else [event["to"]]
        found |= {entry["topic"]: None for entry in entries if isinstance(entry, dict) and "topic" in entry}
    return list(found)


def demo_definitions() -> Definitions:
    """The types and categories that ship with the product."""
    return read_folder(Path(__file__).parent)


@dataclass(slots=True)
class Report:
    """What became of the events. `refusals`: type and reason of those that were rejected."""

    run_id: str
    accepted: int = 0
    rejected: int = 0
    seconds: float = 0.0
    refusals: list[tuple[str, str]] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answered events per second, from the first request to the last answer."""
        return (self.accepted + self.rejected) / self.seconds if self.seconds else 0.0

    def to_json(self) -> Json:
        """The report for programs."""
        return {
            "run_id": self.run_id,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "seconds": round(self.seconds, 3),
            "per_second": round(self.per_second, 1),
            "refusals": [
                {"type": kind, "reason": reason, "events": count}
                for (kind, reason), count in Counter(self.refusals).items()
            ],
        }


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Events per second so far."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="progress.data.speed")


class Player:
    """One run against one hub. `client` has the base URL and the key; `clock` and `sleep` are for tests."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        console: Console,
        run_id: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client, self._console, self._run_id = client, console, run_id
        self._clock, self._sleep = clock, sleep
        self._patience_seconds = FIRST_PATIENCE_SECONDS

    async def set_up(self, definitions: Definitions, people: Sequence[Watcher], topics: list[str]) -> None:
        """Define categories and types, then let the watchers subscribe. Doing it again changes nothing."""
        await self._each("PUT", _paths("/v1/categories/", definitions.categories))
        await self._each("PUT", _paths("/v1/types/", definitions.types))
        wanted = [
            (f"/v1/topics/{quote(topic, safe='')}/users/{quote(person.user, safe='')}", None)
            for person in people
            for topic in (topics if person.topics is None else person.topics)
        ]
        await self._each("PUT", wanted)
        wishes = {person.user: person.preferences for person in people if person.preferences}
        await self._each(
            "PATCH", [(f"{path}/preferences", body) for path, body in _paths("/v1/users/", wishes)]
        )

    async def publish(self, events: Sequence[Json], rate: float | None) -> Report:
        """Publish in order: in batches as fast as the hub answers, or `rate` events per second."""
        report = Report(self._run_id)
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=not self._console.is_terminal) as progress:
            bar = progress.add_task("GitHub webhooks", total=len(events))
            started = self._clock()
            async for group in self._groups(events, rate):
                await self._send([events[place] for place in group], group.start, report)
                progress.advance(bar, len(group))
            report.seconds = self._clock() - started
        return report

    async def _groups(self, events: Sequence[Json], rate: float | None) -> AsyncIterator[range]:
        if rate is None:
            for group in _batches(events):
                yield group
            return
        started, done = self._clock(), 0
        while done < len(events):
            # What is due goes out together, so the rate holds also where one answer takes longer than one event.
            due = min(int((self._clock() - started) * rate) + 1, len(events), done + BATCH_EVENTS)
            if due <= done:
                await self._sleep(max(started + done / rate - self._clock(), 0.001))
                continue
            yield range(done, due)
            done = due

    async def _send(self, events: list[Json], first: int, report: Report) -> None:
        keys = [f"demo-github-{self._run_id}-{first + place}" for place in range(len(events))]
        if len(events) == 1:
            headers = {"Idempotency-Key": keys[0]}
            answer = await self._request("POST", "/v1/events", events[0], headers)
            results = [_json(answer)] if answer.is_success else [{"error": _problem(answer)}]
        else:
            body = [{**event, "idempotency_key": key} for event, key in zip(events, keys, strict=True)]
            answer = await self._request("POST", "/v1/events/batch", body)
            results = _json(answer).get("results") or [{"error": _problem(answer)}] * len(events)
        if len(results) != len(events):
            raise PlayFailed(f"the hub answered {len(results)} results to {len(events)} events.")
        for event, result in zip(events, results, strict=True):
            if "error" in result:
                report.rejected += 1
                report.refusals.append((event["type"], _reason(result["error"])))
            else:
                report.accepted += 1

    async def _each(self, method: str, calls: Iterable[tuple[str, Json | None]]) -> None:
        places = asyncio.Semaphore(SETUP_AT_ONCE)

        async def call(path: str, body: Json | None) -> None:
            async with places:
                answer = await self._request(method, path, body)
            if not answer.is_success:
                raise PlayFailed(f"{method} {path} was refused: {_reason(_problem(answer))}")

        try:
            async with asyncio.TaskGroup() as group:
                for path, body in calls:
                    group.create_task(call(path, body))
        except* PlayFailed as failures:
            raise failures.exceptions[0] from None

    async def _request(
        self, method: str, path: str, body: Any, headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        """One call, again while the hub is busy or away, until the patience ends."""
        since, pause = self._clock(), 0.1
        content = {} if body is None else {"json": body}
        while True:
            try:
                answer = await self._client.request(method, path, headers=headers, **content)
            except httpx2.UnsupportedProtocol:
                raise PlayFailed(
                    f"{self._client.base_url} is no address of a hub; give one like http://127.0.0.1:8000."
                ) from None
            except httpx2.TransportError as error:
                trouble, wait = str(error) or type(error).__name__, pause
            else:
                self._patience_seconds = PATIENCE_SECONDS
                if answer.status_code in (401, 403):
                    raise PlayFailed(f"the API key is not accepted: {_reason(_problem(answer))}")
                if answer.status_code not in (429, 503):
                    return answer
                trouble, wait = _reason(_problem(answer)), _retry_after(answer) or pause
            if self._clock() + wait > since + self._patience_seconds:
                raise PlayFailed(
                    f"the hub at {self._client.base_url} does not answer: {trouble.rstrip('.')}."
                )
            await self._sleep(wait)
            pause = min(pause * 2, 2.0)


async def play(
    base_url: str,
    api_key: str,
    *,
    rate: float | None = None,
    repeat: int = 1,
    quiet: bool = False,
    run_id: str | None = None,
    console: Console | None = None,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> Json:
    """Set everything up at a hub and publish all recorded webhooks `repeat` times: at once, or `rate` per second.

    Prints who watches what, progress and sums unless `quiet`. Returns the report as JSON. Raises `PlayFailed`.
    """
    if rate is not None and not 0 < rate <= 100_000:
        raise PlayFailed(
            f"a rate of {rate:g} events per second is not possible; give one from above 0 to 100000."
        )
    console = console or Console(quiet=quiet)
    events, definitions = list(recorded_events()), demo_definitions()
    people = watchers(definitions.categories)
    async with _client(base_url, api_key, transport) as client:
        player = Player(client, console, run_id or token_hex(4))
        await player.set_up(definitions, people, topics_of(events))
        for person in people:
            console.print(f"[bold]{person.user}[/bold] {person.story}", highlight=False)
        report = await player.publish(events * repeat, rate)
    console.print(summary(report), highlight=False, markup=False)
    return report.to_json()


def summary(report: Report) -> str:
    """The report for people, one line and one more for each kind of refusal."""
    sums = (
        f"{report.accepted} events accepted, {report.rejected} rejected, {report.per_second:,.0f} per second"
    )
    lines = [f"Run {report.run_id}: {sums}."]
    lines += [f"  {kind} was rejected: {reason}" for kind, reason in dict.fromkeys(report.refusals)]
    return "\n".join(lines)


def _client(base_url: str, api_key: str, transport: httpx2.AsyncBaseTransport | None) -> httpx2.AsyncClient:
    try:
        return httpx2.AsyncClient(
            base_url=base_url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=30,
            transport=transport,
            trust_env=not is_loopback_host(httpx2.URL(base_url).host),  # no proxy stands before this machine
        )
    except (httpx2.InvalidURL, UnicodeEncodeError) as error:
        raise PlayFailed(f"the address or the API key cannot be used: {error}.") from None


def _batches(events: Sequence[Json]) -> Iterator[range]:
    """Ranges of events that fit into one request each."""
    start = size = 0
    for place, event in enumerate(events):
        weight = len(json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")) + 100
        if place > start and (place - start == BATCH_EVENTS or size + weight > BATCH_BYTES):
            yield range(start, place)
            start, size = place, 0
        size += weight
    if start < len(events):
        yield range(start, len(events))


def _paths(prefix: str, bodies: Mapping[str, Json]) -> list[tuple[str, Json | None]]:
    return [(prefix + quote(name, safe=""), body) for name, body in bodies.items()]


def _json(answer: httpx2.Response) -> Json:
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _problem(answer: httpx2.Response) -> Json:
    return _json(answer) or {"detail": f"status {answer.status_code}."}


def _reason(problem: Any) -> str:
    """A problem document, or the `error` of a batch item, as a sentence."""
    if not isinstance(problem, dict):
        return str(problem)
    return str(problem.get("detail") or problem.get("title") or problem.get("code") or "without a reason.")


def _retry_after(answer: httpx2.Response) -> float:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0
