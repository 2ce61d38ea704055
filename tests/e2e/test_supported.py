"""What each supported Airflow and Python must do (``make cell``): callbacks, profiles, and each way a try can end."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.settings import ClientSettings
from airflow_provider_browseract.api.v2 import resume_task
from airflow_provider_browseract.compat import AIRFLOW_V_3_3_PLUS, CLEAR_KEEPS_STATE
from airflow_provider_browseract.emulator import EXPORT, LOG_IN, ORDERS, SEARCH, Emulator, RunningEmulator
from airflow_provider_browseract.emulator.records import TaskRecord

from .conftest import EXAMPLES, HELD
from .local_airflow import LocalAirflow, free_port, wait_for

PROFILE = "example_browseract_profile"

QUICK_DETECTION = {
    "AIRFLOW__CORE__PARALLELISM": "8",
    # A dead process is reported after seconds instead of minutes. Airflow 3.4.0b2 lets a cleared task end for a minute,
    # and its scheduler fails if the task counts as dead before that.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30" if CLEAR_KEEPS_STATE else "90",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
}


@pytest.fixture
def emulator() -> Emulator:
    """A BrowserAct whose first run is long enough for its callback to be expected."""
    emulator = Emulator(concurrency=20)
    emulator.set_workflow(SEARCH.id, **HELD)
    emulator.next_run(EXPORT.id, outcome="failed", duration=1.0)
    emulator.set_workflow(LOG_IN.id, duration=30.0)
    emulator.set_workflow(ORDERS.id, duration=2.0)
    return emulator


@pytest.fixture
def browseract(emulator: Emulator) -> Iterator[RunningEmulator]:
    """The server of that BrowserAct."""
    with emulator.serve() as running:
        yield running


@pytest.fixture
def airflow(browseract: RunningEmulator, tmp_path) -> Iterator[LocalAirflow]:
    """The smallest Airflow, with a connection that has callbacks."""
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy(EXAMPLES / f"{PROFILE}.py", dags)
    shutil.copy(Path(__file__).parent / "dags" / "tries.py", dags)
    port = free_port()
    extra = {"webhook_base_url": f"http://127.0.0.1:{port}"}
    connection = json.dumps({**browseract.connection, "extra": extra})
    variables = {"AIRFLOW_CONN_BROWSERACT_DEFAULT": connection, **QUICK_DETECTION}
    airflow = LocalAirflow(tmp_path / "airflow", dags, variables, port=port)
    with airflow.running():
        yield airflow


@pytest.mark.timeout(600)
def test_profile_chain_runs_and_callback_ends_first_wait(airflow, emulator, capsys):
    run_id = airflow.trigger(PROFILE, {"username": "grace"})
    state = airflow.wait_for_run(PROFILE, run_id)
    with capsys.disabled():
        print("", *airflow.log(PROFILE, run_id, "log_in"), sep="\n  ")
    assert state == "success"
    assert airflow.xcom(PROFILE, run_id, "log_in", "wait")["woken_by"] == "callback"
    profile_id = airflow.xcom(PROFILE, run_id, "log_in", "profile_id")
    assert [task.status for task in emulator.tasks] == ["finished"] * 3
    assert [task.profile_id for task in emulator.tasks[1:]] == [profile_id] * 2


@pytest.mark.timeout(900)
def test_each_way_a_try_can_end_stops_or_reattaches_to_its_run(airflow, emulator, browseract):
    run_id = airflow.trigger("tries")

    def state_of(task_id: str) -> str | None:
        [found] = [each for each in airflow.task_instances("tries", run_id) if each["task_id"] == task_id]
        state: str | None = found["state"]
        return state

    def runs_of(task_id: str, number: int = 1) -> list[TaskRecord] | None:
        """Return the runs that a task has started, once it has started some, waits, and the last run is held."""
        found = [task for task in emulator.tasks if ("keyword", task_id) in task.inputs]
        waits = state_of(task_id) == ("deferred" if task_id.endswith("deferred") else "running")
        return found if len(found) >= number and waits and found[-1].status == "paused" else None

    def first_is_canceled(task_id: str) -> bool:
        return next(task for task in emulator.tasks if ("keyword", task_id) in task.inputs).status == "canceled"

    def wait(what: str, condition, *arguments):
        return wait_for(what, partial(condition, *arguments), timeout=240, every=1.0)

    def release(*of: str) -> None:
        """End the runs that are held, all of them or those of a task."""
        with BrowserActClient(ClientSettings(api_key=browseract.api_key, base_url=browseract.url)) as client:
            for task in emulator.tasks:
                if task.status == "paused" and (not of or dict(task.inputs)["keyword"] in of):
                    client.send(resume_task(task.id))

    def mark_failed(task_id: str) -> None:
        airflow.api("PATCH", f"dags/tries/dagRuns/{run_id}/taskInstances/{task_id}", json={"new_state": "failed"})

    def clear(task_id: str) -> None:
        body = {"dry_run": False, "task_ids": [task_id], "dag_run_id": run_id, "only_failed": False}
        airflow.api("POST", "dags/tries/clearTaskInstances", json=body)

    for task_id in ("marked_deferred", "cleared_deferred", "marked", "cleared", "lost"):
        wait(f"A run of {task_id}", runs_of, task_id)
    for task_id in ("marked_deferred", "marked"):
        mark_failed(task_id)
    for task_id in ("cleared_deferred", "cleared"):
        clear(task_id)
        wait(f"The second run of {task_id}", runs_of, task_id, 2)
    stopped = ["marked", "cleared", *(["marked_deferred", "cleared_deferred"] if AIRFLOW_V_3_3_PLUS else [])]
    for task_id in stopped:
        wait(f"The stop of the run of {task_id}", first_is_canceled, task_id)

    release("cleared")
    wait("The end of cleared", lambda: state_of("cleared") == "success")

    def only_worker() -> list[psutil.Process] | None:
        busy = airflow.busy_workers()
        return list(busy[0]) if len(busy) == 1 and state_of("failing_run") == "success" else None

    lost = wait("The worker of lost", only_worker)
    for each in lost:
        each.kill()
    wait("A try after a lost worker", lambda: state_of("lost") == "running" and only_worker() not in (None, lost))
    if not AIRFLOW_V_3_3_PLUS:
        wait("The second run of lost", runs_of, "lost", 2)
    release("lost")
    hanging = "marked_while_airflow_hangs"
    wait(f"A run of {hanging}", runs_of, hanging)
    [_, process] = wait(f"The worker of {hanging}", only_worker)
    mark_failed(hanging)
    with airflow.frozen("api-server"):
        process.terminate()
        # For longer than Airflow usually lets a killed process live.
        threading.Event().wait(15)
    wait(f"The stop of the run of {hanging}", first_is_canceled, hanging)
    release()
    airflow.wait_for_run("tries", run_id)
    states = {ti["task_id"]: ti["state"] for ti in airflow.task_instances("tries", run_id)}
    assert states == {
        "marked_deferred": "failed",
        "marked": "failed",
        "cleared_deferred": "success",
        "cleared": "success",
        "lost": "success",
        hanging: "failed",
        "failing_run": "success",
    }
    paid = {name: sum(("keyword", name) in task.inputs for task in emulator.tasks) for name in states}
    # Only the state that Airflow 3.3 keeps lets the next try find the run of a lost worker.
    again = 1 if AIRFLOW_V_3_3_PLUS else 2
    assert paid == {
        "marked_deferred": 1,
        "marked": 1,
        "cleared_deferred": 2,
        "cleared": 2,
        "lost": again,
        hanging: 1,
        "failing_run": 0,
    }
    assert [task.status for task in emulator.tasks if ("keyword", "pens") in task.inputs] == ["failed", "finished"]
    if AIRFLOW_V_3_3_PLUS:
        assert not [task.id for task in emulator.tasks if task.status not in ("finished", "failed", "canceled")]
