"""When the operator stops a run, when it keeps the run running, and what it reports."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_browseract.compat import TaskDeferred
from airflow_provider_browseract.emulator import HUMAN, ORDERS, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.links import LiveViewLink
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.outcome import RunCanceledError, RunLostError, RunPausedError, RunTimedOutError
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.waiting import MAX_RESUMES, End
from airflow_provider_browseract.worker import waiter
from tests.workers import BOTH_WAYS, calls_of, is_killed_at_each_call

pytestmark = pytest.mark.usefixtures("short_patience")


class TestPausedRun:
    @pytest.fixture(autouse=True)
    def _paused_for_ever(self, emulator):
        emulator.set_workflow(HUMAN.id, duration=0.6, pause_limit=600.0)

    @BOTH_WAYS
    def test_paused_run_is_stopped_with_on_paused_fail_whatever_else_would_keep_it_running(
        self, worker, emulator, deferrable
    ):
        kept = {"cancel_on_kill": False, "cancel_on_timeout": False}
        with pytest.raises(RunPausedError, match=r"paused for a person.*\nThe run was stopped"):
            worker(workflow_id=HUMAN.id, on_paused="fail", deferrable=deferrable, **kept).run()
        assert emulator.tasks[0].status == "canceled"

    @BOTH_WAYS
    def test_paused_run_is_resumed_and_finishes_with_on_paused_resume(self, worker, emulator, deferrable, capfd):
        worker(workflow_id=HUMAN.id, on_paused="resume", deferrable=deferrable).run()
        assert emulator.tasks[0].status == "finished"
        logged = "".join(capfd.readouterr())
        assert f"Resuming BrowserAct task {emulator.tasks[0].id} (1 of at most {MAX_RESUMES} times)." in logged
        assert f"BrowserAct task {emulator.tasks[0].id} was resumed." in logged

    def test_paused_run_that_cannot_be_resumed_gets_limited_attempts_and_times_out(self, worker, emulator, capfd):
        emulator.fault("resume-task", RequestFault.refused(10127), times=None)
        with pytest.raises(RunTimedOutError):
            worker(workflow_id=HUMAN.id, on_paused="resume", timeout=2).run()
        assert calls_of(emulator, "resume-task") == MAX_RESUMES

    def test_run_resumed_elsewhere_still_finishes_with_on_paused_fail(self, worker, emulator):
        run = worker(workflow_id=HUMAN.id, on_paused="fail", deferrable=True)
        with pytest.raises(TaskDeferred) as deferral:
            run.operator().execute(run.context)
        event = run.wait_in_triggerer(deferral.value)
        assert from_json(WaitEvent, event).end is End.PAUSED
        BrowserActHook().resume_task(emulator.tasks[0].id)
        emulator.set_workflow(HUMAN.id, duration=60.0)
        try:
            run.operator().execute_complete(run.context, event)
        except TaskDeferred as again:
            run.resume(again)
        assert emulator.tasks[0].status == "finished"


class TestCancelOnTimeout:
    @BOTH_WAYS
    def test_cancel_on_timeout_false_keeps_the_run_running_at_the_deadline(self, worker, emulator, deferrable):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        with pytest.raises(
            RunTimedOutError, match=r"keeps running and using credits because cancel_on_timeout=False\. Stop it at http"
        ):
            worker(workflow_id=ORDERS.id, timeout=0.3, cancel_on_timeout=False, deferrable=deferrable).run()
        assert emulator.tasks[0].status == "running"

    def test_cancel_on_timeout_false_keeps_the_run_running_when_polls_keep_failing(self, worker, emulator):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        emulator.fault("get-task", RequestFault.status(503), times=None, skip=1)
        with pytest.raises(RunLostError, match="keeps running and using credits because cancel_on_timeout=False"):
            worker(workflow_id=ORDERS.id, cancel_on_timeout=False).run()
        assert emulator.tasks[0].status == "running"


class TestCancelOnKill:
    @pytest.mark.parametrize(("cancel_on_kill", "status"), [(True, "canceled"), (False, "running")])
    def test_cancel_on_kill_decides_whether_a_killed_worker_stops_the_run(
        self, worker, emulator, monkeypatch, cancel_on_kill, status
    ):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, cancel_on_kill=cancel_on_kill)
        operator = run.operator()
        is_killed_at_each_call(operator, monkeypatch, "get-task")
        with pytest.raises((RunCanceledError, RunLostError)):
            operator.execute(run.context)
        assert emulator.tasks[0].status == status

    @pytest.mark.parametrize("cancel_on_kill", [True, False])
    def test_trigger_of_a_deferred_task_gets_cancel_on_kill(self, worker, cancel_on_kill):
        run = worker(workflow_id=ORDERS.id, deferrable=True, cancel_on_kill=cancel_on_kill)
        with pytest.raises(TaskDeferred) as deferral:
            run.operator().execute(run.context)
        assert deferral.value.trigger.cancel_on_kill is cancel_on_kill


def test_grace_after_a_deferral_counts_from_the_last_request_to_airflow(worker, emulator, monkeypatch):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    now = [emulator.clock()]
    monkeypatch.setattr(waiter, "time", SimpleNamespace(time=lambda: now[0]))
    run = worker(workflow_id=ORDERS.id, deferrable=True, timeout=600)
    push = run.ti.xcom_push

    def push_slowly(key, value):
        push(key, value)
        now[0] += 100.0 if key == "wait" else 0.0

    run.ti.xcom_push = push_slowly
    with pytest.raises(TaskDeferred) as deferral:
        run.operator().execute(run.context)
    wait, timeout = deferral.value.trigger.wait, deferral.value.timeout
    assert wait.first_poll_at >= now[0] + timings.CORE_RACE_GRACE
    assert timeout.total_seconds() == pytest.approx(wait.deadline - now[0] + timings.TIMEOUT_BACKSTOP)


def test_stop_is_reported_although_the_live_view_cannot_be_marked_as_over(worker, emulator):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    run = worker(workflow_id=ORDERS.id, timeout=0.3)
    push = run.ti.xcom_push

    def fail_at_the_end(key, value):
        if value == LiveViewLink.OVER:
            raise OSError("no API server")
        push(key, value)

    run.ti.xcom_push = fail_at_the_end
    with pytest.raises(RunTimedOutError, match="The run was stopped"):
        run.run()


def test_failed_stop_is_reported_with_the_link_to_the_browseract_task(worker, emulator):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    emulator.fault("stop-task", RequestFault.status(500), times=None)
    run = worker(workflow_id=ORDERS.id, timeout=0.3)
    with pytest.raises(RunTimedOutError, match="could not be stopped") as failed:
        run.run()
    link = next(value for key, value in run.ti.xcoms.items() if key.startswith("_link_"))
    assert f"until you stop it at {link}." in str(failed.value)


@pytest.mark.parametrize("code", [10121, 10112], ids=["has ended", "is not known"])
def test_stop_refused_for_an_ended_or_unknown_run_is_reported_as_already_ended(worker, emulator, code):
    emulator.set_workflow(ORDERS.id, duration=60.0)
    emulator.fault("stop-task", RequestFault.refused(code), times=None)
    with pytest.raises(RunTimedOutError, match="The run had already ended"):
        worker(workflow_id=ORDERS.id, timeout=0.3).run()
