"""Static files: read once at start, served from memory with their type, an ETag and honest caching.

Pages name them as `static/v-<hash of all>/name`, which may be kept for ever; a plain `static/name`, and a version of
another node, are asked again each time. A name that was not read at start is a 404, whatever it looks like.
"""

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from hub.api.problems import not_found

TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
"""What is served. The system's own table of types is not asked: some call JavaScript plain text."""

FOR_EVER: Final = "public, max-age=31536000, immutable"
ASK_AGAIN: Final = "no-cache"

SHARED: Final = frozenset({"push.js", "push-client.js"})
FOR_ANY_SITE: Final = {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"}
"""What pages and service workers of other sites load; there is nothing in these files that is anybody's."""

_VERSIONED: Final = re.compile(r"v-([0-9a-f]{16})/(.+)")


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    body: bytes
    media_type: str
    etag: str


class Assets:
    """All files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._found = {
            path.relative_to(folder).as_posix(): _read(path)
            for path in sorted(folder.rglob("*"))
            if path.suffix in TYPES and path.is_file()
        }
        listing = "\n".join(f"{name} {asset.etag}" for name, asset in self._found.items())
        self.version = sha256(listing.encode()).hexdigest()[:16]

    async def serve(self, request: Request) -> Response:
        """GET /static/…. Raises `Refused(404)`."""
        request.state.route = "/static"
        name, caching = request.path_params["path"], ASK_AGAIN
        if versioned := _VERSIONED.fullmatch(name):
            name = versioned[2]
            caching = FOR_EVER if versioned[1] == self.version else ASK_AGAIN
        asset = self._found.get(name)
        if asset is None:
            raise not_found("This file")
        headers = {"etag": asset.etag, "cache-control": caching, **(FOR_ANY_SITE if name in SHARED else {})}
        if is_known(request.headers.get("if-none-match"), asset.etag):
            return Response(None, 304, headers)
        return Response(asset.body, 200, {**headers, "content-type": asset.media_type})


def is_known(if_none_match: str | None, etag: str) -> bool:
    """Whether the browser's copy is the current one (RFC 9110 §13.1.2: weak comparison)."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    return Asset(body, TYPES[path.suffix], f'"{sha256(body).hexdigest()[:32]}"')
