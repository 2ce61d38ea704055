import re
from datetime import datetime, timezone
from typing import Any

import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.sdk import BaseOperator

from airflow_provider_browseract.compat import (
    AIRFLOW_V_3_3_PLUS,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferralError,
    TaskDeferralTimeout,
    TaskDeferred,
)
from airflow_provider_browseract.emulator import CONTACTS, EXPORT, LOG_IN, ORDERS, RequestFault
from airflow_provider_browseract.exceptions import ResultError, RunLostError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.stored import to_json
from airflow_provider_browseract.runs.wait import Wait, WaitEvent
from airflow_provider_browseract.sensors.browseract import TaskSensor
from tests.helpers.cases import cases, raising
from tests.helpers.catalogue import FAILING, PLAIN_TEXT
from tests.helpers.workers import BOTH_WAYS, ORDERS_RESULT, FakeTaskInstance, calls_of, logs
from tests.helpers.world import emulator, worker, world

__all__ = ["emulator", "logs", "worker", "world"]

REFUSED = RequestFault.refused(401, "Invalid API key", http_status=401)


class Rescheduled(FakeTaskInstance):
    def __init__(self, first: datetime | None) -> None:
        super().__init__()
        self.get_first_reschedule_date = lambda context: first


def started(emulator, workflow=ORDERS, **settings) -> str:
    emulator.set_workflow(workflow.id, **settings)
    inputs = {"keyword": "pens"} if workflow is EXPORT else None
    return BrowserActHook().run_task(workflow.id, inputs).id


@pytest.fixture
def wait(worker):
    def wait(task_id: str, ti: Any = None, **arguments) -> Any:
        run = worker(operator_class=TaskSensor, browseract_task_id=task_id, **arguments)
        run.ti = run.context["ti"] = ti or Rescheduled(None)
        return run.run()

    return wait


def resume(world, task_id: str, within: float = 3600, **arguments) -> Any:
    sensor = TaskSensor(task_id="wait", browseract_task_id=task_id, deferrable=True, **arguments)
    event = to_json(WaitEvent(Wait(task_id, world.clock.now + within, api_version=None)))
    return sensor.resume_execution("execute_complete", {"event": event}, {"ti": Rescheduled(None)})  # type: ignore[typeddict-item]


class TestResult:
    @BOTH_WAYS
    def test_sensor_returns_run_output_and_pushes_facts_and_link_despite_an_outage(self, emulator, wait, deferrable):
        ti = FakeTaskInstance()
        task_id = started(emulator)
        emulator.fault("get-task", RequestFault.status(503), times=3)
        assert wait(task_id, ti, deferrable=deferrable) == ORDERS_RESULT
        assert ti.xcoms["task"]["status"] == "finished"
        assert task_id in ti.xcoms["_link_BrowserActTaskLink"]
        assert ti.xcoms["_link_PanelLink"].startswith("browseract/panel/open/ti/")

    @BOTH_WAYS
    def test_unreadable_finished_run_fails_after_few_reads_and_later_tries_read_it(
        self, world, emulator, wait, deferrable
    ):
        def unreadable(found):
            reads_after_the_end.append(b'"finished"' in found.body)
            return found._replace(body=found.body.replace(b'"output": {', b'"output": [{'))

        task_id, reads_after_the_end = started(emulator, PLAIN_TEXT), list[bool]()
        world.instead = {"get-task": unreadable}
        with pytest.raises(ResultError, match="finished, but its output cannot be read: it is not complete JSON"):
            wait(task_id, deferrable=deferrable)
        # The triggerer reads it once.
        assert sum(reads_after_the_end) == deferrable + 1 + len(timings.READ_AGAIN_PAUSES)
        world.instead = {}
        assert isinstance(wait(task_id, deferrable=deferrable), str)

    def test_sensor_for_ended_run_returns_output_without_deferring(self, emulator, worker):
        run = worker(operator_class=TaskSensor, browseract_task_id=started(emulator, duration=0.0), deferrable=True)
        assert (run.run(), run.deferrals) == (ORDERS_RESULT, [])

    @BOTH_WAYS
    def test_sensor_log_hides_secret_inputs_that_a_step_of_a_bot_quotes(self, emulator, wait, deferrable, logs):
        emulator.set_workflow(LOG_IN.id, steps=("Type hunter2 into the form", "Read the page"))
        task_id = BrowserActHook().run_bot(LOG_IN.id, {"username": "ada", "password": "hunter2"}).id
        wait(task_id, deferrable=deferrable)
        logged = logs()
        # The triggerer does not read the input.
        assert ("Step 1: ***" if deferrable else "Type *** into the form") in logged
        assert "hunter2" not in logged

    @BOTH_WAYS
    def test_sensor_parses_output_text_in_declared_format(self, emulator, wait, deferrable):
        task_id = started(emulator, PLAIN_TEXT, output="a,b\n1,2\n")
        assert wait(task_id, output_format="csv", deferrable=deferrable) == [{"a": "1", "b": "2"}]

    @BOTH_WAYS
    def test_sensor_with_output_path_writes_output_and_returns_manifest(self, emulator, wait, deferrable, tmp_path):
        manifest = wait(started(emulator), deferrable=deferrable, output_path=str(tmp_path))
        assert (tmp_path / manifest["path"] / "output.json").exists()


class TestRunOfABot:
    """The sensor looks for an id among the runs of workflows, and then among those of bots."""

    @BOTH_WAYS
    def test_its_run_is_found_and_then_only_version_3_is_asked(self, emulator, wait, deferrable):
        task_id = BrowserActHook().run_bot(CONTACTS.id, {"company_name": "Example Corp"}).id
        assert wait(task_id, deferrable=deferrable)["official_website_url"] == "https://examplecorp.example"
        assert calls_of(emulator, "get-task") == 1
        assert {request.endpoint for request in emulator.requests} == {"create-run", "get-task", "query-run"}

    @BOTH_WAYS
    def test_id_that_neither_version_knows_fails_without_a_retry(self, emulator, wait, deferrable):
        with pytest.raises(AirflowFailException, match=r"(?s)It must be the id of a BrowserAct task.*code 10112"):
            wait("404", deferrable=deferrable)
        assert [request.endpoint for request in emulator.requests] == ["get-task", "query-run"]

    @BOTH_WAYS
    def test_its_run_is_waited_for_although_version_3_fails_for_a_while(self, emulator, wait, deferrable):
        emulator.set_workflow(CONTACTS.id, duration=900.0)
        task_id = BrowserActHook().run_bot(CONTACTS.id, {"company_name": "Example Corp"}).id
        emulator.fault("query-run", RequestFault.status(503), times=40)
        assert wait(task_id, deferrable=deferrable)["official_website_url"] == "https://examplecorp.example"

    def test_resumed_sensor_finds_its_run_if_no_poll_has_found_it(self, world, emulator):
        task_id = BrowserActHook().run_bot(ORDERS.id).id
        with pytest.raises(TaskDeferred) as again:
            resume(world, task_id)
        assert again.value.trigger.wait.api_version == "v3"


STUCK, UNWRITABLE = {"timeout": 30, "poke_interval": 10}, {"output_path": "/proc/no/such"}
NO_CHECK = "cannot write and check a file there"


class TestFailure:
    @BOTH_WAYS
    @cases(
        ("failed", FAILING, {}, {}, AirflowFailException, "code 1011"),
        ("canceled", ORDERS, {"outcome": "canceled"}, {}, AirflowFailException, "was canceled"),
        ("timeout", ORDERS, {}, STUCK, AirflowSensorTimeout, ""),
        ("unwritable path", ORDERS, {}, UNWRITABLE, AirflowFailException, NO_CHECK),
        ("soft_fail, failed", FAILING, {}, {"soft_fail": True}, AirflowSkipException, ""),
        ("never_fail, failed", FAILING, {}, {"never_fail": True}, AirflowSkipException, ""),
        ("soft_fail, failed before", FAILING, {"duration": 0.0}, {"soft_fail": True}, AirflowSkipException, ""),
        ("soft_fail, timeout", ORDERS, {}, {"soft_fail": True, **STUCK}, AirflowSkipException, ""),
        # The world has no files, because they are no calls of the API.
        ("soft_fail, no files", EXPORT, {}, {"soft_fail": True, "output_path": ""}, ResultError, ""),
        ("never_fail, no files", EXPORT, {}, {"never_fail": True, "output_path": ""}, AirflowSkipException, ""),
    )
    def test_sensor_fails_without_retry_or_skips_and_stops_no_run(
        self, emulator, wait, tmp_path, deferrable, workflow, settings, arguments, error, message
    ):
        if arguments.get("output_path") == "":
            arguments = {**arguments, "output_path": str(tmp_path)}
        with pytest.raises(error, match=message or None):
            wait(started(emulator, workflow, **settings), deferrable=deferrable, **arguments)
        assert calls_of(emulator, "stop-task") == 0

    def test_deferred_sensor_skips_at_its_timeout_and_checks_its_output_path_whatever_its_mode(self, emulator, wait):
        # At the timeout of a sensor that pokes, Airflow does not look at never_fail.
        with pytest.raises(AirflowSkipException):
            wait(started(emulator), deferrable=True, never_fail=True, **STUCK)
        with pytest.raises(AirflowFailException, match=NO_CHECK):
            wait(started(emulator), deferrable=True, mode="reschedule", **UNWRITABLE)

    def test_deferred_sensor_raises_run_lost_error_with_reason_when_service_stays_down(self, emulator, wait, logs):
        task_id = started(emulator)
        emulator.fault("get-task", RequestFault.status(503), times=None)
        expected = (
            r"^The status of the run could not be read: BrowserAct failed at "
            r"get-task.*\.\nThe run may keep running\. Check the network"
        )
        with pytest.raises(RunLostError, match=expected):
            wait(task_id, deferrable=True)
        line = r"Waiting in the triggerer, which polls the run every .* seconds\. If no line follows, check that a"
        assert re.search(line, logs())

    def test_killed_sensor_does_not_stop_the_run(self, emulator):
        sensor = TaskSensor(task_id="wait", browseract_task_id=started(emulator), deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
        assert deferred.value.trigger.cancel_on_kill is False
        assert deferred.value.trigger.wait.follows is True
        sensor.on_kill()
        assert emulator.tasks[0].status == "running"

    def test_never_fail_sensor_is_rescheduled_while_its_run_is_running(self, emulator, wait):
        with pytest.raises(AirflowRescheduleException):
            wait(started(emulator), Rescheduled(None), mode="reschedule", never_fail=True)

    @pytest.mark.skipif(not AIRFLOW_V_3_3_PLUS, reason="earlier versions do not look at never_fail then")
    @pytest.mark.parametrize("error", [TaskDeferralTimeout, TaskDeferralError])
    def test_never_fail_sensor_skips_when_airflow_ends_its_deferral(self, error, monkeypatch):
        monkeypatch.setattr(BaseOperator, "resume_execution", raising(error()))
        sensor = TaskSensor(task_id="wait", browseract_task_id="7", deferrable=True, never_fail=True)
        with pytest.raises(AirflowSkipException):
            sensor.resume_execution("__fail__", {}, {"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]


class TestResumed:
    @pytest.mark.parametrize("mode", ["poke", "reschedule"])
    def test_sensor_resumed_too_early_defers_again_with_the_same_deadline(self, world, emulator, mode):
        task_id, deadline = started(emulator), world.clock.now + 3600
        with pytest.raises(TaskDeferred) as again:
            resume(world, task_id, mode=mode)
        renewed = again.value.trigger.wait
        assert (renewed.browseract_task_id, renewed.deadline) == (task_id, deadline)
        assert again.value.timeout.total_seconds() == pytest.approx(3600 + timings.TIMEOUT_BACKSTOP)

    def test_resumed_sensor_fails_without_retry_when_connection_was_made_invalid(self, world, emulator):
        task_id = started(emulator)
        world.connect(extra={"read_timeout": "soon"})
        with pytest.raises(AirflowFailException, match="extra 'read_timeout': Input should be a valid number"):
            resume(world, task_id)

    def test_resumed_sensor_defers_again_when_connection_is_unreadable(self, world, emulator, monkeypatch):
        task_id = started(emulator, duration=0.0)
        monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
        with pytest.raises(TaskDeferred):
            resume(world, task_id)

    def test_sensor_times_out_when_triggerer_could_not_poll_until_deadline(self, world, emulator):
        with pytest.raises(AirflowSensorTimeout, match="keeps running"):
            resume(world, started(emulator), within=0)


class TestRefusedApiKey:
    @BOTH_WAYS
    def test_sensor_fails_at_once_when_first_request_refuses_the_api_key(self, emulator, wait, deferrable):
        task_id = started(emulator)
        emulator.fault("get-task", REFUSED, times=None)
        with pytest.raises(AirflowFailException, match="Invalid API key"):
            wait(task_id, deferrable=deferrable)
        assert calls_of(emulator, "get-task") <= 2

    @pytest.mark.parametrize("refusals", [2, None], ids=["for a moment", "to the end"])
    def test_sensor_tolerates_api_key_refused_after_first_poll_until_its_timeout(self, emulator, wait, refusals):
        task_id = started(emulator, duration=7200.0 if refusals is None else 60.0)
        emulator.fault("get-task", REFUSED, times=refusals, skip=1)
        if refusals:
            assert wait(task_id) == ORDERS_RESULT
            return
        with pytest.raises(AirflowSensorTimeout):
            wait(task_id, timeout=30.0)
        assert emulator.tasks[0].status == "running"

    @cases(
        ("first poke", None, AirflowFailException),
        ("later poke", datetime.now(timezone.utc), AirflowRescheduleException),
    )
    def test_rescheduled_sensor_tolerates_refused_api_key_only_after_first_poke(self, emulator, wait, first, expected):
        task_id = started(emulator)
        emulator.fault("get-task", REFUSED, times=None)
        with pytest.raises(expected):
            wait(task_id, Rescheduled(first), mode="reschedule")
