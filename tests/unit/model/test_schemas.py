"""Schemas of data: linear patterns, nothing fetched, errors with their places, compiled once."""

import time

import pytest

from hub.errors import DefinitionError
from hub.model import schemas
from hub.model.schemas import ERROR_LIMIT, data_errors, schema_errors
from hub.model.types import TypeDefinition, TypeVersion

pytestmark = pytest.mark.req("R35")


def version(schema, number=1, name="t"):
    return TypeVersion(name, number, TypeDefinition(category="c", schema=schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"properties": {"a": {"pattern": "("}}},
        {"properties": {"a": {"pattern": "(?=x)"}}},
        {"properties": {"a": {"pattern": "(a{1000}){1000}"}}},
        {"$ref": "http://example.com/schema"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/$defs/nosuch"},
        {"$schema": "http://example.com/own-meta-schema"},
        {"required": "number"},
        {"title": "a\x00"},
    ],
)
def test_schemas_that_cannot_be_used(schema):
    [error] = schema_errors(schema)
    assert error.pointer.startswith("/schema")
    assert error.code in ("invalid_schema", "invalid_text")
    assert "\n" not in error.detail


def test_a_schema_that_nests_beyond_reason():
    schema = {}
    for _ in range(3000):
        schema = {"items": schema}
    assert schema_errors(schema)[0].code == "too_deep"


@pytest.mark.parametrize(
    "schema", [{}, {"$ref": "#"}, {"$dynamicRef": "#a", "$dynamicAnchor": "a"}, {"not": {}}]
)
def test_schemas_that_refer_to_themselves_end(schema):
    assert schema_errors(schema) == []
    data_errors(version(schema, name=str(schema)), {"a": 1})


def test_a_pattern_cannot_be_made_to_backtrack():
    hostile = version({"properties": {"a": {"pattern": "^(a+)+$"}}}, name="hostile")
    began = time.perf_counter()
    assert data_errors(hostile, {"a": "a" * 50_000 + "b"})
    assert time.perf_counter() - began < 2


def test_errors_name_their_place_and_are_few():
    one = version({"properties": {"a/b": {"items": {"type": "integer"}}}}, name="many")
    errors = data_errors(one, {"a/b": ["x"] * 100})
    assert len(errors) == ERROR_LIMIT
    assert (errors[0].pointer, errors[0].code) == ("/data/a~1b/0", "schema_type")
    assert (
        len(
            data_errors(version({"properties": {"a": {"maxLength": 1}}}, name="long"), {"a": "x" * 9999})[
                0
            ].detail
        )
        < 400
    )


def test_formats_count():
    one = version({"properties": {"mail": {"format": "email"}}}, name="format")
    assert [error.code for error in data_errors(one, {"mail": "nobody"})] == ["schema_format"]


def test_a_version_is_compiled_once_but_never_mistaken_for_another(monkeypatch):
    compiled = []
    original = schemas._compile
    monkeypatch.setattr(schemas, "_compile", lambda schema: compiled.append(schema) or original(schema))
    one = version({"required": ["a"]}, name="cached")
    for _ in range(3):
        assert data_errors(one, {})
    assert len(compiled) == 1
    assert data_errors(version({"required": ["a"]}, name="cached"), {})
    assert len(compiled) == 1
    assert data_errors(version({"required": ["b"]}, name="cached"), {"b": 1}) == []
    assert data_errors(version({"required": ["b"]}, 2, name="cached"), {}) != []


def test_a_stored_schema_that_stopped_compiling_is_told():
    with pytest.raises(DefinitionError):
        data_errors(version({"type": "objekt"}, name="broken"), {})


def multiplying(levels, word="allOf"):
    steps = {f"d{i}": {word: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$defs": {**steps, f"d{levels}": {}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    "schema",
    [
        multiplying(40),
        multiplying(40, "oneOf"),
        {"$id": "http://a.example/", **multiplying(40)},
        {"properties": {"a": {"properties": {"b": multiplying(40)["$defs"]}}}, **multiplying(40)},
        {
            "allOf": [{"$ref": f"#/$defs/{i}"} for i in "ab"] * 100,
            "$defs": {"a": {}, "b": multiplying(40)["$defs"]["d0"]},
        }
        | {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}] * 50}, "b": {"anyOf": [{"not": {}}] * 50}}},
        {"$ref": "https://json-schema.org/draft/2020-12/schema"},
    ],
)
def test_references_that_multiply_are_refused_with_the_schema(schema):
    """The validator would be busy for years, and cannot be interrupted."""
    began = time.perf_counter()
    assert [error.code for error in schema_errors(schema)] == ["invalid_schema"]
    assert time.perf_counter() - began < 1


def test_data_that_is_too_deep_for_a_schema_that_branches_into_itself():
    both = version({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}, name="branching")
    assert schema_errors(both.definition.schema) == []
    data = {}
    for _ in range(31):
        data = {"a": data}
    began = time.perf_counter()
    assert [(error.pointer, error.code) for error in data_errors(both, data)] == [("/data", "too_deep")]
    assert data_errors(both, {"a": {"a": {"a": {}}}}) == []
    assert time.perf_counter() - began < 1


def test_trees_and_shared_parts_are_what_references_are_for():
    tree = {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "name": {"$ref": "#/$defs/name"}}}
    tree |= {"$defs": {"name": {"$anchor": "name", "type": "string"}}, "required": ["name"]}
    known = version(tree, name="tree")
    assert schema_errors(tree) == []
    data = {"name": "leaf"}
    for _ in range(30):
        data = {"name": "n", "left": data, "right": {"name": "r"}}
    assert data_errors(known, data) == []
    assert [error.code for error in data_errors(known, {"left": data})] == ["schema_required"]


def test_a_chain_of_references_as_long_as_a_request_allows():
    chain = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(6000)}
    schema = {"$defs": {**chain, "d6000": {}}, "$ref": "#/$defs/d0"}
    assert all(error.code == "invalid_schema" for error in schema_errors(schema))
