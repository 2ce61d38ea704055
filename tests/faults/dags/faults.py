"""The DAG whose tasks live through everything that a round of faults does to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_browseract.emulator import CONTACTS, SEARCH, TEMPLATE_SEARCH
from airflow_provider_browseract.operators.browseract import RunBotOperator, RunBotTemplateOperator, RunWorkflowOperator

KINDS = ("deferred", "in_the_worker", "bot_deferred", "bot_in_the_worker", "template")
LOOPS = ("loop_with_callback", "loop_polled", "loop_in_the_worker", "loop_of_a_bot")
CAP = 100
"""Credits after which an endless run is stopped."""

PARAMS: dict[str, Any] = {"loop": "", **{kind: [] for kind in (*KINDS, *LOOPS)}}

with DAG("faults", schedule=None, max_active_tasks=500, params=PARAMS):

    @task(retries=20, retry_delay=timedelta(seconds=2))
    def wanted(kind: str, params: Any = None) -> list[dict[str, Any]]:
        """Return the inputs of each run."""
        if kind.startswith("bot"):
            # The bot's schema asks for an integer.
            return [{"company_name": keyword, "max_pages": "2"} for keyword in params[kind]]
        return [{"keyword": keyword} for keyword in params[kind]]

    for kind in (*KINDS, *LOOPS):
        loops = kind in LOOPS
        in_the_worker = kind.endswith("in_the_worker")
        arguments: dict[str, Any] = {
            "task_id": kind,
            "deferrable": not in_the_worker,
            "webhook": False if kind == "loop_polled" else None,
            "poll_interval": None if loops else 3 if in_the_worker else 15,
            "max_credits": CAP if loops else None,
            "timeout": timedelta(minutes=30),
            "retries": 50,
            "retry_delay": timedelta(seconds=3),
        }
        inputs = wanted.override(task_id=f"wanted_{kind}")(kind)
        if kind == "template":
            RunBotTemplateOperator.partial(template_id=TEMPLATE_SEARCH.id, **arguments).expand(input=inputs)
        elif "bot" in kind:
            RunBotOperator.partial(bot_id="{{ params.loop }}" if loops else CONTACTS.id, **arguments).expand(
                input=inputs
            )
        else:
            RunWorkflowOperator.partial(workflow_id="{{ params.loop }}" if loops else SEARCH.id, **arguments).expand(
                input_parameters=inputs
            )
