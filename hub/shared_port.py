"""One port for several nodes of one machine (SO_REUSEPORT), and for nobody else's.

The system spreads new connections over all who listen, and asks only that they belong to one user: a stranger among
them would get a share of our clients. So the port is held while nodes come and go, and a node looks who listens before
it joins. Two deployments that begin within the same moment may still miss each other.
"""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterator
from typing import Final

from hub.errors import ConfigError

DEPLOYMENT_HEADER: Final = b"x-clarion-deployment"
ANSWER_SECONDS: Final = 3.0
_HEAD_BYTES: Final = 16_384

_log = logging.getLogger(__name__)


def require_sharing(nodes: int) -> None:
    """Raise `ConfigError` when this system cannot let so many nodes listen on one port."""
    if nodes > 1 and not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError(
            f"--nodes is {nodes}, but on this system only one process may listen on a port; leave it at 1."
        )


def ensure_port_free(host: str, port: int) -> None:
    """Refuse a port that somebody uses: nodes share theirs, so the system itself would not. Raises ConfigError."""
    with _socket_for(host, port) as (probe, address):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _taken(port) from error
            if error.errno == errno.EACCES:
                raise ConfigError(f"CLARION_PORT is {port}, but this user may not listen there.") from error
            raise _no_address(host) from error


@contextlib.contextmanager
def held_port(host: str, port: int) -> Iterator[None]:
    """Take a free port and keep strangers off it, also while no node listens. Raises ConfigError.

    It is bound with SO_REUSEPORT and nothing else, and nobody listens on it: our nodes may bind it too, and whoever does
    not mean to share, such as another `clarion up`, may not.
    """
    ensure_port_free(host, port)
    with _socket_for(host, port) as (holder, address):
        # It can fail for a minute where connections of a server that did not share have just ended: then nobody holds it.
        with contextlib.suppress(OSError, AttributeError):
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(address)
        yield


async def refuse_strangers(host: str, port: int, deployment: str) -> None:
    """Raise ConfigError when somebody else than nodes of this deployment listens on a port.

    One that takes the connection and does not answer may be a busy node of ours: it keeps nobody away.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for address in dict.fromkeys(str(one[4][0]) for one in found):
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answers = await _deployment_at(address, port)
        except ConnectionRefusedError:
            continue
        except (OSError, TimeoutError) as error:
            _log.warning("who else listens on port %d cannot be told: %r", port, error)
            continue
        if answers != deployment:
            raise _taken(port)


async def _deployment_at(address: str, port: int) -> str:
    """Which deployment answers; an empty text for what is no hub. Raises OSError."""
    reader, writer = await asyncio.open_connection(address, port, limit=_HEAD_BYTES)
    try:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return ""
    finally:
        writer.close()
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == DEPLOYMENT_HEADER:
            return value.strip().decode("latin-1")
    return ""


@contextlib.contextmanager
def _socket_for(host: str, port: int) -> Iterator[tuple[socket.socket, tuple[object, ...]]]:
    """A socket of the family that the host has, and the address to bind it to."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise _no_address(host) from error
    with socket.socket(found[0], socket.SOCK_STREAM) as unbound:
        yield unbound, found[4]


def _taken(port: int) -> ConfigError:
    return ConfigError(f"CLARION_PORT is {port}, but something listens there already.")


def _no_address(host: str) -> ConfigError:
    return ConfigError(f"CLARION_HOST is {host!r}, but it must be an address of this machine.")
