"""``make demo``: a real Airflow runs the profile example against the emulator, and each event is printed."""

from __future__ import annotations

import argparse
import json
import signal
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.markup import escape

from airflow_provider_browseract.emulator import LOG_IN, ORDERS, Emulator, Run
from airflow_provider_browseract.runs.routes import PANEL_PATH, URL_PREFIX
from tests.helpers.local_airflow import LocalAirflow, free_port, run_command

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".demo"
DAG_ID = "example_browseract_profile"
TIME_LIMIT = 170.0
"""Seconds within which the DAG run has to end."""

WIDTH = 80
"""Columns that the output fits in."""

INTRODUCTION = """\
The demo runs the DAG example_browseract_profile on a real Airflow:

  login_is_due    decides whether the last login is too old
  log_in          logs in to a shop and saves the browser profile
  newest_profile  keeps the profile for the next DAG runs
  orders          starts with that profile, so it needs no login
  total           adds up the orders

BrowserAct is the emulator of this package: no account, no credits. It calls
Airflow back when a run ends, so no worker waits.
"""


class Story:
    """Prints what happens in a DAG run, each event once."""

    def __init__(self, airflow: LocalAirflow, emulator: Emulator, console: Console, run_id: str) -> None:
        self.airflow, self.emulator, self.console, self.run_id = airflow, emulator, console, run_id
        self.began = time.monotonic()
        self.started: dict[str, str] = {}
        self.told: set[tuple[str, str]] = set()

    def look(self) -> str:
        """Print what is new, and return the state of the DAG run."""
        state: str = self.airflow.dag_run(DAG_ID, self.run_id)["state"]
        for ti in sorted(self.airflow.task_instances(DAG_ID, self.run_id), key=lambda ti: ti["id"]):
            self._look_at(ti["task_id"], ti["state"])
        return state

    def _look_at(self, name: str, state: str | None) -> None:
        if name not in self.started and state not in (None, "scheduled", "queued"):
            found = self.airflow.xcom(DAG_ID, self.run_id, name, "task_id")
            if found:
                self.started[name] = found
                self._tell(name, f"started BrowserAct task [bold]{found}[/bold]")
        if state == "deferred":
            self._tell(name, "waits in the triggerer, without a worker")
        run = next((run for run in self.emulator.tasks if run.id == self.started.get(name)), None)
        if run is not None:
            if run.profile_id and not run.save_browser_data:
                self._tell(name, f"its browser has the profile [bold]{run.profile_id}[/bold]")
            for status, _ in run.history:
                self._tell(name, f"BrowserAct: [cyan]{status}[/cyan]")
        if state == "success":
            self._tell_result(name, run)
        elif state == "failed":
            self._tell(name, "[red]failed[/red], see its log")

    def _tell_result(self, name: str, run: Run | None) -> None:
        """Print what resumed the task and how soon, its result, and the profile that it saved."""
        wait = self.airflow.xcom(DAG_ID, self.run_id, name, "wait") or {}
        if "woken_by" in wait:
            seconds = wait.get("seconds_after_end")
            after = "" if seconds is None else f", {seconds:.1f} s after the end of the run"
            self._tell(name, f"resumed by a [bold]{wait['woken_by']}[/bold]{after}")
        result = self.airflow.xcom(DAG_ID, self.run_id, name, "return_value")
        self._tell(name, f"[green]returned[/green] {escape(_short(result, 46))}")
        if run is not None and run.save_browser_data:
            self._tell(name, f"saved the profile [bold]{run.profile_id}[/bold]")

    def _tell(self, name: str, text: str) -> None:
        """Write a line, unless it was written before."""
        if (name, text) not in self.told:
            self.told.add((name, text))
            seconds = time.monotonic() - self.began
            self.console.print(f"{seconds:5.1f} s  [bold blue]{name:14}[/] {text}", soft_wrap=True)


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
    console, port, emulator = Console(width=WIDTH, highlight=False), free_port(), Emulator(concurrency=5)
    for workflow in (LOG_IN, ORDERS):
        emulator.set_workflow(workflow.id, duration=12.0)
    with emulator.serve() as service:
        console.print(INTRODUCTION)
        console.print(f"BrowserAct emulator: {service.url}")
        connection = {**service.connection, "extra": {"webhook_base_url": f"http://127.0.0.1:{port}"}}
        environment = {
            "AIRFLOW_CONN_BROWSERACT_DEFAULT": json.dumps(connection),
            # The password of the shop. The emulator refuses only "wrong".
            "AIRFLOW_CONN_SHOP": json.dumps({"conn_type": "generic", "password": "only for the demo"}),
            # With KEEP=1 someone may change an example and check its effect.
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
        }
        console.print("Starting Airflow (about half a minute) ...")
        with LocalAirflow(HOME, ROOT / "example_dags", environment, port=port).running() as airflow:
            return run_dag(airflow, emulator, console, keep=keep)


def run_dag(airflow: LocalAirflow, emulator: Emulator, console: Console, *, keep: bool) -> int:
    """Run the DAG to its end, and return the exit code of the demo."""
    panel = f"{airflow.url}{URL_PREFIX}{PANEL_PATH}/"
    console.print(f"Airflow:             {airflow.url} (no login, this machine only)")
    console.print(f"Panel:               {panel}\n")
    console.print("Running the DAG (about a minute) ...\n")
    run_id, deadline, state = airflow.trigger(DAG_ID), time.monotonic() + TIME_LIMIT, "running"
    story = Story(airflow, emulator, console, run_id)
    while state not in ("success", "failed") and time.monotonic() < deadline:
        airflow.check_alive()
        state = story.look()
        time.sleep(0.5)
    # What was pushed while the state was read.
    story.look()
    if state == "success":
        console.print("\n[green]The DAG run succeeded.[/green]")
        console.print(_proof(emulator))
    else:
        console.print(f"\n[red]The DAG run is {state}.[/red]")
        for ti in airflow.task_instances(DAG_ID, run_id):
            if ti["state"] not in ("success", "upstream_failed"):
                console.print(f"Log of {ti['task_id']}:", *airflow.log(DAG_ID, run_id, ti["task_id"])[-25:], sep="\n  ")
    if keep:
        # An address that is broken over two lines cannot be clicked.
        for line in (
            "\nThe panel (in Airflow's UI: menu Browse, BrowserAct):",
            panel,
            "This DAG run:",
            f"{airflow.url}/dags/{DAG_ID}/runs/{quote(run_id, safe='')}",
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
