from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pytest

from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.api.workflows import InputParameter
from airflow_provider_browseract.runs.request import (
    RunRequest,
    Source,
    check_names,
    json_texts_line,
    read_bot_run,
    read_bot_template_run,
    read_input_parameters,
    read_run,
    read_template_run,
    secret_parts,
    with_names_as_keys,
    without_secrets,
)
from tests.runs.starts import SOURCE


class TestInputParameters:
    def test_input_parameters_given_as_dict_keep_their_order(self):
        assert [*read_input_parameters({"b": "1", "a": "2"}).items()] == [("b", "1"), ("a", "2")]

    def test_input_parameters_given_as_api_pairs_become_a_dict(self):
        assert read_input_parameters([{"name": "keyword", "value": "laptops"}]) == {"keyword": "laptops"}

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
        assert read_input_parameters({"name": value}) == {"name": text}

    def test_lazy_sequence_of_mapped_results_becomes_a_json_list(self):
        class Lazy(Sequence):
            def __len__(self):
                return 2

            def __getitem__(self, index):
                return ["a", "b"][index]

        assert json.loads(read_input_parameters({"all": Lazy()})["all"]) == ["a", "b"]

    def test_mapping_that_is_no_dict_becomes_a_json_object(self):
        value = [MappingProxyType({"a": MappingProxyType({"b": 1})})]
        assert json.loads(read_input_parameters({"all": value})["all"]) == [{"a": {"b": 1}}]

    def test_none_and_empty_dict_both_mean_no_input_parameters(self):
        assert read_input_parameters(None) == read_input_parameters({}) == {}

    @pytest.mark.parametrize("value", [7, b"x", object()], ids=["integer", "bytes", "object"])
    def test_input_parameters_neither_mapping_nor_pairs_are_refused(self, value):
        with pytest.raises(InputError, match="input_parameters is of type"):
            read_input_parameters(value)

    @pytest.mark.parametrize("text", ['{"keyword": "laptops"}', ' [{"name": "a", "value": "1"}]\n', "{}"])
    def test_input_parameters_given_as_json_string_are_refused_with_the_remedy(self, text):
        with pytest.raises(InputError, match=r"^input_parameters is a text instead of .*render_template_as_native"):
            read_input_parameters(text)

    @pytest.mark.parametrize(
        "pair",
        [{"name": "a"}, {"name": "a", "value": "1", "more": 2}, "a=1", ["a", "1"]],
        ids=["value missing", "extra field", "string", "list"],
    )
    def test_invalid_input_pair_is_refused_with_its_position(self, pair):
        with pytest.raises(InputError, match=r"input_parameters\[1\] is .* instead of a pair"):
            read_input_parameters([{"name": "ok", "value": "1"}, pair])

    @pytest.mark.parametrize("given", [{"keyword": [1], "when": {}, "n": 7}, [{"name": "keyword", "value": [1]}]])
    def test_lists_and_dicts_that_are_sent_as_text_are_named(self, given):
        line = json_texts_line(given) or ""
        assert line.startswith("Sent as one JSON text, because inputs are texts: input_parameters['keyword'] (a list)")
        assert ("input_parameters['when'] (a dict)" in line) is isinstance(given, dict)
        assert "'n'" not in line

    @pytest.mark.parametrize("given", [None, {}, {"keyword": "[1]"}, [{"name": "keyword", "value": 7}], [7], "text"])
    def test_inputs_without_lists_and_dicts_need_no_line(self, given):
        assert json_texts_line(given) is None

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


KEY = "app-key"


def of(**inputs: str) -> RunRequest:
    """A request for a run of workflow 70."""
    return RunRequest(SOURCE, inputs)


def test_fingerprint_is_the_same_for_different_callback_urls():
    first, second = (replace(of(a="1"), callback_url=f"https://x.example/{token}") for token in ("one", "two"))
    assert first.fingerprint(KEY) == second.fingerprint(KEY)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}),
        ({"a": '{"x": 1, "y": [{"p": 1, "q": 2}]}'}, {"a": '{"y": [{"q": 2, "p": 1}], "x": 1}'}),
        ({"a": '[{"p": 1, "q": 2}]'}, {"a": '[{"q": 2, "p": 1}]'}),
    ],
    ids=["inputs", "keys in the JSON of one", "keys in a list"],
)
def test_fingerprint_ignores_the_order_of_inputs_and_of_json_keys(first, second):
    assert RunRequest(SOURCE, first).fingerprint(KEY) == RunRequest(SOURCE, second).fingerprint(KEY)


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
    assert of(a="1").fingerprint(KEY) != other.fingerprint(KEY)


@pytest.mark.parametrize(
    ("first", "second"), [('{"a": 1}', '{"a": 2}'), ("1e2", "100.0")], ids=["JSON objects", "spellings of a number"]
)
def test_fingerprint_differs_for_other_values(first, second):
    assert of(a=first).fingerprint(KEY) != of(a=second).fingerprint(KEY)


URLS: dict[str, Any] = {"callback_url": None, "status_change_callback_url": None, "api_base_url": "https://x.example"}
DEEP = {"b": [1, {"z": 1, "a": None}], "a": "1"}
STORED = {
    "3faac2ad8d5ab1f776c8f12af03a3cb8c03e696cf29b570d0391ce2bde48cbde": read_run(
        "70", {**DEEP, "a": "1; x=\u00e9"}, save_browser_data=True, profile_id="9", **URLS
    ),
    "d4ad60bd806401472a3d7dde2281214228bc4dc9193536e35826c29eb0315ac3": read_template_run(
        "70", {"a": "1"}, region="DE", **URLS
    ),
    "a5c34a978a14eb7d42c68b193b2e6e3ad69233eb8a1ca032544d3b144996da24": read_bot_run("70", DEEP, **URLS),
    "0ee877d71e4d8a9a0df1a9fe09f97d6a8d23c37ae946d0f6847eb76aa9e50d04": read_bot_template_run(
        "70", {"a": "1"}, region="DE", **URLS
    ),
}
"""Requests by the fingerprints that earlier tries may have stored."""


@pytest.mark.parametrize(("stored", "request_"), STORED.items(), ids=[str(each.source) for each in STORED.values()])
def test_fingerprint_is_the_one_that_earlier_tries_have_stored(stored, request_):
    assert request_.fingerprint(KEY) == stored


def test_fingerprint_depends_on_the_api_key():
    assert of(a="1").fingerprint(KEY) != of(a="1").fingerprint("another-key")


def is_secret(name: str) -> bool:
    return isinstance(name, str) and "password" in name


@pytest.mark.parametrize(
    ("inputs", "shown", "found"),
    [
        ({"password": "hunter2", "user": "bob"}, {"password": "***", "user": "bob"}, {"hunter2"}),
        (
            [{"name": "password", "value": "hunter2"}, {"name": "user", "value": "bob"}],
            [{"name": "password", "value": "***"}, {"name": "user", "value": "bob"}],
            {"hunter2"},
        ),
        (
            {"form": {"fields": [{"name": "password", "value": 483920}]}},
            {"form": {"fields": [{"name": "password", "value": "***"}]}},
            {"483920"},
        ),
        (
            {"form": '{"password": "hunter2", "n": [1]}'},
            {"form": '{"password": "***", "n": [1]}'},
            {"hunter2"},
        ),
        (
            {"password": '{"inner": "hunter2"}'},
            {"password": "***"},
            {'{"inner": "hunter2"}', '{\\"inner\\": \\"hunter2\\"}', "hunter2"},
        ),
        (
            {"form": {"password": 'a"b\u00e4cd'}},
            {"form": {"password": "***"}},
            {'a"b\u00e4cd', 'a\\"b\u00e4cd', 'a\\"b\\u00e4cd'},
        ),
        ({"a": '{"n":1}', "b": "[broken", "c": 7}, {"a": '{"n":1}', "b": "[broken", "c": 7}, set()),
    ],
    ids=["dict", "list", "nested list", "JSON text", "JSON text as the secret", "escaped in JSON", "none"],
)
def test_secret_inputs_are_found_and_replaced_in_every_form(inputs, shown, found):
    texts: set[str] = set()
    assert without_secrets(inputs, is_secret, texts) == shown
    assert texts == found


@pytest.mark.parametrize("value", [True, False, None, "true", "False", "null", "None"])
def test_words_that_would_make_a_log_unreadable_are_hidden_by_name_only(value):
    texts: set[str] = set()
    assert without_secrets({"use_password": value}, is_secret, texts) == {"use_password": "***"}
    assert texts == set()


def test_json_text_that_is_nested_too_deeply_is_hidden_as_a_whole():
    # The limit of the JSON reader differs between versions of Python, so the text is just below it.
    depth = 900
    text = '{"a":' * depth + '"hunter2"' + "}" * depth
    texts: set[str] = set()
    shown = without_secrets({"form": text}, is_secret, texts)
    assert shown["form"] == "***" or json.loads(shown["form"]) == json.loads(text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([{"name": "a", "value": 1}, {"name": "b", "value": None}], {"a": 1, "b": None}),
        ([{"name": "a", "value": 1}, {"name": "a", "value": 2}], None),
        ([{"name": "a", "value": 1, "x": 2}], None),
        ([{"name": 1, "value": 1}], None),
        (["a"], None),
        ({"a": 1}, None),
        ("text", None),
    ],
    ids=["pairs", "twice", "more keys", "number as name", "texts", "dict", "text"],
)
def test_only_a_list_of_inputs_becomes_a_dict(given, expected):
    assert with_names_as_keys(given) == (given if expected is None else expected)


def test_only_an_input_that_is_declared_as_disabled_by_default_is_required():
    declared = [InputParameter("a", False), InputParameter("b", True), InputParameter("c", None)]
    check_names(["a"], declared, "workflow 7")
    with pytest.raises(
        InputError, match=r"lacks the required name 'a'\. The inputs of workflow 7 are: a \(required\), b, c\."
    ):
        check_names([], declared, "workflow 7")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://cb.example.com/hook/s3cret?a=b", {"/hook/s3cret?a=b"}),
        ("https://ada:s3cret@cb.example.com:8443?token=t", {"ada:s3cret@", "?token=t"}),
        ("https://cb.example.com", set()),
        ("", set()),
        (None, set()),
        (7, set()),
        ("{{ var.value.callback }}", set()),
    ],
)
def test_secret_parts_of_a_callback_address_are_its_login_and_what_follows_the_host(url, parts):
    assert secret_parts(url) == parts
