"""A lost start of a bot, or of a template as a bot, with each behaviour that BrowserAct may have."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import CONTACTS, TEMPLATE_SEARCH, RequestFault
from airflow_provider_browseract.operators.browseract import RunBotOperator, RunBotTemplateOperator, RunTemplateOperator
from tests.cases import cases
from tests.catalogue import PRICES
from tests.demos import convert_input, hide_input, show_defaults
from tests.workers import calls_of
from tests.world import browseract_emulator, emulator, worker, world

__all__ = ["browseract_emulator", "emulator", "worker", "world"]

BOT: Any = {
    "operator_class": RunBotOperator,
    "bot_id": PRICES.id,
    "input": {
        "products": ["laptops", "phones"],
        "country": "DE",
        "max_offers": 2,
        "in_stock": True,
        "price": {"min": 0.5, "max": 1000},
        "coupon": None,
    },
}
TEXTS = {
    **BOT["input"],
    "products": '["laptops", "phones"]',
    "max_offers": "2",
    "in_stock": "True",
    "price": '{"min": 0.5}',
}
"""What templates of Airflow render to."""

CONTACT: Any = {"operator_class": RunBotOperator, "bot_id": CONTACTS.id, "input": {"company_name": "Example Corp"}}
PENS = {"keyword": "pens"}
TEMPLATE: Any = {"operator_class": RunBotTemplateOperator, "template_id": TEMPLATE_SEARCH.id, "input": PENS}
WORKFLOW_TEMPLATE: Any = {
    "operator_class": RunTemplateOperator,
    "workflow_template_id": TEMPLATE_SEARCH.id,
    "input_parameters": PENS,
}
STARTS = ("create-run", "create-template-run", "run-task-by-template")


def behaves(**settings):
    return lambda emulator: emulator.__dict__.update(settings)


nothing, as_in_the_demos, share_runs = behaves(), behaves(as_in_the_demos=True), behaves(shared_runs=True)


def convert_and_show_defaults(emulator):
    convert_input(emulator, PRICES)
    show_defaults(emulator)


@cases(
    ("arguments", "behave"),
    {
        "defaults are shown": (CONTACT, show_defaults),
        "defaults are shown of values that were sent": (BOT, show_defaults),
        "texts that the operator converts": ({**BOT, "input": TEXTS}, nothing),
        "texts that BrowserAct converts": (
            {**BOT, "input": {**TEXTS, "in_stock": "true"}, "validate_inputs": False},
            convert_and_show_defaults,
        ),
        "number that the operator converts": ({**CONTACT, "input": {"company_name": 12}}, nothing),
        "lists are shared with version 2": (BOT, share_runs),
    },
)
@pytest.mark.parametrize("listed_after", [0.0, 5.0], ids=["", "late list"])
def test_run_of_a_bot_is_adopted(worker, emulator, arguments, behave, listed_after):
    behave(emulator)
    emulator.set_workflow(arguments["bot_id"], listed_after=listed_after)
    emulator.fault("create-run", RequestFault.lost_response(), times=1)
    attempt = worker(**arguments)
    attempt.run()
    [task] = emulator.tasks
    assert attempt.ti.xcoms["task_id"] == task.id
    assert calls_of(emulator, "create-run") == 1


@cases(
    ("arguments", "behave"),
    {
        "bot whose input is hidden": (BOT, hide_input),
        "template": (TEMPLATE, nothing),
        "template whose defaults are shown": (TEMPLATE, show_defaults),
        "template whose input is hidden": (TEMPLATE, hide_input),
        "template, odd responses": (TEMPLATE, as_in_the_demos),
        "template of a workflow": (WORKFLOW_TEMPLATE, nothing),
    },
)
def test_run_that_is_not_certain_is_named_and_not_paid_twice(worker, emulator, store, arguments, behave):
    behave(emulator)
    for endpoint in STARTS:
        emulator.fault(endpoint, RequestFault.lost_response(), times=1)
    with pytest.raises(AirflowFailException, match="may have created one of these BrowserAct tasks: ") as failed:
        worker(**arguments, store=store).run()
    [task] = emulator.tasks
    assert f"BrowserAct tasks: {task.id} (running, created at " in str(failed.value)
    # A person who clears the task has looked, and wants a new run.
    cleared = worker(**arguments, store=store)
    cleared.ti.max_tries = 1
    cleared.run()
    assert [each.id for each in emulator.tasks] == [task.id, cleared.ti.xcoms["task_id"]]
