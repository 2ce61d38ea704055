"""The DAG whose tasks live through everything that a round of faults does to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_browseract.emulator import SEARCH
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

POLL_INTERVALS = {"deferred": 15, "in_the_worker": 3}
KINDS = (*POLL_INTERVALS, "loop_with_callback", "loop_polled", "loop_in_the_worker")

with DAG("faults", schedule=None, max_active_tasks=500, params={"loop": "", "cap": 60, **{kind: [] for kind in KINDS}}):

    @task(retries=20, retry_delay=timedelta(seconds=2))
    def wanted(kind: str, params: Any = None) -> list[dict[str, Any]]:
        """Return the inputs of each run."""
        return [{"keyword": keyword} for keyword in params[kind]]

    for kind in KINDS:
        loops = kind not in POLL_INTERVALS
        RunWorkflowOperator.partial(
            task_id=kind,
            workflow_id="{{ params.loop }}" if loops else SEARCH.id,
            deferrable=not kind.endswith("in_the_worker"),
            webhook=False if kind == "loop_polled" else None,
            poll_interval=POLL_INTERVALS.get(kind),
            max_credits="{{ params.cap }}" if loops else None,
            timeout=timedelta(minutes=30),
            retries=50,
            retry_delay=timedelta(seconds=3),
        ).expand(input_parameters=wanted.override(task_id=f"wanted_{kind}")(kind))
