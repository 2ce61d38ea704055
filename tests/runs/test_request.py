import json
from collections import UserList
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pytest

from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.runs import request
from airflow_provider_browseract.runs.request import RunRequest, Source, read_input_parameters, without_secrets
from tests.helpers.cases import cases
from tests.worker.starts import SOURCE

KEY = "app-key"


@cases(
    ("digits", "007", "007"),
    ("integer", 7, "7"),
    ("boolean", True, "true"),
    ("list", ["a", 1], '["a", 1]'),
    ("dict", {"ö": [None]}, '{"ö": [null]}'),
    ("lazy sequence", UserList(["a", "b"]), '["a", "b"]'),
    ("mappings", [MappingProxyType({"a": MappingProxyType({"b": 1})})], '[{"a": {"b": 1}}]'),
)
def test_input_strings_are_unchanged_and_other_values_become_json_text_in_their_order(value, text):
    assert [*read_input_parameters({"b": value, "a": "2"}).items()] == [("b", text), ("a", "2")]
    assert read_input_parameters([{"name": "b", "value": value}]) == {"b": text}
    assert read_input_parameters(None) == read_input_parameters({}) == {}


OK, PAIR = {"name": "ok", "value": "1"}, "Pass a dict of names and values, or a list in which each element"
A_PAIR = r"^input_parameters is a value of type tuple instead of a dict .*\. In expand, pass a list of dicts, one for"
NO_NAME, NO_JSON = "Use strings that are not empty", r"input_parameters\['when'\] cannot be written as JSON"
BY_NAME = r"input_parameters\['keyword'\] is None\. Set a value, or remove"


@cases(
    ("bytes", b"x", "input_parameters is a value of type bytes instead of a dict"),
    ("item of a dict", ("keyword", "tea"), A_PAIR),
    ("JSON text", ' [{"name": "a", "value": "1"}]\n', "^input_parameters is a text instead of .*native"),
    ("pair without a value", [OK, {"name": "a"}], rf"^input_parameters\[1\] has the keys \['name'\]\. {PAIR}"),
    ("pair with another field", [OK, {"name": "a", "value": "1", "more": 2}], PAIR),
    ("text as a pair", [OK, "a=1"], rf"^input_parameters\[1\] is of type str\. {PAIR}"),
    ("dict of names", [{"keyword": "tea"}], rf"^input_parameters\[0\] has the keys \['keyword'\]\. {PAIR}"),
    ("name twice", [OK, OK], "'ok' twice"),
    ("None", {"keyword": None}, BY_NAME),
    ("None in a pair", [{"name": "keyword", "value": None}], BY_NAME),
    *((f"name {name!r}", {name: "1"}, NO_NAME) for name in ("", "  ", 3, None)),
    ("datetime", {"when": datetime(2026, 1, 1)}, NO_JSON),
    ("NaN", {"when": float("nan")}, NO_JSON),
    ("nested object", {"when": {"deep": [object()]}}, NO_JSON),
)
def test_invalid_input_parameters_are_refused_with_what_is_wrong(value, message):
    with pytest.raises(InputError, match=message):
        read_input_parameters(value)


def of(text: str = "1", **other: Any) -> RunRequest:
    return replace(RunRequest(SOURCE, {"a": text}), **other)


@cases(
    ("callback URL", of(callback_url="https://x.example/one"), of(callback_url="https://x.example/two")),
    ("order of inputs", of(inputs={"a": "1", "b": "2"}), of(inputs={"b": "2", "a": "1"})),
    ("keys in JSON", of('{"x": 1, "y": [{"p": 1, "q": 2}]}'), of('{"y": [{"q": 2, "p": 1}], "x": 1}')),
    ("keys in a list", of('[{"p": 1, "q": 2}]'), of('[{"q": 2, "p": 1}]')),
)
def test_fingerprint_ignores_callbacks_and_the_order_of_inputs_and_of_json_keys(first, second):
    assert first.fingerprint(KEY) == second.fingerprint(KEY)


def test_fingerprint_differs_for_another_source_input_profile_setting_or_api_key():
    requests = [
        of(),
        *map(of, ("2", "1.0", "1e2", "100.0", "[1, 2]", "[2, 1]", "[broken", '{"a": 1}', '{"a": 2}')),
        of(source=Source(SourceKind.WORKFLOW, "71")),
        of(source=Source(SourceKind.TEMPLATE, "70")),
        of(profile_id="9"),
        of(save_browser_data=True),
        of(region="DE"),
    ]
    fingerprints = [each.fingerprint(KEY) for each in requests] + [of().fingerprint("another-key")]
    assert len(set(fingerprints)) == len(fingerprints)


URLS: dict[str, Any] = {"callback_url": None, "status_change_callback_url": None, "api_base_url": "https://x.example"}
DEEP = {"b": [1, {"z": 1, "a": None}], "a": "1"}
STORED = {
    "fc29650fb1bc585803318b344563c1c63bf34c8cc379a789c40c13a642fe19a5": request.read_request(
        SourceKind.WORKFLOW, "70", {**DEEP, "a": "1; x=\u00e9"}, save_browser_data=True, profile_id="9", **URLS
    ),
    "22e5660e0088a2aa6b24ce1b54b5280b5a33ee6bee6356a174ea049803f90127": request.read_request(
        SourceKind.BOT, "70", DEEP, **URLS
    ),
    "23d03fe26976b927da159b35e118c9e8ff5aeaaa63d712d8314fc4b82f74bfb8": request.read_request(
        SourceKind.BOT_TEMPLATE, "70", {"a": "1"}, region="DE", **URLS
    ),
}
"""Requests by the fingerprints that earlier tries may have stored."""


@pytest.mark.parametrize(("stored", "request_"), STORED.items(), ids=[str(each.source) for each in STORED.values()])
def test_fingerprint_is_the_one_that_earlier_tries_have_stored(stored, request_):
    assert request_.fingerprint(KEY) == stored


def pairs(**inputs: Any) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in inputs.items()]


def is_secret(name: str) -> bool:
    return isinstance(name, str) and "password" in name


@cases(
    ("dict", {"password": "hunter2", "user": "bob"}, {"password": "***", "user": "bob"}, {"hunter2"}),
    ("list", pairs(password="hunter2", user="bob"), pairs(password="***", user="bob"), {"hunter2"}),
    ("keys", [{"key": "password", "value": "hunter2"}], [{"key": "password", "value": "***"}], {"hunter2"}),
    ("nested list", {"a": {"b": pairs(password=483920)}}, {"a": {"b": pairs(password="***")}}, {"483920"}),
    ("JSON text", {"a": '{"password": "hunter2", "n": [1]}'}, {"a": '{"password": "***", "n": [1]}'}, {"hunter2"}),
    ("JSON text in a list", pairs(form='{"password": "hunter2"}'), pairs(form='{"password": "***"}'), {"hunter2"}),
    (
        "JSON text as the secret",
        {"password": '{"inner": "hunter2"}'},
        {"password": "***"},
        {'{"inner": "hunter2"}', '{\\"inner\\": \\"hunter2\\"}', "hunter2"},
    ),
    (
        "escaped in JSON",
        {"a": {"password": 'a"b\u00e4cd'}},
        {"a": {"password": "***"}},
        {'a"b\u00e4cd', 'a\\"b\u00e4cd', 'a\\"b\\u00e4cd'},
    ),
    ("none", {"a": '{"n":1}', "b": "[broken", "c": 7}, {"a": '{"n":1}', "b": "[broken", "c": 7}, set()),
    # Hidden everywhere, these words would make a log unreadable.
    *(
        (f"only by name: {value!r}", {"use_password": value}, {"use_password": "***"}, set())
        for value in (True, False, None, "true", "False", "null", "None")
    ),
)
def test_secret_inputs_are_found_and_replaced_in_every_form(inputs, shown, found):
    texts: set[str] = set()
    assert without_secrets(inputs, is_secret, texts) == shown
    assert texts == found


def test_json_text_that_is_nested_too_deeply_is_hidden_as_a_whole():
    # The limit of the JSON reader differs between versions of Python, so the text is just below it.
    depth = 900
    text = '{"a":' * depth + '"hunter2"' + "}" * depth
    texts: set[str] = set()
    shown = without_secrets({"form": text}, is_secret, texts)
    assert shown["form"] == "***" or json.loads(shown["form"]) == json.loads(text)


@cases(
    ("pairs", pairs(a=1, b=None), {"a": 1, "b": None}),
    ("twice", pairs(a=1) + pairs(a=2), None),
    ("more keys", [{"name": "a", "value": 1, "x": 2}], None),
    ("number as name", [{"name": 1, "value": 1}], None),
    ("dict", {"a": 1}, None),
)
def test_only_a_list_of_inputs_becomes_a_dict(given, expected):
    assert request.with_names_as_keys(given) == (given if expected is None else expected)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://cb.example.com/hook/s3cret?a=b", {"/hook/s3cret?a=b"}),
        ("https://ada:s3cret@cb.example.com:8443?token=t", {"ada:s3cret@", "?token=t"}),
        *((url, set()) for url in ("https://cb.example.com", "", None, 7, "{{ var.value.callback }}")),
    ],
)
def test_secret_parts_of_a_callback_address_are_its_login_and_what_follows_the_host(url, parts):
    assert request.secret_parts(url) == parts
