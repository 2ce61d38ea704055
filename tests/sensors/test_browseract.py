"""Waiting for a run that was started elsewhere."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.sdk import BaseOperator

from airflow_provider_browseract.compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferralError,
    TaskDeferralTimeout,
    TaskDeferred,
)
from airflow_provider_browseract.emulator import CONTACTS, EXPORT, LOG_IN, ORDERS, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.outcome import ResultError, RunLostError
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import to_json
from airflow_provider_browseract.runs.waiting import End, Wait
from airflow_provider_browseract.sensors.browseract import TaskSensor
from tests.cases import cases
from tests.catalogue import FAILING, PLAIN_TEXT
from tests.workers import BOTH_WAYS, FakeTaskInstance, Worker, calls_of


@pytest.fixture
def emulator(browseract_emulator, short_patience, short_timings):
    return browseract_emulator


def started(emulator, workflow=ORDERS, duration: float = 0.3, **settings) -> str:
    emulator.set_workflow(workflow.id, duration=duration, **settings)
    inputs = {"keyword": "pens"} if workflow is EXPORT else None
    return BrowserActHook().run_task(workflow.id, inputs).id


def wait(task_id: str, ti: Any = None, **arguments) -> Any:
    """Run the sensor to its end, deferrals included."""
    worker = Worker(operator_class=TaskSensor, **{"browseract_task_id": task_id, "timeout": 20, **arguments})
    worker.ti = worker.context["ti"] = ti or FakeTaskInstance()
    return worker.run()


def resume(wait: Wait, end: End, reason: str | None = None, **arguments) -> Any:
    """Continue a deferred sensor after the end of its wait."""
    sensor = TaskSensor(task_id="wait", browseract_task_id=wait.browseract_task_id, deferrable=True, **arguments)
    context: Any = {"ti": FakeTaskInstance()}
    event = to_json(WaitEvent(wait, end, reason=reason))
    return sensor.resume_execution("execute_complete", {"event": event}, context)


@BOTH_WAYS
def test_sensor_returns_run_output_and_pushes_task_facts_and_link(emulator, deferrable):
    ti = FakeTaskInstance()
    task_id = started(emulator)
    assert wait(task_id, ti, deferrable=deferrable)["logged_in"] is False
    assert ti.xcoms["task"]["status"] == "finished"
    assert task_id in ti.xcoms["_link_BrowserActTaskLink"]
    assert ti.xcoms["_link_PanelLink"].startswith("browseract/panel/open/ti/")


@BOTH_WAYS
def test_log_of_a_sensor_hides_the_secret_inputs_that_a_step_of_a_bot_quotes(
    emulator, documented_responses, deferrable, capfd
):
    emulator.set_workflow(LOG_IN.id, steps=("Type hunter2 into the form", "Read the page"))
    task_id = BrowserActHook().run_bot(LOG_IN.id, {"username": "ada", "password": "hunter2"}).id
    wait(task_id, api_version="v3", deferrable=deferrable)
    logged = "".join(capfd.readouterr())
    assert "Type *** into the form" in logged
    assert "hunter2" not in logged


@BOTH_WAYS
def test_sensor_for_the_run_of_a_bot_asks_only_version_3(emulator, documented_responses, deferrable):
    emulator.set_workflow(CONTACTS.id, duration=0.3)
    task_id = BrowserActHook().run_bot(CONTACTS.id, {"company_name": "Example Corp"}).id
    contact = wait(task_id, api_version="v3", deferrable=deferrable)
    assert contact["official_website_url"] == "https://examplecorp.example"
    assert {request.endpoint for request in emulator.requests} == {"create-run", "query-run"}


OTHER_VERSIONS = cases(
    ("start", "api_version", "remedy"),
    {
        "bot as v2": (lambda hook: hook.run_bot(ORDERS.id), "v2", "If it is the run of a bot, set api_version='v3'."),
        "workflow as v3": (
            lambda hook: hook.run_task(ORDERS.id),
            "v3",
            "If it is the run of a workflow, set api_version='v2'.",
        ),
    },
)


@OTHER_VERSIONS
@BOTH_WAYS
def test_sensor_for_task_of_another_version_fails_without_retry_and_names_that_version(
    emulator, start, api_version, remedy, deferrable
):
    task_id = start(BrowserActHook()).id
    with pytest.raises(AirflowFailException, match=f"Check browseract_task_id '{task_id}'.* {remedy}"):
        wait(task_id, api_version=api_version, deferrable=deferrable)


@OTHER_VERSIONS
def test_resumed_sensor_for_task_of_another_version_names_that_version(emulator, start, api_version, remedy):
    waited = Wait(start(BrowserActHook()).id, time.time() + 3600)
    with pytest.raises(AirflowFailException, match=remedy):
        resume(waited, End.GIVEN_UP, "HTTP 503", api_version=api_version)


def test_resumed_sensor_asks_the_version_of_its_argument_and_not_that_of_the_event(emulator):
    waited = Wait(BrowserActHook().run_bot(ORDERS.id).id, time.time() + 3600)
    assert waited.api_version == "v2"
    with pytest.raises(TaskDeferred) as again:
        resume(waited, End.GIVEN_UP, "HTTP 503", api_version="v3")
    assert again.value.trigger.wait.api_version == "v3"
    assert calls_of(emulator, "get-task") == 0


def test_sensor_for_ended_run_returns_output_without_deferring(emulator):
    task_id = started(emulator, duration=0.0)
    emulator.wait_until(lambda: emulator.tasks[0].finished_at)
    sensor = TaskSensor(task_id="wait", browseract_task_id=task_id, deferrable=True)
    assert sensor.execute({"ti": FakeTaskInstance()})["logged_in"] is False  # type: ignore[typeddict-item]


def test_sensor_with_output_path_writes_files_and_returns_manifest(emulator, tmp_path):
    manifest = wait(started(emulator, EXPORT), deferrable=True, output_path=str(tmp_path))
    assert [file["name"] for file in manifest["files"]] == ["results.csv"]


@BOTH_WAYS
def test_sensor_parses_output_text_in_declared_format(emulator, deferrable):
    task_id = started(emulator, PLAIN_TEXT, output="a,b\n1,2\n")
    assert wait(task_id, output_format="csv", deferrable=deferrable) == [{"a": "1", "b": "2"}]


@BOTH_WAYS
@cases(
    ("workflow", "settings", "message"),
    {"failed": (FAILING, {}, "code 1011"), "canceled": (ORDERS, {"outcome": "canceled"}, "was canceled")},
)
def test_sensor_for_failed_or_canceled_run_fails_without_retry(emulator, deferrable, workflow, settings, message):
    with pytest.raises(AirflowFailException, match=message):
        wait(started(emulator, workflow, **settings), deferrable=deferrable)


@BOTH_WAYS
def test_sensor_raises_at_its_timeout_and_run_keeps_running(emulator, deferrable):
    with pytest.raises(AirflowSensorTimeout):
        wait(started(emulator, duration=60.0), timeout=0.4, deferrable=deferrable)
    assert emulator.tasks[0].status == "running"


@BOTH_WAYS
def test_sensor_tolerates_short_service_outage(emulator, deferrable):
    task_id = started(emulator)
    emulator.fault("get-task", RequestFault.status(503), times=3)
    assert wait(task_id, deferrable=deferrable)["logged_in"] is False


def test_deferred_sensor_raises_run_lost_error_with_reason_when_service_stays_down(emulator, capfd):
    task_id = started(emulator)
    emulator.fault("get-task", RequestFault.status(503), times=None)
    expected = (
        r"^Stopped waiting for BrowserAct task \d+, because its status could not be read: BrowserAct failed at get-task"
        r".*\.\nThe run may keep running\.\nCheck the network"
    )
    with pytest.raises(RunLostError, match=expected):
        wait(task_id, deferrable=True)
    line = r"Waiting in the triggerer, which polls the run every .* seconds\. If no line follows, check that a"
    assert re.search(line, "".join(capfd.readouterr()))


def test_killed_sensor_does_not_stop_the_run(emulator):
    task_id = started(emulator, duration=60.0)
    sensor = TaskSensor(task_id="wait", browseract_task_id=task_id, deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
    assert deferred.value.trigger.cancel_on_kill is False
    sensor.on_kill()
    assert emulator.tasks[0].status == "running"


@BOTH_WAYS
@pytest.mark.parametrize("ended", [False, True], ids=["still running", "already ended"])
@pytest.mark.parametrize("leniency", ["soft_fail", "never_fail"])
def test_sensor_with_soft_fail_or_never_fail_skips_when_run_failed(emulator, deferrable, ended, leniency):
    task_id = started(emulator, FAILING)
    if ended:
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
    with pytest.raises(AirflowSkipException):
        wait(task_id, deferrable=deferrable, **{leniency: True})


@BOTH_WAYS
def test_never_fail_sensor_skips_when_files_cannot_be_downloaded(emulator, deferrable, tmp_path):
    emulator.fault("download-file", RequestFault.status(404), times=None)
    with pytest.raises(AirflowSkipException):
        wait(started(emulator, EXPORT), deferrable=deferrable, never_fail=True, output_path=str(tmp_path))


@BOTH_WAYS
def test_soft_fail_sensor_raises_when_files_cannot_be_downloaded(emulator, deferrable, tmp_path):
    emulator.fault("download-file", RequestFault.status(404), times=None)
    with pytest.raises(ResultError):
        wait(started(emulator, EXPORT), deferrable=deferrable, soft_fail=True, output_path=str(tmp_path))


@pytest.mark.parametrize(
    ("leniency", "deferrable"),
    # At the timeout of a sensor that pokes, Airflow does not look at never_fail.
    [("soft_fail", False), ("soft_fail", True), ("never_fail", True)],
    ids=["soft_fail in the worker", "soft_fail deferred", "never_fail deferred"],
)
def test_sensor_with_soft_fail_or_never_fail_skips_at_its_timeout(emulator, deferrable, leniency):
    task_id = started(emulator, duration=60.0)
    with pytest.raises(AirflowSkipException):
        wait(task_id, timeout=0.4, deferrable=deferrable, **{leniency: True})


def test_never_fail_sensor_is_rescheduled_while_its_run_is_running(emulator):
    ti = FakeTaskInstance()
    ti.get_first_reschedule_date = lambda context: None  # type: ignore[attr-defined]
    with pytest.raises(AirflowRescheduleException):
        wait(started(emulator, duration=60.0), ti, mode="reschedule", never_fail=True)


@cases(
    "error",
    {"timeout": TaskDeferralTimeout("no trigger ran"), "trigger error": TaskDeferralError("the trigger crashed")},
)
def test_never_fail_sensor_skips_when_airflow_ends_its_deferral(emulator, error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(BaseOperator, "resume_execution", fail)
    sensor = TaskSensor(task_id="wait", browseract_task_id="7", deferrable=True, never_fail=True)
    with pytest.raises(AirflowSkipException):
        sensor.resume_execution("__fail__", {}, {"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]


@cases(
    ("event", "mode"),
    {
        "run not ended": ((End.ENDED, None), "poke"),
        "no poll": ((End.GIVEN_UP, "HTTP 403"), "poke"),
        "no poll, reschedule": ((End.GIVEN_UP, "HTTP 403"), "reschedule"),
    },
)
def test_sensor_resumed_while_its_run_is_running_defers_again_with_the_same_deadline(emulator, event, mode):
    wait = Wait(started(emulator, duration=60.0), time.time() + 3600)
    with pytest.raises(TaskDeferred) as again:
        resume(wait, *event, mode=mode)
    renewed = again.value.trigger.wait
    assert (renewed.browseract_task_id, renewed.deadline) == (wait.browseract_task_id, wait.deadline)


def test_resumed_sensor_fails_without_retry_when_connection_was_made_invalid(emulator, connect):
    task_id = started(emulator)
    connect({"read_timeout": "soon"})
    with pytest.raises(AirflowFailException, match="extra 'read_timeout' is 'soon'"):
        resume(Wait(task_id, time.time() + 3600), End.ENDED)


def test_resumed_sensor_defers_again_when_connection_is_unreadable(emulator, monkeypatch):
    task_id = started(emulator)
    emulator.wait_until(lambda: emulator.tasks[0].finished_at)
    monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
    with pytest.raises(TaskDeferred):
        resume(Wait(task_id, time.time() + 3600), End.ENDED)


def test_sensor_fails_without_retry_when_output_path_renders_to_none(emulator):
    sensor = TaskSensor(task_id="wait", browseract_task_id=started(emulator), output_path="{{ none }}")
    sensor.output_path = None
    with pytest.raises(AirflowFailException, match="output_path was given, but Airflow rendered it to None"):
        sensor.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]


def test_sensor_times_out_when_triggerer_could_not_poll_until_deadline(emulator):
    task_id = started(emulator, duration=60.0)
    with pytest.raises(AirflowSensorTimeout, match="keeps running"):
        resume(Wait(task_id, time.time()), End.GIVEN_UP, "HTTP 403")


class TestRefusedApiKey:
    """BrowserAct responds with 401 and its own code."""

    @pytest.fixture(autouse=True)
    def _refused(self, emulator):
        self.emulator = emulator

    def refuse(self, times: int | None, skip: int = 0) -> None:
        self.emulator.fault(
            "get-task", RequestFault.refused(401, "Invalid API key", http_status=401), times=times, skip=skip
        )

    @BOTH_WAYS
    def test_sensor_fails_at_once_when_first_request_refuses_the_api_key(self, deferrable):
        task_id = started(self.emulator, duration=60.0)
        self.refuse(None)
        with pytest.raises(AirflowFailException, match="Invalid API key"):
            wait(task_id, deferrable=deferrable)
        assert calls_of(self.emulator, "get-task") <= 2

    def test_sensor_tolerates_api_key_refused_for_a_moment_after_first_poll(self, monkeypatch):
        monkeypatch.setattr(timings, "POLL_PATIENCE", 60.0)
        # Long enough that the first poll finds it running, also on a busy machine.
        task_id = started(self.emulator, duration=3.0)
        self.refuse(2, skip=1)
        assert wait(task_id)["logged_in"] is False

    def test_sensor_fails_when_api_key_stays_refused(self, monkeypatch):
        task_id = started(self.emulator, duration=60.0)
        self.refuse(None, skip=1)
        with pytest.raises(AirflowFailException, match="Invalid API key"):
            wait(task_id)

    @cases(
        ("poke", "expected"),
        {"first poke": ("first", AirflowFailException), "later poke": ("later", AirflowRescheduleException)},
    )
    def test_rescheduled_sensor_tolerates_refused_api_key_only_after_first_poke(self, poke, expected):
        ti = FakeTaskInstance()
        earlier = None if poke == "first" else datetime.now(timezone.utc)
        ti.get_first_reschedule_date = lambda context: earlier  # type: ignore[attr-defined]
        task_id = started(self.emulator, duration=60.0)
        self.refuse(None)
        with pytest.raises(expected):
            wait(task_id, ti, mode="reschedule")


@pytest.mark.parametrize(
    "arguments",
    [{}, {"deferrable": True}, {"deferrable": True, "mode": "reschedule"}],
    ids=["in the worker", "deferred", "deferred despite its mode"],
)
def test_sensor_fails_before_run_ends_when_output_path_is_not_writable(emulator, arguments):
    task_id = started(emulator, duration=60.0)
    with pytest.raises(AirflowFailException, match="cannot write, check and delete a file there"):
        wait(task_id, output_path="/proc/no/such", **arguments)
