"""Runs of a workflow and of a bot."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_browseract.emulator import CONTACTS, SEARCH
from airflow_provider_browseract.operators.browseract import RunBotOperator, RunWorkflowOperator
from dev.benchmarks.versions import RUNS

COMPANIES = [{"company_name": str(number), "max_pages": "2"} for number in range(RUNS)]

with DAG("run_workflow", schedule=None):
    RunWorkflowOperator.partial(task_id="run", workflow_id=SEARCH.id, deferrable=True).expand(
        input_parameters=[{"keyword": str(number)} for number in range(RUNS)]
    )

with DAG("run_bot", schedule=None):
    RunBotOperator.partial(task_id="run", bot_id=CONTACTS.id, deferrable=True).expand(input=COMPANIES)
