"""Stopping and resuming tasks that were started anywhere."""

from __future__ import annotations

import pytest

from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import AGENT_HUMAN, HUMAN, ORDERS, RequestFault
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators.browseract import ResumeTaskOperator, StopTaskOperator
from airflow_provider_browseract.runs.outcome import RunError
from tests.cases import cases
from tests.demos import accept_stops_of_ended_runs, report_status
from tests.workers import calls_of

pytestmark = pytest.mark.usefixtures("short_patience")

KINDS = {"v2": SourceKind.WORKFLOW, "v3": SourceKind.BOT}
STOP_CALLS = {"v2": "stop-task", "v3": "cancel-run"}
IN_BOTH_VERSIONS = pytest.mark.parametrize("api_version", KINDS)


def started(emulator, workflow=ORDERS, duration: float = 60.0, api_version: str = "v2") -> str:
    emulator.set_workflow(workflow.id, duration=duration)
    task_id: str = BrowserActHook().client.send(SOURCES[KINDS[api_version]].start(workflow.id)).id
    emulator.clock.release()
    return task_id


def stop(task_id, **arguments):
    return StopTaskOperator(task_id="stop", browseract_task_id=task_id, **arguments).execute({})


def resume(task_id, **arguments):
    return ResumeTaskOperator(task_id="resume", browseract_task_id=task_id, **arguments).execute({})


class TestStopTask:
    @IN_BOTH_VERSIONS
    def test_stop_cancels_one_browseract_task(self, emulator, api_version):
        task_id = started(emulator, api_version=api_version)
        assert stop(task_id, api_version=api_version) == {task_id: "stopped"}
        assert emulator.tasks[0].status == "canceled"

    @IN_BOTH_VERSIONS
    def test_stop_of_several_browseract_tasks_stops_each_once(self, emulator, api_version):
        ids = [started(emulator, api_version=api_version) for _ in range(2)]
        assert stop([*ids, ids[0]], api_version=api_version) == dict.fromkeys(ids, "stopped")
        assert calls_of(emulator, STOP_CALLS[api_version]) == 2

    @pytest.mark.parametrize("ok", [False, True], ids=["code 10121", "status 200"])
    @IN_BOTH_VERSIONS
    def test_second_stop_of_the_same_browseract_task_succeeds(self, emulator, ok, api_version):
        if ok:
            accept_stops_of_ended_runs(emulator)
        task_id = started(emulator, api_version=api_version)
        stop(task_id, api_version=api_version)
        assert stop(task_id, api_version=api_version) == {task_id: "stopped" if ok else "ended"}

    @IN_BOTH_VERSIONS
    def test_stop_of_an_unknown_browseract_task_fails_but_the_others_are_stopped(self, emulator, api_version):
        task_id = started(emulator, api_version=api_version)
        with pytest.raises(AirflowFailException, match=r"^BrowserAct task 404: "):
            stop(["404", task_id], api_version=api_version)
        assert emulator.tasks[0].status == "canceled"

    @IN_BOTH_VERSIONS
    def test_stop_that_fails_temporarily_raises_and_succeeds_on_a_second_call(self, emulator, api_version):
        task_id = started(emulator, api_version=api_version)
        call = STOP_CALLS[api_version]
        emulator.fault(call, RequestFault.status(503), times=None)
        with pytest.raises(RunError, match=f"BrowserAct task {task_id}: BrowserAct failed at {call}"):
            stop(task_id, api_version=api_version)
        emulator.clear_faults()
        assert stop(task_id, api_version=api_version) == {task_id: "stopped"}


class TestResumeTask:
    @IN_BOTH_VERSIONS
    def test_resume_lets_a_paused_browseract_task_finish(self, emulator, api_version):
        emulator.set_workflow(HUMAN.id, pause_at=0.5)
        task_id = started(emulator, HUMAN, duration=0.2, api_version=api_version)
        emulator.wait_until(lambda: emulator.tasks[0].status == "paused")
        assert resume([task_id], api_version=api_version) == {task_id: "resumed"}
        emulator.wait_until(lambda: emulator.tasks[0].status == "finished")
        assert emulator.tasks[0].output == '{"confirmed": true}'

    @IN_BOTH_VERSIONS
    def test_resume_of_a_running_browseract_task_reports_it_as_running(self, emulator, api_version):
        task_id = started(emulator, api_version=api_version)
        emulator.wait_until(lambda: emulator.tasks[0].status == "running")
        assert resume(task_id, api_version=api_version) == {task_id: "running"}

    def test_resume_of_a_pausing_browseract_task_raises_an_error(self, emulator):
        task_id = started(emulator)
        report_status(emulator, "pausing")
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

    def test_resume_of_the_run_of_an_agent_built_bot_fails_without_a_retry_and_names_the_live_view(self, emulator):
        task_id = started(emulator, AGENT_HUMAN, duration=0.2, api_version="v3")
        emulator.wait_until(lambda: emulator.tasks[0].status == "paused")
        message = rf"^BrowserAct task {task_id}: BrowserAct refused resume-run: .*\nHelp the bot in the live view"
        with pytest.raises(AirflowFailException, match=message):
            resume(task_id, api_version="v3")


@pytest.mark.parametrize("act", [stop, resume])
@pytest.mark.parametrize(
    ("right", "wrong", "remedy"),
    [
        ("v3", "v2", r"If it is the run of a bot, set api_version='v3'\."),
        ("v2", "v3", r"If it is the run of a workflow, set api_version='v2'\."),
    ],
)
def test_task_of_the_other_version_of_the_api_is_not_found_and_the_error_names_that_version(
    emulator, act, right, wrong, remedy
):
    task_id = started(emulator, api_version=right)
    with pytest.raises(AirflowFailException, match=remedy):
        act(task_id, api_version=wrong)
    assert emulator.tasks[0].status != "canceled"


@pytest.mark.parametrize("operator", [StopTaskOperator, ResumeTaskOperator])
class TestApiVersion:
    MESSAGE = "api_version is 'v4'. Use one of 'v2', 'v3'."

    def test_wrong_version_is_an_error_when_the_dag_is_parsed(self, operator):
        with pytest.raises(InputError, match=self.MESSAGE):
            operator(task_id="act", browseract_task_id="1", api_version="v4")

    def test_wrong_version_of_a_mapped_task_fails_it_without_a_request(self, emulator, operator):
        mapped = operator(task_id="act", browseract_task_id="1", api_version="v4", _airflow_from_mapped=True)
        with pytest.raises(AirflowFailException, match=self.MESSAGE):
            mapped.execute({})
        assert emulator.requests == []


@pytest.mark.parametrize("act", [stop, resume])
@cases(
    ("given", "arguments", "message"),
    {
        "empty list": ([], {}, "browseract_task_id is an empty list"),
        "empty id": ("", {}, "browseract_task_id is ''"),
        "None in list": (["1", None], {}, r"browseract_task_id\[1\] is None"),
        "None as text": ("None", {}, "browseract_task_id is 'None'"),
        "output": ({"title": "x"}, {}, r'browseract_task_id is of type dict. .*search.output\["task_id"\].$'),
        "output in a list": (
            [{"title": "x"}],
            {},
            r'browseract_task_id\[0\] is of type dict. .*search.output\["task_id"\].$',
        ),
        "output as text": ('[{"title": "x"}]', {}, r'a text with spaces, commas or brackets.*output\["task_id"\].$'),
        "missing connection": ("1", {"browseract_conn_id": "nowhere"}, "There is no connection 'nowhere'"),
    },
)
def test_invalid_stop_or_resume_argument_fails_and_sends_no_request(emulator, act, given, arguments, message):
    with pytest.raises(AirflowFailException, match=message):
        act(given, **arguments)
    assert emulator.requests == []
