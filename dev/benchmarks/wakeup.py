"""How soon a callback resumes a task, in a real Airflow on PostgreSQL: see :mod:`dev.benchmarks.run`."""

from __future__ import annotations

import json
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from airflow_provider_browseract.emulator import SEARCH, Emulator
from dev.benchmarks.figures import Figure
from dev.benchmarks.rows import DAGS, ROOT
from tests.helpers.databases import postgres
from tests.helpers.local_airflow import LocalAirflow, free_port

RUNS = 12
"""How many runs each way has."""

FIRST_END = 50.0
"""Seconds from its start to the end of a way's first run: until then all of them are deferred."""

SPACING = 4.0
"""Seconds between two ends of one way."""

RATIO = Figure("time from the end of a run to execute_complete with a callback, to that with a trigger", 0.8)


def wakeup() -> None:
    """How soon a callback resumes a task, compared with a trigger that knows the moment of the end."""
    emulator = Emulator(concurrency=RUNS)
    for number in range(RUNS):
        emulator.next_run(SEARCH.id, duration=FIRST_END + SPACING * number + random.random())
    with tempfile.TemporaryDirectory() as folder, postgres() as database, emulator.serve() as running:
        port = free_port()
        extra = {"webhook_base_url": f"http://127.0.0.1:{port}"}
        variables = {
            "AIRFLOW_CONN_BROWSERACT_DEFAULT": json.dumps({**running.connection, "extra": extra}),
            "AIRFLOW__CORE__PARALLELISM": "8",
            "PYTHONPATH": str(ROOT),
            # As after a usual installation, no process compiles the modules that it imports.
            "PYTHONDONTWRITEBYTECODE": "",
        }
        airflow = LocalAirflow(Path(folder, "airflow"), DAGS, variables, database=database.url, port=port)
        with airflow.running():
            run_id = airflow.trigger("wakeup")
            if (state := airflow.wait_for_run("wakeup", run_id, timeout=400)) != "success":
                raise RuntimeError(f"The DAG run is {state}.")

            def values(way: str, key: str) -> list[Any]:
                return [airflow.xcom("wakeup", run_id, way, key, map_index=index) for index in range(RUNS)]

            ended = {task.id: task.finished_at.timestamp() for task in emulator.tasks if task.finished_at}
            ends = {"callback": [ended[each] for each in values("callback", "task_id")]}
            ends["trigger"] = values("trigger", "ended_at")
            medians = {}
            for way, moments in ends.items():
                taken = [resumed - end for resumed, end in zip(values(way, "resumed_at"), moments, strict=True)]
                medians[way] = statistics.median(taken)
    RATIO.report(
        medians["callback"] / medians["trigger"], f"{medians['callback']:.2f} s to {medians['trigger']:.2f} s, medians"
    )
