"""A fresh clone on a machine with Python, pip and make: `make up`, and what it prints works as it is printed."""

import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.processes import is_alive

ROOT = Path(__file__).resolve().parent.parent.parent


class Up:
    """A running `make up` and what it printed."""

    def __init__(self, clone: Path, port: int, home: Path) -> None:
        kept = {name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "UV_", "SSL_"))}
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CLARION_PORT": str(port),
            "LC_ALL": "C.UTF-8",
            **kept,
        }
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            ["make", "up", f"PYTHON={sys.executable}"],
            cwd=clone, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.text = self._read_until("curl http")
        self.seconds = time.monotonic() - self.began

    def _read_until(self, last: str) -> str:
        assert self.process.stdout
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if last in line:
                break
        else:
            pytest.fail(f"make up ended: {''.join(lines)}")
        return "".join(lines)

    def printed(self, pattern: str) -> str:
        match = re.search(pattern, self.text)
        assert match, self.text
        return match[1]

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGINT)  # Ctrl-C
        assert self.process.stdout
        self.process.stdout.read()
        self.process.wait(30)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the project as a clone would have them, with what is not committed yet."""
    target = tmp_path_factory.mktemp("clone")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listing.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def shell(line: str) -> str:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=30, check=True).stdout


def first_notification(line: str, publish: str) -> str:
    """Run the printed line that listens, then the one that publishes, until the notification's data comes."""
    with subprocess.Popen(["bash", "-c", f"exec {line} -sS"], stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout
        kind = ""
        for text in listener.stdout:
            if text.startswith("event:"):
                kind = text.split(":", 1)[1].strip()
                if kind == "ready":
                    assert json.loads(shell(f"{publish} -sS"))["status"] == "accepted"
            elif text.startswith("data:") and kind == "notification":
                listener.kill()
                return text.removeprefix("data:")
    pytest.fail("the stream ended")


def round_trips(base: str, key: str, token: str, count: int) -> Iterator[float]:
    """Seconds from the request of each event to its arrival on an open stream."""
    with (
        httpx2.Client(base_url=base, timeout=20) as client,
        httpx2.stream("GET", f"{base}/v1/me/stream", params={"token": token}, timeout=20) as stream,
    ):
        lines = stream.iter_lines()
        next(line for line in lines if line.replace(" ", "") == "event:ready")
        for number in range(count):
            began = time.perf_counter()
            event = {"to": "alice", "title": f"number {number}"}
            answer = client.post("/v1/events", json=event, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == 202
            next(line for line in lines if line.startswith("data:") and f'"number {number}"' in line)
            yield time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.req("R33")
@pytest.mark.req("R23")
@pytest.mark.timeout(180)
def test_make_up_works_on_a_fresh_machine(clone: Path, tmp_path: Path, free_port: int) -> None:
    up = Up(clone, free_port, tmp_path)
    try:
        assert f"http://127.0.0.1:{free_port}/dashboard" in up.text
        assert "new EventSource(" in up.text
        listen = up.printed(r"(curl -N '[^']+')")
        publish = up.printed(r"(curl http\S+/v1/events .*)")
        notification = json.loads(first_notification(listen, publish))["notification"]
        assert notification["title"] == "Hello"

        key, token = up.printed(r"API key\s+(\S+)"), up.printed(r"stream\?token=([^']+)")
        times = list(round_trips(f"http://127.0.0.1:{free_port}", key, token, 40))
        # Said, not asserted: the machine may be busy with something else.
        print(
            f"first start {up.seconds:.1f} s, publish to stream {statistics.median(times) * 1000:.1f} ms (median)"
        )
    finally:
        up.stop()
    supervisor = int((clone / "data" / "up.lock").read_text())
    assert not is_alive(supervisor)

    again = Up(clone, free_port, tmp_path)
    try:
        assert again.printed(r"API key\s+(\S+)") == key
        inbox = httpx2.get(
            f"http://127.0.0.1:{free_port}/v1/me/notifications", headers={"Authorization": f"Bearer {token}"}
        ).json()
        assert "Hello" in {item["title"] for item in inbox["notifications"]} or inbox["next"]
    finally:
        again.stop()
