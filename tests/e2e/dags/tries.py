"""A task for each thing that can end a try: marks, clears, a failed run, a lost worker, a mark while Airflow hangs."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_browseract.emulator import EXPORT, SEARCH
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

ARGUMENTS = {"browseract_conn_id": "tries", "retries": 1, "retry_delay": timedelta(seconds=1), "poll_interval": 2}

with DAG("tries", schedule=None, default_args=ARGUMENTS):
    tasks = {
        name: RunWorkflowOperator(
            task_id=name,
            workflow_id=SEARCH.id,
            input_parameters={"keyword": name},
            deferrable=name.endswith("deferred"),
        )
        for name in ("marked_deferred", "cleared_deferred", "marked", "cleared", "lost", "marked_while_airflow_hangs")
    }
    RunWorkflowOperator(task_id="failing_run", workflow_id=EXPORT.id, input_parameters={"keyword": "pens"})
