"""The route table: what a call takes, who may make it and what it answers, stated once.

`Endpoint` checks a request in this order: method, credentials, scope, rate, ids of the path, query, body. Nothing of
a body is read for somebody who may not call. `hub.api.openapi` describes the API from the same table.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from starlette.types import Receive, Scope, Send

from hub.api.answer import answer_of
from hub.api.auth import Caller, identify
from hub.api.body import ClientGone, body_at_hand, read_body
from hub.api.conditions import media_type_of
from hub.api.parts import Parts
from hub.api.problems import as_refused, invalid, not_found
from hub.decoding import decode_json
from hub.errors import ClarionError, FieldError, Refused
from hub.live.seam import Identity
from hub.model.addresses import json_fault
from hub.model.vocabulary import is_id

Access = Literal["open", "user", "publish", "users", "types", "read", "admin"]
BodyKind = Literal["none", "json", "merge", "ndjson", "event", "events", "form", "bounces"]

SMALL_BODY_BYTES: Final = 256 * 1024
OUR_IDS: Final = frozenset({"event", "key_id", "token"})  # path parameters that are looked up, never stored
LONGEST: Final = {"token": 2048}  # of ours; 300 for all others

T = TypeVar("T")
Q = TypeVar("Q", bound=Struct)


class NoQuery(Struct, frozen=True):
    """A call without parameters in its address."""


@dataclass(frozen=True, slots=True)
class Route:
    """One call. `access`: nobody ("open"), a user, or an API key with one of these scopes."""

    method: str
    path: str
    handler: "Callable[[Call], Awaitable[Reply]]"
    access: tuple[Access, ...]
    summary: str
    response: Any = None  # a Struct; None: no content
    status: int = 200
    query: type[Struct] = NoQuery
    body: Any = None  # what `request_body` decodes to
    body_kind: BodyKind = "none"
    body_schema: Any = None  # what the OpenAPI text says of a body that is decoded loosely (merge patches)
    body_limit: int = SMALL_BODY_BYTES
    too_large: str = "request_too_large"
    codes: tuple[str, ...] = ()  # problem codes beyond those that follow from the rest
    other_statuses: tuple[int, ...] = ()  # further good answers, with the same body
    headers: tuple[str, ...] = ()  # request headers that matter: If-Match, Idempotency-Key
    quiet: bool = False  # a good answer leaves no access line: the event itself is in the delivery log
    is_page: bool = False  # answers with HTML, and for who asks for HTML a 404 is a page too
    any_id: bool = False  # the first id may hold slashes (`key:<idempotency key>`)

    @property
    def starlette_path(self) -> str:
        """The path as Starlette's router takes it."""
        return self.path.replace("{event}", "{event:path}") if self.any_id else self.path

    @property
    def parameters(self) -> list[str]:
        """The names of the path's parameters."""
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]


class Reply(Struct, frozen=True):
    """What a handler answers: `content` becomes JSON, bytes stay as they are, None is no content."""

    content: Any = None
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    media_type: bytes = b"application/json"


class Call(Struct):
    """One checked request on its way to its handler."""

    parts: Parts
    route: Route
    headers: Mapping[bytes, bytes]
    caller: Caller
    path: Mapping[str, str]
    query: Any = None
    body: Any = None
    raw: bytes = b""
    request_id: str = ""
    query_string: bytes = b""  # of the address, as it came

    @property
    def identity(self) -> Identity:
        """The user who calls (routes of users only)."""
        assert self.caller.identity is not None
        return self.caller.identity

    @property
    def user_id(self) -> str:
        """The id of the user who calls."""
        return self.identity.user_id

    @property
    def key_id(self) -> str:
        """The API key that calls (routes of keys only); an operator's session has an id of its own."""
        return self.caller.key_id

    def query_as(self, kind: type[T]) -> T:
        """The checked parameters of the address."""
        assert isinstance(self.query, kind)
        return self.query

    def body_as(self, kind: type[T]) -> T:
        """The checked body."""
        assert isinstance(self.body, kind)
        return self.body


class Endpoint:
    """All methods of one path, as an ASGI application."""

    def __init__(self, parts: Parts, routes: Sequence[Route], fixed: Mapping[str, str] | None = None) -> None:
        """`fixed`: parameters of routes whose path says {id} where this one has a word."""
        self._parts = parts
        self._fixed = dict(fixed or {})
        self._name = routes[0].path
        self._routes = {route.method: route for route in routes}
        if "GET" in self._routes:
            self._routes["HEAD"] = self._routes["GET"]
        self._allow = ", ".join(sorted([*self._routes, "OPTIONS"])).encode()
        self._decoders = {
            route.method: msgspec.json.Decoder(route.body) for route in routes if route.body is not None
        }
        self._encode = msgspec.json.Encoder().encode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        state = scope["state"]
        state["route"] = self._name
        method = scope["method"]
        answer = answer_of(scope)
        if method == "OPTIONS":
            await answer.reply(204, ((b"allow", self._allow),), b"")
            return
        route = self._routes.get(method)
        if route is None:
            state["extra_headers"] = [(b"allow", self._allow)]
            raise Refused(405, "method_not_allowed", f"Only {self._allow.decode()} work here.")
        try:
            reply = await self._answer(route, scope, receive)
        except ClientGone:
            return
        except ClarionError as error:
            raise as_refused(error) or error from error
        body = reply.content if isinstance(reply.content, bytes) else self._json(reply.content)
        await answer.reply(reply.status, reply.headers, body, reply.media_type, quiet=route.quiet)

    def _json(self, content: Any) -> bytes:
        return b"" if content is None else self._encode(content)

    async def _answer(self, route: Route, scope: Scope, receive: Receive) -> Reply:
        if not route.any_id and b"%2f" in scope.get("raw_path", b"").lower():
            raise not_found("This address")  # an encoded slash would be taken for a real one
        headers: Mapping[bytes, bytes] = scope["state"]["headers"]
        caller = await identify(self._parts, route.access, route.method, headers)
        if caller.identity is not None and caller.key_id == "":
            self._parts.limiter.check(caller.identity.user_id)
        path: Mapping[str, str] = scope.get("path_params", {})
        if self._fixed:
            path = {**path, **self._fixed}
        for name, value in path.items():
            check_id(name, value)
        call = Call(
            self._parts,
            route,
            headers,
            caller,
            path,
            request_id=scope["state"]["request_id"],
            query_string=scope["query_string"],
        )
        if route.query is not NoQuery:
            call.query = read_query(route.query, scope["query_string"])
        if route.body_kind != "none":
            check_media_type(route.body_kind, headers)
            limit, too_large = route.body_limit, route.too_large
            whole = body_at_hand(scope, limit, too_large)
            call.raw = await read_body(receive, headers, limit, too_large) if whole is None else whole
            decoder = self._decoders.get(route.method)
            if decoder is not None:
                call.body = decode_json(decoder, call.raw)
                refuse_faults(call.raw)
        return await route.handler(call)


_MEDIA: Final[Mapping[str, tuple[str, ...]]] = {
    "json": ("application/json",),
    "event": ("application/json",),
    "merge": ("application/merge-patch+json", "application/json"),
    "events": ("application/json", "application/x-ndjson", "application/jsonl", "application/ndjson"),
    "ndjson": ("application/x-ndjson", "application/jsonl", "application/ndjson", "application/json"),
    "form": ("application/x-www-form-urlencoded",),
    "bounces": ("application/json", "message/rfc822", "multipart/report"),
}
# What curl -d and fetch() send when nobody thought of it: the body decides.
_UNSAID: Final = ("", "application/x-www-form-urlencoded", "text/plain", "application/octet-stream")


def check_media_type(kind: BodyKind, headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body that says it is something else. Raises `Refused(400)`.

    A cookie needs the true type: a form of a foreign page cannot send it without a preflight.
    """
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.strip().lower() not in (b"", b"identity"):
        raise Refused(
            400, "malformed_request", "The body must not be compressed; leave Content-Encoding out."
        )
    said = headers.get(b"content-type")
    if said == b"application/json" and kind != "form":  # which every other kind takes
        return
    media_type = media_type_of(said)
    if media_type in _MEDIA[kind] or media_type.endswith("+json"):
        return
    if media_type not in _UNSAID or (b"cookie" in headers and b"authorization" not in headers):
        expected = " or ".join(_MEDIA[kind][:2])
        raise Refused(
            400, "malformed_request", f"The body must be {expected}, not {media_type or 'untyped'}."
        )


def check_id(name: str, value: str) -> None:
    """Ids that would be stored must have the form of ids; ours are merely looked up."""
    if name in OUR_IDS:
        if not value or len(value) > LONGEST.get(name, 300) or "\0" in value:
            raise not_found("That")
    elif not is_id(value):
        raise Refused(
            422,
            "invalid_id",
            f"{name} must be 1 to 128 of A-Za-z0-9._:@+|~=-.",
            [FieldError(f"/{name}", "invalid_id", "Not an id.")],
        )


def refuse_faults(raw: bytes) -> None:
    """Raise `Refused(422)` for a text with a NUL, which no store can keep, in a body that was decoded before."""
    if b"\\u0000" not in raw:  # the only spelling: a bare NUL is no JSON
        return
    fault = json_fault(msgspec.json.decode(raw))
    if fault is not None:
        raise Refused(422, "invalid_request", fault.detail, [fault])


def read_query(kind: type[Q], raw: bytes) -> Q:
    """The parameters of the address. Unknown ones are left alone. Raises `Refused(422)`."""
    given: dict[str, str] = {}
    if raw:
        try:
            given = dict(
                parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=100, errors="strict")
            )
        except (UnicodeError, ValueError):
            raise Refused(400, "malformed_request", "The query of the address cannot be read.") from None
    for name, value in given.items():
        if "\0" in value:
            raise invalid(f"/{name[:100]}", "NUL characters cannot be used.", "invalid_parameter")
    try:
        known = {name: given[name] for name in kind.__struct_fields__ if name in given}
        return msgspec.convert(known, kind, strict=False)
    except msgspec.ValidationError as error:
        text, _, place = str(error).partition(" - at `$.")
        pointer = f"/{place.rstrip('`')}"
        raise invalid(pointer, f"{text} in the parameter {pointer[1:]!r}.", "invalid_parameter") from None
