"""The DAG whose tasks live through everything that a round of faults does to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_browseract.emulator import SEARCH
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

with DAG("faults", schedule=None, max_active_tasks=500, params={"deferred": [], "in_the_worker": []}):

    @task(retries=20, retry_delay=timedelta(seconds=2))
    def wanted(kind: str, params: Any = None) -> list[dict[str, Any]]:
        """Return the inputs of each run."""
        return [{"keyword": keyword} for keyword in params[kind]]

    for kind in ("deferred", "in_the_worker"):
        RunWorkflowOperator.partial(
            task_id=kind,
            workflow_id=SEARCH.id,
            deferrable=kind == "deferred",
            poll_interval=15 if kind == "deferred" else 3,
            timeout=timedelta(minutes=30),
            retries=50,
            retry_delay=timedelta(seconds=3),
        ).expand(input_parameters=wanted.override(task_id=f"wanted_{kind}")(kind))
