"""What the pages know about the accounts: how often it is read, what is kept, and what happens after errors."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from datetime import date, datetime, timedelta, timezone
from operator import attrgetter
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from airflow_provider_browseract.api.models import ApiVersion, TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.emulator import ENDLESS, SEARCH, TEMPLATE_SEARCH, Output, RequestFault
from airflow_provider_browseract.emulator.runs import Run
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.panel import accounts as module
from airflow_provider_browseract.panel import client, connections, days, kept, links, listing
from airflow_provider_browseract.panel.accounts import Accounts
from airflow_provider_browseract.panel.kept import Kept, Known
from airflow_provider_browseract.runs.watching import Window
from airflow_provider_browseract.spending.budget import Budget
from tests.helpers.cases import cases, raising
from tests.helpers.workers import calls_of
from tests.triggers.waits import until

from .known import CONN

CONNECTION = f"Connection {CONN!r}"
V2, WORKFLOW, TEMPLATE = ApiVersion.V2, SourceKind.WORKFLOW, SourceKind.TEMPLATE
LONG = 30.0  # seconds that a caller waits for what must arrive
all_days = attrgetter("days.get")


def workflows(of):
    return of.sources[WORKFLOW].get


def search(of):
    return of.source(WORKFLOW, SEARCH.id).get


class AtATime(Accounts):
    """The accounts, read some seconds later by a clock that a test moves. Sleeps move it too."""

    def __init__(self) -> None:
        super().__init__(lambda: self.now, self.sleep)
        self.now = time.time() // 1
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    async def read(self, after=0.0):
        self.now += after
        return await self.account(CONN, LONG)

    async def read_run(self, task_id, api_version=V2, *, after=0.0):
        self.now += after
        return await self.get(CONN, LONG, lambda of: of.run(task_id, api_version).get)

    async def load(self, *conn_ids, after=0.0):
        """Ask for the days, and return them once nothing more is loaded now."""
        self.now += after
        await asyncio.gather(*(self.get(conn_id, LONG, all_days) for conn_id in conn_ids or (CONN,)))
        await until(lambda: all(each.days._loading and each.days._loading.done() for each in self._data.values()))
        return await self.get(CONN, LONG, all_days)


@pytest.fixture
def accounts(monkeypatch):
    monkeypatch.setattr(links, "dags_on", lambda *_: {})
    return AtATime()


@pytest.fixture
def emulator(browseract_emulator, connect):
    connect({"retry_budget": 0.1})
    return browseract_emulator


def add_run(emulator, created, *, active=False, inputs=(), output=None, api_version="v2") -> str:
    """Add a run that was created in the past, with seconds since the epoch, and return its id."""
    workflow = emulator.workflows[SEARCH.id].having(duration=1.0, output=output)
    of = {"id": emulator.new_id(), "workflow": workflow, "shown_workflow_id": SEARCH.id, "inputs": list(inputs)}
    run = emulator.runs[of["id"]] = Run(**of, created=created, api_version=api_version)
    if active:
        run.phases, run.outcome = [("created", 0.0), ("running", math.inf)], "running"
    run.begun, run.produced = 2 if active else 3, Output(output or "")
    return run.id


def runs_of(day) -> dict[str, int]:
    return {source: sums.runs for (source, _), sums in day.sums.items()}


def ids(account) -> list[str]:
    return [task.id for task in account.tasks]


async def start() -> str:
    return await asyncio.to_thread(lambda: BrowserActHook().run_task(ENDLESS.id).id)


class TestReads:
    async def test_account_has_runs_names_budget_and_host(self, emulator, accounts, connect):
        connect({"daily_credits": 100})
        old = add_run(emulator, accounts.now - 7200)
        new = add_run(emulator, accounts.now - 60, active=True)
        account = await accounts.read()
        found = [(task.id, task.status) for task in account.tasks]
        assert found == [(new, TaskStatus.RUNNING), (old, TaskStatus.FINISHED)]
        assert (account.names[SEARCH.id], account.budget) == ("Search", Budget(CONN, daily_credits=100))
        assert (account.host, account.as_of.timestamp()) == (emulator.url, accounts.now)
        assert (account.error, account.truncated) == (None, False)

    async def test_20_viewers_send_one_list_request_in_10_s(self, emulator, accounts):
        for _ in range(3):
            await asyncio.gather(*(accounts.read() for _ in range(20)))
            await accounts.read(after=9)
            accounts.now += 1
        assert (calls_of(emulator, "list-tasks"), calls_of(emulator, "list-workflows")) == (3, 1)

    async def test_later_reads_list_only_from_the_oldest_active_run_on(self, emulator, accounts):
        for number in range(150):
            add_run(emulator, accounts.now - 20_000 + number)
        await accounts.read()
        assert calls_of(emulator, "list-tasks") == 2
        assert len((await accounts.read(after=10)).tasks) == 150
        assert calls_of(emulator, "list-tasks") == 3
        # After days without viewers, the list is as short as the first one.
        await accounts.read(after=3 * 86400)
        query = [each.query for each in emulator.requests if each.endpoint == "list-tasks"][-1]
        begin = datetime.fromtimestamp(accounts.now - 31 * 3600 - 1200, timezone.utc)
        assert query.split("created_at_from=")[1] > begin.strftime("%Y-%m-%dT%H")

    async def test_of_too_many_runs_the_newest_and_the_active_ones_stay(self, emulator, accounts, monkeypatch):
        active = add_run(emulator, accounts.now - 5000, active=True)
        await accounts.read()
        monkeypatch.setattr(listing, "PAGE_SIZE", 2)
        monkeypatch.setattr(listing, "MAX_REQUESTS", 3)
        newer = [add_run(emulator, accounts.now - 100 + number) for number in range(8)]
        account = await accounts.read(after=10)
        assert (account.truncated, ids(account)) == (True, [*newer[:1:-1], active])
        assert calls_of(emulator, "list-tasks") == 1 + 3
        monkeypatch.setattr(listing, "MAX_REQUESTS", 20)
        assert not (await accounts.read(after=86400)).truncated

    async def test_some_accounts_are_kept_and_more_are_read_apart_at_once(self, emulator, accounts, monkeypatch):
        monkeypatch.setattr(module, "MAX_ACCOUNTS", 2)
        for name in ("A", "B", "C"):
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(emulator.connection))
        for name in ("a", "b", "a", "c", "a", "b"):
            await accounts.account(name, LONG)
        assert calls_of(emulator, "list-tasks") == 4
        monkeypatch.setattr(module, "MAX_ACCOUNTS", 1)
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({**emulator.connection, "password": "app-wrong"}))
        task_id = add_run(emulator, accounts.now - 60)
        found = await asyncio.gather(*(accounts.account(conn_id, LONG) for conn_id in (CONN, "missing", "other")))
        assert [(each.conn_id, ids(each)) for each in found] == [(CONN, [task_id]), ("missing", []), ("other", [])]
        assert (found[0].error, "'other'" in found[2].remedy) == (None, True)

    async def test_bots_are_listed_every_10_seconds_if_any_run_else_every_60(self, emulator, accounts):
        # A run that both versions list counts once, and as none of a bot.
        emulator.shared_runs = True
        task_id = add_run(emulator, accounts.now - 60)
        for _ in range(13):
            account = await accounts.read(after=10)
        assert [(task.id, task.api_version) for task in account.tasks] == [(task_id, V2)]
        assert (calls_of(emulator, "list-tasks"), calls_of(emulator, "page-runs")) == (13, 3)
        emulator.shared_runs = False
        add_run(emulator, accounts.now - 300, api_version="v3")
        await accounts.read(after=60)
        for _ in range(4):
            await accounts.read(after=10)
        assert calls_of(emulator, "page-runs") == 3 + 5

    async def test_run_is_kept_for_5_seconds_while_active_and_for_60_afterwards(self, emulator, accounts):
        task_id = await start()
        await asyncio.gather(*(accounts.read_run(task_id) for _ in range(20)))
        await accounts.read_run(task_id, after=4)
        assert calls_of(emulator, "get-task") == 1
        await asyncio.to_thread(BrowserActHook().stop_task, task_id)
        assert (await accounts.read_run(task_id, after=1)).value.status is TaskStatus.CANCELED
        for after, sent in ((59, 2), (1, 3)):
            await accounts.read_run(task_id, after=after)
            assert calls_of(emulator, "get-task") == sent

    async def test_stopped_run_is_read_again_by_the_next_caller(self, emulator, accounts):
        task_id = await start()
        assert not (await accounts.read_run(task_id)).value.status.ended
        assert not (await accounts.read()).tasks[0].status.ended
        assert await accounts.stop(CONN, V2, task_id) is True
        assert (await accounts.read_run(task_id)).value.status is TaskStatus.CANCELED
        assert (await accounts.read()).tasks[0].status is TaskStatus.CANCELED
        assert await accounts.stop(CONN, V2, task_id) is False

    async def test_at_most_some_runs_are_kept(self, emulator, accounts, monkeypatch):
        monkeypatch.setattr(module, "MAX_SINGLES", 2)
        first, second, third = (add_run(emulator, accounts.now - 60) for _ in range(3))
        for task_id in (first, second, first, third, first, second):
            await accounts.read_run(task_id)
        assert calls_of(emulator, "get-task") == 4

    @pytest.mark.parametrize("name", ["keyword", "password"])
    @pytest.mark.parametrize("api_version", ApiVersion)
    async def test_neither_inputs_nor_outputs_are_kept(self, emulator, accounts, api_version, name):
        secrets = {"inputs": [(name, "hunter2-input")], "output": "hunter2-output", "api_version": api_version}
        task_id = add_run(emulator, accounts.now - 60, **secrets)
        add_run(emulator, accounts.now - 86400, **secrets)
        account, run = await accounts.read(), await accounts.read_run(task_id, api_version)
        month = await accounts.load()
        assert (len(account.tasks), run.value.id, len(month.value)) == (2, task_id, 31)
        for task in (*account.tasks, run.value):
            assert (task.input_parameters, task.input, task.output) == (None, None, None)
        # Goals of an agent may quote secret inputs.
        assert {step.goal == "***" for step in run.value.steps} == {name == "password"}
        known = repr((account, run, month))
        assert ("Search" in known, "hunter2" in known) == (True, False)

    async def test_lists_are_kept_for_10_minutes_and_one_source_for_60_seconds(self, emulator, accounts):
        for after in (0, 59, 540):
            accounts.now += after
            assert (await accounts.get(CONN, LONG, search)).value.inputs
            listed = (await accounts.get(CONN, LONG, workflows)).value
            templates = (await accounts.get(CONN, LONG, lambda of: of.sources[TEMPLATE].get)).value
        assert (SEARCH.id in [each.id for each in listed.items], listed.truncated) == (True, False)
        assert TEMPLATE_SEARCH.id in [each.id for each in templates.items]
        names = ("list-workflows", "list-official-workflow-templates", "get-workflow")
        assert [calls_of(emulator, name) for name in names] == [1, 1, 2]

    async def test_long_lists_and_texts_are_cut(self, emulator, accounts, monkeypatch):
        monkeypatch.setattr(module, "PAGE_SIZE", 2)
        monkeypatch.setattr(module, "MAX_SOURCES", 4)
        for each in emulator.of_kind("workflow"):
            emulator.set_workflow(each.id, name="x" * 1_000_000, description="y" * 100_000)
        listed = (await accounts.get(CONN, LONG, workflows)).value
        assert (len(listed.items), listed.truncated) == (4, True)
        assert {(len(each.name), len(each.description)) for each in listed.items} == {(1000, 1000)}
        assert {len(name) for name in (await accounts.read()).names.values()} == {1000}


class TestErrors:
    async def test_read_ends_after_a_limit_and_an_unexpected_error_shows_its_type(
        self, emulator, accounts, monkeypatch
    ):
        monkeypatch.setattr(client, "READ_LIMIT", 0.2)
        with emulator.fault("list-tasks", RequestFault.hung()):
            account = await accounts.read()
        assert (account.error, account.remedy) == ("BrowserAct did not send everything within 0.2 seconds", "")
        monkeypatch.setattr(Window, "call", raising(RuntimeError("hunter2")))
        assert (await accounts.read(after=30)).error == "unexpected error (RuntimeError)"

    async def test_nobody_waits_again_for_a_read_that_hangs(self, monkeypatch):
        go_on, waited = asyncio.Event(), list[float]()

        async def noted(_, timeout: float) -> None:
            waited.append(timeout)

        hanging = Kept(go_on.wait, lambda _: 60.0, lambda _: Known(), time.time)
        with monkeypatch.context() as patch:
            patch.setattr(asyncio, "wait", noted)
            for now in (10.0, 11.0, 15.0):
                patch.setattr(kept, "time", SimpleNamespace(monotonic=lambda now=now: now))
                await hanging.get(now + 2.0)
        assert waited == [2.0, 1.0, 0.0]
        go_on.set()
        assert (await hanging.get()).value is True

    async def test_error_leaves_old_data_and_is_tried_again_after_a_pause(self, emulator, accounts):
        task_id = add_run(emulator, accounts.now - 60)
        await accounts.read()
        with emulator.fault("list-tasks", RequestFault.html(200)):
            account = await accounts.read(after=10)
            assert ids(account) == [task_id]
            assert account.error.startswith("The response to list-tasks is not from BrowserAct's API")
            assert account.remedy.startswith("Set the host of the Airflow connection 'browseract_default'")
            sent = calls_of(emulator, "list-tasks")
            await accounts.read(after=29)
            assert calls_of(emulator, "list-tasks") == sent
        account = await accounts.read(after=1)
        assert (account.error, account.remedy, ids(account)) == (None, "", [task_id])

    async def test_names_delay_only_the_first_caller_and_their_errors_are_none(self, emulator, accounts):
        with emulator.fault("list-workflows", RequestFault.status(503), times=None):
            account = await accounts.read()
        assert (account.error, account.names) == (None, {})
        await accounts.read(after=30)
        assert (await accounts.get(CONN, LONG, workflows)).value
        listed = calls_of(emulator, "list-workflows")
        with emulator.fault("list-workflows", RequestFault.hung()):
            assert SEARCH.id in (await asyncio.wait_for(accounts.read(after=600), LONG / 10)).names
            await until(lambda: calls_of(emulator, "list-workflows") == listed + 1)

    async def test_refused_key_is_an_error_and_a_changed_key_is_used_at_once(self, emulator, accounts, connect):
        task_id = add_run(emulator, accounts.now - 60)
        connect(password="app-wrong")
        account = await accounts.read()
        assert ("HTTP 401" in account.error, "app-wrong" in repr(account)) == (True, False)
        connect()
        assert ids(await accounts.read()) == [task_id]

    @cases(
        ("deleted", None, "There is no connection 'browseract_default'", "Add one of type BrowserAct"),
        ("another key", {"password": "app-other"}, "HTTP 401", "Put a valid API key"),
        ("no key", {"password": ""}, f"{CONNECTION} has no API key", "Put one"),
        ("postgres", {"conn_type": "postgres"}, f"{CONNECTION} is not of type BrowserAct", "Only those have pages"),
    )
    async def test_data_of_the_earlier_connection_are_not_shown(
        self, emulator, accounts, connect, monkeypatch, changed, error, remedy
    ):
        task_id = add_run(emulator, accounts.now - 60)
        assert (await accounts.read()).tasks
        assert (await accounts.read_run(task_id)).value
        if changed is None:
            monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
        else:
            connect(**changed)
        account = await accounts.read(after=60)
        assert (account.tasks, account.names, account.as_of) == ((), {}, None)
        assert (error in account.error, account.not_found) == (True, changed is None)
        assert account.remedy.startswith(remedy)
        reads: list[Any] = [await accounts.read_run(task_id), await accounts.get(CONN, LONG, all_days)]
        reads += [await accounts.get(CONN, LONG, workflows), await accounts.get(CONN, LONG, search)]
        for read in reads:
            assert error in read.error
            assert (read.as_of, read.value or None, read.not_found) == (None, None, False)
        with pytest.raises(BrowserActError, match=error):
            await accounts.stop(CONN, V2, task_id)

    async def test_connection_is_read_once_a_minute_and_kept_if_that_fails(self, emulator, accounts, monkeypatch):
        task_id, read = add_run(emulator, accounts.now - 60), Mock(wraps=connections._read)
        monkeypatch.setattr(connections, "_read", read)
        for after in (0.0, 59.0, 1.0):
            await accounts.read(after=after)
            assert await accounts.connections.keys([CONN, "no"]) == {CONN: emulator.api_key}
        assert [each.args[0] for each in read.call_args_list] == [CONN, "no", "no", CONN]
        monkeypatch.setattr(connections, "_read", raising(RuntimeError()))
        assert ids(await accounts.read(after=60)) == [task_id]
        assert await accounts.connections.keys([CONN]) == {CONN: emulator.api_key}

    async def test_connections_that_cannot_be_read_hold_no_thread_of_other_reads(self, accounts, monkeypatch):
        answering = threading.Event()
        monkeypatch.setattr(connections, "_read", lambda _: answering.wait())
        monkeypatch.setattr(connections, "PATIENCE", 0.1)
        try:
            assert await accounts.connections.keys([f"slow_{number}" for number in range(40)]) == {}
            # Host names are resolved in these threads.
            assert await asyncio.wait_for(asyncio.to_thread(lambda: "free"), 10) == "free"
        finally:
            answering.set()

    async def test_cancelled_caller_does_not_stop_the_read_for_others(self, emulator, accounts):
        with emulator.fault("list-tasks", RequestFault.slow(0.5)):
            first = asyncio.ensure_future(accounts.read())
            await until(lambda: calls_of(emulator, "list-tasks"))
            other = asyncio.ensure_future(accounts.read())
            first.cancel()
            assert ((await other).as_of is None, first.cancelled()) == (False, True)
        assert calls_of(emulator, "list-tasks") == 1


class TestDays:
    @pytest.fixture(autouse=True)
    def today(self, accounts) -> date:
        """The day, at noon, so that it stays the same for a while."""
        accounts.now = time.time() // 86400 * 86400 - 12 * 3600
        return datetime.fromtimestamp(accounts.now, timezone.utc).date()

    def days_listed(self, emulator) -> list[date]:
        queries = [each.query for each in emulator.requests if "created_at_to" in each.query]
        return [date.fromisoformat(query.split("created_at_from=")[1][:10]) for query in queries]

    async def test_days_are_read_backwards_two_a_second(self, emulator, accounts, today, monkeypatch):
        midnight = accounts.now - 12 * 3600
        created = {add_run(emulator, midnight - age * 86400): f"dag {age}" for age in (40, 30, 3, 1, 0)}
        monkeypatch.setattr(links, "dags_on", lambda day, conn_id, key: created if key == emulator.api_key else {})
        read = await accounts.load()
        assert self.days_listed(emulator) == [today - timedelta(days=age) for age in range(31)]
        # Whether any bots ran in the month.
        assert (calls_of(emulator, "page-runs"), accounts.slept) == (1, 31 * [0.5])
        assert (sorted(read.value), read.error) == ([today - timedelta(days=age) for age in range(30, -1, -1)], None)
        found = {(today - day).days: known.sums for day, known in read.value.items() if known.sums}
        groups = [(age, [*sums]) for age, sums in found.items()]
        assert groups == [(age, [(SEARCH.id, f"dag {age}")]) for age in (0, 1, 3, 30)]
        assert [(each.runs, each.failed, each.credits > 0) for each in found[1].values()] == [(1, 0, True)]

    async def test_day_has_the_runs_of_both_versions_once_each(self, emulator, accounts, today):
        yesterday = accounts.now - 86400
        for created, version in ((yesterday, "v2"), (yesterday, "v3"), (accounts.now - 60, "v3")):
            add_run(emulator, created, api_version=version)
        emulator.shared_runs = True
        read = (await accounts.load()).value
        assert runs_of(read[today - timedelta(days=1)]) == {SEARCH.id: 2}
        assert sum(runs_of(read[today]).values()) == 1

    async def test_days_without_bots_are_read_again_once_bots_can_be_read(self, emulator, accounts, today):
        day = today - timedelta(days=3)
        add_run(emulator, accounts.now - 3 * 86400, api_version="v3")
        with emulator.fault("page-runs", RequestFault.status(404)):
            read = await accounts.load()
        assert (read.error, len(read.value), runs_of(read.value[day])) == (None, 31, {})
        read = await accounts.load(after=60)
        assert runs_of(read.value[day]) == {"bot Search": 1}

    async def test_closed_days_are_not_read_again_and_others_every_60_seconds(self, emulator, accounts, today):
        for age in (1, 5):
            add_run(emulator, accounts.now - 12 * 3600 - age * 86400 + 60, active=age == 1)
        await accounts.load()
        listed = len(self.days_listed(emulator))
        await accounts.load(after=40)
        assert len(self.days_listed(emulator)) == listed
        await accounts.load(after=60)
        assert self.days_listed(emulator)[listed:] == [today, today - timedelta(days=1)]

    async def test_loading_stops_when_nobody_asks(self, emulator, accounts, monkeypatch):
        monkeypatch.setattr(days, "DAY_PAUSE", 10.0)
        await accounts.load()
        # At 10, 20, 30 and, because it has asked again, 40 seconds.
        assert len(self.days_listed(emulator)) <= 4

    async def test_day_that_cannot_be_read_is_an_error_and_does_not_stop_the_others(self, emulator, accounts):
        # Today is read.
        emulator.fault("list-tasks", RequestFault.refused(99001, "no such day"), skip=1, times=1)
        read = await accounts.load()
        assert ("no such day" in read.error, len(read.value)) == (True, 1)
        listed = len(self.days_listed(emulator))
        await accounts.load(after=29)
        assert len(self.days_listed(emulator)) == listed
        read = await accounts.load(after=1)
        assert (read.error, len(read.value)) == (None, 31)
        assert self.days_listed(emulator)[-1] == self.days_listed(emulator)[1]

    async def test_today_is_read_again_and_the_next_day_is_empty(self, emulator, accounts, today):
        await accounts.load()
        add_run(emulator, accounts.now)
        read = await accounts.load(after=60)
        assert (runs_of(read.value[today]), read.as_of.timestamp()) == ({SEARCH.id: 1}, accounts.now - days.DAY_PAUSE)
        read = (await accounts.load(after=86400)).value
        assert [runs_of(read[today + timedelta(days=more)]) for more in (0, 1)] == [{SEARCH.id: 1}, {}]
        assert min(read) == today - timedelta(days=29)

    async def test_two_connections_share_the_pace(self, emulator, accounts, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps(emulator.connection))
        monkeypatch.setattr(days, "DAYS", 4)
        await accounts.load(CONN, "other")
        assert len(self.days_listed(emulator)) == 8
        assert accounts.slept == 8 * [0.5]
