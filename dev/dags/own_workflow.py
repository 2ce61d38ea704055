"""One run of the workflow that the environment names, for ``make demo`` against the real service."""

from __future__ import annotations

import json
import os

from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

with DAG("own_workflow", schedule=None):
    RunWorkflowOperator(
        task_id="run",
        workflow_id=os.environ["WORKFLOW_ID"],
        input_parameters=json.loads(os.environ.get("INPUT_PARAMETERS", "{}")),
        deferrable=True,
    )
