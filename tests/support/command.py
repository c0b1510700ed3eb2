"""The command line as its users run it: real processes, what they print, and how they end."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.support.cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS = 60
AT_ONCE = 3


@dataclass(frozen=True)
class Ended:
    """A command that ended."""

    args: tuple[str, ...]
    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one JSON document that it printed."""
        assert self.code == 0, self
        return msgspec.json.decode(self.stdout)

    @property
    def sentence(self) -> str:
        """What it complained about: one line on standard error, nothing else anywhere."""
        assert "Traceback" not in self.stderr, self.stderr
        [line] = [line for line in self.stderr.splitlines() if "[warning" not in line and "[info" not in line]
        assert line.startswith("clarion: "), self
        assert not self.stdout, self
        return line.removeprefix("clarion: ")


class Shell:
    """Runs `clarion` with the environment of a deployment."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment = {**environment, "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
        self.folder = folder

    def but(self, **environment: str) -> "Shell":
        """The same with other settings (`port="1"` is CLARION_PORT)."""
        others = {f"CLARION_{name.upper()}": value for name, value in environment.items()}
        return Shell({**self.environment, **others}, self.folder)

    def __call__(self, *args: str, stdin: bytes = b"", stdout: Any = subprocess.PIPE) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "hub", *args],
            cwd=self.folder, env=self.environment, input=stdin, stdout=stdout, stderr=subprocess.PIPE,
            timeout=SECONDS, check=False,
        )  # fmt: skip
        return Ended(args, done.returncode, (done.stdout or b"").decode(), done.stderr.decode())

    def many(self, calls: Sequence[Sequence[str]]) -> list[Ended]:
        """Several, some at once."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda args: self(*args), calls))

    def start(self, *args: str) -> "Running":
        """Begin one that does not end by itself; it is gone at the end of the `with` block."""
        return Running([sys.executable, "-m", "hub", *args], self.environment, self.folder)


class Running:
    """A command at work."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.process = subprocess.Popen(
            command, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self.said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def line(self, *words: str) -> str:
        """The next line of its output with these words."""
        assert self.process.stdout
        for line in self.process.stdout:
            if all(word in line for word in words):
                return line
        raise AssertionError(f"it ended without {words}: {self._rest()}")

    def note(self, *words: str) -> str:
        """The next line of its standard error with these words."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.said += line
            if all(word in line for word in words):
                return line
        raise AssertionError(f"it ended without {words}: {self.said}")

    def close_output(self) -> None:
        """Read no more, as `head` does."""
        assert self.process.stdout
        self.process.stdout.close()

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Wait for its end; returns the exit code."""
        self.said += self._rest()
        return self.process.wait(SECONDS)

    def _rest(self) -> str:
        assert self.process.stderr
        return self.process.stderr.read()


@contextmanager
def cluster_of_module(folder: Path) -> Iterator[Cluster]:
    """A deployment for tests that have no event loop. It is gone at the end."""
    with asyncio.Runner() as runner:
        cluster = Cluster(folder, f"sqlite:///{folder / 'clarion.db'}")
        try:
            runner.run(cluster.start())
            yield cluster
        finally:
            print(cluster.logs())
            runner.run(cluster.stop())


def closed_pipe() -> int:
    """A descriptor to write to that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing
