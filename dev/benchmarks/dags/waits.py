"""The DAG of the task instances whose rows the benchmarks insert. It is not run."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

with DAG("waits", schedule=None):
    RunWorkflowOperator(task_id="callback", workflow_id="7", deferrable=True)
