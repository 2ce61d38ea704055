"""Start a run in one task, wait for it in another one, and stop it afterwards if it is still running.

Replace before you use it:

- `ORDERS_WORKFLOW`: the id of your workflow, as the BrowserAct dashboard shows it. This id belongs to the emulator.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator, StopTaskOperator
from airflow_provider_browseract.sensors.browseract import TaskSensor

ORDERS_WORKFLOW = "71002814653029423"

with DAG(
    "example_browseract_elsewhere", schedule=None, default_args={"retries": 2}, tags=["browseract"], doc_md=__doc__
):
    start = RunWorkflowOperator(task_id="start", workflow_id=ORDERS_WORKFLOW, wait_for_completion=False)

    orders = TaskSensor(
        task_id="orders", browseract_task_id=start.output, deferrable=True, poke_interval=5, timeout=3600
    )

    # A teardown runs whatever happens to the tasks before it, and does not decide whether the DAG run has failed.
    # Stopping a run that has already ended is not an error.
    stop = StopTaskOperator(task_id="stop", browseract_task_id=start.output)
    orders >> stop.as_teardown(setups=start)
