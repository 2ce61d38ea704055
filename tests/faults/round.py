"""A round of faults: many runs in a real Airflow, to whose parts anything happens, and a look at what became of them.

    python -m tests.faults.round [--runs 300] [--seed 1]

Nothing is asserted on the way. In the end Airflow's results are held against the emulator's record of every run that
it ever made.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from airflow_provider_browseract.emulator import SEARCH, CallbackFault, Emulator, RequestFault, RunningEmulator
from airflow_provider_browseract.emulator.catalogue import results_for
from tests.e2e.local_airflow import LocalAirflow, free_port, wait_for
from tests.e2e.postgres import Database, postgres

KINDS = ("deferred", "in_the_worker")
DURATIONS = (4.0, 20.0)
"""Seconds that the runs take."""

PAUSES = (1.5, 5.0)
"""Seconds between two faults."""

FAILING = 0.05
"""Share of the runs that fail by themselves."""

ENDPOINTS = ("run-task", "run-task", "run-task", "get-task", "get-task", "list-tasks", "stop-task")
REQUEST_FAULTS = (
    RequestFault.reset(),
    RequestFault.lost_answer(),
    RequestFault.lost_answer(status=502),
    RequestFault.hung(),
    RequestFault.hung(processed=True),
    RequestFault.status(500),
    RequestFault.status(429),
    RequestFault.refused(10118),
)
CALLBACK_FAULTS = (None, CallbackFault.lost(), CallbackFault.doubled(3), CallbackFault.late(4.0))

SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": "12",
    # What is told of a dead process after minutes is told after seconds.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "45",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "16",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "3",
}


@dataclass
class Outcome:
    """What a round came to."""

    seed: int
    runs: int
    seconds: float = 0.0
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    started: int = 0
    after_failed: int = 0
    after_stopped: int = 0
    problems: dict[str, list[str]] = field(
        default_factory=lambda: {
            "runs lost": [],
            "runs paid for twice": [],
            "runs left going": [],
            "tasks stuck": [],
            "tasks failed": [],
            "wrong results": [],
        }
    )

    @property
    def good(self) -> bool:
        """Whether nothing was lost, doubled, left or wrong."""
        return not any(self.problems.values())

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.runs} task instances, {self.started} runs started, of which {self.after_failed} "
            f"after one that had failed and {self.after_stopped} after one that was stopped; "
            f"{sum(self.faults.values())} faults in {self.seconds:.0f} s",
            "  " + ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items())),
        ]
        for name, found in self.problems.items():
            lines.append(f"  {name:20} {len(found)}{'  ' + '; '.join(found[:5]) if found else ''}")
        return "\n".join(lines)


class Round:
    """One round, which its seed makes again."""

    def __init__(self, airflow: LocalAirflow, api: Api, database: Database, outcome: Outcome) -> None:
        self.airflow = airflow
        self.api = api
        self.emulator = api.emulator
        self.database = database
        self.outcome = outcome
        self.chance = random.Random(outcome.seed)
        self.over = threading.Event()
        self.hands = threading.Lock()
        self.run_id = ""

    def play(self, limit: float) -> None:
        """Start everything, let faults happen, wait for rest, and look.

        :param limit: seconds after which what has not come to rest counts as stuck.
        """
        number = self.outcome.runs
        keywords = [f"thing {self.outcome.seed}-{index}" for index in range(number)]
        half = number // 2
        for _ in range(number * 2):
            self.emulator.next_run(
                SEARCH.id,
                duration=self.chance.uniform(*DURATIONS),
                callback_fault=self.chance.choice(CALLBACK_FAULTS),
                outcome="failed" if self.chance.random() < FAILING else "finished",
            )
        began = time.monotonic()
        self.run_id = self.airflow.trigger("faults", {"deferred": keywords[:half], "in_the_worker": keywords[half:]})
        # A run and its wait take some two seconds of a core each; the rest of the time is for the faults' aftermath.
        trouble = threading.Thread(target=self._make_trouble, args=(45 + number * 1.2,), daemon=True)
        trouble.start()
        with suppress(TimeoutError):
            wait_for("Rest", self._at_rest, timeout=limit, every=2)
        self.over.set()
        trouble.join(60)
        self.outcome.seconds = time.monotonic() - began
        self.airflow.revive()
        self._look(keywords)

    def _make_trouble(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        faults: dict[str, tuple[int, Callable[[], None]]] = {
            "worker killed": (5, self._kill_a_worker),
            "triggerer killed": (2, lambda: self._kill("triggerer")),
            "API server killed": (1, lambda: self._kill("api-server")),
            "scheduler killed": (1, lambda: self._kill("scheduler")),
            "database restarted": (1, self.database.restart),
            "API fault": (5, self._break_the_api),
            "API away": (1, lambda: self.api.away(lambda: self.over.wait(self.chance.uniform(0.0, 4.0)))),
        }
        names = list(faults)
        while time.monotonic() < end and not self.over.wait(self.chance.uniform(*PAUSES)):
            [name] = self.chance.choices(names, [faults[each][0] for each in names])
            with self.hands, suppress(psutil.Error):
                faults[name][1]()
                self.outcome.faults[name] += 1
        # What a worker had taken but not begun when it was killed, the LocalExecutor has forgotten: such a task is
        # queued for ever, unless a new scheduler finds it.
        if not self.over.is_set():
            with self.hands:
                self._kill("scheduler")

    def _kill(self, component: str) -> None:
        self.airflow.stop(component, with_signal=signal.SIGKILL)
        self.over.wait(self.chance.uniform(0.0, 4.0))
        self.airflow.start(component)

    def _kill_a_worker(self) -> None:
        """Kill the process of a task, or the one that watches over it."""
        found = [
            process
            for worker in self.airflow.processes("scheduler")
            if "airflow worker" in " ".join(worker.cmdline())
            for process in [worker, *worker.children(recursive=True)]
        ]
        busy = [each for each in found if each.children() or "airflow worker" not in " ".join(each.cmdline())]
        if busy:
            self.chance.choice(sorted(busy, key=lambda process: process.pid)).kill()

    def _break_the_api(self) -> None:
        fault, endpoint = self.chance.choice(REQUEST_FAULTS), self.chance.choice(ENDPOINTS)
        self.emulator.fault(endpoint, fault, times=self.chance.randint(1, 4))

    def _task_instances(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self.airflow.api(
                "GET",
                f"dags/faults/dagRuns/{self.run_id}/taskInstances",
                params={"limit": 100, "offset": len(found), "order_by": "id"},
            )
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return [ti for ti in found if ti["task_id"] in KINDS and ti["map_index"] >= 0]

    def _at_rest(self) -> bool:
        """Say whether all is over; and start again what gave up by itself, or it never would be."""
        with self.hands:
            for name in self.airflow.revive():
                self.outcome.faults[f"{name} gave up by itself"] += 1
        with suppress(requests.RequestException, ValueError):
            return self.airflow.dag_run("faults", self.run_id)["state"] in ("success", "failed")
        return False

    def _look(self, keywords: list[str]) -> None:
        self.airflow.wait_until_healthy()
        problems, half = self.outcome.problems, len(keywords) // 2
        by_keyword = collections.defaultdict(list)
        for task in self.emulator.tasks:
            by_keyword[dict(task.inputs)["keyword"]].append(task)
        self.outcome.started = len(self.emulator.tasks)
        for keyword, tasks in by_keyword.items():
            for earlier, later in itertools.pairwise(tasks):
                ended = earlier.history[-1] if earlier.status in ("failed", "canceled") else None
                if ended is not None and ended[1] <= later.created_at:
                    self.outcome.after_failed += earlier.status == "failed"
                    self.outcome.after_stopped += earlier.status == "canceled"
                else:
                    problems["runs paid for twice"].append(f"{keyword}: {earlier.id} {earlier.status}, then {later.id}")
            problems["runs left going"] += [
                f"{keyword}: {task.id}" for task in tasks if task.status not in ("finished", "failed", "canceled")
            ]
        seen = set()
        for ti in self._task_instances():
            kind, index, state = ti["task_id"], ti["map_index"], ti["state"]
            keyword = keywords[index + (half if kind == "in_the_worker" else 0)]
            seen.add(keyword)
            if state not in ("success", "failed", "upstream_failed"):
                problems["tasks stuck"].append(f"{keyword}: {state}")
                continue
            finished = [task.id for task in by_keyword[keyword] if task.status == "finished"]
            if state != "success":
                problems["tasks failed"].append(f"{keyword}: {state} in try {ti['try_number']}")
                if finished:
                    problems["runs lost"].append(f"{keyword}: {finished}")
                continue
            task_id = self.airflow.xcom("faults", self.run_id, kind, "task_id", map_index=index)
            result = self.airflow.xcom("faults", self.run_id, kind, "return_value", map_index=index)
            if [task_id] != finished or result != results_for(keyword):
                problems["wrong results"].append(f"{keyword}: result of {task_id}, finished {finished}")
        problems["tasks stuck"] += [f"{keyword}: never made" for keyword in keywords if keyword not in seen]


class Api:
    """The emulator at an address that it keeps, also when nobody listens there for a while."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self._port = free_port()
        self._serving = ExitStack()
        self.connection = self._serve().connection

    def _serve(self) -> RunningEmulator:
        return self._serving.enter_context(self.emulator.serve(port=self._port))

    def away(self, wait: Callable[[], object]) -> None:
        """Cut all connections and refuse new ones for as long as something takes."""
        self.close()
        wait()
        self._serve()

    def close(self) -> None:
        """Serve no more."""
        self._serving.close()


@contextmanager
def world(home: Path) -> Iterator[tuple[LocalAirflow, Api, Database]]:
    """An Airflow on PostgreSQL that BrowserAct can call back."""
    api = Api(Emulator(concurrency=40))
    port = free_port()
    extra = {"webhook_base_url": f"http://127.0.0.1:{port}", "read_timeout": 3, "retry_budget": 6}
    with postgres() as database, closing(api):
        connection = json.dumps({**api.connection, "extra": extra})
        airflow = LocalAirflow(
            home,
            Path(__file__).parent / "dags",
            {**SETTINGS, "AIRFLOW_CONN_BROWSERACT_DEFAULT": connection},
            database=database.url,
            port=port,
        )
        with airflow.running():
            yield airflow, api, database


def run_round(runs: int, seed: int, home: Path) -> Outcome:
    """Play a round.

    :param runs: how many task instances there are.
    :param seed: what chance begins with.
    :param home: folder for Airflow.
    """
    outcome = Outcome(seed, runs)
    with world(home) as (airflow, api, database):
        Round(airflow, api, database, outcome).play(limit=240 + runs * 5)
    return outcome


def main() -> int:
    """Play a round and print what it came to."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--runs", type=int, default=300)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--home", type=Path)
    asked = options.parse_args()
    print(f"{asked.runs} runs, seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="browseract-faults-") as folder:
        outcome = run_round(asked.runs, asked.seed, asked.home or Path(folder) / "airflow")
    print(outcome)
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
