"""DAGs for the end-to-end tests that are no examples to follow."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_browseract.emulator import FAILING, ORDERS
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

with DAG("blocked", schedule=None):
    RunWorkflowOperator(task_id="blocked", workflow_id=FAILING.id, deferrable=True)

with DAG("mistaken", schedule=None):
    RunWorkflowOperator(task_id="mistaken", workflow_id="404", retries=3, retry_delay=timedelta(seconds=1))

with DAG("in_the_worker", schedule=None):
    RunWorkflowOperator(task_id="orders", workflow_id=ORDERS.id, poll_interval=2, deferrable=False)
