"""JSON Schemas of event data: compiled once per type version, without any look outside, with linear patterns.

The default draft is 2020-12. A pattern runs on a regex engine that cannot backtrack (so look-around is refused when
the type is defined), and `$ref` reaches nothing but the schema itself.
"""

from collections import OrderedDict
from typing import Any, Final

import jsonschema_rs

from hub.errors import DefinitionError, FieldError
from hub.model.addresses import escape_pointer, json_fault
from hub.model.types import TypeVersion

ERROR_LIMIT: Final = 20
_DETAIL_LIMIT: Final = 300
_CACHE_LIMIT: Final = 1024
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1_000_000, dfa_size_limit=1_000_000)

_compiled: OrderedDict[tuple[str, int], tuple[dict[str, Any], Any]] = OrderedDict()


def data_errors(type_version: TypeVersion, data: dict[str, Any]) -> list[FieldError]:
    """What a type's schema says against data, with pointers below /data. Raises DefinitionError for a bad schema."""
    schema = type_version.definition.schema
    if schema is None:
        return []
    validator = _validator(type_version, schema)
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
    return []


def _validator(type_version: TypeVersion, schema: dict[str, Any]) -> Any:
    key = (type_version.name, type_version.version)
    known = _compiled.get(key)
    # The same version is nearly always the same object; another object may be another deployment's (tests, dry runs).
    if known is not None and (known[0] is schema or known[0] == schema):
        return known[1]
    validator = _compile(schema)
    _compiled[key] = (schema, validator)
    _compiled.move_to_end(key)
    if len(_compiled) > _CACHE_LIMIT:
        _compiled.popitem(last=False)
    return validator


def _compile(schema: dict[str, Any]) -> Any:
    try:
        return jsonschema_rs.validator_for(
            schema, offline=True, pattern_options=_PATTERNS, validate_formats=True
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise DefinitionError(str(error).partition("\n")[0][:_DETAIL_LIMIT]) from None
    except ValueError as error:  # nested beyond the library's limit
        raise DefinitionError(f"The schema cannot be used: {str(error).partition(chr(10))[0]}") from None
