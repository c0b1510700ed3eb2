"""Short texts of a delivery, for channels that show a few lines: title, body and address, clean of what runs or hides.

A template of the channel goes first; what it lacks comes from what the app shows. A digest lists the titles of its
items, newest first.
"""

import re
from typing import Final

from msgspec import Struct

from hub.errors import TemplateError
from hub.model.contents import channel_texts, cut
from hub.model.outgoing import Outgoing, variables
from hub.model.preferences import locale_chain
from hub.model.templates import render
from hub.model.vocabulary import Channel
from workers.channels.base import ComposeError

LISTED: Final = 5
LINE_LIMIT: Final = 120
_WEB: Final = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://")
_BREAKS: Final = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Controls, halves of surrogate pairs, and what turns the direction of writing: it can show one text and mean another.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ud800-\udfff]"
)


class ShortText(Struct, frozen=True):
    """What a short message shows. `url` is absolute: a relative one leads nowhere outside its page."""

    title: str
    body: str
    url: str | None = None


def clean(text: str) -> str:
    """A text without control characters: lines end with a newline, tabs are spaces, blanks at the ends are gone."""
    return _UNSEEN.sub("", _BREAKS.sub("\n", text).replace("\t", " ")).strip()


def line(text: str) -> str:
    """A text on one line, clean."""
    return " ".join(clean(text).split())


def own_texts(outgoing: Outgoing, channel: Channel) -> dict[str, str]:
    """The channel's own templates, rendered and clean. Raises `ComposeError` for one that does not render."""
    sources = channel_texts(outgoing.kind, channel, outgoing.user.profile.locale)
    given = variables(outgoing) if sources else {}
    found = {}
    for name in ("subject", "text"):
        if (source := sources.get(name)) is None:
            continue
        try:
            found[name] = clean(render(source, given))
        except TemplateError as error:
            raise ComposeError(
                f"The {name} template of type {outgoing.kind.name!r} failed: {error}"
            ) from None
    return found


def short_text(outgoing: Outgoing) -> ShortText:
    """What the app shows, in short; of a digest its heading and its titles."""
    content = outgoing.newest.content
    url = content.url if content.url and _WEB.match(content.url) else None
    if len(outgoing.items) == 1:
        return ShortText(line(content.title), clean(content.body), url)
    titles = [cut(line(item.content.title), LINE_LIMIT) for item in reversed(outgoing.items)]
    lines = [f"- {title}" for title in titles[:LISTED]]
    if len(titles) > LISTED:
        lines.append(f"+{len(titles) - LISTED}")
    return ShortText(f"{_heading(outgoing)} ({len(titles)})", "\n".join(lines), url)


def _heading(outgoing: Outgoing) -> str:
    """The category's name in the user's language, else the type's."""
    category = outgoing.category
    if category is not None:
        for key in locale_chain(category.locales, outgoing.user.profile.locale):
            if title := category.locales[key].title:
                return line(title)
        if category.title:
            return line(category.title)
    return outgoing.kind.name
