"""What the callback route gains and costs, in a real Airflow on PostgreSQL: see :mod:`dev.benchmarks.run`."""

from __future__ import annotations

import asyncio
import collections
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import requests

from airflow_provider_browseract.emulator import HUMAN, ORDERS, SEARCH, Emulator
from airflow_provider_browseract.runs.callback_url import new_token
from airflow_provider_browseract.runs.request import digest
from tests.helpers.databases import Database, postgres
from tests.helpers.local_airflow import LocalAirflow, free_port, wait_for

DAGS = Path(__file__).parent / "dags"
ROOT = Path(__file__).parents[2]
RUNS = 12
"""How many runs each way has."""

FIRST_END = 70.0
"""Seconds from its start to the end of a way's first run: until then all of them are deferred."""

SPACING = 4.0
"""Seconds between two ends of one way. The ways take turns, so what disturbs one disturbs all."""

CALLBACKS_PER_SECOND = 100
PROBES_PER_SECOND = 20
SECONDS = 30

FLOOD = 1500
"""How many forged callbacks a genuine one is behind, each of :data:`FLOODS` times."""

FLOODS = 5
HUNG_UP = 100
OUTAGE = 1000
TASK = "callback"
FIRST_INDEX = 1000
"""Map index of the first task instance that is made by hand."""

BODY = b'{"id": "7", "status": "finished"}'
LARGE_BODY = b"[[]" + b",[]" * 349_000 + b"]"
"""Almost 1 MiB of JSON that would take long to read as a whole."""

WAYS = {
    "callback": "the callback resumes the task",
    "trigger": "(a) a trigger fires at that moment",
    "poll_5s": "(b) this provider asks every 5 s",
    "http_10s": "(c) HttpEventTrigger asks every 10 s",
}


def wakeup() -> None:
    """Seconds from the end of a run to the first line of execute_complete, in four ways; processor time of two."""
    emulator = Emulator(concurrency=200)
    emulator.set_workflow(ORDERS.id, one_at_a_time=False)
    emulator.set_workflow(HUMAN.id, pause_at=None)
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
                # As after a usual installation, no process compiles the modules that it imports.
                "PYTHONDONTWRITEBYTECODE": "",
            },
            database=database.url,
            port=port,
        )
        for turn, workflow in enumerate((SEARCH, ORDERS, HUMAN)):
            for number in range(RUNS):
                # Each at another moment within the interval of the polls.
                emulator.next_run(workflow.id, duration=FIRST_END + SPACING * number + turn + random.random())
        with airflow.running():
            run_id = airflow.trigger("wakeup")
            assert airflow.wait_for_run("wakeup", run_id, timeout=400) == "success"
            ended = {task.id: task.finished_at.timestamp() for task in emulator.tasks if task.finished_at}
            taken = {way: _taken(airflow, run_id, way, ended) for way in WAYS}
            processor = {way: _processor_time(airflow, run_id, way) for way in ("callback", "http_10s")}
    print(f"end of the run to first line of execute_complete, {RUNS} runs each, seconds (min, median, max):")
    for way, seconds in taken.items():
        print(f"  {WAYS[way]:38} {min(seconds):6.2f} {statistics.median(seconds):6.2f} {max(seconds):6.2f}")
    callback = statistics.median(taken["callback"])
    for way in ("trigger", "poll_5s", "http_10s"):
        ratio, limit = callback / statistics.median(taken[way]), " (limit 0.8)" if way == "trigger" else ""
        print(f"  median of the callback to that of {WAYS[way][:3]}: {ratio:.2f}{limit}")
    ours, written = (statistics.median(seconds) for seconds in processor.values())
    print(
        f"processor time of both task processes, median: {ours:.2f} s with the callback, {written:.2f} s of (c), "
        f"which is written by hand; ratio {ours / written:.2f}"
    )


def _processor_time(airflow: LocalAirflow, run_id: str, way: str) -> list[float]:
    return [
        sum(airflow.xcom("wakeup", run_id, way, f"{which}_process", map_index=index) for which in ("first", "second"))
        for index in range(RUNS)
    ]


def _taken(airflow: LocalAirflow, run_id: str, way: str, ended: dict[str, float]) -> list[float]:
    seconds = []
    for index in range(RUNS):

        def xcom(key: str, index: int = index) -> Any:
            return airflow.xcom("wakeup", run_id, way, key, map_index=index)

        began = xcom("ended_at") or ended[xcom("task_id")]
        seconds.append(xcom("resumed_at") - began)
    return seconds


def route() -> None:
    """How fast the route responds, and whether it keeps up with a stream of callbacks that each resume a task."""
    with only_the_route() as (airflow, _, run_id):
        print(_in_a_process_of_its_own("stream", airflow, run_id))


def strangers() -> None:
    """What forged callbacks and senders that hang up do to genuine callbacks, and forged ones to the server's log."""
    with only_the_route() as (airflow, database, run_id):
        print(_in_a_process_of_its_own("behind_a_flood", airflow, run_id))
        print(_in_a_process_of_its_own("hung_up", airflow, run_id))
        print(_in_a_process_of_its_own("token_holder", airflow, run_id))
        log = airflow.home / "api-server.out"
        database.stop()
        try:
            before = len(log.read_text(errors="replace").splitlines())
            answers = asyncio.run(_post_all(_forged(airflow, run_id, OUTAGE)))
            lines = log.read_text(errors="replace").splitlines()[before:]
        finally:
            database.start()
        # The API server's own access log has a line for each request that it gets.
        others = [line for line in lines if "/browseract/callback/" not in line]
        print(
            f"{OUTAGE} forged callbacks while the database is away: {dict(answers)}, {len(others)} lines in the log of "
            f"the API server (limit 20), beside {len(lines) - len(others)} of its access log"
        )


@contextmanager
def only_the_route(**variables: str) -> Iterator[tuple[LocalAirflow, Database, str]]:
    """Run an Airflow whose task instances only the route changes; yield its database and a DAG run too.

    :param variables: more variables for its processes.
    """
    with tempfile.TemporaryDirectory() as folder, postgres() as database:
        environment = {"PYTHONPATH": str(ROOT), **variables}
        airflow = LocalAirflow(Path(folder, "airflow"), DAGS, environment, database=database.url)
        with airflow.running():
            run_id = airflow.trigger("wakeup")
            wait_for("Task instances", lambda: airflow.task_instances("wakeup", run_id), timeout=60)
            airflow.stop("scheduler", "triggerer", "dag-processor")
            yield airflow, database, run_id


def _in_a_process_of_its_own(what: str, airflow: LocalAirflow, run_id: str) -> str:
    """Return the figures of a function of this module."""
    return with_models(_command(what, airflow, run_id), airflow).strip().splitlines()[-1]


def with_models(words: list[str], airflow: LocalAirflow) -> str:
    """Run a command that uses Airflow's models, which read their settings when they are imported; return its output."""
    done = subprocess.run(words, env=airflow.variables_of("api-server"), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def _command(what: str, airflow: LocalAirflow, run_id: str) -> list[str]:
    return [sys.executable, "-m", "dev.benchmarks.webhook", what, str(airflow.port), run_id]


def stream(airflow: LocalAirflow, run_id: str) -> None:
    """Send a stream of callbacks, each for another task instance."""
    number = CALLBACKS_PER_SECOND * SECONDS
    urls = _defer(airflow, run_id, number)
    latencies: list[float] = []

    async def send() -> tuple[collections.Counter[int], float]:
        statuses: collections.Counter[int] = collections.Counter()
        async with _client() as client:

            async def post(url: str) -> None:
                status, seconds = await _post(client, url)
                statuses[status] += 1
                latencies.append(seconds * 1000)

            began = time.perf_counter()
            under_way = []
            for index, url in enumerate(urls):
                # At fixed times, whether or not the earlier ones have a response.
                await asyncio.sleep(max(0.0, began + index / CALLBACKS_PER_SECOND - time.perf_counter()))
                under_way.append(asyncio.create_task(post(url)))
            await asyncio.gather(*under_way)
            return statuses, time.perf_counter() - began

    statuses, took = asyncio.run(send())
    percentiles = statistics.quantiles(latencies, n=100)
    print(
        f"route: {number} callbacks at {CALLBACKS_PER_SECOND} a second, answered in {took:.1f} s: {dict(statuses)}, "
        f"{_resumed()} tasks resumed; median {percentiles[49]:.0f} ms (limit 30), 99th percentile "
        f"{percentiles[98]:.0f} ms"
    )


def behind_a_flood(airflow: LocalAirflow, run_id: str) -> None:
    """Send genuine callbacks, each behind many forged ones that come all at once."""
    genuine = _defer(airflow, run_id, 2 * FLOODS)
    alone, behind, statuses = [], [], collections.Counter[str]()
    with requests.Session() as session:

        def send(url: str) -> float:
            began = time.perf_counter()
            session.post(url, data=BODY, timeout=60)
            return time.perf_counter() - began

        for number in range(FLOODS):
            alone.append(send(genuine[number]))
            # From a separate process, because it keeps its sender busy too.
            with subprocess.Popen(_command("flood", airflow, run_id), stdout=subprocess.PIPE, text=True) as flood:
                assert flood.stdout
                # The forged ones are under way when the genuine one comes.
                flood.stdout.readline()
                behind.append(send(genuine[FLOODS + number]))
                statuses.update(json.loads(flood.stdout.readline()))
    print(
        f"a genuine callback behind {FLOOD} forged ones ({dict(statuses)}), {FLOODS} times: "
        f"{statistics.median(behind):.2f} s at the median, {max(behind):.2f} s at most (limit 1); alone "
        f"{statistics.median(alone):.3f} s; {_resumed()} of {2 * FLOODS} tasks resumed"
    )


def flood(airflow: LocalAirflow, run_id: str) -> None:
    """Send forged callbacks all at once; print a line after the first response, and finally all statuses."""

    async def send() -> collections.Counter[int]:
        async with _client() as client:
            posts = [asyncio.create_task(_post(client, url)) for url in _forged(airflow, run_id, FLOOD)]
            await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
            print("under way", flush=True)
            return collections.Counter(status for status, _ in await asyncio.gather(*posts))

    print(json.dumps(asyncio.run(send())))


def hung_up(airflow: LocalAirflow, run_id: str) -> None:
    """Send genuine callbacks without waiting for a response."""
    before = _resumed()
    for url in _defer(airflow, run_id, HUNG_UP):
        host, _, path = url.removeprefix("http://").partition("/")
        name, _, port = host.partition(":")
        with socket.create_connection((name, int(port))) as sender:
            head = f"POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(BODY)}\r\n\r\n"
            sender.sendall(head.encode() + BODY)
    with suppress(TimeoutError):
        wait_for("Resumed tasks", lambda: _resumed() - before == HUNG_UP, timeout=60)
    lost = HUNG_UP - (_resumed() - before)
    print(f"{HUNG_UP} genuine callbacks whose sender hangs up: {lost} lost (limit 0)")


def token_holder(airflow: LocalAirflow, run_id: str) -> None:
    """Measure the API server while someone with one token sends a large body twice a second."""
    version = f"{airflow.url}/api/v2/version"
    idle = _response_times_of(version, SECONDS)
    [url] = _defer(airflow, run_id, 1)
    stop, outcomes = threading.Event(), collections.Counter[str]()

    def send() -> None:
        while not stop.wait(0.5):
            outcomes[requests.post(url, data=LARGE_BODY, timeout=60).json()["outcome"]] += 1

    sender = threading.Thread(target=send)
    sender.start()
    attacked = _response_times_of(version, SECONDS)
    stop.set()
    sender.join()
    print(
        f"GET /api/v2/version while one token posts 1 MiB twice a second: median {attacked[0]:.1f} ms, idle "
        f"{idle[0]:.1f} ms, ratio {attacked[0] / idle[0]:.1f} (limit 3); 99th percentile {attacked[1]:.0f} ms, idle "
        f"{idle[1]:.0f} ms; {dict(outcomes)}"
    )


def _response_times_of(url: str, seconds: float) -> tuple[float, float]:
    """Return the median and the 99th percentile of the milliseconds that a request takes."""

    async def send() -> list[float]:
        async with _client() as client:

            async def get() -> float:
                began = time.perf_counter()
                async with client.get(url) as response:
                    response.raise_for_status()
                return 1000 * (time.perf_counter() - began)

            under_way = []
            began = time.perf_counter()
            while (now := time.perf_counter()) < began + seconds:
                # At fixed times, whether or not the earlier ones have a response.
                under_way.append(asyncio.create_task(get()))
                await asyncio.sleep(max(0.0, began + len(under_way) / PROBES_PER_SECOND - now))
            return await asyncio.gather(*under_way)

    percentiles = statistics.quantiles(asyncio.run(send()), n=100)
    return percentiles[49], percentiles[98]


def _defer(airflow: LocalAirflow, run_id: str, number: int) -> list[str]:
    """Create task instances by hand that wait for callbacks, and return the addresses of their callbacks."""
    from airflow_provider_browseract.runs.wait import Wait
    from airflow_provider_browseract.triggers.task import TaskTrigger

    tokens = [new_token() for _ in range(number)]
    now = time.time()
    waits = [Wait("7", now + 3600, callback_token_sha256=digest(token), began_at=now) for token in tokens]
    waiting = insert(run_id, [TaskTrigger(browseract_conn_id="browseract_default", wait=wait) for wait in waits])
    return [airflow.callback_address(*each) for each in zip(waiting, tokens, strict=True)]


def insert(run_id: str, waits: list[Any]) -> list[uuid.UUID]:
    """Create deferred task instances by hand, and return their ids.

    :param run_id: their DAG run.
    :param waits: their triggers.
    """
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from sqlalchemy import func, insert, select

    with create_session() as session:
        triggers = []
        for wait in waits:
            trigger = Trigger.from_object(wait)
            trigger.created_date = datetime.now(timezone.utc) - timedelta(minutes=1)
            triggers.append(trigger)
        session.add_all(triggers)
        session.flush()
        table = TaskInstance.__table__
        of_the_task = (table.c.run_id == run_id, table.c.task_id == TASK)
        like = session.execute(select(table).where(*of_the_task)).first()
        assert like is not None
        first = max(FIRST_INDEX, 1 + (session.scalar(select(func.max(table.c.map_index)).where(*of_the_task)) or 0))
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
    return [row["id"] for row in rows]


def delete_inserted() -> None:
    """Delete the task instances that were created by hand, and their triggers."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.session import create_session
    from sqlalchemy import delete

    with create_session() as session:
        session.execute(delete(TaskInstance).where(TaskInstance.map_index >= FIRST_INDEX))
        session.execute(delete(Trigger))


def _resumed() -> int:
    """Return how many of the task instances that were made by hand have been resumed."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import func, select

    with create_session() as session:
        found = select(func.count()).where(TaskInstance.map_index >= FIRST_INDEX, TaskInstance.state == "scheduled")
        return session.scalar(found) or 0


def _forged(airflow: LocalAirflow, run_id: str, number: int) -> list[str]:
    """Return addresses of callbacks for a task instance that waits, with wrong tokens."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        of_the_run = (TaskInstance.run_id == run_id, TaskInstance.map_index == FIRST_INDEX)
        waiting = session.scalar(select(TaskInstance.id).where(*of_the_run))
    return [airflow.callback_address(waiting, new_token()) for _ in range(number)]


def _client() -> Any:
    # One that leaves the machine to the server; it comes with the http provider.
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def _post(client: Any, url: str) -> tuple[int, float]:
    """Send a callback; return the HTTP status of the response and the seconds that it took."""
    began = time.perf_counter()
    async with client.post(url, data=BODY) as answer:
        await answer.read()
    return answer.status, time.perf_counter() - began


async def _post_all(urls: list[str]) -> collections.Counter[int]:
    async with _client() as client:
        answers = await asyncio.gather(*(_post(client, url) for url in urls))
    return collections.Counter(status for status, _ in answers)


def main() -> None:
    """Take one figure: its name, the port of the API server and the DAG run are the arguments."""
    what, port, run_id = sys.argv[1:]
    # Only its address is read.
    airflow = LocalAirflow(Path(), DAGS, {}, port=int(port))
    for figure in (stream, behind_a_flood, flood, hung_up, token_holder):
        if figure.__name__ == what:
            figure(airflow, run_id)


if __name__ == "__main__":
    main()
