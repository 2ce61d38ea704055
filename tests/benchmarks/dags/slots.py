"""More runs than the plan allows at once."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_browseract.emulator import SEARCH
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator
from tests.benchmarks.slots import RUNS

INPUTS = [{"keyword": str(number)} for number in range(RUNS)]

with DAG("slots", schedule=None, max_active_tasks=500):
    RunWorkflowOperator.partial(task_id="run", workflow_id=SEARCH.id, deferrable=True).expand(input_parameters=INPUTS)

with DAG("slots_in_a_pool", schedule=None, max_active_tasks=500):
    RunWorkflowOperator.partial(task_id="run", workflow_id=SEARCH.id, deferrable=True, pool="browseract").expand(
        input_parameters=INPUTS
    )
