"""What callbacks do while parts of a real Airflow are down, and before and after a wait."""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import requests

from airflow_provider_browseract.compat import AIRFLOW_V_3_3_PLUS
from airflow_provider_browseract.emulator import SEARCH, CallbackFault, Run
from tests.helpers.local_airflow import wait_for

from .conftest import HELD, World

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="before Airflow 3.3 this is left to test_supported.py"),
]

FAULTS = (CallbackFault.late(5.0), CallbackFault.hung_up(), CallbackFault.lost(), CallbackFault.repeated(3), None)
"""What happens to the callback of each run while no triggerer is running."""


@pytest.fixture(scope="module")
def world(worlds: dict[str, World]) -> World:
    """The account whose runs are called back. All of them are held."""
    world = worlds["callbacks"]
    world.emulator.set_workflow(SEARCH.id, **HELD)
    return world


NEXT_TRY = "next try"
"""What has read the end of a run, where Airflow took the try that waited for dead."""


class Runs:
    """Some runs of one DAG run, in Airflow and in BrowserAct."""

    numbers = itertools.count()

    def __init__(self, world: World, number: int = 1, poll_interval: float = 10.0) -> None:
        self.airflow, self.emulator, self.world, self.number = world.airflow, world.emulator, world, number
        self.name = f"scenario {next(self.numbers)}, run "
        wanted = [
            {"input_parameters": {"keyword": f"{self.name}{index}"}, "poll_interval": poll_interval}
            for index in range(number)
        ]
        self.run_id = self.airflow.trigger("callbacks", {"runs": wanted})

    def end(self) -> str:
        """Wait for the end of the DAG run, and return its state."""
        return self.airflow.wait_for_run("callbacks", self.run_id)

    @property
    def tasks(self) -> list[Run]:
        """What BrowserAct has on record of these runs, oldest first."""
        return [task for task in self.emulator.tasks if dict(task.inputs).get("keyword", "").startswith(self.name)]

    def task(self, map_index: int) -> Run | None:
        """What BrowserAct has on record of one of them: of its latest run."""
        keyword = f"{self.name}{map_index}"
        return next((task for task in reversed(self.tasks) if dict(task.inputs)["keyword"] == keyword), None)

    def task_instances(self) -> list[dict]:
        found = self.airflow.api("GET", f"dags/callbacks/dagRuns/{self.run_id}/taskInstances", params={"limit": 200})
        return [ti for ti in found["task_instances"] if ti["task_id"] == "search" and ti["map_index"] >= 0]

    def state(self, map_index: int) -> str | None:
        return next((ti["state"] for ti in self.task_instances() if ti["map_index"] == map_index), None)

    def wait_until_all_are(self, state: str, timeout: float) -> None:
        """Wait until each is in a state; one that has failed will not get there."""

        def all_are() -> bool:
            found = self.task_instances()
            failed = [ti for ti in found if ti["state"] == "failed"]
            assert not failed, self.log(failed[0]["map_index"])
            return [ti["state"] for ti in found] == [state] * self.number

        wait_for(f"{self.number} tasks in state {state}", all_are, timeout=timeout, every=2.0)

    def xcom(self, map_index: int, key: str):
        return self.airflow.xcom("callbacks", self.run_id, "search", key, map_index=map_index)

    def log(self, map_index: int) -> str:
        return "\n".join(self.airflow.log("callbacks", self.run_id, "search", map_index=map_index))

    def triggerers_said(self, what: str) -> int:
        """Return how often the triggerers' own logs have a text."""
        return sum(file.read_text(errors="replace").count(what) for file in self.airflow.home.glob("triggerer*.out"))

    def check(self) -> collections.Counter:
        """Check that each ended once and well and was started once; return the ways in which they were woken."""
        woken: collections.Counter = collections.Counter()
        started = {task.id: task for task in self.tasks}
        seen = set()
        for ti in self.task_instances():
            index = ti["map_index"]
            taken_for_dead = self.airflow.taken_for_dead("callbacks", self.run_id, "search", map_index=index)
            assert (ti["state"], ti["try_number"]) == ("success", 1 + taken_for_dead), self.log(index)
            task_id = self.xcom(index, "task_id")
            seen.add(task_id)
            assert dict(started[task_id].inputs)["keyword"] == f"{self.name}{index}"
            log = self.log(index)
            # A try that Airflow has ended may still have reported the end of the run before it heard of that.
            assert 1 <= log.count("Finished after ") <= 1 + taken_for_dead, log
            assert len(self.xcom(index, "return_value")) == 10
            wait = self.xcom(index, "wait")
            if taken_for_dead and "woken_by" not in wait:
                # The try that Airflow ended had waited, and the next one found the run at its end.
                woken[NEXT_TRY] += 1
                continue
            woken[wait["woken_by"]] += 1
            assert f"Woken by a {wait['woken_by']}, {wait['seconds_after_end']:g} seconds after the end" in log
        assert len(seen) == len(started) == self.number
        assert [self.world.requests("stop-task", task_id) for task_id in seen] == [0] * self.number
        return woken


@pytest.fixture(scope="module")
def called_back(world: World) -> Runs:
    """A run with normal callbacks, while a test sends additional ones."""
    return Runs(world, poll_interval=5.0)


@pytest.fixture(scope="module")
def waiting(world: World, called_back: Runs) -> dict[str, Runs]:
    """Runs for the other tests, which are deferred while the first test is running."""
    return {"marked": Runs(world), "faults": Runs(world, len(FAULTS)), "polled": Runs(world, poll_interval=5.0)}


def test_callbacks_before_end_of_run_resume_task_once_and_it_waits_again(called_back, waiting):
    runs, index = called_back, 0
    task = wait_for("The start", lambda: runs.task(index), timeout=150)

    def post(_: int = 0) -> str:
        response = requests.post(task.callback_url, json={"id": task.id, "status": "finished"}, timeout=30)
        return response.json()["outcome"]

    # From before the deferral to the end of the grace.
    outcomes = []
    with ThreadPoolExecutor(8) as pool:

        def resumed() -> bool:
            outcomes.append(post())
            if outcomes[-1] == "unknown":
                return False
            # PostgreSQL lets one of those win that come at the same moment.
            outcomes.extend(pool.map(post, range(8)))
            return True

        wait_for("The end of the grace", resumed, timeout=60, every=0.5)
    assert outcomes[0] == "unknown"
    assert outcomes.count("resumed") == 1
    assert set(outcomes) == {"unknown", "resumed"}
    wait_for(
        "The wait after it",
        lambda: "Woken by a callback, but the run has not ended, or cannot be read. Waiting again." in runs.log(index),
        timeout=150,
    )
    before = runs.world.polls(task.id)
    # On a busy machine, the first poll may come within the grace of the new deferral, which ends later then.
    wait_for("Two polls of it", lambda: runs.world.polls(task.id) > before + 1, timeout=150)
    runs.world.release(task.id)
    wait_for("The end", lambda: runs.state(index) == "success", timeout=150)
    assert runs.xcom(index, "wait")["woken_by"] == "callback"


def test_person_who_marks_waiting_task_successful_stops_run(waiting):
    runs = waiting["marked"]
    not_found = runs.triggerers_said("XCom not found")
    task = wait_for("The start", lambda: runs.task(0), timeout=150)
    # The trigger has to run before Airflow can call its on_kill; the worker polls once itself.
    wait_for("A poll", lambda: runs.world.polls(task.id) > 1, timeout=150)
    runs.world.mark("success", "callbacks", runs.run_id, "search", 0)
    runs.emulator.wait_until(lambda: runs.world.task(task.id).status == "canceled", timeout=150)
    # Airflow logs an error for each requested XCom that does not exist.
    assert runs.triggerers_said("XCom not found") == not_found


def test_callbacks_resume_tasks_while_no_triggerer_is_running(waiting):
    runs = waiting["faults"]
    runs.wait_until_all_are("deferred", timeout=150)
    triggerers = runs.world.all_of("triggerer")
    runs.airflow.stop(*triggerers, with_signal=9)
    try:
        for task, fault in zip(runs.tasks, FAULTS, strict=True):
            if fault is not None:
                runs.emulator.fault("callback", fault, task_id=task.id)
            runs.world.release(task.id)

        def was_not_reached(ti: dict) -> bool:
            """Return whether no attempt to report the end of a run has reached our route."""
            task_id = runs.xcom(ti["map_index"], "task_id")
            reports = [each for each in runs.emulator.deliveries if each.task_id == task_id]
            ours = [each for each in reports if "/browseract/" in each.url and each.status == "finished"]
            return bool(ours) and all(each.http_status in (None, 404) for each in ours)

        def only_the_others_wait() -> bool:
            found = [ti for ti in runs.task_instances() if ti["state"] in ("deferred", "success")]
            return len(found) == len(FAULTS) and all(was_not_reached(ti) for ti in found if ti["state"] == "deferred")

        wait_for("The tasks whose callback arrived", only_the_others_wait, timeout=200, every=2.0)
        alone = [ti["state"] for ti in runs.task_instances()].count("success")
    finally:
        runs.airflow.start(*triggerers)
    runs.wait_until_all_are("success", timeout=300)
    woken = runs.check()
    assert alone >= len(FAULTS) // 2
    assert woken["callback"] + woken[NEXT_TRY] >= alone - 1
    assert woken["poll"] + woken[NEXT_TRY] >= 1


@pytest.fixture
def second_triggerer(world: World) -> Iterator[str]:
    """A triggerer beside the first one, which is down until a test starts it."""
    name, airflow = "triggerer 2", world.airflow
    if name in airflow.names:
        airflow.stop(name)
    yield name
    if name not in airflow.names:
        # A test that fails may not have started it.
        with suppress(KeyError):
            airflow.stop(name)


def test_triggerer_taken_for_dead_that_comes_back_stops_no_run(waiting, second_triggerer):
    runs = waiting["polled"]
    [task] = runs.tasks
    runs.emulator.fault("callback", CallbackFault.lost(), task_id=task.id)
    before = runs.world.polls(task.id)
    runs.emulator.wait_until(lambda: runs.world.polls(task.id) > before, timeout=150)
    with runs.airflow.frozen("triggerer"):
        before = runs.world.polls(task.id)
        runs.airflow.start(second_triggerer)
        runs.emulator.wait_until(lambda: runs.world.polls(task.id) > before, timeout=150)
    wait_for("The end of the first trigger", lambda: "invoking on_kill" in runs.log(0), timeout=150)
    runs.world.release(task.id)
    runs.wait_until_all_are("success", timeout=150)
    assert runs.check() == {"poll": 1}


def test_no_log_contains_token_or_key(world, called_back):
    task = wait_for("The start", lambda: called_back.task(0), timeout=150)
    if task.finished_at is None:
        # The test that ends this run has not been selected.
        wait_for("A poll", lambda: world.polls(task.id) > 1, timeout=150)
        world.release(task.id)
    called_back.wait_until_all_are("success", timeout=150)
    tokens = {
        url.rpartition("/")[2] for task in world.emulator.tasks if (url := task.callback_url) and "/browseract/" in url
    }
    assert tokens
    secrets = re.compile("|".join(map(re.escape, [*tokens, world.emulator.api_key])))
    files = [*world.airflow.home.glob("*.out"), *world.airflow.home.glob("logs/**/*.log")]
    assert any("callback/hidden" in file.read_text(errors="replace") for file in files)
    for file in files:
        assert not secrets.search(file.read_text(errors="replace")), file
