"""What is wrong with a definition of a type or category beyond its shape, each mistake with its place.

Whoever stores a definition asks here first; what passes can be planned with.
"""

from collections.abc import Iterable, Iterator

from hub.errors import FieldError
from hub.model.addresses import escape_pointer, is_link, is_locale, is_sound, json_fault
from hub.model.schemas import schema_errors
from hub.model.templates import compile_check, is_plain, texts_of
from hub.model.types import CategoryDefinition, Digest, TypeDefinition
from hub.model.vocabulary import Channel

_CHANNEL_TEXTS = ("subject", "html", "mjml", "text")


def type_errors(definition: TypeDefinition, pointer: str = "") -> list[FieldError]:
    """All mistakes of a type definition; empty when it can be stored. `pointer`: where it stands in a larger document."""
    errors = [
        *(schema_errors(definition.schema) if definition.schema is not None else ()),
        *_text_errors(definition),
        *compile_check(definition),
        *_channel_errors(definition),
        *_locale_errors(definition.locales),
    ]
    return [FieldError(pointer + error.pointer, error.code, error.detail) for error in errors]


def category_errors(definition: CategoryDefinition, pointer: str = "") -> list[FieldError]:
    """All mistakes of a category definition."""
    errors = list(_locale_errors(definition.locales))
    texts = [("", definition), *((f"/locales/{escape_pointer(k)}", v) for k, v in definition.locales.items())]
    for place, owner in texts:
        for name in ("title", "description"):
            text = getattr(owner, name)
            if text is not None and not is_sound(text):
                errors.append(_unsound(f"{place}/{name}"))
    return [FieldError(pointer + error.pointer, error.code, error.detail) for error in errors]


def _text_errors(definition: TypeDefinition) -> Iterator[FieldError]:
    for pointer, source, _ in texts_of(definition):
        if not is_sound(source):
            yield _unsound(pointer)
        elif (
            pointer.endswith(("/url", "/icon"))
            and is_plain(source)
            and source.strip()
            and not is_link(source.strip())
        ):
            yield FieldError(pointer, "invalid_url", "Only http, https and relative addresses are allowed.")
    for index, name in enumerate(definition.expose):
        if fault := json_fault(name, f"/expose/{index}"):
            yield fault


def _unsound(pointer: str) -> FieldError:
    return FieldError(pointer, "invalid_text", "A NUL or half of a surrogate pair cannot be kept.")


def _channel_errors(definition: TypeDefinition) -> Iterator[FieldError]:
    for channel, rule in definition.channels.items():
        place = f"/channels/{channel}"
        if channel is Channel.IN_APP and rule.when in ("offline", "unseen"):
            yield FieldError(
                f"{place}/when", "invalid_policy", "The app is used always or never; others back it up."
            )
        for index, other in enumerate(rule.fallback):
            if other in (channel, Channel.IN_APP) or other in rule.fallback[:index]:
                detail = "A fallback is another channel than this and the app, named once."
                yield FieldError(f"{place}/fallback/{index}", "invalid_fallback", detail)
    if definition.digest is not None:
        yield from _digest_errors(definition.digest)
    for locale, texts in definition.locales.items():
        for channel, named in texts.channels.items():
            for name in named.keys() - set(_CHANNEL_TEXTS):
                place = f"/locales/{escape_pointer(locale)}/channels/{channel}/{escape_pointer(name)}"
                detail = f"A channel has the texts {', '.join(_CHANNEL_TEXTS)}."
                yield FieldError(place, "unknown_field", detail)


def _digest_errors(digest: Digest) -> Iterator[FieldError]:
    for index, channel in enumerate(digest.channels):
        if channel is Channel.IN_APP:
            detail = "Digests never hold back the app."
            yield FieldError(f"/digest/channels/{index}", "invalid_digest", detail)
    if digest.extend and digest.max_seconds is None:
        detail = "An extending digest needs max_seconds: a steady stream would put it off for ever."
        yield FieldError("/digest/max_seconds", "invalid_digest", detail)
    if digest.max_seconds is not None and digest.max_seconds < digest.window_seconds:
        detail = "A digest waits for window_seconds at least, so its maximum cannot be less."
        yield FieldError("/digest/max_seconds", "invalid_digest", detail)


def _locale_errors(locales: Iterable[str]) -> Iterator[FieldError]:
    for locale in locales:
        if not is_locale(locale):
            detail = "This is not a language tag, as in en or ko-KR."
            yield FieldError(f"/locales/{escape_pointer(locale)}", "invalid_locale", detail)
