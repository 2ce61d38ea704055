"""Which values Airflow can store as an XCom. Airflow itself decides, so each release is tested again."""

import json
from types import SimpleNamespace

import pytest
from airflow.sdk.bases import xcom as bases_xcom
from airflow.sdk.execution_time import xcom
from airflow.sdk.execution_time.comms import SetXCom

from airflow_provider_browseract.compat import xcom_serde
from airflow_provider_browseract.in_airflow import xcoms
from airflow_provider_browseract.in_airflow.xcoms import why_unstorable
from airflow_provider_browseract.results.outputs import MAX_DEPTH
from tests.cases import cases


@cases(
    {
        "null": None,
        "text": "text",
        "list": [1, 2.5, True, None, "\u00fc"],
        "nested": {"rows": [{"a": {}}, []]},
        # Each of these is half of what Airflow reads as a serialized object.
        "__type without __var": {"__type": "Order:#shop", "id": 7},
        "__data__ without __classname__": {"__version__": 1, "__data__": 2, "__var": 3},
        "deepest": json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH),
    },
)
def test_plain_json_value_can_be_stored_as_xcom(value):
    assert why_unstorable(value) is None


@cases(
    {
        "__id__": ([{"__id__": "a1"}], "__id__"),
        "__classname__": ({"rows": [{"__classname__": "builtins.tuple"}]}, "__classname__"),
        "__type": ({"__type": "dict", "__var": {"a": 1}}, "__type"),
        "nested __type": ({"a": {"__type": "airflow.sdk.Asset", "__var": {}, "b": 1}}, "__type"),
    },
)
def test_value_with_key_reserved_by_airflow_is_unstorable_and_no_class_named_in_it_is_imported(monkeypatch, value, key):
    monkeypatch.setattr(xcom_serde(), "import_string", lambda name: pytest.fail(f"{name} was imported"))
    assert why_unstorable(value) == f"it has the key {key}, which Airflow reserves"


@cases("value", {"__id__": [{"__id__": "a1"}], "__classname__": {"__classname__": "builtins.tuple"}})
def test_airflow_refuses_reserved_keys_in_xcom_value(value):
    with pytest.raises(AttributeError, match="reserved key"):
        bases_xcom.BaseXCom.serialize_value(value)


def test_too_deeply_nested_xcom_value_is_unstorable_and_not_quoted_in_reason(monkeypatch):
    value = json.loads("[" * 400 + '"secret"' + "]" * 400)
    with pytest.raises(ValueError, match="recursion"):
        SetXCom(key="a", value=value, dag_id="", run_id="", task_id="")
    assert why_unstorable(value) == "Airflow refuses it (ValidationError)"


def test_xcom_value_that_airflow_reads_back_changed_is_unstorable(monkeypatch):
    monkeypatch.setattr(xcom_serde(), "deserialize", lambda value: {"something": "else"})
    assert why_unstorable({"a": 1}) == "Airflow reads it back as another value"


def test_unknown_airflow_serializer_makes_value_unstorable_without_raising(monkeypatch):
    monkeypatch.setattr(xcoms, "xcom_serde", lambda: SimpleNamespace())
    assert why_unstorable([1]) == "Airflow refuses it (AttributeError)"


def test_check_of_xcom_value_does_not_call_the_xcom_backend(monkeypatch):
    class Backend(bases_xcom.BaseXCom):
        @staticmethod
        def serialize_value(*_, **__):
            pytest.fail("the backend was asked to store a value")

    monkeypatch.setattr(xcom, "XCom", Backend)
    assert why_unstorable([{"a": 1}]) is None
