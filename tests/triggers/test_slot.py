from __future__ import annotations

import asyncio
import json
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
from airflow_provider_browseract.triggers.dispatcher import Dispatcher, run_has_ended
from airflow_provider_browseract.triggers.slot import SlotTrigger
from tests.triggers.waits import LIMIT, in_world, until
from tests.workers import calls_of

CONN_ID = "browseract_default"


@pytest.fixture
def emulator(emulator, monkeypatch):
    # Nothing is woken without a free slot.
    monkeypatch.setattr(timings, "SLOT_PROBE_PAUSE", 6000.0)
    emulator.concurrency = 10
    emulator.set_workflow(ORDERS.id, duration=6000.0)
    return emulator


class Waiting:
    def __init__(self) -> None:
        self.woken: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(self, name, since, *, refusals=1, conn_id=CONN_ID, within=6000.0, ti: Any = None, **fields) -> None:
        wait = QueueWait(Queued(since, since, refusals), time.time() + within, **{"active": 1, **fields})
        trigger = SlotTrigger(browseract_conn_id=conn_id, wait=wait)
        if ti is not None:
            trigger.task_instance = ti
        self._tasks[name] = asyncio.create_task(self._run(name, trigger))

    async def _run(self, name: str, trigger: SlotTrigger) -> None:
        [event] = [event async for event in trigger.run()]
        assert event.payload["refusals"] == trigger.wait.queued.refusals
        self.woken.append(name)

    async def cancel(self, name: str) -> None:
        """End a wait, as Airflow does when something else has resumed the task instance."""
        self._tasks[name].cancel()
        with suppress(asyncio.CancelledError):
            await self._tasks[name]

    async def woken_after(self, task_id: str) -> list[str]:
        """Stop a run, wait for some counts, and return who has been woken."""
        stop(task_id)
        await counts()
        return self.woken


@pytest.fixture
def waiting(emulator):
    return Waiting()


async def counts() -> None:
    await asyncio.sleep(4 * timings.SLOT_COUNT_INTERVAL)


def start(number: int = 1, api_version: ApiVersion = ApiVersion.V2) -> list[str]:
    run = v3.run if api_version is ApiVersion.V3 else v2.run
    return [BrowserActHook().client.send(run(ORDERS.id)).id for _ in range(number)]


def stop(task_id: str, api_version: ApiVersion = ApiVersion.V2) -> None:
    BrowserActHook().client.send(APIS[api_version].stop_task(task_id))


def task_instance(index: int, dag_id: str = "d") -> Any:
    return SimpleNamespace(dag_id=dag_id, task_id="t", run_id="r", map_index=index)


@in_world
async def test_waits_of_a_connection_share_one_count(world, emulator, waiting):
    start()
    for number in range(50):
        waiting.add(str(number), float(number))
    await asyncio.sleep(20 * timings.SLOT_COUNT_INTERVAL)
    # A count has a request for each of four statuses.
    assert 4 * 18 <= calls_of(emulator, "list-tasks") <= 4 * 20


@pytest.mark.parametrize("shared_runs", [True, False], ids=["each version lists all runs", "each lists only its own"])
@in_world
async def test_runs_of_both_versions_are_counted_once_a_bot_waits(world, emulator, waiting, shared_runs):
    emulator.shared_runs = shared_runs
    [workflow], [bot] = start(), start(api_version=ApiVersion.V3)
    waiting.add("workflow", 1.0, active=1 + shared_runs)
    await counts()
    assert calls_of(emulator, "page-runs") == 0
    waiting.add("bot", 2.0, active=2, api_version=ApiVersion.V3)
    for place, (task_id, api_version) in enumerate([(bot, ApiVersion.V3), (workflow, ApiVersion.V2)]):
        await counts()
        assert calls_of(emulator, "page-runs") >= 4
        assert len(waiting.woken) == place
        stop(task_id, api_version)
        await counts()
        assert len(waiting.woken) == place + 1
        # The woken one has the slot until its run is counted.
        start(api_version=api_version)
    assert waiting.woken == ["workflow", "bot"]


@in_world
async def test_count_during_which_the_first_bot_joins_is_not_used(world, waiting, monkeypatch):
    joined: list[bool] = []

    def count_while_a_bot_joins(versions):
        active = yield from count_active(versions)
        if not joined:
            joined.append(True)
            wait = QueueWait(Queued(2.0, 2.0, 1), time.time() + 600, active=3, api_version=ApiVersion.V3)
            Dispatcher.of(CONN_ID, None).join("bot", wait, CONN_ID, "d")
        return active

    monkeypatch.setattr(dispatcher, "count_active", count_while_a_bot_joins)
    start()
    start(2, ApiVersion.V3)
    waiting.add("workflow", 1.0)
    await counts()
    assert joined
    # With only the run of the workflow, two slots would seem to be free.
    assert waiting.woken == []
    assert Dispatcher.of(CONN_ID, None).queue.active is not None


@in_world
class TestBudget:
    async def test_task_joins_the_queue_only_when_its_wait_for_the_budget_is_over(self, world, waiting, monkeypatch):
        monkeypatch.setattr(timings, "SLOT_PROBE_PAUSE", 20.0)
        joined, join = [], Dispatcher.join

        def noticed(*args):
            joined.append(world.clock.now)
            join(*args)

        monkeypatch.setattr(Dispatcher, "join", noticed)
        not_before = world.clock.now + 300
        waiting.add("a", 1.0, active=None, refusals=0, not_before=not_before)
        waiting.add("b", 2.0, active=None, refusals=0, not_before=not_before - 600)
        await asyncio.sleep(600)
        assert waiting.woken == ["b", "a"]
        # The clock of the event loop may differ a little.
        assert joined[0] < not_before - 200
        assert joined[1] >= not_before - 0.05

    async def test_wait_for_the_budget_can_be_cancelled_before_it_is_over(self, world, emulator, waiting):
        waiting.add("a", 1.0, active=None, refusals=0, not_before=time.time() + 600)
        await asyncio.sleep(0)
        await waiting.cancel("a")
        assert (waiting.woken, emulator.requests) == ([], [])


@in_world
class TestCounts:
    async def test_nothing_is_counted_when_nothing_waits(self, world, emulator, waiting):
        start()
        waiting.add("a", 1.0)
        await counts()
        await waiting.cancel("a")
        await counts()
        before = calls_of(emulator, "list-tasks")
        assert before
        await counts()
        assert calls_of(emulator, "list-tasks") == before

    async def test_end_of_a_run_leads_to_one_count_at_once(self, world, emulator, waiting, monkeypatch):
        monkeypatch.setattr(timings, "SLOT_COUNT_INTERVAL", 100.0)
        [task_id] = start()
        waiting.add("a", 1.0)
        await asyncio.sleep(110)
        before = calls_of(emulator, "list-tasks")
        run_has_ended(CONN_ID, None)
        await asyncio.sleep(20)
        assert calls_of(emulator, "list-tasks") == before + 4
        assert waiting.woken == []
        stop(task_id)
        run_has_ended(CONN_ID, None)
        await asyncio.sleep(20)
        assert waiting.woken == ["a"]

    async def test_end_of_a_run_without_waiting_tasks_is_no_reason_to_count(self, world, emulator):
        run_has_ended("another_connection", "another_key")
        await counts()
        assert calls_of(emulator, "list-tasks") == 0

    async def test_end_of_a_run_wakes_the_next_task_while_counts_fail(self, world, emulator, waiting):
        emulator.fault("list-tasks", RequestFault.status(500), times=None)
        waiting.add("a", 1.0, active=None, key_digest="k")
        waiting.add("b", 2.0, active=None, key_digest="k")
        await asyncio.sleep(100)
        assert Dispatcher.of(CONN_ID, "k").queue._blind
        assert waiting.woken == []
        run_has_ended("another_connection", "k")
        await asyncio.sleep(20)
        assert waiting.woken == ["a"]

    async def test_counts_that_fail_end_no_wait(self, world, emulator, waiting, caplog):
        [task_id] = start()
        emulator.fault("list-tasks", RequestFault.status(500), times=None)
        waiting.add("a", 1.0)
        await asyncio.sleep(60)
        assert f"The active runs of connection {CONN_ID!r} could not be counted: " in caplog.text
        emulator.clear_faults()
        await counts()
        assert waiting.woken == []
        assert await waiting.woken_after(task_id) == ["a"]

    async def test_error_in_the_queue_ends_no_wait(self, world, waiting, monkeypatch):
        wake = Dispatcher._wake
        failed: list[bool] = []

        async def fail_once(self):
            if not failed:
                failed.append(True)
                raise OSError("a bug")
            await wake(self)

        monkeypatch.setattr(Dispatcher, "_wake", fail_once)
        [task_id] = start()
        waiting.add("a", 1.0)
        await counts()
        assert failed
        assert await waiting.woken_after(task_id) == ["a"]

    @pytest.mark.parametrize("unreadable", [1, 2])
    async def test_connections_with_the_same_key_share_a_queue(self, world, emulator, waiting, monkeypatch, unreadable):
        # The first connections cannot be read, so the last one counts for all.
        monkeypatch.setenv("AIRFLOW_CONN_SECOND", json.dumps(emulator.connection))
        [task_id] = start()
        waiting.add("late", 2.0, conn_id="second", key_digest="k")
        waiting.add("early", 1.0, conn_id="missing", key_digest="k")
        if unreadable > 1:
            waiting.add("later", 3.0, conn_id="missing too", key_digest="k")
        waiting.add("other account", 0.0, conn_id="missing", key_digest="another")
        await asyncio.sleep(60)
        assert waiting.woken == []
        stop(task_id)
        await asyncio.sleep(20)
        assert waiting.woken == ["early"]


async def test_count_without_a_response_is_given_up_soon(browseract_emulator, connect, short_timings, monkeypatch):
    """In real time, because a world waits for each response."""
    waiting = Waiting()
    connect({"retry_budget": 0.2, "read_timeout": 10 * LIMIT})
    monkeypatch.setattr(timings, "SLOT_COUNT_LIMIT", 1.0)
    browseract_emulator.fault("list-tasks", RequestFault.hung(), times=1)
    waiting.add("a", 1.0)
    await until(lambda: waiting.woken == ["a"])


@in_world
class TestWoken:
    async def test_task_cancelled_right_after_it_was_woken_holds_no_slot(self, world, waiting, monkeypatch):
        [task_id] = start()
        for index, name in enumerate("ab"):
            waiting.add(name, index, ti=task_instance(index))
        await counts()
        queue = Dispatcher.of(CONN_ID, None).queue
        wake = queue.wake

        def wake_and_cancel(now):
            if found := wake(now):
                waiting._tasks["a"].cancel()
            return found

        monkeypatch.setattr(queue, "wake", wake_and_cancel)
        assert await waiting.woken_after(task_id) == ["b"]

    async def test_second_refusal_of_a_task_instance_is_recognized(self, world, waiting):
        queue = Dispatcher.of(CONN_ID, None).queue
        start(2)
        for index in (1, 2):
            waiting.add(f"first {index}", index, active=4, ti=task_instance(index))
        await counts()
        assert waiting.woken == ["first 1", "first 2"]
        assert queue.capacity == 4
        for index in (1, 2):
            waiting.add(f"second {index}", index, active=2, refusals=2, ti=task_instance(index))
        await asyncio.sleep(5)
        # Both starts were refused although there seemed to be two free slots.
        assert queue.capacity == 2

    async def test_another_dag_gets_the_next_slot_if_a_woken_task_does_not_start(self, world, waiting):
        [task_id] = start()
        for index, (name, dag_id) in enumerate([("a", "d"), ("b", "d"), ("c", "other")]):
            waiting.add(name, index, ti=task_instance(index, dag_id))
        await counts()
        stop(task_id)
        await asyncio.sleep(timings.START_DELAY - 5)
        assert waiting.woken == ["a", "c"]

    async def test_wait_ends_at_its_time_limit_and_takes_no_slot(self, world, waiting):
        [task_id] = start()
        waiting.add("over", 1.0, within=4.0)
        await asyncio.sleep(3.5)
        assert waiting.woken == []
        await asyncio.sleep(1)
        assert waiting.woken == ["over"]
        waiting.add("a", 2.0)
        await counts()
        assert await waiting.woken_after(task_id) == ["over", "a"]


@in_world
class TestPlace:
    @pytest.mark.parametrize("active", [0, None], ids=["no run", "an unknown number"])
    async def test_unknown_size_of_the_plan_is_not_logged(self, world, waiting, logs, active):
        waiting.add("a", 1.0, active=active)
        await asyncio.sleep(timings.PLACE_DELAY + 0.5)
        logged = logs()
        assert "Place 1 of 1 in the queue for slots." in logged
        assert "The plan" not in logged

    @pytest.mark.parametrize("counted", [True, False], ids=["counted", "as at the refusal"])
    async def test_place_is_logged(self, world, emulator, waiting, logs, counted):
        if counted:
            start()
        else:
            emulator.fault("list-tasks", RequestFault.status(500), times=None)
        waiting.add("other", 1.0)
        waiting.add("refused again", 3.0, refusals=2)
        if counted:
            await counts()
        waiting.add("mine", 2.0, active=None if counted else 1)
        await asyncio.sleep(timings.PLACE_DELAY + 1)
        assert "Place 2 of 3 in the queue for slots. The plan seems to have 1 slot." in logs()
