"""Generated secrets: made once, kept in the data folder, readable by their owner alone.

Whatever number of processes start together, all get the same text. A crash at any instant leaves the old
state or the new one, never half a secret.
"""

import base64
import fcntl
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from hub.errors import ConfigError


def new_api_key() -> str:
    """256 random bits; the prefix lets secret scanners recognise it."""
    return "clarion_" + secrets.token_urlsafe(32)


def new_token_secret() -> str:
    """384 random bits, more than HS256 asks for (RFC 7518 §3.2: at least 256)."""
    return secrets.token_urlsafe(48)


def new_vapid_key() -> str:
    """A P-256 private key as web push libraries write it: its 32 bytes in base64url (RFC 8292 asks for this curve)."""
    from cryptography.hazmat.primitives.asymmetric import ec

    number = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()


def make_private_folder(folder: Path) -> None:
    """Create a folder that only its owner may enter. Raises ConfigError."""
    try:
        if not folder.parent.exists():
            make_private_folder(folder.parent)  # mkdir's `parents` would give them the default mode
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"CLARION_DATA_DIR is {str(folder)!r}, but it must be a folder that this user may write: "
            f"{error.strerror}."
        ) from error


def load_or_create_secret(path: Path, create: Callable[[], str]) -> str:
    """The text of the file, which the first caller creates. Raises ConfigError where that is impossible."""
    make_private_folder(path.parent)
    try:
        with (path.parent / "secrets.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # released by the close, also by a crash
            if not path.exists():
                _write_atomically(path, create())
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the secret {str(path)!r} cannot be read or created ({error}); give CLARION_DATA_DIR a folder "
            "that this user may write."
        ) from error
    if not text:
        raise ConfigError(f"the secret file {str(path)!r} is empty; remove it to have a new one generated.")
    return text


def _write_atomically(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power loss
    finally:
        os.close(folder)
