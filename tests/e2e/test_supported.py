"""What each supported Airflow and Python must do (``make cell``): callbacks, profiles, and each way a try can end."""

from __future__ import annotations

import re
import threading
from functools import partial
from importlib.util import find_spec
from typing import Any

import psutil
import pytest

from airflow_provider_browseract.compat import AIRFLOW_V_3_3_PLUS
from airflow_provider_browseract.emulator import LOG_IN, ORDERS, Run
from tests.helpers.local_airflow import wait_for

from .conftest import PASSWORD, PROFILE, World

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def world(worlds: dict[str, World]) -> World:
    """The account of the tries."""
    return worlds["tries"]


def test_profile_chain_reuses_login_and_callback_ends_first_wait(world, tries):
    airflow, run_id = world.airflow, tries[PROFILE]
    state = airflow.wait_for_run(PROFILE, run_id)
    story = "\n".join(airflow.log(PROFILE, run_id, "log_in"))
    assert state == "success", story
    assert airflow.xcom(PROFILE, run_id, "log_in", "wait")["woken_by"] == "callback"
    runs = {name: airflow.xcom(PROFILE, run_id, name, "task_id") for name in ("log_in", "orders")}
    log_in = world.task(runs["log_in"])
    for name, task_id in runs.items():
        assert airflow.xcom(PROFILE, run_id, name, "profile_id") == log_in.profile_id
        assert world.task(task_id).status == "finished"
    paid = [task for task in world.emulator.tasks if task.workflow_id in (LOG_IN.id, ORDERS.id)]
    assert [task.id for task in paid] == list(runs.values())
    assert [task.profile_id for task in paid[1:]] == [log_in.profile_id]
    assert {order["customer"] for order in airflow.xcom(PROFILE, run_id, "orders", "return_value")} == {"grace"}
    for line in (
        rf"Started a run of \"{LOG_IN.name}\": BrowserAct task {log_in.id}\.",
        r"Pausing task as DEFERRED",
        # The triggerer, which may be the first to see a step, does not know the secrets that its goal may have.
        r"Step 1: (Open the log-in page|\*\*\*) \(\w+\)",
        # A worker knows them.
        r"Step 3: Wait for the account page \(succeed\)",
        r"Finished after \d+ s, 15 credits, 3 steps\.",
    ):
        assert re.search(line, story)
    assert not any(secret in story for secret in (world.emulator.api_key, PASSWORD))


def test_check_finds_nothing_wrong(world, tries):
    # By then, each component has sent a heartbeat.
    world.airflow.wait_for_run(PROFILE, tries[PROFILE])
    found = world.airflow.cli("check", "--conn-id", "tries", module="airflow_provider_browseract")
    assert re.findall(r"^\w+", found, re.MULTILINE) == ["ok"] * 6 + ["Failed"], found


def test_each_way_a_try_can_end_stops_or_reattaches_to_its_run(world, tries):
    airflow, emulator, run_id = world.airflow, world.emulator, tries["tries"]
    concurrency = emulator.concurrency

    def of(task_id: str) -> dict[str, Any]:
        [found] = [each for each in airflow.task_instances("tries", run_id) if each["task_id"] == task_id]
        return found

    def state_of(task_id: str) -> str | None:
        return of(task_id)["state"]

    def worker_of(task_id: str) -> tuple[psutil.Process, psutil.Process] | None:
        return airflow.worker_of(of(task_id)["id"])

    def started_by(task_id: str) -> list[Run]:
        return [task for task in emulator.tasks if ("keyword", task_id) in task.inputs]

    def runs_of(task_id: str, number: int = 1) -> list[Run] | None:
        """Return the runs that a task has started, once it has started some, waits, and the last run is held."""
        found = started_by(task_id)
        waits = state_of(task_id) == ("deferred" if task_id.endswith("deferred") else "running")
        return found if len(found) >= number and waits and found[-1].status == "paused" else None

    def first_is_canceled(task_id: str) -> bool:
        return started_by(task_id)[0].status == "canceled"

    def wait(what: str, condition, *arguments):
        return wait_for(what, partial(condition, *arguments), timeout=240, every=1.0)

    def release(*task_ids: str) -> None:
        """End the runs that are held, all of them or those of some tasks."""
        for task in emulator.tasks:
            if task.status == "paused" and (not task_ids or dict(task.inputs)["keyword"] in task_ids):
                world.release(task.id)

    for task_id in ("marked_deferred", "cleared_deferred", "marked", "cleared", "lost"):
        wait(f"A run of {task_id}", runs_of, task_id)
    hanging = "marked_while_airflow_hangs"
    wait(f"A run of {hanging}", runs_of, hanging)
    _, process = wait(f"The worker of {hanging}", worker_of, hanging)
    # It takes half a minute until Airflow notices.
    lost = wait("The worker of lost", worker_of, "lost")
    for each in lost:
        each.kill()
    world.mark("failed", "tries", run_id, hanging)
    with airflow.frozen("api-server"):
        process.terminate()
        # For longer than Airflow usually lets a killed process live.
        threading.Event().wait(15)

    at_its_deferral = ["marked_at_its_deferral"] if find_spec("airflow.sdk.listener") else []
    if at_its_deferral:
        wait("A run of marked_at_its_deferral", runs_of, "marked_at_its_deferral")
        world.mark("failed", "tries", run_id, "marked_at_its_deferral")
    for task_id in ("marked_deferred", "marked"):
        world.mark("failed", "tries", run_id, task_id)
    only_from_3_3 = ["marked_deferred", "cleared_deferred"] if AIRFLOW_V_3_3_PLUS else []
    stopped = ["marked", "cleared", hanging, *at_its_deferral, *only_from_3_3]
    for task_id in stopped:
        if not task_id.startswith("cleared"):
            wait(f"The stop of the run of {task_id}", first_is_canceled, task_id)
    if AIRFLOW_V_3_3_PLUS:
        # A cleared task gets no slot before the run of its earlier try was stopped.
        emulator.concurrency = sum(task.finished_at is None for task in emulator.tasks)
    for task_id in ("cleared_deferred", "cleared"):
        world.clear("tries", run_id, task_id)
        wait(f"The second run of {task_id}", runs_of, task_id, 2)
        if task_id in stopped:
            wait(f"The stop of the run of {task_id}", first_is_canceled, task_id)
        emulator.concurrency = concurrency
    release("cleared")
    wait("The end of cleared", lambda: state_of("cleared") == "success")

    wait("A try after a lost worker", lambda: state_of("lost") == "running" and worker_of("lost") not in (None, lost))
    if not AIRFLOW_V_3_3_PLUS:
        wait("The second run of lost", runs_of, "lost", 2)
    release("lost")
    release()
    airflow.wait_for_run("tries", run_id)
    states = {ti["task_id"]: ti["state"] for ti in airflow.task_instances("tries", run_id)}
    assert {name: (state, len(started_by(name))) for name, state in states.items()} == {
        "marked_deferred": ("failed", 1),
        "marked": ("failed", 1),
        "cleared_deferred": ("success", 2),
        "cleared": ("success", 2),
        # Only the state that Airflow 3.3 keeps lets the next try find the run of a lost worker.
        "lost": ("success", 1 if AIRFLOW_V_3_3_PLUS else 2),
        hanging: ("failed", 1),
        "failing_run": ("success", 0),
        **dict.fromkeys(at_its_deferral, ("failed", 1)),
    }
    assert [task.status for task in started_by("pens")] == ["failed", "finished"]
    if AIRFLOW_V_3_3_PLUS:
        assert not [task.id for task in emulator.tasks if task.status not in ("finished", "failed", "canceled")]
