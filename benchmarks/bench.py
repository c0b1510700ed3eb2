"""One run: its options, its results, and how a phase of load is measured."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from rich.console import Console

from benchmarks import machine
from benchmarks.load import Answer
from benchmarks.results import Results
from benchmarks.servers.candidate import Candidate

SETTLE_SECONDS = 0.2  # after the last delivery: what the servers still do for it


@dataclass(slots=True)
class Bench:
    """What workloads get: how large and how often, and where figures go."""

    rounds: int = 3
    quick: bool = False
    connections: int | None = None
    results: Results = field(default_factory=Results)
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def say(self, text: str) -> None:
        """Progress, for whoever watches."""
        self.console.print(text, style="dim", highlight=False)

    def sizes(self, *full: int, quick: int) -> list[int]:
        """Numbers of connections: those asked for, else the workload's own, within the open-file limit."""
        most = machine.most_connections()
        wanted = [self.connections] if self.connections else [quick] if self.quick else full
        return list(dict.fromkeys(min(size, most) for size in wanted))

    def much(self, full: int, quick: int) -> int:
        """A count that `--quick` makes small."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of load: what clients saw, and the CPU of each view of the server in seconds."""

    answer: Answer
    cpu: dict[str, float]


async def measured(candidate: Candidate, phase: Callable[[], Awaitable[Answer]]) -> Phase:
    """Run a phase and count the candidate's CPU in it."""
    before = {name: machine.cpu_seconds(pids) for name, pids in candidate.views.items()}
    answer = await phase()
    await asyncio.sleep(SETTLE_SECONDS)
    cpu = {name: machine.cpu_seconds(pids) - before[name] for name, pids in candidate.views.items()}
    return Phase(answer, cpu)
