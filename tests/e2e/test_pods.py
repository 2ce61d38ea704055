"""Tries that run as in pods of the Kubernetes executor: each in a clean environment, with eviction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from airflow_provider_browseract.compat import AIRFLOW_V_3_3_PLUS
from airflow_provider_browseract.emulator import LOG_IN, ORDERS, SEARCH, Emulator
from tests.helpers.local_airflow import LocalAirflow, is_running, wait_for

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="before Airflow 3.3 nothing is kept over tries"),
]


@pytest.fixture
def emulator() -> Emulator:
    """A BrowserAct whose search takes long enough for an eviction."""
    emulator = Emulator()
    emulator.set_workflow(SEARCH.id, duration=40.0)
    for workflow in (LOG_IN, ORDERS):
        emulator.set_workflow(workflow.id, duration=2.0)
    return emulator


@pytest.fixture
def pods(tmp_path) -> Path:
    return tmp_path / "pods"


@pytest.fixture
def airflow(emulator, tmp_path, pods) -> Iterator[LocalAirflow]:
    """An Airflow whose tasks run in pods, with the connection in its database."""
    here = Path(__file__).parent
    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "pods.py").write_text((here / "dags" / "pods.py").read_text())
    with emulator.serve() as running:
        variables = {"AIRFLOW__CORE__EXECUTOR": "pods.PodExecutor", "BROWSERACT_PODS": str(pods)}
        airflow = LocalAirflow(tmp_path / "airflow", dags, variables, modules=(here / "backends",))
        with airflow.running():
            airflow.set_connection("browseract_default", **running.connection)
            yield airflow


def pid_of(pod: Path) -> int:
    """Return the first process of a pod."""
    return int((pod / "pid").read_text())


def evict(folder: Path) -> None:
    """End a pod as a node drain does: SIGTERM to its first process, and after half a minute SIGKILL to all."""
    first = psutil.Process(pid_of(folder))
    everyone = [first, *first.children(recursive=True)]
    first.terminate()
    _, alive = psutil.wait_procs(everyone, timeout=30.0)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def test_tries_run_in_pods_and_eviction_leaves_run_to_next_try(airflow, emulator, pods):
    run_id = airflow.trigger("pods")
    searches = lambda: [task for task in emulator.tasks if task.workflow_id == SEARCH.id]  # noqa: E731
    emulator.wait_until(lambda: searches() and searches()[0].status == "running", timeout=240)
    [pod] = wait_for("The pod", lambda: list(pods.glob("in_the_pod-1-*")), timeout=60)
    evict(pod)
    assert airflow.wait_for_run("pods", run_id) == "success"
    logged = [
        json.loads(line)["event"]
        for out in sorted(pods.glob("in_the_pod-*/out"))
        for line in out.read_text(errors="replace").splitlines()
        if line.startswith("{") and "BrowserAct task" in line
    ]
    [search] = searches()
    assert search.status == "finished"
    [ti] = [ti for ti in airflow.task_instances("pods", run_id) if ti["task_id"] == "in_the_pod"]
    assert ti["try_number"] == 2
    assert f"Reattaching to BrowserAct task {search.id} that an earlier try started." in logged
    assert airflow.xcom("pods", run_id, "in_the_pod", "task_id") == search.id
    [orders] = [task for task in emulator.tasks if task.workflow_id == ORDERS.id]
    assert orders.profile_id == airflow.xcom("pods", run_id, "log_in", "profile_id")
    wait_for("The end of each pod", lambda: not any(is_running(pid_of(pod)) for pod in pods.iterdir()), timeout=60)
