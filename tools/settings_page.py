"""Writes docs/settings.md from the settings themselves; a test refuses a page that is out of date."""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "settings.md"
sys.path.insert(0, str(ROOT))

from hub.config import Settings  # noqa: E402 - the path comes first
from hub.config_sources import accepts, is_secret, variable  # noqa: E402
from hub.ratelimit import RateLimit  # noqa: E402

HEAD = """\
# Settings

Read once at the start from the environment and from `.env` in the working folder; the environment wins. A variable
marked with * is a secret: it may also come from a file that `…_FILE` names, and it is never printed. An empty
variable counts as unset. A value that cannot work stops the start with a sentence.

This page is written by `tools/settings_page.py` from `hub/config.py`.

| variable | default | what it trades | accepted |
| --- | --- | --- | --- |
"""
GENERATED = {"api_key": "generated", "token_secret": "generated"}
DERIVED = {
    "public_url": "from host and port",
    "redis_url": "an embedded Valkey",
    "database_url": "SQLite in the data folder",
    "log_format": "text on a terminal, else json",
    "allowed_origins": "the same origin; on a loopback host any loopback origin",
}


def default(name: str, value: Any) -> str:
    """The default as a reader should see it."""
    if name in GENERATED or name in DERIVED:
        return GENERATED.get(name) or DERIVED[name]
    if isinstance(value, RateLimit):
        return f"`{value.count}/m` per user token, none per API key"
    return f"`{value}`" if value not in (None, ()) else "none"


def render() -> str:
    """The whole page."""
    rows = [
        f"| `{variable(name)}`{'*' if is_secret(field) else ''} | {default(name, field.default)} "
        f"| {field.description} | {accepts(field)} |"
        for name, field in Settings.model_fields.items()
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render())
