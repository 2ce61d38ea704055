"""Start a run in one task, wait for it in another, and stop it if it is still running after that."""

from __future__ import annotations

from airflow.sdk import DAG, TriggerRule

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator, StopTaskOperator
from airflow_provider_browseract.sensors.browseract import TaskSensor

# The id of a workflow in the emulator. Put your own here, as the BrowserAct dashboard shows it.
ORDERS_WORKFLOW = "71002814653029423"

with DAG("example_browseract_elsewhere", schedule=None, default_args={"retries": 2}, tags=["browseract"]):
    begin = RunWorkflowOperator(task_id="begin", workflow_id=ORDERS_WORKFLOW, wait_for_completion=False)

    # On Airflow 3.3 and later no worker is used for this.
    orders = TaskSensor(
        task_id="orders", browseract_task_id=begin.output, deferrable=True, poke_interval=5, timeout=3600
    )

    # Stopping a run that has ended is no error.
    stop = StopTaskOperator(task_id="stop", browseract_task_id=begin.output, trigger_rule=TriggerRule.ALL_DONE)
    orders >> stop
