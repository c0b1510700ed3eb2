"""Dead letters: what could not be delivered or planned, and trying it again."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from hub.api.delivery_models import DeadLetters, Replayed
from hub.api.models import Cursor, Limit, Moment
from hub.api.routing import Call, Reply, Route
from hub.dead_letters import DeadFilter, ReplayRequest
from hub.dead_letters import DeadLetters as UseCase
from hub.model.vocabulary import Channel


class DeadLetterParameters(Struct, frozen=True):
    """Filters of dead letters."""

    limit: Limit = 50
    cursor: Cursor | None = None
    kind: Literal["delivery", "event"] = "delivery"
    channel: Channel | None = None
    provider: Annotated[str, Meta(max_length=200)] | None = None
    reason: Annotated[str, Meta(max_length=200, description="Only those that died of this.")] | None = None
    since: Moment | None = None


async def dead_letters(call: Call) -> Reply:
    """GET /v1/dead-letters."""
    asked = call.query_as(DeadLetterParameters)
    which = DeadFilter(asked.kind, asked.channel, asked.provider, asked.reason, asked.since)
    return Reply(await _use_case(call).list(which, asked.limit, asked.cursor))


async def replay(call: Call) -> Reply:
    """POST /v1/dead-letters/replay."""
    return Reply(await _use_case(call).replay(call.body_as(ReplayRequest)))


def _use_case(call: Call) -> UseCase:
    return UseCase(call.parts.store, call.parts.bus, call.parts.clock)


ROUTES = [
    Route(
        "GET",
        "/v1/dead-letters",
        dead_letters,
        ("read",),
        "Deliveries that are dead or unknown, or events that could not be planned, newest first",
        DeadLetters,
        query=DeadLetterParameters,
        codes=("invalid_request", "invalid_cursor"),
    ),
    Route(
        "POST",
        "/v1/dead-letters/replay",
        replay,
        ("admin",),
        "Try dead letters again; those in the state `unknown` may then arrive twice",
        Replayed,
        body=ReplayRequest,
        body_kind="json",
        codes=("invalid_request",),
    ),
]
