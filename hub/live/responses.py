"""What every answer outside uvicorn's own shares: the extension that offers a hand-over, heads, access lines.

An access line never holds the query: that may be a token.
"""

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.utils import get_client_addr

access_logger = logging.getLogger("uvicorn.access")

EXTENSION: Final = "clarion.handover"  # in a scope's extensions

Scope = Mapping[str, Any]


def log_access(scope: Scope, status: int, level: int = logging.INFO) -> None:
    """One access line, without the query: it may hold a token. Connections that live on are counted, and told at debug."""
    if not access_logger.isEnabledFor(level):
        return
    access_logger.log(
        level,
        '%s - "%s %s HTTP/%s" %d',
        get_client_addr(scope),  # type: ignore[arg-type]
        scope.get("method", "WebSocket"),
        scope["path"],
        scope["http_version"],
        status,
    )


def response_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Status line and headers of a response."""
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode())]
    lines += [b"%b: %b\r\n" % pair for pair in headers]
    return b"".join([*lines, b"\r\n"])
