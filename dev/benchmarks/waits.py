"""What many deferred task instances cost one triggerer that waits for their runs: see :mod:`dev.benchmarks.run`."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from dataclasses import dataclass

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.client import BrowserActClient
from airflow_provider_browseract.api.settings import Settings
from airflow_provider_browseract.emulator import ORDERS, Emulator
from airflow_provider_browseract.runs import timings
from dev.benchmarks import webhook
from tests.helpers.databases import Database
from tests.helpers.local_airflow import LocalAirflow, wait_for

NUMBERS = (1, 500, 2000)
"""How many task instances wait in one triggerer. With the first, it has loaded everything that it needs."""

WAYS = ("polling", "callbacks")
SETTLE = 45.0
"""Seconds after the first poll of the last run before anything is measured."""

MEASURE = timings.SAFETY_POLL_INTERVAL
"""Seconds that are measured. A wait with a callback is polled once or twice in them, at any time."""


@dataclass(frozen=True)
class Cost:
    """What a triggerer uses.

    :param rss: its resident memory with all its processes, in bytes.
    :param cpu: the seconds of a core that it uses in a minute.
    :param transactions: the transactions of the database in a minute.
    :param blocked: how often Airflow has logged that the event loop was blocked.
    """

    rss: int
    cpu: float
    transactions: float
    blocked: int


def waits() -> None:
    """Memory, processor time and database transactions for each wait, with few and with many."""
    emulator = Emulator(concurrency=NUMBERS[-1])
    emulator.set_workflow(ORDERS.id, duration=100_000.0, one_at_a_time=False)
    with emulator.serve() as running:
        with BrowserActClient(Settings(api_key=running.api_key, base_url=running.url)) as client:
            task_ids = [client.send(v2.run(ORDERS.id)).id for _ in range(NUMBERS[-1])]
        with webhook.only_the_route(
            AIRFLOW_CONN_BROWSERACT_DEFAULT=json.dumps(running.connection),
            AIRFLOW__TRIGGERER__CAPACITY=str(2 * NUMBERS[-1]),
        ) as (airflow, database, run_id):
            for way in WAYS:
                _report(way, [_cost(airflow, database, emulator, run_id, way, task_ids[:number]) for number in NUMBERS])


def _report(way: str, costs: list[Cost]) -> None:
    one, few, many = costs
    for number, cost in zip(NUMBERS[1:], costs[1:], strict=True):
        print(
            f"{way}, {number} waits: memory {(cost.rss - one.rss) / number / 1024:.0f} KiB each (limit 64), "
            f"{1000 * (cost.cpu - one.cpu) / number:.1f} ms of a core each and minute, "
            f"{cost.transactions - one.transactions:.0f} more transactions a minute than with one, "
            f"event loop blocked {cost.blocked} times"
        )
    growth = ((many.cpu - one.cpu) / NUMBERS[2]) / ((few.cpu - one.cpu) / NUMBERS[1])
    print(f"{way}: processor time of a wait, {NUMBERS[1]} to {NUMBERS[2]} waits: ratio {growth:.2f} (limit 1.2)")


def _cost(
    airflow: LocalAirflow, database: Database, emulator: Emulator, run_id: str, way: str, task_ids: list[str]
) -> Cost:
    """Start a triggerer with waits, and return what it uses once it has polled all of them."""
    webhook.with_models([sys.executable, "-m", "dev.benchmarks.waits", run_id, way, *task_ids], airflow)
    log = airflow.home / "triggerer.out"
    before, first = log.stat().st_size, len(emulator.requests)

    def polled() -> bool:
        asked = {each.query.rpartition("=")[2] for each in emulator.requests[first:] if each.endpoint == "get-task"}
        return asked.issuperset(task_ids)

    airflow.start("triggerer")
    try:
        wait_for("A poll of each run", polled, timeout=600, every=2.0)
        time.sleep(SETTLE)
        cpu, transactions, began = _cpu(airflow), _transactions(database), time.monotonic()
        time.sleep(MEASURE)
        minutes = (time.monotonic() - began) / 60
        return Cost(
            airflow.memory("triggerer"),
            (_cpu(airflow) - cpu) / minutes,
            (_transactions(database) - transactions) / minutes,
            log.read_text(errors="replace")[before:].count("async thread was blocked"),
        )
    finally:
        airflow.stop("triggerer")


def _cpu(airflow: LocalAirflow) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in airflow.processes("triggerer"))


def _transactions(database: Database) -> int:
    import psycopg2  # type: ignore[import-untyped]

    with closing(psycopg2.connect(database.url.replace("+psycopg2", ""))) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database")
        return int(cursor.fetchone()[0])


def main() -> None:
    """Replace the waits in the database: the DAG run, the way and the ids of the runs are the arguments."""
    from airflow_provider_browseract.runs.callback_url import new_token
    from airflow_provider_browseract.runs.request import digest
    from airflow_provider_browseract.runs.wait import Wait
    from airflow_provider_browseract.triggers.task import TaskTrigger

    run_id, way, *task_ids = sys.argv[1:]
    token = digest(new_token()) if way == "callbacks" else None
    now = time.time()
    made = [Wait(task_id, now + 36_000, callback_token_sha256=token, began_at=now) for task_id in task_ids]
    webhook.delete_inserted()
    webhook.insert(run_id, [TaskTrigger(browseract_conn_id="browseract_default", wait=wait) for wait in made])


if __name__ == "__main__":
    main()
