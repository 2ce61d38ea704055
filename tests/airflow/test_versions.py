"""What differs between the versions of Airflow: each function of ``compat`` does on this one what it promises."""

from __future__ import annotations

import pytest
from airflow.sdk.log import mask_secret

from airflow_provider_browseract import compat
from airflow_provider_browseract.emulator import ORDERS
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator


def test_durable_is_the_default_from_airflow_3_3_on():
    assert RunWorkflowOperator(task_id="run", workflow_id=ORDERS.id).durable is compat.AIRFLOW_V_3_3_PLUS


def test_triggers_are_notified_of_kills_from_airflow_3_3_on():
    from airflow.triggers.base import BaseTrigger

    assert hasattr(BaseTrigger, "on_kill") is compat.AIRFLOW_V_3_3_PLUS


def test_metrics_of_tasks_are_those_of_the_worker(monkeypatch):
    try:
        from airflow.sdk.observability import stats
    except ImportError:  # before Airflow 3.2
        from airflow import stats  # type: ignore[no-redef,attr-defined,unused-ignore]
    counted = []
    monkeypatch.setattr(stats.Stats, "incr", lambda *what, **how: counted.append((what, how)))
    compat.count_in_task("browseract.credits", by=7)
    assert counted == [(("browseract.credits", 7), {"tags": None})]


@pytest.mark.parametrize(("name", "secret"), [("password", True), ("keyword", False)])
def test_names_of_secrets_are_those_of_airflow(name, secret):
    assert compat.is_secret(name) is secret


def test_secrets_that_airflow_masks_are_redacted():
    mask_secret("hunter2-of-the-versions")
    assert compat.redact("the key hunter2-of-the-versions, and more") == "the key ***, and more"


def test_xcom_is_read_written_and_serialized_with_functions_that_this_airflow_has():
    assert {"get_one", "set"} <= set(dir(compat.xcom()))
    assert compat.sent_xcom({"a": [1]}) == {"a": [1]}
    serde = compat.xcom_serde()
    assert serde.deserialize(serde.serialize({"a": [1]})) == {"a": [1]}


def test_required_actions_have_the_functions_that_are_called():
    assert {
        "upsert_hitl_detail",
        "get_hitl_detail_content_detail",
        "update_hitl_detail_response",
    } <= set(dir(compat.required_actions()))


def test_function_gets_the_values_of_the_context_that_it_names():
    assert compat.call_with_context(lambda a, ti: (a, ti), (1,), {"ti": 2, "run_id": "x"}) == (1, 2)


def test_code_outside_of_tasks_is_neither_a_task_nor_a_test_of_a_dag():
    assert not compat.in_task()
    assert not compat.in_dag_test()
    assert not compat.is_unmapped(RunWorkflowOperator(task_id="run", workflow_id=ORDERS.id))
    assert compat.set_during_execution() is not None
