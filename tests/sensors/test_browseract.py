"""Waiting for a run that was started elsewhere."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from airflow_provider_browseract.compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from airflow_provider_browseract.emulator import EXPORT, FAILING, ORDERS, PLAIN_TEXT, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs.outcome import ResultError, RunLostError
from airflow_provider_browseract.sensors import browseract as sensors
from airflow_provider_browseract.sensors.browseract import TaskSensor
from airflow_provider_browseract.triggers.browseract import TaskTrigger
from tests.operators.conftest import FakeTaskInstance

BOTH_WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["in the worker", "deferred"])


@pytest.fixture
def emulator(browseract_emulator, monkeypatch):
    connection = {**browseract_emulator.connection, "extra": {"retry_budget": 0.2, "read_timeout": 1}}
    monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", json.dumps(connection))
    monkeypatch.setattr(sensors, "CORE_RACE_GRACE", 0.05)
    return browseract_emulator.emulator


def started(emulator, workflow=ORDERS, duration: float = 0.3, **settings) -> str:
    emulator.set_workflow(workflow.id, duration=duration, **settings)
    inputs = {"keyword": "pens"} if workflow is EXPORT else None
    return BrowserActHook().run_task(workflow.id, inputs).id


def wait(task_id: str, ti: FakeTaskInstance | None = None, **arguments) -> Any:
    """Run the sensor to its end, deferrals included."""
    context: Any = {"ti": ti or FakeTaskInstance()}
    given = {"task_id": "wait", "browseract_task_id": task_id, "poke_interval": 0.1, "timeout": 20, **arguments}
    try:
        return TaskSensor(**given).execute(context)
    except TaskDeferred as deferred:
        while True:
            event = in_the_triggerer(deferred)
            try:
                return TaskSensor(**given).resume_execution("execute_complete", {"event": event}, context)
            except TaskDeferred as again:
                deferred = again


def in_the_triggerer(deferred: TaskDeferred) -> Any:
    arguments = json.loads(json.dumps(deferred.trigger.serialize()[1]))

    async def follow() -> Any:
        [event] = [event.payload async for event in TaskTrigger(**arguments).run()]
        return event

    return asyncio.run(follow())


@BOTH_WAYS
def test_it_returns_the_output_of_the_run(emulator, deferrable):
    ti = FakeTaskInstance()
    task_id = started(emulator)
    assert wait(task_id, ti, deferrable=deferrable)["logged_in"] is False
    assert ti.xcoms["task"]["status"] == "finished"
    assert task_id in ti.xcoms["_link_BrowserActTaskLink"]


def test_a_run_that_has_ended_already_is_not_deferred_for(emulator):
    task_id = started(emulator, duration=0.0)
    emulator.wait_until(lambda: emulator.tasks[0].finished_at)
    sensor = TaskSensor(task_id="wait", browseract_task_id=task_id, deferrable=True)
    assert sensor.execute({"ti": FakeTaskInstance()}) is not None  # type: ignore[typeddict-item]


@BOTH_WAYS
def test_its_results_can_be_written(emulator, deferrable, tmp_path):
    manifest = wait(started(emulator, EXPORT), deferrable=deferrable, output_path=str(tmp_path))
    assert [file["name"] for file in manifest["files"]] == ["results.csv"]


def test_results_that_cannot_be_written_are_left_to_a_retry(emulator, tmp_path):
    emulator.fault("download-file", RequestFault.status(404), times=None)
    with pytest.raises(ResultError):
        wait(started(emulator, EXPORT), output_path=str(tmp_path))


@BOTH_WAYS
def test_its_text_is_read_as_declared(emulator, deferrable):
    task_id = started(emulator, PLAIN_TEXT, output="a,b\n1,2\n")
    assert wait(task_id, output_format="csv", deferrable=deferrable) == [{"a": "1", "b": "2"}]


@BOTH_WAYS
@pytest.mark.parametrize(
    ("workflow", "settings", "said"), [(FAILING, {}, "code 1011"), (ORDERS, {"outcome": "canceled"}, "was canceled")]
)
def test_a_run_that_came_to_nothing_fails_it_for_good(emulator, deferrable, workflow, settings, said):
    with pytest.raises(AirflowFailException, match=said):
        wait(started(emulator, workflow, **settings), deferrable=deferrable)


@BOTH_WAYS
def test_at_the_timeout_the_run_goes_on(emulator, deferrable):
    with pytest.raises(AirflowSensorTimeout):
        wait(started(emulator, duration=60.0), timeout=0.4, deferrable=deferrable)
    assert emulator.tasks[0].status == "running"


@BOTH_WAYS
def test_a_service_that_is_away_for_a_moment_does_no_harm(emulator, deferrable):
    task_id = started(emulator)
    emulator.fault("get-task", RequestFault.status(503), times=3)
    assert wait(task_id, deferrable=deferrable) is not None


def test_a_service_that_stays_away_is_told_with_its_reason(emulator):
    task_id = started(emulator)
    emulator.fault("get-task", RequestFault.status(503), times=None)
    with pytest.raises(RunLostError, match=r"could not be learned: .*HTTP 503"):
        wait(task_id, deferrable=True)


def test_nobody_who_ends_the_wait_stops_the_run(emulator):
    task_id = started(emulator, duration=60.0)
    sensor = TaskSensor(task_id="wait", browseract_task_id=task_id, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
    assert deferred.value.trigger.cancel_on_kill is False
    sensor.on_kill()
    assert emulator.tasks[0].status == "running"


@BOTH_WAYS
@pytest.mark.parametrize("ended", [False, True], ids=["goes on at first", "has ended already"])
@pytest.mark.parametrize("leniency", ["soft_fail", "never_fail"])
def test_a_lenient_one_skips_as_with_every_sensor(emulator, deferrable, ended, leniency):
    task_id = started(emulator, FAILING)
    if ended:
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
    with pytest.raises(AirflowSkipException):
        wait(task_id, None, deferrable=deferrable, **{leniency: True})


def test_a_run_that_the_triggerer_cannot_follow_is_followed_here(emulator, monkeypatch):
    task_id = started(emulator, duration=0.6)

    async def away(*_):
        raise OSError("no secrets here")

    monkeypatch.setattr(BrowserActHook, "aget_connection", away)
    assert wait(task_id, deferrable=True)["logged_in"] is False


@BOTH_WAYS
def test_a_store_that_cannot_be_written_to_is_told_at_once(emulator, deferrable):
    task_id = started(emulator, duration=60.0)
    with pytest.raises(AirflowFailException, match="cannot be written to"):
        wait(task_id, deferrable=deferrable, output_path="/proc/no/such")


@BOTH_WAYS
@pytest.mark.parametrize(
    ("task_id", "arguments", "message"),
    [
        ("404", {}, "Check the id"),
        ("", {}, "browseract_task_id is ''"),
        ("1", {"output_format": "xml"}, "output_format is 'xml'"),
        ("1", {"output_path": "None"}, "output_path is 'None'"),
        ("1", {"output_path": "here"}, "Give a whole path"),
        ("1", {"browseract_conn_id": "nowhere"}, "There is no connection 'nowhere'"),
    ],
)
def test_bad_input_fails_it_for_good(emulator, deferrable, task_id, arguments, message):
    with pytest.raises(AirflowFailException, match=message):
        wait(task_id, deferrable=deferrable, **arguments)
