"""A short round of faults; ``make faults`` plays a whole one. Endless runs by themselves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from tests.helpers.databases import skip_without_postgres
from tests.helpers.local_airflow import wait_for

from .round import LOOP, LOOPS, Outcome, Round, world

SEED = 2
RUNS = 30

LATE = ("task process terminated", "worker killed", "worker terminated")

HAPPEN = {
    *("API behind a gateway that refuses", "API key rotated", "API server killed", "database slow", "forged flood"),
    *("triggerer killed", "triggerer terminated", "worker group terminated", *LATE),
    *(f"{name} while an output is late" for name in LATE),
    *("XCom return_value refused", "XCom task refused"),
}
"""Kinds of faults without which the round would prove too little."""

pytestmark = [
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not hasattr(BaseTrigger, "on_kill"), reason="before Airflow 3.3 nothing is kept over tries"),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A real Airflow, an emulator that it uses, and Airflow's database."""
    skip_without_postgres()
    with world(tmp_path_factory.mktemp("faults") / "airflow", seed=SEED) as (airflow, api, database):
        yield SimpleNamespace(airflow=airflow, api=api, database=database)


def test_endless_runs_are_stopped_at_max_credits_even_after_a_killed_triggerer(parts):
    """With a step every 2 seconds, a poll every 10 and a cap of 100, a run uses 130 credits at most."""
    airflow, emulator = parts.airflow, parts.api.emulator
    emulator.add_workflow(LOOP)
    before = len(emulator.tasks)
    each = 3
    conf = {kind: [f"{kind} {index}" for index in range(each)] for kind in LOOPS}
    run_id = airflow.trigger("faults", {"loop": LOOP.id, **conf})

    def of_loops() -> list[dict[str, Any]]:
        return [ti for ti in airflow.task_instances("faults", run_id) if ti["task_id"] in LOOPS]

    # All but those that wait in a worker.
    number = (len(LOOPS) - 1) * each
    wait_for(
        "Deferred task instances", lambda: sum(ti["state"] == "deferred" for ti in of_loops()) == number, timeout=120
    )
    airflow.stop("triggerer", with_signal=signal.SIGKILL)
    airflow.start("triggerer")
    assert airflow.wait_for_run("faults", run_id) == "failed"
    loops = emulator.tasks[before:]
    assert [task.status for task in loops] == ["canceled"] * len(LOOPS) * each
    assert max(task.credit for task in loops) <= 130
    assert [(ti["state"], ti["try_number"]) for ti in of_loops()] == [("failed", 1)] * len(LOOPS) * each


def test_round_of_faults_loses_duplicates_and_leaves_no_run(parts, capsys):
    outcome = Outcome(SEED, RUNS)
    Round(parts.airflow, parts.api, parts.database, outcome).play(limit=600)
    with capsys.disabled():
        print(f"\n{outcome}")
    assert outcome.good, str(outcome)
    assert outcome.faults.keys() >= HAPPEN
