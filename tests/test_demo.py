"""What ``make demo`` prints, without an Airflow."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import Any

import pytest

from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.emulator import LOG_IN, ORDERS, Emulator
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from dev import demo
from tests.e2e.local_airflow import wait_for

WOKEN = "resumed by a callback, 12.3 s after the end of the run"


def ended(task_id: str) -> Task | None:
    """Return a run if it has ended."""
    task = BrowserActHook().get_task(task_id)
    return task if task.status.ended else None


class FakeAirflow:
    """Replaces the Airflow of the demo: its tasks have run before the first look, and show one state at each look."""

    def __init__(self, home, dags, environment, *, port, fails=False) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.environment = environment
        self.fails = fails
        self.runs: dict[str, Any] = {}
        self.looks = 0

    def running(self):
        return nullcontext()

    def api(self, *request, **body) -> None:
        pass

    def check_alive(self) -> None:
        pass

    def trigger(self, dag_id) -> str:
        hook = BrowserActHook()
        profile = None
        for name, workflow in (("log_in", LOG_IN), ("orders", ORDERS), ("orders_again", ORDERS)):
            inputs = {"username": "ada", "password": "hunter2"} if workflow is LOG_IN else None
            created = hook.run_task(workflow.id, inputs, save_browser_data=workflow is LOG_IN, profile_id=profile)
            self.runs[name] = task = wait_for("The end of the run", partial(ended, created.id), timeout=60, every=0.05)
            profile = profile or task.profile_id
        return "manual__2026-11-27T04:00:00.000000+00:00"

    @property
    def state(self) -> str:
        states = ("queued", "running", "deferred", "queued", "failed" if self.fails else "success")
        return states[min(self.looks, len(states) - 1)]

    def dag_run(self, dag_id, run_id) -> dict[str, str]:
        self.looks += 1
        return {"state": self.state if self.state in ("success", "failed") else "running"}

    def task_instances(self, dag_id, run_id) -> list[dict[str, str]]:
        return [{"id": name, "task_id": name, "state": self.state} for name in self.runs]

    def xcom(self, dag_id, run_id, name, key) -> Any:
        wait = {"woken_by": "callback", "seconds_after_end": 12.3}
        output = json.loads(self.runs[name].output.string)
        return {"task_id": self.runs[name].id, "wait": wait, "return_value": output}[key]

    def log(self, dag_id, run_id, name) -> list[str]:
        return ["The reason"]


class QuickEmulator(Emulator):
    """An emulator whose runs take a moment."""

    def set_workflow(self, workflow_id, **settings):
        super().set_workflow(workflow_id, **{**settings, "duration": 0.1})


@pytest.fixture
def demo_with_fakes(monkeypatch) -> Callable[..., int]:
    """Run the demo without an Airflow."""
    monkeypatch.setattr(demo, "Emulator", QuickEmulator)

    def run(*, fails: bool = False, keep: bool = False) -> int:
        def airflow(*arguments, **keywords) -> FakeAirflow:
            made = FakeAirflow(*arguments, **keywords, fails=fails)
            monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", made.environment["AIRFLOW_CONN_BROWSERACT_DEFAULT"])
            return made

        monkeypatch.setattr(demo, "LocalAirflow", airflow)
        with ExitStack() as stack:
            return demo._demo(stack, None, None, keep=keep)

    return run


@pytest.mark.parametrize("fails", [False, True], ids=["success", "failure"])
def test_demo_prints_lines_of_at_most_80_columns(fails, demo_with_fakes, capsys):
    assert demo_with_fakes(fails=fails) == (1 if fails else 0)
    lines = capsys.readouterr().out.splitlines()
    expected = ["The reason"] if fails else [WOKEN, "saved the profile", "reused the login, without a password: 2 of 2"]
    assert all(text in "\n".join(lines) for text in expected)
    assert [line for line in lines if len(line) > demo.WIDTH] == []


def test_demo_that_keeps_running_prints_the_address_of_the_panel_first(demo_with_fakes, monkeypatch, capsys):
    def ctrl_c() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(signal, "pause", ctrl_c)
    assert demo_with_fakes(keep=True) == 0
    addresses = [line for line in capsys.readouterr().out.splitlines() if line.startswith("http")]
    assert [address.partition("/browseract/panel/")[1] for address in addresses] == ["/browseract/panel/", "", ""]
