from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.api.versions import APIS, SOURCES, SourceKind


def test_every_version_and_every_kind_of_source_has_its_calls():
    assert set(APIS) == set(ApiVersion)
    assert set(SOURCES) == set(SourceKind)
    assert {each.api_version for each in SOURCES.values()} <= set(ApiVersion)


@pytest.mark.parametrize("kind", SourceKind)
def test_every_kind_of_source_can_be_listed(kind):
    call: Call[Any] = SOURCES[kind].list(limit=5)
    assert call.params == {"page": 1, "limit": 5}
    assert [each.id for each in call.read({"items": [{"id": "7"}]}).items] == ["7"]


def test_list_of_tasks_names_the_source_as_its_version_does_and_reads_summaries():
    call = APIS[ApiVersion.V2].list_tasks(source_id="70", status=TaskStatus.RUNNING, limit=5)
    assert call.params == {"workflow_id": "70", "status": "running", "page": 1, "limit": 5}
    listed = {"items": [{"id": "7", "status": "new", "output": {"files": "unreadable"}}]}
    assert call.read(listed).items == (Task("7", TaskStatus.UNKNOWN),)
