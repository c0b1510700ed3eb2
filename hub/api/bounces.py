"""Bounces come in, and the list of suppressed addresses: what is out, and how it comes back.

A mail server's hook may post what it has: JSON of its own making, or the report itself as it came by e-mail.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from hub.api.conditions import media_type_of
from hub.api.models import Cursor, Limit, Moment
from hub.api.problems import invalid, not_found
from hub.api.routing import Call, Reply, Route, refuse_faults
from hub.bounces import BOUNCES_LIMIT, Bounce, Bounces, Taken
from hub.decoding import decode_json
from hub.errors import FieldError, Refused
from hub.model.notifications import rfc3339
from hub.model.vocabulary import Channel
from hub.paging import decode_cursor, encode_cursor, invalid_cursor
from hub.ports import Suppression

BODY_LIMIT_BYTES: Final = 2 * 1024 * 1024
_one = msgspec.json.Decoder(Bounce)
_several = msgspec.json.Decoder(list[Bounce])


class BouncesTaken(Struct, frozen=True):
    """What became of each, in order."""

    results: list[Taken]


class SuppressionShown(Struct, frozen=True):
    """An address that is not used any more: `bounce`, `complaint` or `stop`, and since when."""

    channel: Channel
    address: str
    reason: str
    detail: str | None
    at: Moment | None


class Suppressions(Struct, frozen=True):
    """A page of suppressed addresses, by channel and address."""

    suppressions: list[SuppressionShown]
    next: str | None


class SuppressionQuery(Struct, frozen=True):
    """Which part of the list."""

    limit: Limit = 50
    cursor: Cursor | None = None
    channel: Channel | None = None


class Address(Struct, frozen=True):
    """One address."""

    channel: Channel
    address: Annotated[str, Meta(min_length=1, max_length=320)]


async def take(call: Call) -> Reply:
    """POST /v1/bounces."""
    bounces = Bounces(call.parts.store, call.parts.bus, call.parts.clock)
    given = call.headers.get(b"content-type")
    if not _is_json(media_type_of(given), call.raw):
        return Reply(BouncesTaken(await bounces.take_report(_whole(given, call.raw))))
    is_array = call.raw.lstrip()[:1] == b"["
    several = decode_json(_several, call.raw) if is_array else [decode_json(_one, call.raw)]
    refuse_faults(call.raw)
    if not several:
        raise Refused(422, "empty_batch", "There are no bounces.", [FieldError("", "empty", "No bounces.")])
    if len(several) > BOUNCES_LIMIT:
        raise Refused(413, "batch_too_large", f"At most {BOUNCES_LIMIT} bounces can be told of in a call.")
    return Reply(BouncesTaken(await bounces.take(several)))


def _is_json(media_type: str, raw: bytes) -> bool:
    """Whether the body is JSON; the body decides where nobody said it."""
    if media_type in ("message/rfc822", "multipart/report"):
        return False
    return media_type.endswith("json") or raw.lstrip()[:1] in (b"{", b"[", b"")


def _whole(content_type: bytes | None, raw: bytes) -> bytes:
    """A report as a whole message: of a multipart body without its head, the request's header is that."""
    if media_type_of(content_type) == "multipart/report" and b"boundary=" in (content_type or b"").lower():
        return b"Content-Type: " + (content_type or b"") + b"\r\n\r\n" + raw
    return raw


async def list_suppressions(call: Call) -> Reply:
    """GET /v1/suppressions."""
    asked = call.query_as(SuppressionQuery)
    rows = await call.parts.store.suppressions(_after(asked.cursor), asked.limit + 1, asked.channel)
    listed = rows[: asked.limit]
    following = (
        encode_cursor(listed[-1].channel.value, listed[-1].address) if len(rows) > asked.limit else None
    )
    return Reply(Suppressions([_shown(row) for row in listed], following))


def _after(cursor: str | None) -> tuple[Channel, str] | None:
    if cursor is None:
        return None
    channel, address = decode_cursor(cursor, 2)
    try:
        return Channel(channel), address
    except ValueError:
        raise invalid_cursor() from None


def _shown(row: Suppression) -> SuppressionShown:
    return SuppressionShown(row.channel, row.address, row.reason, row.detail, rfc3339(row.at_us))


async def unsuppress(call: Call) -> Reply:
    """DELETE /v1/suppressions?channel=&address=."""
    which = call.query_as(Address)
    if which.channel not in (Channel.EMAIL, Channel.SMS):
        raise invalid("/channel", "Addresses are suppressed on email and sms.", "invalid_parameter")
    if not await call.parts.store.unsuppress(which.channel, which.address):
        raise not_found("A suppression of this address")
    return Reply(status=204)


ROUTES = [
    Route(
        "POST",
        "/v1/bounces",
        take,
        ("users",),
        "Tell of bounces and complaints: one or up to 1,000 as JSON, or a report as it came (RFC 3464, RFC 5965)",
        BouncesTaken,
        body_kind="bounces",
        body_schema=Bounce,
        body_limit=BODY_LIMIT_BYTES,
        codes=("empty_batch", "batch_too_large"),
    ),
    Route(
        "GET",
        "/v1/suppressions",
        list_suppressions,
        ("users",),
        "List suppressed addresses: they bounced, complained or said STOP, and are not used",
        Suppressions,
        query=SuppressionQuery,
        codes=("invalid_cursor",),
    ),
    Route(
        "DELETE",
        "/v1/suppressions",
        unsuppress,
        ("users",),
        "Use an address again",
        None,
        204,
        query=Address,
        codes=("not_found",),
    ),
]
