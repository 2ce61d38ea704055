from __future__ import annotations

import json
from typing import Any

from airflow_provider_browseract.emulator import CONTACTS, SEARCH, TEMPLATE_SEARCH
from airflow_provider_browseract.operators.browseract import (
    RunBotOperator,
    RunBotTemplateOperator,
    RunTemplateOperator,
    RunWorkflowOperator,
)
from tests.cases import cases
from tests.workers import BOTH_WAYS, PENS

COMPANY = {"company_name": "Example Corp", "max_pages": 2}
TEXTS = {"keyword": "pens", "max_items": "2"}
WORKFLOW: Any = {"operator_class": RunWorkflowOperator, "workflow_id": SEARCH.id, "input_parameters": PENS}
TEMPLATE: Any = {
    "operator_class": RunTemplateOperator,
    "workflow_template_id": TEMPLATE_SEARCH.id,
    "input_parameters": PENS,
    "region": "DE",
}
BOT: Any = {"operator_class": RunBotOperator, "bot_id": CONTACTS.id, "input": COMPANY}
BOT_TEMPLATE: Any = {
    "operator_class": RunBotTemplateOperator,
    "template_id": TEMPLATE_SEARCH.id,
    "input": TEXTS,
    "region": "DE",
}


@BOTH_WAYS
@cases(
    {
        "workflow": (WORKFLOW, ("v2", "workflow", None), TEXTS),
        "template": (TEMPLATE, ("v2", "template", "DE"), TEXTS),
        "bot": (BOT, ("v3", "bot", None), COMPANY),
        "template as a bot": (BOT_TEMPLATE, ("v3", "template", "DE"), TEXTS),
    },
)
def test_run_gets_its_inputs_and_its_output_is_returned(worker, world, emulator, deferrable, given, started, inputs):
    world.connect(extra={"webhook_base_url": "https://airflow.example"})
    run = worker(**given, deferrable=deferrable)
    result = run.run()
    assert len(result["pages"] if given is BOT else result) == 2
    [task] = emulator.tasks
    assert (task.api_version, task.workflow.kind, task.proxy_region) == started
    assert dict(task.inputs) == inputs
    assert run.ti.xcoms["task_id"] == task.id
    assert ("profile_id" in run.ti.xcoms) is (given is WORKFLOW)
    assert not any(text in json.dumps(run.ti.xcoms["task"]) for text in ("Example Corp", "pens"))
    assert len(run.deferrals) == deferrable
    assert (task.callback_url is not None) is deferrable


@cases("given", {"template": TEMPLATE, "template as a bot": BOT_TEMPLATE})
def test_later_try_reattaches_to_the_run_of_the_same_input(worker, emulator, store, given):
    for _ in range(2):
        assert worker(**given, store=store, wait_for_completion=False).run() == emulator.tasks[0].id
    assert len(emulator.tasks) == 1


@cases(
    {
        "workflow": (WORKFLOW, ["get-workflow", "run-task", "get-task"]),
        "bot": (BOT, ["query-bot", "create-run", "query-run"]),
    },
)
def test_run_that_ends_at_once_needs_three_requests_and_is_not_deferred(worker, emulator, given, calls):
    emulator.set_workflow(SEARCH.id, duration=0.0)
    emulator.set_workflow(CONTACTS.id, duration=0.0)
    run = worker(**given, deferrable=True)
    assert len(run.run()) >= 2
    assert run.deferrals == []
    assert [request.endpoint for request in emulator.requests] == calls
