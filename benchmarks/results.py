"""What was measured: figures per workload, case, candidate and round, with medians and ratios.

A ratio is the median of the ratios of single rounds, so that what disturbed both candidates of a round cancels out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

Key = tuple[str, str]  # workload, case
Figures = dict[str, float]


@dataclass(slots=True)
class Results:
    """Rounds of figures, in the order in which they came."""

    rounds: dict[Key, dict[str, list[Figures]]] = field(default_factory=dict)
    missing: dict[Key, dict[str, str]] = field(default_factory=dict)
    notes: dict[Key, list[str]] = field(default_factory=dict)

    def add(self, workload: str, case: str, candidate: str, **figures: float) -> None:
        """One round of one candidate."""
        self.rounds.setdefault((workload, case), {}).setdefault(candidate, []).append(figures)

    def lacks(self, workload: str, case: str, candidate: str, reason: str) -> None:
        """A candidate that could not take part."""
        self.missing.setdefault((workload, case), {})[candidate] = reason

    def note(self, workload: str, case: str, text: str) -> None:
        """A sentence below the table of a case."""
        notes = self.notes.setdefault((workload, case), [])
        if text not in notes:
            notes.append(text)

    def cases(self) -> Iterator[Key]:
        """Workloads and cases that have figures or say why not."""
        yield from dict.fromkeys([*self.rounds, *self.missing])

    def values(self, workload: str, case: str, candidate: str, figure: str) -> list[float]:
        """A figure's rounds; empty when it was not measured."""
        found = self.rounds.get((workload, case), {}).get(candidate, [])
        return [figures[figure] for figures in found if figure in figures]

    def median(self, workload: str, case: str, candidate: str, figure: str) -> float | None:
        """The middle of a figure's rounds."""
        values = self.values(workload, case, candidate, figure)
        return median(values) if values else None

    def ratio(self, figure: str, one: tuple[str, str, str], other: tuple[str, str, str]) -> float | None:
        """`one` divided by `other` (each workload, case, candidate), round by round, the median of it."""
        pairs = zip(self.values(*one, figure), self.values(*other, figure), strict=False)
        ratios = [first / second for first, second in pairs if second]
        return median(ratios) if ratios else None

    def as_json(self) -> list[dict[str, object]]:
        """All cases with their rounds."""
        return [
            {
                "workload": workload,
                "case": case,
                "candidates": {
                    name: {
                        figure: _summary(self.values(workload, case, name, figure))
                        for figure in _names(rounds)
                    }
                    for name, rounds in self.rounds.get((workload, case), {}).items()
                },
                "missing": self.missing.get((workload, case), {}),
                "notes": self.notes.get((workload, case), []),
            }
            for workload, case in self.cases()
        ]


def _names(rounds: list[Figures]) -> list[str]:
    return list(dict.fromkeys(name for figures in rounds for name in figures))


def _summary(values: list[float]) -> dict[str, object]:
    return {"median": median(values), "min": min(values), "max": max(values), "rounds": values}
