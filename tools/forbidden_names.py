"""Fails when a file of the project names a package registry's host or a path of somebody's machine.

Both would tie the project to one place: a mirror could not serve it, and a clone elsewhere would break.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Written with classes and groups so that this file does not match itself.
FORBIDDEN = re.compile(
    rb"pypi[.]org|pythonhosted[.]org|registry[.]npmjs|registry[.]yarnpkg|npmmirror[.]|[/]work/(?:main|shared)|"
    rb"[/]home/[a-z]|[/]Users/[A-Za-z]|[/]root/|[/]opt/(?:pypi|wheels)|[/]tmp/v/|extra-index-url|find-links"
)
# Recorded input from the outside is data: it may name whatever it names.
DATA = ("tests/data/",)


def tracked_files() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [name for name in listing.stdout.decode().split("\0") if name]


def findings() -> list[str]:
    found = []
    for name in tracked_files():
        path = ROOT / name
        if name.startswith(DATA) or not path.is_file() or path == Path(__file__).resolve():
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if match := FORBIDDEN.search(line):
                found.append(f"{name}:{number}: names {match.group().decode()!r}")
    return found


if __name__ == "__main__":
    problems = findings()
    print("\n".join(problems) or "no registry host and no machine path is named")
    sys.exit(bool(problems))
