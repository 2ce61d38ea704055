from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import TaskStatus

EVERY_CALL: dict[str, Call[Any]] = {
    "run-task": v2.run_task(
        "70",
        {"a": "1"},
        save_browser_data=True,
        profile_id="5",
        callback_url="https://example.com/a",
        status_change_callback_url="https://example.com/b",
    ),
    "run-task-by-template": v2.run_task_by_template("80", {"a": "1"}, region="US"),
    "get-task-status": v2.get_task_status("7"),
    "get-task": v2.get_task("7"),
    "list-tasks": v2.list_tasks(
        workflow_id="70",
        workflow_name="shop",
        status=TaskStatus.FAILED,
        created_at_from=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        created_at_to=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
    ),
    "stop-task": v2.stop_task("7", biz_code=1),
    "resume-task": v2.resume_task("7"),
    "list-workflows": v2.list_workflows(),
    "get-workflow": v2.get_workflow("70"),
    "list-official-workflow-templates": v2.list_official_workflow_templates(keyword="maps"),
    "get-official-workflow-template": v2.get_official_workflow_template("80"),
    "get-region-list": v2.get_region_list(),
}


@pytest.mark.parametrize(("name", "call"), EVERY_CALL.items(), ids=EVERY_CALL)
def test_each_call_has_the_path_and_name_of_its_endpoint(name, call):
    assert call.path == f"/v2/workflow/{name}"
    assert call.name == name


def test_only_run_task_and_run_task_by_template_start_a_run():
    assert {name for name, call in EVERY_CALL.items() if call.starts_run} == {"run-task", "run-task-by-template"}


def test_optional_fields_not_given_are_not_sent_with_a_start():
    assert v2.run_task("70").body == {"workflow_id": "70", "input_parameters": [], "save_browser_data": False}


def test_inputs_of_a_start_that_are_no_dict_are_refused():
    with pytest.raises(InputError, match="should be a dict of names and texts, but are list"):
        v2.run_task("70", [{"name": "a", "value": "1"}])  # type: ignore[arg-type]


def test_list_calls_always_send_an_explicit_limit():
    lists = ("list-tasks", "list-workflows", "list-official-workflow-templates")
    assert {EVERY_CALL[name].params["limit"] for name in lists} == {500}


def test_times_are_sent_in_utc_and_refused_without_a_time_zone():
    params = EVERY_CALL["list-tasks"].params
    assert (params["created_at_from"], params["created_at_to"]) == ("2026-01-02T03:04:05Z", "2026-01-02T01:04:05Z")
    with pytest.raises(ValueError, match="has no time zone"):
        v2.list_tasks(created_at_from=datetime(2026, 1, 1))


def test_input_values_are_not_in_the_repr_of_a_call():
    assert "hunter2" not in repr(v2.run_task("70", {"password": "hunter2"}))
