"""The answer to one HTTP request: our headers added, its status remembered, written in one piece where the server can.

What the API answers goes through `reply`; pages and files of Starlette go through `send`, which is plain ASGI.
"""

from collections.abc import Sequence
from typing import Any, Final

from starlette.types import Message, Scope, Send

from hub.live.detach import HttpHandover
from hub.live.responses import EXTENSION, log_access

SECURITY: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
    (b"cache-control", b"no-store"),
)
"""Sent unless the answer says otherwise: pages bring a policy of their own, static files may be cached."""

_SECURITY_LINES: Final = b"".join([b"%b: %b\r\n" % pair for pair in SECURITY])
Header = tuple[bytes, bytes]


class Answer:
    """Sends the response with our headers added, and remembers its status (0: none yet)."""

    __slots__ = ("_cors", "_request_id", "_scope", "_send", "status")

    def __init__(self, scope: Scope, send: Send, request_id: str, cors: Sequence[Header]) -> None:
        self._scope = scope
        self._send = send
        self._request_id = request_id.encode()
        self._cors = cors
        self.status = 0

    async def reply(
        self,
        status: int,
        headers: Sequence[Header],
        body: bytes,
        media_type: bytes = b"application/json",
        *,
        quiet: bool = False,
    ) -> None:
        """Send a whole answer. `quiet`: without a line in the access log, where the server leaves that to us."""
        if body and not headers and not self._cors:
            handover: HttpHandover | None = self._scope.get("extensions", {}).get(EXTENSION)
            if handover is not None:
                lines = b"content-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b"
                head = lines % (media_type, len(body), self._request_id, _SECURITY_LINES)
                if handover.respond(status, head, body):
                    self.status = status
                    if not quiet:
                        log_access(self._scope, status)
                    return
        typed = [(b"content-type", media_type)] if body else []
        await self.send_all(status, [*headers, *typed], body)

    async def send(self, message: Message) -> None:
        """ASGI's `send`."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            given = list(message.get("headers", ()))
            named = {name.lower() for name, _ in given}
            message["headers"] = [
                *given,
                (b"x-request-id", self._request_id),
                *self._cors,
                *(pair for pair in SECURITY if pair[0] not in named),
            ]
        await self._send(message)

    async def send_all(
        self, status: int, headers: list[Header], body: bytes, *, open_end: bool = False
    ) -> None:
        """A whole answer over ASGI; of one to HEAD only the head is shown. `open_end`: `end` comes later."""
        if status != 204:
            headers = [*headers, (b"content-length", str(len(body)).encode())]
        shown = b"" if self._scope["method"] == "HEAD" else body
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": shown, "more_body": open_end})

    async def end(self) -> None:
        """The end of an answer with an open end."""
        await self._send({"type": "http.response.body", "body": b""})


def answer_of(scope: Scope) -> Answer:
    """The answer to this request, which the shell put here."""
    found: Any = scope["state"]["answer"]
    assert isinstance(found, Answer)
    return found
