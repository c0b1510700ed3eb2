"""Problem documents (RFC 9457): the one form of every error that leaves the API, and the closed list of their codes.

A problem never carries internals: what is not in the list is `internal_error`, logged once where it happened.
"""

from http import HTTPStatus
from typing import Final

import msgspec
from msgspec import Struct

from hub.errors import (
    BusUnavailable,
    DefinitionError,
    FieldError,
    QueueUnavailable,
    Refused,
    StoreUnavailable,
    TemplateError,
    TokenError,
    TokenExpired,
)

CODES: Final[dict[str, str]] = {
    # 400
    "malformed_request": "The request cannot be read",
    "malformed_json": "The body is not JSON",
    "invalid_idempotency_key": "The idempotency key cannot be used",
    # 401, 403
    "unauthorized": "Credentials are missing or not accepted",
    "token_expired": "The token has expired",
    "forbidden": "Not allowed",
    "missing_scope": "The API key lacks the scope of this call",
    "invalid_signature": "The signature does not fit",
    "cross_origin": "A session cookie counts only on our own pages",
    # 404, 405, 409, 412, 413
    "unknown_event": "There is no such event",
    "not_found": "There is no such thing",
    "method_not_allowed": "The address does not take this method",
    "conflict": "The state of the thing does not allow this",
    "idempotency_in_flight": "The first request with this idempotency key is still running",
    "in_use": "Something else still needs this",
    "stale_version": "It was changed in the meantime",
    "request_too_large": "The request is too large",
    "event_too_large": "The event is too large",
    "batch_too_large": "The batch is too large",
    # 422
    "invalid_request": "The request does not have the right shape",
    "invalid_value": "A value cannot be used",
    "invalid_id": "An id has a form that ids do not have",
    "invalid_parameter": "A parameter of the address cannot be used",
    "invalid_cursor": "The cursor is not one of ours",
    "invalid_template": "A template does not compile or does not render",
    "invalid_schema": "The schema of a type's data is not a JSON Schema",
    "invalid_definition": "A definition cannot be used",
    "invalid_event": "The event cannot be accepted",
    "invalid_preferences": "These are not preferences",
    "invalid_data": "The event's data does not fit the type's schema",
    "empty_batch": "The batch has no items",
    "idempotency_key_reused": "The idempotency key was used for another body",
    "unknown_type": "The type is not defined",
    "invalid_subscription": "The push subscription cannot be used",
    "too_many_topics": "A user can have at most 500 topics",
    # 429, 500, 503
    "rate_limited": "Too many calls",
    "internal_error": "Something went wrong here",
    "queue_full": "Too many events wait already",
    "queue_unavailable": "The event queue did not confirm",
    "store_unavailable": "The database is away",
    "bus_unavailable": "The live bus is away",
    "too_many_connections": "Too many connections",
    # live connections and their calls
    "bad_request": "The message cannot be read",
    "token_revoked": "The token was revoked",
    "unknown_method": "There is no such method",
    "connection_closed": "The connection is over",
    "unavailable": "A part is away",
}
"""The closed list: every `code` of a problem document, with its title."""

UNAVAILABLE_RETRY_SECONDS: Final = 2


class ProblemField(Struct, frozen=True):
    """One wrong place of a request: an RFC 6901 pointer, a code and a sentence."""

    pointer: str
    code: str
    detail: str


class Problem(Struct, frozen=True, omit_defaults=True):
    """RFC 9457. `code` is from a closed list; `request_id` is also in the header X-Request-Id and in our log."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ProblemField] = []


_encode = msgspec.json.Encoder().encode


def problem_body(refused: Refused, request_id: str, base_url: str) -> bytes:
    """The JSON of a problem document."""
    title = CODES.get(refused.code) or HTTPStatus(refused.status).phrase
    return _encode(
        Problem(
            type=f"{base_url}/docs#problem-{refused.code}",
            title=title,
            status=refused.status,
            detail=refused.detail,
            code=refused.code,
            request_id=request_id,
            errors=[ProblemField(one.pointer, one.code, one.detail) for one in refused.errors],
        )
    )


def problem_headers(refused: Refused) -> list[tuple[bytes, bytes]]:
    """The headers that go with a problem."""
    headers = [(b"content-type", b"application/problem+json")]
    if refused.status == 401:
        error = b', error="invalid_token"' if refused.code == "token_expired" else b""
        headers.append((b"www-authenticate", b'Bearer realm="clarion"' + error))
    if refused.retry_after_seconds is not None:
        headers.append((b"retry-after", str(refused.retry_after_seconds).encode()))
    return headers


def as_refused(error: Exception) -> Refused | None:
    """What an error of the use cases is to a caller; None for what nobody expected."""
    match error:
        case Refused():
            return error
        case TokenExpired():
            return Refused(401, "token_expired", "The token has expired; get a fresh one.")
        case TokenError():
            return unauthorized()
        case QueueUnavailable():
            return _unavailable(
                "queue_unavailable",
                "The event queue did not confirm. Whether the event was accepted is unknown: "
                "repeat with the same Idempotency-Key.",
            )
        case StoreUnavailable():
            return _unavailable("store_unavailable", "The database cannot be reached; try again.")
        case BusUnavailable():
            return _unavailable("bus_unavailable", "The live bus cannot be reached; try again.")
        case TemplateError():
            return Refused(422, "invalid_template", str(error))
        case DefinitionError():
            return Refused(422, "invalid_definition", str(error))
    return None


def _unavailable(code: str, detail: str) -> Refused:
    return Refused(503, code, detail, retry_after_seconds=UNAVAILABLE_RETRY_SECONDS)


def unauthorized() -> Refused:
    """One answer to every missing, wrong, revoked or foreign credential, so that it tells nothing."""
    return Refused(401, "unauthorized", "Send valid credentials: an API key or a user token as Bearer.")


def not_found(what: str) -> Refused:
    """404 with a sentence; `what` begins it."""
    return Refused(404, "not_found", f"{what} does not exist.")


def invalid(pointer: str, detail: str, code: str = "invalid_value") -> Refused:
    """422 about one place of the request."""
    return Refused(422, code, detail, [FieldError(pointer, code, detail)])
