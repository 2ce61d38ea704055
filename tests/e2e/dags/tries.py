"""A task for each thing that can end a try: marks, clears, a failed run, a lost worker, a mark while Airflow hangs."""

from __future__ import annotations

import time
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from airflow.sdk import DAG, Context

from airflow_provider_browseract.compat import TaskDeferred, task_instance_state
from airflow_provider_browseract.emulator import EXPORT, SEARCH
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

ARGUMENTS = {"browseract_conn_id": "tries", "retries": 1, "retry_delay": timedelta(seconds=1), "poll_interval": 2}


class MarkedAtItsDeferral(RunWorkflowOperator):
    """Defers only once somebody has marked the task as failed."""

    def execute(self, context: Context) -> Any:
        try:
            return super().execute(context)
        except TaskDeferred:
            # The test first looks at all other tasks, which takes minutes on a busy machine.
            limit = time.monotonic() + 1200
            while task_instance_state(context["ti"]) == "running" and time.monotonic() < limit:
                time.sleep(0.1)
            raise


with DAG("tries", schedule=None, default_args=ARGUMENTS):
    tasks = {
        name: RunWorkflowOperator(
            task_id=name,
            workflow_id=SEARCH.id,
            input_parameters={"keyword": name},
            deferrable=name.endswith("deferred"),
        )
        for name in ("marked_deferred", "cleared_deferred", "marked", "cleared", "lost", "marked_while_airflow_hangs")
    }
    if find_spec("airflow.sdk.listener"):  # from Airflow 3.2 on
        name = "marked_at_its_deferral"
        MarkedAtItsDeferral(task_id=name, workflow_id=SEARCH.id, input_parameters={"keyword": name}, deferrable=True)
    RunWorkflowOperator(task_id="failing_run", workflow_id=EXPORT.id, input_parameters={"keyword": "pens"})
