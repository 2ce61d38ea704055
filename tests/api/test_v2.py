from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import TaskStatus

CALLS: dict[str, Callable[[], Call[Any]]] = {
    "run-task": partial(
        v2.run,
        "70",
        {"a": "1"},
        save_browser_data=True,
        profile_id="5",
        callback_url="https://example.com/a",
        status_change_callback_url="https://example.com/b",
    ),
    "run-task-by-template": partial(v2.run_template, "80", {"a": "1"}, region="US"),
    "get-task-status": partial(v2.get_task_status, "7"),
    "get-task": partial(v2.get_task, "7"),
    "list-tasks": partial(
        v2.list_tasks,
        source_id="70",
        name="shop",
        status=TaskStatus.FAILED,
        created_at_from=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        created_at_to=datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
    ),
    "stop-task": partial(v2.stop_task, "7", biz_code=1),
    "resume-task": partial(v2.resume_task, "7"),
    "list-workflows": v2.list_sources,
    "get-workflow": partial(v2.get_source, "70"),
    "list-official-workflow-templates": partial(v2.list_templates, keyword="maps"),
    "get-official-workflow-template": partial(v2.get_template, "80"),
    "get-region-list": v2.list_regions,
}
EVERY_CALL = {name: make() for name, make in CALLS.items()}


def test_optional_fields_not_given_are_not_sent_with_a_start():
    assert v2.run("70").body == {"workflow_id": "70", "input_parameters": [], "save_browser_data": False}


def test_times_are_sent_in_utc_and_refused_without_a_time_zone():
    params = EVERY_CALL["list-tasks"].params
    assert (params["created_at_from"], params["created_at_to"]) == ("2026-01-02T03:04:05Z", "2026-01-02T01:04:05Z")
    with pytest.raises(ValueError, match="Pass a datetime with a time zone"):
        v2.list_tasks(created_at_from=datetime(2026, 1, 1))
