import asyncio
import json
import time
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.emulator import ORDERS, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.queue.queueing import Queued, QueueWait
from airflow_provider_browseract.queue.slot_queue import SlotQueue
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.triggers.dispatcher import Dispatcher
from airflow_provider_browseract.triggers.slot import SlotTrigger
from tests.helpers.workers import calls_of
from tests.triggers.waits import in_world, start, start_bot, until

CONN_ID = "browseract_default"


@pytest.fixture
def emulator(emulator, monkeypatch):
    def without_probes(queue) -> None:
        made(queue, lambda: 0.5)
        queue._probe_at = float("inf")

    # Nothing is woken without a free slot.
    made = SlotQueue.__init__
    monkeypatch.setattr(SlotQueue, "__init__", without_probes)
    emulator.concurrency = 10
    emulator.set_workflow(ORDERS.id, duration=6000.0)
    return emulator


class Waiting:
    def __init__(self) -> None:
        self.woken: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(self, name, since, *, refusals=1, conn_id=CONN_ID, within=6000.0, ti: Any = None, **of: Any) -> None:
        of = {"source": "workflow", "key_digest": "k", "not_before": 0.0, **of}
        wait = QueueWait(Queued(since, since, refusals), time.time() + within, **of)
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


def stop(task_id: str) -> None:
    BrowserActHook().stop_task(task_id)


def task_instance(index: int, dag_id: str = "d") -> Any:
    return SimpleNamespace(dag_id=dag_id, task_id="t", run_id="r", map_index=index)


@in_world
async def test_waits_of_a_connection_share_one_count(world, emulator, waiting):
    start()
    for number in range(50):
        waiting.add(str(number), float(number))
    await asyncio.sleep(20 * timings.SLOT_COUNT_INTERVAL)
    # A count has a request for each of four statuses.
    assert 4 * 18 <= calls_of(emulator, "list-tasks") <= 4 * 21


@in_world
async def test_runs_of_both_versions_are_counted_once_a_bot_waits(world, emulator, waiting):
    start()
    bot = start_bot()
    waiting.add("workflow", 1.0)
    await counts()
    assert calls_of(emulator, "page-runs") == 0
    waiting.add("bot", 2.0, api_version=ApiVersion.V3)
    await counts()
    assert calls_of(emulator, "page-runs") >= 4
    assert waiting.woken == []
    assert await waiting.woken_after(bot) == ["workflow"]


@in_world
class TestBudget:
    async def test_task_joins_the_queue_only_when_its_wait_for_the_budget_is_over(self, world, waiting):
        task_id = start()
        waiting.add("a", 1.0, refusals=0, not_before=time.time() + 300, for_budget=True)
        waiting.add("b", 2.0, refusals=0, not_before=time.time() - 300, for_budget=True)
        # "a" would be the first one for the only slot.
        assert await waiting.woken_after(task_id) == ["b"]
        await asyncio.sleep(300)
        assert waiting.woken == ["b", "a"]

    async def test_wait_for_the_budget_can_be_cancelled_before_it_is_over(self, world, emulator, waiting):
        waiting.add("a", 1.0, refusals=0, not_before=time.time() + 600, for_budget=True)
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

    async def test_while_counts_fail_starts_are_tried_from_time_to_time(self, world, emulator, waiting, caplog):
        task_id = start()
        emulator.fault("list-tasks", RequestFault.status(500), times=None)
        queue = Dispatcher.of("k").queue
        queue._probe_at = 0.0
        for number, name in enumerate("abcd"):
            waiting.add(name, float(number))
        await asyncio.sleep(1.5 * timings.BLIND_START_PAUSE)
        assert f"The active runs of connection {CONN_ID!r} could not be counted: " in caplog.text
        assert waiting.woken in (["a"], ["a", "b"])
        queue._probe_at = float("inf")
        emulator.clear_faults()
        await counts()
        *_, last = before = [*waiting.woken]
        assert await waiting.woken_after(task_id) == [*before, chr(ord(last) + 1)]

    async def test_error_in_the_queue_ends_no_wait(self, world, waiting, monkeypatch):
        wake = Dispatcher._wake
        failed: list[bool] = []

        async def fail_once(self):
            if not failed:
                failed.append(True)
                raise OSError("a bug")
            await wake(self)

        monkeypatch.setattr(Dispatcher, "_wake", fail_once)
        task_id = start()
        waiting.add("a", 1.0)
        await counts()
        assert failed
        assert await waiting.woken_after(task_id) == ["a"]

    @pytest.mark.parametrize("unreadable", [1, 2])
    async def test_connections_with_the_same_key_share_a_queue(self, world, emulator, waiting, monkeypatch, unreadable):
        # The first connections cannot be read, so the last one counts for all.
        monkeypatch.setattr(timings, "BLIND_START_PAUSE", float("inf"))
        monkeypatch.setenv("AIRFLOW_CONN_SECOND", json.dumps(emulator.connection))
        task_id = start()
        waiting.add("late", 2.0, conn_id="second", key_digest="k")
        waiting.add("early", 1.0, conn_id="missing", key_digest="k")
        if unreadable > 1:
            waiting.add("later", 3.0, conn_id="missing too", key_digest="k")
        waiting.add("other account", 0.0, conn_id="missing", key_digest="another")
        await asyncio.sleep(60)
        assert waiting.woken == []
        stop(task_id)
        await asyncio.sleep(10)
        assert waiting.woken == ["early"]


async def test_count_without_a_response_is_given_up_soon(browseract_emulator, connect, short_timings, monkeypatch):
    """In real time, because a world waits for each response."""
    waiting = Waiting()
    connect({"retry_budget": 0.2, "read_timeout": 3600})
    monkeypatch.setattr(timings, "SLOT_COUNT_LIMIT", 1.0)
    browseract_emulator.fault("list-tasks", RequestFault.hung(), times=1)
    waiting.add("a", 1.0)
    await until(lambda: waiting.woken == ["a"])


@in_world
class TestWoken:
    async def test_task_cancelled_right_after_it_was_woken_holds_no_slot(self, world, waiting, monkeypatch):
        task_id = start()
        for index, name in enumerate("ab"):
            waiting.add(name, index, ti=task_instance(index))
        await counts()
        queue = Dispatcher.of("k").queue
        wake = queue.wake

        def wake_and_cancel(now):
            if found := wake(now):
                waiting._tasks["a"].cancel()
            return found

        monkeypatch.setattr(queue, "wake", wake_and_cancel)
        assert await waiting.woken_after(task_id) == ["b"]

    async def test_refusal_of_a_woken_task_instance_is_recognized(self, world, waiting):
        queue = Dispatcher.of("k").queue
        task_id, _ = start(), start()
        waiting.add("first", 1.0, ti=task_instance(1))
        await counts()
        assert queue.slots == 2
        assert await waiting.woken_after(task_id) == ["first"]
        waiting.add("second", 1.0, refusals=2, ti=task_instance(1))
        await asyncio.sleep(0.5)
        # It was refused although there seemed to be a free slot.
        assert queue.slots == 1

    async def test_another_dag_gets_the_next_slot_if_a_woken_task_does_not_start(self, world, waiting):
        task_id = start()
        for index, (name, dag_id) in enumerate([("a", "d"), ("b", "d"), ("c", "other")]):
            waiting.add(name, index, ti=task_instance(index, dag_id))
        await counts()
        stop(task_id)
        await asyncio.sleep(timings.START_DELAY + 2 * timings.SLOT_COUNT_INTERVAL + 1)
        assert waiting.woken == ["a", "c"]

    async def test_wait_ends_at_its_time_limit_and_takes_no_slot(self, world, waiting):
        task_id = start()
        waiting.add("over", 1.0, within=4.0)
        await asyncio.sleep(3.5)
        assert waiting.woken == []
        await asyncio.sleep(1)
        assert waiting.woken == ["over"]
        waiting.add("a", 2.0)
        await counts()
        assert await waiting.woken_after(task_id) == ["over", "a"]


@in_world
async def test_place_is_logged(world, emulator, waiting, logs):
    start()
    waiting.add("other", 1.0)
    waiting.add("refused again", 3.0, refusals=2)
    await counts()
    waiting.add("mine", 2.0)
    await asyncio.sleep(timings.PLACE_DELAY + 1)
    assert "Place 2 of 3 in the queue for slots." in logs()
