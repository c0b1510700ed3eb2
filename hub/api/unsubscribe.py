"""Unsubscribing (RFC 8058): GET shows a page and changes nothing, POST does it, for whoever holds the link.

No login, no cookie, no redirect, no script. Mail programs post by themselves and read only the status; what the body
says is not looked at, since the address says it all. Problems are pages for who asks for HTML.
"""

from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hub.api.routing import Call, Reply, Route
from hub.errors import Refused
from hub.links import SignedLinks
from hub.unsubscribe import PURPOSE, Unsubscribing

_FOLDER: Final = Path(__file__).parent / "templates"
_POLICY: Final = b"; ".join(
    [
        b"default-src 'none'",
        b"style-src 'self'",
        b"img-src 'self'",
        b"form-action 'self'",
        b"base-uri 'none'",
        b"frame-ancestors 'none'",
    ]
)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def _page(status: int, **facts: object) -> Reply:
    rendered = _environment().get_template("unsubscribe.html").render(facts)
    headers = ((b"content-security-policy", _POLICY),)
    return Reply(rendered.encode(), status, headers, b"text/html; charset=utf-8")


def _unsubscribing(call: Call) -> Unsubscribing:
    parts = call.parts
    links = SignedLinks(parts.settings.token_secrets, PURPOSE)
    return Unsubscribing(parts.people, parts.definitions, parts.store, parts.bus, links, parts.clock)


def _refusal(call: Call, refused: Refused) -> Reply:
    """A page for people; raises it again for everybody else."""
    if refused.status != 404 or b"text/html" not in call.headers.get(b"accept", b""):
        raise refused
    return _page(404, state="unknown", title="", detail=refused.detail)


async def show(call: Call) -> Reply:
    """GET /unsubscribe/{token}."""
    try:
        shown = await _unsubscribing(call).look(call.path["token"])
    except Refused as refused:
        return _refusal(call, refused)
    return _page(200, state="off" if shown.is_off else "on", title=shown.title, detail="")


async def unsubscribe(call: Call) -> Reply:
    """POST /unsubscribe/{token}."""
    try:
        shown = await _unsubscribing(call).unsubscribe(call.path["token"])
    except Refused as refused:
        return _refusal(call, refused)
    return _page(200, state="off", title=shown.title, detail="")


ROUTES = [
    Route(
        "GET",
        "/unsubscribe/{token}",
        show,
        ("open",),
        "A page about the link to unsubscribe in an e-mail; changes nothing",
        str,
        is_page=True,
    ),
    Route(
        "POST",
        "/unsubscribe/{token}",
        unsubscribe,
        ("open",),
        "Switch e-mail off for the link's user and category (RFC 8058); the body is not looked at",
        str,
        is_page=True,
    ),
]
