"""Ask a person in Airflow when a run pauses, for example at a captcha.

Replace before you use it:

- `HUMAN_WORKFLOW`: the id of your workflow, which has a human-interaction node. This id belongs to the emulator.
- `notify`: a notifier, such as that of Slack or of a mail server.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import AskPerson, RunWorkflowOperator

HUMAN_WORKFLOW = "71002814653029467"


def notify(context: dict[str, Any]) -> None:
    """Log where to help the run, and where to answer."""
    live_view = context["browseract_task"]["links"]["live"]
    logging.getLogger(__name__).warning("Help at %s and answer at %s", live_view, context["required_action_url"])


with DAG("example_browseract_person", schedule=None, default_args={"retries": 2}, tags=["browseract"], doc_md=__doc__):
    RunWorkflowOperator(
        task_id="solve",
        workflow_id=HUMAN_WORKFLOW,
        on_paused=AskPerson(timeout=timedelta(hours=1)),
        on_paused_callback=notify,
        deferrable=True,
    )
