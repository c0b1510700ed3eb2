"""The report: one table per case with medians, least and most of the rounds, the targets, and the JSON file."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.results import Results
from benchmarks.targets import Verdict

# What the columns are called, and how many digits after the point say something.
_COLUMNS = {
    "cpu_us": ("CPU µs", 2),
    "deliveries_per_s": ("deliveries/s", 0),
    "events_per_s": ("events/s", 0),
    "notifications_per_s": ("notifications/s", 0),
    "messages_per_s": ("messages/s", 0),
    "per_second": ("a second", 0),
    "p50_ms": ("p50 ms", 1),
    "p99_ms": ("p99 ms", 1),
    "max_ms": ("max ms", 1),
    "bytes": ("bytes each", 0),
    "kilobytes": ("KB each", 2),
    "node_growth_mb": ("node grew by MB", 1),
    "ratio": ("×", 2),
    "seconds": ("seconds", 2),
    "start_mb": ("MB at start", 0),
    "peak_mb": ("MB at most", 0),
    "redis_commands": ("Redis commands", 2),
    "statements": ("statements", 2),
    "transactions": ("transactions", 2),
}


_NOT_SHOWN = frozenset({"deliveries"})  # in the JSON alone


def print_results(results: Results, console: Console) -> None:
    """All tables."""
    for workload, case in results.cases():
        console.print(f"{workload}: {case}", style="bold", highlight=False)
        console.print(_table(results, workload, case))
        for note in results.notes.get((workload, case), []):
            console.print(f"  {note}", style="dim", highlight=False)
        console.print()


def _table(results: Results, workload: str, case: str) -> Table:
    rows = results.rounds.get((workload, case), {})
    names = list(
        dict.fromkeys(
            name for rounds in rows.values() for one in rounds for name in one if name not in _NOT_SHOWN
        )
    )
    table = Table("candidate")
    for name in names:
        table.add_column(_COLUMNS.get(name, (name.replace("_", " "), 0))[0], justify="right")
    for candidate in rows:
        cells = [spread(results.values(workload, case, candidate, name), name) for name in names]
        table.add_row(candidate, *cells)
    for candidate, reason in results.missing.get((workload, case), {}).items():
        table.add_row(candidate, *[reason, *[""] * (len(names) - 1)][: len(names)])
    return table


def spread(values: Sequence[float], figure: str) -> str:
    """`median (least–most)`; one round has no spread."""
    if not values:
        return ""
    digits = _COLUMNS.get(figure, (figure, 0))[1]
    ordered = sorted(values)
    half = len(ordered) // 2
    middle = ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
    text = f"{middle:,.{digits}f}"
    return text if len(ordered) == 1 else f"{text} ({ordered[0]:,.{digits}f}–{ordered[-1]:,.{digits}f})"


def print_targets(verdicts: Sequence[Verdict], console: Console) -> None:
    """The targets of what was measured, met or missed."""
    table = Table(title="targets", title_justify="left", title_style="bold")
    for name in ("figure", "measured", "must", "aim", ""):
        table.add_column(name, justify="left" if name in ("figure", "") else "right")
    for verdict in verdicts:
        if verdict.value is not None:
            bounds = verdict.limit(verdict.must), verdict.limit(verdict.aim)
            measured = f"{verdict.value:,.{verdict.digits}f}{verdict.unit}"
            table.add_row(verdict.name, measured, *bounds, verdict.word)
    if table.row_count:
        console.print(table)
    if missing := len(verdicts) - table.row_count:
        console.print(f"{missing} targets were not measured in this run.", style="dim", highlight=False)


def document(results: Results, verdicts: Sequence[Verdict], options: dict[str, Any]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.description(),
        "options": options,
        "results": results.as_json(),
        "targets": [verdict.as_json() for verdict in verdicts],
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write the document, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
