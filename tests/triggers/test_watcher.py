import asyncio
import contextlib
import json
import logging
import re
from itertools import pairwise

import pytest

from airflow_provider_browseract.emulator import CONTACTS, ORDERS, SEARCH
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.triggers.watcher import TaskFinishedTrigger
from tests.helpers.cases import cases
from tests.helpers.catalogue import FAILING, TEMPLATE_TEXT
from tests.triggers.waits import in_world

POLLS = 250.0
"""Seconds in which a watcher polls four times."""


@pytest.fixture
def emulator(emulator):
    for workflow in (ORDERS, SEARCH, FAILING, CONTACTS, TEMPLATE_TEXT):
        emulator.set_workflow(workflow.id, duration=0.0)
    return emulator


class State:
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


@contextlib.asynccontextmanager
async def watching(state: State | None = None, **arguments):
    """Run a watcher for the length of a ``with`` block, which begins after its first poll; yield its payloads."""
    trigger = TaskFinishedTrigger(**arguments)
    trigger.asset_state_store = state  # type: ignore[assignment]
    payloads: list[dict] = []

    async def run():
        async with contextlib.aclosing(trigger.run()) as events:  # type: ignore[type-var]
            async for event in events:
                payloads.append(event.payload)

    running = asyncio.ensure_future(run())
    try:
        await asyncio.sleep(1)
        yield payloads
    finally:
        assert not running.done(), "a watcher never ends"
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def ids(payloads: list[dict]) -> list[str]:
    return sorted(task["task_id"] for payload in payloads for task in payload["tasks"])


def end(workflow=ORDERS) -> str:
    """Have a run that is over when this returns."""
    return BrowserActHook().run_task(workflow.id, {"keyword": "pens"} if workflow is SEARCH else None).id


def end_bots() -> list[str]:
    """Have runs of two bots and of a template that are over when this returns."""
    hook = BrowserActHook()
    company = {"company_name": "Example Corp"}
    runs = hook.run_bot(CONTACTS.id, company), hook.run_bot(FAILING.id), hook.run_bot_template(TEMPLATE_TEXT.id, {})
    return [run.id for run in runs]


async def ended_while(state: State | None = None, *, workflow=ORDERS, **arguments) -> tuple[str, list[dict]]:
    """Let a run end while a watcher watches; return its id and the payloads."""
    async with watching(state, **arguments) as payloads:
        task_id = end(workflow)
        await asyncio.sleep(POLLS)
    return task_id, payloads


@in_world
async def test_watcher_reports_each_run_that_ends_once_or_only_those_of_its_ids_and_statuses(world, emulator):
    end()
    async with (
        watching() as every,
        watching(status=["failed", "canceled"]) as failed,
        watching(workflow_id=ORDERS.id) as orders,
        watching(bot_id=CONTACTS.id) as contacts,
        watching(workflow_id=ORDERS.id, bot_id=CONTACTS.id) as two,
    ):
        ended, search, broken, bots = end(), end(SEARCH), end(FAILING), end_bots()
        await asyncio.sleep(POLLS)
    assert ids(every) == sorted([ended, search, broken, *bots])
    assert (ids(failed), ids(orders), ids(contacts)) == (sorted([broken, bots[1]]), [ended], [bots[0]])
    assert ids(two) == sorted([ended, bots[0]])
    [payload] = every
    assert json.loads(json.dumps(payload)) == payload
    reported = {task["task_id"]: task for task in payload["tasks"]}
    assert (reported[ended]["status"], reported[broken]["status"]) == ("finished", "failed")
    assert reported[broken]["failure"]["code"] == 1011
    assert not any("status=" in request.query for request in emulator.requests)


@cases({"workflow": ({"workflow_id": "7"}, "list-tasks"), "bot": ({"bot_id": "7"}, "page-runs")})
@in_world
async def test_watcher_lists_only_what_it_may_report(world, emulator, arguments, endpoint):
    async with watching(**arguments):
        await asyncio.sleep(POLLS)
    assert {request.endpoint for request in emulator.requests} == {endpoint}


@in_world
class TestWatcherRestart:
    @cases(
        ("stored state", True, 0, {}, {}),
        ("stored state that cannot be read at first", True, 2, {}, {}),
        ("state of another filter", False, 0, {"status": ["finished", "failed"]}, {"status": "failed"}),
        ("no stored state", False, 0, {}, {}),
    )
    async def test_restarted_watcher_reports_what_it_missed(self, world, emulator, stored, failures, first, second):
        state = State() if stored or first else None
        task_id, payloads = await ended_while(state, workflow=FAILING, **first)
        assert ids(payloads) == [task_id]
        meanwhile = [end(FAILING) for _ in range(3)]
        if state:
            state.fails = [RuntimeError("the API server is away")] * failures
        async with watching(state, **second) as payloads:
            await asyncio.sleep(POLLS)
            later = end(FAILING)
            await asyncio.sleep(POLLS)
        assert [ids([payload]) for payload in payloads] == ([sorted(meanwhile), [later]] if stored else [[later]])

    async def test_restarted_watcher_of_a_bot_reports_its_runs_that_ended_meanwhile(self, world, emulator):
        state = State()
        async with watching(state), watching(state, bot_id=CONTACTS.id):
            assert len(state.values) == 2
        end()
        bots = end_bots()
        async with watching(state, bot_id=CONTACTS.id) as payloads:
            await asyncio.sleep(POLLS)
        assert ids(payloads) == [bots[0]]

    async def test_restarted_watcher_repeats_event_that_airflow_may_not_have_stored(self, world, emulator):
        state = State()
        async with watching(state) as payloads:
            task_id = end()
            while not payloads:
                await asyncio.sleep(timings.EVENT_STORE_GRACE / 2)
        async with watching(state) as payloads:
            await asyncio.sleep(POLLS)
        assert ids(payloads) == [task_id]

    @pytest.mark.parametrize(
        ("kept", "why"),
        [({"floor": 9e10, "reported": {}}, "it is from the future"), ("nonsense", "Input should be an object")],
        ids=["from the future", "unreadable"],
    )
    async def test_watcher_with_invalid_cursor_starts_again_and_logs_it(self, world, emulator, kept, why, logs):
        state = State()
        async with watching(state):
            pass
        [key] = state.values
        state.values[key] = json.dumps(kept)
        end()
        task_id, payloads = await ended_while(state)
        assert ids(payloads) == [task_id]
        assert task_id in state.values[key]
        assert f"Ignoring the watcher state, which cannot be used: {why}" in logs()


@in_world
async def test_watcher_keeps_running_and_logs_when_state_cannot_be_written(world, emulator, logs):
    state = State()
    async with watching(state) as payloads:
        state.fails = [RuntimeError("the API server is away")]
        tasks = [end()]
        await asyncio.sleep(POLLS)
        tasks.append(end())
        await asyncio.sleep(POLLS)
    assert ids(payloads) == sorted(tasks)
    assert "The watcher state could not be stored. After a restart, runs may be reported again: " in logs()


@in_world
async def test_watcher_logs_that_it_cannot_poll_and_continues_with_a_changed_api_key(world, emulator, caplog):
    caplog.set_level(logging.ERROR)
    world.connect(password="app-wrong")
    async with watching() as payloads:
        await asyncio.sleep(POLLS)
        assert {request.status for request in emulator.requests} == {401}
        assert "could not be listed" in caplog.text
        world.connect()
        await asyncio.sleep(POLLS)
        task_id = end()
        await asyncio.sleep(POLLS)
    assert ids(payloads) == [task_id]


@in_world
async def test_fifty_watchers_of_one_connection_poll_once_per_interval(world, emulator):
    """With Airflow's own distribution of shared streams (3.3 and later)."""
    from airflow.triggers import shared_stream as streams

    manager = streams.SharedStreamManager(log=streams.log)
    watchers = [TaskFinishedTrigger(poll_interval=15) for _ in range(50)]
    reported: list[list[str]] = [[] for _ in watchers]

    async def watch(number: int) -> None:
        trigger = watchers[number]
        stream = manager.subscribe(trigger_id=number, trigger=trigger, key=trigger.shared_stream_key())
        async for event in trigger.filter_shared_stream(stream):
            reported[number] += [task["task_id"] for task in event.payload["tasks"]]

    running = [asyncio.ensure_future(watch(number)) for number in range(50)]
    await asyncio.sleep(20)
    task_id = end()
    await asyncio.sleep(POLLS)
    assert reported == [[task_id]] * 50
    moments = [request.at for request in emulator.requests if request.endpoint == "list-tasks"]
    assert min((later - earlier).total_seconds() for earlier, later in pairwise(moments)) >= 15
    for each in running:
        each.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await manager.stop_all()


@in_world
async def test_large_outputs_are_read_in_small_pages_and_one_that_is_too_large_hides_no_other_end(
    world, emulator, monkeypatch, caplog
):
    monkeypatch.setattr("airflow_provider_browseract.api.async_client.MAX_RESPONSE", 50_000)
    caplog.set_level(logging.WARNING)
    emulator.set_workflow(ORDERS.id, output="x" * 20_000)
    async with watching() as payloads:
        emulator.next_run(ORDERS.id, output="x" * 60_000)
        _, *ended = [end() for _ in range(8)]
        await asyncio.sleep(POLLS)
    assert ids(payloads) == sorted(ended)
    assert "1 of the listed BrowserAct tasks cannot be read here" in caplog.text
    queries = [request.query for request in emulator.requests if request.endpoint == "list-tasks"]
    limits = [int(re.findall(r"limit=(\d+)", query)[0]) for query in queries]
    assert limits[0] == 128
    assert 2 in limits


@cases(
    ("statuses", {"status": "failed"}, True),
    ("bot", {"bot_id": "7"}, False),
    ("workflow", {"workflow_id": "7"}, False),
    ("workflow and bot", {"workflow_id": "7", "bot_id": "7"}, True),
    ("connection", {"browseract_conn_id": "other"}, False),
    ("interval", {"poll_interval": 15}, False),
)
def test_watchers_share_polls_only_with_same_connection_versions_and_interval(arguments, shares):
    key = TaskFinishedTrigger().shared_stream_key()
    assert (TaskFinishedTrigger(**arguments).shared_stream_key() == key) is shares


def test_watcher_of_bots_recreated_from_its_arguments_serializes_identically():
    original = TaskFinishedTrigger(bot_id="7", status=["failed", "finished"], poll_interval=30)
    _, arguments = original.serialize()
    assert TaskFinishedTrigger(**json.loads(json.dumps(arguments))).serialize() == original.serialize()
