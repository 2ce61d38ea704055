"""DAGs whose runs the panel shows: one of each kind, and some that wait for a slot."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, task

from airflow_provider_browseract.emulator import ENDLESS, HUMAN, SEARCH
from airflow_provider_browseract.operators.browseract import AskPerson, RunWorkflowOperator

# Of tests/helpers/catalogue.py, which Airflow cannot import.
FAILING = "71002814653029473"

with DAG("shop", schedule=None, tags=["browseract"]):
    RunWorkflowOperator(task_id="follow", workflow_id=ENDLESS.id, deferrable=True)
    RunWorkflowOperator(
        task_id="answer", workflow_id=HUMAN.id, on_paused=AskPerson(timeout=timedelta(hours=1)), deferrable=True
    )
    RunWorkflowOperator(task_id="blocked", workflow_id=FAILING, poll_interval=2)
    search = RunWorkflowOperator(
        task_id="search", workflow_id=SEARCH.id, input_parameters={"keyword": "hunter2"}, poll_interval=2
    )

    @task
    def other() -> None:
        """Do something that has nothing to do with BrowserAct."""

    search >> other()

with DAG("prices", schedule=None, tags=["browseract"]):
    RunWorkflowOperator.partial(task_id="search", workflow_id=SEARCH.id, deferrable=True).expand(
        input_parameters=[{"keyword": "pens"}, {"keyword": "ink"}, {"keyword": "paper"}]
    )
