"""`/openapi.json` and `/docs`: the description of the API, and a page of it that asks nobody else for anything.

The page is rendered here, has no script, and its policy allows nothing but its own style.
"""

import base64
import re
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from hub.api.openapi import build_openapi
from hub.api.problems import CODES
from hub.api.routing import Call, Reply, Route

_FOLDER: Final = Path(__file__).parent / "templates"


def prose(text: str) -> Markup:
    """The little Markdown of our descriptions: paragraphs, **bold** and `code`."""
    safe = str(escape(text))
    safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", safe)
    safe = re.sub(r"`(.+?)`", r"<code>\1</code>", safe)
    paragraphs = (one for one in safe.split("\n\n") if one.strip())
    return Markup("".join(f"<p>{one}</p>" for one in paragraphs))  # noqa: S704  (escaped above)


class Documentation:
    """Both texts, made at their first request and kept."""

    def __init__(self, table: Sequence[Route], server_url: str) -> None:
        self._table = table
        self._server_url = server_url

    @cached_property
    def openapi(self) -> bytes:
        """The OpenAPI document."""
        return msgspec.json.encode(build_openapi(self._table, self._server_url))

    @cached_property
    def style(self) -> str:
        """The page's style sheet."""
        return (_FOLDER / "docs.css").read_text(encoding="utf-8")

    @cached_property
    def page(self) -> bytes:
        """The page."""
        environment = Environment(
            loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        environment.filters["prose"] = prose
        document = msgspec.json.decode(self.openapi)
        groups: dict[str, list[dict[str, object]]] = {}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                groups.setdefault(operation["tags"][0], []).append(
                    {"method": method.upper(), "path": path, **operation}
                )
        rendered = environment.get_template("docs.html").render(
            document=document, groups=groups, codes=CODES, style=self.style
        )
        return rendered.encode()

    @cached_property
    def policy(self) -> bytes:
        """The page's Content-Security-Policy."""
        digest = base64.b64encode(sha256(self.style.encode()).digest())
        return b"default-src 'none'; style-src 'sha256-%b'; frame-ancestors 'none'; base-uri 'none'" % digest


def documentation_routes(table: Sequence[Route], server_url: str) -> list[Route]:
    """The two routes; they describe themselves too."""

    async def openapi(_call: Call) -> Reply:
        """GET /openapi.json."""
        return Reply(documentation.openapi)

    async def docs(_call: Call) -> Reply:
        """GET /docs."""
        return Reply(
            documentation.page,
            headers=((b"content-security-policy", documentation.policy),),
            media_type=b"text/html; charset=utf-8",
        )

    routes = [
        Route("GET", "/openapi.json", openapi, ("open",), "This description", dict),
        Route("GET", "/docs", docs, ("open",), "This description as a page", str),
    ]
    documentation = Documentation([*table, *routes], server_url)
    return routes
