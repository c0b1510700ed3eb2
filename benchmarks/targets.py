"""What the product promises of itself, and what this run says about it.

A ratio is clean when both sides ran in the same rounds. Broadcasts are judged by the whole product (node, generator and
Valkey together); the row of the node alone stands beside it. What was not measured in a run has no verdict.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.results import Results
from benchmarks.workloads import backfill, bus

HUB, NODE = "Clarion", "Clarion, node alone"
FLOOR, LOOP, NCHAN = "floor (C, send)", "Starlette, send_text loop", "nginx + nchan"
ALONE = ", node alone"
CONNECTIONS = 10_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target with what was measured. `is_upper`: the bounds are upper ones, so that less is better."""

    name: str
    value: float | None
    must: float
    aim: float
    unit: str = " ×"
    is_upper: bool = True
    digits: int = 2

    @property
    def word(self) -> str:
        """How it ended."""
        if self.value is None:
            return "not measured"
        if self._holds(self.aim):
            return "aim met"
        return "met" if self._holds(self.must) else "MISSED"

    def _holds(self, bound: float) -> bool:
        assert self.value is not None
        return self.value <= bound if self.is_upper else self.value >= bound

    def limit(self, bound: float) -> str:
        """A bound as the tables show it."""
        return f"{'≤' if self.is_upper else '≥'} {bound:,g}{self.unit}"

    def as_json(self) -> dict[str, object]:
        """For programs."""
        fields = {"figure": self.name, "measured": self.value, "must": self.must, "aim": self.aim}
        return {**fields, "unit": self.unit.strip(), "verdict": self.word}


def verdicts(results: Results) -> list[Verdict]:
    """All targets, in the order of the list that was promised."""
    judges = (_broadcasts, _streams, _memory, _handshakes, _ingest, _generator, _bus, _latencies, _backfill)
    return [verdict for judge in judges for verdict in judge(results)]


def _largest(results: Results, workload: str, suffix: str) -> str:
    """The case of the target's 10,000 connections, else the largest below it, else the smallest above."""
    ending = f" connections, {suffix}"
    cases = [case for name, case in results.cases() if name == workload and case.endswith(ending)]
    sized = sorted((int(case.split()[0]), case) for case in cases)
    fitting = [case for size, case in sized if size <= CONNECTIONS]
    return fitting[-1] if fitting else sized[0][1] if sized else ""


def _cpu(results: Results, workload: str, case: str, view: str, other: str) -> float | None:
    return results.ratio("cpu_us", (workload, case, view), (workload, case, other))


def _broadcasts(results: Results) -> Iterator[Verdict]:
    steady, flight = (_largest(results, "broadcast", name) for name in ("3 a second", "eight in flight"))
    for view, tail in ((HUB, ""), (NODE, ALONE)):
        for other, name, must, aim in (
            (FLOOR, "the floor", 1.6, 1.25),
            (NCHAN, "nchan", 1.0, 0.85),
            (LOOP, "await send_text in a loop", 0.55, 0.45),
        ):
            cpu = _cpu(results, "broadcast", steady, view, other)
            yield Verdict(f"CPU per broadcast delivery against {name}{tail}", cpu, must, aim)
        ratio = results.ratio("cpu_us", ("broadcast", flight, view), ("broadcast", steady, view))
        yield Verdict(f"eight broadcasts in flight against one{tail}", ratio, 0.35, 0.2)


def _streams(results: Results) -> Iterator[Verdict]:
    steady = _largest(results, "sse", "3 a second")
    for view, tail in ((HUB, ""), (NODE, ALONE)):
        cpu = _cpu(results, "sse", steady, view, NCHAN)
        yield Verdict(f"CPU per delivery over SSE against nchan{tail}", cpu, 0.9, 0.7)


def _memory(results: Results) -> Iterator[Verdict]:
    for transport in ("WebSocket", "SSE"):
        idle = results.median("memory", f"idle connection, {transport}", NODE, "kilobytes")
        yield Verdict(f"memory per idle connection, {transport}", idle, 6, 3, " KB")
    redis = results.median("memory", "Redis, connected user with one notification", HUB, "kilobytes")
    yield Verdict("Redis memory per connected user with one notification", redis, 1.5, 0.8, " KB")


def _handshakes(results: Results) -> Iterator[Verdict]:
    for view, tail in ((HUB, ""), (NODE, ALONE)):
        cpu = _cpu(results, "handshakes", "WebSocket", view, LOOP)
        yield Verdict(f"CPU per handshake against stock uvicorn and Starlette{tail}", cpu, 0.6, 0.35)


def _ingest(results: Results) -> Iterator[Verdict]:
    single = "one event a request"
    for view, other, tail in (
        (HUB, "Starlette, awaited XADD", ""),
        (NODE, "Starlette, app alone", ", without the Valkeys"),
    ):
        cpu = _cpu(results, "ingest", single, view, other)
        yield Verdict(f"CPU of POST /v1/events against one awaited XADD a request{tail}", cpu, 0.6, 0.4)
    rate = results.median("ingest", "batches of 1,000", HUB, "events_per_s")
    yield Verdict("durable batch ingest", rate, 60_000, 150_000, "/s", is_upper=False, digits=0)


def _generator(results: Results) -> Iterator[Verdict]:
    rate = results.median("generator", "SQLite, one recipient", HUB, "events_per_s")
    name = "one generator to SQLite, one recipient per event"
    yield Verdict(name, rate, 6_000, 12_000, "/s", is_upper=False, digits=0)


def _bus(results: Results) -> Iterator[Verdict]:
    for case in (bus.BURSTS, bus.SINGLY):
        for library in (bus.LIBRARY, bus.TUNED):
            ratio = results.ratio("cpu_us", ("bus", case, library), ("bus", case, HUB))
            how = case.removeprefix("receiving, ")
            yield Verdict(f"bus receive {how} against {library}", ratio, 4, 6, is_upper=False)


def _latencies(results: Results) -> Iterator[Verdict]:
    late = results.median("targeted", "HTTP, 1000 a second", HUB, "p99_ms")
    yield Verdict("targeted over HTTP, 1,000 a second, p99", late, 50, 20, " ms", digits=1)
    herd = results.median("reconnect", "all at once", HUB, "seconds")
    yield Verdict("10,000 reconnecting with a gap each", herd, 20, 10, " s", digits=1)


def _backfill(results: Results) -> Iterator[Verdict]:
    """At the same pace: whoever sends without a pause never has to wake the other side, which is half of a message."""
    for scene, what, must, aim, fast in (
        (backfill.MAIL_SOME, "e-mail, 16 connections", 3, 2, 6),
        (backfill.MAIL_FEW, "e-mail, 4 connections", 4, 2, 10),
        (backfill.PUSH, "web push", 2, 1.5, 4),
    ):
        for pace, bound, how in (
            (backfill.SAME_PACE, must, "at its pace"),
            ("", fast, "as fast as that goes"),
        ):
            cpu = _cpu(results, "backfill", scene.case, backfill.ALONE, scene.kind.bare + pace)
            yield Verdict(f"CPU of a sender per {what}, against a bare loop {how}", cpu, bound, aim)
    large = ("backfill", backfill.MAIL_LARGE.case, backfill.ALONE)
    start, peak = (results.median(*large, name) for name in ("start_mb", "peak_mb"))
    grown = None if start is None or peak is None else peak - start
    name = "memory that a sender takes for a backlog of 100,000 e-mails"
    yield Verdict(name, grown, 60, 30, " MB", digits=0)
