from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import ApiVersion, TaskStatus
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.emulator.account import ENDPOINTS
from tests.steps import read

from . import test_v2, test_v3

CALLS: dict[str, Callable[[], Call[Any]]] = {**test_v2.CALLS, **test_v3.CALLS}
LARGEST = {
    **dict.fromkeys(("list-tasks", "list-workflows", "list-official-workflow-templates"), 500),
    **{"page-runs": 100, "page-bots": 100, "page-templates": 500},
}
STARTS = ("run-task", "run-task-by-template", "create-run", "create-template-run")


@pytest.mark.parametrize("name", CALLS)
def test_each_call_has_the_name_method_and_path_of_its_endpoint_and_the_largest_limit(name):
    call, endpoint = CALLS[name](), ENDPOINTS[name]
    path = endpoint.path.format(bot_id="70", template_id="60", task_id="7")
    assert (call.name, call.method, call.path) == (name, endpoint.method, path)
    assert name not in test_v2.CALLS or call.path == f"/v2/workflow/{name}"
    assert call.starts_run is (name in STARTS)
    # Without a limit, a page has only one item.
    assert call.params.get("limit") == LARGEST.get(name)


@pytest.mark.parametrize(
    ("api_version", "source", "task_id", "largest"),
    [(ApiVersion.V2, "workflow_id", "id", 500), (ApiVersion.V3, "bot_id", "task_id", 100)],
)
def test_each_version_lists_tasks_by_its_name_of_the_source_and_reads_summaries(api_version, source, task_id, largest):
    api = APIS[api_version]
    call = api.list_tasks(source_id="70", status=TaskStatus.RUNNING, limit=50)
    assert call.params == {source: "70", "status": "running", "page": 1, "limit": 50}
    assert [each.params["limit"] for each in (api.list_tasks(), api.list_tasks(limit=2000))] == [largest] * 2
    listed = {"items": [{task_id: "7", "status": "new", "output": {"files": "unreadable"}}]}
    assert [(each.id, each.status, each.api_version) for each in read(call, listed).items] == [
        ("7", "unknown", api_version)
    ]
    assert read(api.list_regions(), [{"code": "DE", "name": "Germany"}])[0].code == "DE"
