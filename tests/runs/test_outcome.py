from __future__ import annotations

import pytest

from airflow_provider_browseract.api.models import ApiVersion, Failure, Output, Step, Task, TaskStatus
from airflow_provider_browseract.runs.outcome import (
    RunCanceledError,
    RunFailedError,
    RunLostError,
    check_finished,
)


def task(status: TaskStatus, **fields) -> Task:
    return Task(id="7", status=status, workflow_id="70", log_detail_url="https://log.example/7", **fields)


def test_finished_run_passes_the_outcome_check():
    check_finished(task(TaskStatus.FINISHED, output=Output(string='{"a": 1}')))


def test_failed_run_error_names_reason_code_step_screenshot_log_and_remedy():
    steps = (
        Step(1, "succeed", "open the page", None, None),
        Step(2, "failed", "solve the captcha", "the page was open", "https://shots.example/2.png"),
        Step(3, "running", "read the rows", "the captcha stands", None),
    )
    with pytest.raises(RunFailedError) as caught:
        check_finished(task(TaskStatus.FAILED, failure=Failure(1011, "Captcha blocked the run"), steps=steps))
    logged = str(caught.value)
    for part in (
        "task 7 of workflow 70",
        "Captcha blocked the run (code 1011)",
        "At step 2: solve the captcha",
        "Evaluation: the captcha stands",
        "Screenshot: https://shots.example/2.png",
        "Log: https://log.example/7",
        "let the workflow pause for a person at this point",
        "clear the Airflow task",
    ):
        assert part in logged


def test_failed_run_error_shows_the_previous_evaluation_for_an_unjudged_step():
    steps = (Step(1, "failed", "read the rows", "the page was open", None),)
    with pytest.raises(RunFailedError, match="Evaluation of the previous step: the page was open"):
        check_finished(task(TaskStatus.FAILED, steps=steps))


def test_failed_run_with_an_undocumented_code_gets_the_general_remedy():
    with pytest.raises(RunFailedError, match=r"gone \(code 9\)\.\nLog: .*\nFix the workflow or its inputs"):
        check_finished(task(TaskStatus.FAILED, failure=Failure(9, "gone")))


@pytest.mark.parametrize(
    ("failure", "remedy"),
    [
        (Failure(10001, "Navigation timeout"), "The page did not load in time"),
        (Failure(1011, "A captcha could not be solved"), "A captcha stopped the run"),
        (Failure(10001, "The site did not accept the password of ada"), None),
        (Failure(10001, None), None),
        (Failure(1011, "The account is blocked"), None),
        (Failure(4711, "Navigation timeout"), None),
    ],
    ids=str,
)
def test_remedy_is_given_only_if_the_message_of_the_failure_fits_it(failure, remedy):
    with pytest.raises(RunFailedError) as caught:
        check_finished(task(TaskStatus.FAILED, failure=failure))
    last = str(caught.value).splitlines()[-1]
    assert last.startswith(remedy or "Fix the workflow or its inputs")


@pytest.mark.parametrize(
    ("failure", "last"),
    [
        (Failure(9, "gone"), "Fix the bot or its input, and clear the Airflow task that started it."),
        (
            Failure(1011, "A captcha"),
            "A captcha stopped the run: let the bot pause for a person at this point, give it a Standard Browser that "
            "is already logged in, or slow down the bot. Fix the bot or its input, and clear the Airflow task that "
            "started it.",
        ),
    ],
)
def test_failed_run_of_a_bot_names_the_bot_and_never_workflows_or_profiles(failure, last):
    of_bot = Task("7", TaskStatus.FAILED, failure=failure, api_version=ApiVersion.V3, bot_id="82")
    with pytest.raises(RunFailedError) as caught:
        check_finished(of_bot)
    first, *_, given = str(caught.value).splitlines()
    assert first.startswith("BrowserAct task 7 of bot 82 failed: ")
    assert given == last


def test_failed_step_far_before_the_end_of_a_run_is_not_searched_for():
    steps = (Step(1, "failed", "open", None, None), *[Step(2, "succeed", "read", None, None)] * 100_000)
    with pytest.raises(RunFailedError, match="At step 2: read"):
        check_finished(task(TaskStatus.FAILED, steps=steps))


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
        check_finished(Task.read(fields))
    lines = str(caught.value).split("\n")
    assert [line.split(":")[0].split(" ")[0] for line in lines] == ["BrowserAct", "At", "Evaluation", "Fix"]
    assert all(line.isprintable() and len(line) < 1100 for line in lines)
    assert "javascript" not in str(caught.value)


def test_failed_run_error_names_the_last_step_when_no_step_failed():
    steps = (Step(1, "succeed", "open the page", None, None), Step(2, "succeed", "read", None, None))
    with pytest.raises(RunFailedError, match="At step 2: read"):
        check_finished(task(TaskStatus.FAILED, steps=steps))


def test_failed_run_error_states_when_browseract_gave_no_reason():
    with pytest.raises(RunFailedError, match="BrowserAct gave no reason"):
        check_finished(task(TaskStatus.FAILED))


def test_canceled_run_raises_even_when_it_has_an_output():
    with pytest.raises(RunCanceledError, match="was canceled"):
        check_finished(task(TaskStatus.CANCELED, output=Output(string="[]")))


@pytest.mark.parametrize("status", [status for status in TaskStatus if not status.ended])
def test_run_that_has_not_ended_raises_even_when_it_has_an_output(status):
    with pytest.raises(RunLostError, match=f"has the status {status}"):
        check_finished(task(status, output=Output(string="[]")))


def test_failed_run_error_does_not_show_a_signed_screenshot_url():
    steps = (Step(1, "failed", "read", None, "https://shots.example/1.png?X-Amz-Signature=secret"),)
    with pytest.raises(RunFailedError) as caught:
        check_finished(task(TaskStatus.FAILED, steps=steps))
    assert "shots.example" not in str(caught.value)
