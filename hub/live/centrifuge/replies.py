"""The lines that go out (§3, §4, §9): replies and pushes, one JSON object each, without line breaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Raw

from hub.live.centrifuge.codes import ERRORS

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription as a client is told about it; `publications` are (offset, JSON) ascending."""

    channel: str
    epoch: str
    offset: int
    was_recovering: bool = False
    recovered: bool = False
    publications: Sequence[tuple[int, bytes]] = ()

    def result(self) -> dict[str, Any]:
        """The subscribe result. Zero values stay away, as the protocol wants it (§3)."""
        result: dict[str, Any] = {"recoverable": True, "positioned": True, "epoch": self.epoch}
        if self.offset:
            result["offset"] = self.offset
        if self.was_recovering:
            result["was_recovering"] = True
        if self.recovered:
            result["recovered"] = True
        if self.publications:
            result["publications"] = _publications(self.publications)
        return result


def _embed(payload: bytes) -> Raw:
    # JSON has no line breaks inside strings, so blanks change nothing; a line must stay one line (§3).
    return Raw(
        payload.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in payload or b"\r" in payload else payload
    )


def _publications(publications: Sequence[tuple[int, bytes]]) -> list[dict[str, Any]]:
    return [
        {"data": _embed(payload), "offset": offset} if offset else {"data": _embed(payload)}
        for offset, payload in publications
    ]


def connect_line(
    number: int,
    client: str,
    version: str,
    *,
    ping_seconds: int,
    ttl_seconds: int | None,
    subs: Sequence[Subscription],
) -> bytes:
    """The reply to connect. `ping_seconds` 0: no pings in the protocol; `ttl_seconds` None: it does not expire."""
    result: dict[str, Any] = {"client": client, "version": version}
    if ttl_seconds is not None:
        result |= {"expires": True, "ttl": max(1, ttl_seconds)}
    if ping_seconds:
        result |= {"ping": ping_seconds, "pong": True}
    result["subs"] = {one.channel: one.result() for one in subs}
    return _encode({"id": number, "connect": result})


def refresh_line(number: int, client: str, version: str, ttl_seconds: int | None) -> bytes:
    """The reply to refresh."""
    result: dict[str, Any] = {"client": client, "version": version}
    if ttl_seconds is not None:
        result |= {"expires": True, "ttl": max(1, ttl_seconds)}
    return _encode({"id": number, "refresh": result})


def subscribe_line(number: int, subscription: Subscription) -> bytes:
    """The reply to subscribe."""
    return _encode({"id": number, "subscribe": subscription.result()})


def unsubscribe_line(number: int) -> bytes:
    """The reply to unsubscribe, which never fails."""
    return _encode({"id": number, "unsubscribe": {}})


def history_line(number: int, epoch: str, top: int, publications: Sequence[tuple[int, bytes]]) -> bytes:
    """The reply to history; these three are always there (§3)."""
    result = {"publications": _publications(publications), "epoch": epoch, "offset": top}
    return _encode({"id": number, "history": result})


def rpc_line(number: int, data: bytes) -> bytes:
    """The reply to rpc."""
    return _encode({"id": number, "rpc": {"data": _embed(data or b"null")}})


def error_line(number: int, code: int) -> bytes:
    """An error reply."""
    message, temporary = ERRORS[code]
    error: dict[str, Any] = {"code": code, "message": message}
    if temporary:
        error["temporary"] = True
    return _encode({"id": number, "error": error})


def unsubscribed_push(channel: str, code: int, reason: str) -> bytes:
    """A subscription ended; code and reason are always there (§9)."""
    return _encode({"push": {"channel": channel, "unsubscribe": {"code": code, "reason": reason}}})


PING_LINE: Final = b"{}"
