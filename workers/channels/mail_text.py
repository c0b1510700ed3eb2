"""From HTML to text and back: the alternative of a template that gives only one of them. Simple, bounded, no I/O.

The text is for those who read no HTML: words in reading order, addresses behind their links, a line for each block.
"""

import re
from html import escape
from html.parser import HTMLParser
from typing import Final

TEXT_LIMIT: Final = 100_000
_SILENT: Final = frozenset({"head", "script", "style", "template", "title"})
_BLOCKS: Final = frozenset(
    {
        "address", "article", "aside", "blockquote", "center", "dd", "div", "dl", "dt", "fieldset", "figure", "footer",
        "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p", "pre", "section",
        "table", "tr", "ul",
    }
)  # fmt: skip
_APART: Final = frozenset({"blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "table", "ul"})
_HIDDEN: Final = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_VOID: Final = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)
_LINK: Final = re.compile(r"https?://[^\s<>\"]+[^\s<>\".,;:!?)\]}']")


def text_of(html: str) -> str:
    """The words of a page, as plain text."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
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


class _Reader(HTMLParser):
    """Collects words. Whitespace is one space, as a browser shows it; blocks begin new lines."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._length = 0
        self._silent: list[str] = []  # the open elements since one that is not shown
        self._links: list[tuple[str, int]] = []  # address, and where its words begin

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        hidden = tag in _SILENT or _HIDDEN.search(given.get("style") or "") is not None
        if self._silent or hidden:
            if tag not in _VOID:
                self._silent.append(tag)
            return
        if tag == "br":
            self._add("\n")
        elif tag == "img":
            self._add(given.get("alt") or "")
        elif tag == "a":
            self._links.append((given.get("href") or "", len(self._parts)))
        elif tag in ("td", "th"):
            self._add(" ")
        elif tag in _BLOCKS:
            self._add("\n\n" if tag in _APART else "\n")
            if tag == "li":
                self._add("- ")

    def handle_endtag(self, tag: str) -> None:
        if self._silent:
            if tag in self._silent:
                while self._silent.pop() != tag:
                    pass
            return
        if tag == "a" and self._links:
            address, start = self._links.pop()
            words = "".join(self._parts[start:]).strip()
            if address.startswith(("http://", "https://")) and address != words:
                self._add(f" ({address})" if words else address)
        elif tag in _BLOCKS:
            self._add("\n\n" if tag in _APART else "\n")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._add(re.sub(r"[ \t\r\n\f]+", " ", data))

    def _add(self, text: str) -> None:
        if self._length < TEXT_LIMIT:
            self._parts.append(text)
            self._length += len(text)

    def text(self) -> str:
        whole = "".join(self._parts)[:TEXT_LIMIT]
        lines = (re.sub(r"[ \u00a0]+", " ", line).strip() for line in whole.split("\n"))
        return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
