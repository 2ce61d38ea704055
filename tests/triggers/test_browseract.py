from __future__ import annotations

import asyncio
import json
import time
from types import SimpleNamespace

import pytest

from airflow_provider_browseract.emulator import ORDERS, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs.waiting import End, WaitEvent
from airflow_provider_browseract.triggers import browseract as triggers
from airflow_provider_browseract.triggers.browseract import TaskTrigger


@pytest.fixture
def emulator(browseract_emulator, monkeypatch):
    connection = {**browseract_emulator.connection, "extra": {"retry_budget": 0.2, "read_timeout": 0.5}}
    monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", json.dumps(connection))
    browseract_emulator.emulator.set_workflow(ORDERS.id, duration=0.3)
    return browseract_emulator.emulator


def trigger(task_id: str, **arguments) -> TaskTrigger:
    now = time.time()
    return TaskTrigger(
        browseract_task_id=task_id,
        browseract_conn_id="browseract_default",
        **{"poll_interval": 0.05, "first_poll_at": now, "deadline": now + 30, **arguments},
    )


def wait(trigger: TaskTrigger) -> WaitEvent:
    async def events():
        return [event.payload async for event in trigger.run()]

    [payload] = asyncio.run(events())
    assert json.loads(json.dumps(payload)) == payload
    return WaitEvent.read(payload)


def start() -> str:
    return BrowserActHook().run_task(ORDERS.id).id


def test_it_tells_once_that_the_run_has_ended(emulator):
    task_id = start()
    event = wait(trigger(task_id))
    assert (event.browseract_task_id, event.end, event.reason) == (task_id, End.ENDED, None)


def test_made_anew_from_its_stored_arguments_it_is_the_same(emulator):
    original = trigger("7", first_poll_at=5.5, deadline=9.5)
    path, arguments = original.serialize()
    assert path == "airflow_provider_browseract.triggers.browseract.TaskTrigger"
    assert TaskTrigger(**json.loads(json.dumps(arguments))).serialize() == original.serialize()


def test_it_asks_nothing_before_its_first_moment(emulator):
    task_id = start()
    first = time.time() + 0.4
    wait(trigger(task_id, first_poll_at=first))
    polls = [request for request in emulator.requests if request.endpoint == "get-task-status"]
    assert polls[0].at.timestamp() >= first


def test_a_deadline_of_the_past_still_tells_a_run_that_ended(emulator):
    task_id = start()
    emulator.wait_until(lambda: emulator.tasks[0].finished_at)
    assert wait(trigger(task_id, deadline=time.time() - 60)).end is End.ENDED


def test_the_deadline_is_told_and_the_run_left_to_the_operator(emulator):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    event = wait(trigger(start(), deadline=time.time() + 0.3))
    assert event.end is End.DEADLINE
    assert emulator.tasks[0].status == "running"


def test_a_service_that_stays_away_is_told_with_its_reason(emulator):
    task_id = start()
    emulator.fault("get-task-status", RequestFault.status(503), times=None)
    event = wait(trigger(task_id))
    assert event.end is End.GIVEN_UP
    assert event.reason is not None
    assert "HTTP 503" in event.reason


def test_a_connection_that_cannot_be_read_is_told_and_does_not_raise(emulator):
    event = wait(
        TaskTrigger(
            browseract_task_id="7",
            browseract_conn_id="nowhere",
            poll_interval=1.0,
            first_poll_at=time.time(),
            deadline=time.time() + 5,
        )
    )
    assert event.end is End.GIVEN_UP
    assert event.reason is not None
    assert "nowhere" in event.reason


@pytest.mark.parametrize("end", ["cleanup", "cancel"])
def test_the_end_of_the_triggerer_stops_no_run(emulator, end):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    task_id = start()

    async def die() -> None:
        dying = trigger(task_id)
        events = dying.run()
        pending = asyncio.ensure_future(events.__anext__())
        while not [request for request in emulator.requests if request.endpoint == "get-task-status"]:
            await asyncio.sleep(0.01)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        await dying.cleanup()

    asyncio.run(die())
    assert emulator.tasks[0].status == "running"
    assert not [request for request in emulator.requests if request.endpoint == "stop-task"]


def test_a_kill_of_the_waiting_task_stops_the_run(emulator):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    asyncio.run(trigger(start()).on_kill())
    assert emulator.tasks[0].status == "canceled"


def test_a_kill_after_the_end_of_the_run_is_quiet(emulator):
    task_id = start()
    emulator.wait_until(lambda: emulator.tasks[0].finished_at)
    asyncio.run(trigger(task_id).on_kill())
    assert emulator.tasks[0].status == "finished"


def test_a_stop_that_fails_is_said_loudly(emulator, capfd):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    task_id = start()
    emulator.fault("stop-task", RequestFault.status(500), times=None)
    asyncio.run(trigger(task_id).on_kill())
    assert f"BrowserAct task {task_id} could not be stopped and goes on" in "".join(capfd.readouterr())


def test_a_stop_that_hangs_does_not_hold_the_triggerer(emulator, monkeypatch):
    monkeypatch.setattr(triggers, "ON_KILL_LIMIT", 0.2)
    emulator.set_workflow(ORDERS.id, duration=60.0)
    task_id = start()
    emulator.fault("stop-task", RequestFault.hung())
    began = time.monotonic()

    async def kill() -> float:
        await trigger(task_id).on_kill()
        return time.monotonic() - began

    assert asyncio.run(kill()) < 5


class TestAKillThatMayBeACallback:
    """Airflow takes a callback that resumed the task for a person who ended the wait."""

    @pytest.fixture
    def waiting(self, emulator, monkeypatch):
        """A trigger of a live run, and what Airflow answers when it looks for notes."""
        from airflow.sdk.execution_time.xcom import XCom

        emulator.set_workflow(ORDERS.id, duration=60.0)
        made = trigger(start(), callback_token_sha256="0" * 64)
        made.trigger_id = 17
        made._task_instance = SimpleNamespace(dag_id="shop", task_id="run", run_id="manual__1", map_index=3)
        notes: dict[str, object] = {}

        async def aget_one(*, key, dag_id, task_id, run_id, map_index):
            assert (dag_id, task_id, run_id, map_index) == ("shop", "run", "manual__1", 3)
            # The first look of a triggerer takes seconds.
            await asyncio.sleep(0.4)
            note = notes.get(key)
            if isinstance(note, Exception):
                raise note
            return note

        monkeypatch.setattr(XCom, "aget_one", aget_one, raising=False)
        return SimpleNamespace(trigger=made, notes=notes)

    def test_leaves_the_run_alone_if_a_callback_had_ended_this_very_wait(self, emulator, waiting):
        waiting.notes["resumed_by_callback_17"] = "2026-11-25T04:00:00+00:00"
        asyncio.run(waiting.trigger.on_kill())
        assert emulator.tasks[0].status == "running"

    def test_stops_the_run_if_the_note_is_about_an_earlier_wait(self, emulator, waiting):
        waiting.notes["resumed_by_callback_16"] = "2026-11-25T04:00:00+00:00"
        asyncio.run(waiting.trigger.on_kill())
        assert emulator.tasks[0].status == "canceled"

    def test_stops_no_run_on_a_guess_and_says_so(self, emulator, waiting, capfd):
        waiting.notes["resumed_by_callback_17"] = RuntimeError("the API server is away")
        asyncio.run(waiting.trigger.on_kill())
        assert emulator.tasks[0].status == "running"
        said = "".join(capfd.readouterr())
        assert f"BrowserAct task {emulator.tasks[0].id} was not stopped and may go on" in said
        assert "the API server is away" in said

    @pytest.mark.parametrize("bounded", [False, True], ids=["as it is", "with Airflow's time limit around it"])
    def test_is_not_cut_off_by_airflows_repeated_cancels(self, emulator, waiting, bounded):
        async def kill() -> None:
            on_kill = waiting.trigger.on_kill()
            under_way = asyncio.ensure_future(asyncio.wait_for(on_kill, 30) if bounded else on_kill)
            await asyncio.sleep(0.05)
            while not under_way.done() or emulator.tasks[0].status != "canceled":
                under_way.cancel("__airflow_user_action__")
                await asyncio.sleep(0.05)

        asyncio.run(asyncio.wait_for(kill(), 20))
        assert emulator.tasks[0].status == "canceled"
