"""What an e-mail says when its type brings no templates: title, text, links; for a digest the list of its items.

One column, styles within the elements, no colour behind the text, so that it reads well where e-mails are dark. The few
words of our own are in the recipient's language where we know it, else in English.
"""

import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Final
from urllib.parse import urlsplit

from hub.model.contents import cut
from hub.model.notifications import Content
from hub.model.outgoing import Item, Outgoing
from hub.model.preferences import locale_chain, pick_locale

PREVIEW_LIMIT: Final = 140
LISTED: Final = 100  # items that a digest lists; the others are counted
ITEM_LIMIT: Final = 500  # characters of an item's text
_HIDDEN: Final = "display:none;max-height:0;overflow:hidden;opacity:0;font-size:1px;line-height:1px"
_FONT: Final = "font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',Helvetica,Arial,sans-serif"
_BUTTON: Final = (
    "display:inline-block;padding:10px 20px;border-radius:6px;background-color:#3b4fd8;color:#ffffff;"
    "text-decoration:none;font-weight:600"
)
_BODY: Final = re.compile(r"<body\b", re.IGNORECASE)
_HAS_PREVIEW: Final = re.compile(r"display\s*:\s*none|preheader|preview", re.IGNORECASE)
_PREVIEW_PLACE: Final = 1000  # characters after <body> within which a template of its own would hide one

WORDS: Final[dict[str, dict[str, str]]] = {
    "en": {
        "count": "{n} notifications",
        "open": "Open",
        "more": "and {n} more",
        "preferences": "Notification settings",
        "unsubscribe": "Unsubscribe",
    },
    "de": {
        "count": "{n} Benachrichtigungen",
        "open": "Öffnen",
        "more": "und {n} weitere",
        "preferences": "Benachrichtigungen einstellen",
        "unsubscribe": "Abbestellen",
    },
    "ko": {
        "count": "알림 {n}건",
        "open": "열기",
        "more": "외 {n}건",
        "preferences": "알림 설정",
        "unsubscribe": "수신 거부",
    },
}


def language_of(outgoing: Outgoing) -> str:
    """The language of the message, as a BCP 47 tag: that of the type's texts which serve the recipient."""
    locale = outgoing.user.profile.locale
    definition = outgoing.kind.definition
    if definition.title is None and definition.body is None and not definition.locales:
        return locale or "en"  # the event brings its own words
    return pick_locale(definition.locales, locale) or "en"


def words_in(language: str) -> Mapping[str, str]:
    """Our own words in a language."""
    chain = locale_chain(WORDS, language)
    return WORDS[chain[0]] if chain else WORDS["en"]


def default_subject(outgoing: Outgoing) -> str:
    """The newest title; of a digest with the number before it."""
    title = outgoing.newest.content.title
    count = len(outgoing.items)
    if count == 1:
        return title
    return f"{words_in(language_of(outgoing))['count'].format(n=count)}: {title}"


def default_text(outgoing: Outgoing) -> str:
    """The plain text."""
    words = words_in(language_of(outgoing))
    count = len(outgoing.items)
    blocks = [words["count"].format(n=count)] if count > 1 else []
    for number, item in enumerate(outgoing.items[:LISTED], 1):
        content = item.content
        body = cut(content.body, ITEM_LIMIT) if count > 1 else content.body
        title = f"{number}. {content.title}" if count > 1 else content.title
        link = content.url if _web(content.url) else None
        named = [f"{action.title}: {action.url}" for action in content.actions if _web(action.url)]
        blocks.append("\n".join(part for part in (title, body, link, *named) if part))
    if count > LISTED:
        blocks.append(words["more"].format(n=count - LISTED))
    footer = [f"{label}: {url}" for label, url in _footer(outgoing.urls, words)]
    return "\n\n".join(blocks) + ("\n\n-- \n" + "\n".join(footer) if footer else "") + "\n"


def default_html(outgoing: Outgoing, subject: str) -> str:
    """The HTML."""
    language = language_of(outgoing)
    words = words_in(language)
    count = len(outgoing.items)
    if count == 1:
        inner = _single(outgoing.newest.content, words)
    else:
        items = "\n".join(_listed(item, words) for item in outgoing.items[:LISTED])
        more = f"<p>{words['more'].format(n=count - LISTED)}</p>" if count > LISTED else ""
        title = words["count"].format(n=count)
        inner = f'{_heading(title)}\n<ol style="margin:0;padding:0 0 0 24px">\n{items}\n</ol>\n{more}'
    return framed(inner, outgoing, subject, language)


def framed(inner: str, outgoing: Outgoing, subject: str, language: str) -> str:
    """A whole document around some HTML, with the links of the footer."""
    links = _footer(outgoing.urls, words_in(language))
    named = " · ".join(
        f'<a href="{escape(url)}" style="color:inherit">{escape(label)}</a>' for label, url in links
    )
    footer = f'<p style="margin:32px 0 0;font-size:13px;opacity:0.8">{named}</p>' if links else ""
    column = f"max-width:600px;margin:0 auto;padding:24px 16px;{_FONT};font-size:16px;line-height:1.5"
    body = f'{hidden_preview(outgoing)}<div style="{column}">\n{inner}\n{footer}\n</div>'
    return document(body, subject, language)


def document(body: str, subject: str, language: str) -> str:
    """A document with this body."""
    return (
        f'<!doctype html>\n<html lang="{escape(language)}">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="supported-color-schemes" content="light dark">\n'
        f'<title>{escape(subject)}</title>\n</head>\n<body style="margin:0;padding:0">\n{body}\n</body>\n</html>\n'
    )


def with_preview(html: str, outgoing: Outgoing, subject: str) -> str:
    """A template's HTML as a whole document with a preview text: the hidden words that lists of mails show."""
    found = _BODY.search(html)
    place = html.find(">", found.end()) + 1 if found is not None else 0
    shown_first = html[place : place + _PREVIEW_PLACE]
    hidden = "" if _HAS_PREVIEW.search(shown_first) else hidden_preview(outgoing)
    if place:
        return f"{html[:place]}{hidden}{html[place:]}"
    return html if "<html" in html.lower() else document(f"{hidden}{html}", subject, language_of(outgoing))


def hidden_preview(outgoing: Outgoing) -> str:
    """The hidden preview text; nothing when there are no words for it."""
    if len(outgoing.items) == 1:
        words = outgoing.newest.content.body
    else:
        words = " · ".join(item.content.title for item in reversed(outgoing.items[-5:]))
    text = cut(" ".join(words.split()), PREVIEW_LIMIT)
    return f'<div style="{_HIDDEN}">{escape(text)}</div>' if text else ""


def _single(content: Content, words: Mapping[str, str]) -> str:
    parts = [_heading(content.title), *_paragraphs(content.body)]
    links = _links(content, words)
    if links:
        (label, url), *others = links
        parts.append(
            f'<p style="margin:24px 0"><a href="{escape(url)}" style="{_BUTTON}">{escape(label)}</a></p>'
        )
        parts += [
            f'<p style="margin:0 0 8px"><a href="{escape(u)}">{escape(text)}</a></p>' for text, u in others
        ]
    return "\n".join(parts)


def _listed(item: Item, words: Mapping[str, str]) -> str:
    content = item.content
    title = escape(content.title)
    links = _links(content, words)
    if links:
        title = f'<a href="{escape(links[0][1])}">{title}</a>'
    body = "".join(_paragraphs(cut(content.body, ITEM_LIMIT)))
    return f'<li style="margin:0 0 16px"><strong>{title}</strong>{body}</li>'


def _heading(title: str) -> str:
    return f'<h1 dir="auto" style="margin:0 0 12px;font-size:20px;line-height:1.3">{escape(title)}</h1>'


def _paragraphs(body: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n", body.strip()):
        if block.strip():
            lines = escape(block.strip()).replace("\n", "<br>")
            yield f'<p dir="auto" style="margin:0 0 16px">{lines}</p>'


def _links(content: Content, words: Mapping[str, str]) -> list[tuple[str, str]]:
    """Label and address of what can be opened. Relative addresses lead nowhere from an e-mail."""
    found = [(words["open"], content.url)] if content.url and _web(content.url) else []
    return found + [(action.title, action.url) for action in content.actions if _web(action.url)]


def _footer(urls: Mapping[str, str], words: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(words[name], urls[name]) for name in ("preferences", "unsubscribe") if urls.get(name)]


def _web(url: str | None) -> bool:
    return url is not None and urlsplit(url).scheme.lower() in ("http", "https")
