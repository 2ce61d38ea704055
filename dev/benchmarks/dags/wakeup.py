"""The same runs in two ways."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_browseract.emulator import SEARCH
from dev.benchmarks.wakeup import FIRST_END, RUNS, SPACING
from dev.benchmarks.waking import Timed, WaitsForThatMoment

# The ways take turns, so what disturbs one disturbs both.
MOMENTS = [FIRST_END + SPACING * number + SPACING / 2 for number in range(RUNS)]

with DAG("wakeup", schedule=None, max_active_tasks=200):
    Timed.partial(task_id="callback", workflow_id=SEARCH.id, deferrable=True, webhook=True).expand(
        input_parameters=[{"keyword": "pens"}] * RUNS
    )
    WaitsForThatMoment.partial(task_id="trigger").expand(after=MOMENTS)
