"""The trigger that reports each task that ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from itertools import pairwise
from typing import Any

import pytest
from airflow.sdk import Asset, AssetWatcher

from airflow_provider_browseract.api.models import Page, Task, TaskStatus
from airflow_provider_browseract.emulator import CONTACTS, ORDERS, SEARCH, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.watching import Window
from airflow_provider_browseract.triggers import watcher
from airflow_provider_browseract.triggers.watcher import TaskFinishedTrigger
from tests.catalogue import FAILING, TEMPLATE_TEXT
from tests.triggers.waits import until
from tests.workers import calls_of


@pytest.fixture
def emulator(browseract_emulator, connect, short_timings):
    connect({"retry_budget": 0.1, "read_timeout": 10})
    for workflow in (ORDERS, SEARCH, FAILING, CONTACTS, TEMPLATE_TEXT):
        browseract_emulator.set_workflow(workflow.id, duration=0.0)
    return browseract_emulator


class State:
    """Replaces the state store of the watched asset."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.fails: list[Exception] = []

    async def aget(self, key):
        if self.fails:
            raise self.fails.pop(0)
        return json.loads(self.values[key]) if key in self.values else None

    async def aset(self, key, value):
        if self.fails:
            raise self.fails.pop(0)
        self.values[key] = json.dumps(value)


class Watch:
    """Runs a watcher in the background, as a triggerer does, and keeps its events."""

    def __init__(self, emulator, state: State | None = None, **arguments) -> None:
        self.emulator = emulator
        self.trigger = TaskFinishedTrigger(**{"poll_interval": 0.05, **arguments})
        self.trigger.asset_state_store = state  # type: ignore[assignment]
        self.payloads: list[dict] = []
        self.polled = 0

    @property
    def tasks(self) -> list[dict]:
        """What was reported, of all events."""
        return [task for payload in self.payloads for task in payload["tasks"]]

    @property
    def ids(self) -> list[str]:
        return [task["task_id"] for task in self.tasks]

    async def _run(self) -> None:
        async with (
            contextlib.aclosing(self._polls()) as polls,
            contextlib.aclosing(self.trigger.filter_shared_stream(polls)) as events,
        ):
            async for event in events:
                self.payloads.append(event.payload)

    async def _polls(self):
        async with contextlib.aclosing(self.trigger.open_shared_stream(self.trigger.serialize()[1])) as polls:
            async for poll in polls:
                self.polled += 1
                yield poll

    @contextlib.asynccontextmanager
    async def watching(self):
        """Have it run for the length of a ``with`` block, which begins after its first poll."""
        running = asyncio.ensure_future(self._run())
        try:
            await until(lambda: self.payloads or self.polled >= 2)
            yield self
        finally:
            assert not running.done(), "a watcher never ends"
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def polls(self, times: int) -> None:
        """Wait until it has polled some more times."""
        goal = self.polled + times
        await until(lambda: self.polled >= goal)


def end(emulator, workflow=ORDERS) -> str:
    """Have a run that is over when this returns."""
    inputs = {"keyword": "pens"} if workflow is SEARCH else None
    task_id = BrowserActHook().run_task(workflow.id, inputs).id
    emulator.wait_until(lambda: emulator.tasks[-1].finished_at)
    return task_id


async def test_watcher_reports_each_ended_task_once(emulator):
    end(emulator)
    async with Watch(emulator).watching() as watch:
        first = await asyncio.to_thread(end, emulator)
        second = await asyncio.to_thread(end, emulator, FAILING)
        await until(lambda: len(watch.tasks) == 2)
        await watch.polls(3)
        reported = {task["task_id"]: task for task in watch.tasks}
        assert (reported[first]["status"], reported[second]["status"]) == ("finished", "failed")
        assert reported[second]["failure"]["code"] == 1011
        assert len(watch.tasks) == 2
        assert json.loads(json.dumps(watch.payloads)) == watch.payloads


async def test_watcher_reports_only_matching_workflow_and_status(emulator):
    async with (
        Watch(emulator, workflow_id=ORDERS.id).watching() as orders,
        Watch(emulator, status=["failed", "canceled"]).watching() as failed,
    ):
        tasks = [await asyncio.to_thread(end, emulator, workflow) for workflow in (SEARCH, ORDERS, FAILING)]
        await until(lambda: orders.payloads and failed.payloads)
        await orders.polls(3)
        assert (orders.ids, failed.ids) == ([tasks[1]], [tasks[2]])


def end_bots(emulator) -> list[str]:
    """Have runs of two bots and of a template that are over when this returns."""
    hook = BrowserActHook()
    created = [
        hook.run_bot(CONTACTS.id, {"company_name": "Example Corp"}),
        hook.run_bot(FAILING.id),
        hook.run_bot_template(TEMPLATE_TEXT.id, {}),
    ]
    emulator.wait_until(lambda: all(task.finished_at for task in emulator.tasks))
    return [each.id for each in created]


async def test_watcher_of_version_3_reports_only_runs_of_bots_and_templates(emulator):
    async with (
        Watch(emulator, api_version="v3").watching() as every,
        Watch(emulator, api_version="v3", bot_id=CONTACTS.id).watching() as contacts,
        Watch(emulator).watching() as workflows,
    ):
        task_id = await asyncio.to_thread(end, emulator)
        bots = await asyncio.to_thread(end_bots, emulator)
        await until(lambda: len(every.tasks) == 3 and contacts.payloads and workflows.payloads)
        await every.polls(2)
        await workflows.polls(2)
        assert sorted(every.ids) == sorted(bots)
        assert (contacts.ids, workflows.ids) == ([bots[0]], [task_id])
    assert not any("status=" in request.query for request in emulator.requests)


async def test_restarted_watcher_of_version_3_reports_runs_that_ended_meanwhile_and_not_those_of_version_2(emulator):
    state = State()
    async with Watch(emulator, state).watching(), Watch(emulator, state, api_version="v3").watching():
        await until(lambda: len(state.values) == 2)
    await asyncio.to_thread(end, emulator)
    bots = await asyncio.to_thread(end_bots, emulator)
    async with Watch(emulator, state, api_version="v3").watching() as watch:
        await until(lambda: len(watch.tasks) == 3)
        assert sorted(watch.ids) == sorted(bots)


async def test_watcher_without_shared_stream_reports_ended_task(emulator):
    events: Any = TaskFinishedTrigger(poll_interval=0.05).run()
    first = asyncio.ensure_future(anext(events))
    await until(lambda: calls_of(emulator, "list-tasks") >= 2)
    task_id = await asyncio.to_thread(end, emulator)
    assert [task["task_id"] for task in (await first).payload["tasks"]] == [task_id]
    await events.aclose()


async def test_watcher_reports_end_of_run_started_before_the_watcher(emulator):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    task_id = BrowserActHook().run_task(ORDERS.id).id
    async with Watch(emulator).watching() as watch:
        BrowserActHook().stop_task(task_id)
        await until(lambda: watch.payloads)
        assert watch.ids == [task_id]


class TestWatcherRestart:
    async def test_restarted_watcher_reports_all_tasks_ended_meanwhile_in_one_event_and_none_twice(self, emulator):
        state = State()
        async with Watch(emulator, state).watching() as watch:
            first = await asyncio.to_thread(end, emulator)
            await until(lambda: first in str(state.values))
            assert watch.ids == [first]
        others = [await asyncio.to_thread(end, emulator) for _ in range(3)]
        async with Watch(emulator, state).watching() as watch:
            await watch.polls(3)
            assert len(watch.payloads) == 1
            assert sorted(watch.ids) == sorted(others)

    async def test_restarted_watcher_repeats_event_that_airflow_may_not_have_stored(self, emulator, monkeypatch):
        state = State()
        monkeypatch.setattr(timings, "EVENT_STORE_GRACE", 3600.0)
        async with Watch(emulator, state).watching() as watch:
            task_id = await asyncio.to_thread(end, emulator)
            await until(lambda: watch.payloads)
        async with Watch(emulator, state).watching() as watch:
            await until(lambda: watch.payloads)
            assert watch.ids == [task_id]

    async def test_restarted_watcher_without_stored_state_reports_only_later_ends(self, emulator):
        async with Watch(emulator).watching():
            pass
        await asyncio.to_thread(end, emulator)
        async with Watch(emulator).watching() as watch:
            task_id = await asyncio.to_thread(end, emulator)
            await until(lambda: watch.payloads)
            assert watch.ids == [task_id]

    @pytest.mark.parametrize(
        ("kept", "why"),
        [({"floor": 9e10, "reported": {}}, "it is from the future"), ("nonsense", "Input should be an object")],
        ids=["from the future", "unreadable"],
    )
    async def test_watcher_with_invalid_cursor_starts_again_and_logs_it(self, emulator, kept, why, capfd):
        state = State()
        watch = Watch(emulator, state)
        state.values[watch.trigger._cursor_key] = json.dumps(kept)
        end(emulator)
        async with watch.watching():
            task_id = await asyncio.to_thread(end, emulator)
            await until(lambda: watch.payloads)
            assert watch.ids == [task_id]
            await until(lambda: task_id in str(state.values))
        assert f"Ignoring the watcher state, which cannot be used: {why}" in "".join(capfd.readouterr())

    async def test_restarted_watcher_retries_reading_its_state(self, emulator):
        state = State()
        async with Watch(emulator, state).watching():
            await until(lambda: state.values)
        task_id = await asyncio.to_thread(end, emulator)
        state.fails = [RuntimeError("the API server is away")] * 2
        async with Watch(emulator, state).watching() as watch:
            await until(lambda: watch.payloads)
            assert watch.ids == [task_id]

    async def test_restarted_watcher_with_other_status_filter_starts_again(self, emulator):
        state = State()
        async with Watch(emulator, state, status="finished").watching():
            await until(lambda: state.values)
        await asyncio.to_thread(end, emulator, FAILING)
        async with Watch(emulator, state, status="failed").watching() as watch:
            await watch.polls(3)
            assert watch.payloads == []


async def test_watcher_keeps_running_and_logs_when_state_cannot_be_written(emulator, capfd):
    state = State()
    async with Watch(emulator, state).watching() as watch:
        await until(lambda: state.values)
        state.fails = [RuntimeError("the API server is away")]
        await asyncio.to_thread(end, emulator)
        await until(lambda: not state.fails)
        await asyncio.to_thread(end, emulator)
        await until(lambda: len(watch.tasks) == 2)
    assert "The watcher state could not be stored. After a restart, runs may be reported again: " in "".join(
        capfd.readouterr()
    )


async def test_watcher_keeps_polling_while_service_is_down_and_reports_ended_task(emulator, caplog):
    async with Watch(emulator).watching() as watch:
        emulator.fault("list-tasks", RequestFault.status(503), times=None)
        with caplog.at_level(logging.ERROR):
            await until(lambda: "could not be listed" in caplog.text)
        task_id = await asyncio.to_thread(end, emulator)
        emulator.clear_faults()
        await until(lambda: watch.payloads)
        assert watch.ids == [task_id]


async def test_watcher_uses_changed_api_key_of_connection_after_refusal(emulator, connect):
    connect(password="app-wrong")
    trigger = TaskFinishedTrigger(poll_interval=0.05)
    polls = trigger.open_shared_stream(trigger.serialize()[1])
    first = asyncio.ensure_future(anext(polls))
    await until(lambda: calls_of(emulator, "list-tasks") >= 2)
    connect()
    assert await first == ()
    await polls.aclose()


async def test_fifty_watchers_of_one_connection_poll_once_per_interval(emulator):
    """With Airflow's own distribution of shared streams (3.3 and later)."""
    from airflow.triggers import shared_stream as streams

    manager = streams.SharedStreamManager(log=streams.log)
    watchers = [TaskFinishedTrigger(poll_interval=0.5) for _ in range(50)]
    reported: list[list[str]] = [[] for _ in watchers]

    async def watch(number: int) -> None:
        trigger = watchers[number]
        stream = manager.subscribe(trigger_id=number, trigger=trigger, key=trigger.shared_stream_key())
        async for event in trigger.filter_shared_stream(stream):
            reported[number] += [task["task_id"] for task in event.payload["tasks"]]

    running = [asyncio.ensure_future(watch(number)) for number in range(50)]
    await until(lambda: calls_of(emulator, "list-tasks") == 2)
    task_id = await asyncio.to_thread(end, emulator)
    await until(lambda: all(reported))
    assert reported == [[task_id]] * 50
    moments = [request.at for request in emulator.requests if request.endpoint == "list-tasks"]
    apart = [(later - earlier).total_seconds() for earlier, later in pairwise(moments)]
    assert min(apart) > 0.4
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await manager.stop_all()


def limits(emulator) -> list[int]:
    """The sizes of the pages that were requested."""
    queries = [request.query for request in emulator.requests if request.endpoint == "list-tasks"]
    return [int(re.findall(r"limit=(\d+)", query)[0]) for query in queries]


class TestLargeOutputs:
    """A list of tasks contains their outputs."""

    @pytest.fixture(autouse=True)
    def _small_pages(self, monkeypatch):
        monkeypatch.setattr(watcher, "LARGEST_PAGE", 50_000)

    async def test_watcher_reads_large_outputs_in_small_pages_and_reports_each_end_once(self, emulator):
        emulator.set_workflow(ORDERS.id, duration=0.0, output="x" * 20_000)
        async with Watch(emulator).watching() as watch:
            ended = [await asyncio.to_thread(end, emulator) for _ in range(7)]
            await until(lambda: len(watch.tasks) >= 7)
            await watch.polls(2)
            assert sorted(watch.ids) == sorted(ended)
        assert limits(emulator)[0] == 128
        assert 2 in limits(emulator)

    async def test_watcher_reports_end_of_active_run_whose_output_is_too_large_for_a_page(self, emulator):
        emulator.next_run(ORDERS.id, duration=1.0, output="x" * 60_000)
        active = BrowserActHook().run_task(ORDERS.id).id
        async with Watch(emulator).watching() as watch:
            await until(lambda: watch.ids == [active])
            assert watch.tasks[0]["status"] == "finished"
            await watch.polls(2)
            assert watch.ids == [active]

    async def test_task_that_alone_is_too_large_does_not_hide_the_ends_of_others(self, emulator, caplog):
        caplog.set_level(logging.WARNING)
        async with Watch(emulator).watching() as watch:
            emulator.next_run(ORDERS.id, duration=0.0, output="x" * 60_000)
            large = await asyncio.to_thread(end, emulator)
            small = await asyncio.to_thread(end, emulator)
            await until(lambda: small in watch.ids)
            await watch.polls(2)
            assert set(watch.ids) - {large} == {small}
        assert "1 of the listed BrowserAct tasks cannot be read" in caplog.text


async def test_active_task_is_read_by_itself_if_no_item_of_the_list_can_be_read():
    class OneUnreadableItem:
        async def send(self, call):
            if call.name == "list-tasks":
                return Page((), total_count=1, skipped=("one without an id: it has none",))
            assert call.name == "get-task-status"
            return TaskStatus.FINISHED

    window = Window(1000.0)
    window.add([Task("1", TaskStatus.RUNNING)], 1000.0)
    assert [(task.id, task.status) for task in await watcher._list(window, OneUnreadableItem())] == [  # type: ignore[arg-type]
        ("1", TaskStatus.FINISHED)
    ]


def test_watchers_share_polls_only_with_same_connection_version_and_interval():
    key = TaskFinishedTrigger().shared_stream_key()
    assert TaskFinishedTrigger(api_version="v3").shared_stream_key() != key
    assert TaskFinishedTrigger(workflow_id="7", status="failed").shared_stream_key() == key
    assert TaskFinishedTrigger(browseract_conn_id="other").shared_stream_key() != key
    assert TaskFinishedTrigger(poll_interval=15).shared_stream_key() != key


@pytest.mark.parametrize("source", [{"workflow_id": "7"}, {"bot_id": "7", "api_version": "v3"}], ids=["v2", "v3"])
def test_watcher_trigger_recreated_from_its_arguments_serializes_identically(source):
    original = TaskFinishedTrigger(**source, status=["failed", "finished"], poll_interval=30)
    path, arguments = original.serialize()
    assert path == "airflow_provider_browseract.triggers.watcher.TaskFinishedTrigger"
    assert TaskFinishedTrigger(**json.loads(json.dumps(arguments))).serialize() == original.serialize()


def test_asset_watcher_accepts_task_finished_trigger():
    asset = Asset("orders", watchers=[AssetWatcher(name="browseract", trigger=TaskFinishedTrigger())])
    assert asset.watchers[0].trigger.serialize()[1]["status"] == ["finished", "canceled", "failed"]
