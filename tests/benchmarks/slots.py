"""How long many runs take on a plan that allows few at once."""

from __future__ import annotations

import collections
import json
import tempfile
from pathlib import Path

from airflow_provider_browseract.emulator import SEARCH, Emulator
from tests.e2e.local_airflow import LocalAirflow, free_port
from tests.e2e.postgres import postgres

ROOT = Path(__file__).resolve().parents[2]
RUNS = 100
PLAN = 10
DURATION = 20.0
LIMITS = {"slots_in_a_pool": 1.35, "slots": 1.6}


def slots() -> None:
    """Seconds from the first start to the end of the last task, with a pool of the plan's size and without one."""
    for dag_id, limit in LIMITS.items():
        emulator = Emulator(concurrency=PLAN)
        emulator.set_workflow(SEARCH.id, duration=DURATION)
        with tempfile.TemporaryDirectory() as folder, postgres() as database, emulator.serve() as running:
            port = free_port()
            extra = {"webhook_base_url": f"http://127.0.0.1:{port}"}
            airflow = LocalAirflow(
                Path(folder, "airflow"),
                Path(__file__).parent / "dags",
                {
                    "AIRFLOW_CONN_BROWSERACT_DEFAULT": json.dumps({**running.connection, "extra": extra}),
                    "AIRFLOW__CORE__PARALLELISM": "12",
                    "PYTHONPATH": str(ROOT),
                },
                database=database.url,
                port=port,
            )
            with airflow.running():
                airflow.cli("pools", "set", "browseract", str(PLAN), "The plan", "--include-deferred")
                run_id = airflow.trigger(dag_id)
                state = airflow.wait_for_run(dag_id, run_id, timeout=900)
                run = airflow.dag_run(dag_id, run_id)
                tasks = airflow.api("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 200})
        tries = collections.Counter(ti["try_number"] for ti in tasks["task_instances"])
        ideal = RUNS / PLAN * DURATION
        took = run["duration"]
        asked = collections.Counter(request.endpoint for request in emulator.requests)
        refused = asked["run-task"] - RUNS
        beyond = sum(asked.values()) - refused - asked["list-tasks"]
        print(
            f"{dag_id}: {state}; {RUNS} runs of {DURATION:g} s, {PLAN} at once: {took:.0f} s, {took / ideal:.2f} of "
            f"the ideal {ideal:g} s (limit {limit})\n  tries {dict(tries)}; {beyond / RUNS:.1f} requests per run "
            f"(limit 4), besides {refused} refused starts and {asked['list-tasks']} looks for room"
        )
