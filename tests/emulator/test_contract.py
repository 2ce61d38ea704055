"""The emulator against the vendor's own OpenAPI document of API v2.

The document is not part of this project; ``BROWSERACT_OPENAPI`` names a copy of it.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_browseract.emulator import (
    EXPORT,
    HUMAN,
    LOG_IN,
    SEARCH,
    TEMPLATE_SEARCH,
    Emulator,
)
from tests.catalogue import DOWNLOAD, FAILING, PLAIN_TEXT
from tests.emulator.documents import MANY, load, succeed, validate

schema, open_schema = load("BROWSERACT_OPENAPI", "openapi_v2.json")


@open_schema.parametrize()  # type: ignore[untyped-decorator]
@MANY
def test_responses_to_random_requests_conform_to_the_vendors_document(case: Any, running: Emulator) -> None:
    validate(running, case)


class TestSuccess:
    """Responses that random requests hardly ever get: those about things that exist."""

    def succeed(self, running: Emulator, method: str, endpoint: str, **parts: Any) -> Any:
        return succeed(running, schema[f"/v2/workflow/{endpoint}"][method].Case(**parts))

    def start(self, running: Emulator, workflow: Any, inputs: Any = (), **fields: Any) -> str:
        items = [{"name": name, "value": value} for name, value in dict(inputs).items()]
        body = {"workflow_id": workflow.id, "input_parameters": items, **fields}
        response = self.succeed(running, "POST", "run-task", body=body, media_type="application/json")
        return str(response.json()["id"])

    def test_responses_about_tasks_in_every_status_conform_to_the_vendors_document(self, running: Emulator) -> None:
        emulator = running
        emulator.set_workflow(HUMAN.id, pause_limit=None)
        emulator.next_run(PLAIN_TEXT.id, queued=1e9)
        emulator.next_run(PLAIN_TEXT.id, duration=1e9)
        ids = {
            "created": self.start(running, PLAIN_TEXT),
            "running": self.start(running, PLAIN_TEXT),
            "paused": self.start(running, HUMAN),
            "finished": self.start(running, SEARCH, {"keyword": "paper"}),
            "failed": self.start(running, FAILING),
        }
        exported = self.start(running, EXPORT, {"keyword": "paper"}, save_browser_data=True)
        downloaded = self.start(running, DOWNLOAD, {"keyword": "paper"})
        stopped = self.start(running, HUMAN)

        def reached() -> bool:
            states = {task.id: task.status for task in emulator.tasks}
            return states[exported] == states[downloaded] == "finished" and all(
                states[ids[status]] == status for status in ids
            )

        emulator.wait_until(reached)
        self.succeed(running, "PUT", "stop-task", query={"task_id": stopped, "biz_code": 7})
        for status, task_id in {**ids, "canceled": stopped}.items():
            response = self.succeed(running, "GET", "get-task-status", query={"task_id": task_id})
            assert response.json() == {"status": status}
            self.succeed(running, "GET", "get-task", query={"task_id": task_id})
            page = self.succeed(running, "GET", "list-tasks", query={"status": status, "limit": 500})
            assert page.json()["items"]
        task = self.succeed(running, "GET", "get-task", query={"task_id": exported}).json()
        assert task["output"]["files"]
        task = self.succeed(running, "GET", "get-task", query={"task_id": downloaded}).json()
        assert task["download_files"]
        self.succeed(running, "PUT", "resume-task", query={"task_id": ids["paused"]})

    def test_responses_of_all_other_endpoints_conform_to_the_vendors_document(self, running: Emulator) -> None:
        self.start(running, LOG_IN, {"username": "ada", "password": "secret"}, save_browser_data=True)
        body = {
            "workflow_template_id": TEMPLATE_SEARCH.id,
            "proxyRegion": "DE",
            "input_parameters": [{"name": "keyword", "value": "paper"}],
        }
        self.succeed(running, "POST", "run-task-by-template", body=body, media_type="application/json")
        for workflow_id in running.of_kind("workflow"):
            self.succeed(running, "GET", "get-workflow", query={"workflow_id": workflow_id})
        for template_id in running.of_kind("template"):
            query = {"workflow_template_id": template_id}
            self.succeed(running, "GET", "get-official-workflow-template", query=query)
        for endpoint in ("list-workflows", "list-official-workflow-templates"):
            assert self.succeed(running, "GET", endpoint, query={"limit": 500}).json()["items"]
        self.succeed(running, "GET", "get-region-list")
