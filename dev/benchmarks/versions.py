"""Requests for each run, with both versions of the API: see :mod:`dev.benchmarks.run`."""

from __future__ import annotations

import collections
import json
import statistics
import tempfile
from pathlib import Path

from airflow_provider_browseract.emulator import CONTACTS, SEARCH, Emulator
from tests.databases import postgres
from tests.e2e.local_airflow import LocalAirflow, free_port

ROOT = Path(__file__).parents[2]
RUNS = 12
"""How many runs each task has."""

DURATION = 40.0
"""Seconds that a run takes: a callback ends the wait before a poll is due."""

LIMITS = {"run_workflow": 0, "run_bot": 0}
"""How many requests more than a workflow each DAG may need for a run."""


def versions() -> None:
    """Print how many requests a run of a workflow and of a bot take, with callbacks and the check of the inputs."""
    emulator = Emulator(concurrency=RUNS)
    for source in (SEARCH, CONTACTS):
        emulator.set_workflow(source.id, duration=DURATION)
    with tempfile.TemporaryDirectory() as folder, postgres() as database, emulator.serve() as running:
        port = free_port()
        extra = {"webhook_base_url": f"http://127.0.0.1:{port}"}
        airflow = LocalAirflow(
            Path(folder, "airflow"),
            Path(__file__).parent / "dags",
            {
                "AIRFLOW_CONN_BROWSERACT_DEFAULT": json.dumps({**running.connection, "extra": extra}),
                "AIRFLOW__CORE__PARALLELISM": "8",
                "PYTHONPATH": str(ROOT),
            },
            database=database.url,
            port=port,
        )
        with airflow.running():
            needed: list[float] = []
            for dag_id, more in LIMITS.items():
                first, first_run = len(emulator.requests), len(emulator.tasks)
                run_id = airflow.trigger(dag_id)
                assert airflow.wait_for_run(dag_id, run_id, timeout=600) == "success"
                sent, runs = emulator.requests[first:], emulator.tasks[first_run:]
                # How often a run is read depends on how busy the machine is, so the median counts.
                reads = [sum(run.id in request.path + request.query for request in sent) for run in runs]
                needed.append((len(sent) - sum(reads)) / RUNS + statistics.median(reads))
                counts = collections.Counter(str(request.endpoint) for request in sent)
                each = ", ".join(f"{count / RUNS:g} {name}" for name, count in sorted(counts.items()))
                print(
                    f"{dag_id}: {needed[-1]:g} requests for each run at the median (limit {needed[0] + more:g}); "
                    f"all together: {each}",
                    flush=True,
                )
