from __future__ import annotations

import json
import logging
import os
import threading
import time
from datetime import timedelta

import pytest
from airflow.sdk import DAG

from airflow_provider_browseract.api.errors import ConnectionFailedError, NotTheApiError
from airflow_provider_browseract.compat import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from airflow_provider_browseract.emulator import (
    EXPORT,
    FAILING,
    HUMAN,
    LOG_IN,
    ORDERS,
    PLAIN_TEXT,
    SEARCH,
    UNPUBLISHED,
    RequestFault,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators import run as run_operators
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator
from airflow_provider_browseract.runs.outcome import (
    RunCanceledError,
    RunFailedError,
    RunLostError,
    RunTimedOutError,
)
from airflow_provider_browseract.runs.waiting import BACKSTOP, CORE_RACE_GRACE

KEY = "app-emulator"
BOTH_WAYS = pytest.mark.parametrize("deferrable", [False, True], ids=["in the worker", "deferred"])


@pytest.fixture(autouse=True)
def _short_patience(set_extra):
    """Let calls give up soon, as a connection with a small retry budget does."""
    set_extra(retry_budget=1, read_timeout=1)


def asked(emulator, endpoint):
    return [request for request in emulator.requests if request.endpoint == endpoint]


class TestAResult:
    @BOTH_WAYS
    def test_json_text_comes_back_parsed(self, worker, emulator, deferrable):
        run = worker(workflow_id=SEARCH.id, input_parameters={"keyword": "pens", "max_items": 2}, deferrable=deferrable)
        rows = run.run()
        assert len(rows) == 2
        assert len(run.deferrals) == (1 if deferrable else 0)
        assert emulator.tasks[0].inputs == [("keyword", "pens"), ("max_items", "2")]

    @BOTH_WAYS
    def test_other_text_comes_back_as_text(self, worker, emulator, deferrable):
        emulator.set_workflow(PLAIN_TEXT.id, output="All is well.")
        assert worker(workflow_id=PLAIN_TEXT.id, deferrable=deferrable).run() == "All is well."

    @BOTH_WAYS
    def test_files_come_alongside(self, worker, emulator, deferrable):
        inputs = {"keyword": "pens"}
        result = worker(workflow_id=EXPORT.id, input_parameters=inputs, deferrable=deferrable).run()
        assert set(result) == {"output", "files"}
        assert result["files"]

    def test_the_result_is_asked_of_the_api_and_not_taken_from_the_event(self, worker, emulator):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        run.run()
        assert set(run.events[0]) == {
            "browseract_task_id",
            "end",
            "deadline",
            "woken_by",
            "callback_token_sha256",
            "reason",
            "answer",
            "answered_by",
            "pauses",
            "last_seen",
            "steps_told",
        }

    def test_a_run_that_is_over_at_once_is_not_deferred(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=0.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        assert run.run() is not None
        assert run.deferrals == []

    def test_without_waiting_the_id_of_the_task_comes_back_at_once(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, wait_for_completion=False)
        assert run.run() == run.ti.xcoms["task_id"] == emulator.tasks[0].id
        assert emulator.tasks[0].id in run.ti.xcoms["_link_BrowserActTaskLink"]
        assert not emulator.tasks[0].finished_at


class TestWhatIsHandedOn:
    def test_task_and_link_are_there_before_the_wait(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        with pytest.raises(TaskDeferred):
            run.operator().execute(run.context)
        assert run.ti.xcoms["task_id"] == emulator.tasks[0].id
        assert emulator.tasks[0].id in str(run.ti.xcoms["_link_BrowserActTaskLink"])

    def test_a_saved_profile_is_handed_on_and_logs_the_next_run_in(self, worker, emulator):
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

    def test_without_a_saved_profile_the_xcom_is_empty_so_that_the_next_task_fails_with_a_clear_message(
        self, worker, emulator
    ):
        run = worker(workflow_id=ORDERS.id)
        run.run()
        assert run.ti.xcoms["profile_id"] == ""
        # What Airflow makes of log_in.output["profile_id"]; a missing XCom would be XComNotFound, and be retried.
        with pytest.raises(
            AirflowFailException, match=r"profile_id is ''\. The task that it comes from saved no profile"
        ):
            worker(workflow_id=ORDERS.id, profile_id=run.ti.xcoms["profile_id"]).run()
        assert len(emulator.tasks) == 1

    def test_a_profile_that_only_get_task_tells_is_handed_on(self, worker, emulator, monkeypatch):
        from airflow_provider_browseract.api.models import CreatedTask

        read = CreatedTask.read
        monkeypatch.setattr(CreatedTask, "read", lambda data: read({"id": data["id"]}))
        run = worker(workflow_id=ORDERS.id, save_browser_data=True)
        run.run()
        assert run.ti.xcoms["profile_id"] == emulator.tasks[0].profile_id


class TestTheDeferral:
    def deferred(self, run) -> TaskDeferred:
        with pytest.raises(TaskDeferred) as caught:
            run.operator().execute(run.context)
        return caught.value

    def test_the_triggers_arguments_are_plain_values_and_hold_no_secret(self, worker, emulator):
        run = worker(
            workflow_id=LOG_IN.id,
            input_parameters={"username": "ada", "password": "hunter2"},
            callback_url="http://127.0.0.1/t0ken",
            deferrable=True,
        )
        _, arguments = self.deferred(run).trigger.serialize()
        text = json.dumps(arguments)
        assert all(value is None or isinstance(value, str | int | float) for value in arguments.values())
        assert not any(secret in text for secret in (KEY, "hunter2", "t0ken"))

    def test_nothing_resumes_the_task_before_the_grace_and_airflows_timeout_stands_behind_ours(
        self, worker, emulator, browseract_emulator, monkeypatch
    ):
        monkeypatch.undo()
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", json.dumps(browseract_emulator.connection))
        before = time.time()
        deferral = self.deferred(worker(workflow_id=ORDERS.id, timeout=timedelta(minutes=10), deferrable=True))
        arguments = deferral.trigger.serialize()[1]
        assert before + CORE_RACE_GRACE <= arguments["first_poll_at"] <= time.time() + CORE_RACE_GRACE
        assert before + 600 <= arguments["deadline"] <= time.time() + 600
        assert deferral.timeout.total_seconds() == pytest.approx(600 + BACKSTOP, abs=5)

    def test_a_poll_is_one_request(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=1.5)
        run = worker(workflow_id=ORDERS.id, deferrable=True, poll_interval=0.8)
        deferral = self.deferred(run)
        assert [request.endpoint for request in emulator.requests] == ["get-workflow", "run-task", "get-task"]
        run.wait_in_triggerer(deferral)
        polls = emulator.requests[3:]
        assert {request.endpoint for request in polls} == {"get-task"}
        assert len(polls) <= 4

    def test_an_end_that_the_api_takes_back_defers_again_on_the_same_run(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=0.6)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        deferral = self.deferred(run)
        arguments = deferral.trigger.serialize()[1]
        event = {
            "browseract_task_id": arguments["browseract_task_id"],
            "end": "ended",
            "deadline": arguments["deadline"],
            "woken_by": "poll",
            "reason": None,
        }
        with pytest.raises(TaskDeferred) as again:
            run.operator().execute_complete(run.context, event)
        second = again.value.trigger.serialize()[1]
        assert second["deadline"] == arguments["deadline"]
        assert run.resume(again.value) is not None
        assert len(emulator.tasks) == 1

    def test_a_result_that_cannot_be_read_yet_is_waited_for_and_not_lost(self, worker, emulator):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        deferral = self.deferred(run)
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
        # The trigger reads the task once; the next two reads, with the retries of one second, are execute_complete's.
        emulator.fault("get-task", RequestFault.status(503), times=None, skip=1)
        event = run.wait_in_triggerer(deferral)
        with pytest.raises(TaskDeferred) as again:
            run.operator().execute_complete(run.context, event)
        emulator.clear_faults()
        assert run.resume(again.value) is not None
        assert len(emulator.tasks) == 1

    @pytest.mark.parametrize(
        "event",
        [None, "ended", {}, {"browseract_task_id": "7"}, {"browseract_task_id": "", "end": "ended", "deadline": 1.0}],
    )
    def test_an_event_that_is_not_ours_is_an_error_and_the_run_is_stopped(self, worker, emulator, event):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        self.deferred(run)
        with pytest.raises(RunLostError, match="trigger cannot be understood") as caught:
            run.operator().execute_complete(run.context, event)
        assert "The run was stopped." in str(caught.value)
        assert emulator.tasks[0].status == "canceled"

    def test_an_unknown_end_is_an_error_and_never_a_success(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        self.deferred(run)
        event = {"browseract_task_id": emulator.tasks[0].id, "end": "triumph", "deadline": 1.0, "reason": None}
        with pytest.raises(RunLostError, match="trigger cannot be understood"):
            run.operator().execute_complete(run.context, event)

    @pytest.mark.parametrize("error", ["Trigger timeout", "Trigger failure"])
    def test_a_deferral_that_airflow_ends_stops_the_run(self, worker, emulator, error):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        self.deferred(run)
        with pytest.raises(RunLostError, match="Airflow ended the deferral") as caught:
            run.operator().resume_execution("__fail__", {"error": error}, run.context)
        assert "The run was stopped." in str(caught.value)
        assert emulator.tasks[0].status == "canceled"


class TestARunThatDoesNotSucceed:
    @BOTH_WAYS
    def test_a_failed_run_says_what_happened_where_and_what_to_do(self, worker, emulator, deferrable):
        with pytest.raises(RunFailedError) as caught:
            worker(workflow_id=FAILING.id, deferrable=deferrable).run()
        task = emulator.tasks[0]
        for part in (task.id, FAILING.id, "(code 1011)", "At step ", "Log: http", "clear the Airflow task"):
            assert part in str(caught.value)

    @BOTH_WAYS
    def test_a_canceled_run_fails_the_task(self, worker, emulator, deferrable):
        emulator.set_workflow(ORDERS.id, outcome="canceled")
        with pytest.raises(RunCanceledError, match="was canceled"):
            worker(workflow_id=ORDERS.id, deferrable=deferrable).run()

    @BOTH_WAYS
    def test_a_status_that_is_not_documented_never_counts_as_success(self, worker, emulator, deferrable):
        emulator.set_workflow(ORDERS.id, status="transcended")
        with pytest.raises(RunLostError, match="'transcended' is not a task status"):
            worker(workflow_id=ORDERS.id, deferrable=deferrable).run()

    @BOTH_WAYS
    def test_at_the_deadline_the_run_is_stopped_and_the_error_says_so(self, worker, emulator, deferrable):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        with pytest.raises(
            RunTimedOutError,
            match=r"did not end within 0\.4 seconds\.\nThe run was stopped\.\nRaise timeout",
        ):
            worker(workflow_id=ORDERS.id, timeout=0.4, deferrable=deferrable).run()
        assert emulator.tasks[0].status == "canceled"

    @BOTH_WAYS
    def test_a_run_that_cannot_be_stopped_is_said_to_go_on(self, worker, emulator, deferrable):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        emulator.fault("stop-task", RequestFault.status(500), times=None)
        with pytest.raises(RunTimedOutError, match=r"could not be stopped.*may keep running and using credits"):
            worker(workflow_id=ORDERS.id, timeout=0.4, deferrable=deferrable).run()

    @BOTH_WAYS
    def test_the_poll_interval_may_be_a_timedelta(self, worker, emulator, deferrable):
        interval = timedelta(seconds=0.05)
        assert worker(workflow_id=ORDERS.id, poll_interval=interval, deferrable=deferrable).run() is not None

    @BOTH_WAYS
    def test_a_few_failed_polls_do_no_harm(self, worker, emulator, deferrable):
        emulator.set_workflow(ORDERS.id, duration=0.5)
        emulator.fault("get-task", RequestFault.status(503), times=4)
        assert worker(workflow_id=ORDERS.id, deferrable=deferrable).run() is not None

    @BOTH_WAYS
    def test_a_key_that_stays_refused_ends_the_wait(self, worker, emulator, deferrable):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        emulator.fault("get-task", RequestFault.refused(401), skip=1, times=None)
        with pytest.raises(RunLostError, match=r"its status could not be learned.*code 401"):
            worker(workflow_id=ORDERS.id, deferrable=deferrable).run()

    @BOTH_WAYS
    def test_a_paused_run_is_waited_for_and_its_live_view_logged(self, worker, emulator, deferrable, capfd):
        emulator.set_workflow(HUMAN.id, pause_at=0.5, pause_limit=0.5)
        worker(workflow_id=HUMAN.id, deferrable=deferrable).run()
        assert "It waits for a person: http" in "".join(capfd.readouterr())

    def test_an_error_of_airflow_after_the_start_stops_the_run_and_names_it(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id)

        def broken(key, value):
            raise OSError("no API server")

        run.ti.xcom_push = broken
        with pytest.raises(RunLostError, match="no API server") as caught:
            run.run()
        assert emulator.tasks[0].id in str(caught.value)
        assert emulator.tasks[0].status == "canceled"

    def test_a_kill_stops_the_run(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        operator = run.operator()
        with pytest.raises(TaskDeferred):
            operator.execute(run.context)
        operator.on_kill()
        assert emulator.tasks[0].status == "canceled"

    def test_a_kill_during_the_start_stops_the_run_as_soon_as_it_is_known(self, worker, emulator, monkeypatch):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        operator = worker(workflow_id=ORDERS.id).operator()
        send = operator.hook.client.send

        def killed_meanwhile(call):
            if call.starts_run:
                operator.on_kill()
            return send(call)

        monkeypatch.setattr(operator.hook.client, "send", killed_meanwhile)
        with pytest.raises(RunCanceledError, match=r"Killed while.*\nThe run was stopped"):
            operator.execute(worker(workflow_id=ORDERS.id).context)
        assert emulator.tasks[0].status == "canceled"

    def test_an_execution_timeout_during_the_start_is_not_tried_again(self, worker, emulator, monkeypatch):
        from airflow_provider_browseract.api.client import BrowserActClient

        send = BrowserActClient._send_once

        def timed_out(client, call):
            if call.starts_run:
                raise AirflowTaskTimeout("Timeout")
            return send(client, call)

        monkeypatch.setattr(BrowserActClient, "_send_once", timed_out)
        with pytest.raises(AirflowFailException, match=r"(?s)execution_timeout ended the start.*stop the one"):
            worker(workflow_id=ORDERS.id).run()

    def test_an_execution_timeout_before_the_start_is_nothing_but_that(self, worker, emulator, monkeypatch):
        from airflow_provider_browseract.api.client import BrowserActClient

        def timed_out(client, call):
            raise AirflowTaskTimeout("Timeout")

        monkeypatch.setattr(BrowserActClient, "_send_once", timed_out)
        with pytest.raises(AirflowTaskTimeout, match=r"^Timeout$"):
            worker(workflow_id=ORDERS.id).run()

    def test_ctrl_c_stops_the_run(self, worker, emulator, monkeypatch):
        emulator.set_workflow(ORDERS.id, duration=60.0)

        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr("airflow_provider_browseract.operators.waiting.wait_for_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            worker(workflow_id=ORDERS.id).run()
        assert emulator.tasks[0].status == "canceled"

    def test_a_run_that_the_triggerer_could_not_follow_is_followed_here(self, worker, emulator, monkeypatch):
        emulator.set_workflow(ORDERS.id, duration=0.6)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        with pytest.raises(TaskDeferred) as deferral:
            run.operator().execute(run.context)
        monkeypatch.setattr(
            "airflow_provider_browseract.hooks.browseract.BrowserActHook.aget_connection",
            lambda *args: (_ for _ in ()).throw(OSError("no secrets here")),
        )
        assert run.resume(deferral.value) is not None
        assert run.events[0]["end"] == "given_up"

    def test_a_connection_that_is_gone_at_the_end_leaves_an_error_that_names_the_run(
        self, worker, emulator, monkeypatch
    ):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, timeout=0.3, deferrable=True)
        with pytest.raises(TaskDeferred) as deferral:
            run.operator().execute(run.context)
        run.wait_in_triggerer(deferral.value)
        monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
        with pytest.raises(RunLostError, match=r"could not be stopped.*may keep running") as caught:
            run.operator().execute_complete(run.context, run.events[0])
        assert emulator.tasks[0].id in str(caught.value)

    def test_a_link_that_cannot_be_kept_does_not_cost_the_result(self, worker, emulator):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        with pytest.raises(TaskDeferred) as deferral:
            run.operator().execute(run.context)

        def broken(key, value):
            raise OSError("no API server")

        run.ti.xcom_push = broken
        assert run.resume(deferral.value) is not None

    def test_a_kill_before_the_start_does_nothing(self, worker, emulator):
        worker(workflow_id=ORDERS.id).operator().on_kill()
        assert asked(emulator, "stop-task") == []


class TestBadInput:
    """Each ends at once, without a run and without Airflow's retries."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"workflow_id": ""}, "workflow_id is ''"),
            ({"workflow_id": None}, "workflow_id is None"),
            ({"workflow_id": "123"}, "Check workflow_id"),
            ({"workflow_id": UNPUBLISHED.id}, "Publish the workflow"),
            ({"input_parameters": "keyword=pens"}, "input_parameters is of type str"),
            ({"input_parameters": [{"name": "keyword"}]}, r"input_parameters\[0\] is not a pair"),
            (
                {"input_parameters": [{"name": "keyword", "value": "a"}, {"name": "keyword", "value": "b"}]},
                "'keyword' twice",
            ),
            ({"input_parameters": {"keyword": object()}}, "cannot be written as JSON"),
            ({"input_parameters": {}}, "input_parameters lacks 'keyword', which has to be given"),
            ({"input_parameters": {}, "validate_inputs": False}, "Add the missing name to input_parameters"),
            ({"callback_url": "https://example.com/".ljust(2049, "x")}, "callback_url has 2049 characters"),
            ({"status_change_callback_url": "ftp://example.com"}, "status_change_callback_url is not an http"),
            ({"profile_id": ""}, "profile_id is ''"),
            ({"profile_id": "None"}, "save_browser_data=True"),
            ({"profile_id": "404"}, "refused run-task"),
            ({"profile_id": [1]}, r"profile_id is \[1\]"),
            ({"input_parameters": {"keyword": None}}, r"input_parameters\['keyword'\] is None"),
            ({"browseract_conn_id": "nowhere"}, "(?s)There is no connection 'nowhere'.*AIRFLOW_CONN_NOWHERE"),
        ],
    )
    def test_arguments(self, worker, emulator, arguments, message):
        complete = {"workflow_id": SEARCH.id, "input_parameters": {"keyword": "pens"}, **arguments}
        with pytest.raises(AirflowFailException, match=message):
            worker(**complete).run()
        assert emulator.tasks == []

    def test_a_private_callback_address_is_refused_unless_the_api_is_private(self, worker, emulator, monkeypatch):
        arguments = {"workflow_id": ORDERS.id, "callback_url": "http://10.0.0.1/t0ken"}
        monkeypatch.setenv("AIRFLOW_CONN_PUBLIC", '{"conn_type": "browseract", "password": "app-key"}')
        with pytest.raises(AirflowFailException, match="which BrowserAct cannot reach") as caught:
            worker(browseract_conn_id="public", **arguments).run()
        assert "t0ken" not in str(caught.value)
        assert worker(**arguments).run() is not None

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"password": ""}, "has no API key"),
            ({"password": "app-wrong"}, r"API key \(password\) field of the Airflow connection 'browseract_default'"),
            ({"host": "gopher://x"}, "the host is not an http or https address"),
            ({"extra": {"read_timeout": "soon"}}, "extra 'read_timeout' is 'soon'"),
        ],
    )
    def test_connections(self, worker, emulator, browseract_emulator, monkeypatch, change, message):
        connection = {**browseract_emulator.connection, **change}
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", json.dumps(connection))
        with pytest.raises(AirflowFailException, match=message) as caught:
            worker(workflow_id=ORDERS.id).run()
        assert "app-wrong" not in str(caught.value)
        assert emulator.tasks == []

    def test_a_host_that_answers_with_a_web_page(self, worker, emulator):
        emulator.fault("run-task", RequestFault.html(), times=None)
        # It may be a maintenance page, so Airflow's retries apply.
        with pytest.raises(NotTheApiError, match="host of the Airflow connection 'browseract_default'"):
            worker(workflow_id=ORDERS.id).run()
        assert emulator.tasks == []

    def test_a_run_whose_start_is_not_known_and_cannot_be_looked_up_is_not_tried_again(self, worker, emulator):
        emulator.fault("run-task", RequestFault.lost_answer(), times=1)
        emulator.fault("list-tasks", RequestFault.status(500), times=None)
        with pytest.raises(AirflowFailException, match=r"(?s)not known whether BrowserAct started a run.*stop the one"):
            worker(workflow_id=ORDERS.id).run()
        assert len(asked(emulator, "run-task")) == 1


def test_an_interruption_of_the_start_is_said_with_what_it_may_mean(worker, emulator, monkeypatch, capfd):
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
    said = "".join(capfd.readouterr())
    assert "It is not known whether a run was started. A run may be running and using credits. Look at the" in said


@pytest.mark.parametrize("arguments", [{"on_paused": "asks"}, {"timeout": "7h"}, {"save_browser_data": "no"}])
def test_a_wrong_constant_of_a_mapped_task_fails_without_retries(worker, emulator, arguments):
    # Airflow makes the operator in the worker, so there is no import error.
    with DAG("mapped", schedule=None):
        mapped = RunWorkflowOperator.partial(task_id="run", **arguments).expand(workflow_id=[ORDERS.id])
    operator = mapped.unmap({"workflow_id": ORDERS.id})
    with pytest.raises(AirflowFailException, match=f"{next(iter(arguments))} is '"):
        operator.execute(worker().context)
    assert emulator.tasks == []


class TestAConnectionThatChanges:
    def test_whose_key_is_rotated_in_browseract_first_costs_no_try(
        self, worker, emulator, set_extra, monkeypatch, capfd
    ):
        monkeypatch.setattr(run_operators, "RECHECK_AFTER", (0.5,))
        emulator.rotate_key("app-new")
        changing = threading.Timer(0.2, set_extra)
        changing.start()
        assert worker(workflow_id=ORDERS.id).run() is not None
        changing.join()
        assert len(emulator.tasks) == 1
        assert "Trying again in 0.5 seconds, in case the connection is just being changed" in "".join(
            capfd.readouterr()
        )

    def test_is_asked_for_again_since_airflow_takes_one_that_it_cannot_read_for_a_missing_one(
        self, worker, emulator, monkeypatch
    ):
        get_connection = BrowserActHook.get_connection
        answers = [AirflowNotFoundException("The conn_id isn't defined")]

        def now_and_then(conn_id):
            if answers:
                raise answers.pop()
            return get_connection(conn_id)

        monkeypatch.setattr(BrowserActHook, "get_connection", staticmethod(now_and_then))
        assert worker(workflow_id=ORDERS.id).run() is not None

    def test_that_stays_missing_leaves_the_run_of_an_earlier_try_to_the_next_one(
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

    def test_that_stays_missing_leaves_a_start_that_may_have_made_a_run_to_the_next_try(
        self, worker, emulator, store, monkeypatch
    ):
        class Crash(BaseException):
            """Stands for a SIGKILL."""

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
        assert worker(workflow_id=ORDERS.id, store=store).run() is not None
        assert len(emulator.tasks) == 1

    def test_that_cannot_be_read_after_the_deferral_defers_again(self, worker, emulator, monkeypatch):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            run.operator().execute(run.context)
        event = run.wait_in_triggerer(deferred.value)
        with monkeypatch.context() as gone:
            gone.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
            with pytest.raises(TaskDeferred) as again:
                run.operator().execute_complete(run.context, event, **(deferred.value.kwargs or {}))
        assert run.resume(again.value) is not None
        assert len(emulator.tasks) == 1

    def test_to_a_key_that_stays_refused_is_final_after_a_few_looks(self, worker, emulator):
        emulator.rotate_key("app-new")
        with pytest.raises(AirflowFailException, match="Put a valid API key"):
            worker(workflow_id=ORDERS.id).run()
        assert emulator.tasks == []


class TestAPollThatFailsForLong:
    @pytest.mark.parametrize(
        "fault",
        [RequestFault.html(403), RequestFault.gateway(404), RequestFault.redirect(), RequestFault.refused(401)],
        ids=["a firewall", "a gateway", "a redirect", "a refused key"],
    )
    def test_defers_again_once_a_worker_can_read_the_run(self, worker, emulator, fault, capfd):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            run.operator().execute(run.context)
        with emulator.outage("get-task", fault):
            event = run.wait_in_triggerer(deferred.value)
        assert event["end"] == "given_up"
        with pytest.raises(TaskDeferred) as again:
            run.operator().execute_complete(run.context, event, **(deferred.value.kwargs or {}))
        assert again.value.trigger.deadline == deferred.value.trigger.deadline
        assert emulator.tasks[0].status == "running"
        assert "The triggerer could not poll the run (" in "".join(capfd.readouterr())

    def test_leaves_the_run_to_the_next_try_if_a_worker_cannot_read_it_either(self, worker, emulator, store):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True, store=store)
        run.ti.max_tries = 1
        leaves = pytest.raises(RunLostError, match="The run keeps running, and the next try reattaches to it")
        with emulator.outage("get-task", RequestFault.html(403)), leaves:
            run.run()
        assert emulator.tasks[0].status == "running"

    def test_logs_what_happened_in_the_meantime(self, worker, emulator, capfd):
        emulator.set_workflow(HUMAN.id, duration=0.4, pause_limit=600.0)
        run = worker(workflow_id=HUMAN.id, deferrable=True)
        with pytest.raises(TaskDeferred) as deferred:
            run.operator().execute(run.context)
        with emulator.outage("get-task", RequestFault.html(403)):
            event = run.wait_in_triggerer(deferred.value)
        emulator.wait_until(lambda: emulator.tasks[0].status == "paused")
        capfd.readouterr()
        with pytest.raises(TaskDeferred) as again:
            run.operator().execute_complete(run.context, event, **(deferred.value.kwargs or {}))
        task_id = emulator.tasks[0].id
        said = "".join(capfd.readouterr())
        assert f"BrowserAct task {task_id} is paused." in said
        assert f"/live/{task_id}" in said
        assert again.value.trigger.last_seen == "paused"


class TestWhatARetryCanMend:
    def test_no_connection_is_an_ordinary_error(self, worker, emulator, monkeypatch):
        connection = {
            "conn_type": "browseract",
            "host": "http://127.0.0.1:9",
            "password": KEY,
            "extra": {"retry_budget": 0.1},
        }
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", json.dumps(connection))
        with pytest.raises(ConnectionFailedError, match="Check the host"):
            worker(workflow_id=ORDERS.id).run()

    def test_a_start_that_was_surely_not_carried_out_is_sent_again(self, worker, emulator):
        emulator.fault("run-task", RequestFault.status(429, retry_after=0.1), times=1)
        assert worker(workflow_id=ORDERS.id).run() is not None
        assert len(emulator.tasks) == 1


class TestSecrets:
    @BOTH_WAYS
    def test_neither_key_nor_inputs_nor_callback_token_is_in_any_log(self, worker, emulator, deferrable, caplog, capfd):
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


def test_everything_that_comes_from_a_template_is_a_template_field():
    assert set(RunWorkflowOperator.template_fields) == {
        "workflow_id",
        "input_parameters",
        "profile_id",
        "callback_url",
        "status_change_callback_url",
        "output_path",
        "browseract_conn_id",
    }
