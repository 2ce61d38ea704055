"""What the callback route gains and costs, in a real Airflow on PostgreSQL: see :mod:`tests.benchmarks.run`."""

from __future__ import annotations

import asyncio
import collections
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow_provider_browseract.emulator import ORDERS, PLAIN_TEXT, SEARCH, Emulator
from tests.e2e.local_airflow import LocalAirflow, free_port, wait_for
from tests.e2e.postgres import postgres

DAGS = Path(__file__).parent / "dags"
ROOT = Path(__file__).parents[2]
RUNS = 12
"""How many runs each way has."""

FIRST_END = 70.0
"""Seconds from its start to the end of a way's first run: until then all of them are deferred."""

SPACING = 4.0
"""Seconds between two ends of one way. The ways take turns, so what disturbs one disturbs all."""

CALLBACKS_PER_SECOND = 100
SECONDS = 30


WAYS = {
    "callback": "the callback resumes the task",
    "trigger": "(a) a trigger fires at that moment",
    "poll_5s": "(b) this provider asks every 5 s",
    "http_10s": "(c) HttpEventTrigger asks every 10 s",
}


def wakeup() -> None:
    """Seconds from the end of a run to the first line of execute_complete, in four ways."""
    emulator = Emulator(concurrency=200)
    with tempfile.TemporaryDirectory() as folder, postgres() as database, emulator.serve() as running:
        port = free_port()
        extra = {"webhook_base_url": f"http://127.0.0.1:{port}"}
        headers = {"Authorization": f"Bearer {running.api_key}"}
        airflow = LocalAirflow(
            Path(folder, "airflow"),
            DAGS,
            {
                "AIRFLOW_CONN_BROWSERACT_DEFAULT": json.dumps({**running.connection, "extra": extra}),
                "AIRFLOW_CONN_BROWSERACT_HTTP": json.dumps(
                    {"conn_type": "http", "host": running.url, "extra": headers}
                ),
                "AIRFLOW__CORE__PARALLELISM": "8",
                "PYTHONPATH": str(ROOT),
            },
            database=database.url,
            port=port,
        )
        for turn, workflow in enumerate((SEARCH, ORDERS, PLAIN_TEXT)):
            for number in range(RUNS):
                # Each at a moment of its own within the interval of who asks, whichever that is.
                emulator.next_run(workflow.id, duration=FIRST_END + SPACING * number + turn + random.random())
        with airflow.running():
            run_id = airflow.trigger("wakeup")
            assert airflow.wait_for_run("wakeup", run_id, timeout=400) == "success"
            ended = {task.id: task.finished_at.timestamp() for task in emulator.tasks if task.finished_at}
            taken = {way: _taken(airflow, run_id, way, ended) for way in WAYS}
    print(f"end of the run to first line of execute_complete, {RUNS} runs each, seconds (min, median, max):")
    for way, seconds in taken.items():
        print(f"  {WAYS[way]:38} {min(seconds):6.2f} {statistics.median(seconds):6.2f} {max(seconds):6.2f}")
    callback = statistics.median(taken["callback"])
    for way in ("trigger", "poll_5s", "http_10s"):
        ratio, limit = callback / statistics.median(taken[way]), " (limit 0.8)" if way == "trigger" else ""
        print(f"  median of the callback to that of {WAYS[way][:3]}: {ratio:.2f}{limit}")


def _taken(airflow: LocalAirflow, run_id: str, way: str, ended: dict[str, float]) -> list[float]:
    seconds = []
    for index in range(RUNS):

        def xcom(key: str, index: int = index) -> Any:
            return airflow.xcom("wakeup", run_id, way, key, map_index=index)

        began = xcom("ended_at") or ended[xcom("task_id")]
        seconds.append(xcom("resumed_at") - began)
    return seconds


def route() -> None:
    """How fast the route answers, and whether it keeps up with a stream of callbacks that each resume a task."""
    with tempfile.TemporaryDirectory() as folder, postgres() as database:
        airflow = LocalAirflow(Path(folder, "airflow"), DAGS, {"PYTHONPATH": str(ROOT)}, database=database.url)
        with airflow.running():
            run_id = airflow.trigger("wakeup")
            wait_for("Task instances", lambda: airflow.task_instances("wakeup", run_id), timeout=60)
            # From here on nobody but the route touches them.
            airflow.stop("scheduler", "triggerer", "dag-processor")
            # In a process of its own: Airflow's models read their settings when they are imported.
            sender = [sys.executable, "-m", "tests.benchmarks.webhook", airflow.url, run_id]
            done = subprocess.run(sender, env=airflow.variables, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
            print(done.stdout.strip().splitlines()[-1])


def send(url: str, run_id: str) -> None:
    """Make deferred task instances by hand, send a callback for each, and tell what became of them."""
    # A client that leaves the machine to the server; it comes with the http provider.
    import aiohttp
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from sqlalchemy import func, insert, select

    from airflow_provider_browseract.triggers.browseract import TaskTrigger
    from airflow_provider_browseract.webhook import CALLBACK_PATH, URL_PREFIX
    from airflow_provider_browseract.webhook.callback import WaitingTask, digest, new_token

    number, first = CALLBACKS_PER_SECOND * SECONDS, 1000
    tokens = [new_token() for _ in range(number)]
    with create_session() as session:
        triggers = []
        for token in tokens:
            trigger = Trigger.from_object(
                TaskTrigger(
                    browseract_task_id="7",
                    browseract_conn_id="browseract_default",
                    poll_interval=120.0,
                    first_poll_at=time.time(),
                    deadline=time.time() + 3600,
                    callback_token_sha256=digest(token),
                )
            )
            trigger.created_date = datetime.now(timezone.utc) - timedelta(minutes=1)
            triggers.append(trigger)
        session.add_all(triggers)
        session.flush()
        table = TaskInstance.__table__
        like = session.execute(select(table).where(table.c.run_id == run_id, table.c.task_id == "callback")).first()
        assert like is not None
        rows = [
            {
                **like._mapping,
                "id": uuid.uuid4(),
                "map_index": first + index,
                "state": "deferred",
                "trigger_id": trigger.id,
                "next_method": "execute_complete",
            }
            for index, trigger in enumerate(triggers)
        ]
        session.execute(insert(table), rows)

    statuses: collections.Counter[int] = collections.Counter()
    latencies: list[float] = []

    async def post(client: aiohttp.ClientSession, index: int) -> None:
        path = f"{URL_PREFIX}{CALLBACK_PATH}/{WaitingTask('wakeup', run_id, 'callback', first + index).encode()}"
        began = time.perf_counter()
        async with client.post(f"{url}{path}/{tokens[index]}", json={"id": "7", "status": "finished"}) as answer:
            await answer.read()
        latencies.append(1000 * (time.perf_counter() - began))
        statuses[answer.status] += 1

    async def stream() -> float:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            began = time.perf_counter()
            under_way = []
            for index in range(number):
                # By the clock, whether or not the earlier ones were answered.
                await asyncio.sleep(max(0.0, began + index / CALLBACKS_PER_SECOND - time.perf_counter()))
                under_way.append(asyncio.create_task(post(client, index)))
            await asyncio.gather(*under_way)
            return time.perf_counter() - began

    took = asyncio.run(stream())
    with create_session() as session:
        resumed = session.scalar(
            select(func.count()).where(TaskInstance.map_index >= first, TaskInstance.state == "scheduled")
        )
    percentiles = statistics.quantiles(latencies, n=100)
    print(
        f"route: {number} callbacks at {CALLBACKS_PER_SECOND} a second, answered in {took:.1f} s: {dict(statuses)}, "
        f"{resumed} tasks resumed; median {percentiles[49]:.0f} ms (limit 30), 99th percentile "
        f"{percentiles[98]:.0f} ms"
    )


if __name__ == "__main__":
    send(*sys.argv[1:])
