"""Run a workflow, and use its output in another task.

Replace before you use it:

- `SEARCH_WORKFLOW`: the id of your workflow, as the BrowserAct dashboard shows it. This id belongs to the emulator.
- `input_parameters`: the inputs of your workflow.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

SEARCH_WORKFLOW = "71002814653029437"

with DAG(
    "example_browseract_search",
    schedule=None,
    params={"keyword": "laptops"},
    # On Airflow 3.3 a later try reattaches to the run of an earlier one.
    default_args={"retries": 2},
    tags=["browseract"],
    doc_md=__doc__,
):
    search = RunWorkflowOperator(
        task_id="search",
        workflow_id=SEARCH_WORKFLOW,
        input_parameters={"keyword": "{{ params.keyword }}", "max_items": 3},
        deferrable=True,
    )

    @task
    def cheapest(rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Pick the row with the lowest price."""
        return min(rows, key=lambda row: row["price"])

    cheapest(search.output)
