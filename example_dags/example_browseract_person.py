"""Let a person help a run that cannot go on alone, from Airflow's Required Actions."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunWorkflowOperator

# The id of a workflow in the emulator. Put your own here: one with a human-interaction node.
HUMAN_WORKFLOW = "71002814653029467"


def tell(context: dict[str, Any]) -> None:
    """Stand for a notifier, such as that of Slack or of a mail server."""
    live_view = context["browseract_task"]["links"]["live"]
    logging.getLogger(__name__).warning("Help at %s and answer at %s", live_view, context["required_action_url"])


with DAG("example_browseract_person", schedule=None, default_args={"retries": 2}, tags=["browseract"]):
    RunWorkflowOperator(
        task_id="solve",
        workflow_id=HUMAN_WORKFLOW,
        on_paused="ask",
        on_paused_timeout=timedelta(hours=1),
        on_paused_callback=tell,
        deferrable=True,
    )
