"""Contents: what a notification shows, in one locale, from the event's own texts and the type's templates.

A template that fails never costs the notification: a stand-in is shown and the problem is told. What clients get of
the data is only what the type exposes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import Struct

from hub.errors import TemplateError
from hub.model.addresses import is_link
from hub.model.events import Action, Event
from hub.model.notifications import Content, rfc3339
from hub.model.preferences import locale_chain
from hub.model.templates import names_in, render
from hub.model.types import Texts, TypeVersion
from hub.model.users import Profile
from hub.model.vocabulary import Channel

TITLE_LIMIT: Final = 1000
BODY_LIMIT: Final = 10_000
LINK_LIMIT: Final = 2048
CHANNEL_TEXTS: Final = ("subject", "html", "mjml", "text")
_MARKUP: Final = frozenset({"html", "mjml"})
_UNSOUND: Final = re.compile("[\x00\ud800-\udfff]")

NOBODY: Final = Profile("")  # stands for the recipient where many read


class Rendered(Struct, frozen=True):
    """A content and what went wrong on the way to it."""

    content: Content
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class _Rendering:
    variables: Mapping[str, Any]
    problems: list[str] = field(default_factory=list)

    def text(self, field_name: str, source: str) -> str | None:
        try:
            return _UNSOUND.sub("", render(source, self.variables))
        except TemplateError as error:
            self.problems.append(f"{field_name}: {error}")
            return None

    def link(self, field_name: str, source: str) -> str | None:
        text = (self.text(field_name, source) or "").strip()
        if not text:
            return None
        if len(text) > LINK_LIMIT or not is_link(text):
            self.problems.append(f"{field_name}: what came out is not an http, https or relative address.")
            return None
        return text


def render_content(
    event: Event,
    kind: TypeVersion,
    recipient: Profile,
    locale: str | None,
    *,
    actor: Profile | None = None,
    urls: Mapping[str, str] | None = None,
    sources: Texts | None = None,
) -> Rendered:
    """What is shown of an event, for one recipient (`NOBODY` where many read) in the closest locale of the type.

    `sources`: the `own_texts` of that locale, from a caller who has them.
    """
    definition = kind.definition
    work = _Rendering(template_variables(event, kind, recipient, actor, urls or {}))
    sources = sources or own_texts(kind, locale)
    title, body = event.title, event.body
    if title is None and (source := sources.title) is not None:
        title = work.text("title", source)
    if body is None and (source := sources.body) is not None:
        body = work.text("body", source)
    title = cut(" ".join((title or "").split()), TITLE_LIMIT)
    body = cut((body or "").strip(), BODY_LIMIT)
    failed = any(problem.startswith("title:") for problem in work.problems)
    content = Content(
        title=kind.name if not title and (failed or not body) else title,
        body=body,
        url=event.url or (work.link("url", sources.url) if sources.url else None),
        icon=event.icon or (work.link("icon", sources.icon) if sources.icon else None),
        actions=event.actions or _actions(work, definition.actions),
        data=exposed(event, kind),
        actor_name=actor.name if actor else None,
        actor_avatar=actor.avatar if actor else None,
    )
    return Rendered(content, tuple(work.problems))


def stand_in(event: Event, kind: TypeVersion) -> Content:
    """What a row shows that nobody sees: nothing is rendered for it."""
    return Content(title=event.title or kind.name)


def own_texts(kind: TypeVersion, locale: str | None) -> Texts:
    """The type's templates for a locale, each from the narrowest locale that has it."""
    definition = kind.definition
    chain = [definition.locales[key] for key in locale_chain(definition.locales, locale)]

    def first(name: str) -> str | None:
        found: str | None = next(
            (text for texts in chain if (text := getattr(texts, name)) is not None), None
        )
        return getattr(definition, name) if found is None else found

    return Texts(title=first("title"), body=first("body"), url=first("url"), icon=first("icon"))


def channel_texts(kind: TypeVersion, channel: Channel, locale: str | None) -> dict[str, str]:
    """A channel's own templates (`subject`, `html`, `mjml`, `text`) for a locale, each from the narrowest that has it."""
    definition = kind.definition
    rule = definition.channels.get(channel)
    found = {
        name: text for name in CHANNEL_TEXTS if rule is not None and (text := getattr(rule, name)) is not None
    }
    for key in reversed(list(locale_chain(definition.locales, locale))):  # the widest first
        own = definition.locales[key].channels.get(channel, {})
        if own.keys() & _MARKUP:  # one of the two ways to write HTML stands for both
            found = {name: text for name, text in found.items() if name not in _MARKUP}
        found |= own
    return found


def reads_recipient(kind: TypeVersion, texts: Texts) -> bool:
    """Whether in-app texts differ from one recipient to the next."""
    sources = [texts.title, texts.body, texts.url, texts.icon]
    for action in kind.definition.actions:
        sources += [action.title, action.url]
    return any("recipient" in names_in(source) for source in sources if source)


def exposed(event: Event, kind: TypeVersion) -> dict[str, Any]:
    """The part of the data that clients get."""
    if kind.name == "message":
        return event.data
    return {name: event.data[name] for name in kind.definition.expose if name in event.data}


def cut(text: str, limit: int) -> str:
    """A text of at most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _actions(work: _Rendering, actions: list[Action]) -> tuple[Action, ...]:
    shown = []
    for index, action in enumerate(actions):
        title, url = (
            work.text(f"actions/{index}/title", action.title),
            work.link(f"actions/{index}/url", action.url),
        )
        if title and title.strip() and url:
            shown.append(Action(cut(title.strip(), 200), url))
    return tuple(shown)


def template_variables(
    event: Event, kind: TypeVersion, recipient: Profile, actor: Profile | None, urls: Mapping[str, str]
) -> dict[str, Any]:
    """What every template gets; `items` and `count` are one event's."""
    return {
        "data": event.data,
        "items": [event.data],
        "count": 1,
        "urls": dict(urls),
        "recipient": {
            "id": recipient.id or None,
            "name": recipient.name,
            "email": recipient.email,
            "phone": recipient.phone,
            "locale": recipient.locale,
            "timezone": recipient.timezone,
            "attributes": recipient.attributes,
        },
        "actor": {
            "id": event.actor,
            "name": actor.name if actor else None,
            "avatar": actor.avatar if actor else None,
        },
        "event": {
            "id": event.id,
            "type": event.type,
            "category": kind.definition.category,
            "accepted_at": rfc3339(event.accepted_at_us),
            "priority": event.priority,
            "title": event.title,
            "body": event.body,
            "url": event.url,
        },
    }
