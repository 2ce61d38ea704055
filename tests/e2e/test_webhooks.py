"""Callbacks through a real Airflow on PostgreSQL: two API servers behind one address, two triggerers."""

from __future__ import annotations

import collections
import itertools
import json
import random
import re
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from airflow.triggers.base import BaseTrigger

from airflow_provider_browseract.emulator import SEARCH, CallbackFault, Emulator
from airflow_provider_browseract.webhook.callback import WaitingTask, new_token

from .local_airflow import LocalAirflow, free_port, wait_for
from .postgres import postgres

HAS_ON_KILL = hasattr(BaseTrigger, "on_kill")
RUNS = 60 if HAS_ON_KILL else 20
"""How many runs a scenario has: all of them on the newest Airflow, fewer on the oldest."""

SEED = 3
TRIGGERERS = ("triggerer", "triggerer 2")
API_SERVERS = ("api-server", "api-server 2")

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """An emulator, and a real Airflow that it can call back."""
    emulator = Emulator(concurrency=200)
    with postgres() as database, emulator.serve() as running:
        port = free_port()
        extra = {"webhook_base_url": f"http://127.0.0.1:{port}/team-a", "retry_budget": 20}
        airflow = LocalAirflow(
            tmp_path_factory.mktemp("airflow"),
            Path(__file__).parent / "more_dags",
            {
                "AIRFLOW_CONN_BROWSERACT_DEFAULT": json.dumps({**running.connection, "extra": extra}),
                "AIRFLOW__CORE__PARALLELISM": "12",
                "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
            },
            database=database.url,
            copies=2,
            path="/team-a",
            port=port,
        )
        with airflow.running():
            yield SimpleNamespace(airflow=airflow, emulator=emulator, url=running.url)


@pytest.fixture
def runs(world) -> Runs:
    """Starts runs, and tells what became of them."""
    return Runs(world)


class Runs:
    """Some runs of one DAG run, in Airflow and in BrowserAct."""

    def __init__(self, world: SimpleNamespace) -> None:
        self.airflow: LocalAirflow = world.airflow
        self.emulator: Emulator = world.emulator
        self.own_receiver = f"{world.url}/mine"
        self.first_task = len(self.emulator.tasks)
        self.first_request = len(self.emulator.requests)
        self.run_id = ""
        self.number = 0

    def start(
        self,
        durations: tuple[float, float],
        faults: list[CallbackFault | None],
        poll_interval: float = 20.0,
    ) -> None:
        """Start as many runs as there are faults; every second has a receiver of its own for the end."""
        chance = random.Random(SEED)
        self.number = len(faults)
        for fault in faults:
            duration = chance.uniform(*durations)
            self.emulator.next_run(SEARCH.id, duration=duration, callback_fault=fault)
        wanted: list[dict[str, object]] = [
            {"input_parameters": {"keyword": str(index)}, "poll_interval": poll_interval}
            for index in range(self.number)
        ]
        for arguments in wanted[1::2]:
            arguments["callback_url"] = self.own_receiver
        self.run_id = self.airflow.trigger("callbacks", {"runs": wanted})

    @property
    def tasks(self):
        """What BrowserAct has on record of these runs."""
        return self.emulator.tasks[self.first_task :]

    def asked(self, endpoint: str) -> int:
        """How often an endpoint was asked."""
        return sum(request.endpoint == endpoint for request in self.emulator.requests[self.first_request :])

    def task_instances(self) -> list[dict]:
        """The mapped task instances in Airflow."""
        found = self.airflow.api("GET", f"dags/callbacks/dagRuns/{self.run_id}/taskInstances", params={"limit": 200})
        return [ti for ti in found["task_instances"] if ti["task_id"] == "search" and ti["map_index"] >= 0]

    def in_state(self, *states: str) -> list[dict]:
        """Those of them that are in one of some states."""
        return [ti for ti in self.task_instances() if ti["state"] in states]

    def wait_until_all_are(self, state: str, timeout: float) -> None:
        """Wait until all of them are in a state; one that has failed will not get there."""

        def all_are() -> bool:
            failed = self.in_state("failed", "up_for_retry")
            assert not failed, self.log(failed[0]["map_index"])
            return len(self.in_state(state)) == self.number

        wait_for(f"{self.number} tasks in state {state}", all_are, timeout=timeout, every=1.0)

    def xcom(self, map_index: int, key: str):
        """An XCom of one of them."""
        return self.airflow.xcom("callbacks", self.run_id, "search", key, map_index=map_index)

    def log(self, map_index: int) -> str:
        """The log of one of them."""
        return "\n".join(self.airflow.log("callbacks", self.run_id, "search", map_index=map_index))

    def our_deliveries(self, task_id: str):
        """The attempts to deliver our callbacks of a run that tell of its end."""
        return [
            delivery
            for delivery in self.emulator.deliveries
            if delivery.task_id == task_id and "/browseract/" in delivery.url and delivery.status == "finished"
        ]

    def triggerers_said(self, what: str) -> int:
        """Return how often the triggerers' own logs have a text."""
        return sum(file.read_text(errors="replace").count(what) for file in self.airflow.home.glob("triggerer*.out"))

    def check(self) -> collections.Counter:
        """Check that each ended once and well and was started once; give the ways in which they were woken."""
        woken: collections.Counter = collections.Counter()
        after: dict[str, list[float]] = collections.defaultdict(list)
        started = {task.id: task for task in self.tasks}
        seen = set()
        for ti in self.task_instances():
            index = ti["map_index"]
            assert (ti["state"], ti["try_number"]) == ("success", 1), self.log(index)
            task_id = self.xcom(index, "task_id")
            seen.add(task_id)
            assert dict(started[task_id].inputs)["keyword"] == str(index)
            log = self.log(index)
            assert log.count(f"BrowserAct task {task_id} ended as finished") == 1, log
            assert len(self.xcom(index, "return_value")) == 10
            wait = self.xcom(index, "wait")
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
        CallbackFault.doubled(3),
        CallbackFault.late(5.0),
        CallbackFault.out_of_order(),
        CallbackFault.hung_up(),
        None,
    ]
    mixed = [kinds[index % len(kinds)] for index in range(number)]
    random.Random(SEED).shuffle(mixed)
    return mixed


def test_faulty_callbacks_lose_and_double_nothing(runs, capsys):
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
    assert woken["poll"] >= RUNS // 6


def test_callbacks_resume_tasks_while_no_triggerer_is_alive(runs, capsys):
    runs.start((14, 30), faults(RUNS))
    wait_for("A first deferral", lambda: runs.in_state("deferred"), timeout=90)
    runs.airflow.stop(*TRIGGERERS, with_signal=9)
    try:
        runs.emulator.wait_until(
            lambda: len(runs.tasks) == RUNS and all(task.finished_at for task in runs.tasks), timeout=300
        )

        def was_not_reached(ti: dict) -> bool:
            deliveries = runs.our_deliveries(runs.xcom(ti["map_index"], "task_id"))
            return bool(deliveries) and all(delivery.http_status in (None, 202) for delivery in deliveries)

        def only_the_others_wait() -> bool:
            deferred = runs.in_state("deferred")
            return len(runs.in_state("success")) + len(deferred) == RUNS and all(map(was_not_reached, deferred))

        wait_for("The tasks whose callback arrived", only_the_others_wait, timeout=200, every=2.0)
        alone = len(runs.in_state("success"))
    finally:
        runs.airflow.start(*TRIGGERERS)
    runs.wait_until_all_are("success", timeout=300)
    with capsys.disabled():
        print(f"\n{RUNS} runs, both triggerers killed: {alone} ended without any, the others once there was one again:")
        woken = runs.check()
    assert alone >= RUNS // 2
    assert woken["callback"] >= alone - 1
    assert woken["poll"] >= RUNS // 5


@pytest.mark.skipif(not HAS_ON_KILL, reason="takes two minutes, and is the same on the newest Airflow")
def test_tasks_that_wait_end_by_the_poll_after_the_api_servers_were_killed(runs, capsys):
    number = 20
    # All of them defer before the first one ends, and none asks again before the API servers are back.
    runs.start((28, 30), [None] * number, poll_interval=80.0)
    runs.wait_until_all_are("deferred", timeout=60)
    runs.airflow.stop(*API_SERVERS, with_signal=9)
    try:
        runs.emulator.wait_until(lambda: all(task.finished_at for task in runs.tasks), timeout=120)
        runs.emulator.wait_until(lambda: all(runs.our_deliveries(task.id) for task in runs.tasks), timeout=30)
        assert not any(delivery.http_status for task in runs.tasks for delivery in runs.our_deliveries(task.id))
    finally:
        runs.airflow.start(*API_SERVERS)
        runs.airflow.wait_until_healthy()
    runs.wait_until_all_are("success", timeout=300)
    with capsys.disabled():
        print(f"\n{number} runs, both API servers killed while all of them waited:")
        woken = runs.check()
    assert woken == {"poll": number}


def test_a_callback_before_the_end_changes_nothing(runs):
    runs.start((28, 28), [None])
    runs.wait_until_all_are("deferred", timeout=60)
    [task] = runs.tasks
    outcomes = []

    def resumed() -> bool:
        answer = requests.post(task.callback_url, json={"id": task.id, "status": "finished"}, timeout=10)
        outcomes.append(answer.json()["outcome"])
        return outcomes[-1] == "resumed"

    wait_for("The end of the grace", resumed, timeout=15, every=1.0)
    assert set(outcomes) == {"too early", "resumed"}
    runs.wait_until_all_are("success", timeout=120)
    assert runs.check() == {"callback": 1}
    assert "is running, and not ended as a callback reported. Waiting again." in runs.log(0)


def test_a_forged_flood_resumes_nothing_and_a_real_callback_is_served_meanwhile(runs, capsys):
    runs.start((25, 25), [None])
    runs.wait_until_all_are("deferred", timeout=60)
    [task] = runs.tasks
    waiting = WaitingTask("callbacks", runs.run_id, "search", 0)
    unknown = waiting._replace(dag_id="x" * 250)
    forge = runs.airflow.callback_address
    finished = b'{"status": "finished"}'
    forgeries = [
        lambda: (forge(waiting, new_token()), finished),
        lambda: (forge(waiting._replace(map_index=1), new_token()), finished),
        lambda: (forge(unknown, new_token()), b"{}"),
        lambda: (forge(waiting, new_token()).replace(waiting.encode(), "%00"), b"{}"),
        lambda: (forge(waiting, new_token()), b"x" * 3_000_000),
        lambda: (forge(waiting, new_token()), b"[" * 900_000),
        lambda: (forge(waiting, new_token()), b"\xff{"),
    ]
    statuses: collections.Counter = collections.Counter()
    before = runs.airflow.memory(*API_SERVERS)
    numbers, lock, arrived = itertools.count(), threading.Lock(), threading.Event()
    began = time.monotonic()

    def flood() -> None:
        with requests.Session() as session:
            # At least 2,000, and as many as it takes until the real callback has come among them.
            while (number := next(numbers)) < 2000 or not (arrived.is_set() or time.monotonic() > began + 120):
                url, body = forgeries[number % len(forgeries)]()
                try:
                    answer = session.post(url, data=body, headers={"Content-Type": "application/json"}, timeout=60)
                    status: object = answer.status_code
                except requests.ConnectionError:
                    # The answer to a body that is not read may be overtaken by the end of the connection.
                    status = "cut off"
                with lock:
                    statuses[status] += 1

    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        runs.emulator.wait_until(lambda: runs.our_deliveries(task.id), timeout=90)
    finally:
        arrived.set()
    for thread in threads:
        thread.join(120)
    took = time.monotonic() - began
    after = runs.airflow.memory(*API_SERVERS)
    runs.wait_until_all_are("success", timeout=90)
    with capsys.disabled():
        print(
            f"\n{sum(statuses.values())} forged callbacks in {took:.0f} s: {dict(statuses)}; the API servers' memory "
            f"{before >> 20} MiB before, {after >> 20} MiB after"
        )
        assert runs.check() == {"callback": 1}
    assert sum(statuses.values()) >= 2000
    assert set(statuses) <= {404, 413, "cut off"}
    assert [delivery.http_status for delivery in runs.our_deliveries(task.id)] == [200]
    assert after < before * 1.25


@pytest.mark.skipif(not HAS_ON_KILL, reason="before Airflow 3.3 the core tells no trigger")
@pytest.mark.parametrize("action", ["failed", "success", "clear"])
def test_a_person_who_ends_the_wait_stops_the_run(runs, action):
    not_found = runs.triggerers_said("XCom not found")
    runs.start((600, 600), [None])
    runs.wait_until_all_are("deferred", timeout=60)
    # The trigger has to run before it can be told.
    runs.emulator.wait_until(lambda: runs.asked("get-task") > 1, timeout=60)
    if action == "clear":
        runs.emulator.next_run(SEARCH.id, duration=1.0)
        body = {"dry_run": False, "dag_run_id": runs.run_id, "task_ids": [["search", 0]], "only_failed": False}
        runs.airflow.api("POST", "dags/callbacks/clearTaskInstances", json=body)
    else:
        path = f"dags/callbacks/dagRuns/{runs.run_id}/taskInstances/search/0"
        runs.airflow.api("PATCH", path, json={"new_state": action})
    runs.emulator.wait_until(lambda: runs.tasks[0].status == "canceled", timeout=60)
    if action != "clear":
        # Airflow logs an error for each XCom that is asked for and does not exist.
        assert runs.triggerers_said("XCom not found") == not_found
    if action == "clear":
        runs.wait_until_all_are("success", timeout=120)
        assert [task.status for task in runs.tasks] == ["canceled", "finished"]


@pytest.mark.skipif(not HAS_ON_KILL, reason="before Airflow 3.3 the core tells no trigger")
def test_a_triggerer_that_was_taken_for_dead_and_comes_back_stops_no_run(runs):
    runs.airflow.stop("triggerer 2")
    runs.start((70, 70), [CallbackFault.lost()], poll_interval=5.0)
    runs.emulator.wait_until(lambda: runs.asked("get-task") > 1, timeout=90)
    with runs.airflow.frozen("triggerer"):
        before = runs.asked("get-task")
        runs.airflow.start("triggerer 2")
        runs.emulator.wait_until(lambda: runs.asked("get-task") > before, timeout=90)
    wait_for("The end of the first trigger", lambda: "waits for it elsewhere" in runs.log(0), timeout=60)
    runs.wait_until_all_are("success", timeout=120)
    assert runs.check() == {"poll": 1}


def test_no_log_holds_a_token_or_the_key(world):
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
