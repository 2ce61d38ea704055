"""A chain of profiles, and a run that a task waits for in its pod."""

from datetime import timedelta

from airflow.sdk import DAG

from airflow_provider_browseract.emulator import LOG_IN, ORDERS, SEARCH
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

with DAG("pods", schedule=None, default_args={"retries": 2, "retry_delay": timedelta(seconds=1)}):
    log_in = RunWorkflowOperator(
        task_id="log_in",
        workflow_id=LOG_IN.id,
        input_parameters={"username": "grace", "password": "only for the emulator"},
        save_browser_data=True,
        deferrable=True,
    )
    log_in >> RunWorkflowOperator(
        task_id="orders",
        workflow_id=ORDERS.id,
        profile_id="{{ ti.xcom_pull(task_ids='log_in', key='profile_id') }}",
        deferrable=True,
    )
    RunWorkflowOperator(
        task_id="in_the_pod", workflow_id=SEARCH.id, input_parameters={"keyword": "pens"}, poll_interval=3
    )
