"""What the pages know about the accounts: how often it is read, what is kept, and what happens after errors."""

from __future__ import annotations

import asyncio
import json
import math
import time
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion, TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.emulator import ENDLESS, ORDERS, SEARCH, TEMPLATE_SEARCH, Output, RequestFault
from airflow_provider_browseract.emulator.runs import ENDED, Run
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.panel import accounts as module
from airflow_provider_browseract.panel import days, links, listing
from airflow_provider_browseract.panel.accounts import Accounts
from airflow_provider_browseract.spending.budget import Budget
from tests.cases import cases, raising
from tests.triggers.waits import until
from tests.workers import calls_of

from .known import CONN

CONNECTION = f"Connection {CONN!r}"
V2 = ApiVersion.V2
LONG = 30.0
"""Seconds that a caller waits for what must arrive."""


class Clock:
    """A clock that a test moves. Sleeps move it too."""

    def __init__(self) -> None:
        self.now = time.time()
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


class AtATime(Accounts):
    """The accounts, read some seconds later by the clock of the test."""

    clock: Clock

    async def read(self, after=0.0):
        self.clock.now += after
        return await self.account(CONN, LONG)

    async def read_run(self, task_id, api_version=V2, *, after=0.0):
        self.clock.now += after
        return await self.task(CONN, api_version, task_id, LONG)

    async def load(self, after=0.0):
        """Ask for the days, and return them once nothing more is loaded now."""
        self.clock.now += after
        await self.days(CONN)
        data: Any = self._connections[CONN].data
        await until(lambda: data.days._loading is None)
        return await self.days(CONN)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def accounts(clock, monkeypatch):
    monkeypatch.setattr(links, "dags_on", lambda *_: {})
    return AtATime(clock, clock.sleep)


@pytest.fixture
def emulator(browseract_emulator, connect):
    connect({"retry_budget": 0.1})
    return browseract_emulator


def add_run(emulator, created, status="finished", *, inputs=(), output=None, api_version="v2") -> str:
    """Add a run that was created in the past, with seconds since the epoch, and return its id."""
    workflow = emulator.workflows[SEARCH.id].having(duration=1.0, output=output)
    of = {"id": emulator.new_id(), "workflow": workflow, "shown_workflow_id": SEARCH.id, "inputs": list(inputs)}
    run = Run(**of, created=created, api_version=api_version)
    if status != "finished":
        run.phases, run.outcome = [("created", 0.0), ("running", 1.0 if status in ENDED else math.inf)], status
    run.begun = 3 if status in ENDED else 2
    run.produced = Output(output or "")
    emulator.runs[run.id] = run
    return run.id


def texts_in(root: object) -> set[str]:
    """Return every text that is kept in an object of the package, however deep."""
    seen: dict[int, object] = {}
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen[id(each)] = each
        if isinstance(each, dict):
            waiting += [*each, *each.values()]
        elif isinstance(each, list | tuple | set | frozenset):
            waiting += each
        elif type(each).__module__.startswith(("airflow_provider_browseract", __name__)):
            waiting += vars(each).values() if hasattr(each, "__dict__") else ()
    return {each for each in seen.values() if isinstance(each, str)}


def runs_of(day) -> dict[str, int]:
    return {source: sums.runs for (source, _), sums in day.sums.items()}


def ids(account) -> list[str]:
    return [task.id for task in account.tasks]


async def start(workflow=ENDLESS) -> str:
    return await asyncio.to_thread(lambda: BrowserActHook().run_task(workflow.id).id)


async def stop(task_id: str) -> None:
    await asyncio.to_thread(BrowserActHook().stop_task, task_id)


class TestRuns:
    async def test_account_has_runs_names_budget_and_host(self, emulator, accounts, connect, clock):
        connect({"daily_credits": 100})
        old = add_run(emulator, clock.now - 7200)
        new = add_run(emulator, clock.now - 60, "running")
        account = await accounts.read()
        assert ids(account) == [new, old]
        assert [task.status for task in account.tasks] == [TaskStatus.RUNNING, TaskStatus.FINISHED]
        assert account.names[SEARCH.id] == "Search"
        assert account.budget == Budget(CONN, daily_credits=100)
        assert account.host == emulator.url
        assert account.as_of == datetime.fromtimestamp(clock.now, timezone.utc)
        assert (account.error, account.truncated) == (None, False)

    async def test_20_viewers_send_one_list_request_in_10_s_and_none_if_nobody_looks(self, emulator, accounts, clock):
        for _ in range(3):
            await asyncio.gather(*(accounts.read() for _ in range(20)))
            await accounts.read(after=9)
            clock.now += 1
        assert calls_of(emulator, "list-tasks") == 3
        assert calls_of(emulator, "list-workflows") == 1
        clock.now += 3600
        await asyncio.sleep(0.05)
        assert calls_of(emulator, "list-tasks") == 3

    async def test_later_reads_list_only_from_the_oldest_active_run_on(self, emulator, accounts, clock):
        for number in range(150):
            add_run(emulator, clock.now - 20_000 + number)
        await accounts.read()
        assert calls_of(emulator, "list-tasks") == 2
        assert len((await accounts.read(after=10)).tasks) == 150
        assert calls_of(emulator, "list-tasks") == 3

    async def test_window_begins_anew_after_a_day_without_viewers(self, emulator, accounts, clock):
        await accounts.read()
        await accounts.read(after=3 * 86400)
        [_, query] = [each.query for each in emulator.requests if each.endpoint == "list-tasks"]
        begin = datetime.fromtimestamp(clock.now - 31 * 3600 - 1200, timezone.utc)
        assert query.split("created_at_from=")[1] > begin.strftime("%Y-%m-%dT%H")

    async def test_end_of_a_run_and_a_run_that_is_listed_late_appear(self, emulator, accounts):
        emulator.set_workflow(ORDERS.id, duration=60.0, listed_after=1.0)
        task_id = await start(ORDERS)
        assert ids(await accounts.read()) == []
        await until(lambda: time.time() > emulator.runs[task_id].created + 1.0)
        [task] = (await accounts.read(after=10)).tasks
        assert (task.id, task.status.ended) == (task_id, False)
        await stop(task_id)
        [task] = (await accounts.read(after=10)).tasks
        assert (task.id, task.status) == (task_id, TaskStatus.CANCELED)

    async def test_of_too_many_runs_the_newest_and_the_active_ones_stay(self, emulator, accounts, clock, monkeypatch):
        active = add_run(emulator, clock.now - 5000, "running")
        await accounts.read()
        monkeypatch.setattr(listing, "PAGE_SIZE", 2)
        monkeypatch.setattr(listing, "MAX_REQUESTS", 3)
        newer = [add_run(emulator, clock.now - 100 + number) for number in range(8)]
        account = await accounts.read(after=10)
        assert account.truncated
        assert ids(account) == [*newer[:1:-1], active]
        assert calls_of(emulator, "list-tasks") == 1 + 3
        monkeypatch.setattr(listing, "MAX_REQUESTS", 20)
        assert not (await accounts.read(after=86400)).truncated

    async def test_outputs_too_large_for_a_page_are_read_in_parts(self, emulator, accounts, clock, monkeypatch):
        monkeypatch.setattr("airflow_provider_browseract.api.async_client.MAX_RESPONSE", 3_000_000)
        for number in range(4):
            add_run(emulator, clock.now - 100 + number, output="x" * 1_000_000)
        account = await accounts.read()
        assert (len(account.tasks), account.error) == (4, None)

    async def test_some_connections_are_kept_and_the_one_asked_longest_ago_goes(self, emulator, accounts, monkeypatch):
        monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
        for name in ("A", "B", "C"):
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(emulator.connection))
        for name in ("a", "b", "a", "c", "a", "b"):
            await accounts.account(name, LONG)
        assert calls_of(emulator, "list-tasks") == 4


class TestBots:
    """The list of version 3, beside that of version 2."""

    async def test_list_is_read_every_10_seconds_with_runs_of_bots_else_every_60(self, emulator, accounts, clock):
        for _ in range(13):
            await accounts.read(after=10)
        assert (calls_of(emulator, "list-tasks"), calls_of(emulator, "page-runs")) == (13, 3)
        add_run(emulator, clock.now - 300, api_version="v3")
        await accounts.read(after=60)
        for _ in range(4):
            await accounts.read(after=10)
        assert calls_of(emulator, "page-runs") == 3 + 5

    async def test_runs_that_both_versions_list_count_once_and_cost_as_much_as_none(self, emulator, accounts, clock):
        emulator.shared_runs = True
        task_id = add_run(emulator, clock.now - 60)
        for _ in range(7):
            account = await accounts.read(after=10)
        assert [(task.id, task.api_version) for task in account.tasks] == [(task_id, V2)]
        assert calls_of(emulator, "page-runs") == 2


class TestErrors:
    async def test_slow_service_gives_old_data_within_the_patience(self, emulator, accounts, clock):
        task_id = add_run(emulator, clock.now - 60)
        first = await accounts.read()
        clock.now += 30
        with emulator.fault("list-tasks", RequestFault.slow(2.0)):
            account = await accounts.account(CONN, 0.05)
            assert accounts._connections[CONN].data.lists.workflows._running
        assert (ids(account), account.as_of, account.error) == ([task_id], first.as_of, None)
        assert (await accounts.read()).as_of > first.as_of
        assert calls_of(emulator, "list-tasks") == 2

    async def test_error_leaves_old_data_and_is_tried_again_after_a_pause(self, emulator, accounts, clock):
        task_id = add_run(emulator, clock.now - 60)
        await accounts.read()
        clock.now += 10
        with emulator.fault("list-tasks", RequestFault.html(200)):
            account = await accounts.read()
            assert ids(account) == [task_id]
            assert account.error.startswith("The response to list-tasks is not from BrowserAct's API")
            assert account.remedy.startswith("Set the host of the Airflow connection 'browseract_default'")
            sent = calls_of(emulator, "list-tasks")
            await accounts.read(after=29)
            assert calls_of(emulator, "list-tasks") == sent
        account = await accounts.read(after=1)
        assert (account.error, account.remedy, ids(account)) == (None, "", [task_id])

    async def test_names_that_cannot_be_read_are_no_error(self, emulator, accounts):
        with emulator.fault("list-workflows", RequestFault.status(503)):
            account = await accounts.read()
        assert (account.error, account.names) == (None, {})

    async def test_names_that_take_long_delay_only_the_first_caller(self, emulator, accounts, clock):
        await accounts.read()
        clock.now += 600
        with emulator.fault("list-workflows", RequestFault.hung()):
            account = await accounts.read()
            assert accounts._connections[CONN].data.sources[SourceKind.WORKFLOW]._running
        assert SEARCH.id in account.names

    async def test_refused_key_is_an_error_and_a_changed_key_is_used_at_once(self, emulator, accounts, connect, clock):
        task_id = add_run(emulator, clock.now - 60)
        connect(password="app-wrong")
        account = await accounts.read()
        assert "HTTP 401" in account.error
        assert account.remedy.startswith("Put a valid API key")
        assert "app-wrong" not in repr(account)
        connect()
        assert ids(await accounts.read()) == [task_id]

    @cases(
        {
            "deleted": (None, "There is no connection 'browseract_default'", "Add one of type BrowserAct"),
            "another key": ({"password": "app-other"}, "HTTP 401", "Put a valid API key"),
            "no key": ({"password": ""}, f"{CONNECTION} has no API key", "Put one"),
            "postgres": ({"conn_type": "postgres"}, f"{CONNECTION} is not of type BrowserAct", "Only those have pages"),
        },
    )
    async def test_data_of_the_earlier_connection_are_not_shown(
        self, emulator, accounts, clock, connect, monkeypatch, changed, error, remedy
    ):
        task_id = add_run(emulator, clock.now - 60)
        assert (await accounts.read()).tasks
        assert (await accounts.read_run(task_id)).task
        if changed is None:
            monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
        else:
            connect(**changed)
        account = await accounts.read(after=60)
        assert (account.tasks, account.names, account.as_of) == ((), {}, None)
        assert error in account.error
        assert account.remedy.startswith(remedy)
        for read in (
            await accounts.read_run(task_id),
            await accounts.sources(CONN, SourceKind.WORKFLOW, LONG),
            await accounts.source(CONN, SourceKind.WORKFLOW, SEARCH.id, LONG),
        ):
            assert error in read.error
            assert (read.as_of, getattr(read, "task", None), getattr(read, "source", None)) == (None, None, None)
        if changed is None:
            assert error in (await accounts.days(CONN)).error
            with pytest.raises(BrowserActError, match=error):
                await accounts.stop(CONN, V2, task_id)

    async def test_failed_look_up_of_the_connection_keeps_what_was_read(self, emulator, accounts, clock, monkeypatch):
        add_run(emulator, clock.now - 60)
        assert (await accounts.read()).tasks
        clock.now += 60
        with monkeypatch.context() as broken:
            broken.setattr(BrowserActHook, "get_connection", lambda *_: 1 / 0)
            assert (await accounts.read()).tasks
        assert (await accounts.read()).tasks

    async def test_more_connections_than_are_kept_are_read_apart_at_once(self, accounts, monkeypatch, emulator, clock):
        task_id = add_run(emulator, clock.now - 60)
        wrong = {**emulator.connection, "password": "app-wrong"}
        monkeypatch.setattr(module, "MAX_CONNECTIONS", 1)
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(wrong))
        found = await asyncio.gather(*(accounts.account(conn_id, LONG) for conn_id in (CONN, "missing", "other")))
        assert [(each.conn_id, ids(each)) for each in found] == [(CONN, [task_id]), ("missing", []), ("other", [])]
        assert (found[0].error, "'other'" in found[2].remedy) == (None, True)

    async def test_cancelled_caller_does_not_stop_the_read_for_others(self, emulator, accounts):
        with emulator.fault("list-tasks", RequestFault.slow(0.5)):
            first = asyncio.ensure_future(accounts.read())
            await until(lambda: calls_of(emulator, "list-tasks"))
            other = asyncio.ensure_future(accounts.read())
            first.cancel()
            assert (await other).as_of
            assert first.cancelled()
        assert calls_of(emulator, "list-tasks") == 1

    async def test_unexpected_error_shows_only_its_type(self, accounts, emulator, monkeypatch):
        monkeypatch.setattr(listing, "list_changes", raising(RuntimeError("hunter2")))
        account = await accounts.read()
        assert account.error == "unexpected error (RuntimeError)"


class TestSingleRuns:
    async def test_run_is_kept_for_5_seconds_while_active_and_for_60_afterwards(self, emulator, accounts, clock):
        emulator.set_workflow(ENDLESS.id, duration=3600.0)
        task_id = await start()
        await asyncio.gather(*(accounts.read_run(task_id) for _ in range(20)))
        await accounts.read_run(task_id, after=4)
        assert calls_of(emulator, "get-task") == 1
        clock.now += 1
        await stop(task_id)
        assert (await accounts.read_run(task_id)).task.status is TaskStatus.CANCELED
        await accounts.read_run(task_id, after=59)
        assert calls_of(emulator, "get-task") == 2
        await accounts.read_run(task_id, after=1)
        assert calls_of(emulator, "get-task") == 3

    async def test_steps_of_a_long_run_are_left_out_in_the_middle(self, emulator, accounts):
        emulator.set_workflow(ENDLESS.id, step_every=0.001)
        task_id = await start()
        await until(lambda: len(emulator.tasks[-1].steps) > 300)
        task = (await accounts.read_run(task_id)).task
        assert (len(task.steps), task.steps[0].number) == (200, 1)
        assert task.steps_left_out == task.steps[-1].number - 200

    async def test_at_most_some_runs_are_kept(self, emulator, accounts, clock, monkeypatch):
        monkeypatch.setattr(module, "MAX_SINGLES", 2)
        first, second, third = (add_run(emulator, clock.now - 60) for _ in range(3))
        for task_id in (first, second, first, third, first, second):
            await accounts.read_run(task_id)
        assert calls_of(emulator, "get-task") == 4

    @pytest.mark.parametrize("api_version", ApiVersion)
    async def test_neither_inputs_nor_outputs_are_kept(self, emulator, accounts, clock, api_version):
        secrets = {"inputs": [("keyword", "hunter2-input")], "output": "hunter2-output", "api_version": api_version}
        task_id = add_run(emulator, clock.now - 60, **secrets)
        add_run(emulator, clock.now - 86400, **secrets)
        assert (await accounts.read()).tasks
        read = await accounts.read_run(task_id, api_version)
        assert (read.task.id, read.task.input_parameters, read.task.input, read.task.output) == (task_id, *[None] * 3)
        assert not read.secret_inputs
        await accounts.load()
        texts = texts_in(accounts)
        assert {task_id, "Search"} <= texts
        assert not [text for text in texts if "hunter2" in text]


class TestSources:
    async def test_lists_of_workflows_and_templates_are_kept_for_10_minutes(self, emulator, accounts, clock):
        for _ in range(2):
            workflows = await accounts.sources(CONN, SourceKind.WORKFLOW, LONG)
            templates = await accounts.sources(CONN, SourceKind.TEMPLATE, LONG)
            clock.now += 599
        assert SEARCH.id in [each.id for each in workflows.items]
        assert TEMPLATE_SEARCH.id in [each.id for each in templates.items]
        assert not workflows.truncated
        assert (calls_of(emulator, "list-workflows"), calls_of(emulator, "list-official-workflow-templates")) == (1, 1)

    async def test_long_lists_and_texts_are_cut(self, emulator, accounts, monkeypatch):
        monkeypatch.setattr(module, "PAGE_SIZE", 2)
        monkeypatch.setattr(module, "MAX_SOURCES", 4)
        for each in emulator.of_kind("workflow"):
            emulator.set_workflow(each.id, name="x" * 1_000_000, description="y" * 100_000)
        read = await accounts.sources(CONN, SourceKind.WORKFLOW, LONG)
        assert (len(read.items), read.truncated) == (4, True)
        assert {(len(each.name), len(each.description)) for each in read.items} == {(1000, 1000)}
        assert {len(name) for name in (await accounts.read()).names.values()} == {1000}

    async def test_one_source_is_kept_for_60_seconds(self, emulator, accounts, clock):
        for _ in range(2):
            assert (await accounts.source(CONN, SourceKind.WORKFLOW, SEARCH.id, LONG)).source.inputs
            clock.now += 59
        assert calls_of(emulator, "get-workflow") == 1


class TestStop:
    async def test_stopped_run_is_read_again_by_the_next_caller(self, emulator, accounts):
        task_id = await start()
        assert not (await accounts.read_run(task_id)).task.status.ended
        assert not (await accounts.read()).tasks[0].status.ended
        assert await accounts.stop(CONN, V2, task_id) is True
        assert (await accounts.read_run(task_id)).task.status is TaskStatus.CANCELED
        assert (await accounts.read()).tasks[0].status is TaskStatus.CANCELED
        assert await accounts.stop(CONN, V2, task_id) is False

    async def test_stop_is_sent_although_the_viewer_has_left(self, emulator, accounts):
        task_id = await start()
        stopping = asyncio.ensure_future(accounts.stop(CONN, V2, task_id))
        await asyncio.sleep(0)
        stopping.cancel()
        await until(lambda: emulator.tasks[-1].status == "canceled")


class TestDays:
    @pytest.fixture(autouse=True)
    def today(self, clock) -> date:
        """The day, at noon, so that it stays the same for a while."""
        clock.now = time.time() // 86400 * 86400 - 12 * 3600
        return datetime.fromtimestamp(clock.now, timezone.utc).date()

    def days_listed(self, emulator) -> list[date]:
        queries = [each.query for each in emulator.requests if "created_at_to" in each.query]
        return [date.fromisoformat(query.split("created_at_from=")[1][:10]) for query in queries]

    async def test_days_are_read_backwards_at_most_two_requests_a_second(
        self, emulator, accounts, clock, today, monkeypatch
    ):
        midnight = clock.now - 12 * 3600
        created = {add_run(emulator, midnight - age * 86400): f"dag {age}" for age in (40, 30, 3, 1, 0)}
        monkeypatch.setattr(links, "dags_on", lambda day, conn_id, key: created if key == emulator.api_key else {})
        read = await accounts.load()
        assert self.days_listed(emulator) == [today - timedelta(days=age) for age in range(1, 31)]
        assert calls_of(emulator, "list-tasks") == 1 + 30
        # Without bots: the runs of a day, and whether there were any in the month.
        assert calls_of(emulator, "page-runs") == 2
        assert clock.slept == [0.0] + 29 * [0.5]
        assert (sorted(read.days), read.error) == ([today - timedelta(days=age) for age in range(30, -1, -1)], None)
        found = {(today - day).days: known.sums for day, known in read.days.items() if known.sums}
        assert {age: [*sums] for age, sums in found.items()} == {
            age: [(SEARCH.id, f"dag {age}")] for age in (30, 3, 1, 0)
        }
        assert [(each.runs, each.failed, each.credits > 0) for each in found[1].values()] == [(1, 0, True)]

    async def test_day_has_the_runs_of_both_versions_once_each(self, emulator, accounts, clock, today):
        yesterday = clock.now - 86400
        for created, version in ((yesterday, "v2"), (yesterday, "v3"), (clock.now - 60, "v3")):
            add_run(emulator, created, api_version=version)
        emulator.shared_runs = True
        days = (await accounts.load()).days
        assert runs_of(days[today - timedelta(days=1)]) == {SEARCH.id: 2}
        assert sum(runs_of(days[today]).values()) == 1

    async def test_days_without_bots_are_read_again_once_bots_can_be_read(self, emulator, accounts, clock, today):
        day = today - timedelta(days=3)
        add_run(emulator, clock.now - 3 * 86400, api_version="v3")
        with emulator.fault("page-runs", RequestFault.status(404)):
            read = await accounts.load()
        assert (read.error, len(read.days), runs_of(read.days[day])) == (None, 31, {})
        read = await accounts.load(after=30)
        assert runs_of(read.days[day]) == {"bot Search": 1}

    async def test_closed_days_are_not_read_again_and_others_every_60_seconds(self, emulator, accounts, clock, today):
        for age in (2, 5):
            add_run(emulator, clock.now - 12 * 3600 - age * 86400 + 60, "running")
        await accounts.load()
        listed = len(self.days_listed(emulator))
        await accounts.load(after=40)
        assert len(self.days_listed(emulator)) == listed
        await accounts.load(after=60)
        assert self.days_listed(emulator)[listed:] == [today - timedelta(days=2)]

    async def test_loading_stops_when_nobody_asks(self, emulator, accounts, monkeypatch):
        monkeypatch.setattr(days, "REQUEST_PAUSE", 10.0)
        await accounts.load()
        # At 0, 10, 20 and 30 seconds.
        assert len(self.days_listed(emulator)) <= 4

    async def test_day_that_cannot_be_read_is_an_error_and_does_not_stop_the_others(self, emulator, accounts):
        await accounts.read()
        emulator.fault("list-tasks", RequestFault.refused(99001, "no such day"), times=1)
        read = await accounts.load()
        assert "no such day" in read.error
        assert len(read.days) == 1
        listed = len(self.days_listed(emulator))
        await accounts.load(after=29)
        assert len(self.days_listed(emulator)) == listed
        read = await accounts.load(after=1)
        assert (read.error, len(read.days)) == (None, 31)
        assert self.days_listed(emulator)[-1] == self.days_listed(emulator)[0]

    async def test_today_is_listed_if_the_runs_are_truncated(self, emulator, accounts, clock, monkeypatch, today):
        monkeypatch.setattr(listing, "PAGE_SIZE", 1)
        monkeypatch.setattr(listing, "MAX_REQUESTS", 1)
        for _ in range(2):
            add_run(emulator, clock.now - 1)
        read = await accounts.load()
        assert self.days_listed(emulator)[0] == today
        assert (runs_of(read.days[today]), read.days[today].truncated) == ({SEARCH.id: 2}, False)

    async def test_new_day_begins_without_the_runs_of_yesterday(self, emulator, accounts, clock, today):
        add_run(emulator, clock.now - 60)
        assert runs_of((await accounts.load()).days[today]) == {SEARCH.id: 1}
        read = await accounts.load(after=86400)
        assert [runs_of(read.days[today + timedelta(days=more)]) for more in (0, 1)] == [{SEARCH.id: 1}, {}]
        assert min(read.days) == today - timedelta(days=29)

    async def test_two_connections_share_the_pace(self, emulator, accounts, clock, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(emulator.connection))
        monkeypatch.setattr(days, "DAYS", 4)
        await asyncio.gather(accounts.days(CONN), accounts.days("other"))
        await until(lambda: all(each.data.days._loading is None for each in accounts._connections.values()))
        assert len(self.days_listed(emulator)) == 6
        assert clock.slept == [0.0] + 5 * [0.5]
