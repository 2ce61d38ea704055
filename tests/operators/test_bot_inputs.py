"""Inputs of bots in ``dag.test()``: wrong ones cost nothing and are shown nowhere, right ones arrive as meant."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_browseract.compat import AIRFLOW_V_3_3_PLUS
from airflow_provider_browseract.emulator import AGENT_HUMAN, CONTACTS, PRICES
from tests.conftest import DagResult
from tests.runs.inputs import SCHEMAS, accepted_inputs, refused_inputs, rendered_inputs
from tests.workers import calls_of

pytestmark = pytest.mark.usefixtures("airflow_database", "short_timings")

BOTS = dict(zip(SCHEMAS, (CONTACTS.id, PRICES.id, AGENT_HUMAN.id), strict=True))
"""The bot for each schema."""

SHARE = 1 if AIRFLOW_V_3_3_PLUS else 10
"""Before Airflow 3.3, ``dag.test()`` takes seconds for each task, so only one of so many inputs is tried."""

START = """
from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunBotOperator

with DAG({dag_id!r}, schedule=None):
"""
MAPPED = """
    RunBotOperator.partial(task_id="run", wait_for_completion=False).expand_kwargs({given!r})
"""
RENDERED = """
    RunBotOperator(
        task_id={task_id!r}, wait_for_completion=False, bot_id={bot_id!r}, input={templates!r}, params={params!r}
    )
"""


@pytest.fixture
def emulator(browseract_emulator):
    emulator = browseract_emulator.emulator
    emulator.concurrency = 1000
    for name, bot_id in BOTS.items():
        # The emulator does not know `nullable`, which is no word of JSON Schema.
        schema = json.loads(json.dumps(SCHEMAS[name]).replace('"nullable": true', '"type": ["string", "null"]'))
        emulator.set_workflow(bot_id, input_schema=schema, duration=60.0)
    return emulator


@pytest.fixture
def tried(parse, add_dag_bundle, tmp_path, request) -> Callable[[str], DagResult]:
    """Run a DAG with ``dag.test()``, given the code of its tasks."""
    add_dag_bundle(tmp_path)
    # Airflow 3.1 keeps the tasks of a DAG in the process.
    dag_id = request.function.__name__

    def run(tasks: str) -> DagResult:
        file = tmp_path / "inputs.py"
        file.write_text(START.format(dag_id=dag_id) + tasks)
        return DagResult(parse(file)[dag_id].test())

    return run


def xcoms_of(result: DagResult) -> str:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        query = XComModel.get_many(run_id=result.dag_run.run_id, dag_ids=result.dag_run.dag_id)
        return json.dumps([(row.key, row.value) for row in session.scalars(query)])


def sent(emulator) -> list[Any]:
    """Return what the runs were started with, in a stable order."""
    return sorted(json.dumps([task.workflow_id, dict(task.inputs)], sort_keys=True) for task in emulator.tasks)


def wanted(given: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    return sorted(json.dumps([BOTS[name], value], sort_keys=True) for name, value in given)


def test_100_wrong_inputs_are_refused_without_a_start_and_without_their_values(tried, emulator, caplog, capfd):
    refused = refused_inputs(100 // SHARE)
    given = [{"bot_id": BOTS[case.schema], "input": case.input} for case in refused]
    result = tried(MAPPED.format(given=given))
    states = [result.task("run", index).state for index in range(len(refused))]
    assert states == ["failed"] * len(refused)
    assert calls_of(emulator, "create-run") == 0
    assert emulator.tasks == []
    logged = caplog.text + "".join(capfd.readouterr())
    shown = logged + xcoms_of(result)
    for case in refused:
        assert case.place in logged, case.id
        assert not [mark for mark in case.marks if mark in shown], case.id


def test_100_right_inputs_are_sent_unchanged(tried, emulator):
    accepted = accepted_inputs(100 // SHARE)
    given = [{"bot_id": BOTS[name], "input": value} for name, value in accepted]
    assert tried(MAPPED.format(given=given)).state == "success"
    assert sent(emulator) == wanted(accepted)


def test_50_rendered_inputs_are_sent_with_the_right_types(tried, emulator):
    rendered = rendered_inputs(50 // SHARE)
    tasks = [
        RENDERED.format(task_id=case.id, bot_id=BOTS[case.schema], templates=case.templates, params=case.params)
        for case in rendered
    ]
    assert tried("".join(tasks)).state == "success"
    assert sent(emulator) == wanted([(case.schema, case.params) for case in rendered])


@pytest.mark.usefixtures("documented_responses")
def test_each_mapped_input_gets_a_run_and_a_result_of_its_own(tried, emulator):
    emulator.set_workflow(CONTACTS.id, duration=0.2)
    companies = [{"company_name": name} for name in ("Ada", "Grace", "Hedy")]
    arguments = {"task_id": "run", "bot_id": CONTACTS.id, "poll_interval": 0.1}
    result = tried(f"    RunBotOperator.partial(**{arguments}).expand(input={companies})")
    assert result.state == "success"
    assert [result.xcom("run", map_index=index)["company_name"] for index in range(3)] == ["Ada", "Grace", "Hedy"]
    assert result.xcom("run", "profile_id", map_index=0) is None
