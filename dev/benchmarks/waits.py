"""What many deferred task instances cost one triggerer that waits for their runs: see :mod:`dev.benchmarks.run`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.emulator import ORDERS, Emulator
from airflow_provider_browseract.panel.database import TaskInstanceKey
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.callback_url import new_token
from airflow_provider_browseract.runs.request import digest
from dev.benchmarks.figures import Figure
from dev.benchmarks.rows import CONN, Row, api_server, call, insert, prepared_airflow
from tests.helpers.local_airflow import LocalAirflow, wait_for

NUMBERS = (1, 500, 2000)
"""How many task instances wait in one triggerer. With the first, it has loaded everything that it needs."""

WAYS = ("polling", "callbacks")
SETTLE = 45.0
"""Seconds after the first poll of the last run before anything is measured."""

MEASURE = timings.SAFETY_POLL_INTERVAL
"""Seconds that are measured. A wait with a callback is polled once or twice in them, at any time."""


MEMORY = Figure("memory of a triggerer for each wait", 64, "KiB")
GROWTH = Figure(f"processor time of each of {NUMBERS[2]} waits, to that of each of {NUMBERS[1]}", 1.2)


@dataclass(frozen=True)
class Cost:
    """What a triggerer uses.

    :param rss: its resident memory with all its processes, in bytes.
    :param cpu: the seconds of a core that it uses in a minute.
    :param blocked: how often Airflow has logged that the event loop was blocked.
    """

    rss: int
    cpu: float
    blocked: int


def waits() -> None:
    """Memory and processor time of each wait, with few and with many."""
    emulator = Emulator(concurrency=NUMBERS[-1])
    emulator.set_workflow(ORDERS.id, duration=100_000.0, one_at_a_time=False)
    with emulator.serve() as running:
        with BrowserActClient(Settings(api_key=running.api_key, base_url=running.url)) as client:
            task_ids = [client.send(v2.run(ORDERS.id)).id for _ in range(NUMBERS[-1])]
        variables = {
            f"AIRFLOW_CONN_{CONN.upper()}": json.dumps(running.connection),
            "AIRFLOW__TRIGGERER__CAPACITY": str(2 * NUMBERS[-1]),
        }
        with prepared_airflow(variables=variables) as airflow:
            airflow.cli("dags", "reserialize")
            with api_server(airflow):
                for way in WAYS:
                    _report(way, [_cost(airflow, emulator, way, task_ids[:number]) for number in NUMBERS])


def _report(way: str, costs: list[Cost]) -> None:
    one, few, many = costs
    for number, cost in zip(NUMBERS[1:], costs[1:], strict=True):
        MEMORY.report(
            (cost.rss - one.rss) / number / 1024,
            f"{number} with {way}, {1000 * (cost.cpu - one.cpu) / number:.1f} ms of a core each and minute, "
            f"event loop blocked {cost.blocked} times",
        )
    GROWTH.report(((many.cpu - one.cpu) / NUMBERS[2]) / ((few.cpu - one.cpu) / NUMBERS[1]), way)


def _cost(airflow: LocalAirflow, emulator: Emulator, way: str, task_ids: list[str]) -> Cost:
    """Start a triggerer with waits, and return what it uses once it has polled all of them."""
    call(airflow, replace_waits, way, task_ids)
    log = airflow.home / "triggerer.out"
    log.touch()
    before, first = log.stat().st_size, len(emulator.requests)

    def polled() -> bool:
        asked = {each.query.rpartition("=")[2] for each in emulator.requests[first:] if each.endpoint == "get-task"}
        return asked.issuperset(task_ids)

    airflow.start("triggerer")
    try:
        wait_for("A poll of each run", polled, timeout=600, every=2.0)
        time.sleep(SETTLE)
        cpu, began = _cpu(airflow), time.monotonic()
        time.sleep(MEASURE)
        minutes = (time.monotonic() - began) / 60
        return Cost(
            airflow.memory("triggerer"),
            (_cpu(airflow) - cpu) / minutes,
            log.read_text(errors="replace")[before:].count("async thread was blocked"),
        )
    finally:
        airflow.stop("triggerer")


def _cpu(airflow: LocalAirflow) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in airflow.processes("triggerer"))


def replace_waits(way: str, task_ids: list[str]) -> None:
    """Replace the waits in the database."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    from airflow_provider_browseract.runs.wait import Wait
    from airflow_provider_browseract.triggers.task import TaskTrigger

    with create_session() as session:
        session.execute(delete(TaskInstance))
        session.execute(delete(Trigger))
    now, token = time.time(), digest(new_token()) if way == "callbacks" else None
    rows = []
    for index, task_id in enumerate(task_ids):
        wait = Wait(task_id, now + 36_000, callback_token_sha256=token, began_at=now)
        key = TaskInstanceKey("waits", "manual__0", "callback", index)
        rows.append(Row(key, trigger=TaskTrigger(browseract_conn_id=CONN, wait=wait)))
    insert(rows)
