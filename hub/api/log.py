"""The delivery log and explanations."""

from typing import Annotated

from msgspec import Meta, Struct

from hub.api.models import Cursor, Explanation, Limit, Log, Moment
from hub.api.problems import invalid
from hub.api.routing import Call, Reply, Route
from hub.livelog import wire_log
from hub.model.events import Id
from hub.model.schedule import parse_moment
from hub.model.vocabulary import Channel
from hub.paging import decode_cursor, encode_cursor, invalid_cursor
from hub.ports import LogQuery


class LogParameters(Struct, frozen=True):
    """Filters of the delivery log."""

    limit: Limit = 50
    cursor: Cursor | None = None
    user: Id | None = None
    event: Annotated[str, Meta(max_length=128)] | None = None
    channel: Channel | None = None
    state: Annotated[str, Meta(max_length=40)] | None = None
    since: Moment | None = None


class ExplainParameters(Struct, frozen=True):
    """Whom and what to explain."""

    user: Id
    type: Id
    event: Annotated[str, Meta(max_length=128)] | None = None


async def log(call: Call) -> Reply:
    """GET /v1/log."""
    asked = call.query_as(LogParameters)
    try:
        since_us = parse_moment(asked.since) if asked.since is not None else None
    except ValueError as error:
        raise invalid("/since", str(error), "invalid_parameter") from None
    query = LogQuery(
        asked.limit + 1, _before(asked.cursor), asked.user, asked.event, asked.channel, asked.state, since_us
    )
    rows = await call.parts.store.log(query)
    following = encode_cursor(rows[asked.limit - 1].id) if len(rows) > asked.limit else None
    return Reply(Log([wire_log(row) for row in rows[: asked.limit]], following))


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    [last] = decode_cursor(cursor, 1)
    if not (last.isascii() and last.isdecimal()) or len(last) > 18:
        raise invalid_cursor()
    return int(last)


async def explain(call: Call) -> Reply:
    """GET /v1/explain."""
    asked = call.query_as(ExplainParameters)
    return Reply(await call.parts.explain.explain(asked.user, asked.type, asked.event))


ROUTES = [
    Route(
        "GET",
        "/v1/log",
        log,
        ("read",),
        "The delivery log, newest first",
        Log,
        query=LogParameters,
        codes=("invalid_cursor",),
    ),
    Route(
        "GET",
        "/v1/explain",
        explain,
        ("read",),
        "Why a user would get something, or did, or not",
        Explanation,
        query=ExplainParameters,
        codes=("unknown_type", "unknown_event"),
    ),
]
