"""`clarion up` as its users run it: one process that keeps the others alive, seen from outside through its port."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import httpx2
import msgspec

from hub.clock import SystemClock
from hub.config import load_settings
from hub.supervisor import free_port
from hub.tokens import Tokens
from tests.support.command import ROOT, SECONDS

_SAMPLE = re.compile(r'^clarion_connections\{process="([^"]+)",transport="\w+"\} (\d+)', re.MULTILINE)


class Machine:
    """A running `clarion up`. Every call goes through a connection of its own, so to whichever node the system takes."""

    def __init__(self, folder: Path, *args: str, **settings: str) -> None:
        """`settings`: further ones, by the names of their variables."""
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.nodes = [SimpleNamespace(url=self.url)]  # what listeners ask for: the one address
        others = {name: value for name, value in os.environ.items() if not name.startswith("CLARION_")}
        self.environment = {
            **others,
            "CLARION_DATA_DIR": str(folder / "data"),
            "CLARION_PORT": str(self.port),
            "PYTHONPATH": str(ROOT),
            **settings,
        }
        self.client = httpx2.AsyncClient(timeout=10.0, limits=httpx2.Limits(max_keepalive_connections=0))
        with (folder / "up.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "hub", "up", "--json", *args],
                cwd=folder, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self.greeting: dict[str, str] = {}

    def greeted(self) -> Self:
        """Wait until everything works, which it says."""
        assert self.process.stdout
        text = self.process.stdout.readline()
        assert text, self.log()
        self.greeting = msgspec.json.decode(text)
        return self

    async def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """A call with the API key, unless `headers` say otherwise."""
        headers = {"Authorization": f"Bearer {self.greeting['api_key']}"}
        return await self.client.request(method, self.url + path, **{"headers": headers, **options})

    def as_user(self, user: str) -> dict[str, str]:
        """The headers of a user's call."""
        config = load_settings(data_dir=self.folder / "data").with_generated_secrets(create=False)
        return {"Authorization": f"Bearer {Tokens(config.token_secrets, SystemClock()).issue(user, 3600)}"}

    async def connections(self) -> dict[str, int]:
        """How many live connections each process has."""
        found: dict[str, int] = {}
        for name, count in _SAMPLE.findall((await self.call("GET", "/metrics")).text):
            found[name] = found.get(name, 0) + int(count)
        return found

    def pids(self) -> dict[str, int]:
        """The process ids by name."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = {}
        for pid in children:
            with Path(f"/proc/{pid}/environ").open("rb") as environ:
                named = re.search(rb"\0CLARION_PROCESS_NAME=([^\0]+)\0", b"\0" + environ.read() + b"\0")
            if named:
                found[named[1].decode()] = int(pid)
        return found

    def log(self) -> str:
        """The end of what it logged."""
        return (self.folder / "up.log").read_text(errors="replace")[-4_000:]

    def end(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


@contextmanager
def running_machine(folder: Path, *args: str, **settings: str) -> Iterator[Machine]:
    """A machine that is gone at the end; its log is printed."""
    machine = Machine(folder, *args, **settings)
    try:
        yield machine.greeted()
    finally:
        print(machine.log())
        machine.process.kill()  # the kernel ends its children
        machine.process.communicate()
