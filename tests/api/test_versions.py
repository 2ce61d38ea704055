import pytest

from airflow_provider_browseract.api.models import ApiVersion, TaskStatus
from airflow_provider_browseract.api.versions import APIS
from tests.helpers.steps import read


@pytest.mark.parametrize(
    ("api_version", "source", "task_id", "largest"),
    [(ApiVersion.V2, "workflow_id", "id", 500), (ApiVersion.V3, "bot_id", "task_id", 100)],
)
def test_each_version_lists_by_its_own_names_in_the_largest_pages_and_reads_summaries(
    api_version, source, task_id, largest
):
    api = APIS[api_version]
    call = api.list_tasks(source_id="70", status=TaskStatus.RUNNING, limit=50)
    assert call.params == {source: "70", "status": "running", "page": 1, "limit": 50}
    assert [each.params["limit"] for each in (api.list_tasks(), api.list_tasks(limit=2000))] == [largest] * 2
    listed = {"items": [{task_id: "7", "status": "new", "output": {"files": "unreadable"}}]}
    assert [(each.id, each.status, each.api_version) for each in read(call, listed).items] == [
        ("7", "unknown", api_version)
    ]
    # Without a limit, a page has only one item.
    assert [each.params["limit"] for each in (api.list_sources(), api.list_templates())] == [largest, 500]
    assert read(api.list_regions(), [{"code": "DE", "name": "Germany"}])[0].code == "DE"
