from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from datetime import datetime
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft201909Validator, Draft202012Validator

from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.runs import schemas
from airflow_provider_browseract.runs.json_values import Path, place_of
from airflow_provider_browseract.runs.mismatches import MAX_NAMED
from airflow_provider_browseract.runs.schemas import (
    Conformed,
    SchemaUnusableError,
    conform,
    declared_defaults,
    mismatch,
    read_input,
)
from tests.cases import cases
from tests.runs.inputs import (
    MARK,
    SCHEMAS,
    accepted_inputs,
    parts_of,
    refused_inputs,
    rendered_inputs,
    value_of,
    wrong_values,
)

WHAT = "bot 82000518364027715"


def of(part: Any, **more: Any) -> dict[str, Any]:
    """Return the schema of an input with the name ``a``."""
    return {"type": "object", "properties": {"a": part}, **more}


def refusal(value: Any, part: Any) -> str:
    """Return what is wrong with the value of the name ``a``, without what frames it."""
    with pytest.raises(InputError) as raised:
        conform({"a": value}, of(part), WHAT)
    frame = f"The input does not match the schema of {WHAT}: "
    assert str(raised.value).startswith(frame)
    return str(raised.value).removeprefix(frame)


class Lazy(Sequence[str]):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return ["a", "b"][index]


class TestReadInput:
    def test_no_input_is_an_empty_one(self):
        assert read_input(None) == read_input({}) == {}

    def test_json_values_keep_their_types_and_order(self):
        value = {"b": 1, "a": [1.5, True, None, "x", {"c": []}]}
        assert json.dumps(read_input(value)) == json.dumps(value)

    def test_lazy_sequences_become_lists_and_mappings_dicts(self):
        read = read_input(MappingProxyType({"a": Lazy(), "b": (MappingProxyType({"c": 1}),)}))
        assert read == {"a": ["a", "b"], "b": [{"c": 1}]}
        assert type(read["a"]) is list
        assert type(read["b"][0]) is dict

    @cases(
        ("value", "message"),
        {
            "time": (datetime(2026, 1, 1), r"input\['a'\]\[0\] is of type datetime\. Pass a JSON value: a time as "),
            "set": ({1}, r"input\['a'\]\[0\] is of type set\."),
            "bytes": (b"x", r"input\['a'\]\[0\] is of type bytes\."),
            "NaN": (float("nan"), r"input\['a'\]\[0\] is NaN or infinite\. JSON has no such numbers\."),
            "infinity": (float("-inf"), r"input\['a'\]\[0\] is NaN or infinite"),
            "large number": (2**1024, r"input\['a'\]\[0\] is a number of more than 1,024 bits\. Pass it as a text"),
            "lone surrogate": ("\ud800", r"input\['a'\]\[0\] has a text with a character that UTF-8 does not have"),
            "name that is a number": ({1: 2}, r"input\['a'\]\[0\] has a name of type int\. Use texts as names"),
            "name with a lone surrogate": ({"\ud800": 2}, r"has a text with a character that UTF-8"),
        },
    )
    def test_value_that_is_not_json_is_refused_with_its_place(self, value, message):
        with pytest.raises(InputError, match=f"^{message}" if message.startswith("input") else message):
            read_input({"a": [value]})

    def test_largest_number_is_read(self):
        assert read_input({"a": -(2**1024) + 1}) == {"a": -(2**1024) + 1}

    def test_name_at_the_top_that_is_a_number_is_refused(self):
        with pytest.raises(InputError, match=r"^input has a name of type int"):
            read_input({1: 2})

    def test_input_that_contains_itself_is_refused(self):
        value: dict[str, Any] = {}
        value["a"] = value
        with pytest.raises(InputError, match=r"^input has more than 100 levels"):
            read_input(value)

    def test_input_that_grows_without_end_is_refused(self):
        value: list[Any] = ["x"] * 100
        for _ in range(5):
            value = [value] * 100
        with pytest.raises(InputError, match=r"^input has more than 1,000,000 values"):
            read_input({"a": value})

    @pytest.mark.parametrize("text", ['{"keyword": "laptops"}', " [1]\n"])
    def test_json_text_is_refused_with_the_remedy(self, text):
        with pytest.raises(InputError, match=r"^input is a text instead of a dict.*render_template_as_native"):
            read_input(text)

    @pytest.mark.parametrize("value", [[{"name": "keyword", "value": "laptops"}], ({},), []], ids=str)
    def test_list_is_refused_with_the_operator_that_takes_one(self, value):
        with pytest.raises(InputError, match=r"^input is a list\. .*RunWorkflowOperator takes as input_parameters\."):
            read_input(value)

    @pytest.mark.parametrize("value", [7, b"x", object()], ids=["integer", "bytes", "object"])
    def test_other_value_is_refused_with_its_type(self, value):
        with pytest.raises(InputError, match=rf"^input is of type {type(value).__name__}\. Pass a dict of names"):
            read_input(value)


class TestMessages:
    @cases(
        ("value", "part", "message"),
        {
            "type": ("x", {"type": "integer"}, "input['a'] must be an integer, but a text was given."),
            "types": ("x", {"type": ["integer", "array"]}, "input['a'] must be an integer or a list, but a text was"),
            "null": (None, {"type": "string"}, "input['a'] must be a text, but None was given."),
            "boolean": (True, {"type": "number"}, "input['a'] must be a number, but a boolean was given."),
            "list": ([1], {"type": "object"}, "input['a'] must be a dict, but a list was given."),
            "fraction": (1.5, {"type": ["integer"]}, "input['a'] must be an integer, but a number was given."),
            "choice": ("x", {"enum": ["b", None, 3]}, "input['a'] must be one of 'b', None, 3."),
            "constant": ("x", {"const": ["b"]}, "input['a'] must be ['b']."),
            "minimum": (1, {"minimum": 2}, "input['a'] must be at least 2."),
            "maximum": (3, {"maximum": 2}, "input['a'] must be at most 2."),
            "exclusive minimum": (2, {"exclusiveMinimum": 2}, "input['a'] must be more than 2."),
            "exclusive maximum": (2, {"exclusiveMaximum": 2}, "input['a'] must be less than 2."),
            "multiple": (3, {"multipleOf": 2}, "input['a'] must be a multiple of 2."),
            "one character": ("", {"minLength": 1}, "input['a'] must have at least 1 character."),
            "characters": ("abc", {"maxLength": 2}, "input['a'] must have at most 2 characters."),
            "items": ([], {"minItems": 2}, "input['a'] must have at least 2 items."),
            "one item": ([1, 2], {"maxItems": 1}, "input['a'] must have at most 1 item."),
            "names": ({}, {"minProperties": 2}, "input['a'] must have at least 2 names."),
            "one name": ({"b": 1, "c": 2}, {"maxProperties": 1}, "input['a'] must have at most 1 name."),
            "pattern": ("x", {"pattern": "^b+$"}, "input['a'] must match the pattern '^b+$'."),
            "unique": ([1, 1.0], {"uniqueItems": True}, "input['a'] must not have an item twice."),
            "missing name": ({}, {"required": ["b"]}, "input['a'] lacks the required name 'b'."),
            "unknown name": ({"b": 1}, {"additionalProperties": False}, "input['a'] has the unknown name 'b'."),
            "mistyped name": (
                {"keywrd": 1},
                {"properties": {"keyword": {}}, "additionalProperties": False},
                "input['a'] has the unknown name 'keywrd' (did you mean 'keyword'?).",
            ),
            "inside": ([{"b": 1}], {"items": {"properties": {"b": {"maximum": 0}}}}, "input['a'][0]['b'] must be at"),
            "forbidden": (1, False, "input has a part that is not allowed."),
            "choice of schemas": (
                1,
                {"anyOf": [{"maximum": 0}, {"minimum": 2}]},
                "input['a'] does not match the schema (rule 'anyOf').",
            ),
            "two of one": (1, {"oneOf": [{}, {"minimum": 0}]}, "input['a'] does not match the schema (rule 'oneOf')."),
            "names that match": (
                {"b": 1},
                {"propertyNames": {"maxLength": 0}},
                "input['a'] does not match the schema (rule 'propertyNames').",
            ),
            "limit of its own": (2, {"minimum": 2, "exclusiveMinimum": 2}, "input['a'] must be more than 2."),
        },
    )
    def test_error_names_place_and_rule(self, value, part, message):
        assert refusal(value, part).startswith(message)

    def test_all_errors_are_named_at_once(self):
        schema = of({"type": "integer"}, required=["b"], additionalProperties=False)
        with pytest.raises(InputError) as raised:
            conform({"a": "x", "c": 1}, schema, WHAT)
        assert str(raised.value) == (
            f"The input does not match the schema of {WHAT}: input['a'] must be an integer, but a text was given; "
            "input lacks the required name 'b'; input has the unknown name 'c'."
        )

    def test_ten_errors_are_named_and_the_others_counted(self):
        message = refusal([None] * 1011, {"items": {"type": "string"}})
        assert message.count("must be") == 10
        assert message.endswith("; and 1,001 more.")

    def test_same_error_of_two_rules_is_named_once(self):
        assert refusal(3, {"allOf": [{"maximum": 2}, {"maximum": 2}]}) == "input['a'] must be at most 2."

    @pytest.mark.parametrize("text", ["['laptop', 'phone']", "{'a': None}"])
    def test_filter_tojson_is_recommended_for_the_text_of_a_python_list_or_dict(self, text):
        message = refusal(text, {"type": "array" if text[0] == "[" else "object"})
        assert message.endswith("but a text was given. For a list or dict in a template, add the filter tojson.")

    @pytest.mark.parametrize(
        ("value", "part"),
        [("laptop, phone", {"type": "array"}), ("2.5", {"type": "integer"}), ("[x]", {"maxLength": 0})],
        ids=["text with commas", "number", "text of the right type"],
    )
    def test_filter_tojson_is_not_recommended_where_it_cannot_help(self, value, part):
        assert "tojson" not in refusal(value, part)

    def test_parts_of_the_schema_are_cut(self):
        assert refusal("x", {"enum": ["y" * 200]}) == f"input['a'] must be one of '{'y' * 99}...."

    def test_names_are_cut_and_written_in_one_line(self):
        message = refusal({"b\n" * 200: 1}, {"additionalProperties": False})
        escaped = r"b\n" * 33
        assert message == f"input['a'] has the unknown name '{escaped}...."

    def test_long_place_is_cut_in_the_middle(self):
        schema: dict[str, Any] = {"maximum": 0}
        value: Any = 1
        for _ in range(40):
            schema, value = {"properties": {"name of a level": schema}}, {"name of a level": value}
        message = refusal(value, schema)
        assert len(message) < 500
        assert message.startswith("input['a']['name of a level']")
        assert message.endswith("['name of a level'] must be at most 0.")

    def test_many_unknown_names_are_compared_quickly(self):
        known: dict[str, Any] = {f"{number:050}": {} for number in range(10_000)}
        value = {f"{number:0200}": 1 for number in range(1000)}
        began = time.thread_time()
        refusal(value, {"properties": known, "additionalProperties": False})
        assert time.thread_time() - began < 5


class TestConversion:
    @cases(
        ("given", "wanted", "converted"),
        {
            "integer": ("20", "integer", 20),
            "negative integer": ("-3", "integer", -3),
            "largest integer": (str(2**53 - 1), "integer", 2**53 - 1),
            "zero": ("0", "integer", 0),
            "number": ("2.50", "number", 2.5),
            "number without fraction": ("7", "number", 7),
            "large number": ("1e300", "number", 1e300),
            "large number without fraction": ("9007199254740992", "number", 2.0**53),
            "true": ("true", "boolean", True),
            "Python's true": ("True", "boolean", True),
            "false": ("false", "boolean", False),
            "Python's false": ("False", "boolean", False),
            "object": (' {"b": [1, 2.5]}', "object", {"b": [1, 2.5]}),
            "empty object": ("{}", "object", {}),
            "array": ('["b", null]', "array", ["b", None]),
            "integer to text": (7, "string", "7"),
            "number to text": (2.5, "string", "2.5"),
            "boolean to text": (True, "string", "true"),
        },
    )
    @pytest.mark.parametrize("form", ["one type", "or null", "or null in a list", "reference", "all of"])
    def test_value_of_another_type_is_converted_without_loss(self, given, wanted, converted, form):
        part = {
            "one type": {"type": wanted},
            "or null": {"anyOf": [{"type": "null"}, {"type": wanted}]},
            "or null in a list": {"type": [wanted, "null"]},
            "reference": {"oneOf": [{"$ref": "#/$defs/b"}, {"type": "null"}]},
            "all of": {"allOf": [{"type": wanted}, {"$ref": "#/$defs/b"}]},
        }[form]
        schema = of(part, **{"$defs": {"b": {"type": wanted}}})
        result = conform({"a": given}, schema, WHAT)
        assert result == Conformed({"a": converted}, ("input['a']",))
        assert type(result.input["a"]) is type(converted)

    @cases(
        ("given", "wanted"),
        {
            "fraction": ("2.0", "integer"),
            "leading zero": ("007", "integer"),
            "plus": ("+7", "integer"),
            "space": (" 7", "integer"),
            "line break": ("7\n", "integer"),
            "other digits": ("\N{ARABIC-INDIC DIGIT SEVEN}", "integer"),
            "underscore": ("1_0", "integer"),
            "minus zero": ("-0", "integer"),
            "too large": (str(2**53), "integer"),
            "word": ("many", "integer"),
            "empty": ("", "integer"),
            "float": (2.5, "integer"),
            "boolean": (True, "integer"),
            "digits that are lost": ("0.10000000000000001", "number"),
            "integer whose digits are lost": ("9007199254740993", "number"),
            "infinite": ("1e999", "number"),
            "constant": ("NaN", "number"),
            "nothing left": ("1e-999", "number"),
            "point at the end": ("1.", "number"),
            "long": ("1" + "0" * 10_000_000, "number"),
            "long exponent": ("1e-" + "9" * 398, "number"),
            "word for true": ("yes", "boolean"),
            "number for true": (1, "boolean"),
            "capitals": ("TRUE", "boolean"),
            "array for object": ("[]", "object"),
            "object for array": ("{}", "array"),
            "no JSON": ("{'b': 1}", "object"),
            "name twice": ('{"b": 1, "b": 2}', "object"),
            "number whose digits are lost": ("[9007199254740993]", "array"),
            "fraction whose digits are lost": ("[0.10000000000000001]", "array"),
            "no number": ("[NaN]", "array"),
            "infinite number": ("[-Infinity]", "array"),
            "half a character": ('["\\ud800"]', "array"),
            "deep": ("[" * 102 + "]" * 102, "array"),
            "very deep": ("[" * 100_000 + "]" * 100_000, "array"),
            "list for text": ([1], "string"),
            "null for text": (None, "string"),
            "text for null": ("null", "null"),
        },
    )
    def test_value_is_not_converted_where_something_would_be_lost(self, given, wanted):
        assert refusal(given, {"type": wanted}).startswith("input['a'] must be ")

    def test_numbers_at_the_largest_size_of_a_text_are_converted(self):
        smallest = "0." + "0" * 323 + "5"
        assert conform({"a": smallest}, of({"type": "number"}), WHAT).input == {"a": 5e-324}

    def test_text_is_not_converted_if_several_types_are_possible(self):
        refusal("20", {"type": ["integer", "boolean"]})
        refusal("20", {"anyOf": [{"type": "integer"}, {"type": "boolean"}]})
        refusal("20", {"allOf": [{"type": "integer"}, {"type": "boolean"}]})

    def test_text_is_not_converted_where_a_text_is_allowed(self):
        part = {"anyOf": [{"type": "integer"}, {"type": "string"}]}
        assert conform({"a": "20"}, of(part), WHAT) == Conformed({"a": "20"})

    def test_values_inside_lists_and_objects_are_converted(self):
        part = {"items": {"properties": {"b": {"type": "integer"}}}}
        result = conform({"a": [{"b": "1"}, {"b": 2}, {"b": "3"}]}, of(part), WHAT)
        assert result == Conformed({"a": [{"b": 1}, {"b": 2}, {"b": 3}]}, ("input['a'][0]['b']", "input['a'][2]['b']"))

    def test_texts_within_a_converted_text_are_converted_too(self):
        part = {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "integer"}}}}
        result = conform({"a": '["{\\"b\\": \\"1\\"}"]'}, of(part), WHAT)
        assert result.input == {"a": [{"b": 1}]}
        assert result.converted == ("input['a']", "input['a'][0]", "input['a'][0]['b']")

    def test_errors_that_remain_after_the_conversion_are_reported(self):
        assert refusal("2000", {"type": "integer", "maximum": 100}) == "input['a'] must be at most 100."

    def test_one_value_that_cannot_be_converted_is_the_only_error(self):
        message = refusal(["1", "x", "2"], {"items": {"type": "integer"}})
        assert message.startswith("input['a'][1] must be an integer, but a text was given.")
        assert "[0]" not in message

    def test_given_input_is_not_changed(self):
        given = {"a": ["1"]}
        conform(given, of({"items": {"type": "integer"}}), WHAT)
        assert given == {"a": ["1"]}

    def test_default_is_not_filled_in(self):
        assert conform({}, of({"default": 1}), WHAT) == Conformed({})

    def test_first_converted_places_are_named_and_the_others_counted(self):
        result = conform({"a": [1] * 1011}, of({"items": {"type": "string"}}), WHAT)
        assert len(result.converted) == 11
        assert result.converted[-2:] == ("input['a'][9]", "1,001 more")

    def test_input_is_not_in_the_repr_of_the_result(self):
        assert "secret" not in repr(conform({"a": "secret"}, of({}), WHAT))


@pytest.mark.parametrize(("value", "factor"), [(19.99, 0.01), (0.3, 0.1), (1e300, 1e-300), (6, 2.0)])
def test_multiple_of_a_decimal_fraction_conforms(value, factor):
    conform({"a": value}, of({"multipleOf": factor}), WHAT)


class TestNull:
    @cases(
        "part",
        {
            "nullable": {"type": "string", "enum": ["b"], "minLength": 1, "nullable": True},
            "nullable reference": {"$ref": "#/$defs/b", "nullable": True},
            "types": {"type": ["string", "null"]},
            "any of": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "one of": {"oneOf": [{"type": "null"}, {"type": ["string", "null"]}]},
        },
    )
    def test_none_is_accepted_where_the_schema_allows_null(self, part):
        schema = of(part, **{"$defs": {"b": {"type": "string"}}})
        assert conform({"a": None}, schema, WHAT) == Conformed({"a": None})

    @pytest.mark.parametrize("flag", [False, "true", 1])
    def test_none_is_refused_if_the_schema_is_not_nullable(self, flag):
        assert refusal(None, {"type": "string", "nullable": flag}).startswith("input['a'] must be a text")

    def test_other_values_are_checked_where_the_schema_is_nullable(self):
        assert refusal("x", {"type": "string", "enum": ["b"], "nullable": True}) == "input['a'] must be one of 'b'."


class TestUndeclaredNames:
    def test_name_that_the_schema_allows_without_declaring_it_is_reported_with_the_similar_one(self):
        schema = {"properties": {"keyword": {}}, "required": ["page"]}
        found = conform({"keywrd": 1, "page": 1, "keyword": 1}, schema, WHAT)
        assert found.undeclared == ("'keywrd' (did you mean 'keyword'?)",)

    def test_ten_names_are_reported_and_the_others_counted(self):
        found = conform({f"x{number}": 1 for number in range(100)}, of({}), WHAT)
        assert found.undeclared[9:] == ("'x9'", "90 more")

    @cases(
        "schema",
        {
            "no names declared": {"type": "object"},
            "declared elsewhere": {
                "properties": {"b": {}},
                "allOf": [{"$ref": "#/$defs/b"}],
                "$defs": {"b": {"properties": {"a": {}}}},
            },
            "declared in a branch": {"properties": {"b": {}}, "if": {}, "then": {"properties": {"a": {}}}},
            "pattern": {"properties": {"b": {}}, "patternProperties": {"a": {}}},
            "schema of all other names": {"properties": {"b": {}}, "additionalProperties": {"type": "integer"}},
        },
    )
    def test_name_that_the_schema_explains_is_not_reported(self, schema):
        assert conform({"a": 1}, schema, WHAT).undeclared == ()


DOUBLING = {f"d{each}": {"allOf": [{"$ref": f"#/$defs/d{each + 1}"}] * 2} for each in range(60)} | {"d60": {}}

UNUSABLE: Mapping[str, tuple[Any, Any]] = {
    "nothing": ("secret", None),
    "text": ("secret", '{"type": "object"}'),
    "list": ("secret", []),
    "unknown type": ("secret", of({"type": "text"})),
    "type that is no name": ("secret", of({"type": {}})),
    "no types": ("secret", of({"type": []})),
    "required that is a text": ("secret", {"required": "abc"}),
    "required that is a flag": ("secret", of({"required": True})),
    "choice that is a text": ("secret", of({"enum": "x"})),
    "no schemas to choose from": ("secret", of({"anyOf": []})),
    "limit that is a text": ("secret", of({"minLength": "5"})),
    "limit of draft 4": (5, of({"minimum": 5, "exclusiveMinimum": True})),
    "flag that is a text": (["secret"] * 2, of({"uniqueItems": "false"})),
    "names needed by a name": ({"b": "secret"}, of({"dependentRequired": {"b": "cd"}})),
    "multiple of zero": (5, of({"multipleOf": 0})),
    "part that is a text": ("secret", of("string")),
    "part that is null": ("secret", of(None)),
    "properties that are a list": ("secret", {"properties": [1]}),
    "pattern with a lookahead": ("secret", of({"pattern": "(?=b)"})),
    "pattern that is broken": ("secret", of({"pattern": "("})),
    "pattern that is too large": ("secret", of({"pattern": "(b{1000}){1000}"})),
    "pattern that is a number": ("secret", of({"pattern": 5})),
    "pattern of names": ({"secret": 1}, of({"patternProperties": {"(?=b)": {}}})),
    "refers to itself": ("secret", {"$ref": "#"}),
    "refers to itself in a list": ("secret", of({"anyOf": [{"$ref": "#/properties/a"}, {"type": "integer"}]})),
    "remote": ("secret", of({"$ref": "https://example.com/schema.json"})),
    "file": ("secret", of({"$ref": "file:///etc/passwd"})),
    "missing part": ("secret", of({"$ref": "#/$defs/missing"})),
    "draft 3": ("secret", of({}, **{"$schema": "http://json-schema.org/draft-03/schema#"})),
    "dialect that is a list": ("secret", of({}, **{"$schema": []})),
    "not JSON": (5, of({"maximum": float("nan")})),
    "large": ("secret", of({"enum": [*range(20_000)]})),
    "deep": ("secret", of(json.loads('{"items":' * 101 + "{}" + "}" * 101))),
}


class TestUnusableSchema:
    @cases(("value", "schema"), UNUSABLE)
    def test_schema_that_cannot_be_used_is_named_without_the_value(self, value, schema):
        with patch("socket.socket", side_effect=AssertionError), pytest.raises(SchemaUnusableError) as raised:
            conform({"a": value}, schema, WHAT)
        assert "secret" not in "".join(traceback.format_exception(raised.value))
        assert str(raised.value).startswith(("it ", "its ", "the schema"))
        assert len(str(raised.value)) < 200

    def test_schema_that_takes_exponential_time_cannot_be_used(self, monkeypatch):
        monkeypatch.setattr(schemas, "MAX_SECONDS", 0.1)
        with pytest.raises(SchemaUnusableError, match=r"^a check with it takes more than 0\.1 seconds"):
            conform({"a": 1}, of({"$ref": "#/$defs/d0"}, **{"$defs": DOUBLING}), WHAT)

    def test_rule_with_many_large_patterns_cannot_be_used(self):
        patterns: dict[str, Any] = {rf"\w{{100}}[a-z]{{{number}}}$": {} for number in range(200)}
        with pytest.raises(SchemaUnusableError, match=r"^its patterns are too large$"):
            conform({"a": 1}, of({}, patternProperties=patterns), WHAT)

    def test_rule_with_many_patterns_and_names_ends_in_time(self, monkeypatch):
        monkeypatch.setattr(schemas, "MAX_SECONDS", 0.2)
        patterns: dict[str, Any] = {f"^{number}x$": {} for number in range(200)}
        with pytest.raises(SchemaUnusableError, match=r"^a check with it takes more than 0\.2 seconds"):
            conform({f"a{number}": 1 for number in range(20_000)}, {"patternProperties": patterns}, WHAT)

    @pytest.mark.parametrize(
        "part",
        [
            {"pattern": "^(a+)+$"},
            {"additionalProperties": False, "patternProperties": {"^(a+)+$": {}}},
            {"patternProperties": {"^(a+)+$": {}}, "unevaluatedProperties": False},
            {"propertyNames": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": "^(a+)+$"}},
        ],
        ids=["text", "name", "unevaluated", "other dialect"],
    )
    def test_pattern_that_backtracks_is_matched_at_once(self, part):
        text = "a" * 40 + "!"
        value = text if "pattern" in part else {text: 1}
        if "unevaluatedProperties" in part:
            conform({"a": value}, of(part), WHAT)
        else:
            refusal(value, part)

    def test_pattern_of_a_unicode_property_is_matched(self):
        conform({"a": "Größe"}, of({"pattern": r"^\p{L}+$"}), WHAT)
        refusal("1", {"pattern": r"^\p{L}+$"})

    def test_text_of_more_than_10_000_characters_is_not_matched(self):
        refusal("a" * 10_000, {"pattern": "b"})
        conform({"a": "a" * 10_001}, of({"pattern": "b"}), WHAT)

    def test_many_items_that_cannot_be_sorted_are_compared_quickly(self):
        began = time.thread_time()
        conform({"a": [{"b": number} for number in range(20_000)]}, of({"uniqueItems": True}), WHAT)
        assert time.thread_time() - began < 5

    @cases(
        "schema",
        {
            "true": True,
            "empty": {},
            "unknown dialect": {"$schema": "https://example.com/dialect"},
            "largest": {"properties": {"b": {"enum": [*range(19_990)]}}},
            "malformed where nothing is checked": of({}, **{"properties": {"b": {"type": "text"}}}),
            "format": of({"format": "ipv4"}),
            "draft 4": of(
                {"minimum": 0, "exclusiveMinimum": True}, **{"$schema": "http://json-schema.org/draft-04/schema#"}
            ),
        },
    )
    def test_schema_that_can_be_used_accepts_the_input(self, schema):
        assert conform({"a": 1}, schema, WHAT).input == {"a": 1}

    def test_false_refuses_every_input(self):
        with pytest.raises(InputError, match=r"input has a part that is not allowed\.$"):
            conform({}, False, WHAT)

    def test_part_of_another_dialect_is_checked_with_our_rules(self):
        part = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "string", "nullable": True}
        assert conform({"a": None}, of(part), WHAT) == Conformed({"a": None})


class TestMismatch:
    def test_output_that_matches_has_none(self):
        assert mismatch([{"price": 1.5}], {"type": "array", "items": {"required": ["price"]}}) is None

    def test_reasons_are_one_sentence_about_places_in_the_output(self):
        schema = {"type": "array", "items": {"properties": {"price": {"type": "number"}}, "required": ["name"]}}
        assert mismatch([{"price": "secret"}], schema) == (
            "output[0]['price'] must be a number, but a text was given; output[0] lacks the required name 'name'."
        )

    def test_text_is_not_converted(self):
        assert mismatch("5", {"type": "integer"}) == "output must be an integer, but a text was given."

    def test_output_with_too_many_levels_cannot_be_compared(self):
        value: Any = 1
        for _ in range(101):
            value = [value]
        with pytest.raises(SchemaUnusableError, match=r"^output has more than 100 levels$"):
            mismatch(value, {})

    def test_schema_that_cannot_be_used_raises_an_error(self):
        with pytest.raises(SchemaUnusableError):
            mismatch("secret", None)


class TestDeclaredDefaults:
    def test_defaults_at_the_top_are_found(self):
        schema = {"properties": {"a": {"default": 1}, "b": {"$ref": "#/$defs/b", "default": None}, "c": {}, "d": True}}
        assert declared_defaults(schema) == {"a": 1, "b": None}

    @pytest.mark.parametrize(
        "schema",
        [
            None,
            True,
            {},
            {"properties": 5},
            {"properties": {"a": {}}},
            {"properties": {"a": {"default": 1}}, "allOf": []},
        ],
        ids=str,
    )
    def test_schema_without_names_or_with_names_elsewhere_has_none(self, schema):
        assert declared_defaults(schema) == {}


class TestInputsOfAllKinds:
    """The inputs that the operators are tried with."""

    @pytest.mark.parametrize("case", refused_inputs(), ids=lambda case: case.id)
    def test_invalid_input_is_refused_at_its_place_without_its_values(self, case):
        with pytest.raises(InputError) as raised:
            conform(read_input(case.input), SCHEMAS[case.schema], WHAT)
        assert case.place in str(raised.value)
        for mark in case.marks:
            assert mark not in "".join(traceback.format_exception(raised.value))

    @pytest.mark.parametrize(("schema", "value"), accepted_inputs(), ids=str)
    def test_valid_input_is_sent_as_it_is(self, schema, value):
        result = conform(read_input(value), SCHEMAS[schema], WHAT)
        assert json.dumps(result.input) == json.dumps(value)
        assert result.converted == result.undeclared == ()

    @pytest.mark.parametrize("case", rendered_inputs(), ids=lambda case: case.id)
    def test_rendered_input_is_sent_with_the_types_of_the_schema(self, case):
        result = conform(read_input(case.render()), SCHEMAS[case.schema], WHAT)
        assert json.dumps(result.input) == json.dumps(case.params)
        assert result.converted

    def test_there_are_100_invalid_inputs_of_all_kinds_100_valid_and_50_rendered_ones(self):
        assert (len(refused_inputs()), len(accepted_inputs()), len(rendered_inputs())) == (100, 100, 50)
        assert {case.kind for case in refused_inputs()} == {case.kind for case in refused_inputs(1000)}


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=";"), max_size=6)
LEAVES: list[dict[str, Any]] = [
    {"type": "string", "maxLength": 80},
    {"type": "string", "pattern": r"^\d{4}-\d\d-\d\d$"},
    {"type": "string", "nullable": True},
    {"type": "integer", "minimum": 0, "maximum": 1000},
    {"type": ["integer", "null"]},
    {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    {"type": "number", "minimum": 0, "exclusiveMaximum": 100},
    {"type": "boolean"},
    {"enum": ["EUR", "USD"]},
    {"$ref": "#/$defs/Shared"},
]


def objects(members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    def with_required(properties: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
        needed = st.lists(st.sampled_from([*properties]), unique=True) if properties else st.just([])
        return needed.map(
            lambda required: {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            }
        )

    return st.dictionaries(NAMES, members, max_size=4).flatmap(with_required)


def arrays(items: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return items.map(lambda part: {"type": "array", "items": part, "maxItems": 3})


DECLARED = objects(
    st.recursive(st.sampled_from(LEAVES), lambda inner: objects(inner) | arrays(inner), max_leaves=6)
).map(lambda schema: {**schema, "$defs": {"Shared": {"type": "integer"}}})
"""Schemas as bots declare their input."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["a", "b", "secret"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)

TYPES = st.sampled_from(["string", "integer", "number", "boolean", "array", "object", "null"])


def well_formed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    size = st.integers(0, 3)
    schemas = st.lists(inner, min_size=1, max_size=3)
    rules: dict[str, st.SearchStrategy[Any]] = {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b|c", "."]), inner, max_size=2),
        "additionalProperties": inner,
        "propertyNames": inner,
        "required": st.lists(st.sampled_from("abc"), unique=True),
        "dependentRequired": st.dictionaries(st.sampled_from("abc"), st.lists(st.sampled_from("abc"), unique=True)),
        "dependentSchemas": st.dictionaries(st.sampled_from("abc"), inner, max_size=2),
        "items": inner,
        "prefixItems": schemas,
        "contains": inner,
        "enum": st.lists(JSON, min_size=1, max_size=3),
        "const": JSON,
        "pattern": st.sampled_from(["^a", "b|c", "."]),
        "uniqueItems": st.booleans(),
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), st.integers(-2, 2)),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), size),
        **dict.fromkeys(("allOf", "anyOf"), schemas),
        # One type or null is not strict about None.
        "oneOf": schemas.filter(lambda several: not any(isinstance(one, dict) and "type" in one for one in several)),
        **dict.fromkeys(("not", "if", "then", "else"), inner),
    }
    rule = st.sampled_from([*rules]).flatmap(lambda name: st.tuples(st.just(name), rules[name]))
    return st.lists(rule, max_size=4).map(dict)


WELL_FORMED: st.SearchStrategy[Any] = st.recursive(st.booleans() | st.just({}), well_formed, max_leaves=8)
"""Schemas with all rules that are checked."""

WORDS = ["#", "#/$defs/a", "#/properties/a", "a", "https://example.com/a", "(a+)+$", "(?=a)", "string", "integer"]
WORDS += ["http://json-schema.org/draft-07/schema#", "http://json-schema.org/draft-03/schema#", "secret"]

MALFORMED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "b", "nullable", "default", "$defs", "$id", "$schema", "$anchor", "$dynamicAnchor"])
            | st.sampled_from([*Draft201909Validator.VALIDATORS, *Draft202012Validator.VALIDATORS]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)
"""What is a schema by chance only."""


class TestAnySchema:
    @given(DECLARED, st.randoms(use_true_random=False))
    def test_valid_input_passes_unchanged(self, schema, chance):
        value = value_of(schema, schema, chance)
        assert json.dumps(conform(value, schema, WHAT).input) == json.dumps(value)

    @given(st.data(), DECLARED, st.randoms(use_true_random=False))
    def test_one_wrong_value_is_refused_at_its_place_without_any_value(self, data, schema, chance):
        value = value_of(schema, schema, chance)
        parts = list(parts_of(schema, schema, value))
        assume(parts)
        path, part = data.draw(st.sampled_from(parts))
        _, wrong = data.draw(st.sampled_from([*wrong_values(part, MARK)]))
        put(value, path, wrong)
        with pytest.raises(InputError) as raised:
            conform(value, schema, WHAT)
        _, _, reasons = str(raised.value).partition(f"The input does not match the schema of {WHAT}: ")
        assert all(reason.startswith(place_of("input", path)) for reason in reasons.split("; "))
        for given_text in (str(MARK)[:5], "Example Corp", "1.50", "two"):
            assert given_text not in "".join(traceback.format_exception(raised.value))

    @given(DECLARED, st.randoms(use_true_random=False))
    def test_values_that_were_rendered_to_texts_get_their_types_back(self, schema, chance):
        value = value_of(schema, schema, chance)
        rendered, places = deepcopy(value), []
        # A list or dict comes after its parts.
        for path, part in reversed([*parts_of(schema, schema, value)]):
            original = at(rendered, path)
            if original is not None and not isinstance(original, str) and chance.random() < 0.5:
                put(rendered, path, json.dumps(original))
                places.append(place_of("input", path))
            elif part.get("type") == "string" and original in ("20", "true"):
                put(rendered, path, json.loads(original))
                places.append(place_of("input", path))
        result = conform(rendered, schema, WHAT)
        assert json.dumps(result.input) == json.dumps(value)
        assert set(result.converted[:MAX_NAMED]) <= set(places)
        assert bool(result.converted) == bool(places)

    @given(WELL_FORMED, JSON)
    def test_verdict_is_that_of_jsonschema(self, schema, value):
        Draft202012Validator.check_schema(schema)
        found = mismatch(value, schema)
        assert (found is None) == Draft202012Validator(schema).is_valid(value)

    @given(MALFORMED, st.dictionaries(st.sampled_from("abc"), JSON, max_size=3))
    def test_malformed_schema_raises_no_other_error_and_opens_no_connection(self, schema, value):
        with patch("socket.socket", side_effect=AssertionError), patch.object(schemas, "MAX_SECONDS", 0.5):
            with suppress(InputError, SchemaUnusableError):
                conform(value, schema, WHAT)
            with suppress(SchemaUnusableError):
                mismatch(value, schema)
            declared_defaults(schema)


def at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def put(value: Any, path: Path, new: Any) -> None:
    at(value, path[:-1])[path[-1]] = new


def test_importing_the_module_does_not_import_jsonschema():
    source = (
        "import sys, airflow_provider_browseract.runs.schemas; print({'jsonschema', 'referencing'} & {*sys.modules})"
    )
    assert (
        subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout == "set()\n"
    )
