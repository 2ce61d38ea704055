"""Inputs of bots in operators: wrong ones cost nothing and are shown nowhere, right ones arrive as meant."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest

from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import AGENT_HUMAN, CONTACTS
from airflow_provider_browseract.operators.browseract import RunBotOperator
from tests.catalogue import PRICES
from tests.runs.inputs import SCHEMAS, accepted_inputs, refused_inputs, rendered_inputs
from tests.workers import calls_of

BOTS = dict(zip(SCHEMAS, (CONTACTS.id, PRICES.id, AGENT_HUMAN.id), strict=True))
"""The bot for each schema."""


@pytest.fixture
def emulator(browseract_emulator):
    emulator = browseract_emulator
    emulator.concurrency = 1000
    for name, bot_id in BOTS.items():
        # The emulator does not know `nullable`, which is no word of JSON Schema.
        schema = json.loads(json.dumps(SCHEMAS[name]).replace('"nullable": true', '"type": ["string", "null"]'))
        emulator.set_workflow(bot_id, input_schema=schema, duration=60.0)
    return emulator


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


def test_100_wrong_inputs_are_refused_without_a_start_and_without_their_values(worker, emulator, caplog, capfd):
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


def test_100_right_inputs_are_sent_unchanged(worker, emulator):
    for name, value in accepted_inputs(100):
        run, operator = prepared(worker, name, value)
        operator.execute(run.context)
        assert sent(emulator) == [BOTS[name], value]


def test_50_rendered_inputs_are_sent_with_the_right_types(worker, emulator):
    for case in rendered_inputs(50):
        run, operator = prepared(worker, case.schema, case.templates, case.params)
        operator.execute(run.context)
        assert sent(emulator) == [BOTS[case.schema], case.params], case.id
