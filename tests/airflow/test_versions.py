"""What differs between the versions of Airflow: each function of ``compat`` does on this one what it promises."""

from importlib import import_module
from importlib.util import find_spec

import pytest
from airflow.sdk.execution_time.context import set_current_context
from airflow.sdk.log import mask_secret
from airflow.triggers.base import BaseTrigger

from airflow_provider_browseract import compat
from airflow_provider_browseract.emulator import ORDERS
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator


def test_airflow_3_3_brings_durable_runs_and_tells_triggers_of_kills():
    assert RunWorkflowOperator(task_id="run", workflow_id=ORDERS.id).durable is compat.AIRFLOW_V_3_3_PLUS
    assert hasattr(BaseTrigger, "on_kill") is compat.AIRFLOW_V_3_3_PLUS


def test_metrics_are_counted_and_their_errors_are_ignored(monkeypatch):
    try:
        stats = import_module("airflow.sdk.observability.stats").Stats
    except ImportError:  # before Airflow 3.2
        stats = import_module("airflow.stats").Stats
    counted = []
    monkeypatch.setattr(stats, "incr", lambda *what, **how: counted.append((what, how)))
    compat.count_in_task("credits", by=7)
    monkeypatch.setattr(stats, "incr", lambda *_, **__: 1 / 0)
    compat.count_in_task("credits", by=7)
    assert counted == [(("credits", 7), {"tags": None})]


def test_secrets_are_those_of_airflow():
    assert compat.is_secret("password")
    assert not compat.is_secret("keyword")
    mask_secret("swordfish-of-the-versions")
    assert compat.redact("the key swordfish-of-the-versions, and more") == "the key ***, and more"


def test_this_airflow_has_the_functions_that_are_called():
    assert {"get_value"} <= set(dir(compat.xcom()))
    called = {"upsert_hitl_detail", "get_hitl_detail_content_detail", "update_hitl_detail_response"}
    assert called <= set(dir(compat.required_actions()))


def test_function_gets_the_values_of_the_context_that_it_names():
    assert compat.call_with_context(lambda a, ti: (a, ti), (1,), {"ti": 2, "run_id": "x"}) == (1, 2)


def test_code_outside_of_tasks_is_neither_a_task_nor_a_test_of_a_dag():
    assert not compat.in_task()
    assert not compat.in_dag_test()
    assert not compat.is_unmapped(RunWorkflowOperator(task_id="run", workflow_id=ORDERS.id))
    assert compat.set_during_execution() is not None


@pytest.mark.skipif(not find_spec("airflow.sdk.listener"), reason="before Airflow 3.2 there is no such moment")
def test_end_of_a_task_calls_a_function_once_and_only_in_the_process_of_a_task():
    from airflow.sdk.listener import get_listener_manager

    calls = []
    compat.at_end_of_task(lambda: calls.append("without a task"))
    with set_current_context({}):
        compat.at_end_of_task(lambda: calls.append("in a task"))
    for _ in range(2):
        get_listener_manager().hook.before_stopping(component=object())
    assert calls == ["in a task"]
