"""DAGs for the end-to-end tests that are no examples to follow."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_browseract.emulator import ORDERS, SEARCH
from airflow_provider_browseract.operators.browseract import RunTemplateOperator, RunWorkflowOperator
from airflow_provider_browseract.sensors.browseract import TaskSensor

# Of tests/helpers/catalogue.py, which Airflow cannot import.
DOWNLOAD = "71002814653029491"
FAILING = "71002814653029473"
PLAIN_TEXT = "71002814653029451"
TEMPLATE_TEXT = "52000417936205157"

ACCOUNT: dict[str, Any] = {"browseract_conn_id": "examples"}
RETRIES: dict[str, Any] = {**ACCOUNT, "retries": 3, "retry_delay": timedelta(seconds=1)}

with DAG("blocked", schedule=None, default_args={**RETRIES, "retries": 1}):
    RunWorkflowOperator(task_id="blocked", workflow_id=FAILING, deferrable=True)

with DAG("queue", schedule=None, default_args=RETRIES):
    RunWorkflowOperator.partial(task_id="read", workflow_id=DOWNLOAD, deferrable=True).expand(
        input_parameters=[{"keyword": "pens"}, {"keyword": "ink"}, {"keyword": "paper"}]
    )

# The next two run what no other DAG runs, so that their runs can have another length.
with DAG("long", schedule=None, default_args=RETRIES):
    RunWorkflowOperator(task_id="read", workflow_id=PLAIN_TEXT, deferrable=True)

with DAG("limits", schedule=None, default_args=ACCOUNT):
    RunTemplateOperator(
        task_id="overdue", workflow_template_id=TEMPLATE_TEXT, timeout=20, poll_interval=5, deferrable=True
    )

with DAG("elsewhere", schedule=None, default_args=ACCOUNT):
    begun = RunWorkflowOperator(task_id="begin", workflow_id=ORDERS.id, wait_for_completion=False)
    failing = RunWorkflowOperator(task_id="begin_failing", workflow_id=FAILING, wait_for_completion=False)
    shared: dict[str, Any] = {"poke_interval": 2, **RETRIES}
    TaskSensor(task_id="rescheduled", browseract_task_id=begun.output, mode="reschedule", **shared)
    TaskSensor(task_id="failed", browseract_task_id=failing.output, deferrable=True, **shared)

with DAG("callbacks", schedule=None, max_active_tasks=200, params={"runs": [{}]}):

    @task
    def wanted(params: Any = None) -> list[dict[str, Any]]:
        """Return the arguments of each run."""
        return list(params["runs"])

    RunWorkflowOperator.partial(
        task_id="search",
        workflow_id=SEARCH.id,
        browseract_conn_id="callbacks",
        deferrable=True,
        webhook=True,
        retries=2,
        retry_delay=timedelta(seconds=1),
    ).expand_kwargs(wanted())
