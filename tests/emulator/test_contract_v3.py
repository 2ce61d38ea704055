"""The emulator against the vendor's own OpenAPI document of API v3.

The document is not part of this project; ``BROWSERACT_OPENAPI_V3`` names a copy of it.
"""

from __future__ import annotations

from typing import Any

import hypothesis

from airflow_provider_browseract.emulator import (
    AGENT_HUMAN,
    CONTACTS,
    EXPORT,
    HUMAN,
    SEARCH,
    TEMPLATE_SEARCH,
    Emulator,
)
from tests.catalogue import DOWNLOAD, FAILING, PLAIN_TEXT, PRICES
from tests.emulator.documents import MANY, load, succeed, validate

schema, open_schema = load("BROWSERACT_OPENAPI_V3", "openapi_v3.json")


@open_schema.parametrize()  # type: ignore[untyped-decorator]
@MANY
def test_responses_to_random_requests_conform_to_the_vendors_document(case: Any, running: Emulator) -> None:
    # At these addresses, the document has other endpoints.
    hypothesis.assume((case.path_parameters or {}).get("bot_id") not in ("runs", "templates", "regions"))
    validate(running, case)


class TestSuccess:
    """Responses that random requests hardly ever get: those about things that exist."""

    def get(self, running: Emulator, path: str, ids: Any = None, **query: Any) -> Any:
        case = schema[f"/v3/bots{path}"]["GET"].Case(path_parameters=ids or {}, query=query)
        return succeed(running, case).json()

    def post(self, running: Emulator, path: str, ids: dict[str, str], **parts: Any) -> Any:
        return succeed(running, schema[f"/v3/bots{path}"]["POST"].Case(path_parameters=ids, **parts)).json()

    def start(self, running: Emulator, bot: Any, inputs: Any = None) -> str:
        parts = {"body": {"input": inputs or {}}, "media_type": "application/json"}
        return str(self.post(running, "/{bot_id}/runs", {"bot_id": bot.id}, **parts)["task_id"])

    def test_responses_about_runs_in_every_status_conform_to_the_vendors_document(self, running: Emulator) -> None:
        emulator = running
        emulator.next_run(PLAIN_TEXT.id, queued=1e9)
        emulator.next_run(PLAIN_TEXT.id, duration=1e9)
        for bot in (HUMAN, AGENT_HUMAN):
            emulator.set_workflow(bot.id, pause_limit=None)
        emulator.next_run(AGENT_HUMAN.id, status="pausing")
        ids = {
            "created": self.start(running, PLAIN_TEXT),
            "running": self.start(running, PLAIN_TEXT),
            "pausing": self.start(running, AGENT_HUMAN),
            "paused": self.start(running, HUMAN),
            "finished": self.start(running, CONTACTS, {"company_name": "Example Corp", "max_pages": 2}),
            "failed": self.start(running, FAILING),
        }
        stopped = self.start(running, AGENT_HUMAN)
        others = [
            self.start(running, SEARCH, {"keyword": "paper"}),
            self.start(running, EXPORT, {"keyword": "paper"}),
            self.start(running, DOWNLOAD, {"keyword": "paper"}),
            self.start(running, PRICES, {"products": ["paper"], "country": "DE", "coupon": None}),
        ]

        def reached() -> bool:
            states = {task.id: task.status for task in emulator.tasks}
            states[ids["pausing"]] = "pausing"
            return {states[other] for other in others} == {"finished"} and all(
                states[ids[status]] == status for status in ids
            )

        emulator.wait_until(reached)
        canceled = self.post(running, "/runs/{task_id}/cancel", {"task_id": stopped}, query={"biz_code": 7})
        assert canceled["status"] == "canceled"
        for status, task_id in {**ids, "canceled": stopped}.items():
            about = {"task_id": task_id}
            assert self.get(running, "/runs/{task_id}/status", about)["status"] == status
            assert self.get(running, "/runs/{task_id}", about)["status"] == status
            assert self.get(running, "/runs", status=status, limit=100)["items"]
        for task_id in others:
            run = self.get(running, "/runs/{task_id}", {"task_id": task_id})
            assert run.keys() & {"output", "output_files", "download_files"}
        resumed = self.post(running, "/runs/{task_id}/resume", {"task_id": ids["paused"]})
        assert resumed["status"] == "paused"

    def test_responses_of_all_other_endpoints_conform_to_the_vendors_document(self, running: Emulator) -> None:
        body = {"input": {"keyword": "paper"}, "proxy_region": "DE"}
        ids = {"template_id": TEMPLATE_SEARCH.id}
        parts = {"body": body, "media_type": "application/json"}
        task_id = self.post(running, "/templates/{template_id}/runs", ids, **parts)["task_id"]
        assert "bot_id" not in self.get(running, "/runs/{task_id}", {"task_id": task_id})
        for bot_id in running.of_kind("workflow", "bot"):
            assert self.get(running, "/{bot_id}", {"bot_id": bot_id})["bot_id"] == bot_id
        for template_id in running.of_kind("template"):
            self.get(running, "/templates/{template_id}", {"template_id": template_id})
        assert self.get(running, "", limit=100, bot_type="agent")["items"]
        assert self.get(running, "/templates", limit=500)["items"]
        assert self.get(running, "/regions")
