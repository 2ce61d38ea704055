from __future__ import annotations

import json
import logging
import os
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from airflow.sdk import DAG, BaseOperatorLink
from airflow.sdk.execution_time.context import VariableAccessor

from airflow_provider_browseract.api.errors import ConnectionFailedError, NotTheApiError
from airflow_provider_browseract.compat import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from airflow_provider_browseract.emulator import HUMAN, LOG_IN, ORDERS, SEARCH, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators.browseract import (
    RunTemplateOperator,
    RunWorkflowOperator,
    StopTaskOperator,
)
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.outcome import (
    RunLostError,
    RunTimedOutError,
)
from airflow_provider_browseract.sensors.browseract import TaskSensor
from airflow_provider_browseract.worker import start_errors
from tests.cases import cases
from tests.demos import report_status
from tests.workers import BOTH_WAYS, ORDERS_RESULT, calls_of, refuse_xcoms

KEY = "app-emulator"


@pytest.fixture(autouse=True)
def _short_patience(connect):
    """Make calls give up soon, as a connection with a small retry budget does."""
    connect({"retry_budget": 1, "read_timeout": 10})


class TestResult:
    @BOTH_WAYS
    def test_json_output_is_returned_as_parsed_value(self, worker, emulator, deferrable):
        run = worker(workflow_id=SEARCH.id, input_parameters={"keyword": "pens", "max_items": 2}, deferrable=deferrable)
        rows = run.run()
        assert len(rows) == 2
        assert len(run.deferrals) == (1 if deferrable else 0)
        assert emulator.tasks[0].inputs == [("keyword", "pens"), ("max_items", "2")]

    def test_result_is_read_from_the_api_and_not_from_the_trigger_event(self, worker, emulator):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        event = run.wait_in_triggerer(run.defer())
        before = calls_of(emulator, "get-task")
        changed = {**event, "wait": {**event["wait"], "last_seen": "failed"}}
        assert run.operator().execute_complete(run.context, changed) == ORDERS_RESULT
        assert calls_of(emulator, "get-task") == before + 1

    def test_run_that_ends_at_once_is_not_deferred(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=0.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        assert run.run() == ORDERS_RESULT
        assert run.deferrals == []

    def test_wait_for_completion_false_returns_the_browseract_task_id_at_once(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, wait_for_completion=False)
        assert run.run() == run.ti.xcoms["task_id"] == emulator.tasks[0].id
        assert emulator.tasks[0].id in run.ti.xcoms["_link_BrowserActTaskLink"]
        assert not emulator.tasks[0].finished_at


class TestXComs:
    def test_browseract_task_id_and_link_are_pushed_before_the_wait(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        run.defer()
        assert run.ti.xcoms["task_id"] == emulator.tasks[0].id
        assert emulator.tasks[0].id in str(run.ti.xcoms["_link_BrowserActTaskLink"])

    def test_airflow_pushes_only_links_that_the_operator_does_not_push_itself(self, worker, emulator):
        class OwnLink(BaseOperatorLink):
            name = "Own"

            def get_link(self, operator, *, ti_key):
                return "https://shop.example"

        class Own(RunWorkflowOperator):
            operator_extra_links = (*RunWorkflowOperator.operator_extra_links, OwnLink())

        run = worker(workflow_id=ORDERS.id, operator_class=Own)
        operator = run.operator()
        assert [link.name for link in operator.operator_extra_links] == [
            "BrowserAct task",
            "Live view",
            "Run in the panel",
            "Own",
        ]
        with suppress(TaskDeferred):
            operator.execute(run.context)
        assert [link.name for link in operator.operator_extra_links] == ["Own"]

    def test_subclass_can_define_its_links_as_a_property(self, worker):
        class Own(RunWorkflowOperator):
            @property
            def operator_extra_links(self):  # type: ignore[override]
                return ()

        run = worker(workflow_id=ORDERS.id, operator_class=Own)
        assert run.run() is not None
        assert "task_id" in run.ti.xcoms

    def test_saved_profile_is_pushed_and_logs_in_the_next_run(self, worker, emulator):
        log_in = worker(
            workflow_id=LOG_IN.id, input_parameters={"username": "ada", "password": "x"}, save_browser_data=True
        )
        log_in.run()
        profile_id = log_in.ti.xcoms["profile_id"]
        assert isinstance(profile_id, str)
        with_profile = worker(workflow_id=ORDERS.id, profile_id=profile_id)
        assert {order["customer"] for order in with_profile.run()} == {"ada"}
        assert with_profile.ti.xcoms["profile_id"] == profile_id
        assert worker(workflow_id=ORDERS.id).run()["logged_in"] is False

    def test_run_without_a_saved_profile_pushes_an_empty_profile_id_that_fails_the_next_task(self, worker, emulator):
        run = worker(workflow_id=ORDERS.id)
        run.run()
        assert run.ti.xcoms["profile_id"] == ""
        # Airflow resolves log_in.output["profile_id"] to this. A missing XCom would raise XComNotFound, and be retried.
        with pytest.raises(
            AirflowFailException, match=r"profile_id is ''. If it comes from a task, that task saved no profile"
        ):
            worker(workflow_id=ORDERS.id, profile_id=run.ti.xcoms["profile_id"]).run()
        assert len(emulator.tasks) == 1

    def test_profile_id_that_only_get_task_returns_is_pushed(self, worker, emulator, monkeypatch):
        from airflow_provider_browseract.api.models import CreatedTask

        read = CreatedTask.read
        monkeypatch.setattr(CreatedTask, "read", lambda data: read({"id": data["id"]}))
        run = worker(workflow_id=ORDERS.id, save_browser_data=True)
        run.run()
        assert run.ti.xcoms["profile_id"] == emulator.tasks[0].profile_id


class TestDeferral:
    def test_trigger_arguments_are_plain_values_without_secrets(self, worker, emulator):
        run = worker(
            workflow_id=LOG_IN.id,
            input_parameters={"username": "ada", "password": "hunter2"},
            callback_url="http://127.0.0.1/t0ken",
            deferrable=True,
        )
        _, arguments = run.defer().trigger.serialize()
        text = json.dumps(arguments)
        assert set(arguments) == {"browseract_conn_id", "wait", "cancel_on_kill"}
        assert json.loads(text) == arguments
        assert not any(secret in text for secret in (KEY, "hunter2", "t0ken"))

    def test_first_poll_comes_after_the_grace_and_deferral_timeout_after_the_deadline(
        self, worker, emulator, browseract_emulator, monkeypatch
    ):
        # The times as they are for users. The clock of the emulator then does not wait for the first look either.
        monkeypatch.undo()
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", json.dumps(browseract_emulator.connection))
        emulator.set_workflow(ORDERS.id, duration=60.0)
        before = time.time()
        deferral = worker(workflow_id=ORDERS.id, timeout=timedelta(minutes=10), deferrable=True).defer()
        arguments = deferral.trigger.serialize()[1]["wait"]
        assert before + timings.CORE_RACE_GRACE <= arguments["first_poll_at"] <= time.time() + timings.CORE_RACE_GRACE
        assert before + 600 <= arguments["deadline"] <= time.time() + 600
        assert deferral.timeout.total_seconds() == pytest.approx(600 + timings.TIMEOUT_BACKSTOP, abs=5)

    def test_triggerer_sends_only_get_task_requests_while_it_waits(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=1.5)
        run = worker(workflow_id=ORDERS.id, deferrable=True, poll_interval=0.8)
        deferral = run.defer()
        assert [request.endpoint for request in emulator.requests] == ["get-workflow", "run-task", "get-task"]
        run.wait_in_triggerer(deferral)
        polls = emulator.requests[3:]
        assert {request.endpoint for request in polls} == {"get-task"}
        assert len(polls) <= 4

    @pytest.mark.parametrize(
        "event",
        [None, {"browseract_task_id": "7", "end": "triumph", "deadline": 1.0, "reason": None}],
        ids=["missing", "unknown end"],
    )
    def test_invalid_trigger_event_raises_and_stops_the_run(self, worker, emulator, event):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        run.defer()
        with pytest.raises(RunLostError, match="trigger's event cannot be read") as caught:
            run.operator().execute_complete(run.context, event)
        assert "The run was stopped." in str(caught.value)
        assert emulator.tasks[0].status == "canceled"

    def test_deferral_ended_by_airflow_while_the_api_is_down_gives_the_run_up(self, worker, emulator, capfd):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        run.defer()
        emulator.fault("get-task", RequestFault.status(503), times=None)
        with pytest.raises(
            RunLostError, match=r"^Stopped waiting for BrowserAct task .*, because Airflow ended the deferral: "
        ) as caught:
            run.operator().resume_execution("__fail__", {"error": "Trigger failure"}, run.context)
        assert "The run was stopped." in str(caught.value)
        assert f"BrowserAct task {emulator.tasks[0].id} cannot be read: " in "".join(capfd.readouterr())

    def test_profile_xcom_that_cannot_be_stored_keeps_the_result_and_logs_the_profile(self, worker, emulator, capfd):
        inputs = {"username": "ada", "password": "x"}
        run = worker(workflow_id=LOG_IN.id, input_parameters=inputs, save_browser_data=True)
        refuse_xcoms(run, "profile_id")
        assert run.run()["logged_in"] is True
        text = "".join(capfd.readouterr())
        assert "The XCom 'profile_id' could not be pushed" in text
        assert "(OSError: no API server)" in text
        assert f"The profile is {emulator.tasks[0].profile_id}." in text


class TestUnsuccessfulRun:
    def test_undocumented_status_raises_an_error(self, worker, emulator):
        report_status(emulator, "transcended")
        with pytest.raises(RunLostError, match="'transcended' is not a task status"):
            worker(workflow_id=ORDERS.id, deferrable=True).run()

    @BOTH_WAYS
    def test_run_is_stopped_at_the_deadline_and_the_error_reports_it(self, worker, emulator, deferrable):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        message = r"did not end within 0\.4 seconds\.\nThe run was stopped\.\nRaise timeout"
        with pytest.raises(RunTimedOutError, match=message):
            worker(workflow_id=ORDERS.id, timeout=0.4, deferrable=deferrable).run()
        assert emulator.tasks[0].status == "canceled"

    @BOTH_WAYS
    def test_run_that_stays_created_is_stopped_after_start_timeout(self, worker, emulator, deferrable):
        emulator.set_workflow(ORDERS.id, queued=60.0)
        message = r"'created' after start_timeout=0\.4 seconds\.\nThe run was stopped\.\n.*Raise start_timeout"
        # A worker polls at its interval, a trigger also at the time limit.
        interval = 30 if deferrable else 0.5
        with pytest.raises(RunTimedOutError, match=message):
            worker(workflow_id=ORDERS.id, start_timeout=0.4, poll_interval=interval, deferrable=deferrable).run()
        assert emulator.tasks[0].status == "canceled"

    def test_run_that_stays_created_keeps_running_without_cancel_on_timeout(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, queued=60.0)
        run = worker(workflow_id=ORDERS.id, start_timeout=0.2, cancel_on_timeout=False, deferrable=True)
        with pytest.raises(RunTimedOutError, match="keeps running and using credits because cancel_on_timeout=False"):
            run.run()
        assert emulator.tasks[0].status == "created"

    def test_run_that_starts_while_the_worker_is_resumed_is_waited_for(self, worker, emulator, monkeypatch):
        emulator.set_workflow(ORDERS.id, queued=1.5)
        run = worker(workflow_id=ORDERS.id, start_timeout=0.3, deferrable=True)
        deferral = run.defer()
        wait_in_triggerer = run.wait_in_triggerer

        def then_it_starts(deferred):
            event = wait_in_triggerer(deferred)
            emulator.wait_until(lambda: emulator.tasks[0].status != "created")
            return event

        monkeypatch.setattr(run, "wait_in_triggerer", then_it_starts)
        assert run.resume(deferral) == ORDERS_RESULT
        assert run.events[0]["end"] == "not_started"

    def test_run_that_cannot_be_stopped_is_reported_as_possibly_still_running(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        emulator.fault("stop-task", RequestFault.status(500), times=None)
        with pytest.raises(RunTimedOutError, match=r"could not be stopped.*may keep running and using credits"):
            worker(workflow_id=ORDERS.id, timeout=0.4, deferrable=True).run()

    def test_poll_interval_accepts_a_timedelta(self, worker, emulator):
        run = worker(workflow_id=ORDERS.id, poll_interval=timedelta(minutes=2), deferrable=True)
        deferral = run.defer()
        assert deferral.trigger.wait.interval == 120

    @BOTH_WAYS
    def test_temporary_poll_failures_do_not_fail_the_task_instance(self, worker, emulator, deferrable):
        emulator.set_workflow(ORDERS.id, duration=0.5)
        emulator.fault("get-task", RequestFault.status(503), times=4)
        assert worker(workflow_id=ORDERS.id, deferrable=deferrable).run() == ORDERS_RESULT
        assert calls_of(emulator, "get-task") > 4

    @BOTH_WAYS
    def test_api_key_that_stays_refused_ends_the_wait_and_stops_the_run(self, worker, emulator, deferrable):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        emulator.fault("get-task", RequestFault.refused(401), skip=1, times=None)
        with pytest.raises(RunLostError, match=r"its status could not be read.*code 401") as caught:
            worker(workflow_id=ORDERS.id, deferrable=deferrable).run()
        assert f"Stopped waiting for BrowserAct task {emulator.tasks[0].id}, because its" in str(caught.value)
        assert emulator.tasks[0].status == "canceled"

    def test_paused_run_is_waited_for_and_its_live_view_is_logged(self, worker, emulator, capfd):
        emulator.set_workflow(HUMAN.id, pause_at=0.5, pause_limit=0.5)
        worker(workflow_id=HUMAN.id).run()
        assert "It waits for a person: http" in "".join(capfd.readouterr())

    def test_kill_after_the_deferral_leaves_the_run_to_the_triggerer_if_airflow_does_not_respond(
        self, worker, emulator, monkeypatch, capfd
    ):
        monkeypatch.setattr(timings, "KILL_LIMIT", 0.2)
        monkeypatch.setattr(timings, "KILL_PATIENCE", 0.4)
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        operator = run.operator()
        with pytest.raises(TaskDeferred):
            operator.execute(run.context)
        operator.on_kill()
        assert emulator.tasks[0].status == "running"
        text = "".join(capfd.readouterr())
        assert "the triggerer waits for it if Airflow has accepted the deferral" in text

    def test_execution_timeout_during_the_start_fails_without_a_retry(self, worker, emulator, monkeypatch):
        from airflow_provider_browseract.api.client import BrowserActClient

        send = BrowserActClient._send_once

        def timed_out(client, call):
            if call.starts_run:
                raise AirflowTaskTimeout("Timeout")
            return send(client, call)

        monkeypatch.setattr(BrowserActClient, "_send_once", timed_out)
        message = r"(?s)execution_timeout expired during.*not known whether BrowserAct started .*stop the one"
        with pytest.raises(AirflowFailException, match=message):
            worker(workflow_id=ORDERS.id).run()

    def test_execution_timeout_before_the_start_is_raised_unchanged(self, worker, emulator, monkeypatch):
        from airflow_provider_browseract.api.client import BrowserActClient

        def timed_out(client, call):
            raise AirflowTaskTimeout("Timeout")

        monkeypatch.setattr(BrowserActClient, "_send_once", timed_out)
        with pytest.raises(AirflowTaskTimeout, match=r"^Timeout$"):
            worker(workflow_id=ORDERS.id).run()

    def test_missing_connection_at_the_deadline_raises_an_error_that_names_the_run(self, worker, emulator, monkeypatch):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, timeout=0.3, deferrable=True)
        deferral = run.defer()
        run.wait_in_triggerer(deferral)
        monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
        with pytest.raises(RunLostError, match=r"could not be stopped.*may keep running") as caught:
            run.operator().execute_complete(run.context, run.events[0])
        assert emulator.tasks[0].id in str(caught.value)


class TestInvalidInput:
    """Each ends at once, without a run and without Airflow's retries."""

    def test_private_callback_url_is_refused_unless_the_api_is_private(self, worker, emulator, monkeypatch):
        arguments = {"workflow_id": ORDERS.id, "callback_url": "http://10.0.0.1/t0ken"}
        monkeypatch.setenv("AIRFLOW_CONN_PUBLIC", '{"conn_type": "browseract", "password": "app-key"}')
        with pytest.raises(AirflowFailException, match="which BrowserAct cannot reach") as caught:
            worker(browseract_conn_id="public", **arguments).run()
        assert "t0ken" not in str(caught.value)
        assert worker(**arguments).run() == ORDERS_RESULT

    def test_host_that_responds_with_a_web_page_raises_and_starts_no_run(self, worker, emulator):
        emulator.fault("run-task", RequestFault.html(), times=None)
        # It may be a maintenance page, so Airflow's retries apply.
        with pytest.raises(NotTheApiError, match="host of the Airflow connection 'browseract_default'"):
            worker(workflow_id=ORDERS.id).run()
        assert emulator.tasks == []

    def test_unknown_start_that_cannot_be_checked_fails_without_a_second_start(self, worker, emulator):
        emulator.fault("run-task", RequestFault.lost_response(), times=1)
        emulator.fault("list-tasks", RequestFault.status(500), times=None)
        with pytest.raises(AirflowFailException, match=r"(?s)not known whether BrowserAct started a run.*stop the one"):
            worker(workflow_id=ORDERS.id).run()
        assert calls_of(emulator, "run-task") == 1


def test_interrupted_start_logs_that_a_run_may_be_running(worker, emulator, monkeypatch, capfd):
    from airflow_provider_browseract.api.client import BrowserActClient

    class Timeout(BaseException):
        """Stands for Airflow's task timeout, which a signal raises at any point."""

    send = BrowserActClient._send_once

    def interrupted(client, call):
        if call.starts_run:
            raise Timeout
        return send(client, call)

    monkeypatch.setattr(BrowserActClient, "_send_once", interrupted)
    with pytest.raises(Timeout):
        worker(workflow_id=ORDERS.id).run()
    text = "".join(capfd.readouterr())
    assert "It is not known whether BrowserAct started a run. A run may be running and using credits. Check the" in text


class TestTemplatedMaxCredits:
    def rendered(self, worker, template: str, *, native: bool = False, **variables: object):
        """Return an operator whose cap was rendered, and its context."""
        with DAG("shop", schedule=None, render_template_as_native_obj=native):
            operator = RunWorkflowOperator(
                task_id="run", workflow_id=ORDERS.id, deferrable=True, max_credits=template, poll_interval=0.05
            )
        context: Any = {**worker().context, **variables}
        operator.render_template_fields(context)
        return operator, context

    @cases(
        ("rendered", "native", "message"),
        {
            "empty": ("", False, "max_credits is ''. Use a whole number of credits"),
            "zero": ("0", False, "max_credits is '0'. Use a whole number of credits"),
            "text": ("abc", False, "max_credits is 'abc'. Use a whole number of credits"),
            "the text None": (None, False, "max_credits is 'None'. Use a whole number of credits"),
            "None": (None, True, "max_credits was given, but Airflow rendered it to None"),
            "a list": ([100], True, r"max_credits is \[100\]. Use a whole number of credits"),
        },
    )
    def test_cap_that_does_not_render_to_a_number_starts_no_run(self, worker, emulator, rendered, native, message):
        operator, context = self.rendered(worker, "{{ cap }}", native=native, cap=rendered)
        with pytest.raises(AirflowFailException, match=message):
            operator.execute(context)
        assert emulator.tasks == []

    @cases(
        ("template", "native"),
        {
            "a variable": ("{{ var.value.browseract_cap }}", False),
            "with spaces": (" {{ var.value.browseract_cap }}\n", False),
            "a number": ("{{ 200 }}", True),
        },
    )
    def test_cap_that_renders_to_a_number_applies(self, worker, emulator, monkeypatch, template, native):
        monkeypatch.setenv("AIRFLOW_VAR_BROWSERACT_CAP", "200")
        emulator.set_workflow(ORDERS.id, duration=60.0)
        operator, context = self.rendered(
            worker, template, native=native, var={"value": VariableAccessor(deserialize_json=False)}
        )
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(context)
        assert deferral.value.trigger.wait.policy.max_credits == 200

    def test_cap_from_another_task_is_accepted_when_the_dag_is_parsed(self):
        with DAG("shop", schedule=None):
            first = RunWorkflowOperator(task_id="first", workflow_id=ORDERS.id)
            RunWorkflowOperator(task_id="second", workflow_id=ORDERS.id, max_credits=first.output)


class TestChangingConnection:
    def test_api_key_rotated_before_the_connection_changes_does_not_fail_the_try(
        self, worker, emulator, connect, monkeypatch, capfd
    ):
        # The connection is changed in the pause before it is read again.
        monkeypatch.setattr(start_errors, "sleep", lambda *_: connect())
        emulator.api_key = "app-new"
        assert worker(workflow_id=ORDERS.id).run() == ORDERS_RESULT
        assert len(emulator.tasks) == 1
        assert "Trying again in 0.05 seconds, because someone may be changing the connection right now" in "".join(
            capfd.readouterr()
        )

    def test_connection_reported_as_missing_once_is_read_again(self, worker, emulator, monkeypatch):
        get_connection = BrowserActHook.get_connection
        answers = [AirflowNotFoundException("The conn_id isn't defined")]

        def now_and_then(conn_id):
            if answers:
                raise answers.pop()
            return get_connection(conn_id)

        monkeypatch.setattr(BrowserActHook, "get_connection", staticmethod(now_and_then))
        assert worker(workflow_id=ORDERS.id).run() == ORDERS_RESULT

    def test_missing_connection_keeps_the_run_of_an_earlier_try_for_the_next_try(
        self, worker, emulator, store, monkeypatch
    ):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        worker(workflow_id=ORDERS.id, store=store, wait_for_completion=False).run()
        monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
        again = worker(workflow_id=ORDERS.id, store=store)
        again.ti.max_tries = 1
        with pytest.raises(RunLostError, match=r"(?s)There is no connection.*The run keeps running, and the next try"):
            again.run()
        assert emulator.tasks[0].status == "running"

    def test_missing_connection_leaves_an_unconfirmed_start_to_the_next_try(
        self, worker, emulator, store, connect, monkeypatch
    ):
        class Crash(BaseException):
            """Stands for a SIGKILL."""

        # The last try looks for the run for as long as the start could have taken.
        connect({"retry_budget": 1, "connect_timeout": 0.5, "read_timeout": 2})
        first = worker(workflow_id=ORDERS.id, store=store).operator()
        send = first.hook.client.send

        def die(call):
            answer = send(call)
            if call.starts_run:
                raise Crash
            return answer

        monkeypatch.setattr(first.hook.client, "send", die)
        with pytest.raises(Crash):
            first.execute(worker(store=store).context)
        connection = os.environ["AIRFLOW_CONN_BROWSERACT_DEFAULT"]
        monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
        with pytest.raises(AirflowNotFoundException):
            worker(workflow_id=ORDERS.id, store=store).run()
        with pytest.raises(AirflowFailException, match="An earlier try may have started a run"):
            worker(workflow_id=ORDERS.id, profile_id="", store=store).run()
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", connection)
        assert worker(workflow_id=ORDERS.id, store=store).run() == ORDERS_RESULT
        assert len(emulator.tasks) == 1

    def test_unreadable_connection_after_the_deferral_defers_again(self, worker, emulator, monkeypatch):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        deferred = run.defer()
        event = run.wait_in_triggerer(deferred)
        with monkeypatch.context() as gone:
            gone.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
            with pytest.raises(TaskDeferred) as again:
                run.operator().execute_complete(run.context, event, **(deferred.kwargs or {}))
        assert run.resume(again.value) == ORDERS_RESULT
        assert len(emulator.tasks) == 1

    def test_api_key_that_stays_refused_fails_without_a_retry_and_starts_no_run(self, worker, emulator):
        emulator.api_key = "app-new"
        with pytest.raises(AirflowFailException, match="Put a valid API key"):
            worker(workflow_id=ORDERS.id).run()
        assert emulator.tasks == []


class TestPollOutage:
    @pytest.mark.parametrize(
        "fault",
        [RequestFault.html(403), RequestFault.gateway(404), RequestFault.redirect(), RequestFault.refused(401)],
        ids=["a firewall", "a gateway", "a redirect", "a refused key"],
    )
    def test_poll_outage_in_the_triggerer_defers_again_if_the_worker_can_read_the_run(
        self, worker, emulator, fault, capfd
    ):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        deferred = run.defer()
        with emulator.fault("get-task", fault):
            event = run.wait_in_triggerer(deferred)
        assert event["end"] == "given_up"
        with pytest.raises(TaskDeferred) as again:
            run.operator().execute_complete(run.context, event, **(deferred.kwargs or {}))
        assert again.value.trigger.wait.deadline == deferred.trigger.wait.deadline
        assert emulator.tasks[0].status == "running"
        assert "The triggerer could not poll BrowserAct task " in "".join(capfd.readouterr())

    def test_poll_outage_in_triggerer_and_worker_keeps_the_run_for_the_next_try(self, worker, emulator, store):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True, store=store)
        run.ti.max_tries = 1
        leaves = pytest.raises(RunLostError, match="The run keeps running, and the next try reattaches to it")
        with emulator.fault("get-task", RequestFault.html(403)), leaves:
            run.run()
        assert emulator.tasks[0].status == "running"

    def test_pause_during_a_poll_outage_is_logged_afterwards(self, worker, emulator, capfd):
        emulator.set_workflow(HUMAN.id, duration=0.4, pause_limit=600.0)
        run = worker(workflow_id=HUMAN.id, deferrable=True)
        deferred = run.defer()
        with emulator.fault("get-task", RequestFault.html(403)):
            event = run.wait_in_triggerer(deferred)
        emulator.wait_until(lambda: emulator.tasks[0].status == "paused")
        capfd.readouterr()
        with pytest.raises(TaskDeferred) as again:
            run.operator().execute_complete(run.context, event, **(deferred.kwargs or {}))
        task_id = emulator.tasks[0].id
        text = "".join(capfd.readouterr())
        assert f"BrowserAct task {task_id} is paused." in text
        assert f"/live/{task_id}" in text
        assert again.value.trigger.wait.last_seen == "paused"


class TestRetriableErrors:
    def test_unreachable_host_raises_a_connection_failed_error(self, worker, emulator, connect):
        connect({"retry_budget": 0.1}, host="http://127.0.0.1:9")
        with pytest.raises(ConnectionFailedError, match="Check the host"):
            worker(workflow_id=ORDERS.id).run()


class TestSecrets:
    @BOTH_WAYS
    def test_logs_contain_no_api_key_password_input_or_callback_token(
        self, worker, emulator, deferrable, caplog, capfd
    ):
        with caplog.at_level(logging.DEBUG):
            worker(
                workflow_id=LOG_IN.id,
                input_parameters={"username": "ada", "password": "hunter2"},
                callback_url="http://127.0.0.1:9/t0ken",
                deferrable=deferrable,
            ).run()
        logged = caplog.text + "".join(capfd.readouterr())
        assert "Started BrowserAct task" in logged
        assert not any(secret in logged for secret in (KEY, "hunter2", "t0ken"))


@pytest.mark.parametrize(
    ("operator", "wrong", "meant"),
    [
        (RunWorkflowOperator, "input_params", "'input_parameters'"),
        (RunWorkflowOperator, "deferable", "'deferrable'"),
        (RunWorkflowOperator, "retry", "'retries'"),
        (RunWorkflowOperator, "reattach", "'reattach' (now durable)"),
        (RunWorkflowOperator, "on_paused_timeout", "(now on_paused=AskPerson(timeout=...))"),
        (RunTemplateOperator, "on_paused_default", "(now on_paused=AskPerson(default=...))"),
        (RunTemplateOperator, "Region", "'region'"),
        (StopTaskOperator, "browseract_task_ids", "'browseract_task_id'"),
        (TaskSensor, "poke_intervall", "'poke_interval'"),
    ],
)
def test_unknown_argument_is_an_error_that_names_a_similar_argument(operator, wrong, meant):
    with pytest.raises(TypeError, match=rf"Invalid arguments were passed to {operator.__name__}") as error:
        operator(task_id="t", **{wrong: "x"}, **required(operator))
    assert meant in str(error.value).splitlines()[-1]


def required(operator):
    names = {RunWorkflowOperator: "workflow_id", RunTemplateOperator: "workflow_template_id"}
    return {names.get(operator, "browseract_task_id"): "7"}
