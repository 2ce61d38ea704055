"""Start a DAG when runs finish, even runs that Airflow did not start, such as those of a BrowserAct schedule.

Replace before you use it:

- `ORDERS_WORKFLOW`: the id of your workflow, as the BrowserAct dashboard shows it. This id belongs to the emulator.
  Do not run this workflow in the DAG itself: the DAG would start itself again and again.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.triggers.browseract import TaskFinishedTrigger

ORDERS_WORKFLOW = "71002814653029423"

orders = Asset(
    "browseract_orders",
    watchers=[
        AssetWatcher(
            name="finished",
            trigger=TaskFinishedTrigger(workflow_id=ORDERS_WORKFLOW, status="finished", poll_interval=15),
        )
    ],
)

with DAG(
    "example_browseract_outside", schedule=[orders], default_args={"retries": 2}, tags=["browseract"], doc_md=__doc__
):

    @task
    def read(triggering_asset_events: Any = None) -> dict[str, Any]:
        """Read the output of each run that finished; an event can report several."""
        hook = BrowserActHook()
        ended = [each for event in triggering_asset_events[orders] for each in event.extra["payload"]["tasks"]]
        tasks = [hook.get_task(each["task_id"]) for each in ended]
        return {each.id: each.output.string if each.output else None for each in tasks}

    read()
