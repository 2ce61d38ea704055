"""Waiting for slots in the triggerer: who is woken, when, and with how many requests."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.emulator import ORDERS, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.queueing import Queued, QueueWait, count_active
from airflow_provider_browseract.triggers import dispatcher
from airflow_provider_browseract.triggers import slot as slots
from airflow_provider_browseract.triggers.dispatcher import Dispatcher, run_has_ended
from airflow_provider_browseract.triggers.slot import SlotTrigger
from tests.triggers.waits import LIMIT, until
from tests.workers import calls_of

CONN_ID = "browseract_default"


@pytest.fixture
def emulator(browseract_emulator, short_patience, short_timings, monkeypatch):
    # Nothing is woken without a free slot.
    monkeypatch.setattr(timings, "SLOT_PROBE_PAUSE", 600.0)
    emulator = browseract_emulator
    emulator.concurrency = 10
    emulator.set_workflow(ORDERS.id, duration=600.0)
    return emulator


class Waiting:
    """Task instances that wait for slots in one triggerer."""

    def __init__(self) -> None:
        self.woken: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(
        self,
        name: str,
        since: float,
        *,
        active: int | None = 1,
        priority: int = 1,
        refusals: int = 1,
        conn_id: str = CONN_ID,
        ti: Any = None,
        **fields: Any,
    ) -> SlotTrigger:
        """Let a task instance wait, and return its trigger."""
        wait = QueueWait(Queued(since, since, refusals, priority), time.time() + 600, active=active, **fields)
        trigger = SlotTrigger(browseract_conn_id=conn_id, wait=wait)
        if ti is not None:
            trigger.task_instance = ti
        self._tasks[name] = asyncio.create_task(self._run(name, trigger))
        return trigger

    async def _run(self, name: str, trigger: SlotTrigger) -> None:
        [_] = [event async for event in trigger.run()]
        self.woken.append(name)

    async def cancel(self, name: str) -> None:
        """End a wait, as Airflow does when something else has resumed the task instance."""
        self._tasks[name].cancel()
        with suppress(asyncio.CancelledError):
            await self._tasks[name]

    async def until_woken(self, number: int) -> list[str]:
        """Wait until so many were woken, and return all."""
        await until(lambda: len(self.woken) >= number)
        return self.woken

    async def end(self) -> None:
        """End all waits."""
        for name in self._tasks:
            await self.cancel(name)


async def counts(emulator, number: int) -> None:
    """Wait for further counts of the active runs."""
    # A count has a request for each of four statuses.
    wanted = calls_of(emulator, "list-tasks") + 4 * number
    await until(lambda: calls_of(emulator, "list-tasks") >= wanted)


@pytest.fixture
async def waiting():
    made = Waiting()
    yield made
    await made.end()


async def start(number: int = 1, *, api_version: ApiVersion = ApiVersion.V2) -> list[str]:
    """Start runs, in version 3 of the API as those of a bot."""
    run = v3.create_run if api_version is ApiVersion.V3 else v2.run_task
    async with BrowserActHook().async_client() as client:
        return [(await client.send(run(ORDERS.id))).id for _ in range(number)]


async def stop(task_id: str, api_version: ApiVersion = ApiVersion.V2) -> None:
    async with BrowserActHook().async_client() as client:
        await client.send(APIS[api_version].stop_task(task_id))


async def test_each_free_slot_wakes_the_next_task_only(emulator, waiting):
    first, second = await start(2)
    for name, since in (("b", 2.0), ("c", 3.0), ("a", 1.0)):
        waiting.add(name, since, active=2)
    await counts(emulator, 2)
    assert waiting.woken == []
    await stop(first)
    assert await waiting.until_woken(1) == ["a"]
    await counts(emulator, 3)
    assert waiting.woken == ["a"]
    # The run of the first one is there, and a slot becomes free again.
    await start()
    await stop(second)
    assert await waiting.until_woken(2) == ["a", "b"]


async def test_waits_of_a_connection_share_one_count(emulator, waiting, monkeypatch):
    monkeypatch.setattr(timings, "SLOT_COUNT_INTERVAL", 0.3)
    await start()
    for number in range(50):
        waiting.add(str(number), float(number))
    await counts(emulator, 1)
    before = calls_of(emulator, "list-tasks")
    # As many requests as one waiting task would send, with some time to spare.
    await asyncio.sleep(1.5)
    assert 4 <= calls_of(emulator, "list-tasks") - before <= 4 * 6


@pytest.mark.parametrize("shared_runs", [True, False], ids=["each version lists all runs", "each lists only its own"])
async def test_runs_of_both_versions_are_counted_once_a_bot_waits(emulator, waiting, shared_runs):
    emulator.shared_runs = shared_runs
    [workflow], [bot] = await start(), await start(api_version=ApiVersion.V3)
    waiting.add("workflow", 1.0, active=1 + shared_runs)
    await counts(emulator, 2)
    assert calls_of(emulator, "page-runs") == 0
    waiting.add("bot", 2.0, active=2, api_version=ApiVersion.V3)
    for place, (task_id, api_version) in enumerate([(bot, ApiVersion.V3), (workflow, ApiVersion.V2)]):
        await counts(emulator, 2)
        assert calls_of(emulator, "page-runs") >= 4
        assert len(waiting.woken) == place
        await stop(task_id, api_version)
        assert len(await waiting.until_woken(place + 1)) == place + 1
        # The woken one has the slot until its run is counted.
        await start(api_version=api_version)
    assert waiting.woken == ["workflow", "bot"]


async def test_count_during_which_the_first_bot_joins_is_not_used(emulator, waiting, monkeypatch):
    joined: list[bool] = []

    def count_while_a_bot_joins(versions):
        active = yield from count_active(versions)
        if not joined:
            joined.append(True)
            wait = QueueWait(Queued(2.0, 2.0, 1), time.time() + 600, active=3, api_version=ApiVersion.V3)
            Dispatcher.of(CONN_ID, None).join("bot", wait, CONN_ID, "d")
        return active

    monkeypatch.setattr(dispatcher, "count_active", count_while_a_bot_joins)
    await start()
    await start(2, api_version=ApiVersion.V3)
    waiting.add("workflow", 1.0)
    await until(lambda: joined)
    await counts(emulator, 3)
    # With only the run of the workflow, two slots would seem to be free.
    assert waiting.woken == []
    assert Dispatcher.of(CONN_ID, None).queue.active is not None


async def test_task_joins_the_queue_only_when_its_wait_for_the_budget_is_over(emulator, waiting, monkeypatch):
    monkeypatch.setattr(timings, "SLOT_PROBE_PAUSE", 0.1)
    # The one that is woken first starts nothing.
    monkeypatch.setattr(timings, "START_DELAY", 0.3)
    joined, join = [], Dispatcher.join

    def noticed(*args):
        joined.append(time.time())
        join(*args)

    monkeypatch.setattr(Dispatcher, "join", noticed)
    not_before = time.time() + 0.3
    waiting.add("a", 1.0, active=None, refusals=0, not_before=not_before)
    waiting.add("b", 2.0, active=None, refusals=0, not_before=not_before - 600)
    assert sorted(await waiting.until_woken(2)) == ["a", "b"]
    # The clock of the event loop may differ a little.
    assert joined[1] >= not_before - 0.05


async def test_wait_for_the_budget_can_be_cancelled_before_it_is_over(emulator, waiting):
    waiting.add("a", 1.0, active=None, refusals=0, not_before=time.time() + 600)
    await asyncio.sleep(0)
    await waiting.cancel("a")
    assert (waiting.woken, emulator.requests) == ([], [])


async def test_nothing_is_counted_when_nothing_waits(emulator, waiting):
    running = len(asyncio.all_tasks())
    await start()
    waiting.add("a", 1.0)
    await counts(emulator, 1)
    await waiting.end()
    await until(lambda: len(asyncio.all_tasks()) == running)
    before = calls_of(emulator, "list-tasks")
    # There is no event to wait for. A dispatcher that still counts would send requests in this time.
    await asyncio.sleep(5 * timings.SLOT_COUNT_INTERVAL)
    assert calls_of(emulator, "list-tasks") == before


async def test_end_of_a_run_leads_to_a_count_at_once(emulator, waiting, monkeypatch):
    monkeypatch.setattr(timings, "SLOT_COUNT_INTERVAL", 600.0)
    [task_id] = await start()
    waiting.add("a", 1.0)
    await counts(emulator, 1)
    await stop(task_id)
    run_has_ended(CONN_ID, None)
    assert await waiting.until_woken(1) == ["a"]


async def test_end_of_a_run_leads_to_one_count(emulator, waiting, monkeypatch):
    monkeypatch.setattr(timings, "SLOT_COUNT_INTERVAL", 600.0)
    await start()
    waiting.add("a", 1.0)
    await counts(emulator, 1)
    run_has_ended(CONN_ID, None)
    await counts(emulator, 1)
    before = calls_of(emulator, "list-tasks")
    # As long as another wait takes to reach its limit, nothing is counted again.
    wait = QueueWait(Queued(2.0, 2.0, 1), time.time() + 0.5, active=1)
    assert [event async for event in SlotTrigger(browseract_conn_id=CONN_ID, wait=wait).run()]
    assert calls_of(emulator, "list-tasks") == before


async def test_end_of_a_run_without_waiting_tasks_is_no_reason_to_count(emulator):
    run_has_ended("another_connection", "another_key")
    assert calls_of(emulator, "list-tasks") == 0


async def test_task_resumed_by_the_api_server_keeps_its_slot(emulator, waiting):
    [task_id] = await start()
    waiting.add("a", 1.0, handed_over=True)
    waiting.add("b", 2.0, handed_over=True)
    await counts(emulator, 1)
    await waiting.cancel("a")
    await stop(task_id)
    await counts(emulator, 4)
    assert waiting.woken == []


def task_instance(index: int) -> Any:
    return SimpleNamespace(dag_id="d", task_id="t", run_id="r", map_index=index)


@pytest.mark.parametrize("state", ["failed", None, "scheduled"], ids=["marked", "cleared", "handed over"])
async def test_only_a_task_that_is_about_to_start_keeps_its_slot_after_it_was_cancelled(
    emulator, waiting, monkeypatch, state
):
    asked_for = []

    def task_instance_state(ti):
        asked_for.append(ti.map_index)
        return state

    monkeypatch.setattr(slots, "task_instance_state", task_instance_state)
    monkeypatch.setattr(timings, "START_DELAY", 600.0)
    [task_id] = await start()
    waiting.add("a", 1.0, handed_over=True, ti=task_instance(1))
    waiting.add("b", 2.0, handed_over=True, ti=task_instance(2))
    await counts(emulator, 1)
    await waiting.cancel("a")
    await until(lambda: asked_for)
    assert asked_for == [1]
    await stop(task_id)
    if state == "scheduled":
        await counts(emulator, 4)
        assert waiting.woken == []
    else:
        assert await waiting.until_woken(1) == ["b"]


async def test_task_that_airflow_reports_nothing_about_keeps_its_slot(emulator, waiting, monkeypatch):
    asked_for = []

    def fail(*_):
        asked_for.append(1)
        raise OSError("no response")

    monkeypatch.setattr(slots, "task_instance_state", fail)
    [task_id] = await start()
    waiting.add("a", 1.0, handed_over=True, ti=task_instance(1))
    waiting.add("b", 2.0, handed_over=True)
    await counts(emulator, 1)
    await waiting.cancel("a")
    await until(lambda: asked_for)
    await stop(task_id)
    await counts(emulator, 4)
    assert waiting.woken == []


async def test_second_refusal_of_a_task_instance_is_recognized(emulator, waiting):
    queue = Dispatcher.of(CONN_ID, None).queue
    await start(2)
    for index in (1, 2):
        waiting.add(f"first {index}", index, active=4, ti=task_instance(index))
    assert await waiting.until_woken(2) == ["first 1", "first 2"]
    assert queue.capacity == 4
    for index in (1, 2):
        waiting.add(f"second {index}", index, active=2, refusals=2, ti=task_instance(index))
    # Both starts were refused although there seemed to be two free slots.
    await until(lambda: queue.capacity == 2)


async def test_error_in_the_queue_ends_no_wait(emulator, waiting, monkeypatch):
    wake = Dispatcher._wake
    failed: list[bool] = []

    async def fail_once(self):
        if not failed:
            failed.append(True)
            raise OSError("a bug")
        await wake(self)

    monkeypatch.setattr(Dispatcher, "_wake", fail_once)
    [task_id] = await start()
    waiting.add("a", 1.0)
    await until(lambda: failed)
    await stop(task_id)
    assert await waiting.until_woken(1) == ["a"]


@pytest.mark.parametrize("unreadable", [1, 2])
async def test_connections_with_the_same_key_share_one_queue(emulator, waiting, connect, monkeypatch, unreadable):
    # The first connections cannot be read, so the last one counts for all.
    monkeypatch.setenv("AIRFLOW_CONN_SECOND", os.environ["AIRFLOW_CONN_BROWSERACT_DEFAULT"])
    [task_id] = await start()
    waiting.add("late", 2.0, conn_id="second", key_digest="k")
    waiting.add("early", 1.0, conn_id="missing", key_digest="k")
    if unreadable > 1:
        waiting.add("later", 3.0, conn_id="missing too", key_digest="k")
    waiting.add("other account", 0.0, conn_id="missing", key_digest="another")
    await counts(emulator, 2)
    assert waiting.woken == []
    await stop(task_id)
    assert await waiting.until_woken(1) == ["early"]


async def test_end_of_a_run_wakes_the_next_task_while_counts_fail(emulator, waiting):
    emulator.fault("list-tasks", RequestFault.status(500), times=None)
    waiting.add("a", 1.0, active=None, key_digest="k")
    waiting.add("b", 2.0, active=None, key_digest="k")
    await until(lambda: Dispatcher.of(CONN_ID, "k").queue._blind)
    assert waiting.woken == []
    run_has_ended("another_connection", "k")
    assert await waiting.until_woken(1) == ["a"]


@pytest.mark.parametrize("active", [0, None], ids=["no run", "an unknown number"])
async def test_unknown_size_of_the_plan_is_not_logged(emulator, waiting, capfd, active):
    waiting.add("a", 1.0, active=active)
    logged = ""

    def is_shown() -> bool:
        nonlocal logged
        logged += "".join(capfd.readouterr())
        return "Place 1 of 1 in the queue for slots." in logged

    await until(is_shown)
    assert "The plan" not in logged


async def test_counts_that_fail_end_no_wait(emulator, waiting, caplog):
    [task_id] = await start()
    emulator.fault("list-tasks", RequestFault.status(500), times=None)
    waiting.add("a", 1.0)
    # On a busy machine, further tries of one count could use up a limited number of faults.
    await until(lambda: f"The active runs of connection {CONN_ID!r} could not be counted: " in caplog.text)
    emulator.clear_faults()
    await counts(emulator, 2)
    assert waiting.woken == []
    await stop(task_id)
    assert await waiting.until_woken(1) == ["a"]


async def test_count_without_a_response_is_given_up_soon(emulator, waiting, connect, monkeypatch):
    connect({"retry_budget": 0.2, "read_timeout": 10 * LIMIT})
    monkeypatch.setattr(timings, "SLOT_COUNT_LIMIT", 1.0)
    emulator.fault("list-tasks", RequestFault.hung(), times=1)
    waiting.add("a", 1.0)
    assert await waiting.until_woken(1) == ["a"]


async def test_another_dag_gets_the_next_slot_if_a_woken_task_does_not_start(emulator, waiting, monkeypatch):
    monkeypatch.setattr(timings, "FOLLOW_DELAY", 0.1)
    monkeypatch.setattr(timings, "START_DELAY", 600.0)
    [task_id] = await start()
    for name, since, dag_id in (("a", 1.0, "d"), ("b", 2.0, "d"), ("c", 3.0, "other")):
        waiting.add(name, since, ti=SimpleNamespace(dag_id=dag_id, task_id=name, run_id="r", map_index=-1))
    await counts(emulator, 1)
    await stop(task_id)
    assert await waiting.until_woken(2) == ["a", "c"]


async def test_wait_ends_at_its_time_limit_and_takes_no_slot(emulator, waiting, monkeypatch):
    monkeypatch.setattr(timings, "START_DELAY", 600.0)
    [task_id] = await start()
    wait = QueueWait(Queued(1.0, 1.0, 1), time.time() + 0.3, active=1)
    events = [event async for event in SlotTrigger(browseract_conn_id=CONN_ID, wait=wait).run()]
    assert [event.payload["refusals"] for event in events] == [1]
    assert time.time() >= wait.until
    waiting.add("a", 2.0)
    await counts(emulator, 1)
    await stop(task_id)
    assert await waiting.until_woken(1) == ["a"]


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "as at the refusal"])
async def test_place_and_active_runs_are_logged_and_pushed_once(emulator, waiting, monkeypatch, capfd, counted):
    pushed: dict[int | None, Any] = {}

    class PushedXComs:
        def __init__(self, ti) -> None:
            self.index = getattr(ti, "map_index", None)

        def xcom_push(self, key, value):
            pushed[self.index] = (key, value)

    monkeypatch.setattr(slots, "XComs", PushedXComs)
    if counted:
        await start()
    else:
        emulator.fault("list-tasks", RequestFault.status(500), times=None)
    waiting.add("other", 1.0)
    waiting.add("refused again", 3.0, refusals=2, ti=task_instance(2))
    if counted:
        await until(lambda: Dispatcher.of(CONN_ID, None).queue.active)
    waiting.add("mine", 2.0, active=None if counted else 1, ti=task_instance(3))
    logged = ""

    def is_shown() -> bool:
        nonlocal logged
        logged += "".join(capfd.readouterr())
        return "Place 2 of 3" in logged and bool(pushed)

    await until(is_shown)
    shown = ("queue", {"place": 2, "length": 3, "active_runs": 1})
    assert pushed == {3: shown}
    assert "Place 2 of 3 in the queue for slots. The plan seems to have 1 slot." in logged
