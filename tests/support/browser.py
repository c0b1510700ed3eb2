"""Finds the browsers that the end-to-end tests drive; `--install` brings them where that needs no questions.

Chromium: CLARION_TEST_CHROMIUM, what is on PATH, what Playwright has downloaded before, and, as root on Debian, apt.
Firefox: CLARION_TEST_FIREFOX, what is on PATH, apt.
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
FIREFOX_NAMES = ("firefox-esr", "firefox")


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


def find_firefox() -> str | None:
    """The path of a Firefox that runs with profiles of its own, or None."""
    if named := os.environ.get("CLARION_TEST_FIREFOX"):
        return named
    return next((path for name in FIREFOX_NAMES if (path := shutil.which(name))), None)


def _apt_install(*packages: str) -> bool:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "-qq", "update"],
        ["apt-get", "-qq", "install", "-y", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=300, check=False
        )
    return done.returncode == 0


def main() -> None:
    wanted = {"Chromium": (find_chromium, "chromium"), "Firefox": (find_firefox, "firefox-esr")}
    missing = {name: package for name, (find, package) in wanted.items() if not find()}
    if missing and "--install" in sys.argv:
        print(f"browser: no {' and no '.join(missing)} here, trying apt", file=sys.stderr)
        _apt_install(*missing.values())
    for name in missing:
        if not wanted[name][0]():
            print(f"browser: no {name}; its tests will be skipped (and fail under CI=true)", file=sys.stderr)


if __name__ == "__main__":
    main()
