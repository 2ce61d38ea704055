"""Let BrowserAct call Airflow when the run ends, and limit what the run may cost.

The task needs the public address of the Airflow API server. Add it to the extra of the connection `browseract_default`:

    {"webhook_base_url": "https://airflow.example.com"}

Without it, the task fails before it starts a run.

Replace before you use it:

- `SEARCH_WORKFLOW`: the id of your workflow, as the BrowserAct dashboard shows it. This id belongs to the emulator.
- `max_credits`: what the task may cost. A run that uses more is stopped, and the task fails without a retry.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

SEARCH_WORKFLOW = "71002814653029437"

with DAG(
    "example_browseract_callback",
    schedule=None,
    params={"keyword": "laptops"},
    default_args={"retries": 2},
    tags=["browseract"],
    doc_md=__doc__,
):
    RunWorkflowOperator(
        task_id="search",
        workflow_id=SEARCH_WORKFLOW,
        input_parameters={"keyword": "{{ params.keyword }}", "max_items": 3},
        webhook=True,
        max_credits=100,
        deferrable=True,
    )
