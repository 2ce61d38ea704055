from __future__ import annotations

import pytest

from airflow_provider_browseract.api.models import ApiVersion, Failure, Output, Step, Task, TaskStatus
from airflow_provider_browseract.exceptions import RunCanceledError, RunFailedError, RunLostError
from airflow_provider_browseract.runs.outcome import check_finished
from tests.cases import cases


def task(status: TaskStatus, **fields) -> Task:
    return Task(id="7", status=status, workflow_id="70", log_detail_url="https://log.example/7", **fields)


def failed(**fields) -> str:
    with pytest.raises(RunFailedError) as caught:
        check_finished(Task(**{"id": "7", "status": TaskStatus.FAILED, "workflow_id": "70", **fields}))
    return str(caught.value)


@cases(
    ("status", "error"),
    {
        TaskStatus.CANCELED: (TaskStatus.CANCELED, RunCanceledError),
        **{status: (status, RunLostError) for status in TaskStatus if not status.ended},
    },
)
def test_only_a_finished_run_has_a_result_whatever_its_output_is(status, error):
    fields = {"output": Output(string='{"a": 1}')}
    check_finished(task(TaskStatus.FINISHED, **fields))
    what = "was canceled" if status is TaskStatus.CANCELED else f"has the status {status}"
    with pytest.raises(error, match=f"task 7 of workflow 70 {what}.* Log: https://log.example/7"):
        check_finished(task(status, **fields))


def test_failed_run_error_names_reason_code_step_screenshot_log_and_remedy():
    steps = (
        Step(number=1, status="succeed", goal="open the page"),
        Step(
            number=2,
            status="failed",
            goal="solve the captcha",
            evaluation_previous_goal="the page was open",
            screenshots_url="https://shots.example/2.png",
        ),
        Step(number=3, status="running", goal="read the rows", evaluation_previous_goal="the captcha stands"),
    )
    found = failed(
        failure=Failure(code=1011, message="Captcha blocked the run"),
        steps=steps,
        log_detail_url="https://log.example/7",
    )
    assert found == (
        "BrowserAct task 7 of workflow 70 failed: Captcha blocked the run (code 1011).\n"
        "At step 2: solve the captcha\n"
        "Evaluation: the captcha stands\n"
        "Screenshot: https://shots.example/2.png\n"
        "Log: https://log.example/7\n"
        "A captcha stopped the run: let the workflow pause for a person at this point, start with a profile that is "
        "already logged in, or slow down the workflow. Fix the workflow or its inputs, and clear the Airflow task that "
        "started it."
    )


SUCCEEDED = Step(number=1, status="succeed", goal="open the page")


@cases(
    ("steps", "lines"),
    {
        "no step": ((), []),
        "no step failed": ((SUCCEEDED, Step(number=2, status="succeed", goal="read")), ["At step 2: read"]),
        "step that is not judged yet": (
            (Step(number=1, status="failed", goal="read", evaluation_previous_goal="the page was open"),),
            ["At step 1: read", "Evaluation of the previous step: the page was open"],
        ),
        "signed screenshot": (
            (
                Step(
                    number=1,
                    status="failed",
                    goal="read",
                    screenshots_url="https://shots.example/1.png?X-Amz-Signature=secret",
                ),
            ),
            ["At step 1: read"],
        ),
        "failed step long before the end": (
            (Step(number=1, status="failed", goal="open"), *[Step(number=2, status="succeed", goal="read")] * 100_000),
            ["At step 2: read"],
        ),
    },
)
def test_failed_run_error_names_the_step_that_failed_or_the_last_one(steps, lines):
    first, *middle, _ = failed(steps=steps).splitlines()
    assert (first, middle) == ("BrowserAct task 7 of workflow 70 failed: BrowserAct gave no reason.", lines)


@cases(
    ("failure", "remedy"),
    {
        "page": (Failure(code=10001, message="Navigation timeout"), "The page did not load in time"),
        "captcha": (Failure(code=1011, message="A captcha could not be solved"), "A captcha stopped the run"),
        "another message": (Failure(code=10001, message="The site did not accept the password of ada"), None),
        "no message": (Failure(code=10001, message=None), None),
        "message of another code": (Failure(code=1011, message="The account is blocked"), None),
        "another code": (Failure(code=4711, message="Navigation timeout"), None),
    },
)
def test_remedy_is_given_only_if_the_message_of_the_failure_fits_it(failure, remedy):
    assert failed(failure=failure).splitlines()[-1].startswith(remedy or "Fix the workflow or its inputs")


@cases(
    ("failure", "last"),
    {
        "any": (
            Failure(code=9, message="gone"),
            "Fix the bot or its input, and clear the Airflow task that started it.",
        ),
        "captcha": (
            Failure(code=1011, message="A captcha"),
            "A captcha stopped the run: let the bot pause for a person at this point, give it a Standard Browser that "
            "is already logged in, or slow down the bot. Fix the bot or its input, and clear the Airflow task that "
            "started it.",
        ),
    },
)
def test_failed_run_of_a_bot_names_the_bot_and_never_workflows_or_profiles(failure, last):
    # The run of a template names no bot.
    for bot_id, of in (("82", " of bot 82"), (None, "")):
        lines = failed(failure=failure, api_version=ApiVersion.V3, workflow_id=None, bot_id=bot_id).splitlines()
        assert lines == [f"BrowserAct task 7{of} failed: {failure.message} (code {failure.code}).", last]


def test_text_of_a_page_can_neither_forge_lines_of_the_error_nor_control_a_terminal():
    text = "no\n[2026-11-27] INFO - fine\r::group::\x1b[31m\u202e\u2028" + "x" * 100_000
    step = {"step": 1, "status": text, "step_goal": text, "evaluation_previous_goal": text}
    fields = {
        "id": "7",
        "status": "failed",
        "steps": [{**step, "screenshots_url": "javascript:alert(1)"}],
        "task_failure_info": {"code": 10**5000, "message": text},
        "workflow_id": f"70{text}",
        "log_detail_url": f"https://log.example/{text}",
    }
    with pytest.raises(RunFailedError) as caught:
        check_finished(Task.model_validate(fields))
    lines = str(caught.value).split("\n")
    assert [line.split(":")[0].split(" ")[0] for line in lines] == ["BrowserAct", "At", "Evaluation", "Fix"]
    assert all(line.isprintable() and len(line) < 1100 for line in lines)
    assert "javascript" not in str(caught.value)
