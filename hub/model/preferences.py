"""Preferences: what a user allows, as rules that can be listed one by one.

Every rule that applies must allow. What a user left unset follows the category's default, else it is allowed. A
critical type passes all rules here; addresses are another matter (`hub.model.planning`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from hub.errors import FieldError, Refused
from hub.model.types import CategoryDefinition, TypeVersion
from hub.model.users import Preferences
from hub.model.vocabulary import Channel

PREFERENCES_LIMIT_BYTES: Final = 16_384


class Verdict(NamedTuple):
    """What one rule says. `rule` is a key of `hub.model.rules.RULES`."""

    allowed: bool
    rule: str
    detail: str


class Cause(NamedTuple):
    """What a preference is asked about: who caused the event, and the topic that it came on (None: neither)."""

    actor: str | None = None
    topic: str | None = None


def judge(
    preferences: Preferences, category: str, defaults: Mapping[Channel, bool], channel: Channel, cause: Cause
) -> Iterator[Verdict]:
    """Every rule that applies, in order of width: channel, category, the channel in the category or its default, who, where."""
    whole = preferences.channels.get(channel)
    if whole is not None:
        yield Verdict(whole, "channel", f"The user switched {channel} {_on(whole)}.")
    own = preferences.categories.get(category)
    if isinstance(own, bool):
        yield Verdict(own, "category", f"The user switched the category {category} {_on(own)}.")
    choice = own.get(channel) if isinstance(own, dict) else None
    if choice is not None:
        detail = f"The user switched {channel} {_on(choice)} for the category {category}."
        yield Verdict(choice, "category_channel", detail)
    elif channel in defaults:
        default = defaults[channel]
        detail = f"By default {channel} is {_on(default)} for the category {category}."
        yield Verdict(default, "category_default", detail)
    if cause.actor is not None and preferences.muted.actors:
        muted = cause.actor in preferences.muted.actors
        detail = f"The user {'muted' if muted else 'did not mute'} {cause.actor}."
        yield Verdict(not muted, "muted_actor", detail)
    if cause.topic is not None and preferences.muted.topics:
        muted = cause.topic in preferences.muted.topics
        detail = f"The user {'muted' if muted else 'did not mute'} the topic {cause.topic}."
        yield Verdict(not muted, "muted_topic", detail)
    yield from _judge_only(preferences, category, cause)


def _judge_only(preferences: Preferences, category: str, cause: Cause) -> Iterator[Verdict]:
    only = preferences.only.categories.get(category)
    if only is None:
        return
    if only.actors is not None:
        chosen = cause.actor in only.actors
        who = cause.actor or "nobody in particular"
        detail = f"In {category} the user wants only what chosen people cause; this was {who}."
        yield Verdict(chosen, "only_actors", detail)
    if only.topics is not None:
        chosen = cause.topic in only.topics
        where = f"the topic {cause.topic}" if cause.topic else "no topic"
        detail = f"In {category} the user wants only what comes on chosen topics; this came on {where}."
        yield Verdict(chosen, "only_topics", detail)


def _on(allowed: bool) -> str:
    return "on" if allowed else "off"


ALLOWED: Final = Verdict(True, "allowed", "Nothing that the user chose speaks against it.")
CRITICAL: Final = Verdict(True, "critical", "The type is critical, so it passes what the user chose.")


def allows(
    preferences: Preferences,
    category: str,
    defaults: Mapping[Channel, bool],
    channel: Channel,
    *,
    actor: str | None = None,
    topic: str | None = None,
    critical: bool = False,
) -> Verdict:
    """Whether preferences let a notification through on a channel, and the rule that decided."""
    for verdict in judge(preferences, category, defaults, channel, Cause(actor, topic)):
        if not verdict.allowed:
            return CRITICAL if critical else verdict
    return ALLOWED


# ---------------------------------------------------------------- the grid


class GridCell(Struct, frozen=True):
    """One switch of the preferences page. `allowed` is what holds now, `default` what holds without a choice."""

    allowed: bool
    default: bool
    available: bool  # a type of the category uses the channel, and a provider serves it
    locked: bool  # all types of the category are critical: switching would change nothing


class GridRow(Struct, frozen=True):
    """One category of the preferences page, in the user's language."""

    category: str
    title: str
    description: str | None
    channels: dict[Channel, GridCell]


def grid(
    preferences: Preferences,
    categories: Mapping[str, CategoryDefinition],
    types: Iterable[TypeVersion],
    available: frozenset[Channel],
    locale: str | None,
) -> list[GridRow]:
    """The switches of every category that is not hidden, by title. Categories that only types name count too."""
    used: dict[str, set[Channel]] = {}
    ordinary: set[str] = set()
    for known in types:
        definition = known.definition
        used.setdefault(definition.category, set()).update(_channels_of(known))
        if not definition.critical:
            ordinary.add(definition.category)
    rows = []
    for name in sorted(used.keys() | categories.keys()):
        category = categories.get(name, CategoryDefinition())
        if category.hidden:
            continue
        title, description = category_words(name, category, locale)
        locked = name in used and name not in ordinary
        cells = {
            channel: GridCell(
                allowed=locked or allows(_switches(preferences), name, category.defaults, channel).allowed,
                default=locked or category.defaults.get(channel, True),
                available=channel in used.get(name, ())
                and (channel in available or channel is Channel.IN_APP),
                locked=locked,
            )
            for channel in Channel
        }
        rows.append(GridRow(name, title, description, cells))
    return sorted(rows, key=lambda row: (row.title.casefold(), row.category))


def _channels_of(known: TypeVersion) -> Iterator[Channel]:
    for channel, rule in known.definition.channels.items():
        if rule.when != "never":
            yield channel
            yield from rule.fallback


def _switches(preferences: Preferences) -> Preferences:
    """Only the switches: the grid says nothing of people and topics."""
    return Preferences(channels=preferences.channels, categories=preferences.categories)


def category_words(name: str, category: CategoryDefinition, locale: str | None) -> tuple[str, str | None]:
    """A category's title and description in a language."""
    title, description = category.title, category.description
    for key in reversed(locale_chain(category.locales, locale)):
        title = category.locales[key].title or title
        description = category.locales[key].description or description
    return title or name, description


# ---------------------------------------------------------------- locales


def locale_chain(known: Iterable[str], locale: str | None) -> list[str]:
    """The known locales that serve a user's, narrowest first: ko-KR, then ko. Case does not matter."""
    if not locale:
        return []
    by_name = {key.casefold(): key for key in known if key}
    parts = locale.casefold().split("-")
    wanted = ("-".join(parts[:length]) for length in range(len(parts), 0, -1))
    return [by_name[name] for name in wanted if name in by_name]


def pick_locale(known: Iterable[str], locale: str | None) -> str:
    """The key that is shown to a user: ko-KR, else ko, else "" (the type's own texts)."""
    chain = locale_chain(known, locale)
    return chain[0] if chain else ""


# ---------------------------------------------------------------- changing


def preferences_errors(preferences: Preferences) -> list[FieldError]:
    """What is wrong with preferences beyond their shape: their size, and names that are none."""
    errors = []
    if len(msgspec.json.encode(preferences)) > PREFERENCES_LIMIT_BYTES:
        detail = f"Preferences may have at most {PREFERENCES_LIMIT_BYTES} bytes as JSON."
        errors.append(FieldError("", "too_large", detail))
    return errors


def parse_preferences(document: Any) -> Preferences:
    """A JSON value as preferences. Raises `Refused(422)` with the place of the mistake."""
    try:
        preferences = msgspec.convert(document, Preferences)
    except msgspec.ValidationError as error:
        sentence, _, path = str(error).partition(" - at `")
        # msgspec names no entry of a map: "$.categories[...]", and "key` in `$.categories" for a wrong key.
        place = path.strip("`").removeprefix("key` in `").removeprefix("$")
        pointer = place.partition("[")[0].replace(".", "/")
        problem = FieldError(pointer, "invalid_value", sentence + ".")
        raise Refused(
            422, "invalid_preferences", f"These are not preferences: {sentence}.", [problem]
        ) from None
    if errors := preferences_errors(preferences):
        raise Refused(422, "invalid_preferences", errors[0].detail, errors)
    return preferences


def patch_preferences(preferences: Preferences, patch: Any) -> Preferences:
    """Preferences after an RFC 7396 merge. Raises `Refused(422)` when the result is not preferences."""
    return parse_preferences(merge_patch(msgspec.to_builtins(preferences), patch))


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396 §2: a null removes, an object merges, everything else replaces. The arguments stay as they are."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged
