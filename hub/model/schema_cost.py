"""How much work a JSON Schema can make: an upper bound, found without running it.

`$ref`s let a few lines describe a tree of any size (forty times "both of the next" is a million million checks), and
the validator cannot be interrupted. `cost` counts how often subschemas are applied along one path into the data: what
applies to the same place adds up, different properties do not. It says `None` where a reference leaves the schema.
"""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

COST_LIMIT: Final = 5_000
_SAME_PLACE: Final = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else")
_SAME_PLACE_NAMED: Final = ("dependentSchemas", "dependencies")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_EACH_CHILD: Final = (
    "items",
    "additionalItems",
    "unevaluatedItems",
    "contains",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
)


class SchemaCost:
    """The costs of one schema for data of any depth."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = schema
        self._known: dict[tuple[int, int], int] = {}
        self._open: set[tuple[int, int]] = set()
        self._anchors: dict[str, dict[str, Any]] = {}
        self._ids: dict[str, dict[str, Any]] = {"": schema}
        for one in _objects(schema):
            for name in ("$anchor", "$dynamicAnchor"):
                if isinstance(anchor := one.get(name), str):
                    self._anchors[anchor] = one
            if isinstance(own := one.get("$id", one.get("id")), str):
                self._ids[own.partition("#")[0]] = one

    def of(self, depth: int) -> int:
        """The bound for data nested `depth` deep, at most a little beyond `COST_LIMIT`."""
        try:
            return self._cost(
                self._root, depth
            )  # the depths below it are known when they are asked for in order
        except RecursionError:  # a chain of references as long as the stack
            return COST_LIMIT + 1

    def _cost(self, schema: Any, depth: int) -> int:
        if not isinstance(schema, dict) or depth < 0:
            return 1
        key = (id(schema), depth)
        if (known := self._known.get(key)) is not None:
            return known
        if key in self._open:
            return 1  # a reference to itself in the same place: the validator looks once
        self._open.add(key)
        total = 1
        for one in self._in_place(schema):
            total += self._cost(one, depth) if one is not None else COST_LIMIT
            if total > COST_LIMIT:
                break
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            total *= 2  # they look at their neighbours once more
        total += self._below(schema, depth - 1)
        self._open.discard(key)
        self._known[key] = min(total, COST_LIMIT + 1)
        return self._known[key]

    def _below(self, schema: dict[str, Any], depth: int) -> int:
        total = 0
        for name in _EACH_CHILD:
            if isinstance(one := schema.get(name), dict):
                total += self._cost(one, depth)
        for one in _values(schema.get("patternProperties")):
            total += self._cost(one, depth)
        for group in (schema.get("properties"), schema.get("prefixItems"), schema.get("items")):
            if group is not schema.get("items") or isinstance(group, list):
                total += max((self._cost(one, depth) for one in _values(group)), default=0)
        return total

    def _in_place(self, schema: dict[str, Any]) -> Iterator[Any]:
        for name in _SAME_PLACE:
            value = schema.get(name)
            yield from value if isinstance(value, list) else [value] if isinstance(value, dict) else []
        for name in _SAME_PLACE_NAMED:
            yield from (one for one in _values(schema.get(name)) if isinstance(one, dict))
        for name in _REFERENCES:
            if isinstance(reference := schema.get(name), str):
                yield self._target(reference)

    def _target(self, reference: str) -> Any:
        """What a reference names; None when it is not in the schema."""
        base, _, fragment = reference.partition("#")
        found: Any = self._ids.get(base)
        if found is None or not fragment:
            return found
        if not fragment.startswith("/"):
            return self._anchors.get(fragment)
        for escaped in unquote(fragment)[1:].split("/"):
            step = escaped.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            elif isinstance(found, dict) and step in found:
                found = found[step]
            else:
                return None
        return found


def depth_of(value: Any) -> int:
    """How deep a JSON value is nested: 0 for a number, 1 for a list of numbers."""
    depth = 0
    level = [value]
    while level := [inner for one in level if isinstance(one, dict | list) for inner in _inside(one)]:
        depth += 1
    return depth


def _inside(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(_values(value))


def _values(group: Any) -> Iterator[Any]:
    if isinstance(group, dict):
        yield from group.values()
    elif isinstance(group, list):
        yield from group


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
        waiting.extend(_values(one))
