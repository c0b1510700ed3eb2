"""The OpenAPI 3.1 text, made from the route table and the structs that validate. Made once, at the first request.

What the table does not hold, because it takes connections over, is described here by hand: the stream, the presence
of its page, and the WebSocket.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from hub import __version__
from hub.api.problems import CODES, Problem
from hub.api.routing import NoQuery, Route
from hub.intake import BatchItem
from hub.model.events import EventInput
from hub.people import MergeItem

Json = dict[str, Any]

REF: Final = "#/components/schemas/{name}"
NDJSON: Final = "application/x-ndjson"
DESCRIPTION: Final = """\
Publish an event, people get it live, find it in their inbox, and choose what they want.

**Who calls.** Backends send `Authorization: Bearer <api key>`; each call names the scope that its key needs. Users \
send a signed token (JWT with `sub` and `exp`) the same way; our own pages use the session cookie, which counts on \
them only. An operator's session may make every backend call but those on API keys.

**Errors** are problem documents (RFC 9457) with a `code` from a closed list, pointers to what is wrong in `errors`, \
and a `request_id` that is also in the header `X-Request-Id`.

**Lists** take `limit` and `cursor` and answer `next`, the cursor of the following page, or null. Cursors are opaque.

**Changes.** PUT replaces, PATCH merges (RFC 7396). What carries an `ETag` takes `If-Match`; a stale one gets 412.
"""
HEADER_TEXTS: Final = {
    "If-Match": "The ETag that was read; when it is stale, the answer is 412.",
    "Idempotency-Key": "1 to 255 printable ASCII characters, bare or quoted; kept for 24 hours per API key.",
}
GOOD: Final = {
    200: "Done.",
    201: "Created.",
    202: "Accepted: on disk.",
    204: "Done; there is nothing to say.",
    422: "No item was accepted.",
    503: "The node cannot serve.",
}
PROBLEMS: Final = {
    400: "The request cannot be read.",
    401: "Credentials are missing or not accepted.",
    403: "Not allowed.",
    404: "There is no such thing.",
    409: "The state does not allow this.",
    412: "It was changed in the meantime.",
    413: "Too large.",
    422: "The request has the wrong shape or values.",
    429: "Too many calls; see Retry-After.",
    503: "A part is away or full; see Retry-After.",
}
STATUS_OF: Final = {
    "invalid_idempotency_key": 400,
    "unknown_event": 404,
    "not_found": 404,
    "invalid_signature": 403,
    "conflict": 409,
    "idempotency_in_flight": 409,
    "stale_version": 412,
    "event_too_large": 413,
    "batch_too_large": 413,
    "queue_full": 503,
    "queue_unavailable": 503,
    "bus_unavailable": 503,
    "unauthorized": 401,
    "rate_limited": 429,
}
"""The statuses of the codes that routes name; all others of theirs are 422."""


def build_openapi(table: Sequence[Route], server_url: str) -> Json:
    """The whole document as JSON-able data."""
    models = _models(table)
    schemas, components = msgspec.json.schema_components(models, ref_template=REF)
    named = dict(zip(map(id, models), schemas, strict=True))
    components["Problem"]["properties"]["code"] = {"type": "string", "enum": sorted(CODES)}
    paths: dict[str, Json] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, named, components)
    for path, operations in _live_paths().items():
        paths.setdefault(path, {}).update(operations)
    queries = {route.query.__name__ for route in table}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Clarion",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server_url}],
        "paths": paths,
        "components": {
            "schemas": {name: one for name, one in components.items() if name not in queries},
            "securitySchemes": SECURITY_SCHEMES,
            "responses": {str(status): _problem_response(status, text) for status, text in PROBLEMS.items()},
        },
    }


SECURITY_SCHEMES: Final[Json] = {
    "apiKey": {"type": "http", "scheme": "bearer", "description": "An API key; the call names its scope."},
    "userToken": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A user's token.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "clarion_session",
        "description": "Our own pages only.",
    },
}


def _models(table: Sequence[Route]) -> list[Any]:
    found: dict[int, Any] = {id(model): model for model in (Problem, EventInput, BatchItem, MergeItem)}
    for route in table:
        for model in (route.response, route.body_schema or route.body, route.query):
            if isinstance(model, type) and issubclass(model, msgspec.Struct) and model is not NoQuery:
                found[id(model)] = model
    return list(found.values())


def _schema_of(model: Any, named: dict[int, Json]) -> Json:
    if model is str:
        return {"type": "string"}
    return named.get(id(model), {"type": "object"})


def _operation(route: Route, named: dict[int, Json], components: Json) -> Json:
    operation: Json = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [tag_of(route.path)],
        "description": _describe(route),
        "security": _security(route.access),
        "responses": _responses(route, named),
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in route.parameters
    ]
    parameters += _query_parameters(route, components)
    parameters += [
        {"name": name, "in": "header", "description": HEADER_TEXTS[name], "schema": {"type": "string"}}
        for name in route.headers
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body_kind != "none":
        operation["requestBody"] = {"required": True, "content": _request_content(route, named)}
    return operation


def operation_id(route: Route) -> str:
    """A name for generated clients: the method and the words of the path."""
    words = [part.strip("{}").replace("-", "_") for part in route.path.split("/") if part not in ("", "v1")]
    return "_".join([route.method.lower(), *words])


def tag_of(path: str) -> str:
    """The group of a call: the first word of its path."""
    parts = path.strip("/").split("/")
    return parts[1] if parts[0] == "v1" else "operations"


def scope_text(access: Iterable[str]) -> str:
    """Who may make a call, in words."""
    names = list(access)
    if names == ["open"]:
        return "Open to everyone."
    if names == ["user"]:
        return "For users: a user token, or the session cookie on our own pages."
    return f"Needs an API key with the scope {' or '.join(f'`{name}`' for name in names)}."


def _describe(route: Route) -> str:
    codes = ", ".join(f"`{code}`" for code in sorted(set(route.codes)))
    return scope_text(route.access) + (f" Problems of its own: {codes}." if codes else "")


def _security(access: tuple[str, ...]) -> list[Json]:
    if access == ("open",):
        return []
    if access == ("user",):
        return [{"userToken": []}, {"session": []}]
    return [{"apiKey": list(access)}, {"session": []}]


def _query_parameters(route: Route, components: Json) -> list[Json]:
    if route.query is NoQuery:
        return []
    schema = components[route.query.__name__]
    required = schema.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in required, "schema": one}
        for name, one in schema["properties"].items()
    ]


def _request_content(route: Route, named: dict[int, Json]) -> Json:
    match route.body_kind:
        case "event":
            return {"application/json": {"schema": named[id(EventInput)]}}
        case "events":
            item = named[id(BatchItem)]
            array = {"type": "array", "items": item, "minItems": 1, "maxItems": 1000}
            return {"application/json": {"schema": array}, NDJSON: {"schema": item}}
        case "ndjson":
            return {NDJSON: {"schema": named[id(MergeItem)]}}
        case "form":
            return {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}
        case "bounces":
            one = _schema_of(route.body_schema, named)
            array = {"type": "array", "items": one, "minItems": 1, "maxItems": 1000}
            text = {"schema": {"type": "string"}}
            return {
                "application/json": {"schema": {"oneOf": [one, array]}},
                "message/rfc822": text,
                "multipart/report": text,
            }
        case "merge":
            schema = _schema_of(route.body_schema or route.body, named)
            return {
                "application/merge-patch+json": {"schema": schema},
                "application/json": {"schema": schema},
            }
        case _:
            return {"application/json": {"schema": _schema_of(route.body, named)}}


def problem_statuses(route: Route) -> list[int]:
    """The statuses of the problem documents that a call may answer."""
    found = {500, *(STATUS_OF.get(code, 422) for code in route.codes)}
    if route.access != ("open",):
        found |= {401, 403, 503}
    if "user" in route.access:
        found.add(429)
    if route.path.startswith("/v1"):
        found |= {400, 422}
    if route.parameters:
        found.add(404)
    if route.body_kind != "none":
        found.add(413)
    return sorted((found & PROBLEMS.keys()) - {route.status, *route.other_statuses})


def _responses(route: Route, named: dict[int, Json]) -> Json:
    found: Json = {}
    for status in (route.status, *route.other_statuses):
        good: Json = {"description": GOOD[status]}
        found[str(status)] = good
        media_type = "text/plain" if route.response is str else "application/json"
        if route.is_page:
            media_type = "text/html"
        if route.response is not None:
            good["content"] = {media_type: {"schema": _schema_of(route.response, named)}}
        if status == 422:
            good["content"]["application/problem+json"] = {"schema": {"$ref": REF.format(name="Problem")}}
        if "If-Match" in route.headers and status != 204:
            good["headers"] = {"ETag": {"schema": {"type": "string"}}}
        if "Idempotency-Key" in route.headers and status == 202:
            good["headers"] = {"Idempotency-Replayed": {"schema": {"type": "string", "const": "true"}}}
    for status in problem_statuses(route):
        found[str(status)] = {"$ref": f"#/components/responses/{status}"}
    if route.is_page:
        missing = _problem_response(404, PROBLEMS[404])
        missing["content"]["text/html"] = {"schema": {"type": "string"}}
        found["404"] = missing
    found["default"] = {
        "description": "Any other problem.",
        "content": {"application/problem+json": {"schema": {"$ref": REF.format(name="Problem")}}},
    }
    return found


def _problem_response(status: int, text: str) -> Json:
    response: Json = {
        "description": text,
        "content": {"application/problem+json": {"schema": {"$ref": REF.format(name="Problem")}}},
    }
    if status in (429, 503):
        response["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}
    return response


def _live_paths() -> dict[str, Json]:
    """The calls that take their connection over."""
    text: Json = {"type": "string"}
    problem: Json = {str(one): {"$ref": f"#/components/responses/{one}"} for one in (400, 401, 403, 503)}

    def operation(name: str, tag: str, summary: str, responses: Json, **more: Any) -> Json:
        security: list[Json] = [{"userToken": []}, {"session": []}]
        shared = {"operationId": name, "tags": [tag], "summary": summary, "security": security}
        return {**shared, "responses": {**responses, **problem}, **more}

    queries = [
        {"name": name, "in": place, "description": description, "schema": text}
        for name, place, description in (
            ("token", "query", "The user's token, where no header can be set."),
            ("last_event_id", "query", "Where to go on; the header wins."),
            ("Last-Event-ID", "header", "Where to go on: the `id` of the last event."),
        )
    ]
    stream = {
        "200": {"description": "Events until closed.", "content": {"text/event-stream": {"schema": text}}}
    }
    body: Json = {
        "type": "object",
        "properties": {"connection": text, "visible": {"type": "boolean"}},
        "required": ["connection", "visible"],
        "additionalProperties": False,
    }
    set_here = {"204": {"description": "Set."}, "202": {"description": "The other nodes were told."}}
    return {
        "/v1/me/stream": {
            "get": operation("get_me_stream", "me", "Live events (SSE)", stream, parameters=queries)
        },
        "/v1/me/presence": {
            "post": operation(
                "post_me_presence",
                "me",
                "Whether the page of an SSE connection is in front",
                set_here,
                requestBody={"required": True, "content": {"application/json": {"schema": body}}},
            )
        },
        "/connection/websocket": {
            "get": operation(
                "get_connection_websocket",
                "live",
                "Live events over WebSocket: the Centrifuge client protocol in JSON",
                {"101": {"description": "Speak the protocol."}, "426": {"description": "Not a handshake."}},
            )
        },
    }
