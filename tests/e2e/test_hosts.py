"""Hosts of a cluster on which something is wrong (``make cluster``)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from airflow_provider_browseract.emulator import SEARCH
from tests.helpers.cluster import HOSTS, WORKERS, Cluster
from tests.helpers.local_airflow import wait_for

from .conftest import World
from .test_callbacks import Runs

BARE = Path(f"{sys.prefix}-bare", "bin", "python")
"""A Python with Airflow and without the provider."""

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
"""The library that changes the clock of a process (Debian's package ``faketime``)."""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def world(worlds: dict[str, World]) -> World:
    """The account whose runs are called back. The tests of callbacks have let them pause."""
    world = worlds["callbacks"]
    world.emulator.set_workflow(SEARCH.id, pause_at=None)
    return world


@pytest.fixture
def airflow(world: World) -> Cluster:
    assert isinstance(world.airflow, Cluster)
    assert BARE.exists(), "make cluster creates this environment"
    return world.airflow


def search(world: World, duration: float) -> Runs:
    """Start one search in Airflow, whose run in BrowserAct takes some seconds."""
    world.emulator.next_run(SEARCH.id, duration=duration)
    return Runs(world, poll_interval=5.0)


def ended(runs: Runs) -> tuple[str, list[str]]:
    """Wait for the end of a search, and return its state, and the statuses of its runs in BrowserAct."""
    state = runs.end()
    print(runs.log(0))
    return state, [task.status for task in runs.tasks]


FINISHED = ("success", ["finished"])
MISSING = "No module named 'airflow_provider_browseract'"


def test_workers_without_the_provider_fail_tasks_and_start_nothing(world, airflow):
    # By default, Airflow tries three more times, a minute apart each.
    with airflow.changed(*WORKERS, python=BARE, variables={"AIRFLOW__WORKERS__MISSING_DAG_RETRIES": "0"}):
        runs = Runs(world)
        assert runs.end() == "failed"
    assert MISSING in "\n".join(airflow.log("callbacks", runs.run_id, "wanted"))
    assert not runs.tasks


def test_run_survives_resumption_on_a_worker_without_the_provider(world, airflow):
    runs = search(world, 60.0)
    wait_for("The deferral", lambda: runs.state(0) == "deferred", timeout=120)
    with airflow.changed(*WORKERS, python=BARE, variables={"AIRFLOW__WORKERS__MISSING_DAG_RETRY_DELAY": "20"}):
        wait_for("Another start", lambda: runs.state(0) == "up_for_reschedule", timeout=240)
    assert ended(runs) == FINISHED
    assert MISSING in runs.log(0)


def test_api_servers_without_the_plugin_leave_the_end_to_polls(world, airflow):
    with airflow.changed(*world.all_of("api-server"), python=BARE):
        runs = search(world, 15.0)
        assert ended(runs) == FINISHED
    assert runs.xcom(0, "wait")["woken_by"] == "poll"


def test_triggerers_without_the_provider_fail_tries_and_last_one_stops_run(world, airflow):
    with airflow.changed(*world.all_of("triggerer"), python=BARE):
        assert ended(search(world, 600.0)) == ("failed", ["canceled"])


def test_callback_ends_wait_while_triggerers_cannot_reach_browseract(world, airflow):
    nowhere = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "", "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    with airflow.changed(*world.all_of("triggerer"), variables=nowhere):
        runs = search(world, 30.0)
        assert ended(runs) == FINISHED
    assert "A poll of the run failed" in runs.log(0)
    assert runs.xcom(0, "wait")["woken_by"] == "callback"


def clock_of(airflow: Cluster, component: str) -> float:
    words = [airflow.python_of(component), "-c", "import time; print(time.time())"]
    done = subprocess.run(words, env=airflow.variables_of(component), capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.fixture
def clocks(airflow: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """Hosts whose clocks differ."""
    if FAKETIME is None:
        pytest.fail("the package faketime is not installed")
    with ExitStack() as stack:
        for host, seconds in request.param.items():
            variables = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{seconds:+}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            stack.enter_context(airflow.changed(*HOSTS[host], variables=variables))
            assert clock_of(airflow, HOSTS[host][0]) - time.time() == pytest.approx(seconds, abs=5.0)
        yield


def search_four_times(world: World) -> list[tuple[str, list[str]]]:
    """Search four times at once, and return the state and the statuses of each search."""
    searches = [search(world, 15.0) for _ in range(4)]
    return [ended(runs) for runs in searches]


@pytest.mark.parametrize(
    "clocks", [{"worker host 1": 30, "worker host 2": -30}, {"control 2": 30}], indirect=True, ids=str
)
def test_no_run_is_lost_where_clocks_differ(world, clocks):
    assert search_four_times(world) == [FINISHED] * 4


@pytest.mark.parametrize("clocks", [{"control 2": -30}], indirect=True, ids=str)
def test_no_run_is_paid_for_twice_where_an_api_server_refuses_tokens(world, airflow, clocks):
    # Airflow fails each try that reaches this API server first, so a search may use up its retries.
    assert [statuses for _, statuses in search_four_times(world)] == [["finished"]] * 4
    assert any("Invalid auth token" in (airflow.home / f"{worker}.out").read_text() for worker in WORKERS)
