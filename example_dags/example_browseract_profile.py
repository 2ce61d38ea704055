"""Log in once, then let two more runs start with the same browser profile."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

# The ids of two workflows in the emulator. Put your own here, as the BrowserAct dashboard shows them.
LOG_IN_WORKFLOW = "71002814653029411"
ORDERS_WORKFLOW = "71002814653029423"

with DAG(
    "example_browseract_profile",
    schedule=None,
    params={"username": "ada"},
    default_args={"retries": 2},
    tags=["browseract"],
):
    log_in = RunWorkflowOperator(
        task_id="log_in",
        workflow_id=LOG_IN_WORKFLOW,
        # In your own DAG the password comes from a connection: "{{ conn.shop.password }}".
        input_parameters={"username": "{{ params.username }}", "password": "only for the emulator"},
        save_browser_data=True,
        deferrable=True,
    )
    orders = RunWorkflowOperator(
        task_id="orders",
        workflow_id=ORDERS_WORKFLOW,
        profile_id=log_in.output["profile_id"],
        deferrable=True,
    )
    orders_again = RunWorkflowOperator(
        task_id="orders_again",
        workflow_id=ORDERS_WORKFLOW,
        profile_id="{{ ti.xcom_pull(task_ids='log_in', key='profile_id') }}",
        deferrable=True,
    )
    orders >> orders_again
