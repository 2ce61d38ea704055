"""A round of faults: many runs in a real Airflow whose parts fail at random, and a check of their results.

    python -m tests.faults.round [--runs 300] [--seed 1] [--plan 40] [--budget 1000000]

With a small plan, the queue for slots is always full: all task instances are deferred, and no run is long. With a small
budget, many starts are refused, and the runs must not exceed it.

Nothing is asserted during the round. At the end, Airflow's results are compared with the emulator's record of every
run.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import json
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg2  # type: ignore[import-untyped]
import requests

from airflow_provider_browseract.emulator import (
    CONTACTS,
    SEARCH,
    TEMPLATE_SEARCH,
    CallbackFault,
    Emulator,
    RequestFault,
    Run,
)
from airflow_provider_browseract.emulator.catalogue import contact_of, results_for
from airflow_provider_browseract.runs.callback_url import new_token
from tests.helpers.databases import Database, postgres
from tests.helpers.local_airflow import LocalAirflow, free_port, wait_for

from .backends import failing_xcoms

KILL, TERM = signal.SIGKILL, signal.SIGTERM

SOURCES = {
    "deferred": SEARCH,
    "in_the_worker": SEARCH,
    "bot_deferred": CONTACTS,
    "bot_in_the_worker": CONTACTS,
    "template": TEMPLATE_SEARCH,
}
"""What each kind of task instances runs: workflows with version 2 of the API, and the others with version 3."""

LOOPS = ("loop_with_callback", "loop_polled", "loop_in_the_worker", "loop_of_a_bot")
"""Kinds of task instances whose runs would never end, if ``max_credits`` did not stop them."""

LOOP = dataclasses.replace(SEARCH, id="71002814653029999", name="Search forever", step_every=2.0)
CONNECTION = "browseract_default"
XCOMS = "xcoms"
"""Folder in Airflow's home in which the writes of XComs are counted."""

GRACES = (10.0, 25.0)
"""Seconds between SIGTERM and SIGKILL where a whole component is ended."""

AWAY = (0.0, 4.0)
"""Seconds until something that was killed is started again."""

LATE_BY = 10.0
"""Seconds after the end of such a run until its output is there."""

ENDPOINTS = (
    *("run-task", "run-task", "run-task", "get-task", "get-task", "list-tasks", "stop-task"),
    *("create-run", "create-run", "create-template-run", "query-bot", "query-run", "query-run"),
    *("page-runs", "cancel-run"),
)
REQUEST_FAULTS = (
    RequestFault.reset(),
    RequestFault.lost_response(),
    RequestFault.lost_response(status=502),
    RequestFault.hung(),
    RequestFault.hung(processed=True),
    RequestFault.status(500),
    RequestFault.status(429),
    RequestFault.refused(10118),
)
OUTAGES = (
    RequestFault.html(403),
    RequestFault.gateway(403),
    RequestFault.html(200),
    RequestFault.html(503),
    RequestFault.html(404),
    RequestFault.gateway(404),
    RequestFault.redirect(),
)
"""What a firewall, a maintenance page, a login page or a gateway answers in the place of the API."""

MOST_LONG = 15
"""How many runs of a workflow, bot or template are planned to take as long as faults happen."""

TABLES = ("task_instance", "xcom", "trigger", "connection")
"""Tables of Airflow's that are locked to slow the database down."""

CALLBACK_FAULTS = (
    None,
    CallbackFault.lost(),
    CallbackFault.repeated(3),
    CallbackFault.late(4.0),
    CallbackFault.hung_up(),
)

SETTINGS = {
    "AIRFLOW__CORE__PARALLELISM": "12",
    # A dead process is reported after seconds instead of minutes.
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


PLAN = 40
"""How many runs BrowserAct allows at once, more than there usually are."""

BUDGET = 1_000_000
"""Credits that all runs may use together: more than they use, so that each start is checked and none refused."""


PROBLEMS = (
    "runs lost",
    "runs paid for twice",
    "runs left running",
    "tasks stuck",
    "tasks failed",
    "wrong results",
    "loops not stopped",
    "over the budget",
)


@dataclass
class Outcome:
    """What a round came to."""

    seed: int
    runs: int
    plan: int = PLAN
    budget: int = BUDGET
    credits: int = 0
    loops: int = 0
    loop_credits: list[int] = field(default_factory=list)
    refused: int = 0
    undecided: int = 0
    seconds: float = 0.0
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    started: int = 0
    after_failed: int = 0
    replaced: int = 0
    problems: dict[str, list[str]] = field(default_factory=lambda: {kind: [] for kind in PROBLEMS})

    @property
    def queues(self) -> bool:
        """Whether most runs have to wait for a slot."""
        return self.plan < PLAN

    @property
    def limited(self) -> bool:
        """Whether the budget refuses starts."""
        return self.budget < BUDGET

    @property
    def kinds(self) -> dict[str, int]:
        """How many task instances there are of each kind: five of ten run a workflow, four a bot, and one a template.

        Half of the runs of workflows and bots wait in a worker, unless most of them have to wait for a slot.
        """
        bots, templates = self.runs * 2 // 5, self.runs // 10
        numbers = {"template": templates}
        for prefix, number in (("", self.runs - bots - templates), ("bot_", bots)):
            numbers[f"{prefix}in_the_worker"] = in_the_worker = 0 if self.queues else number // 2
            numbers[f"{prefix}deferred"] = number - in_the_worker
        return numbers

    @property
    def good(self) -> bool:
        """Whether nothing was lost, doubled, left or wrong."""
        return not any(self.problems.values())

    def __str__(self) -> str:
        lines = [
            f"seed {self.seed}: {self.runs} task instances, {self.started} runs started, of which {self.after_failed} "
            f"after one that had failed; {sum(self.faults.values())} faults in {self.seconds:.0f} s",
            "  " + ", ".join(f"{count} {name}" for name, count in sorted(self.faults.items())),
        ]
        if self.loop_credits:
            lines.append(f"  loops with max_credits=100 were stopped after {sorted(self.loop_credits)} credits")
        if self.limited:
            lines.append(f"  {self.credits} of {self.budget} credits used, {self.refused} starts refused")
        if self.undecided:
            lines.append(
                f"  {self.undecided} runs of a template are named by the error of their task: lost start, or new key"
            )
        if self.replaced:
            lines.append(f"  {self.replaced} runs were stopped by tries that Airflow considered dead")
        for name, found in self.problems.items():
            lines.append(f"  {name:20} {len(found)}{'  ' + '; '.join(found[:5]) if found else ''}")
        return "\n".join(lines)


class Round:
    """One round, which its seed makes again."""

    def __init__(self, airflow: LocalAirflow, api: Api, database: Database, outcome: Outcome) -> None:
        self.airflow, self.api, self.database, self.outcome = airflow, api, database, outcome
        self.emulator = api.emulator
        self.chance = random.Random(outcome.seed)
        self.over = threading.Event()
        self.hands = threading.Lock()
        self.run_id = ""
        self.first = len(api.emulator.tasks)
        self.aside: list[threading.Thread] = []

    def play(self, limit: float) -> None:
        """Start everything, let faults happen, wait for rest, and look. What has no rest at the limit is stuck."""
        number = self.outcome.runs
        numbers = iter(range(number))
        keywords = {
            kind: [f"thing {self.outcome.seed}-{index}" for index in itertools.islice(numbers, each)]
            for kind, each in self.outcome.kinds.items()
        }
        # A run and its wait take some two seconds of a core each; the rest of the time is for the faults' aftermath.
        seconds = 60 + number * 1.2
        for source in dict.fromkeys(SOURCES.values()):
            each = sum(self.outcome.kinds[kind] for kind, one in SOURCES.items() if one is source)
            self._plan(source.id, each * 2, seconds)
        began = time.monotonic()
        (self.airflow.home / XCOMS).mkdir()
        self.emulator.add_workflow(LOOP)
        # Endless runs would keep the slots of a small plan, and use an unknown part of a small budget.
        loops = 0 if self.outcome.queues or self.outcome.limited else max(1, number // 30)
        self.outcome.loops = len(LOOPS) * loops
        conf = {kind: [f"{kind} {self.outcome.seed}-{index}" for index in range(loops)] for kind in LOOPS}
        self.run_id = self.airflow.trigger("faults", {"loop": LOOP.id, **conf, **keywords})
        with ThreadPoolExecutor(1) as executor:
            trouble = executor.submit(self._make_trouble, seconds)
            with suppress(TimeoutError):
                wait_for("Rest", self._at_rest, timeout=limit, every=2)
            self.over.set()
        trouble.result()
        for thread in self.aside:
            thread.join(60)
        self.outcome.seconds = time.monotonic() - began
        refused = failing_xcoms.refused_writes(self.airflow.home / XCOMS)
        self.outcome.faults.update(f"XCom {key} refused" for key in refused)
        self.airflow.revive()
        self._look(keywords)

    def _plan(self, source: str, number: int, seconds: float) -> None:
        """Decide how some runs of a workflow, bot or template go, while faults happen for some seconds."""
        # Each first run is the longest, so that no fault comes too late. Some others take as long as faults happen; not
        # many, because half of them hold a worker for so long.
        share = 0 if self.outcome.queues else min(0.1, MOST_LONG / number)
        durations = [seconds * 1.3] + [
            seconds if self.chance.random() < share else self.chance.uniform(4.0, 20.0) for _ in range(number)
        ]
        are_late = [self.chance.random() < 0.3 for _ in durations]
        for duration, late in zip(durations, are_late, strict=True):
            self.emulator.next_run(
                source,
                duration=duration,
                callback_fault=self.chance.choice(CALLBACK_FAULTS),
                output_after=LATE_BY if late else 0.0,
                outcome="failed" if duration < seconds and self.chance.random() < 0.05 else "finished",
            )

    def faults(self) -> dict[str, tuple[int, Callable[[], object]]]:
        """Return the weight of each fault, and what to do. Each happens at least once; what has no weight, once."""
        return {
            "worker killed": (5, lambda: self._signal_a_worker(KILL)),
            "worker terminated": (5, lambda: self._signal_a_worker(TERM)),
            "task process terminated": (4, lambda: self._signal_a_worker(TERM, of_task=True)),
            "worker killed while an output is late": (2, lambda: self._signal_readers(KILL)),
            "worker terminated while an output is late": (2, lambda: self._signal_readers(TERM)),
            "task process terminated while an output is late": (2, lambda: self._signal_readers(TERM, of_task=True)),
            "worker group terminated": (1, lambda: self.evict("scheduler")),
            "triggerer killed": (2, lambda: self.kill("triggerer")),
            "triggerer terminated": (2, lambda: self.evict("triggerer")),
            "API server killed": (1, lambda: self.kill("api-server")),
            "scheduler killed": (1, lambda: self.kill("scheduler")),
            "database restarted": (1, self.database.restart),
            "database slow": (2, self._slow_the_database),
            "API fault": (5, self._break_the_api),
            "API away": (1, lambda: self.api.away(lambda: self.over.wait(self.chance.uniform(*AWAY)))),
            "API behind a gateway that refuses": (0, self._put_a_gateway_before_the_api),
            "API key rotated": (1, self._rotate_the_key),
            "forged flood": (2, self._forge_callbacks),
        }

    def _make_trouble(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        faults = self.faults()
        names = list(faults)
        first = self.chance.sample(names, len(names))
        unblocked = False
        while (first or time.monotonic() < end) and not self.over.wait(self.chance.uniform(1.0, 4.0)):
            name = first.pop() if first else self.chance.choices(names, [faults[each][0] for each in names])[0]
            with self.hands:
                happened = self._happens(name, faults[name][1])
            self.outcome.faults[name] += happened
            if not happened and not self.outcome.faults[name]:
                first.insert(0, name)
                if time.monotonic() > end and not unblocked:
                    # A worker that dies while it reads the LocalExecutor's queue keeps the lock of that queue, so no
                    # other one gets a task, and there is no process that the fault could be caused in.
                    unblocked = True
                    self.recover()
        if not self.over.is_set():
            self.recover()
            with suppress(RuntimeError, TimeoutError):
                self.airflow.wait_until_healthy()

    def recover(self) -> None:
        """Do what an operator of Airflow has to do after such faults."""
        # What a worker had taken but not begun when it was killed, the LocalExecutor has forgotten: such a task is
        # queued forever, unless a new scheduler finds it.
        with self.hands:
            self.kill("scheduler")

    def _happens(self, name: str, fault: Callable[[], object]) -> bool:
        """Cause a fault, and return whether there was anything to cause it in."""
        self._note(name)
        try:
            happened = fault() is not False
        except (psutil.Error, psycopg2.Error) as error:
            self._note(f"{name}: {error}")
            return False
        self._note(f"{name}: {'done' if happened else 'nothing to do it to'}")
        return happened

    def _note(self, what: str) -> None:
        """Write a line to the round's own log, next to Airflow's logs."""
        with (self.airflow.home / "faults.out").open("a") as diary:
            diary.write(f"{datetime.now(timezone.utc).isoformat(timespec='milliseconds')} {what}\n")

    def kill(self, component: str) -> None:
        """End a component with SIGKILL, and start it again some seconds later."""
        self.airflow.stop(component, with_signal=KILL)
        self.over.wait(self.chance.uniform(*AWAY))
        self.airflow.start(component)

    def evict(self, component: str) -> None:
        """End a component as systemd or Kubernetes does, with everything that it started, and start it again."""
        self.airflow.evict(component, grace=self.chance.uniform(*GRACES), everyone=self.chance.random() < 0.5)
        self.airflow.start(component)

    def _signal_a_worker(self, number: signal.Signals, *, of_task: bool | None = None) -> bool:
        """Send a signal to the process of a task or to its supervisor, and return whether there is one.

        :param of_task: whether the signal goes to the process of the task; None chooses at random.
        """
        busy = self.airflow.busy_workers()
        # SIGTERM to the watcher is what Kubernetes sends to a pod. SIGKILL hits either, as it comes.
        if of_task is None:
            of_task = number == KILL and self.chance.random() < 0.5
        if busy:
            worker, task = self.chance.choice(busy)
            (task if of_task else worker).send_signal(number)
        return bool(busy)

    def _signal_readers(self, number: signal.Signals, *, of_task: bool = False) -> bool:
        """Send a signal to all busy workers, or to the processes of their tasks, while the output of a run is late."""

        def is_late() -> bool:
            now = datetime.now(timezone.utc)
            ended = [
                (now - task.finished_at).total_seconds()
                for task in self.emulator.tasks[self.first :]
                if task.workflow.output_after and task.status == "finished" and task.finished_at
            ]
            # A callback resumes the task within some seconds.
            return any(4 < seconds < LATE_BY for seconds in ended)

        busy = []
        with suppress(TimeoutError):
            wait_for("A late output", is_late, timeout=30, every=0.2)
            busy = self.airflow.busy_workers()
        for worker, task in busy:
            with suppress(psutil.NoSuchProcess):
                (task if of_task else worker).send_signal(number)
        return bool(busy)

    def _slow_the_database(self) -> None:
        """Lock tables of Airflow's for some seconds, several times."""
        for _ in range(self.chance.randint(2, 3)):
            seconds, table = self.chance.uniform(1.0, 4.0), self.chance.choice(TABLES)
            self.database.lock(table, seconds, reads=self.chance.random() < 0.5)

    def _put_a_gateway_before_the_api(self) -> None:
        """Let something else respond instead of the API: on all endpoints, then on one of them."""
        # Two to five minutes in a whole round, half a minute in a short one. Meanwhile, no run is started.
        least, most = (max(30.0, min(self.outcome.runs, 300) * share) for share in (0.4, 1.0))
        share, everywhere, there = self.chance.uniform(0.5, 0.8), *self.chance.sample(OUTAGES, 2)
        seconds, endpoint = self.chance.uniform(least, most), self.chance.choice(ENDPOINTS)

        def play() -> None:
            for what, fault, part in (("*", everywhere, share), (endpoint, there, 1 - share)):
                self._note(f"{fault.kind} {fault.http_status} in the place of {what} for {seconds * part:.0f} s")
                with self.emulator.fault(what, fault):
                    self.over.wait(seconds * part)

        self._beside(play)

    def _beside(self, what: Callable[[], None]) -> None:
        """Do something while other faults happen."""
        self.aside.append(threading.Thread(target=what, daemon=True))
        self.aside[-1].start()

    def _rotate_the_key(self) -> None:
        """Replace the API key in BrowserAct and in Airflow, in either order, with a few seconds in between."""
        key = f"app-{self.chance.getrandbits(64):016x}"
        steps = [partial(setattr, self.emulator, "api_key", key), partial(self._change_the_connection, key)]
        self.chance.shuffle(steps)
        seconds = self.chance.uniform(2.0, 6.0)
        steps[0]()
        self.over.wait(seconds)
        steps[1]()

    def _forge_callbacks(self) -> None:
        """Send callbacks with wrong tokens for the task instances of the round, while genuine ones arrive."""
        end = time.monotonic() + self.chance.uniform(5.0, 20.0)
        known: list[str] = []
        # The API server may be away.
        with suppress(requests.RequestException):
            known = [ti["id"] for ti in self.task_instances()]

        def forge() -> None:
            with requests.Session() as session:
                # More often, and the machine would do nothing else.
                while time.monotonic() < end and not self.over.wait(0.05):
                    with suppress(requests.RequestException):
                        url = self.airflow.callback_address(random.choice(known), new_token())
                        session.post(url, json={"status": "finished"}, timeout=10)

        for _ in range(4 if known else 0):
            self._beside(forge)

    def _change_the_connection(self, key: str) -> None:
        def changed() -> bool:
            with suppress(requests.RequestException):
                self.airflow.set_connection(CONNECTION, conn_type="browseract", password=key)
                return True
            return False

        # The API server may just have been killed.
        wait_for("A changed connection", changed, timeout=90)

    def _break_the_api(self) -> None:
        fault, endpoint = self.chance.choice(REQUEST_FAULTS), self.chance.choice(ENDPOINTS)
        self.emulator.fault(endpoint, fault, times=self.chance.randint(1, 4))

    def task_instances(self) -> list[dict[str, Any]]:
        """Read the mapped task instances of the round."""
        path = f"dags/faults/dagRuns/{self.run_id}/taskInstances"
        found: list[dict[str, Any]] = []
        while True:
            page = self.airflow.api("GET", path, params={"limit": 100, "offset": len(found), "order_by": "id"})
            found += page["task_instances"]
            if len(found) >= page["total_entries"] or not page["task_instances"]:
                return [ti for ti in found if ti["task_id"] in (*SOURCES, *LOOPS) and ti["map_index"] >= 0]

    def _at_rest(self) -> bool:
        """Return whether all is over; and start again what gave up by itself, or it never would be."""
        with self.hands:
            for name in self.airflow.revive():
                self.outcome.faults[f"{name} gave up by itself"] += 1
        with suppress(requests.RequestException, ValueError):
            return self.airflow.dag_run("faults", self.run_id)["state"] in ("success", "failed")
        return False

    def _look(self, keywords: dict[str, list[str]]) -> None:
        self.airflow.wait_until_healthy()
        problems = self.outcome.problems
        by_keyword: dict[str, list[Run]] = collections.defaultdict(list)
        of_loops: dict[str, list[Run]] = collections.defaultdict(list)
        for task in self.emulator.tasks[self.first :]:
            of = of_loops if task.workflow_id == LOOP.id else by_keyword
            of[_keyword_of(task)].append(task)
        self._check_loops(of_loops)
        self._check_budget()
        self.outcome.started = sum(map(len, by_keyword.values()))
        for keyword, tasks in by_keyword.items():
            for earlier, later in itertools.pairwise(tasks):
                # Nobody stops runs in a round, so a stopped run is one that should have been waited for, unless only a
                # try that Airflow considered dead knew it.
                if earlier.status == "failed" and earlier.history[-1][1] <= later.created_at:
                    self.outcome.after_failed += 1
                elif earlier.status == "canceled" and self._was_replaced(keyword, earlier, keywords):
                    self.outcome.replaced += 1
                else:
                    problems["runs paid for twice"].append(f"{keyword}: {earlier.id} {earlier.status}, then {later.id}")
            problems["runs lost"] += [
                f"{keyword}: {task.id} was stopped"
                for task in tasks[-1:]
                if task.status == "canceled" and not self.outcome.limited
            ]
            problems["runs left running"] += [
                f"{keyword}: {task.id}" for task in tasks if task.status not in ("finished", "failed", "canceled")
            ]
        seen = set()
        for ti in self.task_instances():
            kind, index, state = ti["task_id"], ti["map_index"], ti["state"]
            if kind in LOOPS:
                if state != "failed":
                    problems["loops not stopped"].append(f"{kind} {index}: {state}")
                continue
            keyword = keywords[kind][index]
            seen.add(keyword)
            if state not in ("success", "failed", "upstream_failed"):
                problems["tasks stuck"].append(f"{keyword}: {state}")
                continue
            finished = [task.id for task in by_keyword[keyword] if task.status == "finished"]
            if state == "failed" and self.outcome.limited and not finished:
                self.outcome.refused += 1
                continue
            if state == "failed" and kind == "template" and self._is_named(ti, by_keyword[keyword]):
                self.outcome.undecided += 1
                continue
            if state != "success":
                problems["tasks failed"].append(f"{keyword}: {state} in try {ti['try_number']}")
                if finished:
                    problems["runs lost"].append(f"{keyword}: {finished}")
                continue
            task_id = self.airflow.xcom("faults", self.run_id, kind, "task_id", map_index=index)
            result = self.airflow.xcom("faults", self.run_id, kind, "return_value", map_index=index)
            if [task_id] != finished or result != _result_of(kind, keyword):
                problems["wrong results"].append(f"{keyword}: result of {task_id}, finished {finished}")
        problems["tasks stuck"] += [
            f"{keyword}: never made" for keyword in itertools.chain(*keywords.values()) if keyword not in seen
        ]

    def _was_replaced(self, keyword: str, run: Run, keywords: dict[str, list[str]]) -> bool:
        """Return whether a run was stopped by the try that had started it, after Airflow had started another try."""
        kind = next(kind for kind, words in keywords.items() if keyword in words)
        index = keywords[kind].index(keyword)
        log = "\n".join(self.airflow.log("faults", self.run_id, kind, map_index=index))
        why = r"considered this try dead and started another one\.\s+The run was stopped\.\s+BrowserAct task"
        return re.search(rf"{why} {run.id}\b", log) is not None

    def _is_named(self, ti: dict[str, Any], runs: list[Run]) -> bool:
        """Return whether a task failed because of a lost start or a changed API key, with an error that names the run.

        Version 3 of the API does not show the template of a run, so such a run is not adopted.
        """
        log = "\n".join(self.airflow.log("faults", self.run_id, ti["task_id"], map_index=ti["map_index"]))
        found = re.findall(r"BrowserAct tasks of bot template .*?: (.*)", log)
        found += re.findall(r"the API key has changed, and it is not certain.*?BrowserAct task (\d+)", log, re.DOTALL)
        return bool(found and runs) and runs[-1].id in found[-1]

    def _check_loops(self, tasks: dict[str, list[Run]]) -> None:
        problems = self.outcome.problems["loops not stopped"]
        for keyword, runs in tasks.items():
            self.outcome.loop_credits += [run.credit for run in runs]
            if [run.status for run in runs] != ["canceled"]:
                problems.append(f"{keyword}: {[run.status for run in runs]}")
        if len(tasks) != self.outcome.loops:
            problems.append(f"{len(tasks)} of {self.outcome.loops} loops were started")

    def _check_budget(self) -> None:
        """Check that all runs together stay within the budget, plus what runs started at the same moment may use."""
        runs = self.emulator.tasks[self.first :]
        self.outcome.credits = sum(run.credit for run in runs)
        stopped = sum(run.status == "canceled" for run in runs)
        # A run uses 20 credits.
        most = self.outcome.budget + 20 + 10 * stopped
        if self.outcome.credits > most:
            self.outcome.problems["over the budget"].append(f"{self.outcome.credits} credits, {most} at most")


def _keyword_of(task: Run) -> str:
    inputs = dict(task.inputs)
    return str(inputs["company_name"] if task.workflow_id == CONTACTS.id else inputs["keyword"])


def _result_of(kind: str, keyword: str) -> Any:
    return contact_of(keyword, max_pages=2) if SOURCES[kind] is CONTACTS else results_for(keyword)


class Api:
    """The emulator at a fixed address, even while nothing listens there."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self._port = free_port()
        self._serving = ExitStack()
        self.connection = self._serve().connection

    def _serve(self) -> Emulator:
        return self._serving.enter_context(self.emulator.serve(port=self._port))

    def away(self, wait: Callable[[], object]) -> None:
        """Cut all connections and refuse new ones for as long as something takes."""
        self.close()
        wait()
        self._serve()

    def close(self) -> None:
        self._serving.close()


@contextmanager
def world(
    home: Path, *, seed: int, plan: int = PLAN, budget: int = BUDGET, make: Callable[..., LocalAirflow] = LocalAirflow
) -> Iterator[tuple[LocalAirflow, Api, Database]]:
    """An Airflow on PostgreSQL that BrowserAct can call back, and whose XComs fail now and then, as the seed says."""
    api = Api(Emulator(concurrency=plan))
    port = free_port()
    extra = {
        "webhook_base_url": f"http://127.0.0.1:{port}",
        "read_timeout": 3,
        "retry_budget": 6,
        "daily_credits": budget,
    }
    with postgres() as database, closing(api):
        here = Path(__file__).parent
        airflow = make(
            home,
            here / "dags",
            {
                **SETTINGS,
                "AIRFLOW__CORE__XCOM_BACKEND": "failing_xcoms.FailingXCom",
                failing_xcoms.FOLDER: str(home / XCOMS),
                failing_xcoms.SEED: str(seed),
            },
            database=database.url,
            modules=(here / "backends",),
            port=port,
        )
        with airflow.running():
            airflow.set_connection(CONNECTION, **api.connection, extra=json.dumps(extra))
            yield airflow, api, database


def main() -> int:
    """Play a round and print what it came to."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("runs", 300), ("seed", 1), ("plan", PLAN), ("budget", BUDGET)):
        options.add_argument(f"--{name}", type=int, default=default)
    options.add_argument("--home", type=Path)
    asked = options.parse_args()
    print(f"{asked.runs} runs, seed {asked.seed}, a plan of {asked.plan}", flush=True)
    outcome = Outcome(asked.seed, asked.runs, asked.plan, asked.budget)
    with tempfile.TemporaryDirectory(prefix="browseract-faults-") as folder:
        home = asked.home or Path(folder) / "airflow"
        with world(home, seed=asked.seed, plan=asked.plan, budget=asked.budget) as (airflow, api, database):
            Round(airflow, api, database, outcome).play(limit=300 + asked.runs * 6)
    print(outcome)
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
