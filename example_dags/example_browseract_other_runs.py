"""Use runs that something else has started, such as a schedule of BrowserAct or an application.

The first DAG gets the id of a run when it is triggered, and waits for the end of that run. If the run fails, so does
the DAG run. The second DAG starts by itself when runs of a workflow finish.

Replace before you use it:

- `ORDERS_WORKFLOW`: the id of your workflow, as the BrowserAct dashboard shows it. This id belongs to the emulator.
  Do not run this workflow in the second DAG itself: the DAG would start itself again and again.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, Param, task

from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.sensors.browseract import TaskSensor
from airflow_provider_browseract.triggers.browseract import TaskFinishedTrigger

ORDERS_WORKFLOW = "71002814653029423"

with DAG(
    "example_browseract_other_runs",
    schedule=None,
    params={"browseract_task_id": Param(type="string", minLength=1, title="Id of the BrowserAct task")},
    default_args={"retries": 2},
    tags=["browseract"],
    doc_md=__doc__,
):
    orders = TaskSensor(
        task_id="orders",
        browseract_task_id="{{ params.browseract_task_id }}",
        deferrable=True,
        poke_interval=10,
        timeout=3600,
    )

    @task
    def use(output: Any) -> Any:
        """Use the output of the run here."""
        return output

    use(orders.output)

finished_orders = Asset(
    "browseract_orders",
    watchers=[
        AssetWatcher(
            name="finished",
            trigger=TaskFinishedTrigger(workflow_id=ORDERS_WORKFLOW, status="finished", poll_interval=15),
        )
    ],
)

with DAG(
    "example_browseract_outside",
    schedule=[finished_orders],
    default_args={"retries": 2},
    tags=["browseract"],
    doc_md=__doc__,
):

    @task
    def read(triggering_asset_events: Any = None) -> dict[str, Any]:
        """Read the output of each run that finished; an event can report several."""
        hook = BrowserActHook()
        ended = [each for event in triggering_asset_events[finished_orders] for each in event.extra["payload"]["tasks"]]
        tasks = [hook.get_task(each["task_id"]) for each in ended]
        return {each.id: each.output.string if each.output else None for each in tasks}

    read()
