"""Which values Airflow can store as an XCom. Airflow itself decides, so each release is tested again."""

import json
from importlib import import_module
from types import ModuleType

import pytest
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.comms import SetXCom

from airflow_provider_browseract.in_airflow.xcoms import why_unstorable
from airflow_provider_browseract.results.outputs import MAX_DEPTH
from tests.helpers.cases import cases


def serde() -> ModuleType:
    """Return the module with which Airflow serializes XComs."""
    try:
        return import_module("airflow.sdk.serde")
    except ImportError:  # before Airflow 3.2
        return import_module("airflow.serialization.serde")


@cases(
    ("null", None),
    ("text", "text"),
    ("list", [1, 2.5, True, None, "\u00fc"]),
    ("nested", {"rows": [{"a": {}}, []]}),
    # Each of these is half of what Airflow reads as a serialized object.
    ("__type without __var", {"__type": "Order:#shop", "id": 7}),
    ("__data__ without __classname__", {"__version__": 1, "__data__": 2, "__var": 3}),
    ("deepest", json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)),
)
def test_plain_json_value_can_be_stored_as_xcom_and_is_read_back_unchanged(value):
    assert why_unstorable(value) is None
    sent = SetXCom(key="return_value", value=serde().serialize(value), dag_id="", run_id="", task_id="").value
    assert serde().deserialize(json.loads(json.dumps(sent))) == value


@cases(
    ("__id__", [{"__id__": "a1"}], "__id__"),
    ("__classname__", {"rows": [{"__classname__": "builtins.tuple"}]}, "__classname__"),
    ("__type", {"__type": "dict", "__var": {"a": 1}}, "__type"),
    ("nested __type", {"a": {"__type": "airflow.sdk.Asset", "__var": {}, "b": 1}}, "__type"),
)
def test_value_with_key_reserved_by_airflow_is_unstorable(value, key):
    assert why_unstorable(value) == f"it has the key {key}, which Airflow reserves"
    reserved = serde()
    assert {reserved.CLASSNAME, reserved.SCHEMA_ID, reserved.OLD_TYPE, reserved.OLD_DATA} == {
        *("__classname__", "__id__", "__type", "__var"),
    }


@cases("value", {"__id__": [{"__id__": "a1"}], "__classname__": {"__classname__": "builtins.tuple"}})
def test_airflow_refuses_reserved_keys_in_xcom_value(value):
    with pytest.raises(AttributeError, match="reserved key"):
        BaseXCom.serialize_value(value)
