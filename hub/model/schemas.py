"""JSON Schemas of event data: compiled once per type version, without any look outside, with linear patterns.

The default draft is 2020-12. A pattern runs on a regex engine that cannot backtrack (so look-around is refused when
the type is defined), and `$ref` reaches nothing but the schema itself. The validator cannot be interrupted: a schema
that makes too much work of flat data is refused, and data that is too deep for a schema that branches into itself.
"""

from collections import OrderedDict
from typing import Any, Final

import jsonschema_rs

from hub.errors import DefinitionError, FieldError
from hub.model.addresses import JSON_DEPTH_LIMIT, escape_pointer, json_fault
from hub.model.schema_cost import COST_LIMIT, SchemaCost, depth_of
from hub.model.types import TypeVersion

ERROR_LIMIT: Final = 20
_DETAIL_LIMIT: Final = 300
_CACHE_LIMIT: Final = 1024
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1_000_000, dfa_size_limit=1_000_000)

_PLAIN_DEPTH: Final = 3  # of data that every schema must be able to check

_compiled: OrderedDict[tuple[str, int], tuple[dict[str, Any], Any, int]] = OrderedDict()


def data_errors(type_version: TypeVersion, data: dict[str, Any]) -> list[FieldError]:
    """What a type's schema says against data, with pointers below /data. Raises DefinitionError for a bad schema."""
    schema = type_version.definition.schema
    if schema is None:
        return []
    validator, depth = _validator(type_version, schema)
    if depth < JSON_DEPTH_LIMIT and depth_of(data) > depth:
        return [FieldError("/data", "too_deep", f"The schema can check {depth} nested levels at most.")]
    if validator.is_valid(data):
        return []
    errors = []
    for error in validator.iter_errors(data):
        pointer = "".join(f"/{escape_pointer(str(step))}" for step in error.instance_path)
        detail = error.message if len(error.message) <= _DETAIL_LIMIT else error.message[:_DETAIL_LIMIT] + "…"
        errors.append(FieldError(f"/data{pointer}", f"schema_{error.kind.name}", detail))
        if len(errors) == ERROR_LIMIT:
            break
    return errors


def schema_errors(schema: dict[str, Any], pointer: str = "/schema") -> list[FieldError]:
    """What is wrong with a schema itself; empty when it can be used."""
    if fault := json_fault(schema, pointer):
        return [fault]
    try:
        _compile(schema)
    except DefinitionError as error:
        return [FieldError(pointer, "invalid_schema", str(error))]
    if _safe_depth(schema) < _PLAIN_DEPTH:
        detail = "The schema makes too much work: its references multiply."
        return [FieldError(pointer, "invalid_schema", detail)]
    return []


def _safe_depth(schema: dict[str, Any]) -> int:
    """How deep data may be nested so that checking it costs a bounded time; -1: no data is safe."""
    cost = SchemaCost(schema)
    for depth in range(JSON_DEPTH_LIMIT + 1):
        if cost.of(depth) > COST_LIMIT:
            return depth - 1
    return JSON_DEPTH_LIMIT


def _validator(type_version: TypeVersion, schema: dict[str, Any]) -> tuple[Any, int]:
    key = (type_version.name, type_version.version)
    known = _compiled.get(key)
    # The same version is nearly always the same object; another object may be another deployment's (tests, dry runs).
    if known is not None and (known[0] is schema or known[0] == schema):
        return known[1:]
    validator = _compile(schema)
    depth = _safe_depth(schema)
    _compiled[key] = (schema, validator, depth)
    _compiled.move_to_end(key)
    if len(_compiled) > _CACHE_LIMIT:
        _compiled.popitem(last=False)
    return validator, depth


def _compile(schema: dict[str, Any]) -> Any:
    try:
        return jsonschema_rs.validator_for(
            schema, offline=True, pattern_options=_PATTERNS, validate_formats=True
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise DefinitionError(str(error).partition("\n")[0][:_DETAIL_LIMIT]) from None
    except ValueError as error:  # nested beyond the library's limit
        raise DefinitionError(f"The schema cannot be used: {str(error).partition(chr(10))[0]}") from None
