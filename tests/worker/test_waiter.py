"""When the operator stops a run, when it keeps the run running, and what it reports."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_browseract.compat import TaskDeferred
from airflow_provider_browseract.emulator import HUMAN, ORDERS, RequestFault
from airflow_provider_browseract.exceptions import RunTimedOutError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.links import LiveViewLink
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import MAX_RESUMES
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.waiting import End
from airflow_provider_browseract.worker import waiter
from tests.workers import BOTH_WAYS, calls_of
from tests.world import browseract_emulator, emulator, worker, world

__all__ = ["browseract_emulator", "emulator", "worker", "world"]

pytestmark = pytest.mark.usefixtures("short_patience")


class TestPausedRun:
    @pytest.fixture(autouse=True)
    def _paused_for_ever(self, emulator):
        emulator.set_workflow(HUMAN.id, pause_limit=36_000.0)

    @BOTH_WAYS
    def test_paused_run_is_resumed_and_finishes_with_on_paused_resume(self, worker, emulator, deferrable, capfd):
        worker(workflow_id=HUMAN.id, on_paused="resume", deferrable=deferrable).run()
        assert emulator.tasks[0].status == "finished"
        logged = "".join(capfd.readouterr())
        assert f"Resuming BrowserAct task {emulator.tasks[0].id} (1 of at most {MAX_RESUMES} times)." in logged
        assert f"BrowserAct task {emulator.tasks[0].id} was resumed." in logged

    def test_paused_run_that_cannot_be_resumed_gets_limited_attempts_and_times_out(self, worker, emulator):
        emulator.fault("resume-task", RequestFault.refused(10127))
        with pytest.raises(RunTimedOutError):
            worker(workflow_id=HUMAN.id, on_paused="resume", timeout=600).run()
        assert calls_of(emulator, "resume-task") == MAX_RESUMES

    def test_run_resumed_elsewhere_still_finishes_with_on_paused_fail(self, worker, emulator):
        run = worker(workflow_id=HUMAN.id, on_paused="fail", deferrable=True)
        deferral = run.defer()
        event = run.wait_in_triggerer(deferral)
        assert from_json(WaitEvent, event).end is End.PAUSED
        BrowserActHook().resume_task(emulator.tasks[0].id)
        emulator.set_workflow(HUMAN.id, duration=60.0)
        try:
            run.operator().execute_complete(run.context, event)
        except TaskDeferred as again:
            run.resume(again)
        assert emulator.tasks[0].status == "finished"


class TestCancelOnKill:
    @pytest.mark.parametrize("cancel_on_kill", [True, False])
    def test_trigger_of_a_deferred_task_gets_cancel_on_kill(self, worker, cancel_on_kill):
        run = worker(workflow_id=ORDERS.id, deferrable=True, cancel_on_kill=cancel_on_kill)
        deferral = run.defer()
        assert deferral.trigger.cancel_on_kill is cancel_on_kill


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
    deferral = run.defer()
    wait, timeout = deferral.trigger.wait, deferral.timeout
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
