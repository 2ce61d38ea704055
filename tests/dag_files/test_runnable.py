from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_browseract.dag_files.runnable import MAX_INPUTS, MAX_VALUES, inputs_of
from airflow_provider_browseract.runs.schemas import conform
from tests.cases import cases

RULES = st.sampled_from(
    (
        *("type", "properties", "required", "items", "enum", "const", "default", "examples", "anyOf", "$ref"),
        *("minimum", "exclusiveMinimum", "maximum", "multipleOf", "minLength", "maxLength", "minItems", "format"),
    )
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(RULES | st.text(max_size=5), each, max_size=4),
    max_leaves=12,
)


def one(schema: Any) -> Any:
    [found] = inputs_of({"type": "object", "properties": {"x": schema}, "required": ["x"]})
    assert found.required
    return found.example


@cases(
    "schema, example",
    {
        "text": ({"type": "string"}, "text"),
        "long text": ({"type": "string", "minLength": 6}, "textxx"),
        "short text": ({"type": "string", "maxLength": 2}, "te"),
        "address": ({"type": "string", "format": "uri"}, "https://example.com"),
        "integer": ({"type": "integer"}, 1),
        "integer from 5": ({"type": "integer", "minimum": 5}, 5),
        "integer above 5": ({"type": "integer", "exclusiveMinimum": 5}, 6),
        "integer below 0": ({"type": "integer", "exclusiveMaximum": 0}, -1),
        "multiple": ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
        "fraction": ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        "boolean": ({"type": "boolean"}, False),
        "null": ({"type": "null"}, None),
        "list": ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        "list that may be empty": ({"type": "array", "items": {"type": "integer"}}, []),
        "object": ({"type": "object", "properties": {"a": {"const": 1}, "b": {}}, "required": ["a"]}, {"a": 1}),
        "type or null": ({"type": ["null", "integer"]}, 1),
        "choice with null": ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, False),
        "enum": ({"enum": ["US", "DE"]}, "US"),
        "const": ({"const": 7}, 7),
        "default": ({"type": "integer", "default": 3}, 3),
        "example": ({"type": "string", "examples": ["pens"]}, "pens"),
        "nothing": ({}, "text"),
    },
)
def test_example_has_the_type_and_limits_of_the_schema(schema, example):
    assert one(schema) == example
    conform({"x": example}, {"type": "object", "properties": {"x": schema}, "required": ["x"]}, "bot 1")


def test_reference_within_the_schema_is_followed_and_an_endless_one_ends():
    page = {"type": "object", "properties": {"next": {"$ref": "#/$defs/page"}}, "required": ["next"]}
    schema = {"properties": {"x": {"$ref": "#/$defs/page"}, "y": {"$ref": "#/$defs/n"}, "z": {"$ref": "#/$defs/loop"}}}
    found = inputs_of({**schema, "$defs": {"page": page, "n": {"type": "integer"}, "loop": {"$ref": "#/$defs/loop"}}})
    assert [each.example for each in found] == [{"next": {"next": {"next": {"next": {"next": None}}}}}, 1, "text"]
    assert one({"$ref": "#/properties/x"}) == "text"


def test_inputs_are_the_required_ones_first_and_those_that_only_required_names():
    schema = {"properties": {"a": {}, "b": {}, "c": {}}, "required": ["c", "d"]}
    found = [(each.name, each.required) for each in inputs_of(schema)]
    assert found == [("c", True), ("d", True), ("a", False), ("b", False)]


def test_secrets_of_a_schema_are_in_no_example():
    secret = {"type": "string", "default": "hunter2"}
    login = {"type": "object", "properties": {"password": secret}, "required": ["password"]}
    schema = {
        "password": secret,
        "login": login,
        "other": {**login, "default": {"password": "hunter2"}},
        "text": {"type": "string", "examples": ['{"password": "hunter2"}']},
    }
    found = {each.name: each.example for each in inputs_of({"properties": schema})}
    assert found == {"password": "text", "login": {"password": "text"}, "other": {"password": "text"}, "text": "text"}


@cases("schema", {"none": None, "true": True, "text": "x", "list": [1], "no names": {"type": "object"}})
def test_schema_without_names_declares_no_inputs(schema):
    assert inputs_of(schema) == ()


@given(JSON)
def test_any_schema_gives_inputs(schema):
    for found in (inputs_of(schema), inputs_of({"properties": {"x": schema}, "required": ["x", "y"]})):
        assert all(isinstance(each.name, str) for each in found)


def test_huge_schemas_cost_little():
    names = {f"name_{number}": {"$ref": "#"} for number in range(100_000)}
    huge = {"type": "string", "default": "x" * 1_000_000}
    wide = {"type": "array", "minItems": 10**9, "items": {"$ref": "#/$defs/wide"}}
    large = {"default": list(range(100_000)), "enum": [10**400], "type": "number", "minimum": 10**400}
    schema = {"properties": {**names, "h": huge, "w": wide, "l": large}, "required": ["h", "w", "l", *names]}
    began = time.process_time()
    found = inputs_of({**schema, "$defs": {"wide": wide}})
    assert time.process_time() - began < 1
    assert len(found) == MAX_INPUTS
    assert len(repr(found)) < 100 * MAX_VALUES
