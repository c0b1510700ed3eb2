"""A lock on a folder that lives as long as its holder: nothing to clean up after a crash.

`flock` belongs to the open file, so a child that keeps the descriptor holds the lock on when its parent has died.
"""

import fcntl
import os
import time
from pathlib import Path

from hub.keyfiles import make_private_folder


class FolderLock:
    """Held by one open file at a time; the file's text is the holder's pid, for people."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self, wait_seconds: float = 0.0) -> bool:
        """Take the lock, or say that somebody else still has it after this time. Blocks for at most that long."""
        if self._descriptor is not None:
            return True
        make_private_folder(self.path.parent)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return False
                time.sleep(0.02)
            else:
                break
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor
        return True

    @property
    def descriptor(self) -> int:
        """The open file, to be kept by a child that shares the lock."""
        assert self._descriptor is not None, "the lock is not held"
        return self._descriptor

    def holder(self) -> str:
        """The pid that the file names, for a message."""
        try:
            return self.path.read_text().strip() or "unknown"
        except OSError:
            return "unknown"

    def release(self) -> None:
        """Let go; the file stays."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
