"""How long many runs take on a plan that allows few at once, and how fast a slot changes hands."""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from airflow_provider_browseract.emulator import CONTACTS, SEARCH, Emulator, Run
from tests.helpers.databases import postgres
from tests.helpers.local_airflow import LocalAirflow, free_port

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 3.0
"""Seconds within which refusals count as at once: the log line comes after the refusal, at times that differ."""

REFUSED = "has no free slot now"
TIMELINE = 60
"""Columns of the timeline of used slots."""


@dataclass(frozen=True)
class Scenario:
    """Runs that wait for the slots of a plan.

    :param name: what is measured.
    :param dag_id: the DAG with the runs.
    :param plan: how many runs the plan allows at once.
    :param duration: seconds that a run takes.
    :param limit: the makespan in units of the ideal one, at most.
    :param callbacks: whether BrowserAct can call back; otherwise, runs are polled.
    :param sqlite: whether Airflow uses SQLite instead of PostgreSQL.
    :param shared_runs: whether each version of the API lists the runs of both.
    """

    name: str
    dag_id: str
    plan: int
    duration: float
    limit: float
    callbacks: bool = True
    sqlite: bool = False
    shared_runs: bool = False


SCENARIOS = (
    Scenario("callbacks", "slots", 10, 20.0, 1.35),
    Scenario("callbacks, SQLite", "slots", 10, 20.0, 1.35, sqlite=True),
    Scenario("polling", "slots", 10, 20.0, 1.35, callbacks=False),
    Scenario("callbacks, a pool", "slots_in_a_pool", 10, 20.0, 1.35),
    Scenario("workflows and bots", "slots_of_both_versions", 10, 20.0, 1.35),
    Scenario("workflows and bots, shared lists", "slots_of_both_versions", 10, 20.0, 1.35, shared_runs=True),
    Scenario("workflows and bots, polling", "slots_of_both_versions", 10, 20.0, 1.35, callbacks=False),
    Scenario("one slot, callbacks", "one_slot", 1, 10.0, 1.35),
    Scenario("one slot, polling", "one_slot", 1, 10.0, 1.35, callbacks=False),
)


def slots(*names: str) -> None:
    """How long many runs take on a plan that allows few at once (limit: 1.35 of the ideal), in nine real Airflows."""
    for scenario in SCENARIOS:
        if not names or scenario.name in names:
            _measure(scenario)


def _measure(scenario: Scenario) -> None:
    emulator = Emulator(concurrency=scenario.plan, shared_runs=scenario.shared_runs)
    for source in (SEARCH, CONTACTS):
        emulator.set_workflow(source.id, duration=scenario.duration)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        database = None if scenario.sqlite else stack.enter_context(postgres()).url
        running = stack.enter_context(emulator.serve())
        port = free_port()
        extra = {"webhook_base_url": f"http://127.0.0.1:{port}"} if scenario.callbacks else {}
        airflow = LocalAirflow(
            Path(folder, "airflow"),
            Path(__file__).parent / "dags",
            {
                "AIRFLOW_CONN_BROWSERACT_DEFAULT": json.dumps({**running.connection, "extra": extra}),
                "AIRFLOW__CORE__PARALLELISM": "12",
                "PYTHONPATH": str(ROOT),
            },
            database=database,
            port=port,
        )
        stack.enter_context(airflow.running())
        airflow.cli("pools", "set", "browseract", str(scenario.plan), "The plan", "--include-deferred")
        run_id = airflow.trigger(scenario.dag_id)
        state = airflow.wait_for_run(scenario.dag_id, run_id, timeout=900)
        ended = airflow.api("GET", f"dags/{scenario.dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 200})
        logs = [
            airflow.log(scenario.dag_id, run_id, ti["task_id"], map_index=ti["map_index"])
            for ti in ended["task_instances"]
        ]
    print(f"{scenario.name}: {state}")
    for line in _figures(emulator, scenario, logs):
        print(f"  {line}")


def _figures(emulator: Emulator, scenario: Scenario, logs: list[list[str]]) -> list[str]:
    """Return the figures of a scenario.

    :param logs: the log of each task instance. Its lines begin with their times, which can be compared as texts.
    """
    runs = sorted(emulator.tasks, key=lambda run: run.created_at)
    starts = [run.created_at for run in runs]
    ends = sorted(run.finished_at for run in runs if run.finished_at)
    took = (ends[-1] - starts[0]).total_seconds()
    ideal = len(runs) / scenario.plan * scenario.duration
    # The slot of the first run that ends goes to the first run that had none, and so on.
    changes = [(start - end).total_seconds() for start, end in zip(starts[scenario.plan :], ends, strict=False)]
    refusals = [[line for line in log if REFUSED in line] for log in logs]
    started = [next(line for line in log if "Started " in line) for log in logs]
    # The first wave is over when each task instance has tried its start once. It takes slots from task instances
    # that were woken before.
    over = max(min([*refused, start]) for refused, start in zip(refusals, started, strict=True))
    late = sum(began > over for log in logs for began in _refused_processes(log))
    later = sum(start.isoformat() > over[:26] for start in starts)
    counts = [sum(each.endpoint == name for each in emulator.requests) for name in ("list-tasks", "page-runs")]
    return [
        f"makespan {took:.0f} s, {took / ideal:.2f} of the ideal {ideal:g} s (limit {scenario.limit})",
        f"a slot is free for {statistics.median(changes):.1f} s at the median, {max(changes):.1f} s at most",
        f"refused starts: {sum(map(len, refusals))} of {sum(map(bool, refusals))} task instances; after the first wave "
        f"{late} of {late + later} starts, {100 * late / max(1, late + later):.0f} % (limit 5 %)",
        f"overtaken by at most {_overtaken(refusals, started)} that were refused later (limit {scenario.plan})",
        f"requests: {counts[0]} list-tasks, {counts[1]} page-runs",
        f"slots in use: {_timeline(runs, starts[0], took)}",
    ]


def _refused_processes(log: list[str]) -> Iterator[str]:
    """Yield the first line of each process whose start was refused."""
    began = ""
    for line in log:
        if "::group::Pre Execute" in line:
            began = line
        elif REFUSED in line:
            yield began


def _overtaken(refusals: list[list[str]], started: list[str]) -> int:
    """Return how many task instances that were refused later have started before one, at most."""
    moments = [(_time(refused[0]), _time(start)) for refused, start in zip(refusals, started, strict=True) if refused]
    return max(
        (
            sum(refused > other + AT_ONCE and started < start for refused, started in moments)
            for other, start in moments
        ),
        default=0,
    )


def _time(line: str) -> float:
    """Return the time with which a line of a log begins, in seconds since the epoch."""
    return datetime.fromisoformat(line.split()[0]).timestamp()


def _timeline(runs: list[Run], began: datetime, took: float) -> str:
    """Return how many slots are in use over time, a character for each moment."""
    shown = ""
    for column in range(TIMELINE):
        at = column * took / TIMELINE
        used = sum(
            (run.created_at - began).total_seconds() <= at < ((run.finished_at or began) - began).total_seconds()
            for run in runs
        )
        shown += "0123456789ABCDEFGHIJ"[used]
    return shown
