"""From HTML to text and back: the alternative of a template that gives only one of them. Simple, bounded, no I/O.

The text is for those who read no HTML: words in reading order, addresses behind their links, a line for each block. It
is read in one pass, whatever the HTML is: the standard library's parser takes minutes for 60 KB of unclosed tags.
"""

import re
from collections.abc import Iterator
from html import escape, unescape
from typing import Final, NamedTuple

TEXT_LIMIT: Final = 100_000
_TAG_LIMIT: Final = 8_192
_SILENT: Final = frozenset({"head", "script", "style", "template", "title"})
_BLOCKS: Final = frozenset(
    {
        "address", "article", "aside", "blockquote", "center", "dd", "div", "dl", "dt", "fieldset", "figure", "footer",
        "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section",
        "table", "tr", "ul",
    }
)  # fmt: skip
_APART: Final = frozenset({"blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "table", "ul"})
_VOID: Final = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)
_HIDDEN: Final = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_LINK: Final = re.compile(r"https?://[^\s<>\"]+[^\s<>\".,;:!?)\]}']")
_TAG: Final = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)((?:[^'\">]|\"[^\"]*\"|'[^']*')*)>")
_NAME: Final = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)")
_ATTRIBUTE: Final = re.compile(
    r"(?<![\w-])(href|alt|style)\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s>]+))", re.IGNORECASE
)


def text_of(html: str) -> str:
    """The words of a page, as plain text."""
    reader = _Reader()
    for token in _tokens(html):
        if isinstance(token, str):
            reader.words(token)
        elif token.is_end:
            reader.close(token.name)
        else:
            reader.open(token)
    return reader.text()


def html_of(text: str) -> str:
    """Plain text as paragraphs, its addresses as links."""
    blocks = re.split(r"\n{2,}", text.strip().replace("\r\n", "\n"))
    shown = (_linked(block).replace("\n", "<br>\n") for block in blocks)
    return "\n".join(f'<p dir="auto" style="margin:0 0 16px">{block}</p>' for block in shown)


def _linked(text: str) -> str:
    parts = []
    end = 0
    for found in _LINK.finditer(text):
        address = escape(found[0])
        parts += [escape(text[end : found.start()]), f'<a href="{address}">{address}</a>']
        end = found.end()
    return "".join([*parts, escape(text[end:])])


class _Tag(NamedTuple):
    name: str
    is_end: bool
    given: str  # its attributes

    def attribute(self, name: str) -> str:
        for found in _ATTRIBUTE.finditer(self.given):
            if found[1].lower() == name:
                return unescape(found[2] or found[3] or found[4] or "")
        return ""


def _tokens(html: str) -> Iterator[str | _Tag]:
    """Words and tags in order. What begins like a tag and never ends is left out, with all behind it."""
    place = 0
    while (start := html.find("<", place)) >= 0:
        if start > place:
            yield html[place:start]
        if html.startswith("<!--", start):
            end = html.find("-->", start)
            if end < 0:
                return
            place = end + 3
        elif found := _TAG.match(html, start, start + _TAG_LIMIT):
            yield _Tag(found[2].lower(), found[1] == "/", found[3])
            place = found.end()
        elif html[start + 1 : start + 2].isalpha() or html[start + 1 : start + 2] in ("/", "!", "?"):
            end = html.find(">", start)  # quotes that do not match, or no name
            if end < 0:
                return
            if named := _NAME.match(html, start, end):
                yield _Tag(named[2].lower(), named[1] == "/", "")
            place = end + 1
        else:
            yield "<"
            place = start + 1
    yield html[place:]


class _Reader:
    """Collects words. Whitespace is one space, as a browser shows it; blocks begin new lines."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._silent: list[str] = []  # the open elements since one that is not shown
        self._links: list[tuple[str, int]] = []  # address, and where its words begin

    def open(self, tag: _Tag) -> None:
        name = tag.name
        if self._silent or name in _SILENT or (tag.given and _HIDDEN.search(tag.attribute("style"))):
            if name not in _VOID:
                self._silent.append(name)
        elif name == "br":
            self._add("\n")
        elif name == "img":
            self._add(tag.attribute("alt"))
        elif name == "a":
            self._links.append((tag.attribute("href"), len(self._parts)))
        elif name in ("td", "th"):
            self._add(" ")
        elif name in _BLOCKS:
            self._add("\n\n" if name in _APART else "\n")
            if name == "li":
                self._add("- ")

    def close(self, name: str) -> None:
        if self._silent:
            if self._silent[-1] == name:
                self._silent.pop()
            elif name in _SILENT or name in ("body", "html"):  # whatever was left open in it
                self._silent.clear()
        elif name == "a" and self._links:
            address, start = self._links.pop()
            words = "".join(self._parts[start:]).strip()
            if address.startswith(("http://", "https://")) and address != words:
                self._add(f" ({address})" if words else address)
        elif name in _BLOCKS:
            self._add("\n\n" if name in _APART else ("" if name == "li" else "\n"))

    def words(self, text: str) -> None:
        if not self._silent:
            self._add(re.sub(r"[ \t\r\n\f]+", " ", unescape(text)))

    def _add(self, text: str) -> None:
        if text and self._length < TEXT_LIMIT:
            self._parts.append(text)
            self._length += len(text)

    def text(self) -> str:
        whole = "".join(self._parts)[:TEXT_LIMIT]
        lines = (re.sub(r"[ \u00a0]+", " ", line).strip() for line in whole.split("\n"))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
