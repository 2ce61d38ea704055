"""More runs than the plan allows at once."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_provider_browseract.emulator import CONTACTS, SEARCH
from airflow_provider_browseract.operators.browseract import RunBotOperator, RunWorkflowOperator

RUNS = {"slots": 40, "slots_in_a_pool": 40, "slots_of_both_versions": 40, "one_slot": 20}


def search(runs: int, **arguments: Any) -> None:
    """Add a task with many runs to the current DAG."""
    RunWorkflowOperator.partial(task_id="run", workflow_id=SEARCH.id, deferrable=True, **arguments).expand(
        input_parameters=[{"keyword": str(number)} for number in range(runs)]
    )


for dag_id, runs in RUNS.items():
    with DAG(dag_id, schedule=None, max_active_tasks=500) as dag:
        search(runs, **({"pool": "browseract"} if dag_id == "slots_in_a_pool" else {}))
        if dag_id == "slots_of_both_versions":
            RunBotOperator.partial(task_id="run_bot", bot_id=CONTACTS.id, deferrable=True).expand(
                input=[{"company_name": str(number)} for number in range(runs)]
            )
    globals()[dag_id] = dag
