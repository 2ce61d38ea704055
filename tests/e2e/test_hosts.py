"""Hosts of a cluster on which something is wrong (``make cluster``)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from airflow_provider_browseract.emulator import SEARCH, Run

from .cluster import HOSTS, WORKERS, Cluster
from .conftest import World
from .local_airflow import wait_for

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
    """The cluster."""
    assert isinstance(world.airflow, Cluster)
    assert BARE.exists(), "make cluster creates this environment"
    return world.airflow


class Search:
    """One search in Airflow, and its runs in BrowserAct.

    :param name: what is searched for.
    :param duration: seconds that the next run takes; None if there will be none.
    """

    def __init__(self, world: World, name: str, *, duration: float | None = None, poll_interval: float = 5.0) -> None:
        self.airflow = world.airflow
        self.emulator = world.emulator
        self.name = name
        if duration is not None:
            self.emulator.next_run(SEARCH.id, duration=duration)
        wanted = {"input_parameters": {"keyword": name}, "poll_interval": poll_interval}
        self.run_id = self.airflow.trigger("callbacks", {"runs": [wanted]})

    def end(self) -> str:
        """Wait for the end of the DAG run, and return its state."""
        return self.airflow.wait_for_run("callbacks", self.run_id)

    @property
    def tasks(self) -> list[Run]:
        """What BrowserAct has on record."""
        return [task for task in self.emulator.tasks if dict(task.inputs).get("keyword") == self.name]

    @property
    def state(self) -> str | None:
        """The state of the search in Airflow."""
        found = self.airflow.task_instances("callbacks", self.run_id)
        return next((ti["state"] for ti in found if ti["task_id"] == "search" and ti["map_index"] == 0), None)

    @property
    def woken_by(self) -> str:
        """What ended the wait."""
        woken_by: str = self.airflow.xcom("callbacks", self.run_id, "search", "wait", map_index=0)["woken_by"]
        return woken_by

    def log(self, task_id: str = "search") -> str:
        """Read the log of all tries."""
        return "\n".join(
            self.airflow.log("callbacks", self.run_id, task_id, map_index=0 if task_id == "search" else -1)
        )


def show(capsys: pytest.CaptureFixture[str], log: str) -> None:
    """Print the lines of a log that name BrowserAct or the provider."""
    with capsys.disabled():
        print("", *(line for line in log.splitlines() if "browseract" in line.lower()), sep="\n  ")


MISSING = "No module named 'airflow_provider_browseract'"


def test_workers_without_the_provider_fail_tasks_and_start_nothing(world, airflow, capsys):
    # By default, Airflow tries three more times, a minute apart each.
    with airflow.changed(*WORKERS, python=BARE, variables={"AIRFLOW__WORKERS__MISSING_DAG_RETRIES": "0"}):
        search = Search(world, "no provider on the workers")
        assert search.end() == "failed"
    show(capsys, search.log("wanted"))
    assert MISSING in search.log("wanted")
    assert not search.tasks


def test_run_survives_resumption_on_a_worker_without_the_provider(world, airflow, capsys):
    search = Search(world, "resumed without the provider", duration=60.0)
    wait_for("The deferral", lambda: search.state == "deferred", timeout=120)
    with airflow.changed(*WORKERS, python=BARE, variables={"AIRFLOW__WORKERS__MISSING_DAG_RETRY_DELAY": "20"}):
        wait_for("Another start", lambda: search.state == "up_for_reschedule", timeout=240)
    assert search.end() == "success"
    show(capsys, search.log())
    assert MISSING in search.log()
    assert [task.status for task in search.tasks] == ["finished"]


def test_api_servers_without_the_plugin_leave_the_end_to_polls(world, airflow, capsys):
    with airflow.changed(*world.api_servers, python=BARE):
        search = Search(world, "no plugin on the API servers", duration=15.0)
        assert search.end() == "success"
    show(capsys, search.log())
    assert search.woken_by == "poll"
    assert [task.status for task in search.tasks] == ["finished"]


def test_triggerers_without_the_provider_fail_tries_and_last_one_stops_run(world, airflow, capsys):
    with airflow.changed(*world.triggerers, python=BARE):
        search = Search(world, "no provider on the triggerers", duration=600.0)
        assert search.end() == "failed"
    show(capsys, search.log())
    assert [task.status for task in search.tasks] == ["canceled"]


def test_callback_ends_wait_while_triggerers_cannot_reach_browseract(world, airflow, capsys):
    nowhere = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "", "http_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    with airflow.changed(*world.triggerers, variables=nowhere):
        search = Search(world, "triggerers behind a firewall", duration=30.0)
        assert search.end() == "success"
    show(capsys, search.log())
    assert "A poll of the run failed" in search.log()
    assert search.woken_by == "callback"
    assert [task.status for task in search.tasks] == ["finished"]


def clock_of(airflow: Cluster, component: str) -> float:
    """Read the clock of the host of a component."""
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


FOUR_ONCE = [["finished"]] * 4


def search_four_times(world: World, name: str, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], list[list[str]]]:
    """Search four times at once, and return the states of the DAG runs and the statuses of the runs of each."""
    searches = [Search(world, f"{name} {index}", duration=15.0) for index in range(4)]
    ends = [search.end() for search in searches]
    for search in searches:
        show(capsys, search.log())
    return ends, [[task.status for task in search.tasks] for search in searches]


@pytest.mark.parametrize(
    "clocks", [{"worker host 1": 30, "worker host 2": -30}, {"control 2": 30}], indirect=True, ids=str
)
def test_no_run_is_lost_where_clocks_differ(world, clocks, request, capsys):
    assert search_four_times(world, request.node.name, capsys) == (["success"] * 4, FOUR_ONCE)


@pytest.mark.parametrize("clocks", [{"control 2": -30}], indirect=True, ids=str)
def test_no_run_is_paid_for_twice_where_an_api_server_refuses_tokens(world, airflow, clocks, capsys):
    # Airflow fails each try that reaches this API server first, so a search may use up its retries.
    _, runs = search_four_times(world, "refused tokens", capsys)
    assert runs == FOUR_ONCE
    assert any("Invalid auth token" in (airflow.home / f"{worker}.out").read_text() for worker in WORKERS)
