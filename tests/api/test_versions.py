from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_browseract.api.errors import TaskEndedError, TaskNotFoundError
from airflow_provider_browseract.api.exchange import Call, Response
from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.api.versions import APIS, SOURCES, SourceKind, naming_other_version


def test_every_version_and_every_kind_of_source_has_its_calls():
    assert set(APIS) == set(ApiVersion)
    assert set(SOURCES) == set(SourceKind)
    assert {each.api_version for each in SOURCES.values()} <= set(ApiVersion)


@pytest.mark.parametrize("kind", SourceKind)
def test_every_kind_of_source_can_be_listed(kind):
    call: Call[Any] = SOURCES[kind].list(limit=5)
    assert call.params == {"page": 1, "limit": 5}
    item = dict.fromkeys(("id", "bot_id", "template_id"), "7")
    assert [each.id for each in call.read({"items": [item]}).items] == ["7"]


def test_list_of_tasks_names_the_source_as_its_version_does_and_reads_summaries():
    for api_version, source, task_id in ((ApiVersion.V2, "workflow_id", "id"), (ApiVersion.V3, "bot_id", "task_id")):
        call = APIS[api_version].list_tasks(source_id="70", status=TaskStatus.RUNNING, limit=5)
        assert call.params == {source: "70", "status": "running", "page": 1, "limit": 5}
        listed = {"items": [{task_id: "7", "status": "new", "output": {"files": "unreadable"}}]}
        assert call.read(listed).items == (Task("7", TaskStatus.UNKNOWN, api_version=api_version),)


@pytest.mark.parametrize(("api_version", "largest"), [(ApiVersion.V2, 500), (ApiVersion.V3, 100)])
def test_list_of_tasks_asks_for_no_larger_page_than_the_version_has(api_version, largest):
    assert [APIS[api_version].list_tasks(limit=limit).params["limit"] for limit in (50, 2000)] == [50, largest]
    assert APIS[api_version].list_tasks().params["limit"] == largest


@pytest.mark.parametrize(
    ("api_version", "remedy"),
    [
        (ApiVersion.V2, "If it is the run of a bot, set api_version='v3'."),
        (ApiVersion.V3, "If it is the run of a workflow, set api_version='v2'."),
    ],
)
def test_remedy_of_an_unknown_task_names_the_other_version(api_version, remedy):
    call = naming_other_version(APIS[api_version].stop_task("7"), api_version, "7")
    with pytest.raises(TaskNotFoundError, match=remedy) as not_found:
        call.read_response(Response(400, {}, json.dumps({"code": 10112, "msg": "No task"}).encode()))
    assert "Check task_id '7'. It must be the id of a BrowserAct task, not Airflow's task_id" in str(not_found.value)
    with pytest.raises(TaskEndedError) as ended:
        call.read_response(Response(400, {}, json.dumps({"code": 10121, "msg": "Has ended"}).encode()))
    assert "api_version" not in str(ended.value)


@pytest.mark.parametrize("api_version", ApiVersion)
def test_every_version_lists_the_regions_of_its_templates(api_version):
    call = APIS[api_version].list_regions()
    assert call.read([{"code": "DE", "name": "Germany"}])[0].code == "DE"
