"""What templates may do with values: the bill (`Meter`), and the filters, each charged for what goes in and comes out.

A filter that could answer with far more than it was given foresees the size before it works. Filters that look
around, are random or have no use in a message do not exist here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import msgspec
from jinja2 import Undefined
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.utils import _PassArg, pass_context
from markupsafe import Markup, escape

from hub.errors import TemplateError

STEP_LIMIT: Final = 100_000
TEXT_LIMIT: Final = 65_536  # characters of any one text, and of the output
_INTEGER_BITS: Final = 256
_ARGUMENT_LIMIT: Final = 10_000

_TEST_NAMES: Final = (
    "!= < <= == > >= boolean defined divisibleby eq equalto even false float ge greaterthan gt in integer iterable le"
    " lessthan lower lt mapping ne none number odd sameas sequence string true undefined upper"
)
PLAIN_TESTS: Final = frozenset(_TEST_NAMES.split())


class Meter:
    """The bill of one rendering. Whatever exceeds it raises `TemplateError` before it is made."""

    __slots__ = ("_left",)

    def __init__(self, steps: int = STEP_LIMIT) -> None:
        self._left = steps

    def spend(self, cost: int) -> None:
        """Pay for some steps."""
        self._left -= max(cost, 1)
        if self._left < 0:
            raise TemplateError("The template takes too many steps, or makes too much of its data.")

    def foresee(self, length: int) -> None:
        """Refuse a text before it is made, and pay for it."""
        if length > TEXT_LIMIT:
            raise TemplateError(
                f"A text of a template has at most {TEXT_LIMIT} characters; this would have {length}."
            )
        self.spend(1 + (length >> 4))

    def foresee_product(self, left: Any, right: Any) -> None:
        """Refuse `left * right` when it would be long."""
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str) and isinstance(other, int):
                self.foresee(len(one) * max(other, 0))
            elif isinstance(one, (list, tuple)) and isinstance(other, int):
                self.spend(len(one) * max(other, 0))

    def foresee_power(self, base: Any, exponent: Any) -> None:
        """Refuse a power of integers that would be large."""
        if isinstance(base, int) and isinstance(exponent, int):
            if exponent > 0 and base.bit_length() * exponent > _INTEGER_BITS:
                raise TemplateError("The power is too large.")
        elif not isinstance(base, float | int) or not isinstance(exponent, float | int):
            raise TemplateError("Only numbers have powers.")

    def weigh(self, value: Any) -> Any:
        """Pay for a value by its size, as deep as it goes; returns it. Raises for a text or number beyond all use."""
        if type(value) is str and len(value) <= TEXT_LIMIT:  # most values are short texts
            self.spend(1 + (len(value) >> 4))
            return value
        todo: list[Any] = [value]
        while todo:
            part = todo.pop()
            cost = 1
            if isinstance(part, str):
                if len(part) > TEXT_LIMIT:
                    raise TemplateError(f"A text of a template has at most {TEXT_LIMIT} characters.")
                cost += len(part) >> 4
            elif isinstance(part, (list, tuple)):
                self.spend(len(part))  # before they are put on the pile
                todo.extend(part)
            elif isinstance(part, dict):
                self.spend(len(part))
                todo.extend(part)
                todo.extend(part.values())
            elif isinstance(part, range):
                cost += len(part)
            elif isinstance(part, int) and part.bit_length() > _INTEGER_BITS:
                raise TemplateError("The number is too large.")
            self.spend(cost)
        return value

    def collect(self, items: Iterable[Any]) -> list[Any]:
        """An iterator as a list, paid item by item."""
        collected = []
        for item in items:
            self.spend(1)
            collected.append(item)
        return collected


def show(meter: Meter, value: Any) -> str:
    """A value as text: JSON for lists and objects. Raises for functions and the like, and for what is undefined."""
    if isinstance(value, (str, Undefined)):
        return str(value)
    if isinstance(value, (bool, int, float)):
        return str(meter.weigh(value))
    if value is None:
        return ""
    if isinstance(value, (dict, list, tuple, range)):
        meter.weigh(value)
        try:
            text = msgspec.json.encode(list(value) if isinstance(value, range) else value).decode()
        except (TypeError, msgspec.MsgspecError):
            raise TemplateError("This list or object holds something that cannot be shown.") from None
        meter.foresee(len(text))
        return text
    raise TemplateError(f"A {type(value).__name__} cannot be shown; a name may be missing.")


_WIDE: Final = re.compile(r"%(?:\([^)]*\))?[#0\- +]*(?:\*|\d{3,}|\d*\.(?:\*|\d{3,}))")


def printf(meter: Meter, text: str, values: Any) -> str:
    """`text % values` without wide fields."""
    meter.weigh(text)
    meter.weigh(values)
    if _WIDE.search(text):
        raise TemplateError("A field of a format has at most 99 places.")
    lone = not isinstance(values, (tuple, dict))
    parts = (values,) if lone else values
    for part in parts.values() if isinstance(parts, dict) else parts:
        if not isinstance(part, (str, int, float)):
            raise TemplateError("Only texts and numbers can be formatted.")
    longest = max((len(part) for part in _texts(parts)), default=0)
    meter.foresee(len(text) + text.count("%") * (400 + longest * (6 if isinstance(text, Markup) else 1)))
    return text % parts


def _texts(parts: Any) -> Iterator[str]:
    return (part for part in (parts.values() if isinstance(parts, dict) else parts) if isinstance(part, str))


# ---------------------------------------------------------------- filters of our own


@pass_context
def join(context: Any, value: Any, d: Any = "", attribute: Any = None) -> str:
    """Texts into one."""
    meter = context.meter
    if attribute is not None:
        value = map(make_attrgetter(context.environment, attribute), value)
    parts = [show(meter, part) if not isinstance(part, str) else part for part in meter.collect(value)]
    between = show(meter, d) if not isinstance(d, str) else d
    if context.eval_ctx.autoescape or isinstance(between, Markup):
        parts, between = [escape(part) for part in parts], escape(between)
    meter.foresee(sum(map(len, parts)) + len(between) * len(parts))
    return between.join(parts)


@pass_context
def replace(context: Any, value: Any, old: Any, new: Any, count: int | None = None) -> str:
    """One text for another, everywhere or `count` times."""
    meter = context.meter
    text = value if isinstance(value, str) else show(meter, value)
    old, new = (part if isinstance(part, str) else show(meter, part) for part in (old, new))
    if context.eval_ctx.autoescape and isinstance(old, Markup) | isinstance(new, Markup):
        text = escape(text)
    times = text.count(old) if old else len(text) + 1
    times = times if count is None or count < 0 else min(times, count)
    meter.foresee(len(text) + times * len(new) * (6 if isinstance(text, Markup) else 1))
    return text.replace(old, new, -1 if count is None else count)


@pass_context
def _indent(context: Any, value: Any, width: Any = 4, first: bool = False, blank: bool = False) -> str:
    text = value if isinstance(value, str) else show(context.meter, value)
    if not isinstance(width, int) or not 0 <= width <= 100:
        raise TemplateError("A text can be indented by 0 to 100 places.")
    lines = text.split("\n")
    context.meter.foresee(len(text) + len(lines) * width)
    room = " " * width
    shown = [
        room + line if (index or first) and (line or blank) else line for index, line in enumerate(lines)
    ]
    return type(text)("\n".join(shown))


@pass_context
def _format(context: Any, value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise TemplateError("A format takes either named or unnamed values.")
    return printf(
        context.meter, value if isinstance(value, str) else show(context.meter, value), kwargs or args
    )


@pass_context
def _round(context: Any, value: Any, precision: Any = 0, method: str = "common") -> Any:
    context.meter.weigh(value)
    if not isinstance(value, (int, float)) or not isinstance(precision, int) or abs(precision) > 20:
        raise TemplateError("Only numbers can be rounded, to 20 places at most.")
    return FILTERS["round"](value, precision, method)


@pass_context
def _sum(context: Any, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
    if attribute is not None:
        iterable = map(make_attrgetter(context.environment, attribute), iterable)
    total = start
    for number in context.meter.collect(iterable):
        if not isinstance(number, (int, float)) or not isinstance(total, (int, float)):
            raise TemplateError("Only numbers can be added up.")
        total = context.meter.weigh(total + number)
    return total


@pass_context
def _tojson(context: Any, value: Any) -> Markup | str:
    """JSON that may also stand in HTML."""
    text = (
        show(context.meter, value)
        if not isinstance(value, str | None)
        else msgspec.json.encode(value).decode()
    )
    for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("'", "\\u0027")):
        text = text.replace(sign, code)
    context.meter.foresee(len(text))
    return Markup(text) if context.eval_ctx.autoescape else text  # noqa: S704  (nothing to escape is left)


@pass_context
def _escape(context: Any, value: Any) -> Markup | str:
    escaped = escape(value if isinstance(value, str) else show(context.meter, value))
    context.meter.foresee(len(escaped))
    return escaped if context.eval_ctx.autoescape else str(escaped)


@pass_context
def _safe(context: Any, value: Any) -> Markup:
    return Markup(value if isinstance(value, str) else show(context.meter, value))  # noqa: S704  (the author says so)


@pass_context
def _list(context: Any, value: Any) -> list[Any]:
    collected: list[Any] = context.meter.collect(value)
    context.meter.weigh(collected)
    return collected


# ---------------------------------------------------------------- Jinja's filters, charged

_CHEAP: Final = ("count", "d", "default", "first", "last", "length")
_TEXTS: Final = ("capitalize", "lower", "title", "trim", "truncate", "upper", "urlencode", "wordcount")
_VALUES: Final = ("abs", "filesizeformat", "float", "int", "items", "reverse")
_SORTING: Final = ("dictsort", "groupby", "max", "min", "sort", "unique")
_CHOOSING: Final = ("map", "reject", "rejectattr", "select", "selectattr")
_CUTTING: Final = ("batch", "slice")
_OWN: Final[dict[str, Callable[..., Any]]] = {
    "escape": _escape, "e": _escape, "format": _format, "indent": _indent, "join": join, "list": _list,
    "replace": replace, "round": _round, "sum": _sum, "tojson": _tojson,
}  # fmt: skip


def filters_for(*, html: bool) -> dict[str, Callable[..., Any]]:
    """All filters of one kind of template."""
    found = dict(_OWN)
    found |= {name: _charged(name, as_text=True) for name in _TEXTS}
    found |= {name: _charged(name) for name in (*_VALUES, *_CHOOSING, *_CUTTING)}
    found |= {name: _charged(name, factor=4) for name in _SORTING}
    found |= {name: FILTERS[name] for name in _CHEAP}
    found["string"] = _string
    if html:
        found["safe"] = _safe
    return found


@pass_context
def _string(context: Any, value: Any) -> str:
    return value if isinstance(value, str) else show(context.meter, value)


def _charged(name: str, *, as_text: bool = False, factor: int = 1) -> Callable[..., Any]:
    original = FILTERS[name]
    passes = _PassArg.from_obj(original)

    @pass_context
    def charged(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter: Meter = context.meter
        if as_text and not isinstance(value, str):
            value = show(meter, value)
        for _ in range(factor):
            meter.weigh(value)
        _pay_arguments(meter, name, value, args, kwargs)
        lead: tuple[Any, ...] = ()
        if passes is _PassArg.context:
            lead = (context,)
        elif passes is _PassArg.eval_context:
            lead = (context.eval_ctx,)
        elif passes is _PassArg.environment:
            lead = (context.environment,)
        result = original(*lead, value, *args, **kwargs)
        if isinstance(result, Iterator):
            result = meter.collect(result)
        return result if isinstance(result, Undefined) else meter.weigh(result)

    return charged


def _pay_arguments(
    meter: Meter, name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    for argument in islice((*args, *kwargs.values()), 100):
        meter.weigh(argument)
        if isinstance(argument, int) and abs(argument) > _ARGUMENT_LIMIT:
            raise TemplateError(f"A number given to a filter is at most {_ARGUMENT_LIMIT}.")
        if name in _CUTTING and isinstance(argument, int):
            meter.spend(argument)
        if name in _CHOOSING and isinstance(value, (list, tuple, dict, str, range)):
            # A test may compare each item with all of the argument.
            size = len(argument) if isinstance(argument, (list, tuple, dict, str, range)) else 1
            meter.spend(len(value) * (1 + (size >> 4 if isinstance(argument, str) else size)))
