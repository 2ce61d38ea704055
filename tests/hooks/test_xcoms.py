"""What Airflow can store as an XCom. The answers are Airflow's own, so each release is asked anew."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from airflow.sdk.bases import xcom as bases_xcom
from airflow.sdk.execution_time import xcom
from airflow.sdk.execution_time.comms import SetXCom

from airflow_provider_browseract.compat import xcom_serde
from airflow_provider_browseract.hooks import xcoms
from airflow_provider_browseract.hooks.xcoms import delete_xcoms, why_unstorable
from airflow_provider_browseract.runs.outputs import DEEPEST


@pytest.mark.parametrize(
    "value",
    [
        None,
        "text",
        [1, 2.5, True, None, "\u00fc"],
        {"rows": [{"a": {}}, []]},
        # Each of these is half of what Airflow reads as an object of its own.
        {"__type": "Order:#shop", "id": 7},
        {"__version__": 1, "__data__": 2, "__var": 3},
        json.loads("[" * DEEPEST + "]" * DEEPEST),
    ],
    ids=str,
)
def test_plain_json_values_can_be_stored(value):
    assert why_unstorable(value) is None


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ([{"__id__": "a1"}], "__id__"),
        ({"rows": [{"__classname__": "builtins.tuple"}]}, "__classname__"),
        ({"__type": "dict", "__var": {"a": 1}}, "__type"),
        ({"a": {"__type": "airflow.sdk.Asset", "__var": {}, "b": 1}}, "__type"),
    ],
)
def test_a_key_that_airflow_reserves_cannot_be_stored(value, key):
    assert why_unstorable(value) == f"it has the key {key}, which Airflow reserves"


@pytest.mark.parametrize("value", [[{"__id__": "a1"}], {"__classname__": "builtins.tuple"}])
def test_airflow_refuses_these_keys_when_an_xcom_is_pushed(value):
    with pytest.raises(AttributeError, match="reserved key"):
        bases_xcom.BaseXCom.serialize_value(value)


def test_a_web_page_does_not_choose_which_class_is_imported_to_find_out(monkeypatch):
    serde = xcom_serde()
    monkeypatch.setattr(serde, "import_string", lambda name: pytest.fail(f"{name} was imported"))
    assert why_unstorable({"rows": [{"__type": "airflow.sdk.Asset", "__var": {"name": "a"}}]})


def test_what_airflow_does_not_take_is_refused_without_quoting_it(monkeypatch):
    value = json.loads("[" * 400 + '"secret"' + "]" * 400)
    with pytest.raises(ValueError, match="recursion"):
        SetXCom(key="a", value=value, dag_id="", run_id="", task_id="")
    assert why_unstorable(value) == "Airflow refuses it with ValidationError"


def test_what_airflow_would_read_back_as_another_value_cannot_be_stored(monkeypatch):
    monkeypatch.setattr(xcom_serde(), "deserialize", lambda value: {"something": "else"})
    assert why_unstorable({"a": 1}) == "Airflow reads it back as another value"


def test_a_release_of_airflow_that_the_provider_does_not_know_costs_no_result(monkeypatch):
    monkeypatch.setattr(xcoms, "xcom_serde", lambda: SimpleNamespace())
    assert why_unstorable([1]) == "Airflow refuses it with AttributeError"


def test_no_xcom_backend_takes_part(monkeypatch):
    class Backend(bases_xcom.BaseXCom):
        @staticmethod
        def serialize_value(*_, **__):
            pytest.fail("the backend was asked to store a value")

    monkeypatch.setattr(xcom, "XCom", Backend)
    assert why_unstorable([{"a": 1}]) is None


def test_only_xcoms_that_exist_are_deleted_since_a_backend_may_fail_to_purge_others(monkeypatch):
    stored = {"a": 1, "b": 2, "c": 3}
    of = {"dag_id": "shop", "task_id": "run", "run_id": "manual__1", "map_index": -1}

    class Backend:
        @staticmethod
        def _get_xcom_db_ref(*, key, **names):
            assert names == of
            return SimpleNamespace(value=stored.get(key))

        @staticmethod
        def delete(*, key, **names):
            assert names == of
            del stored[key]

    monkeypatch.setattr(xcom, "XCom", Backend)
    delete_xcoms(SimpleNamespace(**of), ["a", "missing", "c"])
    assert stored == {"b": 2}
