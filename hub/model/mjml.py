"""MJML: the markup for e-mails that becomes HTML with tables which every mail program understands. Compiled once per source.

Pure: nothing is included from files or the net. What Jinja reads is kept out of the compiler's sight, so that it may
say anything anywhere. A source that would exhaust the compiler's stack is refused before it gets there.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

import mrml

from hub.errors import TemplateError
from hub.model.template_filters import TEXT_LIMIT

# Of any kind, so that none can hide another: nested some thousands deep, they exhaust the stack and end the process.
TAG_LIMIT: Final = 500
_OPENING: Final = re.compile(r"\{\{|\{%|\{#")
_CLOSING: Final = {"{{": "}}", "{%": "%}", "{#": "#}"}
_TAG: Final = re.compile(r"<[A-Za-z]")
_KEPT: Final = "jinja{}kept"
_KEPT_PLACE: Final = re.compile(r"jinja([0-9]+)kept")


class CompiledMjml(NamedTuple):
    """The HTML, still a Jinja template, and whether it has a preview text (`mj-preview`)."""

    html: str
    has_preview: bool


@lru_cache(maxsize=256)
def compile_mjml(source: str) -> CompiledMjml:
    """MJML with Jinja in it as HTML with Jinja in it. Raises `TemplateError` with a sentence."""
    if _KEPT_PLACE.search(source):
        raise TemplateError("MJML cannot hold words such as jinja0kept.")
    plain, kept = _set_aside(source)
    if len(_TAG.findall(plain)) > TAG_LIMIT:
        raise TemplateError(f"MJML may have {TAG_LIMIT} elements, those of HTML included.")
    try:
        compiled = mrml.to_html(plain)
    except Exception as error:  # noqa: BLE001  (it says what it cannot read with OSError, and does not promise so)
        raise TemplateError(f"This is not MJML: {str(error)[:200]}.") from None
    html = _KEPT_PLACE.sub(lambda found: kept[int(found[1])], compiled.content)
    if len(html) > TEXT_LIMIT:
        raise TemplateError(
            f"The HTML of this MJML has {len(html)} characters; at most {TEXT_LIMIT} can be sent."
        )
    return CompiledMjml(html, bool((compiled.preview or "").strip()))


def _set_aside(source: str) -> tuple[str, list[str]]:
    """The source with a word in the place of everything that Jinja reads, and what stood there."""
    parts: list[str] = []
    kept: list[str] = []
    place = 0
    while found := _OPENING.search(source, place):
        end = source.find(_CLOSING[found[0]], found.end())
        if end < 0:
            raise TemplateError(f"What begins with {found[0]} does not end.")
        parts += [source[place : found.start()], _KEPT.format(len(kept))]
        place = end + 2
        kept.append(source[found.start() : place])
    return "".join([*parts, source[place:]]), kept
