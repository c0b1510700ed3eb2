"""Reading of request bodies: bounded in bytes and in time, and never further than the bound.

A body that is too large is refused at its Content-Length or at the first byte too many; the connection is then
closed, because the rest of it would be taken for the next request.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from starlette.types import Receive, Scope

from hub.errors import Refused
from hub.live.detach import HttpHandover
from hub.live.responses import EXTENSION

REQUEST_LIMIT_BYTES: Final = 8 * 1024 * 1024
CHUNK_TIMEOUT_SECONDS: Final = 15.0
BODY_TIMEOUT_SECONDS: Final = 60.0


LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 16 * 1024 * 1024


class BodyRefused(Refused):
    """A body that was not read to its end: the connection cannot be used for another request."""


class ClientGone(Exception):  # not an error: there is nobody to answer
    """The client closed the connection before its request was complete."""


def body_at_hand(scope: Scope, limit: int, code: str) -> bytes | None:
    """The whole body when it came with its head: no clock has to run for it. Raises `Refused(413)`."""
    handover: HttpHandover | None = scope.get("extensions", {}).get(EXTENSION)
    whole = handover.body() if handover is not None else None
    if whole is not None and len(whole) > limit:
        raise _too_large(code, limit)
    return whole


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int, code: str) -> bytes:
    """The whole body. Raises `Refused` (400 for one that does not come, 413 beyond `limit`) or `ClientGone`."""
    length = headers.get(b"content-length")
    if length is not None and length.isdigit() and int(length) > limit:
        raise _too_large(code, limit)
    chunks: list[bytes] = []
    size = 0
    now = asyncio.get_running_loop().time
    deadline = now() + BODY_TIMEOUT_SECONDS
    try:
        async with asyncio.timeout(CHUNK_TIMEOUT_SECONDS) as patience:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise _too_large(code, limit)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
                patience.reschedule(min(deadline, now() + CHUNK_TIMEOUT_SECONDS))
    except TimeoutError:
        raise BodyRefused(400, "malformed_request", "The body did not arrive in time.") from None


def _too_large(code: str, limit: int) -> BodyRefused:
    return BodyRefused(413, code, f"The body is larger than {limit} bytes.")


async def discard_body(receive: Receive) -> None:
    """Let a client finish for a moment: one that is cut off while it sends may never see the answer."""
    left = LINGER_BYTES
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
