"""Log in once, and start two more runs with the same browser profile.

Replace before you use it:

- `LOG_IN_WORKFLOW`: the id of your workflow that logs in. This id belongs to the emulator.
- `ORDERS_WORKFLOW`: the id of your workflow that needs the login. This id belongs to the emulator.
- `password`: read it from a connection: `"{{ conn.shop.password }}"`.
"""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

LOG_IN_WORKFLOW = "71002814653029411"
ORDERS_WORKFLOW = "71002814653029423"

with DAG(
    "example_browseract_profile",
    schedule=None,
    params={"username": "ada"},
    default_args={"retries": 2},
    tags=["browseract"],
    doc_md=__doc__,
):
    log_in = RunWorkflowOperator(
        task_id="log_in",
        workflow_id=LOG_IN_WORKFLOW,
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
