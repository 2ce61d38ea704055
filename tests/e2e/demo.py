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
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from airflow_provider_browseract.emulator import LOG_IN, ORDERS, Emulator
from tests.e2e.local_airflow import LocalAirflow, free_port

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".demo"
TIME_LIMIT = 170.0
"""Seconds within which the DAG run has to end; a workflow of the real service gets longer."""

STAGES = ("waiting for its turn", "starting", "BrowserAct works, no worker held", "resuming", "done")
STATES = {
    "queued": 1,
    "running": 1,
    "deferred": 2,
    "success": 4,
    "failed": 4,
    "upstream_failed": 4,
}
"""How far a state of Airflow means that a task has come."""


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
            self.tell(name, "deferred: no worker is held while the browser works")
        self._tell_statuses(name)
        stage = STATES.get(state or "", 0)
        if name in self.deferred and state in ("queued", "running", "scheduled"):
            stage = 3
            self.tell(name, "resumed: asks BrowserAct for the result")
        if state == "success":
            self._tell_clocks(name)
            result = self.airflow.xcom(self.dag_id, self.run_id, name, "return_value")
            self.tell(name, f"[green]result[/green] {_short(result)}")
            if profile := self.airflow.xcom(self.dag_id, self.run_id, name, "profile_id"):
                self.tell(name, f"profile [bold]{profile}[/bold] is handed on to the tasks after it")
        elif state == "failed":
            self.tell(name, "[red]failed[/red], see its log")
        self.progress.update(self.bars[name], completed=stage, stage=STAGES[stage])

    def _tell_statuses(self, name: str) -> None:
        if self.emulator is None:
            return
        for task in self.emulator.tasks:
            if task.id == self.started.get(name):
                for status, _ in task.history:
                    self.tell(name, f"BrowserAct says [cyan]{status}[/cyan]")

    def _tell_clocks(self, name: str) -> None:
        """Print when the run ended by BrowserAct's clock, when the task resumed by ours, and what resumed it."""
        wait = self.airflow.xcom(self.dag_id, self.run_id, name, "wait") or {}
        if self.emulator is None or "woken_by" not in wait:
            return
        for task in self.emulator.tasks:
            if task.id == self.started.get(name) and task.finished_at:
                later = wait["seconds_after_end"]
                ended, resumed = _clock(task.finished_at), _clock(task.finished_at + timedelta(seconds=later))
                self.tell(
                    name,
                    f"run ended {ended}, task resumed {resumed}: woken by a [bold]{wait['woken_by']}[/bold] "
                    f"after {later:g} s",
                )

    def tell(self, name: str, text: str) -> None:
        """Write a line, unless it was written before."""
        if (name, text) not in self.told:
            self.told.add((name, text))
            self.progress.console.print(
                f"{time.monotonic() - self.began:6.1f} s  [bold blue]{name:14}[/] {text}", soft_wrap=True
            )


def _clock(moment: datetime) -> str:
    return moment.strftime("%H:%M:%S.%f")[:-5]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 90 else f"{text[:87]}..."


def _leave(number: int, _frame: object) -> None:
    """End everything once; make sends its own signal after the one from the terminal."""
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    keep = parser.parse_args().keep
    key, workflow_id = os.environ.get("BROWSERACT_API_KEY"), os.environ.get("WORKFLOW_ID")
    if bool(key) != bool(workflow_id):
        print("Set both BROWSERACT_API_KEY and WORKFLOW_ID, or none of them.", file=sys.stderr)
        return 2
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, _leave)
    with ExitStack() as stack:
        return _demo(stack, key, keep)


def _demo(stack: ExitStack, key: str | None, keep: bool) -> int:
    console = Console()
    emulator: Emulator | None = None
    port = free_port()
    connection: dict[str, Any]
    if key:
        connection = {"conn_type": "browseract", "password": key}
        dags, dag_id, limit = ROOT / "tests" / "e2e" / "dags", "own_workflow", 7 * 3600.0
        console.print("BrowserAct: the real service. The run costs credits.")
    else:
        emulator = Emulator(concurrency=5)
        running = stack.enter_context(emulator.serve())
        for workflow in (LOG_IN, ORDERS):
            emulator.set_workflow(workflow.id, duration=12.0)
        connection = {**running.connection, "extra": {"webhook_base_url": f"http://127.0.0.1:{port}"}}
        dags, dag_id, limit = ROOT / "example_dags", "example_browseract_profile", TIME_LIMIT
        console.print(f"BrowserAct: the emulator, at {running.url}; it calls Airflow back when a run ends")

    environment = {
        "AIRFLOW_CONN_BROWSERACT_DEFAULT": json.dumps(connection),
        # With KEEP=1 someone may change an example and check its effect.
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
    }
    airflow = LocalAirflow(HOME, dags, environment, port=port)
    with console.status("Starting Airflow: database, API server, scheduler, DAG processor, triggerer ..."):
        stack.enter_context(airflow.running())
        airflow.api("POST", "pools", json={"name": "browseract", "slots": 5, "include_deferred": True})
    console.print(f"Airflow: {airflow.url} (no login, this machine only)")

    run_id = airflow.trigger(dag_id)
    columns = (TextColumn("[bold blue]{task.description:14}"), BarColumn(), TextColumn("{task.fields[stage]}"))
    state = "running"
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        story = Story(airflow, emulator, progress, dag_id, run_id)
        deadline = time.monotonic() + limit
        while state not in ("success", "failed") and time.monotonic() < deadline:
            airflow.check_alive()
            state = story.look()
            time.sleep(0.5)
        story.look()

    page = f"{airflow.url}/dags/{dag_id}/runs/{run_id}"
    if state == "success":
        console.print("[green]The DAG run succeeded.[/green]")
    else:
        console.print(f"[red]The DAG run is {state}.[/red]")
        for ti in airflow.task_instances(dag_id, run_id):
            if ti["state"] not in ("success", "upstream_failed"):
                console.print(f"Log of {ti['task_id']}:", *airflow.log(dag_id, run_id, ti["task_id"])[-25:], sep="\n  ")
    if keep:
        console.print(f"Look around: {page}\nExamples: {airflow.url}/dags\nCtrl-C ends it all.")
        try:
            signal.pause()
        except KeyboardInterrupt:
            console.print("Ending everything ...")
    else:
        console.print("To click through it in the UI: make demo KEEP=1")
    return 0 if state == "success" else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (RuntimeError, TimeoutError) as error:
        print(f"The demo could not run: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
