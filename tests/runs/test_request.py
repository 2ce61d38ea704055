from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType

import pytest

from airflow_provider_browseract.runs.arguments import InputError
from airflow_provider_browseract.runs.request import RunRequest, Source, SourceKind, read_input_parameters
from tests.runs.starts import SOURCE, pairs


class TestInputParameters:
    def test_input_parameters_dict_becomes_pairs_in_dict_order(self):
        assert read_input_parameters({"b": "1", "a": "2"}) == [
            {"name": "b", "value": "1"},
            {"name": "a", "value": "2"},
        ]

    def test_input_parameters_given_as_api_pairs_are_unchanged(self):
        pairs = [{"name": "keyword", "value": "laptops"}]
        assert read_input_parameters(pairs) == pairs

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("007", "007"),
            ("", ""),
            (7, "7"),
            (2.5, "2.5"),
            (True, "true"),
            (["a", 1], '["a", 1]'),
            ({"ö": [None]}, '{"ö": [null]}'),
        ],
        ids=["digits", "empty string", "integer", "float", "boolean", "list", "dict"],
    )
    def test_input_strings_are_unchanged_and_other_values_become_json_text(self, value, text):
        assert read_input_parameters({"name": value}) == [{"name": "name", "value": text}]

    def test_lazy_sequence_of_mapped_results_becomes_a_json_list(self):
        class Lazy(Sequence):
            def __len__(self):
                return 2

            def __getitem__(self, index):
                return ["a", "b"][index]

        assert json.loads(read_input_parameters({"all": Lazy()})[0]["value"]) == ["a", "b"]

    def test_mapping_that_is_no_dict_becomes_a_json_object(self):
        value = [MappingProxyType({"a": MappingProxyType({"b": 1})})]
        assert json.loads(read_input_parameters({"all": value})[0]["value"]) == [{"a": {"b": 1}}]

    def test_none_and_empty_dict_both_mean_no_input_parameters(self):
        assert read_input_parameters(None) == read_input_parameters({}) == []

    @pytest.mark.parametrize(
        "value", ["keyword=laptops", 7, b"x", object()], ids=["string", "integer", "bytes", "object"]
    )
    def test_input_parameters_neither_mapping_nor_pairs_are_refused(self, value):
        with pytest.raises(InputError, match="input_parameters is of type"):
            read_input_parameters(value)

    @pytest.mark.parametrize("text", ['{"keyword": "laptops"}', ' [{"name": "a", "value": "1"}]\n', "{}"])
    def test_input_parameters_given_as_json_string_are_refused_with_the_remedy(self, text):
        expected = r"^input_parameters is a JSON string\. Pass the dict or the list itself\..*render_template_as_native"
        with pytest.raises(InputError, match=expected):
            read_input_parameters(text)

    @pytest.mark.parametrize(
        "pair",
        [{"name": "a"}, {"name": "a", "value": "1", "more": 2}, "a=1", ["a", "1"]],
        ids=["value missing", "extra field", "string", "list"],
    )
    def test_invalid_input_pair_is_refused_with_its_position(self, pair):
        with pytest.raises(InputError, match=r"input_parameters\[1\] is .* instead of a pair"):
            read_input_parameters([{"name": "ok", "value": "1"}, pair])

    def test_duplicate_input_name_is_refused(self):
        with pytest.raises(InputError, match="'a' twice"):
            read_input_parameters([{"name": "a", "value": "1"}, {"name": "a", "value": "2"}])

    @pytest.mark.parametrize("given", [{"keyword": None}, [{"name": "keyword", "value": None}]], ids=["dict", "pairs"])
    def test_input_with_value_none_is_refused_by_name(self, given):
        with pytest.raises(InputError, match=r"input_parameters\['keyword'\] is None\. Set a value, or remove"):
            read_input_parameters(given)

    @pytest.mark.parametrize("name", ["", "  ", 3, None], ids=["empty", "blank", "integer", "Python None"])
    def test_input_name_that_is_empty_or_not_a_string_is_refused(self, name):
        with pytest.raises(InputError, match="Use strings that are not empty"):
            read_input_parameters({name: "1"})

    @pytest.mark.parametrize(
        "value",
        [datetime(2026, 1, 1), {1, 2}, b"bytes", float("nan"), float("inf"), {"deep": [object()]}],
        ids=["datetime", "set", "bytes", "NaN", "infinity", "nested object"],
    )
    def test_input_value_not_serializable_as_json_is_refused_by_name(self, value):
        with pytest.raises(InputError, match=r"input_parameters\['when'\] cannot be written as JSON"):
            read_input_parameters({"when": value})


def of(**inputs: str) -> RunRequest:
    """A request for a run of workflow 70."""
    return RunRequest(SOURCE, pairs(**inputs))


def test_fingerprint_is_the_same_for_different_callback_urls():
    first, second = (replace(of(a="1"), callback_url=f"https://x.example/{token}") for token in ("one", "two"))
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pairs(a="1", b="2"), pairs(b="2", a="1")),
        (pairs(a='{"x": 1, "y": [{"p": 1, "q": 2}]}'), pairs(a='{"y": [{"q": 2, "p": 1}], "x": 1}')),
        (pairs(a='[{"p": 1, "q": 2}]'), pairs(a='[{"q": 2, "p": 1}]')),
    ],
    ids=["inputs", "keys in the JSON of one", "keys in a list"],
)
def test_fingerprint_ignores_the_order_of_inputs_and_of_json_keys(first, second):
    assert RunRequest(SOURCE, first).fingerprint == RunRequest(SOURCE, second).fingerprint


@pytest.mark.parametrize(
    "other",
    [
        replace(of(a="1"), source=Source(SourceKind.WORKFLOW, "71")),
        of(a="2"),
        of(a="[1, 2]"),
        of(a="[2, 1]"),
        of(a="[broken"),
        of(a="1.0"),
        replace(of(a="1"), profile_id="9"),
        replace(of(a="1"), save_browser_data=True),
        replace(of(a="1"), source=Source(SourceKind.TEMPLATE, "70")),
        replace(of(a="1"), region="DE"),
    ],
    ids=[
        "other workflow",
        "other input",
        "list",
        "reversed list",
        "broken JSON",
        "number",
        "profile",
        "saved browser data",
        "template",
        "region",
    ],
)
def test_fingerprint_differs_for_another_workflow_input_or_profile_setting(other):
    assert of(a="1").fingerprint != other.fingerprint


@pytest.mark.parametrize(
    ("first", "second"), [('{"a": 1}', '{"a": 2}'), ("1e2", "100.0")], ids=["JSON objects", "spellings of a number"]
)
def test_fingerprint_differs_for_other_values(first, second):
    assert of(a=first).fingerprint != of(a=second).fingerprint
