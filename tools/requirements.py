"""Prints every promise of docs/requirements.md with the tests that carry its id, and says which have none."""

import contextlib
import io
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| ([RI]\d+) \| ([^|]+?) \|", re.MULTILINE)


class Collector:
    """A pytest plugin that notes which test functions carry which ids."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for marker in item.iter_markers("req"):
                for promise in marker.args:
                    self.tests[promise][item.nodeid.split("[")[0]] += 1


def main() -> int:
    promises = dict(ROW.findall((ROOT / "docs" / "requirements.md").read_text()))
    collector = Collector()
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        outcome = pytest.main(
            ["--collect-only", "-q", "--rootdir", str(ROOT), str(ROOT / "tests")], [collector]
        )
    if outcome not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        print(f"{shown.getvalue()}\nthe tests cannot be collected; see above")
        return 1
    for promise, text in promises.items():
        print(f"{promise:>4}  {text}")
        for name, cases in sorted(collector.tests[promise].items()):
            print(f"        {name}" + (f"  ({cases} cases)" if cases > 1 else ""))
        if not collector.tests[promise]:
            print("        no test yet")
    missing = [promise for promise in promises if not collector.tests[promise]]
    proven = len(promises) - len(missing)
    print(f"\n{proven} of {len(promises)} promises have tests; none yet: {' '.join(missing) or '-'}")
    if unknown := sorted(set(collector.tests) - set(promises)):
        print(f"tests name promises that do not exist: {' '.join(unknown)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
