"""``make demo``: a real Airflow runs BrowserAct workflows, and what happens is shown as it happens.

Without an account the profile example runs against the emulator. With ``BROWSERACT_API_KEY`` and ``WORKFLOW_ID`` (and
``INPUT_PARAMETERS``, a JSON object, if the workflow takes any) that workflow is run once by the real service.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from airflow_provider_browseract.emulator import LOG_IN, ORDERS, Emulator, Run
from airflow_provider_browseract.runs.routes import PANEL_PATH, URL_PREFIX
from tests.helpers.local_airflow import LocalAirflow, free_port, run_command

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".demo"
TIME_LIMIT = 170.0
"""Seconds within which the DAG run has to end; a workflow of the real service gets longer."""

STAGES = ("waits for its turn", "starts", "waits without a worker", "resumes", "done")
STATES = {
    "queued": 1,
    "running": 1,
    "deferred": 2,
    "success": 4,
    "failed": 4,
    "upstream_failed": 4,
}
"""How far a state of Airflow means that a task has come."""

WIDTH = 80
"""Columns that the output fits in."""

INTRODUCTION = """\
The demo runs the DAG example_browseract_profile on a real Airflow:

  log_in          logs in to a shop and saves the browser profile
  newest_profile  keeps the profile for the next DAG runs
  orders          starts with that profile, so it needs no login

BrowserAct is the emulator of this package: no account, no credits. It calls
Airflow back when a run ends, so no worker waits.
"""


class Story:
    """Prints what happens in a DAG run, each event once."""

    def __init__(self, airflow: LocalAirflow, emulator: Emulator | None, progress: Progress, dag_id: str, run_id: str):
        self.airflow = airflow
        self.emulator = emulator
        self.progress = progress
        self.dag_id = dag_id
        self.run_id = run_id
        self.began = time.monotonic()
        self.bars: dict[str, TaskID] = {}
        self.started: dict[str, str] = {}
        self.told: set[tuple[str, ...]] = set()
        self.deferred: set[str] = set()

    def look(self) -> str:
        """Print what is new, and return the state of the DAG run."""
        state: str = self.airflow.dag_run(self.dag_id, self.run_id)["state"]
        for ti in sorted(self.airflow.task_instances(self.dag_id, self.run_id), key=lambda ti: ti["id"]):
            self._look_at(ti)
        return state

    def _look_at(self, ti: dict[str, Any]) -> None:
        name, state = ti["task_id"], ti["state"]
        if name not in self.bars:
            self.bars[name] = self.progress.add_task(name, total=len(STAGES) - 1, stage=STAGES[0])
        begun = name not in self.started and state not in (None, "scheduled", "queued")
        if begun and (found := self.airflow.xcom(self.dag_id, self.run_id, name, "task_id")):
            self.started[name] = found
            self.tell(name, f"started BrowserAct task [bold]{found}[/bold]")
        if state == "deferred" and name not in self.deferred:
            self.deferred.add(name)
            self.tell(name, "waits in the triggerer, without a worker")
        run = self._run_of(name)
        if run is not None:
            self._tell_run(name, run)
        stage = STATES.get(state or "", 0)
        if name in self.deferred and state in ("queued", "running", "scheduled"):
            stage = 3
        if state == "success":
            self._tell_result(name, run)
        elif state == "failed":
            self.tell(name, "[red]failed[/red], see its log")
        self.progress.update(self.bars[name], completed=stage, stage=STAGES[stage])

    def _run_of(self, name: str) -> Run | None:
        """Return the run of an Airflow task, as the emulator knows it."""
        runs = self.emulator.tasks if self.emulator else []
        return next((run for run in runs if run.id == self.started.get(name)), None)

    def _tell_run(self, name: str, run: Run) -> None:
        if run.profile_id and not run.save_browser_data:
            self.tell(name, f"its browser has the profile [bold]{run.profile_id}[/bold]")
        for status, _ in run.history:
            self.tell(name, f"BrowserAct: [cyan]{status}[/cyan]")

    def _tell_result(self, name: str, run: Run | None) -> None:
        """Print what resumed the task and how soon, its result, and the profile that it saved."""
        wait = self.airflow.xcom(self.dag_id, self.run_id, name, "wait") or {}
        if "woken_by" in wait:
            seconds = wait.get("seconds_after_end")
            after = "" if seconds is None else f", {seconds:.1f} s after the end of the run"
            self.tell(name, f"resumed by a [bold]{wait['woken_by']}[/bold]{after}")
        result = self.airflow.xcom(self.dag_id, self.run_id, name, "return_value")
        self.tell(name, f"[green]returned[/green] {escape(_short(result, 46))}")
        if run is not None and run.save_browser_data:
            self.tell(name, f"saved the profile [bold]{run.profile_id}[/bold]")

    def tell(self, name: str, text: str) -> None:
        """Write a line, unless it was written before."""
        if (name, text) not in self.told:
            self.told.add((name, text))
            seconds = time.monotonic() - self.began
            self.progress.console.print(f"{seconds:5.1f} s  [bold blue]{name:14}[/] {text}", soft_wrap=True)


def _short(value: Any, length: int) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= length else f"{text[: length - 3]}..."


def _proof(emulator: Emulator) -> str:
    """Return what the emulator's record shows about logins. A run that is not logged in reads no orders."""
    log_ins = [run for run in emulator.tasks if run.workflow_id == LOG_IN.id]
    later = [run for run in emulator.tasks if run.workflow_id == ORDERS.id]
    profiles = {run.profile_id for run in log_ins}
    reused = [
        run for run in later if run.profile_id in profiles and not run.inputs and "order_id" in (run.output or "")
    ]
    return (
        f"Runs that logged in: {len(log_ins)}. "
        f"Runs that reused the login, without a password: {len(reused)} of {len(later)}."
    )


def main() -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    keep = parser.parse_args().keep
    key, workflow_id = os.environ.get("BROWSERACT_API_KEY"), os.environ.get("WORKFLOW_ID")
    if bool(key) != bool(workflow_id):
        print("Set both BROWSERACT_API_KEY and WORKFLOW_ID, or none of them.", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        return _demo(stack, key, workflow_id, keep)


def _demo(stack: ExitStack, key: str | None, workflow_id: str | None, keep: bool) -> int:
    console = Console(width=WIDTH, highlight=False)
    emulator: Emulator | None = None
    port = free_port()
    connection: dict[str, Any]
    if key:
        connection = {"conn_type": "browseract", "password": key}
        dags, dag_id, limit = ROOT / "dev" / "dags", "own_workflow", 7 * 3600.0
        console.print(f"The demo runs workflow {workflow_id} once on the real service.\nThe run costs credits.\n")
    else:
        emulator = Emulator(concurrency=5)
        running = stack.enter_context(emulator.serve())
        for workflow in (LOG_IN, ORDERS):
            emulator.set_workflow(workflow.id, duration=12.0)
        connection = {**running.connection, "extra": {"webhook_base_url": f"http://127.0.0.1:{port}"}}
        dags, dag_id, limit = ROOT / "example_dags", "example_browseract_profile", TIME_LIMIT
        console.print(INTRODUCTION)
        console.print(f"BrowserAct emulator: {running.url}")

    environment = {
        "AIRFLOW_CONN_BROWSERACT_DEFAULT": json.dumps(connection),
        # The password of the shop. The emulator refuses only "wrong".
        "AIRFLOW_CONN_SHOP": json.dumps({"conn_type": "generic", "password": "only for the demo"}),
        # With KEEP=1 someone may change an example and check its effect.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
    }
    airflow = LocalAirflow(HOME, dags, environment, port=port)
    console.print("Starting Airflow (about half a minute) ...")
    stack.enter_context(airflow.running())
    panel = f"{airflow.url}{URL_PREFIX}{PANEL_PATH}/"
    console.print(f"Airflow:             {airflow.url} (no login, this machine only)")
    console.print(f"Panel:               {panel}\n")
    console.print("Running the DAG (about a minute) ...\n" if emulator else "Running the DAG ...\n")

    run_id = airflow.trigger(dag_id)
    columns = (
        TextColumn("[bold blue]{task.description:14}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[stage]:22}"),
    )
    state = "running"
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        story = Story(airflow, emulator, progress, dag_id, run_id)
        deadline = time.monotonic() + limit
        while state not in ("success", "failed") and time.monotonic() < deadline:
            airflow.check_alive()
            state = story.look()
            time.sleep(0.5)
        story.look()

    if state == "success":
        console.print("\n[green]The DAG run succeeded.[/green]")
        if emulator:
            console.print(_proof(emulator))
    else:
        console.print(f"\n[red]The DAG run is {state}.[/red]")
        for ti in airflow.task_instances(dag_id, run_id):
            if ti["state"] not in ("success", "upstream_failed"):
                console.print(f"Log of {ti['task_id']}:", *airflow.log(dag_id, run_id, ti["task_id"])[-25:], sep="\n  ")
    if keep:
        # An address that is broken over two lines cannot be clicked.
        for line in (
            "\nThe panel (in Airflow's UI: menu Browse, BrowserAct):",
            panel,
            "This DAG run:",
            f"{airflow.url}/dags/{dag_id}/runs/{quote(run_id, safe='')}",
            "All examples:",
            f"{airflow.url}/dags",
            "\nPress Ctrl-C to stop everything.",
        ):
            console.print(line, soft_wrap=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            console.print("Stopping everything (up to 20 seconds) ...")
    else:
        console.print("\nTo look around in the Airflow UI afterwards: make demo KEEP=1")
    return 0 if state == "success" else 1


if __name__ == "__main__":
    run_command(main, "The demo could not run")
