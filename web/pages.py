"""Pages as answers: templates that escape everything, under a policy that allows our own files and nothing else.

No page has a script or a style inside, and none is kept by any cache. What goes wrong is told in a sentence, with the
next step, in the same frame.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from hub.api.problems import CODES, problem_headers
from hub.errors import Refused
from hub.origins import PublicUrl

_TEMPLATES: Final = Path(__file__).parent / "templates"


class Pages:
    """Renders the templates."""

    def __init__(self, assets_version: str, public: PublicUrl) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        # Relative, so that a public address with a path and a loopback address both work.
        self._environment.globals["assets"] = f"static/v-{assets_version}"
        self._headers = {
            "content-security-policy": policy(public),
            "cache-control": "no-store",
            "referrer-policy": "no-referrer",
        }

    def render(
        self, template: str, status: int = 200, headers: Mapping[str, str] | None = None, **context: Any
    ) -> Response:
        """A page."""
        text = self._environment.get_template(template).render(context)
        return Response(text, status, {**self._headers, **(headers or {})}, "text/html; charset=utf-8")

    def message(self, status: int, title: str, sentence: str, kind: str = "plain") -> Response:
        """A page that says one thing. `kind` chooses the next step that it shows: `link`, `token` or `plain`."""
        headers = {"www-authenticate": 'Bearer realm="clarion"'} if status == 401 else {}
        return self.render("message.html", status, headers, title=title, sentence=sentence, kind=kind)

    def refusal(self, refused: Refused) -> Response:
        """An error of the use cases, for people."""
        fields = {name.decode(): value.decode() for name, value in problem_headers(refused)}
        del fields["content-type"]
        title = CODES.get(refused.code, "That did not work")
        return self.render(
            "message.html", refused.status, fields, title=title, sentence=refused.detail, kind="plain"
        )


def policy(public: PublicUrl) -> str:
    """The Content-Security-Policy of all pages. Older Safari does not count WebSockets as 'self', so they are named."""
    sockets = public.origin.replace("http", "ws", 1)
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {sockets}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types clarion-worker"
    )


def worker_policy(public: PublicUrl) -> str:
    """The policy of our service worker: its one import, and receipts to the public address."""
    return (
        f"default-src 'none'; script-src 'self'; connect-src 'self' {public.origin}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
