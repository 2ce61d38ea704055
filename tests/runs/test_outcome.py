from __future__ import annotations

import pytest

from airflow_provider_browseract.api.models import ApiVersion, Failure, Output, Step, Task, TaskStatus
from airflow_provider_browseract.exceptions import RunCanceledError, RunFailedError, RunLostError
from airflow_provider_browseract.runs.report import check_finished
from tests.cases import cases

LOG, SIGNED = "https://log.example/7", "https://shots.example/1.png?X-Amz-Signature=secret"


def task(status: TaskStatus = TaskStatus.FAILED, **fields) -> Task:
    return Task(**{"id": "7", "status": status, "workflow_id": "70", **fields})


def failed(**fields) -> str:
    with pytest.raises(RunFailedError) as caught:
        check_finished(task(**fields))
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
    failure = Failure(code=1011, message="Captcha blocked the run")
    assert failed(failure=failure, steps=steps, log_detail_url=LOG) == (
        "Captcha blocked the run (step 2: solve the captcha).\n"
        "Let the workflow pause for a person at this point, start with a profile that is already logged in, or slow "
        "down the workflow. Fix the workflow or its inputs, and clear the Airflow task.\n"
        "Evaluation: the captcha stands\n"
        "Screenshot: https://shots.example/2.png\n"
        f"Log: {LOG}\n"
        "BrowserAct task 7 of workflow 70, code 1011."
    )


@cases(
    ("steps", "at", "lines"),
    {
        "no step": ((), "", []),
        "no step failed": ((step("open the page", number=1), step("read")), " (step 2: read)", []),
        "step that is not judged yet": (
            (step("read", "failed", evaluation_previous_goal="the page was open"),),
            " (step 2: read)",
            ["Evaluation of the previous step: the page was open"],
        ),
        "signed screenshot": ((step("read", "failed", screenshots_url=SIGNED),), " (step 2: read)", []),
        "failed step long before the end": (
            (step("open", "failed", number=1), *[step("read")] * 100_000),
            " (step 2: read)",
            [],
        ),
    },
)
def test_failed_run_error_names_the_step_that_failed_or_the_last_one(steps, at, lines):
    first, _, *middle, _ = failed(steps=steps).splitlines()
    assert (first, middle) == (f"The run failed, and BrowserAct gave no reason{at}.", lines)


@cases(
    ("failure", "remedy"),
    {
        "page": (Failure(code=10001, message="Navigation timeout"), "Check the address of the page"),
        "captcha": (Failure(code=1011, message="A captcha could not be solved"), "Let the workflow pause"),
        "another message": (Failure(code=10001, message="The site did not accept the password of ada"), None),
        "no message": (Failure(code=10001, message=None), None),
        "message of another code": (Failure(code=1011, message="The account is blocked"), None),
        "another code": (Failure(code=4711, message="Navigation timeout"), None),
    },
)
def test_remedy_is_given_only_if_the_message_of_the_failure_fits_it(failure, remedy):
    assert failed(failure=failure).splitlines()[1].startswith(remedy or "Fix the workflow or its inputs")


FIX_THE_BOT = "Fix the bot or its input, and clear the Airflow task."
AFTER_A_CAPTCHA = (
    "Let the bot pause for a person at this point, give it a Standard Browser that is already logged in, or slow down "
    f"the bot. {FIX_THE_BOT}"
)


@pytest.mark.parametrize(
    ("failure", "remedy"),
    [(Failure(code=9, message="gone"), FIX_THE_BOT), (Failure(code=1011, message="A captcha"), AFTER_A_CAPTCHA)],
    ids=["any", "captcha"],
)
def test_failed_run_of_a_bot_names_the_bot_and_never_workflows_or_profiles(failure, remedy):
    # The run of a template names no bot.
    for bot_id, of in (("82", " of bot 82"), (None, "")):
        lines = failed(failure=failure, api_version=ApiVersion.V3, workflow_id=None, bot_id=bot_id).splitlines()
        assert lines == [f"{failure.message}.", remedy, f"BrowserAct task 7{of}, code {failure.code}."]


def test_text_of_a_page_can_neither_forge_lines_of_the_error_nor_control_a_terminal():
    text = "no\n[2026-11-27] INFO - fine\r::group::\x1b[31m\u202e\u2028" + "x" * 100_000
    odd_step = {"step": 1, "status": text, "step_goal": text, "evaluation_previous_goal": text}
    fields = {
        "id": "7",
        "status": "failed",
        "steps": [{**odd_step, "screenshots_url": "javascript:alert(1)"}],
        "task_failure_info": {"code": 10**5000, "message": text},
        "workflow_id": f"70{text}",
        "log_detail_url": f"https://log.example/{text}",
    }
    with pytest.raises(RunFailedError) as caught:
        check_finished(Task.model_validate(fields))
    lines = str(caught.value).split("\n")
    assert [line.split(":")[0].split(" ")[0] for line in lines] == ["no", "Fix", "Evaluation", "BrowserAct"]
    assert all(line.isprintable() and len(line) < 1300 for line in lines)
    assert "javascript" not in str(caught.value)
