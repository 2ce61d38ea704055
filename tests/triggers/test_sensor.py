"""A sensor that begins and ends in the triggerer, with the XComs as Airflow's supervisor keeps them."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import DeleteXCom, GetXCom, SetXCom, XComResult
from airflow.triggers.base import TaskSuccessEvent
from asgiref.sync import sync_to_async

from airflow_provider_browseract.api import models
from airflow_provider_browseract.compat import TRIGGERS_START_TASKS, AirflowFailException
from airflow_provider_browseract.emulator import DOWNLOAD, ORDERS, PLAIN_TEXT, EmulatedFile, Output, RequestFault
from airflow_provider_browseract.hooks import steps as steps_module
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.sensors.browseract import TaskSensor
from airflow_provider_browseract.triggers import polling
from airflow_provider_browseract.triggers import sensor as triggers
from airflow_provider_browseract.triggers.sensor import TaskSensorTrigger
from tests.workers import FakeTaskInstance

pytestmark = pytest.mark.skipif(not TRIGGERS_START_TASKS, reason="before Airflow 3.3 each task begins in a worker")

STALE = {
    "return_value": ["rows of an earlier task"],
    "output_text": "text of an earlier task",
    "output_files": ["https://files.example/earlier"],
    "task": {"task_id": "earlier"},
    "_link_BrowserActTaskLink": "https://browseract.example/earlier",
    "_link_LiveViewLink": "https://browseract.example/earlier/live",
}


class Supervisor:
    """Airflow's end of the connection: it keeps XComs, which Airflow's own code reads and writes."""

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}
        self.fail: dict[type, int] = {}
        self.refused_keys: set[str] = set()
        self.looked_for: list[str] = []

    def send(self, message):
        if left := self.fail.get(type(message), 0):
            self.fail[type(message)] = left - 1
            raise OSError("the API server is away")
        of = (message.dag_id, message.run_id, message.task_id, message.map_index)
        assert of == ("shop", "manual__1", "run", -1)
        if isinstance(message, GetXCom):
            self.looked_for.append(message.key)
            return XComResult(key=message.key, value=self.xcoms.get(message.key))
        if isinstance(message, SetXCom):
            if message.key in self.refused_keys:
                raise OSError("SlowDown")
            self.xcoms[message.key] = json.loads(json.dumps(message.value))
        elif isinstance(message, DeleteXCom):
            del self.xcoms[message.key]
        else:
            raise TypeError(type(message))
        return None


@pytest.fixture
def supervisor(monkeypatch) -> Supervisor:
    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    return supervisor


@pytest.fixture
def emulator(browseract_emulator, connect, short_timings, monkeypatch):
    connect({"retry_budget": 0.2, "read_timeout": 10})
    monkeypatch.setattr(timings, "TIMEOUT_BACKSTOP", 0.0)
    return browseract_emulator.emulator


def started(emulator, text: str | None = None) -> str:
    """Start a short run, whose output is a text; or that of the orders."""
    workflow = ORDERS if text is None else PLAIN_TEXT
    behaviour = {} if text is None else {"behaviour": lambda run: Output(text)}
    emulator.set_workflow(workflow.id, duration=0.2, **behaviour)
    return BrowserActHook().run_task(workflow.id).id


def task_instance(try_number: int, **task) -> Any:
    ti: Any = FakeTaskInstance()
    ti.try_number = try_number
    ti.task = SimpleNamespace(
        **{"iter_mapped_dependants": lambda: iter([]), "do_xcom_push": True, "multiple_outputs": False, **task}
    )
    return ti


def trigger(task_id: str, ti: Any, output_format: str = "auto") -> TaskSensorTrigger:
    made = TaskSensorTrigger(
        browseract_task_id=task_id,
        browseract_conn_id="browseract_default",
        poll_interval=0.1,
        output_format=output_format,
    )
    made._task_instance = ti
    made.timeout_after = datetime.now(timezone.utc) + timedelta(seconds=20)  # type: ignore[attr-defined]
    return made


def run(task_id: str, *, try_number: int = 1, output_format: str = "auto", **task) -> Any:
    """Run the trigger to its one event."""

    async def events() -> list[Any]:
        return [event async for event in trigger(task_id, task_instance(try_number, **task), output_format).run()]

    [event] = asyncio.run(events())
    return event


class TestXComsOfEarlierRun:
    """Someone has cleared the task, and Airflow deletes the XComs only of a task that it starts in a worker."""

    def test_stale_xcoms_are_deleted_when_cleared_sensor_succeeds(self, emulator, supervisor):
        supervisor.xcoms.update(STALE)
        event = run(started(emulator, ""), try_number=2)
        assert isinstance(event, TaskSuccessEvent)
        assert not {"return_value", "output_text", "output_files"} & supervisor.xcoms.keys()
        assert supervisor.xcoms["task"]["status"] == "finished"

    def test_stale_return_value_is_deleted_even_when_cleared_sensor_fails(self, emulator, supervisor):
        supervisor.xcoms.update(STALE)
        emulator.set_workflow(ORDERS.id, outcome="failed")
        assert not isinstance(run(started(emulator), try_number=2), TaskSuccessEvent)
        assert "return_value" not in supervisor.xcoms

    def test_first_try_of_sensor_does_not_search_for_stale_xcoms(self, emulator, supervisor):
        run(started(emulator))
        assert supervisor.looked_for == []
        assert supervisor.xcoms["return_value"]["logged_in"] is False

    def test_stale_xcoms_not_deletable_at_first_are_deleted_before_success(self, emulator, supervisor):
        supervisor.xcoms.update(STALE)
        supervisor.fail = {DeleteXCom: 1}
        assert isinstance(run(started(emulator, ""), try_number=2), TaskSuccessEvent)
        assert "return_value" not in supervisor.xcoms

    def test_stale_xcoms_that_trigger_cannot_delete_are_deleted_by_worker(self, emulator, supervisor):
        supervisor.xcoms.update(STALE)
        supervisor.fail = {DeleteXCom: 1000}
        task_id = started(emulator, "")
        event = run(task_id, try_number=2)
        assert not isinstance(event, TaskSuccessEvent)
        sensor = TaskSensor(task_id="wait", browseract_task_id=task_id, deferrable=True)
        context: Any = {"ti": task_instance(2)}
        # Airflow does not delete them in a worker that continues after a deferral either.
        with pytest.raises(OSError, match="API server is away"):
            sensor.resume_execution("execute_complete", {"event": event.payload}, context)
        supervisor.fail = {}
        assert sensor.resume_execution("execute_complete", {"event": event.payload}, context) is None
        assert "return_value" not in supervisor.xcoms

    def test_resumed_sensor_that_started_in_worker_does_not_search_for_stale_xcoms(self, emulator, supervisor):
        task_id = started(emulator)
        sensor = TaskSensor(task_id="wait", browseract_task_id=task_id, deferrable=True, start_from_trigger=False)
        context: Any = {"ti": task_instance(2)}
        # An event that leaves the result to the worker, as one does after a deferral by a worker.
        event = run(task_id, multiple_outputs=True).payload
        assert sensor.resume_execution("execute_complete", {"event": event}, context)["logged_in"] is False
        assert supervisor.looked_for == []


class TestSensorResult:
    def test_run_that_had_ended_before_the_first_poll_is_concluded(self, emulator, supervisor):
        task_id = started(emulator)
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
        assert isinstance(run(task_id), TaskSuccessEvent)
        assert supervisor.xcoms["task"]["status"] == "finished"

    def test_result_that_airflow_cannot_store_is_pushed_as_text(self, emulator, supervisor):
        text = '[{"__id__": "a1"}]'
        assert isinstance(run(started(emulator, text), output_format="json"), TaskSuccessEvent)
        assert supervisor.xcoms["return_value"] == text

    def test_text_that_is_probably_not_csv_is_pushed_beside_its_rows(self, emulator, supervisor):
        assert isinstance(run(started(emulator, "No results"), output_format="csv"), TaskSuccessEvent)
        assert supervisor.xcoms["return_value"] == []
        assert supervisor.xcoms["output_text"] == "No results"

    def test_run_with_very_many_files_is_left_to_worker(self, emulator, supervisor, monkeypatch):
        monkeypatch.setattr(models, "MAX_FILES", 1)
        emulator.set_workflow(DOWNLOAD.id, downloads=(EmulatedFile("a", b"a"), EmulatedFile("b", b"b")), duration=0.2)
        task_id = BrowserActHook().run_task(DOWNLOAD.id, {"keyword": "pens"}).id
        assert not isinstance(run(task_id), TaskSuccessEvent)
        assert "return_value" not in supervisor.xcoms

    def test_output_that_comes_after_the_status_is_pushed(self, emulator, supervisor):
        emulator.next_run(PLAIN_TEXT.id, output_after=0.2)
        task_id = started(emulator, "late")
        assert isinstance(run(task_id), TaskSuccessEvent)
        assert supervisor.xcoms["return_value"] == "late"

    def test_output_that_cannot_be_read_at_last_is_left_to_worker(self, emulator, supervisor, monkeypatch):
        emulator.next_run(PLAIN_TEXT.id, output_after=60.0)
        task_id = started(emulator, "late")
        run_steps = steps_module.run_steps_async

        async def follow_during_outage(steps, client, log):
            if steps.__name__ == "read_late_output":
                emulator.fault("get-task", RequestFault.status(503))
            return await run_steps(steps, client, log)

        monkeypatch.setattr(triggers, "run_steps_async", follow_during_outage)
        assert not isinstance(run(task_id), TaskSuccessEvent)
        assert "return_value" not in supervisor.xcoms

    def test_large_result_is_left_to_worker(self, emulator, supervisor, monkeypatch):
        monkeypatch.setattr(polling, "LARGEST_RESPONSE", 10_000)
        assert not isinstance(run(started(emulator, "x" * 20_000)), TaskSuccessEvent)
        assert "return_value" not in supervisor.xcoms

    def test_result_with_multiple_outputs_is_left_to_worker(self, emulator, supervisor):
        task_id = started(emulator)
        event = run(task_id, multiple_outputs=True)
        assert not isinstance(event, TaskSuccessEvent)
        assert "return_value" not in supervisor.xcoms
        # Airflow's worker stores the parts.
        sensor = TaskSensor(task_id="wait", browseract_task_id=task_id, deferrable=True, multiple_outputs=True)
        context: Any = {"ti": task_instance(1)}
        result = sensor.resume_execution("execute_complete", {"event": event.payload}, context)
        assert result["logged_in"] is False

    def test_result_that_cannot_be_pushed_is_left_to_worker(self, emulator, supervisor):
        supervisor.refused_keys = {"return_value"}
        assert not isinstance(run(started(emulator)), TaskSuccessEvent)

    def test_result_is_pushed_although_links_and_facts_cannot_be_stored(self, emulator, supervisor):
        supervisor.refused_keys = {"task", "_link_BrowserActTaskLink", "_link_LiveViewLink"}
        assert isinstance(run(started(emulator)), TaskSuccessEvent)
        assert list(supervisor.xcoms) == ["return_value"]

    def test_result_in_wrong_format_is_left_to_worker_which_keeps_the_text(self, emulator, supervisor):
        task_id = started(emulator, "{")
        event = run(task_id, output_format="json")
        sensor = TaskSensor(task_id="wait", browseract_task_id=task_id, deferrable=True, output_format="json")
        ti = task_instance(1)
        with pytest.raises(AirflowFailException, match="stored in the XCom output_text"):
            sensor.resume_execution("execute_complete", {"event": event.payload}, {"ti": ti})
        assert ti.xcoms["output_text"] == "{"

    def test_slow_push_of_result_does_not_block_other_triggers(self, emulator, supervisor, monkeypatch):
        storing, others_went_on = threading.Event(), threading.Event()
        send = supervisor.send

        def slow(message):
            if isinstance(message, SetXCom) and message.key == "return_value":
                storing.set()
                assert others_went_on.wait(10), "another trigger waits for this XCom"
            return send(message)

        monkeypatch.setattr(supervisor, "send", slow)
        task_id = started(emulator)

        async def another() -> None:
            await asyncio.to_thread(storing.wait, 10)
            # As Airflow does for connections.
            await sync_to_async(others_went_on.set)()

        async def both() -> list[Any]:
            other = asyncio.ensure_future(another())
            events = [event async for event in trigger(task_id, task_instance(1)).run()]
            await other
            return events

        [event] = asyncio.run(both())
        assert isinstance(event, TaskSuccessEvent)


def test_sensor_in_the_triggerer_keeps_the_live_view_out_of_log_and_xcoms(emulator, supervisor, capfd):
    sensor = TaskSensor(
        task_id="run", browseract_task_id=started(emulator), deferrable=True, poke_interval=1, show_live_view=False
    )
    assert sensor.start_trigger_args is not None
    made = TaskSensorTrigger(
        **{**json.loads(json.dumps(sensor.start_trigger_args.trigger_kwargs)), "poll_interval": 0.1}
    )
    made._task_instance = task_instance(1)
    made.timeout_after = datetime.now(timezone.utc) + timedelta(seconds=20)  # type: ignore[attr-defined]

    async def ends() -> list[Any]:
        return [event async for event in made.run()]

    [event] = asyncio.run(ends())
    assert isinstance(event, TaskSuccessEvent)
    said = "".join(capfd.readouterr())
    assert f"BrowserAct task {sensor.browseract_task_id} is running." in said
    assert "/live/" not in said + json.dumps(supervisor.xcoms)
