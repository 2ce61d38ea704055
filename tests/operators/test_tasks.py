import pytest

from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.emulator import AGENT_HUMAN, HUMAN, ORDERS, RequestFault
from airflow_provider_browseract.exceptions import RunError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators.browseract import ResumeTaskOperator, StopTaskOperator
from tests.helpers.cases import cases
from tests.helpers.demos import accept_stops_of_ended_runs, report_status
from tests.helpers.workers import calls_of

KINDS = {"v2": SourceKind.WORKFLOW, "v3": SourceKind.BOT}
STOP_CALLS = {"v2": "stop-task", "v3": "cancel-run"}
IN_BOTH_VERSIONS = pytest.mark.parametrize("api_version", KINDS)


@pytest.fixture
def started(emulator):
    def start(api_version="v2", workflow=ORDERS) -> str:
        task_id: str = BrowserActHook().client.send(SOURCES[KINDS[api_version]].start(workflow.id)).id
        emulator.wait_until(lambda: emulator.tasks[-1].status == "running")
        return task_id

    return start


def stop(task_id, **arguments):
    return StopTaskOperator(task_id="stop", browseract_task_id=task_id, **arguments).execute({})


def resume(task_id, **arguments):
    return ResumeTaskOperator(task_id="resume", browseract_task_id=task_id, **arguments).execute({})


@IN_BOTH_VERSIONS
def test_stop_of_several_browseract_tasks_stops_each_once(emulator, started, api_version):
    ids = [started(api_version) for _ in range(2)]
    assert stop([*ids, ids[0]]) == dict.fromkeys(ids, "stopped")
    assert calls_of(emulator, STOP_CALLS[api_version]) == 2
    assert [task.status for task in emulator.tasks] == ["canceled"] * 2


@pytest.mark.parametrize("ok", [False, True], ids=["code 10121", "status 200"])
@IN_BOTH_VERSIONS
def test_second_stop_of_the_same_browseract_task_succeeds(emulator, started, ok, api_version):
    if ok:
        accept_stops_of_ended_runs(emulator)
    task_id = started(api_version)
    assert stop(task_id) == {task_id: "stopped"}
    assert stop(task_id) == {task_id: "stopped" if ok else "ended"}


@IN_BOTH_VERSIONS
def test_stop_carried_out_without_a_response_has_stopped_the_run(emulator, started, api_version):
    task_id = started(api_version)
    emulator.fault(STOP_CALLS[api_version], RequestFault.lost_response(), times=1)
    assert stop(task_id) == {task_id: "stopped"}


@IN_BOTH_VERSIONS
def test_stop_of_an_unknown_browseract_task_fails_but_the_others_are_stopped(emulator, started, api_version):
    task_id = started(api_version)
    with pytest.raises(AirflowFailException, match=r"(?s)^BrowserAct .*\nBrowserAct task 404\.$"):
        stop(["404", task_id])
    assert emulator.tasks[0].status == "canceled"


@IN_BOTH_VERSIONS
def test_stop_that_fails_temporarily_raises_and_succeeds_on_a_second_call(emulator, started, api_version):
    task_id = started(api_version)
    call = STOP_CALLS[api_version]
    emulator.fault(call, RequestFault.status(503), times=None)
    with pytest.raises(RunError, match=f"(?s)^BrowserAct failed at {call}.*BrowserAct task {task_id}\\.$"):
        stop(task_id)
    emulator.clear_faults()
    assert stop(task_id) == {task_id: "stopped"}


@IN_BOTH_VERSIONS
def test_resume_lets_a_paused_browseract_task_finish(emulator, started, api_version):
    task_id = started(api_version, HUMAN)
    assert resume([task_id]) == {task_id: "running"}
    emulator.wait_until(lambda: emulator.tasks[0].status == "paused")
    assert resume(task_id) == {task_id: "resumed"}
    emulator.wait_until(lambda: emulator.tasks[0].status == "finished")
    assert emulator.tasks[0].output == '{"confirmed": true}'


@cases(
    ("pausing", lambda emulator, _: report_status(emulator, "pausing"), RunError, "^The run is about to pause"),
    ("stopped", lambda _, task_id: stop(task_id), AirflowFailException, "^The run has ended as canceled"),
)
def test_resume_of_a_task_that_is_not_paused_raises_an_error(emulator, started, prepare, error, message):
    task_id = started()
    prepare(emulator, task_id)
    with pytest.raises(error, match=message):
        resume(task_id)


def test_resume_of_the_run_of_an_agent_built_bot_fails_without_a_retry_and_names_the_live_view(emulator, started):
    task_id = started("v3", AGENT_HUMAN)
    emulator.wait_until(lambda: emulator.tasks[0].status == "paused")
    message = r"^BrowserAct refused resume-run: .*\nHelp the bot in the live view"
    with pytest.raises(AirflowFailException, match=message):
        resume(task_id)


@pytest.mark.parametrize("act", [stop, resume])
@cases(
    ("empty list", [], "browseract_task_id is an empty list"),
    ("Airflow's task id", "scrape_orders", r'BrowserAct task, such as search.output\["task_id"\], not a name'),
    ("None in a list", ["1", None], r"browseract_task_id\[1\] is None"),
    ("output", {"title": "x"}, r'browseract_task_id is of type dict. .*search.output\["task_id"\].$'),
    ("output in a list", [{"title": "x"}], r'browseract_task_id\[0\] is of type dict. .*output\["task_id"\].$'),
    ("output as text", '[{"title": "x"}]', r'a text with spaces, commas or brackets.*output\["task_id"\].$'),
)
def test_invalid_stop_or_resume_argument_fails_and_sends_no_request(emulator, act, given, message):
    with pytest.raises(AirflowFailException, match=message):
        act(given)
    assert emulator.requests == []
