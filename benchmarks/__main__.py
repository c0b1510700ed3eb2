"""`python -m benchmarks [WORKLOAD …]`: run workloads, print tables and targets, write the figures as JSON."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from benchmarks import machine
from benchmarks.bench import Bench
from benchmarks.load import LoadFailed
from benchmarks.native import BuildFailed, program
from benchmarks.report import document, print_results, print_targets, write_json
from benchmarks.servers.candidate import ServerFailed
from benchmarks.targets import verdicts
from benchmarks.workloads import WORKLOADS

RESULTS = Path(__file__).parent / "results"


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(WORKLOADS)}; all if none"
    )
    parser.add_argument("--rounds", type=int, help="how often each candidate runs (3; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="small numbers: a look in a minute or two")
    parser.add_argument("--connections", type=int, help="this many, instead of the workloads' own numbers")
    parser.add_argument("--json", type=Path, help="where the figures go (benchmarks/results/<moment>.json)")
    given = parser.parse_args(arguments)
    if given.rounds is None:
        given.rounds = 1 if given.quick else 3
    unknown = [name for name in given.workloads if name not in WORKLOADS]
    if unknown:
        parser.error(f"there is no workload {unknown[0]!r}; there are {', '.join(WORKLOADS)}")
    if given.rounds < 1 or (given.connections is not None and given.connections < 1):
        parser.error("--rounds and --connections are whole numbers from 1")
    return given


async def run(given: argparse.Namespace, bench: Bench) -> bool:
    """Run the workloads; False when one of them failed. The others run on."""
    is_good = True
    for name in given.workloads or WORKLOADS:
        try:
            await WORKLOADS[name](bench)
        except (LoadFailed, ServerFailed) as error:
            is_good = False
            bench.console.print(f"{name} failed: {error}", style="red", markup=False)
    return is_good


def main(arguments: Sequence[str]) -> int:
    """Everything; the exit code."""
    given = options(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if not hasattr(os, "sched_setaffinity"):
        console.print("The benchmarks need Linux: they pin processes and read the scheduler's counts.")
        return 1
    for name in [name for name in os.environ if name.startswith("CLARION_")]:
        del os.environ[name]  # settings of the shell must not reach the deployments measured here
    try:
        program("load"), program("floor")
    except BuildFailed as error:
        console.print(str(error), style="red", markup=False)
        return 1
    # Ended by SIGTERM, temporary folders and servers go as with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bench = Bench(given.rounds, given.quick, given.connections)
    if machine.SERVER_CORE == machine.LOAD_CORE:
        console.print("This machine gives us one core: servers and load share it, so ratios are blurred.")
    os.sched_setaffinity(0, {machine.LOAD_CORE})
    try:
        is_good = asyncio.run(run(given, bench))
    except KeyboardInterrupt:
        is_good = False
        console.print("Ended before its end; what was measured until then:", style="red")
    judged = verdicts(bench.results)
    print_results(bench.results, console)
    print_targets(judged, console)
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = given.json or RESULTS / f"{moment}.json"
    asked = {"workloads": given.workloads or list(WORKLOADS), "rounds": given.rounds, "quick": given.quick}
    write_json(path, document(bench.results, judged, {**asked, "connections": given.connections}))
    console.print(f"The figures are in {path}.", highlight=False)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
