"""Callbacks through a real Airflow on PostgreSQL: two API servers behind one address, two triggerers."""

from __future__ import annotations

import collections
import itertools
import random
import re
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from airflow_provider_browseract.compat import AIRFLOW_V_3_3_PLUS
from airflow_provider_browseract.emulator import SEARCH, CallbackFault, TaskRecord
from airflow_provider_browseract.emulator.workflow import WorkflowSettings
from airflow_provider_browseract.runs.callback_url import TaskInstanceKey, new_token

from .conftest import HELD, World, tells_of_kills
from .local_airflow import wait_for

RUNS = 12
"""How many runs a scenario has, as many of each kind of fault."""

SEED = 3

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def runs(world: World) -> Runs:
    """Start runs and check their results."""
    return Runs(world)


NEXT_TRY = "next try"
"""What has read the end of a run, where Airflow took the try that waited for dead."""


class Runs:
    """Some runs of one DAG run, in Airflow and in BrowserAct."""

    numbers = itertools.count()

    def __init__(self, world: World) -> None:
        self.airflow = world.airflow
        self.emulator = world.emulator
        self.world = world
        self.own_receiver = f"{world.url}/mine"
        self.first_request = len(self.emulator.requests)
        self.name = f"scenario {next(self.numbers)}, run "
        self.run_id = ""
        self.number = 0

    def start(
        self,
        durations: tuple[float, float] | None,
        faults: list[CallbackFault | None],
        poll_interval: float = 20.0,
    ) -> None:
        """Start as many runs as there are faults; every second run has its own receiver for the end.

        :param durations: bounds of the seconds that each takes; None if they end once they are released.
        """
        chance = random.Random(SEED)
        self.number = len(faults)
        for fault in faults:
            settings = HELD.copy() if durations is None else WorkflowSettings(duration=chance.uniform(*durations))
            settings["callback_fault"] = fault
            self.emulator.next_run(SEARCH.id, **settings)
        wanted: list[dict[str, object]] = [
            {"input_parameters": {"keyword": f"{self.name}{index}"}, "poll_interval": poll_interval}
            for index in range(self.number)
        ]
        for arguments in wanted[1::2]:
            arguments["callback_url"] = self.own_receiver
        self.run_id = self.airflow.trigger("callbacks", {"runs": wanted})

    @property
    def tasks(self) -> list[TaskRecord]:
        """What BrowserAct has on record of these runs, oldest first."""
        return [task for task in self.emulator.tasks if dict(task.inputs).get("keyword", "").startswith(self.name)]

    def task(self, map_index: int) -> TaskRecord | None:
        """What BrowserAct has on record of one of them: of its latest run."""
        keyword = f"{self.name}{map_index}"
        return next((task for task in reversed(self.tasks) if dict(task.inputs)["keyword"] == keyword), None)

    def asked(self, endpoint: str) -> int:
        """Return how often an endpoint was called."""
        return sum(request.endpoint == endpoint for request in self.emulator.requests[self.first_request :])

    def task_instances(self) -> list[dict]:
        """The mapped task instances in Airflow."""
        found = self.airflow.api("GET", f"dags/callbacks/dagRuns/{self.run_id}/taskInstances", params={"limit": 200})
        return [ti for ti in found["task_instances"] if ti["task_id"] == "search" and ti["map_index"] >= 0]

    def in_state(self, *states: str) -> list[dict]:
        """Those of them that are in one of some states."""
        return [ti for ti in self.task_instances() if ti["state"] in states]

    def state(self, map_index: int) -> str | None:
        """The state of one of them."""
        return next((ti["state"] for ti in self.task_instances() if ti["map_index"] == map_index), None)

    def wait_until_all_are(self, *states: str, timeout: float) -> None:
        """Wait until each is in one of some states; one that has failed will not get there."""

        def all_are() -> bool:
            found = self.task_instances()
            failed = [ti for ti in found if ti["state"] == "failed"]
            assert not failed, self.log(failed[0]["map_index"])
            return sum(ti["state"] in states for ti in found) == self.number

        wait_for(f"{self.number} tasks in state {' or '.join(states)}", all_are, timeout=timeout, every=2.0)

    def xcom(self, map_index: int, key: str):
        """An XCom of one of them."""
        return self.airflow.xcom("callbacks", self.run_id, "search", key, map_index=map_index)

    def log(self, map_index: int) -> str:
        """The log of one of them."""
        return "\n".join(self.airflow.log("callbacks", self.run_id, "search", map_index=map_index))

    def our_deliveries(self, task_id: str):
        """The attempts to deliver our callbacks of a run that report its end."""
        return [
            delivery
            for delivery in self.emulator.deliveries
            if delivery.task_id == task_id and "/browseract/" in delivery.url and delivery.status == "finished"
        ]

    def triggerers_said(self, what: str) -> int:
        """Return how often the triggerers' own logs have a text."""
        return sum(file.read_text(errors="replace").count(what) for file in self.airflow.home.glob("triggerer*.out"))

    def check(self) -> collections.Counter:
        """Check that each ended once and well and was started once; return the ways in which they were woken."""
        woken: collections.Counter = collections.Counter()
        after: dict[str, list[float]] = collections.defaultdict(list)
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
            assert 1 <= log.count(f"BrowserAct task {task_id} ended as finished") <= 1 + taken_for_dead, log
            assert len(self.xcom(index, "return_value")) == 10
            wait = self.xcom(index, "wait")
            if taken_for_dead and "woken_by" not in wait:
                # The try that Airflow ended had waited, and the next one found the run at its end.
                woken[NEXT_TRY] += 1
                continue
            woken[wait["woken_by"]] += 1
            after[wait["woken_by"]].append(wait["seconds_after_end"])
            assert f"Woken by a {wait['woken_by']}, {wait['seconds_after_end']:g} seconds after the end" in log
        assert len(seen) == len(started) == self.number
        assert self.asked("stop-task") == 0
        for by, seconds in after.items():
            print(
                f"{len(seconds)} woken by {by}: {statistics.median(seconds):.1f} s after the end at the median, "
                f"{max(seconds):.1f} s at most"
            )
        return woken


def faults(number: int) -> list[CallbackFault | None]:
    """A sixth of all callbacks lost, doubled, late, out of order, hung up, and as they should be, in random order."""
    kinds = [
        CallbackFault.lost(),
        CallbackFault.repeated(3),
        CallbackFault.late(5.0),
        CallbackFault.out_of_order(),
        CallbackFault.hung_up(),
        None,
    ]
    mixed = [kinds[index % len(kinds)] for index in range(number)]
    random.Random(SEED).shuffle(mixed)
    return mixed


def test_faulty_callbacks_lose_and_duplicate_no_run(runs, capsys):
    runs.start((10, 30), faults(RUNS))
    runs.wait_until_all_are("success", timeout=400)
    with capsys.disabled():
        print(f"\n{RUNS} runs, callbacks doubled, late, out of order, hung up, a sixth lost; seed {SEED}:")
        woken = runs.check()
    resumed = sum(
        any(delivery.http_status == 200 or delivery.fault == "hung_up" for delivery in runs.our_deliveries(task.id))
        for task in runs.tasks
    )
    assert woken["callback"] >= RUNS // 2
    assert woken["callback"] <= resumed
    assert woken["poll"] + woken[NEXT_TRY] >= RUNS // 6


def test_callbacks_resume_tasks_while_no_triggerer_is_running(runs, capsys):
    runs.start((14, 30), faults(RUNS))
    wait_for("A first deferral", lambda: runs.in_state("deferred"), timeout=90)
    triggerers = runs.world.triggerers
    runs.airflow.stop(*triggerers, with_signal=9)
    try:
        runs.emulator.wait_until(
            lambda: len(runs.tasks) == RUNS and all(task.finished_at for task in runs.tasks), timeout=300
        )

        def was_not_reached(ti: dict) -> bool:
            deliveries = runs.our_deliveries(runs.xcom(ti["map_index"], "task_id"))
            return bool(deliveries) and all(delivery.http_status in (None, 202) for delivery in deliveries)

        def only_the_others_wait() -> bool:
            found = runs.in_state("deferred", "success")
            return len(found) == RUNS and all(was_not_reached(ti) for ti in found if ti["state"] == "deferred")

        wait_for("The tasks whose callback arrived", only_the_others_wait, timeout=200, every=2.0)
        alone = len(runs.in_state("success"))
    finally:
        runs.airflow.start(*triggerers)
    runs.wait_until_all_are("success", timeout=300)
    with capsys.disabled():
        print(f"\n{RUNS} runs, both triggerers killed: {alone} ended without any, the others once there was one again:")
        woken = runs.check()
    assert alone >= RUNS // 2
    assert woken["callback"] + woken[NEXT_TRY] >= alone - 1
    assert woken["poll"] + woken[NEXT_TRY] >= RUNS // 6


@pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="before Airflow 3.3 this is left to the newest Airflow")
def test_polls_end_waits_after_api_servers_were_killed(runs, capsys):
    number = 10
    # After the first one, none polls again before the API servers are back.
    runs.start(None, [None] * number, poll_interval=60.0)
    runs.wait_until_all_are("deferred", timeout=150)
    wait_for("A poll of each", lambda: all(runs.world.polls(task.id) > 1 for task in runs.tasks), timeout=150)
    runs.airflow.stop(*runs.world.api_servers, with_signal=9)
    try:
        for task in runs.tasks:
            runs.world.release(task.id)
        runs.emulator.wait_until(lambda: all(task.finished_at for task in runs.tasks), timeout=120)
        runs.emulator.wait_until(lambda: all(runs.our_deliveries(task.id) for task in runs.tasks), timeout=30)
        assert not any(delivery.http_status for task in runs.tasks for delivery in runs.our_deliveries(task.id))
    finally:
        runs.airflow.start(*runs.world.api_servers)
        runs.airflow.wait_until_healthy()
    runs.wait_until_all_are("success", timeout=300)
    with capsys.disabled():
        print(f"\n{number} runs, both API servers killed while all of them waited:")
        woken = runs.check()
    assert woken["poll"] + woken[NEXT_TRY] == number


@pytest.fixture(scope="module")
def two_runs(world: World) -> Runs:
    """Two runs with normal callbacks, while tests send additional ones."""
    runs = Runs(world)
    runs.start(None, [None, None])
    return runs


def test_callbacks_before_end_of_run_resume_task_once_and_it_waits_again(two_runs):
    runs, index = two_runs, 0
    task = wait_for("The start", lambda: runs.task(index), timeout=150)

    def post(_: int = 0) -> str:
        response = requests.post(task.callback_url, json={"id": task.id, "status": "finished"}, timeout=30)
        return response.json()["outcome"]

    # From before the deferral to the end of the grace.
    outcomes = []
    with ThreadPoolExecutor(8) as pool:

        def resumed() -> bool:
            outcomes.append(post())
            if outcomes[-1] == "too early":
                return False
            # PostgreSQL lets one of those win that come at the same moment.
            outcomes.extend(pool.map(post, range(8)))
            return True

        wait_for("The end of the grace", resumed, timeout=60, every=0.5)
    assert outcomes[0] == "too early"
    assert outcomes.count("resumed") == 1
    assert set(outcomes) <= {"too early", "resumed", "already resumed", "not waiting"}
    wait_for(
        "The wait after it",
        lambda: "although the callback reported that it had ended. Waiting again." in runs.log(index),
        timeout=150,
    )
    before = runs.world.polls(task.id)
    # On a busy machine, the first poll may come within the grace of the new deferral, which ends later then.
    wait_for("Two polls of it", lambda: runs.world.polls(task.id) > before + 1, timeout=150)
    runs.world.release(task.id)
    wait_for("The end", lambda: runs.state(index) == "success", timeout=150)
    assert runs.xcom(index, "wait")["woken_by"] == "callback"


def test_forged_flood_resumes_nothing_and_genuine_callback_is_handled(two_runs, capsys):
    runs, index = two_runs, 1
    task = wait_for("The start", lambda: runs.task(index), timeout=150)
    waiting = TaskInstanceKey("callbacks", runs.run_id, "search", index)
    unknown = waiting._replace(dag_id="x" * 250)
    forge = runs.airflow.callback_address
    finished = b'{"status": "finished"}'
    forgeries = [
        lambda: (forge(waiting, new_token()), finished),
        lambda: (forge(waiting._replace(map_index=7), new_token()), finished),
        lambda: (forge(unknown, new_token()), b"{}"),
        lambda: (forge(waiting, new_token()).replace(waiting.encode(), "%00"), b"{}"),
        lambda: (forge(waiting, new_token()), b"x" * 3_000_000),
        lambda: (forge(waiting, new_token()), b"[" * 900_000),
        lambda: (forge(waiting, new_token()), b"\xff{"),
    ]
    statuses: collections.Counter = collections.Counter()
    before = runs.airflow.memory(*runs.world.api_servers)
    numbers, lock, arrived = itertools.count(), threading.Lock(), threading.Event()
    began = time.monotonic()

    def flood() -> None:
        with requests.Session() as session:
            # At least 2,000, and as many as it takes until the real callback has come among them.
            while (number := next(numbers)) < 2000 or not (arrived.is_set() or time.monotonic() > began + 120):
                if number >= 2000:
                    arrived.wait(0.2)
                url, body = forgeries[number % len(forgeries)]()
                try:
                    response = session.post(url, data=body, headers={"Content-Type": "application/json"}, timeout=60)
                    status: object = response.status_code
                except requests.ConnectionError:
                    # The connection may be closed before the response to an unread body arrives.
                    status = "cut off"
                with lock:
                    statuses[status] += 1

    threads = [threading.Thread(target=flood) for _ in range(8)]
    # A callback is turned away within the grace after the deferral.
    wait_for("A poll", lambda: runs.world.polls(task.id) > 1, timeout=150)
    for thread in threads:
        thread.start()
    runs.world.release(task.id)
    try:
        runs.emulator.wait_until(lambda: runs.our_deliveries(task.id), timeout=90)
    finally:
        arrived.set()
    for thread in threads:
        thread.join(120)
    took = time.monotonic() - began
    after = runs.airflow.memory(*runs.world.api_servers)
    runs.wait_until_all_are("success", timeout=150)
    with capsys.disabled():
        print(
            f"\n{sum(statuses.values())} forged callbacks in {took:.0f} s: {dict(statuses)}; the API servers' memory "
            f"{before >> 20} MiB before, {after >> 20} MiB after"
        )
        assert runs.check() == {"callback": 2}
    assert sum(statuses.values()) >= 2000
    assert set(statuses) <= {404, 413, "cut off"}
    assert [delivery.http_status for delivery in runs.our_deliveries(task.id)] == [200]
    assert after < before * 1.25


@pytest.fixture(scope="module")
def endless_runs(world: World) -> Runs:
    """Three runs that do not end by themselves."""
    runs = Runs(world)
    runs.start(None, [None] * 3)
    runs.wait_until_all_are("deferred", timeout=150)
    return runs


@tells_of_kills
@pytest.mark.parametrize(
    ("index", "action"), [(0, "failed"), (1, "success"), (2, "clear")], ids=["failed", "success", "clear"]
)
def test_person_who_ends_wait_stops_run(endless_runs, index, action):
    runs = endless_runs
    not_found = runs.triggerers_said("XCom not found")
    task = runs.task(index)
    # The trigger has to run before Airflow can call its on_kill; the worker polls once itself.
    wait_for("A poll", lambda: runs.world.polls(task.id) > 1, timeout=150)
    if action == "clear":
        runs.emulator.next_run(SEARCH.id, duration=1.0)
        body = {"dry_run": False, "dag_run_id": runs.run_id, "task_ids": [["search", index]], "only_failed": False}
        runs.airflow.api("POST", "dags/callbacks/clearTaskInstances", json=body)
    else:
        path = f"dags/callbacks/dagRuns/{runs.run_id}/taskInstances/search/{index}"
        runs.airflow.api("PATCH", path, json={"new_state": action})
    runs.emulator.wait_until(lambda: runs.world.task(task.id).status == "canceled", timeout=150)
    if action != "clear":
        # Airflow logs an error for each requested XCom that does not exist.
        assert runs.triggerers_said("XCom not found") == not_found
        return
    wait_for("The end of the next run", lambda: runs.state(index) == "success", timeout=150)
    assert [each.status for each in runs.tasks if each.inputs == task.inputs] == ["canceled", "finished"]


@tells_of_kills
def test_triggerer_taken_for_dead_that_comes_back_stops_no_run(runs):
    runs.airflow.stop("triggerer 2")
    runs.start(None, [CallbackFault.lost()], poll_interval=5.0)
    runs.emulator.wait_until(lambda: runs.asked("get-task") > 1, timeout=150)
    with runs.airflow.frozen("triggerer"):
        before = runs.asked("get-task")
        runs.airflow.start("triggerer 2")
        runs.emulator.wait_until(lambda: runs.asked("get-task") > before, timeout=150)
    wait_for("The end of the first trigger", lambda: "waits for it elsewhere" in runs.log(0), timeout=150)
    runs.world.release(runs.tasks[0].id)
    runs.wait_until_all_are("success", timeout=150)
    assert runs.check() == {"poll": 1}


def test_no_log_contains_token_or_key(world, two_runs):
    tokens = {
        url.rpartition("/")[2]
        for task in world.emulator.tasks
        for url in (task.callback_url, task.status_change_callback_url)
        if url and "/browseract/" in url
    }
    assert tokens
    secrets = re.compile("|".join(map(re.escape, [*tokens, world.emulator.api_key])))
    files = [*world.airflow.home.glob("*.out"), *world.airflow.home.glob("logs/**/*.log")]
    assert any("callback/hidden" in file.read_text(errors="replace") for file in files)
    for file in files:
        assert not secrets.search(file.read_text(errors="replace")), file
