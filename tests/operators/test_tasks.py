"""Stopping and resuming tasks that were started anywhere."""

from __future__ import annotations

import pytest

from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import HUMAN, ORDERS, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators.browseract import ResumeTaskOperator, StopTaskOperator
from airflow_provider_browseract.runs.outcome import RunError
from tests.cases import cases
from tests.workers import calls_of

pytestmark = pytest.mark.usefixtures("short_patience")


def started(emulator, workflow=ORDERS, duration: float = 60.0) -> str:
    emulator.set_workflow(workflow.id, duration=duration)
    return BrowserActHook().run_task(workflow.id).id


def stop(task_id, **arguments):
    return StopTaskOperator(task_id="stop", browseract_task_id=task_id, **arguments).execute({})


def resume(task_id, **arguments):
    return ResumeTaskOperator(task_id="resume", browseract_task_id=task_id, **arguments).execute({})


class TestStopTask:
    def test_stop_cancels_one_browseract_task(self, emulator):
        task_id = started(emulator)
        assert stop(task_id) == {task_id: "stopped"}
        assert emulator.tasks[0].status == "canceled"

    def test_stop_of_several_browseract_tasks_stops_each_once(self, emulator):
        ids = [started(emulator), started(emulator)]
        assert stop([*ids, ids[0]]) == dict.fromkeys(ids, "stopped")
        assert calls_of(emulator, "stop-task") == 2

    @pytest.mark.parametrize("ok", [False, True], ids=["code 10121", "status 200"])
    def test_second_stop_of_the_same_browseract_task_succeeds(self, emulator, ok):
        emulator.stop_ended_is_ok = ok
        task_id = started(emulator)
        stop(task_id)
        assert stop(task_id) == {task_id: "stopped" if ok else "ended"}

    def test_stop_of_an_unknown_browseract_task_fails_but_the_others_are_stopped(self, emulator):
        task_id = started(emulator)
        with pytest.raises(AirflowFailException, match=r"^BrowserAct task 404: "):
            stop(["404", task_id])
        assert emulator.tasks[0].status == "canceled"

    def test_stop_that_fails_temporarily_raises_and_succeeds_on_a_second_call(self, emulator):
        task_id = started(emulator)
        emulator.fault("stop-task", RequestFault.status(503), times=None)
        with pytest.raises(RunError, match=f"BrowserAct task {task_id}: BrowserAct failed at stop-task"):
            stop(task_id)
        emulator.clear_faults()
        assert stop(task_id) == {task_id: "stopped"}


class TestResumeTask:
    def test_resume_lets_a_paused_browseract_task_finish(self, emulator):
        emulator.set_workflow(HUMAN.id, pause_at=0.5)
        task_id = started(emulator, HUMAN, duration=0.2)
        emulator.wait_until(lambda: emulator.tasks[0].status == "paused")
        assert resume([task_id]) == {task_id: "resumed"}
        emulator.wait_until(lambda: emulator.tasks[0].status == "finished")
        assert emulator.tasks[0].output == '{"confirmed": true}'

    def test_resume_of_a_running_browseract_task_reports_it_as_running(self, emulator):
        task_id = started(emulator)
        emulator.wait_until(lambda: emulator.tasks[0].status == "running")
        assert resume(task_id) == {task_id: "running"}

    def test_resume_of_a_pausing_browseract_task_raises_an_error(self, emulator):
        task_id = started(emulator)
        emulator.set_workflow(ORDERS.id, status="pausing")
        task_id = started(emulator)
        with pytest.raises(RunError, match="it is about to pause"):
            resume(task_id)

    def test_resume_of_a_stopped_browseract_task_fails_without_a_retry(self, emulator):
        task_id = started(emulator)
        stop(task_id)
        with pytest.raises(AirflowFailException, match="it has ended as canceled and cannot be resumed"):
            resume(task_id)

    def test_resume_of_an_unknown_browseract_task_fails_without_a_retry(self, emulator):
        with pytest.raises(AirflowFailException, match="BrowserAct task 404"):
            resume("404")


@pytest.mark.parametrize("act", [stop, resume])
@cases(
    ("given", "arguments", "message"),
    {
        "empty list": ([], {}, "browseract_task_id is an empty list"),
        "empty id": ("", {}, "browseract_task_id is ''"),
        "None in list": (["1", None], {}, "browseract_task_id is None"),
        "None as text": ("None", {}, "browseract_task_id is 'None'"),
        "missing connection": ("1", {"browseract_conn_id": "nowhere"}, "There is no connection 'nowhere'"),
    },
)
def test_invalid_stop_or_resume_argument_fails_and_sends_no_request(emulator, act, given, arguments, message):
    with pytest.raises(AirflowFailException, match=message):
        act(given, **arguments)
    assert emulator.requests == []
