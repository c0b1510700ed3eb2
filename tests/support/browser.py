"""Finds the Chromium that the end-to-end tests drive; `--install` brings one where that needs no questions.

Order: CLARION_TEST_CHROMIUM, what is on PATH, what Playwright has downloaded before, and,
as root on Debian, apt.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome-stable",
    "google-chrome",
    "chrome",
    "chromium-headless-shell",
)


def _downloaded() -> str | None:
    folders = [
        Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright"),
        Path.home() / "Library" / "Caches" / "ms-playwright",
    ]
    patterns = (
        "chromium-*/chrome-linux*/chrome",
        "chromium_headless_shell-*/*/headless_shell",
        "chromium-*/*/*/*/Chromium",
    )
    for folder in folders:
        for pattern in patterns:
            for path in sorted(folder.glob(pattern), reverse=True):
                return str(path)
    return None


def find_chromium() -> str | None:
    """The path of a Chromium to give to Playwright's `executable_path`, or None."""
    if named := os.environ.get("CLARION_TEST_CHROMIUM"):
        return named
    for name in NAMES:
        if path := shutil.which(name):
            return path
    return _downloaded()


def _apt_install() -> bool:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "-qq", "update"],
        ["apt-get", "-qq", "install", "-y", "--no-install-recommends", "chromium"],
    ):
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=300, check=False
        )
    return done.returncode == 0


def main() -> None:
    if find_chromium():
        return
    if "--install" in sys.argv:
        print("browser: no Chromium here, trying apt", file=sys.stderr)
        _apt_install()
    if not find_chromium():
        print("browser: no Chromium; its tests will be skipped (and fail under CI=true)", file=sys.stderr)


if __name__ == "__main__":
    main()
