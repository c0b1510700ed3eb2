"""What the product promises of itself, and what this run says about it.

A ratio is clean when both sides ran in the same rounds. Broadcasts are judged by the whole product (node, generator and
Valkey together); the row of the node alone stands beside it. What was not measured in a run has no verdict.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.results import Results

HUB, NODE = "Clarion", "Clarion, node alone"
FLOOR, LOOP, NCHAN = "floor (C, send)", "Starlette, send_text loop", "nginx + nchan"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target with what was measured; `most`: whether a smaller value is the better one."""

    name: str
    value: float | None
    must: float
    aim: float
    unit: str = " ×"
    most: bool = True
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
        return self.value <= bound if self.most else self.value >= bound

    def limit(self, bound: float) -> str:
        """A bound as the tables show it."""
        return f"{'≤' if self.most else '≥'} {bound:,g}{self.unit}"

    def as_json(self) -> dict[str, object]:
        """For programs."""
        fields = {"figure": self.name, "measured": self.value, "must": self.must, "aim": self.aim}
        return {**fields, "unit": self.unit.strip(), "verdict": self.word}


def verdicts(results: Results) -> list[Verdict]:
    """All targets."""
    return [verdict for judge in (_broadcasts,) for verdict in judge(results)]


def _largest(results: Results, workload: str, suffix: str, most: int = 10_000) -> str:
    """The case of most connections up to `most`, for runs of another size than the target's."""
    cases = [
        case
        for name, case in results.cases()
        if name == workload and case.endswith(f" connections, {suffix}")
    ]
    sized = sorted((int(case.split()[0]), case) for case in cases)
    fitting = [case for size, case in sized if size <= most]
    return fitting[-1] if fitting else sized[0][1] if sized else ""


def _broadcasts(results: Results) -> Sequence[Verdict]:
    steady, flight = (_largest(results, "broadcast", name) for name in ("3 a second", "eight in flight"))
    found = []
    for view, tail in ((HUB, ""), (NODE, ", node alone")):
        cpu = _cpu(results, "broadcast", steady, view)
        found += [
            Verdict(f"CPU per broadcast delivery against the floor{tail}", cpu(FLOOR), 1.6, 1.25),
            Verdict(f"… against nchan{tail}", cpu(NCHAN), 1.0, 0.85),
            Verdict(f"… against await send_text in a loop{tail}", cpu(LOOP), 0.55, 0.45),
        ]
        ratio = results.ratio("cpu_us", ("broadcast", flight, view), ("broadcast", steady, view))
        found.append(Verdict(f"eight in flight against one in flight{tail}", ratio, 0.35, 0.2))
    for view, tail in ((HUB, ""), (NODE, ", node alone")):
        cpu = _cpu(results, "sse", _largest(results, "sse", "3 a second"), view)
        found.append(Verdict(f"SSE against nchan{tail}", cpu(NCHAN), 0.9, 0.7))
    return found


def _cpu(results: Results, workload: str, case: str, view: str) -> Callable[[str], float | None]:
    return lambda other: results.ratio("cpu_us", (workload, case, view), (workload, case, other))
