"""What the pages of the panel cost, in a real API server: see :mod:`dev.benchmarks.run`."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial

import requests

from airflow_provider_browseract.emulator import SEARCH, Emulator
from airflow_provider_browseract.panel.database import TaskInstanceKey
from dev.benchmarks.figures import Figure
from dev.benchmarks.rows import CONN, Row, api_server, call, insert, prepared_airflow
from tests.helpers.local_airflow import LocalAirflow

RUNS = 2_000
"""Runs of the account in the last day, each started by a task instance."""

ACTIVE = 20
"""How many of them are active, so the list that is read again and again begins with them."""

WAITING = 200
"""Task instances in the queue."""

FAILED = 500
"""Task instances that have failed, each for a different reason."""

OUTPUT = 10_000
"""Characters in the output of each run."""

REQUESTS = 100
DAYS = 30
LINKED = 40_000
"""Runs of these days with their task instances, :data:`XCOMS` XComs each."""

XCOMS = 5
INSTANCES, OTHERS_FAILED = 300_000, 50_000
READS = 7
NEW = 10
"""Runs that are new when links are read again."""

DAG_IDS = [f"shop_{number:02}" for number in range(20)]
OVERVIEW = "/browseract/panel/"
FRAGMENT = {"X-BrowserAct-Panel": "fragment"}

OVERVIEW_TIME = Figure(f"overview with {RUNS:,} runs, {WAITING} waiting and {FAILED} failures, median", 75, "ms")
OVERVIEW_LONG = Figure("the same, 95 % within", 115, "ms")
SIZE = Figure("size of the overview", 293, "KiB")
MEMORY = Figure("memory of the API server with the first page", 20, "MiB")
LINKS = Figure(f"links of a day among {LINKED * XCOMS:,} XComs, first read, median", 150, "ms")
LINKS_AGAIN = Figure(f"the same, again with {NEW} new runs", 150, "ms")
FAILURES = Figure(f"{OTHERS_FAILED:,} failures among {INSTANCES:,} task instances", 150, "ms")


def panel() -> None:
    """Server time, size and memory of the overview of an account with many runs, failures and a long queue."""
    with _panel() as airflow, requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {_token(airflow)}"

        def get(path: str = OVERVIEW, **headers: str) -> requests.Response:
            response = session.get(f"{airflow.url}{path}", headers=headers, timeout=60)
            response.raise_for_status()
            return response

        for _ in range(REQUESTS):
            # What reads the database loads much of Airflow.
            get("/api/v2/dags")
        before = airflow.memory("api-server")
        first = _server_time(get())
        get(**FRAGMENT)
        memory = airflow.memory("api-server") - before
        fragments = [_server_time(get(**FRAGMENT)) for _ in range(REQUESTS)]
        pages = [get() for _ in range(REQUESTS)]
        later = airflow.memory("api-server") - before
    for taken in (fragments, list(map(_server_time, pages))):
        OVERVIEW_TIME.report(statistics.median(taken), f"the first one of the process {first:.0f} ms")
        OVERVIEW_LONG.report(statistics.quantiles(taken, n=20)[18], f"longest {max(taken):.0f} ms")
    SIZE.report(max(len(page.content) for page in pages) / 1024)
    MEMORY.report(memory / 2**20, f"{later / 2**20:+.1f} MiB after {2 * REQUESTS} more")


def links() -> None:
    """How long the panel reads Airflow's database that has many XComs, on SQLite and on PostgreSQL."""
    for kind in ("SQLite", "PostgreSQL"):
        with prepared_airflow(kind) as airflow:
            first, again, failures = call(airflow, read_links)
        LINKS.report(first, kind)
        LINKS_AGAIN.report(again, kind)
        FAILURES.report(failures, kind)


@contextmanager
def _panel() -> Iterator[LocalAirflow]:
    """Run the API server of an Airflow that knows the runs of an account."""
    emulator = _account()
    with emulator.serve() as running:
        variables = {f"AIRFLOW_CONN_{CONN.upper()}": json.dumps(running.connection)}
        with prepared_airflow(variables=variables) as airflow:
            call(airflow, fill, [task.id for task in emulator.tasks])
            with api_server(airflow):
                yield airflow


def _account() -> Emulator:
    """Return an account with runs of the last day, of which the newest are active."""
    emulator = Emulator(concurrency=RUNS)
    began, spacing = time.time() - 23 * 3600, 23 * 3600 / RUNS
    ended = emulator.workflows[SEARCH.id].having(one_at_a_time=False, duration=spacing / 2, output="x" * OUTPUT)
    with emulator.changed:
        for number in range(RUNS):
            emulator.clock = partial(float, began + spacing * number)
            emulator.catch_up()
            emulator.start_run(
                ended if number < RUNS - ACTIVE else ended.having(duration=100_000.0),
                api_version="v2",
                inputs=[("keyword", "pens")],
            )
        emulator.clock = time.time
    return emulator


def _token(airflow: LocalAirflow) -> str:
    token: str = requests.get(f"{airflow.url}/auth/token", timeout=30).json()["access_token"]
    return token


def _server_time(response: requests.Response) -> float:
    return float(response.headers["Server-Timing"].removeprefix("total;dur="))


def fill(task_ids: list[str]) -> None:
    """Add a task instance for each run of the account, those in the queue, and those that have failed."""
    from airflow_provider_browseract.queue.queueing import Queued, QueueWait
    from airflow_provider_browseract.runs.wait import Wait
    from airflow_provider_browseract.triggers.slot import SlotTrigger
    from airflow_provider_browseract.triggers.task import TaskTrigger

    now, rows = datetime.now(timezone.utc), list[Row]()
    for number, task_id in enumerate(reversed(task_ids)):
        wait = Wait(task_id, time.time() + 3600, began_at=time.time())
        trigger = TaskTrigger(browseract_conn_id=CONN, wait=wait) if number < ACTIVE else None
        rows.append(Row(_key("search", number), task_id, now - timedelta(hours=23) / len(task_ids) * number, trigger))
    for number in range(WAITING):
        since = time.time() - 600 + number
        place = QueueWait(Queued(since, since, 1), since + 36_000, "workflow 7", "k", since)
        rows.append(Row(_key("wait", number), trigger=SlotTrigger(browseract_conn_id=CONN, wait=place)))
    rows += [Row(_key("failed", number), failed=now - timedelta(minutes=number)) for number in range(FAILED)]
    insert(rows)


def _key(task_id: str, number: int, day: int = 0) -> TaskInstanceKey:
    return TaskInstanceKey(DAG_IDS[number % len(DAG_IDS)], f"manual__{day}", task_id, number)


def read_links() -> tuple[float, float, float]:
    """Read records of a database with many XComs, by new readers and by one that has read them before."""
    from airflow_provider_browseract.panel import failures
    from airflow_provider_browseract.panel.links import RecordReader

    now = datetime.now(timezone.utc)
    spacing = timedelta(days=DAYS) / LINKED

    def rows(numbers: Iterable[int]) -> list[Row]:
        return [
            Row(_key("search", number, number * DAYS // LINKED), str(10**16 + number), now - spacing * number)
            for number in numbers
        ]

    insert(rows(range(LINKED)), XCOMS)
    first = _median(lambda: RecordReader().read())
    reader, turns = RecordReader(), iter(range(READS))
    reader.read()

    def add() -> None:
        turn = next(turns)
        insert(rows(range(-NEW * (turn + 1), -NEW * turn)), XCOMS)

    again = _median(reader.read, add)

    def other(number: int) -> Row:
        failed = now - timedelta(minutes=number / 100) if number < OTHERS_FAILED else None
        operator = "RunWorkflowOperator" if number < FAILED else "Other"
        return Row(_key("other", number, number % DAYS), failed=failed, operator=operator)

    insert([*map(other, range(INSTANCES - LINKED))])
    return first, again, _median(failures.failed_tries)


def _median(read: Callable[[], object], before: Callable[[], object] = lambda: None) -> float:
    """Return the median of the milliseconds that a read takes, after one that is not counted."""
    taken = []
    read()
    for _ in range(READS):
        before()
        began = time.perf_counter()
        read()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)
