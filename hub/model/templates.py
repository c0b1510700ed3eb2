"""Templates of types: compiled once, rendered within bounds, checked when a type is defined.

`render` answers with a text or raises `TemplateError`, whatever a template and its data do; it never loops, swells
or reaches anything but the given variables. What the sandbox bounds is told in `hub.model.sandbox`.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import jinja2
from jinja2 import meta

from hub.errors import FieldError, TemplateError
from hub.model.mjml import compile_mjml
from hub.model.sandbox import Sandbox
from hub.model.template_filters import TEXT_LIMIT
from hub.model.types import TypeDefinition

VARIABLES: Final = frozenset({"data", "recipient", "actor", "event", "items", "count", "urls"})
_HTML_TEXTS: Final = frozenset({"html", "mjml"})

_text: Final = Sandbox(html=False)
_html: Final = Sandbox(html=True)


def render(source: str, variables: Mapping[str, Any], *, html: bool = False) -> str:
    """A template with these variables. Raises `TemplateError` with a sentence."""
    if is_plain(source):
        return source
    try:
        template, weight = _load(source, html)
        context = (_html if html else _text).context_for(template, variables)
        context.meter.spend(weight)
        length, parts = 0, []
        for part in template.root_render_func(context):
            length += len(part)
            if length > TEXT_LIMIT:
                raise TemplateError(f"The output has more than {TEXT_LIMIT} characters.")
            parts.append(part)
        return "".join(parts)
    except TemplateError:
        raise
    except jinja2.UndefinedError as error:
        raise TemplateError(f"{error}.") from None
    except RecursionError:
        raise TemplateError("The template is nested too deeply.") from None
    except Exception as error:  # noqa: BLE001  (a template can make any operation fail; its recipient must not suffer)
        raise TemplateError(f"{type(error).__name__}: {str(error)[:200]}.") from None


def is_plain(source: str) -> bool:
    """Tell whether a text has nothing to render."""
    return "{{" not in source and "{%" not in source and "{#" not in source


def names_in(source: str) -> frozenset[str]:
    """The variables that a template reads. Empty for one that does not compile."""
    return _names_in(source) if not is_plain(source) else frozenset()


@lru_cache(maxsize=1024)
def _names_in(source: str) -> frozenset[str]:
    try:
        return frozenset(meta.find_undeclared_variables(_text.parse(source)))
    except (jinja2.TemplateError, RecursionError):
        return frozenset()


@lru_cache(maxsize=1024)
def _load(source: str, html: bool) -> tuple[jinja2.Template, int]:
    """Compile once. Raises `TemplateError`."""
    try:
        return (_html if html else _text).load(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(
            f"Line {error.lineno or 1}: {(error.message or 'this cannot be read').rstrip('.')}."
        ) from None
    except (RecursionError, SyntaxError, MemoryError, jinja2.TemplateError):
        raise TemplateError("The template is nested too deeply.") from None


# ---------------------------------------------------------------- definitions


def texts_of(definition: TypeDefinition) -> Iterator[tuple[str, str, bool]]:
    """Every template of a type: its JSON pointer, its source, and whether it makes HTML."""
    for field in ("title", "body", "url", "icon"):
        if (source := getattr(definition, field)) is not None:
            yield f"/{field}", source, False
    for index, action in enumerate(definition.actions):
        yield f"/actions/{index}/title", action.title, False
        yield f"/actions/{index}/url", action.url, False
    for channel, rule in definition.channels.items():
        for field in ("subject", "html", "mjml", "text"):
            if (source := getattr(rule, field)) is not None:
                yield f"/channels/{channel}/{field}", source, field in _HTML_TEXTS
    for locale, texts in definition.locales.items():
        place = f"/locales/{locale.replace('~', '~0').replace('/', '~1')}"
        for field in ("title", "body", "url", "icon"):
            if (source := getattr(texts, field)) is not None:
                yield f"{place}/{field}", source, False
        for channel, named in texts.channels.items():
            for field, source in named.items():
                yield f"{place}/channels/{channel}/{field}", source, field in _HTML_TEXTS


def compile_check(definition: TypeDefinition) -> list[FieldError]:
    """What is wrong with a type's templates: what does not compile, and names that no template is given."""
    errors = []
    for pointer, given, html in texts_of(definition):
        try:
            source = compile_mjml(given).html if pointer.endswith("/mjml") else given
            if is_plain(source):
                continue
            _load(source, html)
        except TemplateError as error:
            errors.append(FieldError(pointer, "invalid_template", str(error)))
            continue
        known = VARIABLES | _text.globals.keys()
        for name in sorted(names_in(source) - known):
            detail = f"{name!r} is not defined; templates get {', '.join(sorted(VARIABLES))}."
            errors.append(FieldError(pointer, "invalid_template", detail))
    return errors
