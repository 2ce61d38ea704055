import json
from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_browseract.api import models
from airflow_provider_browseract.api.models import ApiVersion, DownloadFile, Output, OutputFile, Step, Task, TaskStatus
from airflow_provider_browseract.exceptions import RunCanceledError, RunFailedError, RunLostError
from airflow_provider_browseract.runs.report import check_finished, end_line, facts, log_url
from tests.helpers.cases import cases

BEGAN = datetime(2026, 11, 25, 8, tzinfo=timezone.utc)
LIVE = "https://live"
STEP = Step(number=1, status="succeed", goal="read")


def task(status: TaskStatus = TaskStatus.FINISHED, **fields) -> Task:
    times = {"created_at": BEGAN, "finished_at": BEGAN + timedelta(seconds=23.4)}
    return Task(**{"id": "7", "status": status, "workflow_id": "70", **times, **fields})


@cases(
    ("all", task(credit=10, steps=(STEP, STEP)), "Finished after 23 s, 10 credits, 2 steps."),
    ("nothing", Task(id="7", status=TaskStatus.CANCELED), "Canceled."),
    ("one step", Task(id="7", status=TaskStatus.FAILED, steps=(STEP,)), "Failed, 1 step."),
)
def test_end_of_a_run_is_reported_with_what_is_known_of_duration_credits_and_steps(run, line):
    assert end_line(run) == line


def test_run_facts_are_plain_json_without_inputs_and_outputs():
    full = task(
        credit=5,
        steps=(STEP,),
        live_url=LIVE,
        log_detail_url="https://log",
        profile_id="9",
        input_parameters="password=hunter2",
        output=Output(string="secret rows", files=("https://signed/a", "https://signed/b")),
        download_files=(
            DownloadFile(guid="g", file_name="a.pdf", file_size=3, status="uploaded", download_url="https://signed"),
        ),
    )
    assert log_url(full) == "https://log"
    assert json.loads(json.dumps(facts(full))) == {
        "task_id": "7",
        "api_version": "v2",
        "workflow_id": "70",
        "bot_id": None,
        "bot_name": None,
        "bot_type": None,
        "profile_id": "9",
        "status": "finished",
        "created_at": "2026-11-25T08:00:00+00:00",
        "finished_at": "2026-11-25T08:00:23.400000+00:00",
        "seconds": 23.4,
        "credits": 5,
        "links": {"task": "https://log", "live": None},
        "counts": {"steps": 1, "output_files": 2, "download_files": 1},
    }


def test_facts_of_a_bot_run_name_the_bot_and_count_its_formats_and_have_no_input():
    formats = (OutputFile(format="csv", name="a.csv", size=3, url="https://signed"),)
    of_bot = Task(
        id="7",
        status=TaskStatus.FINISHED,
        api_version=ApiVersion.V3,
        bot_id="82",
        bot_name="Contacts",
        bot_type=models.BotType.AGENT,
        input={"password": "hunter2"},
        output=Output(string="[1]", formats=formats, is_json=True),
    )
    found = json.loads(json.dumps(facts(of_bot)))
    named = ("api_version", "workflow_id", "bot_id", "bot_name", "bot_type", "profile_id")
    assert [found[name] for name in named] == ["v3", None, "82", "Contacts", "agent", None]
    assert found["counts"]["output_files"] == 1
    assert not any(secret in json.dumps(found) for secret in ("hunter2", "signed"))


def test_run_facts_have_the_live_view_and_no_end_while_the_run_keeps_running():
    # BrowserAct may return a time of the end before the end.
    running = task(TaskStatus.RUNNING, live_url=LIVE)
    found = facts(running)
    assert (found["links"]["live"], found["finished_at"], found["seconds"]) == (LIVE, None, None)
    assert log_url(running) == LIVE


# How a run has ended

LOG, SIGNED = "https://log.example/7", "https://shots.example/1.png?X-Amz-Signature=secret"


def failed(**fields) -> str:
    with pytest.raises(RunFailedError) as caught:
        check_finished(task(TaskStatus.FAILED, **fields))
    return str(caught.value)


def step(goal: str, status: str = "succeed", number: int = 2, **fields) -> Step:
    return Step(number=number, status=status, goal=goal, **fields)


@pytest.mark.parametrize("status", [TaskStatus.CANCELED, *(status for status in TaskStatus if not status.ended)])
def test_only_a_finished_run_has_a_result_whatever_its_output_is(status):
    fields = {"output": Output(string='{"a": 1}'), "log_detail_url": LOG}
    check_finished(task(TaskStatus.FINISHED, **fields))
    canceled = status is TaskStatus.CANCELED
    what = "The run was canceled in" if canceled else f"The run is {status}, so it has no result"
    match = f"(?s)^{what}.*\nLog: {LOG}\nBrowserAct task 7 of workflow 70.$"
    with pytest.raises(RunCanceledError if canceled else RunLostError, match=match):
        check_finished(task(status, **fields))


def test_failed_run_error_names_reason_code_step_screenshot_log_and_remedy():
    shot = "https://shots.example/2.png"
    steps = (
        step("open the page", number=1),
        step("solve the captcha", "failed", evaluation_previous_goal="the page was open", screenshots_url=shot),
        step("read the rows", "running", number=3, evaluation_previous_goal="the captcha stands"),
    )
    failure = models.Failure(code=1011, message="Captcha blocked the run")
    assert failed(failure=failure, steps=steps, log_detail_url=LOG) == (
        "Captcha blocked the run (step 2: solve the captcha).\n"
        "Let the workflow pause for a person at this point, start with a profile that is already logged in, or slow "
        "down the workflow. Fix the workflow or its inputs, and clear the Airflow task.\n"
        "Evaluation: the captcha stands\n"
        "Screenshot: https://shots.example/2.png\n"
        f"Log: {LOG}\n"
        "BrowserAct task 7 of workflow 70, code 1011."
    )


AT_2 = " (step 2: read)"
NOT_JUDGED = step("read", "failed", evaluation_previous_goal="the page was open")


@cases(
    ("no step", (), "", []),
    ("step that is not judged yet", (NOT_JUDGED,), AT_2, []),
    ("signed screenshot", (step("read", "failed", screenshots_url=SIGNED),), AT_2, []),
    ("failed step long before the end", (step("open", "failed", number=1), *[step("read")] * 100_000), AT_2, []),
)
def test_failed_run_error_names_the_step_that_failed_or_the_last_one(steps, at, lines):
    first, _, *middle, _ = failed(steps=steps).splitlines()
    assert (first, middle) == (f"The run failed, and BrowserAct gave no reason{at}.", lines)


@cases(
    ("page", models.Failure(code=10001, message="Navigation timeout"), "Check the address of the page"),
    ("captcha", models.Failure(code=1011, message="A captcha could not be solved"), "Let the workflow pause"),
    ("another message", models.Failure(code=10001, message="The site did not accept the password of ada"), None),
    ("no message", models.Failure(code=10001, message=None), None),
    ("another code", models.Failure(code=4711, message="Navigation timeout"), None),
)
def test_remedy_is_given_only_if_the_message_of_the_failure_fits_it(failure, remedy):
    assert failed(failure=failure).splitlines()[1].startswith(remedy or "Fix the workflow or its inputs")


FIX_THE_BOT = "Fix the bot or its input, and clear the Airflow task."
AFTER_A_CAPTCHA = (
    "Let the bot pause for a person at this point, give it a Standard Browser that is already logged in, or slow down "
    f"the bot. {FIX_THE_BOT}"
)


@cases(
    ("any", models.Failure(code=9, message="gone"), FIX_THE_BOT),
    ("captcha", models.Failure(code=1011, message="A captcha"), AFTER_A_CAPTCHA),
)
def test_failed_run_of_a_bot_names_the_bot_and_never_workflows_or_profiles(failure, remedy):
    # The run of a template names no bot.
    for bot_id, of in (("82", " of bot 82"), (None, "")):
        lines = failed(failure=failure, api_version=ApiVersion.V3, workflow_id=None, bot_id=bot_id).splitlines()
        assert lines == [f"{failure.message}.", remedy, f"BrowserAct task 7{of}, code {failure.code}."]
