"""What the panel costs: its pages, BrowserAct's requests, and callbacks beside it: see :mod:`dev.benchmarks.run`.

Rows of Airflow's database are made by hand. Pages, memory and callbacks are measured in a real API server. The requests
of ten minutes are counted in the panel's application alone, on the same database and with Airflow's own login, because
its clock has to be driven.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import requests

from airflow_provider_browseract.emulator import SEARCH, Emulator, RequestFault
from airflow_provider_browseract.panel.links import TaskInstanceKey
from airflow_provider_browseract.runs.callback_url import new_token
from airflow_provider_browseract.runs.request import digest
from dev.benchmarks.webhook import BODY, DAGS, ROOT, with_models
from tests.helpers.databases import postgres
from tests.helpers.local_airflow import LocalAirflow, wait_for

RUNS = 2_000
"""Runs of the account in the last day, each started by a task instance."""

ACTIVE = 20
"""How many of them are active, so the list that is read again and again begins with them."""

WAITING = 200
"""Task instances in the queue."""

OUTPUT = 10_000
"""Characters in the output of each run."""

REQUESTS = 100
COLD = 5
"""Connections of which nothing is known when their first page is read."""

ALONE = 6
"""Requests of a viewer without company, who finds everything old."""

VIEWERS = 20
INTERVAL = 10.0
"""Seconds between two requests of a viewer."""

MINUTES = 10
ROUNDS = 10
SECONDS = 5.0
"""How long callbacks are sent in each round, without viewers, with viewers, and with viewers without pause."""

CALLBACKS_PER_SECOND = 10

DAYS = 30
LINKED = 40_000
"""Runs of these days with their task instances, :data:`XCOMS` XComs each."""

INSTANCES = 300_000
FAILED = 50_000
OWN_FAILED = 500
XCOMS = 5
READS = 7
NEW = 10
"""Runs that are new when links are read again."""

MONTH = 31
RUNS_OF_A_DAY = 5_000

DAG_IDS = [f"shop_{number:02}" for number in range(20)]
CONN, API_KEY = "browseract_default", "app-emulator"
OVERVIEW = "/browseract/panel/"
FRAGMENT = {"X-BrowserAct-Panel": "fragment"}
PAUSES = {"no viewers": None, f"{VIEWERS} viewers": INTERVAL, f"{VIEWERS} viewers without pause": 0.0}


def panel() -> None:
    """Server time, size and memory of the overview of an account with many runs and a long queue."""
    cold = [f"cold_{number}" for number in range(COLD)]
    with _api_server(*cold) as (airflow, emulator), requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {_token(airflow)}"

        def get(path: str = OVERVIEW, **headers: str) -> requests.Response:
            response = session.get(f"{airflow.url}{path}", headers=headers, timeout=60)
            response.raise_for_status()
            return response

        for _ in range(REQUESTS):
            # What reads the database loads much of Airflow.
            get("/api/v2/dags")
        before, began = airflow.memory("api-server"), time.perf_counter()
        first = _server_time(get())
        took = 1000 * (time.perf_counter() - began)
        get(**FRAGMENT)
        memory = airflow.memory("api-server") - before
        for _ in range(REQUESTS):
            get(**FRAGMENT)
        later = airflow.memory("api-server") - before
        fragments = [_server_time(get(**FRAGMENT)) for _ in range(REQUESTS)]
        pages = [get() for _ in range(REQUESTS)]
        alone = []
        for _ in range(ALONE):
            time.sleep(INTERVAL)
            alone.append(_server_time(get(**FRAGMENT)))
        emulator.fault("list-tasks", RequestFault.slow(INTERVAL))
        without = [_server_time(get(f"{OVERVIEW}?conn={conn_id}")) for conn_id in cold]
    print(f"overview, {RUNS} runs, {WAITING} task instances in the queue, {REQUESTS} requests:")
    for name, taken in (("fragments", fragments), ("pages", list(map(_server_time, pages)))):
        percentiles = statistics.quantiles(taken, n=20)
        print(
            f"  {name}: median {statistics.median(taken):.0f} ms (limit 150), 95 % within {percentiles[18]:.0f} ms "
            f"(limit 300), longest {max(taken):.0f} ms"
        )
    print(
        f"  one viewer alone, every {INTERVAL:g} s: median {statistics.median(alone):.0f} ms, {max(alone):.0f} at most"
    )
    print(
        f"  without data: {max(without):.0f} ms at most (limit 300), 200 of them for what may come; the "
        f"first one of the process {first:.0f} ms, {took:.0f} ms with all imports"
    )
    print(f"  size of a page: {max(len(page.content) for page in pages) / 1024:.0f} KiB (limit 293)")
    print(
        f"  memory of the API server: {memory / 2**20:+.1f} MiB with the first page (limit 14.3), {later / 2**20:+.1f} "
        f"MiB after {REQUESTS} more"
    )


def viewers() -> None:
    """Requests to BrowserAct for many viewers, and callbacks beside them."""
    with _api_server() as (airflow, emulator):
        token = _token(airflow)
        begun, loaded, left, over = json.loads(_figures(airflow, "minutes", token))
        lists = ("list-tasks", "page-runs")
        listed = [each.at.timestamp() for each in emulator.requests if each.endpoint in lists]
        counts = [
            sum(begin <= at < end for at in listed) for begin, end in ((begun, loaded), (loaded, left), (left, over))
        ]
        print(
            f"{VIEWERS} viewers in {MINUTES} minutes: {counts[1]} list requests after the first {counts[0]} (limit "
            f"{60 * MINUTES / INTERVAL + 1 + MINUTES + 1:.0f}, of which {MINUTES + 1} look for runs of bots); "
            f"in {MINUTES} minutes without viewers: {counts[2]} (limit 0)"
        )
        print(_figures(airflow, "callbacks", str(airflow.port), token))


def links() -> None:
    """How long the panel reads Airflow's database that has many XComs."""
    for kind in ("sqlite", "postgresql"):
        print(f"{kind}: {_on_a_database(kind, 'read_links')}")


def month() -> None:
    """How long the page about the credits of a month takes, whose days have many runs."""
    print(_on_a_database("postgresql", "read_month"))


def _on_a_database(kind: str, what: str) -> str:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        database = None if kind == "sqlite" else stack.enter_context(postgres()).url
        airflow = LocalAirflow(Path(folder, "airflow"), DAGS, {"PYTHONPATH": str(ROOT)}, database)
        airflow.prepare()
        return _figures(airflow, what)


@contextmanager
def _api_server(*conn_ids: str) -> Iterator[tuple[LocalAirflow, Emulator]]:
    """Run the API server of an Airflow that knows the runs of an account, without its other components.

    :param conn_ids: further connections to the account.
    """
    emulator = _account()
    with tempfile.TemporaryDirectory() as folder, postgres() as database, emulator.serve() as running:
        connection = json.dumps(running.connection)
        connections = {f"AIRFLOW_CONN_{conn_id.upper()}": connection for conn_id in (CONN, *conn_ids)}
        environment = {"PYTHONPATH": str(ROOT), **connections}
        airflow = LocalAirflow(Path(folder, "airflow"), DAGS, environment, database=database.url)
        airflow.prepare()
        _figures(airflow, "fill", *(task.id for task in emulator.tasks))
        airflow.start("api-server")
        try:
            wait_for("The API server", lambda: _responds(airflow), timeout=240)
            yield airflow, emulator
        finally:
            airflow.stop(with_signal=signal.SIGKILL)


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


def _responds(airflow: LocalAirflow) -> bool:
    airflow.check_alive()
    try:
        return requests.get(f"{airflow.url}/api/v2/version", timeout=10).ok
    except requests.RequestException:
        return False


def _token(airflow: LocalAirflow) -> str:
    token: str = requests.get(f"{airflow.url}/auth/token", timeout=30).json()["access_token"]
    return token


def _server_time(response: requests.Response) -> float:
    return float(response.headers["Server-Timing"].removeprefix("total;dur="))


def _figures(airflow: LocalAirflow, what: str, *arguments: str) -> str:
    """Return the last line that a function of this module prints in a separate process."""
    words = [sys.executable, "-m", "dev.benchmarks.panel", what, *arguments]
    return with_models(words, airflow).strip().rpartition("\n")[2]


@dataclass(frozen=True)
class Made:
    """A task instance that is made by hand.

    :param run: the run that it has started.
    :param started: when it has started the run.
    :param trigger: what it waits for.
    """

    key: TaskInstanceKey
    run: str | None = None
    started: datetime | None = None
    trigger: Any = None
    id: uuid.UUID = field(default_factory=uuid.uuid4)


def _insert(made: list[Made], xcoms: int = 1) -> None:
    """Add task instances to Airflow's database.

    :param xcoms: how many XComs each of them has that has started a run.
    """
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import insert, select, text

    from airflow_provider_browseract.api.models import Task, TaskStatus
    from airflow_provider_browseract.in_airflow.xcoms import names_of
    from airflow_provider_browseract.runs.proof import prove_run
    from airflow_provider_browseract.runs.report import facts

    now = datetime.now(timezone.utc)
    with create_session() as session:

        def add(model: Any, rows: Iterable[dict[str, Any]]) -> None:
            listed = list(rows)
            for start in range(0, len(listed), 5_000):
                session.execute(insert(model.__table__), listed[start : start + 5_000])

        triggers = {each.key: Trigger.from_object(each.trigger) for each in made if each.trigger is not None}
        for trigger in triggers.values():
            trigger.created_date = now - timedelta(minutes=1)
        session.add_all(triggers.values())
        session.flush()
        dag_runs = select(DagRun.dag_id, DagRun.run_id, DagRun.id)
        new = {each.key[:2] for each in made} - {(row.dag_id, row.run_id) for row in session.execute(dag_runs)}
        fixed = {"run_type": "manual", "state": "running", "run_after": now}
        add(DagRun, ({"dag_id": dag_id, "run_id": run_id, **fixed} for dag_id, run_id in sorted(new)))
        ids = {(row.dag_id, row.run_id): row.id for row in session.execute(dag_runs)}
        add(
            TaskInstance,
            (
                {
                    **each.key._asdict(),
                    "id": each.id,
                    "try_number": 1,
                    "pool": "default_pool",
                    "state": "success" if each.trigger is None else "deferred",
                    "trigger_id": None if each.trigger is None else triggers[each.key].id,
                    "next_method": None if each.trigger is None else "execute_complete",
                }
                for each in made
            ),
        )
        started = [each for each in made if each.run is not None]
        shown = {}
        for each in started:
            stated = facts(Task(id=each.run or "", status=TaskStatus.RUNNING, workflow_id=SEARCH.id), CONN)
            stated |= {"follows": False, "hidden": []}
            shown[each.key] = stated | {"proof": prove_run(API_KEY, names_of(each.key), stated)}
        add(
            XComModel,
            (
                {
                    **each.key._asdict(),
                    "dag_run_id": ids[each.key[:2]],
                    "key": f"other_{number}" if number else "task",
                    "value": "x" * 200 if number else shown[each.key],
                    "timestamp": each.started,
                }
                for each in started
                for number in range(xcoms)
            ),
        )
    with create_session() as session:
        # As the server does by itself after a while.
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("ANALYZE"))


def fill(*task_ids: str) -> None:
    """Add a task instance for each run of the account, and the queue."""
    from airflow_provider_browseract.queue.queueing import Queued, QueueWait
    from airflow_provider_browseract.runs.wait import Wait
    from airflow_provider_browseract.triggers.slot import SlotTrigger
    from airflow_provider_browseract.triggers.task import TaskTrigger

    now, made = datetime.now(timezone.utc), []
    for number, task_id in enumerate(reversed(task_ids)):
        wait = Wait(task_id, time.time() + 3600, began_at=time.time())
        trigger = TaskTrigger(browseract_conn_id=CONN, wait=wait) if number < ACTIVE else None
        made.append(Made(_key("search", number), task_id, now - timedelta(hours=23) / len(task_ids) * number, trigger))
    for number in range(WAITING):
        since = time.time() - 600 + number
        place = QueueWait(Queued(since, since, 1), since + 36_000, "workflow 7", "k", since)
        made.append(Made(_key("wait", number), trigger=SlotTrigger(browseract_conn_id=CONN, wait=place)))
    _insert(made)


def _key(task_id: str, number: int, day: int = 0) -> TaskInstanceKey:
    return TaskInstanceKey(DAG_IDS[number % len(DAG_IDS)], f"manual__{day}", task_id, number)


def minutes(token: str) -> None:
    """Let viewers read the overview for some minutes of a clock; print when it was loaded, and when they left."""
    import httpx
    from airflow.api_fastapi.app import init_auth_manager
    from fastapi import FastAPI

    from airflow_provider_browseract.panel import app
    from airflow_provider_browseract.panel.accounts import Accounts

    begun = now = time.time()
    init_auth_manager()
    airflow = FastAPI()
    with patch.object(app, "Accounts", partial(Accounts, lambda: now)):
        airflow.mount(OVERVIEW.rstrip("/"), app.create_app())

    async def watch() -> list[float]:
        nonlocal now
        headers = {"Authorization": f"Bearer {token}", **FRAGMENT}
        transport = httpx.ASGITransport(app=airflow)
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow.test", headers=headers) as client:

            async def get() -> None:
                response = await client.get(OVERVIEW, timeout=60)
                assert "data-run=" in response.text, response.text[:1000]

            await get()
            marks = [begun, time.time()]
            for _ in range(int(60 * MINUTES / INTERVAL)):
                for _ in range(VIEWERS):
                    # One after the other within each interval.
                    now += INTERVAL / VIEWERS
                    await get()
            marks.append(time.time())
            for _ in range(MINUTES):
                now += 60
                await asyncio.sleep(0.5)
            return [*marks, time.time()]

    print(json.dumps(asyncio.run(watch())))


def callbacks(port: str, token: str) -> None:
    """Send callbacks, each for another task instance, without and with viewers in turn."""
    from airflow_provider_browseract.runs.wait import Wait
    from airflow_provider_browseract.triggers.task import TaskTrigger

    airflow = LocalAirflow(Path(), DAGS, {}, port=int(port))
    number = int(CALLBACKS_PER_SECOND * SECONDS)
    tokens = [new_token() for _ in range(number * len(PAUSES) * ROUNDS)]
    made = []
    for index, secret in enumerate(tokens):
        wait = Wait(str(index), time.time() + 3600, callback_token_sha256=digest(secret), began_at=time.time())
        made.append(Made(_key("callback", index), trigger=TaskTrigger(browseract_conn_id=CONN, wait=wait)))
    _insert(made)
    urls = iter([airflow.callback_address(each.id, secret) for each, secret in zip(made, tokens, strict=True)])
    taken: dict[str, list[list[float]]] = {name: [] for name in PAUSES}
    pages = dict.fromkeys(PAUSES, 0)
    for _ in range(ROUNDS):
        for name, pause in PAUSES.items():
            with _watching(airflow, token, pause) as watched:
                taken[name].append(_send([next(urls) for _ in range(number)]))
            pages[name] += watched()
    alone = [statistics.median(each) for each in taken["no viewers"]]
    shown = []
    for name, rounds in taken.items():
        medians = [statistics.median(each) for each in rounds]
        ratio = statistics.median(each / without for each, without in zip(medians, alone, strict=True))
        shown.append(f"{name} ({pages[name]} pages) {statistics.median(medians):.0f} ms, ratio {ratio:.2f}")
    print(f"response to a callback, {ROUNDS} rounds of {number} in turn, medians: {'; '.join(shown)} (limit 1.05)")


@contextmanager
def _watching(airflow: LocalAirflow, token: str, pause: float | None) -> Iterator[Callable[[], int]]:
    """Let viewers watch from a process of their own; yield what returns how many pages they have read at the end."""
    if pause is None:
        yield lambda: 0
        return
    words = [sys.executable, "-m", "dev.benchmarks.panel", "watch", f"{airflow.url}{OVERVIEW}", token, str(pause)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        # The first pages have been read.
        process.stdout.readline()
        counts: list[int] = []
        yield lambda: counts[0]
        counts.append(int(process.communicate("\n")[0]))


def watch(url: str, token: str, pause: str) -> None:
    """Read the overview as viewers do until a line is sent; print a line after their first pages, and the number."""
    import aiohttp

    read = 0

    async def view(client: Any, number: int) -> None:
        nonlocal read
        await asyncio.sleep(float(pause) / VIEWERS * number)
        while True:
            async with client.get(url) as response:
                response.raise_for_status()
                await response.read()
            read += 1
            await asyncio.sleep(float(pause))

    async def run() -> None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}", **FRAGMENT}) as client:
            async with client.get(url) as response:
                response.raise_for_status()
            print("watching", flush=True)
            views = [asyncio.create_task(view(client, number)) for number in range(VIEWERS)]
            await asyncio.to_thread(sys.stdin.readline)
            failed = [each.exception() for each in views if each.done()]
            assert not failed, failed
            for each in views:
                each.cancel()
            await asyncio.wait(views)

    asyncio.run(run())
    print(read)


def _send(urls: list[str]) -> list[float]:
    """Send callbacks at fixed times; return the milliseconds that each response takes."""
    import aiohttp

    async def send() -> list[float]:
        async with aiohttp.ClientSession() as client:

            async def post(url: str) -> float:
                began = time.perf_counter()
                async with client.post(url, data=BODY) as response:
                    answer = await response.json()
                assert answer["outcome"] == "resumed", answer
                return 1000 * (time.perf_counter() - began)

            began, under_way = time.perf_counter(), []
            for number, url in enumerate(urls):
                await asyncio.sleep(max(0.0, began + number / CALLBACKS_PER_SECOND - time.perf_counter()))
                under_way.append(asyncio.create_task(post(url)))
            return await asyncio.gather(*under_way)

    return asyncio.run(send())


def read_links() -> None:
    """Read records of a database with many XComs, by new readers and by one that has read them before."""
    from airflow_provider_browseract.panel import links
    from airflow_provider_browseract.panel.links import RecordReader

    now = datetime.now(timezone.utc)
    spacing = timedelta(days=DAYS) / LINKED

    def made(numbers: Iterable[int]) -> list[Made]:
        return [
            Made(_key("search", number, number * DAYS // LINKED), str(10**16 + number), now - spacing * number)
            for number in numbers
        ]

    _insert(made(range(LINKED)), XCOMS)
    RecordReader().read()
    first, again, found = [], [], 0
    for _ in range(READS):
        keeper = RecordReader()
        began = time.perf_counter()
        found = len(keeper.read().links)
        first.append(1000 * (time.perf_counter() - began))
    with patch.object(links, "MAX_AGE", 0.0):
        for turn in range(READS):
            _insert(made(range(-NEW * (turn + 1), -NEW * turn)), XCOMS)
            began = time.perf_counter()
            keeper.read()
            again.append(1000 * (time.perf_counter() - began))
    print(
        f"{LINKED * XCOMS:,} XComs of {LINKED:,} runs in {DAYS} days: first read of a day ({found:,} links) median "
        f"{statistics.median(first):.0f} ms, again with {NEW} new ones {statistics.median(again):.0f} ms (limits 150); "
        f"{_read_failures()}"
    )


def _read_failures() -> str:
    """Add task instances, of which many have failed and some are ours, and return how long it takes to find those."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import text, update

    from airflow_provider_browseract.panel import failures

    _insert([Made(_key("other", number, number % DAYS)) for number in range(INSTANCES - LINKED)])
    now = datetime.now(timezone.utc)
    failed = update(TaskInstance.__table__).where(TaskInstance.task_id == "other")
    with create_session() as session:
        for index in range(0, FAILED, 1_000):
            of = {"state": "failed", "operator": "Other", "end_date": now - timedelta(minutes=index / 100)}
            session.execute(failed.where(TaskInstance.map_index.between(index, index + 999)).values(**of))
        ours = failed.where(TaskInstance.map_index < OWN_FAILED).values(operator="RunWorkflowOperator")
        session.execute(ours)
        if session.get_bind().dialect.name == "postgresql":
            session.execute(text("ANALYZE"))
    taken, found = [], 0
    for _ in range(READS):
        began = time.perf_counter()
        found = len(failures.failed_tries())
        taken.append(1000 * (time.perf_counter() - began))
    among = f"{FAILED:,} failures among {INSTANCES:,} task instances"
    return f"{found} of {among} {statistics.median(taken):.0f} ms (limit 150)"


def read_month() -> None:
    """Make the page about the credits of a month from days that were read from BrowserAct."""
    from airflow_provider_browseract.api.models import Task, TaskStatus
    from airflow_provider_browseract.panel import credits, links
    from airflow_provider_browseract.panel.accounts import Account
    from airflow_provider_browseract.panel.days import Day
    from airflow_provider_browseract.panel.html import Frame, render
    from airflow_provider_browseract.panel.links import Records
    from airflow_provider_browseract.panel.plot import stacked_bars
    from airflow_provider_browseract.panel.rows import Look
    from airflow_provider_browseract.panel.viewing import Viewing

    class Admin:
        def reads(self, _: str) -> bool:
            return True

        reads_connection = reads_runs = reads

    now = datetime.now(timezone.utc)
    number, listed, made = 0, {}, []
    for back in range(MONTH):
        began, runs = now - timedelta(days=back), []
        for _ in range(RUNS_OF_A_DAY):
            number += 1
            status = TaskStatus.FINISHED if number % 50 else TaskStatus.FAILED
            of: dict[str, Any] = {"workflow_id": str(number % 30), "credit": 5, "created_at": began}
            runs.append(Task(id=str(10**16 + number), status=status, **of))
            made.append(Made(_key("search", number, back), runs[-1].id, began))
        listed[began.date()] = runs
    _insert(made)
    began_at = time.perf_counter()
    days = {day: Day.of(day, runs, now, links.dags_on(day, CONN, API_KEY)).sums for day, runs in listed.items()}
    first = 1000 * (time.perf_counter() - began_at)
    access: Any = Admin()
    look = Look(Viewing(access, Records(), CONN), Account(CONN), now)

    def page(by_dag: bool) -> float:
        began = time.perf_counter()
        found, frame = credits.credits_page(look, days, by_dag), Frame("/", "credits", conn_id=CONN, as_of=now)
        render("credits.html", frame, fragment=True, look=look, page=found, plot=stacked_bars(found))
        return 1000 * (time.perf_counter() - began)

    by_workflow, by_dag = (statistics.median(page(by) for _ in range(READS)) for by in (False, True))
    print(
        f"credits of {MONTH} days with {RUNS_OF_A_DAY:,} runs each: by workflow {by_workflow:.0f} ms, by DAG "
        f"{by_dag:.0f} ms (limit 300); to sum a day that was read {first / MONTH:.0f} ms"
    )


def main() -> None:
    """Take one figure: its name and what it needs are the arguments."""
    what, *arguments = sys.argv[1:]
    {each.__name__: each for each in (fill, minutes, callbacks, watch, read_links, read_month)}[what](*arguments)


if __name__ == "__main__":
    main()
