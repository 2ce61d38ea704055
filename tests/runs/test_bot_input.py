import json
import traceback
from collections import UserList
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.runs.bot_input import Conformed, SchemaUnusableError, conform, read_input
from tests.helpers.cases import cases

WHAT = "bot 82000518364027715"
INTEGER, TEXT = {"type": "integer"}, {"type": "string"}
DRAFT = "http://json-schema.org/draft-0{}/schema#"
TOJSON = "(for a list or dict in a template, add the filter tojson)"
B_ALLOWED = {"patternProperties": {"b": {}}, "additionalProperties": False}
KEYWORD = {"properties": {"keyword": {}}, "additionalProperties": False}
OTHER_DIGIT, HALF = "\N{ARABIC-INDIC DIGIT SEVEN}", '["\\ud800"]'
LONG, LONG_EXPONENT = "1" + "0" * 10_000_000, "1e-" + "9" * 398
LOOK_UP = patch("socket.getaddrinfo", side_effect=OSError)
DEEP = "[" * 100_000 + "]" * 100_000


def of(part: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": part}, **more}


def with_defs(part: Any, **defs: Any) -> dict[str, Any]:
    return of(part, **{"$defs": defs})


def conformed(value: Any, part: Any) -> Conformed:
    return conform({"a": value}, of(part), WHAT)


def refusal(value: Any, part: Any) -> str:
    """Return what is wrong with the value of the name ``a``, without what frames it."""
    with pytest.raises(InputError) as raised:
        conformed(value, part)
    frame = f"The input does not match the schema of {WHAT}: "
    assert str(raised.value).startswith(frame)
    return str(raised.value).removeprefix(frame)


def test_json_values_keep_type_and_order_and_lazy_sequences_become_lists_and_mappings_dicts():
    value = {"b": 1, "a": [1.5, True, None, "x", {"c": []}, -(2**1024) + 1]}
    assert json.dumps(read_input(value)) == json.dumps(value)
    assert read_input(None) == read_input({}) == {}
    # A sequence that is no list, as Airflow returns the results of mapped tasks.
    read = read_input(MappingProxyType({"a": UserList(["a", "b"]), "b": (MappingProxyType({"c": 1}),)}))
    assert read == {"a": ["a", "b"], "b": [{"c": 1}]}
    assert type(read["b"][0]) is dict


IN_ITSELF: dict[str, Any] = {}
IN_ITSELF["a"] = IN_ITSELF
A_LIST = "input is a value of type list instead of a dict of names and values"
A_TEXT = "input is a text instead of a dict.*render_template_as_native"
NO_JSON = r"input\['a'\] cannot be written as JSON \({}\)\. Pass a string or a JSON value, for example a time as"


@cases(
    ("time", {"a": [datetime.max]}, NO_JSON.format("a value of type datetime is not JSON")),
    ("set", {"a": [{1}]}, NO_JSON.format("a value of type set is not JSON")),
    ("NaN", {"a": [float("nan")]}, NO_JSON.format("ValueError")),
    ("half an emoji", {"a": ["\ud800"]}, NO_JSON.format("UnicodeEncodeError")),
    ("name with a lone surrogate", {"\ud800": 2}, r"input\['\\ud800'\] cannot be written"),
    ("name that is a number", {"a": [{1: 2}]}, NO_JSON.format("it has a name of type int")),
    ("name at the top that is a number", {1: 2}, r"input\[1\] cannot be written as JSON \(it has a name of type int"),
    ("in itself", IN_ITSELF, NO_JSON.format("RecursionError")),
    ("JSON text", '{"keyword": "laptops"}', A_TEXT),
    ("pairs", [{"name": "keyword", "value": "laptops"}], A_LIST),
    ("tuple", ("keyword", "tea"), "input is a value of type tuple instead of a dict of .* In expand, pass a list of"),
    ("bytes at the top", b"x", "input is a value of type bytes instead of a dict of names"),
)
def test_input_that_is_not_json_is_refused_with_its_place(value, message):
    with pytest.raises(InputError, match=f"^{message}"):
        read_input(value)


class TestMessages:
    @cases(
        ("type", "x", INTEGER, "must be of type integer, not string."),
        ("types", "x", {"type": ["integer", "array"]}, "must be of type integer or array, not string."),
        ("boolean", True, {"type": "number"}, "must be of type number, not boolean."),
        ("choice", "x", {"enum": ["b", None, 3]}, "does not follow the rule enum: ['b', None, 3]."),
        ("long choice", "x", {"enum": ["y" * 200]}, f"does not follow the rule enum: ['{'y' * 98}...."),
        ("pattern", "x", {"pattern": "^b+$"}, "does not follow the rule pattern: '^b+$'."),
        ("missing name", {}, {"required": ["b"]}, "lacks the required name 'b'."),
        ("unknown name", {"b": 1}, {"additionalProperties": False}, "has the unknown name 'b'."),
        ("mistyped name", {"keywrd": 1}, KEYWORD, "has the unknown name 'keywrd' (did you mean 'keyword'?)."),
        ("long name", {"b\n" * 200: 1}, KEYWORD, "has the unknown name '" + r"b\n" * 33 + "...."),
        ("name beside a pattern", {"b": 1, "c": 1}, B_ALLOWED, "has the unknown name 'c'."),
        (
            "any of",
            1,
            {"anyOf": [{"maximum": 0}, {"minimum": 2}]},
            "does not follow the rule anyOf: [{'maximum': 0}, {'minimum': 2}].",
        ),
        (
            "one type or null",
            60,
            {"anyOf": [{"maximum": 50, **INTEGER}, {"type": "null"}]},
            "does not follow the rule maximum: 50.",
        ),
        ("two of one", 1, {"oneOf": [{}, {"minimum": 0}]}, "does not follow the rule oneOf: [{}, {'minimum': 0}]."),
        ("same error twice", 3, {"allOf": [{"maximum": 2}, {"maximum": 2}]}, "does not follow the rule maximum: 2."),
        ("after the conversion", "2000", {**INTEGER, "maximum": 100}, "does not follow the rule maximum: 100."),
        # A filter cannot help.
        ("text of a number", "2.5", INTEGER, "must be of type integer, not string."),
        ("text of a list", "['laptop', 'phone']", {"type": "array"}, f"must be of type array, not string {TOJSON}."),
        ("text of a dict", "{'a': None}", {"type": "object"}, f"must be of type object, not string {TOJSON}."),
    )
    def test_error_names_place_and_rule(self, value, part, message):
        assert refusal(value, part) == f"input['a'] {message}"
        assert refusal([value], {"items": part}) == f"input['a'][0] {message}"

    def test_all_errors_are_named_at_once(self):
        with pytest.raises(InputError) as raised:
            conform({"a": "x", "c": 1}, of(INTEGER, required=["b"], additionalProperties=False), WHAT)
        assert str(raised.value) == (
            f"The input does not match the schema of {WHAT}: input['a'] must be of type integer, not string; "
            "input lacks the required name 'b'; input has the unknown name 'c'."
        )
        assert refusal(1, False) == "input has a part that is not allowed."
        with pytest.raises(InputError, match=r"input has a part that is not allowed\.$"):
            conform({}, False, WHAT)

    def test_ten_errors_are_named_and_the_others_counted(self):
        message = refusal([None] * 1011, {"items": TEXT})
        assert message.count("must be") == 10
        assert message.endswith("; 1,001 more.")


class TestConversion:
    @cases(
        ("integer", "20", "integer", 20),
        ("largest integer", str(2**53 - 1), "integer", 2**53 - 1),
        ("number", "2.50", "number", 2.5),
        ("large number without fraction", "9007199254740992", "number", 2.0**53),
        ("longest text of a number", "0." + "0" * 323 + "5", "number", 5e-324),
        ("true", "true", "boolean", True),
        ("Python's true", "True", "boolean", True),
        ("false", "false", "boolean", False),
        ("object", ' {"b": [1, 2.5]}', "object", {"b": [1, 2.5]}),
        ("array", '["b", null]', "array", ["b", None]),
        ("integer to text", 7, "string", "7"),
        ("number to text", 2.5, "string", "2.5"),
        ("boolean to text", True, "string", "true"),
    )
    @pytest.mark.parametrize("form", ["one type", "or null", "or null in a list", "reference", "all of"])
    def test_value_of_another_type_is_converted_without_loss(self, form, given, wanted, converted):
        part = {
            "one type": {"type": wanted},
            "or null": {"anyOf": [{"type": "null"}, {"type": wanted}]},
            "or null in a list": {"type": [wanted, "null"]},
            "reference": {"oneOf": [{"$ref": "#/$defs/b"}, {"type": "null"}]},
            "all of": {"allOf": [{"type": wanted}, {"$ref": "#/$defs/b"}]},
        }[form]
        result = conform({"a": given}, with_defs(part, b={"type": wanted}), WHAT)
        assert result == Conformed({"a": converted}, ("input['a']",))
        assert type(result.input["a"]) is type(converted)

    LOSSY: Mapping[str, list[Any]] = {
        "integer": ["2.0", "007", "+7", "1_0", str(2**53), "71002814653029437", "many", "", 2.5, True, OTHER_DIGIT],
        "number": ["0.10000000000000001", "9007199254740993", "1e999", "NaN", "1e-999", "1.", LONG, LONG_EXPONENT],
        "boolean": ["yes", 1, "TRUE"],
        "object": ["[]", "{'b': 1}", '{"b": 1, "b": 2}'],
        "array": ["{}", "[9007199254740993]", "[0.10000000000000001]", "[NaN]", "[-Infinity]", HALF, DEEP],
        "string": [[1]],
        "null": ["null"],
    }

    @pytest.mark.parametrize(
        ("wanted", "given"),
        [(wanted, given) for wanted, values in LOSSY.items() for given in values],
        ids=lambda value: repr(value)[:30],
    )
    def test_value_is_not_converted_where_something_would_be_lost(self, wanted, given):
        assert refusal(given, {"type": wanted}).startswith("input['a'] must be ")

    def test_text_is_not_converted_if_several_types_are_possible_or_a_text_is_allowed(self):
        refusal("20", {"type": ["integer", "boolean"]})
        refusal("20", {"anyOf": [INTEGER, {"type": "boolean"}]})
        refusal("20", {"allOf": [INTEGER, {"type": "boolean"}]})
        assert conformed("20", {"anyOf": [INTEGER, TEXT]}) == Conformed({"a": "20"})
        # Nobody knows which of the two is meant.
        zip_is_text = {"properties": {"zip": TEXT, "n": INTEGER}, "required": ["x"]}
        zip_is_number = {"properties": {"zip": INTEGER, "n": INTEGER}}
        refusal({"zip": "12345", "n": "5"}, {"anyOf": [zip_is_text, zip_is_number]})

    def test_values_inside_lists_objects_and_texts_are_converted_in_a_copy(self):
        objects = {"type": "array", "items": {"type": "object", "properties": {"b": INTEGER}}}
        given = [{"b": "1"}, {"b": 2}, {"b": "3"}]
        converted = {"a": [{"b": 1}, {"b": 2}, {"b": 3}]}
        assert conformed(given, objects) == Conformed(converted, ("input['a'][0]['b']", "input['a'][2]['b']"))
        assert given[0] == {"b": "1"}
        places = ("input['a']", "input['a'][0]", "input['a'][0]['b']")
        assert conformed('["{\\"b\\": \\"1\\"}"]', objects) == Conformed({"a": [{"b": 1}]}, places)

    def test_first_converted_places_are_named_and_the_others_counted(self):
        assert conformed([1] * 1011, {"items": TEXT}).converted[9:] == ("input['a'][9]", "1,001 more")
        # One value that cannot be converted is the only error.
        assert refusal(["1", "x", "2"], {"items": INTEGER}) == "input['a'][1] must be of type integer, not string."

    def test_default_is_not_filled_in_and_the_input_is_not_in_the_repr_of_the_result(self):
        assert conform({}, of({"default": 1}), WHAT) == Conformed({})
        assert "secret" not in repr(conformed("secret", {}))


def test_none_is_refused_if_the_schema_is_not_nullable_and_other_values_are_checked_if_it_is():
    for flag in (False, "true", 1):
        assert refusal(None, {"type": "string", "nullable": flag}).startswith("input['a'] must be of type string")
    assert (
        refusal("x", {"type": "string", "enum": ["b"], "nullable": True})
        == "input['a'] does not follow the rule enum: ['b']."
    )


def test_names_that_the_schema_allows_without_declaring_them_are_reported_with_similar_ones():
    schema = {"properties": {"keyword": {}}, "required": ["page"]}
    found = conform({"keywrd": 1, "page": 1, "keyword": 1}, schema, WHAT)
    assert found.undeclared == ("'keywrd' (did you mean 'keyword'?)",)
    found = conform({f"x{number}": 1 for number in range(100)}, of({}), WHAT)
    assert found.undeclared[9:] == ("'x9'", "90 more")


UNUSABLE: Mapping[str, tuple[Any, Any]] = {
    "nothing": ("secret", None),
    "list": ("secret", []),
    "unknown type": ("secret", of({"type": "text"})),
    "limit of draft 4": (5, of({"minimum": 5, "exclusiveMinimum": True})),
    "multiple of zero": (5, of({"multipleOf": 0})),
    "pattern that is broken": ("secret", of({"pattern": "("})),
    "pattern of names": ({"secret": 1}, of({"patternProperties": {"(": {}}})),
    "pattern of a unicode property": ("secret", of({"pattern": r"^\p{L}+$"})),
    "malformed where nothing is checked": ("secret", of({}, properties={"a": {}, "b": {"type": "text"}})),
    "refers to itself": ("secret", {"$ref": "#"}),
    "refers to itself in a list": ("secret", of({"anyOf": [{"$ref": "#/properties/a"}, INTEGER]})),
    "remote": ("secret", of({"$ref": "https://example.com/schema.json"})),
    "missing part": ("secret", of({"$ref": "#/$defs/missing"})),
    "dialect that is a list": ("secret", of({}, **{"$schema": []})),
}


@cases(("value", "schema"), UNUSABLE)
def test_schema_that_cannot_be_used_is_named_without_the_value_and_no_host_is_looked_up(value, schema):
    with LOOK_UP as look_up, pytest.raises(SchemaUnusableError) as raised:
        conform({"a": value}, schema, WHAT)
    assert look_up.mock_calls == []
    assert "secret" not in "".join(traceback.format_exception(raised.value))
    assert str(raised.value).startswith(("it ", "its ", "the schema"))
    assert len(str(raised.value)) < 200


NAMES_B: dict[str, Any] = {"properties": {"b": {}}}


@cases(
    ("None, nullable", None, of({"type": "string", "enum": ["b"], "minLength": 1, "nullable": True})),
    ("None, nullable reference", None, with_defs({"$ref": "#/$defs/b", "nullable": True}, b=TEXT)),
    (
        "None, in a schema that refers to itself",
        {"a": None},
        {**of({"$ref": "#"}, **{"$schema": DRAFT.format(7)}), "nullable": True},
    ),
    ("None, any of", None, of({"anyOf": [TEXT, {"type": "null"}]})),
    ("no names declared", 1, {"type": "object"}),
    ("name declared elsewhere", 1, {**with_defs({}, b=of({})), **NAMES_B, "allOf": [{"$ref": "#/$defs/b"}]}),
    ("name declared in a branch", 1, {**NAMES_B, "if": {}, "then": {"properties": {"a": {}}}}),
    ("pattern of names", 1, {**NAMES_B, "patternProperties": {"a": {}}}),
    ("schema of all other names", 1, {**NAMES_B, "additionalProperties": INTEGER}),
    ("true", 1, True),
    ("empty", 1, {}),
    ("unknown dialect", 1, {"$schema": "https://example.com/dialect"}),
    ("format", 1, of({"format": "ipv4"})),
    ("draft 4", 1, of({"minimum": 0, "exclusiveMinimum": True}, **{"$schema": DRAFT.format(4)})),
    ("multiple of a hundredth", 19.99, of({"multipleOf": 0.01})),
    ("multiple of a whole number", 6, of({"multipleOf": 2.0})),
)
def test_value_that_matches_the_schema_passes_unchanged_and_its_name_is_not_reported(value, schema):
    assert conform({"a": value}, schema, WHAT) == Conformed({"a": value})


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


@given(WELL_FORMED, JSON)
def test_verdict_about_any_schema_and_value_is_that_of_jsonschema(schema, value):
    Draft202012Validator.check_schema(schema)
    checker, given_input = Draft202012Validator(of(schema)), {"a": value}
    try:
        accepted = conform(given_input, of(schema), WHAT).input
    except InputError:
        assert not checker.is_valid(given_input)
    else:
        assert checker.is_valid(accepted)
        assert accepted == given_input or not checker.is_valid(given_input)
