"""DAGs whose tasks are woken by callbacks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_browseract.emulator import SEARCH
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

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
