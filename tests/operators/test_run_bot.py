"""What differs between workflows, bots and official templates: the start, the checked input and the checked output."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest

from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import AGENT_HUMAN, CONTACTS, SEARCH, TEMPLATE_SEARCH, RequestFault
from airflow_provider_browseract.operators.browseract import (
    RunBotOperator,
    RunBotTemplateOperator,
    RunTemplateOperator,
    RunWorkflowOperator,
)
from tests.cases import cases
from tests.catalogue import PRICES
from tests.runs.inputs import SCHEMAS, accepted_inputs, refused_inputs, rendered_inputs
from tests.workers import BOTH_WAYS, PENS, calls_of

# In the vendor's example, the output is null beside its files.
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
LIST = {**BOT, "bot_id": PRICES.id, "input": {"products": ["pens"], "country": "DE"}}
"""A bot whose output is a list."""
BOT_TEMPLATE: Any = {
    "operator_class": RunBotTemplateOperator,
    "template_id": TEMPLATE_SEARCH.id,
    "input": TEXTS,
    "region": "DE",
}
SECRET = "hunter2ofthistest"


@BOTH_WAYS
@cases(
    ("given", "started", "inputs"),
    {
        "workflow": (WORKFLOW, ("v2", "workflow", None), TEXTS),
        "template": (TEMPLATE, ("v2", "template", "DE"), TEXTS),
        "bot": (BOT, ("v3", "bot", None), COMPANY),
        "template as a bot": (BOT_TEMPLATE, ("v3", "template", "DE"), TEXTS),
    },
)
def test_run_gets_its_inputs_and_its_output_is_returned(worker, world, emulator, given, started, inputs, deferrable):
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


@cases(
    "given",
    {
        "workflow": WORKFLOW,
        "template": TEMPLATE,
        "bot": BOT,
        "bot, converted input": {**BOT, "input": {**COMPANY, "max_pages": "2"}},
        "template as a bot": BOT_TEMPLATE,
    },
)
def test_later_try_reattaches_to_the_run_of_the_same_input(worker, emulator, store, given):
    for _ in range(2):
        assert worker(**given, store=store, wait_for_completion=False).run() == emulator.tasks[0].id
    assert len(emulator.tasks) == 1


@cases(
    ("given", "calls"),
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


def test_bot_without_an_input_gets_an_empty_object(worker, emulator):
    emulator.set_workflow(CONTACTS.id, input_schema={"type": "object"}, output=[])
    assert worker(operator_class=RunBotOperator, bot_id=CONTACTS.id).run() == []
    assert dict(emulator.tasks[0].inputs) == {}


def test_bot_without_a_language_model_fails_without_a_retry_and_names_the_remedy(worker, emulator):
    emulator.fault("create-run", RequestFault.refused(10021))
    with pytest.raises(AirflowFailException, match="choose its language model"):
        worker(**BOT).run()


class TestTemplate:
    def test_unreadable_regions_log_a_warning_and_the_run_still_finishes(self, worker, emulator, logs):
        emulator.fault("get-region-list", RequestFault.status(500), times=None)
        assert len(worker(**TEMPLATE).run()) == 2
        assert "The region was not checked" in logs()
        with pytest.raises(AirflowFailException, match=r"'Keyword' \(did you mean 'keyword'\?\)"):
            worker(**{**TEMPLATE, "input_parameters": {"Keyword": "pens"}}).run()

    def test_lost_template_start_fails_and_names_a_similar_run_of_a_workflow(self, worker, emulator):
        # A run that was not started by us, of a workflow with the same inputs.
        worker(**WORKFLOW, wait_for_completion=False).run()
        emulator.fault("run-task-by-template", RequestFault.reset(), times=1)
        with pytest.raises(AirflowFailException, match=f"may have created one of these.*{emulator.tasks[0].id}"):
            worker(**TEMPLATE).run()
        assert len(emulator.tasks) == 1


BOTS = dict(zip(SCHEMAS, (CONTACTS.id, PRICES.id, AGENT_HUMAN.id), strict=True))
"""The bot for each schema."""


@pytest.fixture
def bots(emulator):
    """Let the bots have schemas with everything that inputs can have."""
    emulator.concurrency = 1000
    for name, bot_id in BOTS.items():
        # The emulator does not know `nullable`, which is no word of JSON Schema.
        schema = json.loads(json.dumps(SCHEMAS[name]).replace('"nullable": true', '"type": ["string", "null"]'))
        emulator.set_workflow(bot_id, input_schema=schema, duration=3600.0)


def prepared(worker, schema: str, value: Any, params: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """Return a worker and the operator in it, whose input is rendered, for the bot with a schema."""
    run = worker(operator_class=RunBotOperator, bot_id=BOTS[schema], input=value, wait_for_completion=False)
    operator = run.operator()
    operator.render_template_fields({**run.context, "params": params or {}})
    return run, operator


def sent(emulator) -> list[Any]:
    """Return what the last run was started with."""
    task = emulator.tasks[-1]
    return [task.workflow_id, dict(task.inputs)]


def test_100_wrong_inputs_are_refused_without_a_start_and_without_their_values(worker, emulator, bots, caplog, capfd):
    for case in refused_inputs(100):
        run, operator = prepared(worker, case.schema, case.input)
        with pytest.raises(AirflowFailException) as failed:
            operator.execute(run.context)
        assert case.place in str(failed.value), case.id
        shown_error = "".join(traceback.format_exception(failed.value))
        shown = f"{shown_error} {caplog.text} {''.join(capfd.readouterr())} {run.ti.xcoms}"
        assert not [mark for mark in case.marks if mark in shown], case.id
    assert calls_of(emulator, "create-run") == 0
    assert emulator.tasks == []


def test_100_right_inputs_are_sent_unchanged(worker, emulator, bots):
    for name, value in accepted_inputs(100):
        run, operator = prepared(worker, name, value)
        operator.execute(run.context)
        assert sent(emulator) == [BOTS[name], value]


def test_50_rendered_inputs_are_sent_with_the_right_types(worker, emulator, bots):
    for case in rendered_inputs(50):
        run, operator = prepared(worker, case.schema, case.templates, case.params)
        operator.execute(run.context)
        assert sent(emulator) == [BOTS[case.schema], case.params], case.id
