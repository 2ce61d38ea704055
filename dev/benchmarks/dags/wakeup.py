"""The same runs in four ways."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_browseract.emulator import ORDERS, SEARCH
from dev.benchmarks.waking import HandWritten, Timed, WaitsForThatMoment
from dev.benchmarks.webhook import FIRST_END, RUNS, SPACING

# The fourth in turn, after the three kinds of runs of the emulator.
MOMENTS = [FIRST_END + SPACING * number + 3 for number in range(RUNS)]

with DAG("wakeup", schedule=None, max_active_tasks=200):
    Timed.partial(task_id="callback", workflow_id=SEARCH.id, deferrable=True, webhook=True).expand(
        input_parameters=[{"keyword": "pens"}] * RUNS
    )
    Timed.partial(task_id="poll_5s", workflow_id=ORDERS.id, deferrable=True, webhook=False, poll_interval=5).expand(
        input_parameters=[{}] * RUNS
    )
    HandWritten.partial(task_id="http_10s").expand(doc=[str(number) for number in range(RUNS)])
    WaitsForThatMoment.partial(task_id="trigger").expand(after=MOMENTS)
